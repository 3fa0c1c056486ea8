"""Which bundles a snapshot consists of, as a function of the refs that there were and those that there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from .manifest import MAX_DELETED_BYTES, Manifest, parse_time, weight
from .ref_list import RefList

_Item = TypeVar("_Item")
MAX_PREREQUISITES = 500
SLICES = "refs/codecommit-mirror/slices/"
"""Where a large replica's snapshot has refs on commits of its history until it is complete: no ref of a replica is."""
_LONGEST_CHAIN = 1500
"""A chain gets no longer but by what one attempt writes: each reads all of it."""
_MAX_WANTS = 100_000
"""In one request: stock git refuses requests of more than 10 MB (``http.maxRequestBuffer``)."""


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


def starts_chain(last: Manifest | None, now: datetime, full_every: timedelta) -> bool:
    """Decide whether the next snapshot starts a new chain, with a full bundle.

    One also starts where the last snapshot has no branch that a bundle could build on: see ``prerequisites``.

    Args:
        last: the last snapshot, complete or not; a chain does not end with one that is not, unless it has become too
            long to be read by each invocation.
        now: the time.
        full_every: how old a chain becomes.
    """
    if last is None or last.chain_length >= _LONGEST_CHAIN:
        return True
    return last.complete and now - parse_time(last.chain_started) >= full_every


def plan(
    refs: RefList,
    head: str | None,
    base: RefList,
    sizes: Callable[[], int] | None = None,
    known: Sequence[str] = (),
) -> Iterator[BundlePlan]:
    """Split a snapshot into bundles, usually one: each has all refs that are kept by then, so they come one by one.

    Args:
        refs: the replica's refs.
        head: its default branch.
        base: the last snapshot's refs, complete or not; none if a new chain starts.
        sizes: after interruptions, returns how many refs the next bundle brings; without it, one brings all.
        known: is read before each bundle; see ``prerequisites``.
    """
    changed, deleted = refs.since(base)
    kept = base
    for (group, names), is_last in _marked(_steps(changed, deleted, head, sizes)):
        bases = prerequisites(kept, group, head, known=known)
        wants = _new_ids(group, kept) if bases else []
        # The list before this one takes no memory while the part is written.
        kept = refs if is_last else kept.updated(group, names)
        if bases:
            yield BundlePlan(kept, group, names, wants, bases, is_last)
        else:
            yield BundlePlan(kept, kept, [], _new_ids(kept, RefList()), (), is_last)


def _steps(
    changed: RefList, deleted: RefList, head: str | None, sizes: Callable[[], int] | None
) -> Iterator[tuple[RefList, list[str]]]:
    """Yield the refs that each part brings, and the names that go with it.

    What goes comes first, so that a name has gone when one below it comes; but for slices, which all parts may build
    on. One part is made at a time, since the refs of a replica may take much of the memory.
    """
    names: list[str] = []
    left = MAX_DELETED_BYTES
    first, end = deleted.span(SLICES)
    for name in itertools.chain(deleted.part(0, first), deleted.part(end, len(deleted))):
        size = weight([name])
        if size > left:
            yield RefList(), names
            names, left = [], MAX_DELETED_BYTES
        names.append(name)
        left -= size
    for group, is_last in _marked(_groups(changed, head, sizes)):
        yield group, [*names, *deleted.below(SLICES)] if is_last else names
        names = []


def _marked(items: Iterator[_Item]) -> Iterator[tuple[_Item, bool]]:
    """Yield what there is, at least one, each with whether it is the last one."""
    item = next(items)
    for following in items:
        yield item, False
        item = following
    yield item, True


def _groups(changed: RefList, head: str | None, sizes: Callable[[], int] | None) -> Iterator[RefList]:
    """Yield the refs in groups, at least one: the default branch, the other branches, and what else there is."""
    if len(changed) < 2 or (sizes is None and len(changed) <= _MAX_WANTS):
        yield changed
        return
    if head and head in changed:
        yield RefList.of({head: changed[head]})
    first, end = changed.span("refs/heads/")
    for begin, stop in ((first, end), (0, first), (end, len(changed))):
        while begin < stop:
            after = min(begin + min(sizes() if sizes else _MAX_WANTS, _MAX_WANTS), stop)
            yield changed.part(begin, after)
            begin = after


def first_of(changed: RefList, head: str | None) -> str | None:
    """Return the ref that comes first: the default branch, another branch, or any other; None if there is none."""
    if head and head in changed:
        return head
    return next(iter(changed.below("refs/heads/")), None) or next(iter(changed), None)


def _new_ids(group: RefList, before: RefList) -> list[str]:
    """Return the ids that a group of refs has and the refs before it have not, each once."""
    ids = dict.fromkeys(group.values())
    for value in before.values():
        ids.pop(value, None)
    return list(ids)


def prerequisites(
    available: RefList, group: RefList, head: str | None, place: str = SLICES, known: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return commits that a bundle can build on: slices, and tips of branches, first those that it brings.

    Only these are certain to be commits, as a prerequisite must be.

    Args:
        available: the refs whose objects earlier bundles have.
        group: the refs that it brings.
        head: the default branch.
        place: where the slices are that come before all others.
        known: other commits whose objects earlier bundles have, the newest last.
    """
    branches = available.below("refs/heads/")
    names = itertools.chain(group.below("refs/heads/"), [head] if head else [])
    first = (branches[name] for name in names if name in branches)
    found: dict[str, None] = {}
    slices = (available.below(prefix).values() for prefix in (place, SLICES))
    for value in itertools.chain(next(slices), first, next(slices), reversed(known), branches.values()):
        if len(found) == MAX_PREREQUISITES:
            break
        found[value] = None
    return tuple(found)
