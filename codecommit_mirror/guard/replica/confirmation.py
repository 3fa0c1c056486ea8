"""The confirming tag: when a run last found the replica equal to its source."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ...engine.confirmation import CONFIRMATION_FORMAT
from ...engine.failures import MirrorFailure, PackRefused, SourceRefused
from ...engine.plan import is_own, original_name
from ...engine.refs import CARRIED_PREFIX, OWN_PREFIX
from ...engine.settings import Endpoint
from ...engine.text import to_bytes
from ...engine.wire.packs import TAG, object_id
from ...engine.wire.protocol import offered, request_pack
from ...engine.wire.transport import Traffic
from ..vault.ref_list import RefList

_MAX_BYTES = 1024 * 1024
_MAX_INFLATED_BYTES = 1024 * 1024
"""Of all objects together: the tag has a few hundred, and whoever may push can make a megabyte of zeros a gigabyte."""


def digest(refs: RefList) -> str:
    """Return the SHA-256 of a replica's mirrored refs, as a run writes it (``engine.confirmation.ref_listing``)."""
    originals = ((original_name(name), value) for name, value in refs.below(CARRIED_PREFIX).items())
    carried = RefList.from_pairs((value.encode(), to_bytes(name)) for name, value in originals if not is_own(name))
    return refs.updated(carried, [OWN_PREFIX.rstrip("/"), *refs.below(OWN_PREFIX)]).sha256


@dataclass(frozen=True)
class Confirmation:
    """What the confirming tag says."""

    time: datetime
    source: str
    sha256: str
    """Of the refs that the replica had after it; see ``digest``."""


def read_confirmation(endpoint: Endpoint, capabilities: Sequence[str], wanted: str) -> Confirmation | None:
    """Read the confirming tag with this id from the replica; None if the first megabyte of a pack does not show it.

    The tag's commit has no history. Raises RetryableError if the replica is busy.
    """
    words = offered(capabilities, "side-band-64k", "no-progress") + offered(capabilities, "multi_ack_detailed")
    data = bytearray()
    pack = request_pack(endpoint, words, [wanted], [], Traffic())
    try:
        for part in pack:
            data += part
            if len(data) > _MAX_BYTES:
                break
    except (SourceRefused, PackRefused, MirrorFailure):
        return None
    finally:
        pack.close()  # type: ignore[attr-defined]
    tag = find_tag(bytes(data), wanted)
    return parse_confirmation(tag) if tag else None


def find_tag(pack: bytes, wanted: str) -> bytes | None:
    """Return an annotated tag's data from the start of a pack; None if it is not there, or is too large."""
    position, left = 12, _MAX_INFLATED_BYTES
    while position < len(pack) - 20:
        kind = (pack[position] >> 4) & 7
        while position < len(pack) and pack[position] & 128:
            position += 1
        position += 1
        if kind == 6:
            while position < len(pack) and pack[position] & 128:
                position += 1
            position += 1
        elif kind == 7:
            position += 20
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(pack[position:], left)
        except zlib.error:
            return None
        left -= len(data)
        if not stream.eof or left <= 0:
            return None
        if kind == TAG and object_id(TAG, data) == wanted:
            return data
        position = len(pack) - len(stream.unused_data)
    return None


def parse_confirmation(tag: bytes) -> Confirmation | None:
    """Return what a confirming tag says; None if no run wrote it, or one of another format."""
    text = tag.decode("utf-8", "replace")
    if f"\nformat: {CONFIRMATION_FORMAT}\n" not in text:
        return None
    time = re.search(r"^time: (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$", text, re.MULTILINE)
    source = re.search(r"^source: (.+)$", text, re.MULTILINE)
    sha256 = re.search(r"^sha256: ([0-9a-f]{64})$", text, re.MULTILINE)
    if not time or not source or not sha256:
        return None
    try:
        moment = datetime.strptime(time.group(1), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Confirmation(moment, source.group(1), sha256.group(1))
