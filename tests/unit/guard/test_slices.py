"""Slices of a history, on histories of any shape: what each one builds on is there, and nothing is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.engine.failures import SourceRefused
from codecommit_mirror.guard.replica.known_commits import known_after
from codecommit_mirror.guard.replica.slices import ALL, Attempt, bundles, longest_distance, next_step
from codecommit_mirror.guard.vault.bundle_plan import SLICES, plan
from codecommit_mirror.guard.vault.ref_list import RefList
from codecommit_mirror.guard.vault.state import Goal

HEAD = "refs/heads/main"


class History:
    """Commits with numbers for ids, each of which has earlier ones as parents; some are tips of branches, or tagged."""

    def __init__(self, parents, tips, tags=(), head=None):
        self.parents = {f"{number:040x}": [f"{p:040x}" for p in them] for number, them in enumerate(parents)}
        self.refs = RefList.of(
            {f"refs/heads/{tip}": f"{tip:040x}" for tip in tips}
            | {f"refs/tags/{tip:09}": f"{tip:040x}" for tip in tags}
            | {HEAD: f"{len(parents) - 1 if head is None else head:040x}"}
        )

    def reach(self, commits):
        found, todo = set(), list(commits)
        while todo:
            commit = todo.pop()
            if commit not in found:
                found.add(commit)
                todo += self.parents[commit]
        return found

    def at(self, tip, distance):
        """As git tells them: level by level, each commit at its shortest distance."""
        seen, level = set(), {tip}
        for _ in range(distance - 1):
            seen |= level
            level = {parent for commit in level for parent in self.parents[commit]} - seen
        return sorted(level)


@st.composite
def histories(draw):
    size = draw(st.integers(1, 40))
    parents = [
        draw(st.lists(st.integers(max(0, number - 6), number - 1), max_size=3, unique=True)) if number else []
        for number in range(size)
    ]
    return History(parents, draw(st.lists(st.integers(0, size - 1), max_size=5, unique=True)))


def test_the_longest_distance_is_found_in_few_questions():
    for longest in (0, 1, 2, 3, 1000, 1024, 70_000):
        asked = []
        assert longest_distance(lambda n, last=longest, asked=asked: asked.append(n) or ["x"] * (n <= last)) == longest
        assert len(asked) < 40


class Snapshot:
    """Attempts at a snapshot, each of which is interrupted once its packs have too many commits, or at random."""

    def __init__(self, capacity, interruptions=()):
        self.kept, self.saved, self.interrupted, self.goals = RefList(), set(), 0, ()
        self.capacity, self.unlucky, self.links, self.bytes = capacity, iter(interruptions), 0, 0
        self.commits, self.quick = [], 60

    def attempt(self, history):
        """Return whether it was not interrupted."""
        there = history.reach(history.refs.values())

        def ask(tip, distance):
            if tip not in there:
                raise SourceRefused("not our ref")
            return history.at(tip, distance)

        attempt = Attempt(self.goals, self.quick, lambda goals: setattr(self, "goals", goals), self.commits)
        parts = (
            bundles(history.refs, HEAD, self.kept, ask, attempt)
            if self.interrupted
            else plan(history.refs, HEAD, self.kept, known=self.commits)
        )
        self.interrupted, left = self.interrupted + 1, self.capacity
        for part in parts:
            assert history.reach(part.prerequisites) <= self.saved
            # The server goes by those that it has itself.
            pack = history.reach(part.wants) - history.reach(set(part.prerequisites) & there)
            left -= len(pack)
            if left < 0 or next(self.unlucky, False):
                return False
            self.saved |= pack
            self.links, self.bytes = self.links + 1, self.bytes + len(pack)
            self.commits[:] = known_after(self.commits, part, self.kept, lambda tip: ask(tip, 1))
            assert set(part.changed.values()) <= self.saved
            read = (self.kept if part.prerequisites else RefList()).updated(part.changed, part.deleted)
            assert read.lines == part.refs.lines
            self.kept = part.refs
        self.interrupted, self.goals = 0, ()
        return True


@given(histories(), st.lists(st.booleans(), max_size=60))
def test_nothing_is_left_out_and_what_each_slice_builds_on_is_there(history, interruptions):
    snapshot = Snapshot(1000, interruptions)
    while not snapshot.attempt(history):
        pass
    assert snapshot.kept.lines == history.refs.lines
    assert snapshot.saved == history.reach(history.refs.values())


def line(size, start=0, parent=None):
    """Return the parents of so many commits, one after the other."""
    first = [] if parent is None else [parent]
    return [first, *([number] for number in range(start, start + size - 1))]


def folds(count):
    """A history that is merged again and again with a longer line that begins at its tip."""
    parents = line(20)
    for number in range(count):
        tip, first = len(parents) - 1, len(parents)
        parents = [*parents, *line(22 + 2 * number, first, tip)]
        parents.append([tip, len(parents) - 1])
    return parents


def wide_at(longest):
    """A history with 260 commits abreast wherever the distance from before the farthest commit is a power of two."""
    parents, before = [], []
    for level in range(1, longest + 1):
        first = len(parents)
        if level & (level - 1):
            parents.append(before)
        else:
            parents += [[before[n % len(before)]] if before else [] for n in range(260)]
        before = list(range(first, len(parents)))
    return parents


SHAPES = {
    "one line": (line(1000), []),
    "branches everywhere": (line(1000), range(0, 1000, 10)),
    "a branch of its own": (line(600) + line(600, 600), [599]),
    "16 branches of their own": (
        [parents for number in range(17) for parents in line(200, 200 * number)],
        range(199, 3300, 200),
    ),
    "merges": (
        [[], *(p for n in range(1, 600, 6) for p in ([n - 1], [n], [n + 1], [n - 1], [n + 3], [n + 4, n + 2]))],
        [],
    ),
    "a long line merged with what it began at": ([*line(500), *line(900, 500, 499), [499, 1399]], []),
    "two of them": ([*line(300), *line(500, 300, 299), [299, 799], *line(700, 801, 800), [800, 1500]], []),
    "thirty folds": (folds(30), []),
    "wide at the distances that are asked for": (wide_at(128), []),
    "100 lines abreast": ([[], *([0] for _ in range(100)), *([n] for n in range(1, 2001)), [*range(1901, 2001)]], []),
}


CAPACITY = {"wide at the distances that are asked for": 400}


def rewritten(number, parents, tips):
    """Once, nothing of what was there is there any longer, but the first two hundred commits."""
    return (parents + line(600, len(parents), 199), tips) if number == 6 else (parents, tips)


def longer(number, parents, tips):
    """A commit before each attempt."""
    return parents + [[len(parents) - 1]] * (number > 0), tips


def another_branch(number, parents, tips):
    """A branch somewhere before each attempt."""
    return parents, [*tips, number * len(parents) // 150]


def unchanged(number, parents, tips):
    return parents, tips


def attempts(snapshot, histories):
    """Attempt until a snapshot is complete, and return how many it took."""
    for number, history in enumerate(histories, 1):
        if snapshot.attempt(history):
            assert snapshot.kept.lines == history.refs.lines
            assert snapshot.saved >= history.reach(history.refs.values())
            return number
    raise AssertionError("never complete")


def test_what_only_tags_reach_comes_once():
    """A line of 600 with a tag on every tenth commit, and no branch; each tag that comes later brings what is new."""
    parents = [*line(150), *line(600, 150)]
    tags = list(range(159, 750, 10))
    snapshot = Snapshot(120)
    assert attempts(snapshot, [History(parents, [], tags, head=149)] * 50) < 40
    assert snapshot.bytes == len(snapshot.saved) == 750
    for number in range(750, 753):
        parents = [*parents, [number - 1]]
        tags = [*tags, number]
        assert attempts(snapshot, [History(parents, [], tags, head=149)]) == 1
    assert snapshot.bytes == 753


def test_each_of_many_tags_brings_its_own_commit_only():
    parents = [*line(150), *line(40, 150), *([189] for _ in range(1000))]
    snapshot = Snapshot(120)
    assert attempts(snapshot, [History(parents, [], range(190, 1190), head=149)] * 60) < 50
    assert snapshot.bytes <= 1.2 * len(parents)


def test_a_branch_that_is_rewritten_before_each_attempt_costs_what_is_new():
    """A tag keeps what it was, as the archive does."""
    parents, tags, snapshot = line(600), [], Snapshot(120)

    def histories():
        nonlocal parents
        for _ in range(60):
            tags.append(len(parents) - 1)
            parents = [*parents, [500]]
            yield History(parents, [], tags)

    assert attempts(snapshot, histories()) < 40
    assert snapshot.bytes <= 1.3 * len(snapshot.saved)


def test_a_wide_place_is_stepped_over():
    """Also where no slice is ever quick, so that none grows."""
    parents = [*line(31), *([30] for _ in range(5001)), list(range(31, 5032)), *line(30, 5033, 5032)]
    snapshot = Snapshot(5003)
    snapshot.quick = 0
    assert attempts(snapshot, [History(parents, [])] * 60) < 50


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("meanwhile", [unchanged, rewritten, longer, another_branch])
def test_what_is_too_large_for_an_attempt_is_kept_by_some_dozens(shape, meanwhile):
    snapshot = Snapshot(CAPACITY.get(shape, 120))

    def meanwhile_histories():
        parents, tips = SHAPES[shape]
        for number in range(150):
            parents, tips = meanwhile(number, parents, list(tips))
            yield History(parents, tips)

    attempts(snapshot, meanwhile_histories())
    # Nothing is fetched over and over again.
    assert snapshot.bytes <= 1.3 * len(snapshot.saved)
    assert snapshot.links < 400


def test_a_level_of_too_many_commits_for_a_manifest_is_not_a_slice():
    history = History([[], *([0] for _ in range(5001)), list(range(1, 5002))], [])
    goal = Goal(HEAD, history.refs[HEAD], 0)
    first, _ = next_step(goal, RefList(), HEAD, history.at)
    assert first.wants == [f"{0:040x}"]
    whole, _ = next_step(goal, first.refs, HEAD, history.at)
    assert whole.wants == [history.refs[HEAD]]


def test_a_ref_takes_the_place_of_its_slices_and_of_what_others_have_left():
    history = History([[], [0], [1], [2]], [])
    left = f"{SLICES}{9:040x}/000000002/{7:040x}"
    kept, goal = RefList.of({left: f"{7:040x}"}), Goal(HEAD, history.refs[HEAD], 0)
    for _ in range(3):
        part, _ = next_step(goal, kept, HEAD, history.at)
        assert len(part.refs.below(SLICES)) == 2
        kept = part.refs
    last, _ = next_step(goal, kept, HEAD, history.at)
    assert last.refs.lines == history.refs.lines
    # Its own slices are the first that it builds on.
    assert last.prerequisites == (f"{2:040x}", f"{7:040x}")


def test_the_slices_of_histories_that_are_gone_do_not_add_up():
    left = RefList.of({f"{SLICES}{9:040x}/000000002/{n:040x}": f"{n:040x}" for n in range(300)})
    history = History(line(20), [])
    attempt = Attempt((Goal(HEAD, "9" * 40, 0),), 60, lambda goals: None)

    def ask(tip, distance):
        if tip == "9" * 40:
            raise SourceRefused("not our ref")
        return history.at(tip, distance)

    parts = list(bundles(history.refs, HEAD, left, ask, attempt))
    assert [(len(part.refs.below(SLICES)), part.wants) for part in parts[:2]] == [(0, []), (0, [history.refs[HEAD]])]


def test_the_commits_of_one_distance_come_in_parts_and_what_was_saved_of_them_is_kept():
    history = History([[], *([0] for _ in range(8)), list(range(1, 9))], [])
    kept, sizes = RefList(), []
    for _ in range(5):
        part, exponent = next_step(Goal(HEAD, history.refs[HEAD], -2), kept, HEAD, history.at, may_divide=False)
        kept, sizes = part.refs, [*sizes, len(part.wants)]
    assert (sizes, exponent, len(kept.below(SLICES))) == ([1, 2, 2, 2, 2], -2, 8)


def test_a_commit_that_is_too_large_by_itself_comes_in_slices_before_the_others():
    history = History([[], [0], [1], [2], [2, 3]], [])
    step = next_step(Goal(HEAD, history.refs[HEAD], -1), RefList(), HEAD, history.at)
    (level,) = history.at(history.refs[HEAD], 4)
    assert step == Goal(f"{SLICES}{history.refs[HEAD]}/000000004/{level}", level, ALL - 1)
    assert not isinstance(
        next_step(Goal(HEAD, history.refs[HEAD], -1), RefList(), HEAD, history.at, may_divide=False), Goal
    )


def test_one_commit_of_the_widest_level_can_be_too_large_by_itself():
    wide = [[], *([0] for _ in range(5000)), list(range(1, 5001))]
    goal = Goal(HEAD, History(wide, []).refs[HEAD], 0)
    kept = RefList.of({f"{SLICES}{goal.commit}/000000003/{0:040x}": f"{0:040x}"})
    noted, history = [goal], History(wide, [])
    for _ in range(20):
        attempt = Attempt(noted, 60, lambda goals: noted.__setitem__(slice(None), goals))
        next(bundles(history.refs, HEAD, kept, history.at, attempt))
    assert [one.ref for one in noted][:2] == [HEAD, f"{SLICES}{goal.commit}/000000002/{1:040x}"]
