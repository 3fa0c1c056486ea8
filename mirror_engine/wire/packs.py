"""Packs (gitformat-pack): their checksum, what they show without other objects, and packs made here."""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import Iterable, Iterator, Mapping, NamedTuple, Sequence

from ..failures import RetryableError, SourceRefused
from ..settings import Endpoint
from .protocol import offered, request_pack
from .transport import AGENT, Traffic

COMMIT, TREE, TAG = 1, 2, 4
"""Kinds of objects in a pack (gitformat-pack)."""
_NAMES = {COMMIT: b"commit", TREE: b"tree", TAG: b"tag"}
MAX_COMMIT_BYTES = 1_000_000
"""Larger commits are not parsed, so that no update to them counts as a fast-forward."""
MAX_BASES_BYTES = 8_000_000
"""How much of the parsed commits is kept for deltas that build on them; the oldest go first."""
MAX_PARENTS = 100_000
"""How many parents of commits are kept; what they do not show to be a fast-forward is archived."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
"""The start of a Git LFS pointer: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
EMPTY_PACK = b"PACK" + (2).to_bytes(4, "big") + bytes(4)
EMPTY_PACK += hashlib.sha1(EMPTY_PACK).digest()


def fetch_pack(
    server: Endpoint,
    advertised: Sequence[str],
    wants: Sequence[str],
    haves: Sequence[str],
    traffic: Traffic,
    *,
    thin: bool = False,
    ofs_delta: bool = True,
) -> Iterator[bytes]:
    """Yield one pack with what ``wants`` reach and ``haves`` do not; raise RetryableError at its end if it is damaged.

    Only capabilities that the server advertised are named. Raises SourceRefused too.
    """
    words = ["side-band-64k", "no-progress", *(["thin-pack"] if thin else []), *(["ofs-delta"] if ofs_delta else [])]
    named = offered(advertised, *words, AGENT) + offered(advertised, "multi_ack_detailed", "multi_ack")[:1]
    if "side-band-64k" not in named:
        raise SourceRefused(f"the {server.side} does not offer side-band-64k")
    yield from verify_checksum(request_pack(server, named, wants, haves, traffic))


def verify_checksum(pack: Iterable[bytes]) -> Iterator[bytes]:
    """Pass a pack on; raise RetryableError at its end if its checksum is wrong."""
    digest, tail = hashlib.sha1(), b""
    for part in pack:
        data = tail + part
        digest.update(data[:-20])
        tail = data[-20:]
        yield part
    if digest.digest() != tail:
        raise RetryableError("the pack from the source is damaged")


def object_count(start: bytes | bytearray) -> int:
    """Return the number of objects in a pack's header."""
    if len(start) < 12 or start[:4] != b"PACK":
        raise RetryableError("the source sent no pack")
    return int.from_bytes(start[8:12], "big")


class PackContents(NamedTuple):
    """What a whole pack shows without any other object."""

    parents: dict[str, tuple[str, ...]]
    """Parent ids, by commit id."""
    lfs_pointers: int
    """The number of files that Git LFS stores elsewhere."""


def read_pack(pack: bytes) -> PackContents:
    """Parse a whole pack for commits and LFS pointers, in bounded memory: of a large pack only part is known."""
    bases = _Bases()
    contents, links = PackContents({}, 0), 0
    position, end = 12, len(pack) - 20
    for _ in range(object_count(pack)):
        if position >= end:
            break
        start, kind = position, (pack[position] >> 4) & 7
        while pack[position] & 128:
            position += 1
        position += 1
        base, position = _read_base(pack, position, start, kind)
        built_on = bases.find(base)
        is_commit = kind == COMMIT or built_on is not None
        data, position = _inflate(pack, position, end, MAX_COMMIT_BYTES + 1 if is_commit else len(LFS_POINTER))
        if built_on is not None:
            data = _apply_delta(built_on, data)
        if is_commit and 0 < len(data) <= MAX_COMMIT_BYTES:
            object_id = hashlib.sha1(b"commit %d\0%s" % (len(data), data)).hexdigest()
            bases.add(start, object_id, data)
            parents = commit_parents(data)
            links += 1 + len(parents)
            if links <= MAX_PARENTS:
                contents.parents[object_id] = parents
        elif kind == 3 and data == LFS_POINTER:
            contents = contents._replace(lfs_pointers=contents.lfs_pointers + 1)
    return contents


def _read_base(pack: bytes, position: int, start: int, kind: int) -> tuple[object, int]:
    """Return what a delta builds on, the position or the id of another object, and where its data begin."""
    if kind == 7:
        return pack[position : position + 20].hex(), position + 20
    if kind != 6:
        return None, position
    offset = pack[position] & 127
    while pack[position] & 128:
        position += 1
        offset = ((offset + 1) << 7) | (pack[position] & 127)
    return start - offset, position + 1


class _Bases:
    """The newest commits that a pack has shown so far, by their positions in it and by their ids."""

    def __init__(self) -> None:
        self._known: dict[object, bytes] = {}
        self._order: list[tuple[int, str]] = []
        self._bytes = self._dropped = 0

    def find(self, base: object) -> bytes | None:
        return self._known.get(base)

    def add(self, start: int, object_id: str, data: bytes) -> None:
        self._known[start] = self._known[object_id] = data
        self._order.append((start, object_id))
        self._bytes += len(data)
        while self._bytes > MAX_BASES_BYTES:
            position, oldest = self._order[self._dropped]
            self._dropped += 1
            self._bytes -= len(self._known.pop(position))
            self._known.pop(oldest, None)


def commit_parents(commit: bytes) -> tuple[str, ...]:
    """Return a commit's parents as git reads them: only the lines right after ``tree``.

    Anybody can write a commit with a line that begins with ``parent`` further down, which git ignores.
    """
    header = re.match(rb"tree [0-9a-fA-F]{40}\n((?:parent [0-9a-fA-F]{40}\n)*)", commit)
    return tuple(line[7:].decode().lower() for line in header.group(1).splitlines()) if header else ()


def _inflate(pack: bytes, position: int, end: int, limit: int) -> tuple[bytes, int]:
    """Return the first ``limit`` bytes of an object's data, and the next object's position."""
    stream, kept = zlib.decompressobj(), bytearray()
    while not stream.eof and position < end:
        piece = pack[position : min(position + 4096, end)]
        data = stream.decompress(piece)
        kept += data[: max(0, limit - len(kept))]
        position += len(piece) - len(stream.unused_data)
    return bytes(kept), position


def _apply_delta(base: bytes, delta: bytes) -> bytes:
    """Apply a delta (gitformat-pack, "Deltified representation"); return ``b""`` if the result is too large."""
    position, sizes, result = 0, [], bytearray()
    for _ in range(2):
        size, shift = 0, 0
        while delta[position] & 128:
            size |= (delta[position] & 127) << shift
            position, shift = position + 1, shift + 7
        sizes.append(size | delta[position] << shift)
        position += 1
    if sizes[1] > MAX_COMMIT_BYTES:
        return b""
    while position < len(delta) and len(result) <= sizes[1]:
        operation = delta[position]
        position += 1
        if operation & 128:
            values = []
            for bits in ((0, 1, 2, 3), (4, 5, 6)):
                value = 0
                for index, bit in enumerate(bits):
                    if operation & (1 << bit):
                        value |= delta[position] << (8 * index)
                        position += 1
                values.append(value)
            result += base[values[0] : values[0] + (values[1] or 0x10000)]
        else:
            result += delta[position : position + operation]
            position += operation
    return bytes(result)


def is_ancestor(old: str, new: str, parents: Mapping[str, Sequence[str]]) -> bool:
    """Whether the known commits show that ``new`` has ``old`` in its history; False if they do not show it."""
    seen: set[str] = set()
    pending = [new]
    while pending:
        commit = pending.pop()
        if commit == old:
            return True
        if commit not in seen:
            seen.add(commit)
            pending.extend(parents.get(commit, ()))
    return False


def object_id(kind: int, data: bytes) -> str:
    """Return an object's id."""
    return hashlib.sha1(b"%s %d\0%s" % (_NAMES[kind], len(data), data)).hexdigest()


def pack_of(objects: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a pack that contains these objects, each with its kind."""
    pack = b"PACK" + (2).to_bytes(4, "big") + len(objects).to_bytes(4, "big")
    for kind, data in objects:
        size, header = len(data), []
        byte, size = (kind << 4) | (size & 15), size >> 4
        while size:
            header.append(byte | 128)
            byte, size = size & 127, size >> 7
        pack += bytes([*header, byte]) + zlib.compress(data)
    return pack + hashlib.sha1(pack).digest()
