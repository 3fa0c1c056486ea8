"""Slices of a history, on histories of any shape: what each one builds on is there, and nothing is left out."""

from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.guard.replica.slices import Pace, brings_head, longest_distance, reached, slices
from codecommit_mirror.guard.vault.bundle_plan import SLICES, plan
from codecommit_mirror.guard.vault.ref_list import RefList

HEAD = "refs/heads/main"


class History:
    """Commits with numbers for ids, each of which has earlier ones as parents; some are tips of branches."""

    def __init__(self, parents, tips):
        self.parents = {f"{number:040x}": [f"{p:040x}" for p in them] for number, them in enumerate(parents)}
        self.refs = RefList.of(
            {f"refs/heads/{tip}": f"{tip:040x}" for tip in tips} | {HEAD: f"{len(parents) - 1:040x}"}
        )

    def reach(self, commits):
        found, todo = set(), list(commits)
        while todo:
            commit = todo.pop()
            if commit not in found:
                found.add(commit)
                todo += self.parents[commit]
        return found

    def at(self, distance):
        """As git tells them: level by level, each commit at its shortest distance."""
        seen, level = set(), set(self.refs.values())
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


@given(histories(), st.integers(-3, 6), st.lists(st.booleans(), max_size=60))
def test_nothing_is_left_out_and_what_each_slice_builds_on_is_there(history, exponent, interruptions):
    kept, saved, unlucky = RefList(), set(), iter(interruptions)

    def write(part):
        nonlocal kept
        there = history.reach(part.prerequisites)
        assert there <= saved
        saved.update(history.reach(part.wants) - there)
        # A restore has a ref on each commit that later ones build on.
        assert set(part.changed.values()) <= saved
        read = (kept if part.prerequisites else RefList()).updated(part.changed, part.deleted)
        assert read.lines == part.refs.lines
        kept = part.refs

    def attempt(pace):
        distance = reached(kept) or longest_distance(history.at) + 1
        for part in slices(history.at, kept, HEAD, distance, pace):
            if next(unlucky, False):
                return False
            write(part)
            pace.exponent += next(unlucky, True)
        for part in plan(history.refs, HEAD, kept, halvings=max(0, -pace.exponent)):
            if next(unlucky, False):
                return False
            write(part)
        return True

    pace = Pace(exponent)
    while not attempt(pace):
        pace.exponent -= 1
    assert kept.lines == history.refs.lines
    assert saved == history.reach(history.refs.values())


def test_a_history_that_is_wider_than_a_bundle_has_prerequisites_is_not_sliced():
    history = History([[], *([0] for _ in range(300)), list(range(1, 301))], [])
    assert [part.wants for part in slices(history.at, RefList(), HEAD, 4, Pace(0))] == [[f"{0:040x}"]]


def test_a_branch_takes_the_place_of_its_slices():
    history = History([[], [0], [1], [2]], [])
    *_, last = slices(history.at, RefList(), HEAD, 5, Pace(0))
    part = brings_head(last.refs, history.refs, HEAD)
    assert part.refs.lines == history.refs.lines
    assert (set(part.deleted), part.prerequisites) == (set(last.refs), tuple(last.refs.values()))
    assert brings_head(RefList(), history.refs, HEAD).prerequisites == ()


def test_the_commits_of_one_distance_come_in_parts_and_what_was_saved_of_them_is_kept():
    history = History([[], *([0] for _ in range(8)), list(range(1, 9))], [])
    parts = list(slices(history.at, RefList(), HEAD, longest_distance(history.at) + 1, Pace(-2)))
    assert [len(part.wants) for part in parts] == [1, 2, 2, 2, 2]
    again = list(slices(history.at, parts[2].refs, HEAD, reached(parts[2].refs), Pace(-2)))
    assert [part.wants for part in again] == [part.wants for part in parts[3:]]
    assert len(again[-1].refs.below(SLICES)) == 8
