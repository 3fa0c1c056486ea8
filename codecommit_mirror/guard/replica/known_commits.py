"""Commits that a replica's snapshots have and no branch may be on: later bundles build on them, too.

What only tags or archive entries reach would otherwise come again with each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...engine.refs import CONFIRMED_TAG
from ..vault.bundle_plan import SLICES, BundlePlan
from ..vault.ref_list import RefList

_BRANCHES = "refs/heads/"
_MAX_KNOWN = 200
_MAX_MOVED, _MAX_ASKED = 1_000, 8
"""How many of the refs that one bundle brings are looked at: branches, and others, which take a request each."""


def known_after(
    known: Sequence[str], part: BundlePlan, before: RefList, peel: Callable[[str], Sequence[str]]
) -> list[str]:
    """Return the commits that are known once a bundle is kept, the newest last.

    Args:
        known: those that are known before it.
        part: the bundle.
        before: the refs that are kept before it.
        peel: returns the commit that an object is or leads to; nothing if it leads to none.
    """
    changed = part.changed
    first, end = changed.span(_BRANCHES)
    branches = changed.part(max(first, end - _MAX_MOVED), end)
    found = [old for name, value in branches.items() if (old := before.get(name, value)) != value]
    gone = [name for name in part.deleted if name.startswith(_BRANCHES)]
    found += [before[name] for name in gone[-_MAX_MOVED:] if name in before]
    others = [changed.part(max(start, stop - _MAX_ASKED), stop) for start, stop in ((0, first), (end, len(changed)))]
    values = [
        value
        for some in others
        for name, value in some.items()
        if name != CONFIRMED_TAG and not name.startswith(SLICES)
    ]
    found += [commit for value in values[-_MAX_ASKED:] for commit in peel(value)]
    return [*(commit for commit in known if commit not in found), *dict.fromkeys(found)][-_MAX_KNOWN:]
