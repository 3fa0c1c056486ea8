"""Cuts through a replica's history, so that what is too large for one pack comes in slices, the oldest first.

The distance of a commit is the number of commits from the nearest tip to it, both included. What the commits at one
distance reach is everything that is as far away or farther (gitprotocol-pack, "deepen").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...engine.failures import RetryableError
from ...engine.settings import Endpoint
from ...engine.wire.protocol import offered, pkt_line, split_pkt_lines
from ...engine.wire.transport import read_body, send
from ..vault.bundle_plan import MAX_PREREQUISITES, SLICES, BundlePlan, prerequisites
from ..vault.ref_list import RefList

_NEEDED = ("shallow", "allow-reachable-sha1-in-want")


def can_be_sliced(capabilities: Sequence[str]) -> bool:
    """Whether a server tells distances, and gives out what no ref points at."""
    return len(offered(capabilities, *_NEEDED)) == len(_NEEDED)


def commits_at(endpoint: Endpoint, capabilities: Sequence[str], tips: Sequence[str], distance: int) -> list[str]:
    """Return the commits at a distance from the tips; none if the history ends before it.

    Raises:
        RetryableError, MirrorFailure: the replica does not say.
    """
    words = "".join(f" {word}" for word in offered(capabilities, "multi_ack_detailed", "side-band-64k", "shallow"))
    body = b"".join(pkt_line(f"want {tip}{'' if number else words}\n".encode()) for number, tip in enumerate(tips))
    # Nothing is had, and nothing is done: so the server only says where the history would end.
    body += pkt_line(f"deepen {distance}".encode()) + b"0000"
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


def reached(base: RefList) -> int:
    """Return the distance that an earlier attempt's slices have reached; 0 if there are none."""
    return min((int(name.removeprefix(SLICES).partition("/")[0]) for name in base.below(SLICES)), default=0)


def slices(
    ask: Callable[[int], Sequence[str]], base: RefList, head: str | None, distance: int, pace: Pace
) -> Iterator[BundlePlan]:
    """Yield bundles that bring a history from its beginning to near its tips, which an ordinary one brings.

    Each has refs of its own below ``SLICES``, on the commits that later ones build on: their names tell the distance
    that they had. A history that is wider than a bundle has prerequisites is not divided further.

    Args:
        ask: returns the commits at a distance from the tips.
        base: the refs that are kept already.
        head: the default branch.
        distance: the one that an earlier attempt's slices have reached, or one more than the longest.
        pace: is read before each slice, and may be changed between two.
    """
    kept = base
    while distance > 1:
        saved, level, place = set(kept.below(SLICES).values()), ask(distance), f"{SLICES}{distance:09}/"
        if len(level) > MAX_PREREQUISITES // 2:
            return
        todo = [commit for commit in level if commit not in saved]
        while todo:
            size = -(-len(level) // pace.parts)
            some, todo = todo[:size], todo[size:]
            brought = RefList.of({f"{place}{commit}": commit for commit in some})
            bases = prerequisites(kept, brought, head)
            # Those of the distance before are needed until all of this one are there.
            gone = [name for name in kept.below(SLICES) if not todo and not name.startswith(place)]
            kept = (kept if bases else RefList()).updated(brought, gone)
            yield BundlePlan(kept, brought, gone, some, bases, complete=False)
        distance -= pace.distances


def brings_head(base: RefList, refs: RefList, head: str) -> BundlePlan:
    """Return the bundle that ends the slices of the default branch's history: the branch, in place of their refs."""
    brought, gone = RefList.of({head: refs[head]}), list(base.below(SLICES))
    bases = prerequisites(base, brought, head)
    kept = (base if bases else RefList()).updated(brought, gone)
    return BundlePlan(kept, brought, gone if bases else [], [refs[head]], bases, complete=False)
