"""Slices of a history, on histories of any shape: what each one builds on is there, and nothing is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.guard.replica.slices import (
    Attempt,
    Pace,
    brings,
    bundles,
    longest_distance,
    place_of,
    reached,
    slices,
)
from codecommit_mirror.guard.vault.bundle_plan import SLICES, plan
from codecommit_mirror.guard.vault.ref_list import RefList

HEAD = "refs/heads/main"
PLACE = place_of(HEAD)


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

    def at_main(self, distance):
        """The commits at a distance from the default branch's tip."""
        return self.at(self.refs[HEAD], distance)

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
    """Attempts at a snapshot, each of which is interrupted by a pack of too many commits, or at random."""

    def __init__(self, capacity, interruptions=()):
        self.kept, self.saved, self.interrupted, self.exponent = RefList(), set(), 0, None
        self.capacity, self.unlucky = capacity, iter(interruptions)

    def attempt(self, history):
        """Return whether it was not interrupted."""
        attempt = Attempt(self.interrupted, self.exponent, 60, lambda exponent: setattr(self, "exponent", exponent))
        parts = (
            bundles(history.refs, HEAD, self.kept, history.at, attempt)
            if self.interrupted
            else plan(history.refs, HEAD, self.kept, halvings=0)
        )
        self.interrupted += 1
        for part in parts:
            there = history.reach(part.prerequisites)
            assert there <= self.saved
            pack = history.reach(part.wants) - there
            if len(pack) > self.capacity or next(self.unlucky, False):
                return False
            self.saved |= pack
            # A restore has a ref on each commit that later ones build on.
            assert set(part.changed.values()) <= self.saved
            read = (self.kept if part.prerequisites else RefList()).updated(part.changed, part.deleted)
            assert read.lines == part.refs.lines
            self.kept = part.refs
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
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("meanwhile", [None, "rewritten", "longer", "a new branch each time"])
def test_what_is_too_large_for_an_attempt_is_kept_by_some_dozens(shape, meanwhile):
    parents, tips = SHAPES[shape]
    snapshot, size, tips = Snapshot(60), len(parents), list(tips)
    for number in range(150):
        if number == 6 and meanwhile in ("rewritten", "longer"):
            parents = parents + line(600, len(parents), len(parents) - 1 if meanwhile == "longer" else None)
        if number and number < 60 and meanwhile == "a new branch each time":
            tips = [*tips, number * size // 60]
        history = History(parents, tips)
        if snapshot.attempt(history):
            break
    assert snapshot.kept.lines == history.refs.lines
    assert snapshot.saved >= history.reach(history.refs.values())


def test_a_history_that_is_wider_than_a_bundle_has_prerequisites_is_not_sliced():
    history = History([[], *([0] for _ in range(300)), list(range(1, 301))], [])
    assert [part.wants for part in slices(history.at_main, RefList(), PLACE, HEAD, 4, Pace(0))] == [[f"{0:040x}"]]


def test_a_branch_takes_the_place_of_its_slices():
    history = History([[], [0], [1], [2]], [])
    *_, last = slices(history.at_main, RefList(), PLACE, HEAD, 5, Pace(0))
    part = brings(HEAD, last.refs, history.refs, HEAD)
    assert part.refs.lines == history.refs.lines
    assert (set(part.deleted), part.prerequisites) == (set(last.refs), tuple(last.refs.values()))
    assert brings(HEAD, RefList(), history.refs, HEAD).prerequisites == ()
    # Those of another ref, which is not there yet, are kept.
    other = brings("refs/heads/0", last.refs, RefList.of({"refs/heads/0": f"{1:040x}"}), HEAD)
    assert (other.deleted, len(other.refs.below(PLACE))) == ([], len(last.refs))


def test_the_commits_of_one_distance_come_in_parts_and_what_was_saved_of_them_is_kept():
    history = History([[], *([0] for _ in range(8)), list(range(1, 9))], [])
    parts = list(
        slices(
            history.at_main,
            RefList(),
            PLACE,
            HEAD,
            longest_distance(history.at_main) + 1,
            Pace(-2),
        )
    )
    assert [len(part.wants) for part in parts] == [1, 2, 2, 2, 2]
    again = list(slices(history.at_main, parts[2].refs, PLACE, HEAD, reached(parts[2].refs, PLACE), Pace(-2)))
    assert [part.wants for part in again] == [part.wants for part in parts[3:]]
    assert len(again[-1].refs.below(SLICES)) == 8
