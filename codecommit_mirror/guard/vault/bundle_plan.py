"""Which bundles a snapshot consists of, as a function of the refs that there were and those that there are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .manifest import MAX_DELETED_BYTES, weight
from .ref_list import RefList

MAX_PREREQUISITES = 500
SLICES = "refs/codecommit-mirror/slices/"
"""Where a large replica's snapshot has refs on commits of its history until it is complete: no ref of a replica is."""
_MAX_HALVINGS = 8


@dataclass(frozen=True)
class BundlePlan:
    """One bundle to write."""

    refs: RefList
    """Every ref that the replica's snapshots have once this part is written."""
    changed: RefList
    """Those of them that the bundle brings."""
    deleted: Sequence[str]
    """The names that go."""
    wants: Sequence[str]
    prerequisites: Sequence[str]
    """Commits that the bundle builds on; none for a full one, which brings all refs."""
    complete: bool


def plan(refs: RefList, head: str | None, base: RefList, *, halvings: int) -> Iterator[BundlePlan]:
    """Split a snapshot into bundles, usually one: each has all refs that are kept by then, so they come one by one.

    Args:
        refs: the replica's refs.
        head: its default branch.
        base: the last snapshot's refs, complete or not; none if a new chain starts.
        halvings: how often attempts were interrupted; each time the refs are kept in twice as many bundles, so that a
            replica that is too large for one invocation is kept by several.
    """
    changed, deleted = refs.since(base)
    # What goes comes first, so that a name has gone when one below it comes.
    parts = [(RefList(), names) for names in _by_weight(deleted)]
    groups = _groups(changed, head, halvings)
    parts = [*parts[:-1], (groups[0], parts[-1][1]), *((group, []) for group in groups[1:])]
    before = base
    for number, (group, names) in enumerate(parts, 1):
        is_last = number == len(parts)
        after = refs if is_last else before.updated(group, names)
        bases = prerequisites(before, group, head)
        if bases:
            yield BundlePlan(after, group, names, _new_ids(group, before), bases, is_last)
        else:
            yield BundlePlan(after, after, [], _new_ids(after, RefList()), (), is_last)
        before = after


def _by_weight(names: Sequence[str]) -> list[list[str]]:
    """Return names in groups that a manifest has room for, at least one group."""
    groups: list[list[str]] = [[]]
    left = MAX_DELETED_BYTES
    for name in names:
        if weight([name]) > left:
            groups.append([])
            left = MAX_DELETED_BYTES
        groups[-1].append(name)
        left -= weight([name])
    return groups


def _groups(changed: RefList, head: str | None, halvings: int) -> list[RefList]:
    """Return the refs in groups, the default branch and other branches first."""
    if not halvings:
        return [changed]
    order = sorted(changed, key=lambda name: (name != head, not name.startswith("refs/heads/"), name))
    size = max(1, -(-len(order) // 2 ** min(halvings, _MAX_HALVINGS)))
    starts = range(0, len(order), size) or [0]
    return [RefList.of({name: changed[name] for name in order[start : start + size]}) for start in starts]


def _new_ids(group: RefList, before: RefList) -> list[str]:
    """Return the ids that a group of refs has and the refs before it have not, each once."""
    ids = dict.fromkeys(group.values())
    for value in before.values():
        ids.pop(value, None)
    return list(ids)


def prerequisites(available: RefList, group: RefList, head: str | None) -> tuple[str, ...]:
    """Return commits that a bundle can build on: slices, and tips of branches, first those that it brings.

    Only these are certain to be commits, as a prerequisite must be.

    Args:
        available: the refs whose objects earlier bundles have.
        group: the refs that it brings.
        head: the default branch.
    """
    branches = available.below("refs/heads/")
    names = itertools.chain(group.below("refs/heads/"), [head] if head else [])
    first = (branches[name] for name in names if name in branches)
    found: dict[str, None] = {}
    for value in itertools.chain(available.below(SLICES).values(), first, branches.values()):
        if len(found) == MAX_PREREQUISITES:
            break
        found[value] = None
    return tuple(found)
