"""Whether a replica still has a commit: what the start of a pack shows of a tip's history."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from mirror_engine.failures import MirrorFailure, PackRefused, RetryableError, SourceRefused
from mirror_engine.refs import Advertisement
from mirror_engine.wire.packs import fetch_pack, is_ancestor, read_pack
from mirror_engine.wire.transport import Traffic

from .git_access import read_patiently
from .replicas import Access

MAX_INSPECTED_BYTES = 16 * 1024 * 1024
_MAX_HAVES = 2000


def is_kept(access: Access, old: str, new: str) -> bool | None:
    """Whether ``old`` is in the history of ``new``, as the start of a pack shows; None if it does not show it.

    Raises:
        RetryableError: the replica is busy, or has changed since it was read.
    """
    advertised = read_patiently(access.endpoint)
    branches = [v for n, v in advertised.refs.items() if n.startswith("refs/heads/") and v != new]
    is_shown = _is_shown(access, advertised, old, new, [old, *branches][:_MAX_HAVES])
    # A pack that builds on a branch which has ``new`` already shows nothing.
    return _is_shown(access, advertised, old, new, [old]) if branches and is_shown is False else is_shown


def _is_shown(access: Access, advertised: Advertisement, old: str, new: str, haves: Sequence[str]) -> bool | None:
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
