"""Packs as CodeCommit takes them: no offset deltas, and no file above its quota (gitformat-pack)."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

MAX_BLOB_BYTES = 2 * 1024**3
"""https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html"""
_BLOB, _OFS_DELTA = 3, 6


def problem(folder: Path) -> str | None:
    """Return why the packs of a folder, each with its index, are not taken, in the words of the report."""
    for index in folder.glob("*.idx"):
        for kind, size in entries(index):
            if kind == _OFS_DELTA:
                # Recorded in https://github.com/src-d/go-git/issues/945, which puts "unpack error: " before it.
                return "protocol error (offset deltas are not supported)"
            if kind == _BLOB and size > MAX_BLOB_BYTES:
                return f"a file of {size} bytes; the maximum is {MAX_BLOB_BYTES}"
    return None


def entries(index: Path) -> Iterator[tuple[int, int]]:
    """Yield type and size of each entry of the pack beside a version 2 index."""
    data = index.read_bytes()
    count = struct.unpack(">I", data[8 + 255 * 4 : 8 + 256 * 4])[0]
    start = 8 + 256 * 4 + count * 24
    offsets = struct.unpack(f">{count}I", data[start : start + 4 * count])
    with (
        index.with_suffix(".pack").open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as pack,
    ):
        for offset in offsets:
            if offset & 0x80000000:
                continue  # Beyond 2 GiB; the embedded service gets no such packs.
            byte = pack[offset]
            kind, size, shift = (byte >> 4) & 7, byte & 0x0F, 4
            while byte & 0x80:
                offset += 1
                byte = pack[offset]
                size |= (byte & 0x7F) << shift
                shift += 7
            yield kind, size


def migrate(quarantine: Path, objects: Path) -> None:
    """Move the packs of a push to the repository's own; an index last, since git goes by it."""
    for path in sorted((quarantine / "pack").glob("*"), key=lambda path: path.suffix == ".idx"):
        path.chmod(0o644)
        path.rename(objects / "pack" / path.name)
