"""Cuts through a replica's history, so that what is too large for one pack comes in slices, the oldest first.

The distance of a commit is the number of commits from the tip to it, both included. What the commits at one
distance reach is everything that is as far away or farther (gitprotocol-pack, "deepen").
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ...engine.failures import RetryableError
from ...engine.settings import Endpoint
from ...engine.text import to_bytes
from ...engine.wire.protocol import offered, pkt_line, split_pkt_lines
from ...engine.wire.transport import read_body, send
from ..vault.bundle_plan import MAX_PREREQUISITES, SLICES, BundlePlan, first_of, plan, prerequisites
from ..vault.ref_list import RefList

_NEEDED = ("shallow", "allow-reachable-sha1-in-want")


def can_be_sliced(capabilities: Sequence[str]) -> bool:
    """Whether a server tells distances, and gives out what no ref points at."""
    return len(offered(capabilities, *_NEEDED)) == len(_NEEDED)


def commits_at(endpoint: Endpoint, capabilities: Sequence[str], tip: str, distance: int) -> list[str]:
    """Return the commits at a distance from a tip; none if its history ends before it.

    Raises:
        RetryableError, MirrorFailure: the replica does not say.
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
        raise RetryableError("the replica does not say where its history would end")
    return sorted(words[1] for words in lines if words[:1] == ["shallow"] and len(words) == 2)


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
"""Of a pace: more distances than any history has."""
SMALLEST = -12
"""Of a pace: a part of one distance's commits that is one commit, however many there are."""


@dataclass
class Pace:
    """How much of the history the next slice takes: 2 ** ``exponent`` distances, or that part of one's commits."""

    exponent: int

    @property
    def distances(self) -> int:
        """How many distances a slice covers."""
        return 1 << max(0, self.exponent)

    @property
    def parts(self) -> int:
        """In how many slices the commits of one distance come."""
        return 1 << max(0, -self.exponent)


def place_of(name: str) -> str:
    """Return where the refs of the slices of a ref's history are, while others may have some of their own."""
    return f"{SLICES}{hashlib.sha256(to_bytes(name)).hexdigest()[:8]}/"


def reached(base: RefList, place: str) -> int:
    """Return the distance that an earlier attempt's slices have reached; 0 if there are none."""
    return min((int(name.removeprefix(place).partition("/")[0]) for name in base.below(place)), default=0)


def slices(
    ask: Callable[[int], Sequence[str]], base: RefList, place: str, head: str | None, distance: int, pace: Pace
) -> Iterator[BundlePlan]:
    """Yield bundles that bring a ref's history from its beginning to near its tip, which ``brings`` brings.

    Each has refs of its own on the commits that later ones build on: their names tell the distance that they had. A
    history that is wider than a bundle has prerequisites is not divided further.

    Args:
        ask: returns the commits at a distance from the tip.
        base: the refs that are kept already.
        place: where the slices' refs are.
        head: the default branch.
        distance: the one that an earlier attempt's slices have reached, or one more than the longest.
        pace: is read before each slice, and may be changed between two.
    """
    kept = base
    while distance > 1:
        saved, level, here = set(kept.below(place).values()), ask(distance), f"{place}{distance:09}/"
        if len(level) > MAX_PREREQUISITES // 2:
            return
        todo = [commit for commit in level if commit not in saved]
        while todo:
            size = -(-len(level) // pace.parts)
            some, todo = todo[:size], todo[size:]
            brought = RefList.of({f"{here}{commit}": commit for commit in some})
            bases = prerequisites(kept, brought, head)
            # Those of the distance before are needed until all of this one are there.
            gone = [name for name in kept.below(place) if not todo and not name.startswith(here)]
            kept = (kept if bases else RefList()).updated(brought, gone)
            yield BundlePlan(kept, brought, gone, some, bases, complete=False)
        distance -= pace.distances


@dataclass(frozen=True)
class Attempt:
    """An attempt at a snapshot after others that were interrupted."""

    interrupted: int
    """How many were."""
    exponent: int | None
    """The pace that the last one noted; None if it had not begun with the ref that comes first now."""
    quick: float
    """Seconds; a slice that takes fewer doubles the next one."""
    note: Callable[[int | None], object]
    """Is told at what pace the next attempt goes on, if this one is interrupted."""


def bundles(
    refs: RefList, head: str | None, base: RefList, ask: Callable[[str, int], Sequence[str]], attempt: Attempt
) -> Iterator[BundlePlan]:
    """Yield the bundles of a snapshot after an interruption: the first ref that is missing, by itself, and the others.

    It comes whole at first, and in slices of its history if that was interrupted. One ref at a time, since distances
    from several are short wherever one of them is near. The others come in ever smaller groups.

    Args:
        refs: the replica's.
        head: the default branch.
        base: the refs that are kept already.
        ask: returns the commits at a distance from a tip.
        attempt: what earlier attempts have come to.
    """
    name, kept, is_sliced = first_of(refs.since(base)[0], head), base, False
    if name is None:
        yield from plan(refs, head, base, halvings=attempt.interrupted)
        return
    if attempt.exponent is None:
        attempt.note(ALL)
    else:
        for part in _slices_of(name, partial(ask, refs[name]), base, head, attempt, attempt.exponent):
            yield part
            kept, is_sliced = part.refs, True
    yield (part := brings(name, kept, refs, head))
    attempt.note(None)
    yield from plan(refs, head, part.refs, halvings=0 if is_sliced else attempt.interrupted - 1)


def _slices_of(
    name: str, ask: Callable[[int], Sequence[str]], base: RefList, head: str | None, attempt: Attempt, exponent: int
) -> Iterator[BundlePlan]:
    """Yield the slices of a ref's history that are left, at a pace that goes by how long each one takes."""
    place = place_of(name)
    distance = reached(base, place)
    if not set(base.below(place).values()).intersection(ask(distance) if distance else ()):
        # There is none yet, or the history is another one by now; what was kept of it comes as an empty pack.
        distance = longest_distance(ask) + 1
    pace = Pace(min(exponent, distance.bit_length() - 2))
    for part in slices(ask, base, place, head, distance, pace):
        attempt.note(pace.exponent - 1)
        began = time.monotonic()
        yield part
        pace.exponent += time.monotonic() - began < attempt.quick
    attempt.note(pace.exponent - 1)


def brings(name: str, base: RefList, refs: RefList, head: str | None) -> BundlePlan:
    """Return the bundle that ends the slices of a ref's history: the ref, in place of those that the slices have.

    Args:
        name: the ref's.
        base: the refs that are kept already.
        refs: the replica's.
        head: the default branch.
    """
    brought, gone = RefList.of({name: refs[name]}), list(base.below(place_of(name)))
    bases = prerequisites(base, brought, head)
    kept = (base if bases else RefList()).updated(brought, gone)
    return BundlePlan(kept, brought, gone, [refs[name]], bases, complete=False)
