"""What a replica still has: whether a tip's history has a commit, and which tips an archive entry keeps."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from ...engine.archive import ENTRY_FORMAT, MAX_ENTRY_BYTES, MAX_TIPS
from ...engine.failures import MirrorFailure, PackRefused, RetryableError, SourceRefused
from ...engine.settings import Endpoint
from ...engine.wire.packs import commit_parents, fetch_pack, is_ancestor, read_pack
from ...engine.wire.protocol import offered, request_pack
from ...engine.wire.transport import Traffic
from .git_access import Advertised, read_patiently
from .replicas import Access

MAX_INSPECTED_BYTES = 16 * 1024 * 1024
_MAX_HAVES = 2000
_MAX_CHAIN = 2_000
"""Commits of one archive entry: a push deletes at most 2,000 refs, and a commit keeps one at least."""
_MAX_ENTRIES_BYTES = 64 * 1024 * 1024
"""Of the commits of all entries that are read together; what is beyond that keeps nothing."""


def is_kept(access: Access, old: str, new: str) -> bool | None:
    """Whether ``old`` is in the history of ``new``, as the start of a pack shows; None if it does not show it.

    Raises:
        RetryableError: the replica is busy, or has changed since it was read.
    """
    advertised = read_patiently(access.endpoint)
    others = (value for value in advertised.refs.below("refs/heads/").values() if value != new)
    branches = list(islice(others, _MAX_HAVES - 1))
    is_shown = _is_shown(access, advertised, old, new, [old, *branches])
    # A pack that builds on a branch which has ``new`` already shows nothing.
    return _is_shown(access, advertised, old, new, [old]) if branches and is_shown is False else is_shown


def _is_shown(access: Access, advertised: Advertised, old: str, new: str, haves: Sequence[str]) -> bool | None:
    data = bytearray()
    pack = fetch_pack(access.endpoint(), advertised.capabilities, [new], haves, Traffic())
    try:
        for part in pack:
            data += part
            if len(data) > MAX_INSPECTED_BYTES:
                break
        shown = is_ancestor(old, new, read_pack(bytes(data)).parents)
    except SourceRefused as error:
        raise RetryableError(str(error)) from None
    except (MirrorFailure, PackRefused, zlib.error, IndexError):
        return None
    finally:
        pack.close()  # type: ignore[attr-defined]
    return True if shown else None if len(data) > MAX_INSPECTED_BYTES else False


def read_entries(
    endpoint: Endpoint, capabilities: Sequence[str], entries: Collection[str]
) -> dict[str, dict[str, str]]:
    """Return the tips that archive entries keep, by the entry's id and the dropped ref.

    Only a parent of an entry's commits counts, whatever its message says. What is not an entry keeps nothing, nor
    does one that cannot be read; it takes no other one along.

    Args:
        endpoint: the replica.
        capabilities: what it advertised.
        entries: ids of the entries' commits.

    Raises:
        RetryableError: the replica is busy.
    """
    commits: dict[str, bytes] = {}
    wanted = set(entries)
    for _ in range(_MAX_CHAIN):
        if not wanted:
            break
        found = _read_each(endpoint, capabilities, sorted(wanted))
        commits |= found
        if sum(map(len, commits.values())) > _MAX_ENTRIES_BYTES:
            break
        wanted = {earlier for commit in found.values() if (earlier := _earlier(commit))} - commits.keys()
    return {entry: _tips(entry, commits) for entry in entries}


def _read_each(endpoint: Endpoint, capabilities: Sequence[str], wanted: Sequence[str]) -> dict[str, bytes]:
    """Return commits by their ids; where one spoils the pack that has them all, the others come without it."""
    found = _read_commits(endpoint, capabilities, wanted)
    missing = [name for name in wanted if name not in found]
    if not missing or len(wanted) == 1:
        return found
    middle = (len(missing) + 1) // 2
    for half in (missing[:middle], missing[middle:]):
        found |= _read_each(endpoint, capabilities, half) if half else {}
    return found


def _read_commits(endpoint: Endpoint, capabilities: Sequence[str], wanted: Sequence[str]) -> dict[str, bytes]:
    """Return commits by their ids, without anything that they build on (a depth of one)."""
    words = offered(capabilities, "side-band-64k", "no-progress", "shallow")
    words += offered(capabilities, "multi_ack_detailed", "multi_ack")[:1]
    data = bytearray()
    pack = request_pack(endpoint, words, wanted, [], Traffic(), b"deepen 1\n")
    try:
        for part in pack:
            data += part
            if len(data) > MAX_INSPECTED_BYTES:
                break
        found = read_pack(data).commits
    except (SourceRefused, PackRefused, MirrorFailure, zlib.error, IndexError):
        return {}
    finally:
        pack.close()  # type: ignore[attr-defined]
    return {name: found[name] for name in wanted if name in found and len(found[name]) <= MAX_ENTRY_BYTES}


def _earlier(commit: bytes) -> str | None:
    """Return the earlier commit of an entry's chain."""
    match = re.search(rb"^earlier ([0-9a-f]{40})$", commit, re.MULTILINE)
    return match[1].decode() if match and match[1].decode() in commit_parents(commit) else None


def _tips(entry: str, commits: Mapping[str, bytes]) -> dict[str, str]:
    tips: dict[str, str] = {}
    name: str | None = entry
    while name and (commit := commits.get(name)):
        parents = set(commit_parents(commit))
        if len(parents) > MAX_TIPS + 1 or f"\nformat: {ENTRY_FORMAT}\n".encode() not in commit:
            # No run writes such a commit, or a newer one does.
            break
        for value, ref in re.findall(rb"^([0-9a-f]{40}) (refs/[^\n]+)$", commit, re.MULTILINE):
            if value.decode() in parents:
                tips.setdefault(ref.decode("utf-8", "surrogateescape"), value.decode())
        name = _earlier(commit)
    return tips
