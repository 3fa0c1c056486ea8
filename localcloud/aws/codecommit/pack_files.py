"""Packs as CodeCommit takes them: no offset deltas, and no file above its quota (gitformat-pack)."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAX_BLOB_BYTES = 2 * 1024**3
"""https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html"""
_BLOB, _OFS_DELTA, _REF_DELTA = 3, 6, 7


class Entry(NamedTuple):
    """One object of a pack."""

    id: str
    offset: int
    kind: int
    size: int
    base: str | None
    """The id of what a reference delta builds on."""


def problem(folder: Path) -> str | None:
    """Return why the packs of a folder, each with its index, are not taken, in the words of the report."""
    for index in folder.glob("*.idx"):
        for entry in entries(index):
            if entry.kind == _OFS_DELTA:
                # Recorded in https://github.com/src-d/go-git/issues/945, which puts "unpack error: " before it.
                return "protocol error (offset deltas are not supported)"
            if entry.kind == _BLOB and entry.size > MAX_BLOB_BYTES:
                return f"a file of {entry.size} bytes; the maximum is {MAX_BLOB_BYTES}"
    return None


def late_bases(folder: Path) -> set[str]:
    """Return the ids of what deltas of the folder's packs build on and what comes after them, in the same pack."""
    late: set[str] = set()
    for index in folder.glob("*.idx"):
        found = list(entries(index))
        offsets = {entry.id: entry.offset for entry in found}
        late.update(entry.base for entry in found if entry.base and offsets.get(entry.base, 0) > entry.offset)
    return late


def entries(index: Path) -> Iterator[Entry]:
    """Yield the objects of the pack beside a version 2 index."""
    data = index.read_bytes()
    count = struct.unpack(">I", data[8 + 255 * 4 : 8 + 256 * 4])[0]
    ids = 8 + 256 * 4
    start = ids + count * 24
    offsets = struct.unpack(f">{count}I", data[start : start + 4 * count])
    with (
        index.with_suffix(".pack").open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as pack,
    ):
        for number, start in enumerate(offsets):
            if start & 0x80000000:
                continue  # Beyond 2 GiB; the embedded service gets no such packs.
            offset, byte = start, pack[start]
            kind, size, shift = (byte >> 4) & 7, byte & 0x0F, 4
            while byte & 0x80:
                offset += 1
                byte = pack[offset]
                size |= (byte & 0x7F) << shift
                shift += 7
            base = pack[offset + 1 : offset + 21].hex() if kind == _REF_DELTA else None
            yield Entry(data[ids + 20 * number : ids + 20 * number + 20].hex(), start, kind, size, base)


def migrate(quarantine: Path, objects: Path) -> None:
    """Move the packs of a push to the repository's own; an index last, since git goes by it."""
    for path in sorted((quarantine / "pack").glob("*"), key=lambda path: path.suffix == ".idx"):
        path.chmod(0o644)
        path.rename(objects / "pack" / path.name)
