"""Cuts through a replica's history, so that what is too large for one pack comes in slices, the oldest first.

The distance of a commit is the number of commits from the tip to it, both included. What the commits at one
distance reach is everything that is as far away or farther (gitprotocol-pack, "deepen").

A goal stays what it is until it is reached, whatever is pushed meanwhile, so that its distances stay what they are.
Where one commit at a distance is too large by itself, since it reaches what is near the tip too, it becomes a goal
before the others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...engine.failures import MirrorFailure, PackRefused, RetryableError, SourceRefused
from ...engine.settings import Endpoint
from ...engine.wire.protocol import offered, pkt_line, split_pkt_lines
from ...engine.wire.transport import read_body, send
from ..vault.bundle_plan import MAX_PREREQUISITES, SLICES, BundlePlan, first_of, plan, prerequisites
from ..vault.ref_list import RefList
from ..vault.state import Goal

_NEEDED = ("shallow", "allow-reachable-sha1-in-want")


def can_be_sliced(capabilities: Sequence[str]) -> bool:
    """Whether a server tells distances, and gives out what no ref points at."""
    return len(offered(capabilities, *_NEEDED)) == len(_NEEDED)


def commits_at(endpoint: Endpoint, capabilities: Sequence[str], tip: str, distance: int) -> list[str]:
    """Return the commits at a distance from a tip; none if its history ends before it.

    Raises:
        SourceRefused: the replica does not have the tip, or no ref of its reaches it any more.
        RetryableError, MirrorFailure: it does not say.
    """
    words = "".join(f" {word}" for word in offered(capabilities, "multi_ack_detailed", "side-band-64k", "shallow"))
    # Nothing is had, and nothing is done: so the server only says where the history would end.
    body = pkt_line(f"want {tip}{words}\n".encode()) + pkt_line(f"deepen {distance}".encode()) + b"0000"
    kind = "application/x-git-upload-pack"
    headers = {"Content-Type": f"{kind}-request", "Accept": f"{kind}-result"}
    answer = read_body(endpoint, send(endpoint, "POST", "/git-upload-pack", headers, [body], len(body)))
    try:
        lines = [line.decode("ascii", "replace").split() for line in split_pkt_lines(answer)]
    except ValueError as error:
        raise RetryableError(f"the replica's answer was cut short ({error})") from None
    if any(words[:1] == ["ERR"] for words in lines):
        raise SourceRefused("the replica does not say where the history would end")
    return sorted(words[1] for words in lines if words[:1] == ["shallow"] and len(words) == 2)


def tells_nothing(tip: str, distance: int) -> list[str]:  # noqa: ARG001
    """Return no commits, as for a server that tells no distances: all that it has comes whole."""
    return []


def longest_distance(ask: Callable[[int], Sequence[str]]) -> int:
    """Return the distance of the farthest commit.

    Args:
        ask: returns the commits at a distance.
    """
    beyond = 1
    while ask(beyond):
        beyond *= 2
    there = beyond // 2
    while there + 1 < beyond:
        middle = (there + beyond) // 2
        there, beyond = (middle, beyond) if ask(middle) else (there, middle)
    return there


ALL = 64
"""An exponent that stands for the whole history."""
_MOST_GOALS = 500
_MAX_LEFT_OVER = MAX_PREREQUISITES // 2
"""Of refs on slices of a history that is gone."""
_MAX_LEVEL = 5_000
"""Of the commits at one distance: so many names fit into a manifest. Of those before it a bundle builds on 500."""
_SMALLEST = -1 - _MAX_LEVEL.bit_length()
"""Of the exponents: at it, one commit of any level was too large by itself."""
_MAX_LOOKED_AT = 20
"""Of the farthest commits."""
Ask = Callable[[str, int], Sequence[str]]
"""Returns the commits at a distance from a tip."""


@dataclass(frozen=True)
class Attempt:
    """An attempt at a snapshot after others that were interrupted."""

    goals: Sequence[Goal]
    """What they have begun with and not reached; each is needed for the one before it."""
    quick: float
    """Seconds; a slice that takes fewer doubles the next one."""
    note: Callable[[Sequence[Goal]], object]
    """Is told what the next attempt goes on with, if this one is interrupted."""
    known: Sequence[str] = ()
    """Other commits that bundles can build on: read before each."""


def place_of(goal: Goal) -> str:
    """Return where the refs of the slices of a goal's history are."""
    return f"{SLICES}{goal.commit}/"


def bundles(refs: RefList, head: str | None, base: RefList, ask: Ask, attempt: Attempt) -> Iterator[BundlePlan]:
    """Yield the bundles of a snapshot after an interruption: the ref at which that was, by itself, and the others.

    It comes whole at first, and in slices of its history if that was interrupted. One ref at a time, since distances
    from several are short wherever one of them is near. The others come in groups that grow while they are quick, and
    the first ref of one that was interrupted comes by itself in the next attempt: so what is too large is soon alone.

    Args:
        refs: the replica's.
        head: the default branch.
        base: the refs that are kept already.
        ask: returns the commits at a distance from a tip.
        attempt: what earlier attempts have come to.
    """
    goals, kept = list(attempt.goals), base
    if not all(_is_there(ask, goal) for goal in goals):
        goals = []
    if not goals:
        left_over = list(base.below(SLICES))
        if len(left_over) > _MAX_LEFT_OVER:
            # A history had them that is gone; they would take the place of other prerequisites.
            yield (part := _forgets(left_over, kept, head))
            kept = part.refs
        name = first_of(refs.since(kept)[0], head)
        goals = [Goal(name, refs[name], ALL)] if name else []
    for part in _reach(goals, kept, head, ask, attempt):
        yield part
        kept = part.refs
    sizes = [1]
    for part in plan(refs, head, kept, lambda: sizes[-1], attempt.known):
        new = next(((name, value) for name, value in part.changed.items() if kept.get(name) != value), None)
        attempt.note([Goal(*new, ALL)] if new else [])
        began = time.monotonic()
        yield part
        kept = part.refs
        sizes.append(sizes[-1] << (time.monotonic() - began < attempt.quick))


def _is_there(ask: Ask, goal: Goal) -> bool:
    """Whether the replica still gives out a goal's commit."""
    try:
        ask(goal.commit, 1)
    except (SourceRefused, PackRefused, MirrorFailure):
        return False
    return True


def _reach(goals: list[Goal], kept: RefList, head: str | None, ask: Ask, attempt: Attempt) -> Iterator[BundlePlan]:
    """Yield the bundles that bring goals, the last one first, at a pace that goes by how long each one takes."""
    is_first = True
    while goals:
        if kept.get(goals[-1].ref) == goals[-1].commit:
            goals.pop()
            # The one that needed it was too large with it, and is still not tried whole.
            goals[-1:] = [goal._replace(exponent=min(goal.exponent + 1, ALL - 1)) for goal in goals[-1:]]
            continue
        step = next_step(goals[-1], kept, head, ask, attempt.known, may_divide=len(goals) < _MOST_GOALS)
        if isinstance(step, Goal):
            goals.append(step)
            continue
        part, exponent = step
        # One that comes late in an attempt may be interrupted since it is late, and not since it is large.
        smaller = exponent - 1 if is_first or exponent > 0 else exponent
        attempt.note([*goals[:-1], goals[-1]._replace(exponent=max(_SMALLEST, smaller))])
        began = time.monotonic()
        yield part
        kept, is_first = part.refs, False
        goals[-1] = goals[-1]._replace(exponent=exponent + (time.monotonic() - began < attempt.quick))


def next_step(
    goal: Goal, kept: RefList, head: str | None, ask: Ask, known: Sequence[str] = (), *, may_divide: bool = True
) -> Goal | tuple[BundlePlan, int]:
    """Return the next bundle on the way to a goal, with its exponent, or a goal that comes before it.

    A slice has refs of its own on the commits that later ones build on: their names tell the distance that they have.
    A history is not divided where it is too wide.

    Args:
        goal: what to bring.
        kept: the refs that are kept already.
        head: the default branch.
        ask: returns the commits at a distance from a tip.
        known: other commits that it can build on.
        may_divide: whether there may be more goals.
    """
    if goal.exponent >= ALL:
        return _brings(goal, kept, head, known), ALL
    place = place_of(goal)
    levels = _levels(kept, place)
    distance = min(levels, default=0) or longest_distance(lambda number: ask(goal.commit, number)) + 1
    exponent = min(goal.exponent, max(0, distance.bit_length() - 2))
    level = list(ask(goal.commit, distance))
    todo = [commit for commit in level if commit not in levels.get(distance, ())]
    if not levels and may_divide and (folded := _folded(lambda commit: ask(commit, 2), ask(goal.commit, distance - 1))):
        return Goal(f"{place}{distance - 1:09}/{folded}", folded, ALL - 1)
    if not todo:
        distance, level = _next_level(lambda number: ask(goal.commit, number), distance, exponent)
        todo = level
    if not todo:
        return _brings(goal, kept, head, known), exponent
    parts, here = 1 << max(0, -exponent), f"{place}{distance:09}/"
    if may_divide and parts // 2 >= len(level):
        # It was too large by itself.
        return Goal(f"{here}{todo[0]}", todo[0], ALL - 1)
    some = todo[: -(-len(level) // parts)]
    # Those of the distance before are needed until all of this one are there.
    gone = [name for name in kept.below(place) if len(some) == len(todo) and not name.startswith(here)]
    return _part({f"{here}{commit}": commit for commit in some}, gone, place, kept, head, known), exponent


def _folded(parents: Callable[[str], Sequence[str]], farthest: Sequence[str]) -> str | None:
    """Return one of the farthest commits that has parents, which are nearer to the tip: with it comes what they reach.

    Args:
        parents: returns a commit's.
        farthest: the commits at the longest distance.
    """
    return next((commit for commit in farthest[:_MAX_LOOKED_AT] if parents(commit)), None)


def _next_level(ask: Callable[[int], Sequence[str]], distance: int, exponent: int) -> tuple[int, list[str]]:
    """Return a distance nearer to the tip, and its commits; none if what is left has to come whole.

    Where there are too many commits, a smaller step or a larger one may lead past them.
    """
    size = max(0, exponent)
    for step in (*range(size, -1, -1), *range(size + 1, distance.bit_length())):
        nearer = distance - (1 << step)
        if nearer <= 1:
            break
        level = list(ask(nearer))
        if len(level) <= _MAX_LEVEL:
            return nearer, level
    return 1, []


def _levels(kept: RefList, place: str) -> dict[int, set[str]]:
    """Return the commits that slices have brought, by their distances."""
    levels: dict[int, set[str]] = {}
    for name, commit in kept.below(place).items():
        if match := re.fullmatch("([0-9]{9})/[0-9a-f]{40}", name.removeprefix(place)):
            levels.setdefault(int(match[1]), set()).add(commit)
    return levels


def _brings(goal: Goal, kept: RefList, head: str | None, known: Sequence[str]) -> BundlePlan:
    """Return the bundle that ends the slices of a goal: its ref, in place of those that the slices have.

    With what is not needed for another goal, all of them go.
    """
    place = place_of(goal)
    gone = list(kept.below(place if goal.ref.startswith(SLICES) else SLICES))
    return _part({goal.ref: goal.commit}, gone, place, kept, head, known)


def _forgets(names: Sequence[str], kept: RefList, head: str | None) -> BundlePlan:
    """Return a bundle without objects, with which some slices go."""
    return BundlePlan(kept.updated(RefList(), names), RefList(), names, [], prerequisites(kept, RefList(), head), False)


def _part(
    changed: dict[str, str], gone: Sequence[str], place: str, kept: RefList, head: str | None, known: Sequence[str]
) -> BundlePlan:
    brought = RefList.of(changed)
    bases = prerequisites(kept, brought, head, place, known)
    after = (kept if bases else RefList()).updated(brought, gone)
    return BundlePlan(after, brought, gone, list(changed.values()), bases, complete=False)
