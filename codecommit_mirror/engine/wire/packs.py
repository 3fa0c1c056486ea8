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
MAX_WAITING = 20_000
"""How many objects are kept in mind that deltas before them build on; most of these are no commits."""
NOBODY = "codecommit-mirror <codecommit-mirror@localhost>"
"""Who wrote our own commits and tags."""
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
    commits: dict[str, bytes]
    """The last of the commits, by their ids."""


def fetch_commits(
    server: Endpoint, advertised: Sequence[str], want: str, have: str, traffic: Traffic, limit: int
) -> bytearray:
    """Return the start of a pack with the commits that ``want`` reaches and ``have`` does not, and nothing else.

    It is empty if the server cannot leave trees out (``filter``). Raises SourceRefused and RetryableError.
    """
    words, start = offered(advertised, "side-band-64k", "filter", "no-progress", AGENT), bytearray()
    if words[:2] == ["side-band-64k", "filter"]:
        words += offered(advertised, "multi_ack_detailed", "multi_ack")[:1]
        for part in request_pack(server, words, [want], [have], traffic, b"filter tree:0\n"):
            start += part
            if len(start) > limit:
                break
    return start


def read_pack(pack: bytes | bytearray) -> PackContents:
    """Parse a pack, or the start of one, for commits and LFS pointers, in bounded memory: of a large one part is known.

    What a delta builds on may come after it, anywhere in the pack (recorded of Azure Repos).
    """
    commits, lfs_pointers = _Commits(pack), 0
    position, end = 12, len(pack) - 20
    for _ in range(object_count(pack)):
        if position >= end:
            break
        start, kind = position, (pack[position] >> 4) & 7
        while pack[position] & 128:
            position += 1
        position += 1
        base, position = _read_base(pack, position, start, kind)
        built_on = commits.find(base)
        is_commit = kind == COMMIT or built_on is not None
        if kind == 7 and built_on is None:
            commits.await_base(base, position)
        data, position = _inflate(pack, position, end, MAX_COMMIT_BYTES + 1 if is_commit else len(LFS_POINTER))
        if built_on is not None:
            data = _apply_delta(built_on, data)
        if is_commit:
            commits.add(start, data)
        lfs_pointers += kind == 3 and data == LFS_POINTER
    return PackContents(commits.parents, lfs_pointers, commits.by_id)


def _read_base(pack: bytes | bytearray, position: int, start: int, kind: int) -> tuple[object, int]:
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


class _Commits:
    """The commits that a pack has shown so far; the newest ones with their data, by their positions and their ids."""

    def __init__(self, pack: bytes | bytearray) -> None:
        self.parents: dict[str, tuple[str, ...]] = {}
        self._pack, self._links = pack, 0
        self.by_id: dict[str, bytes] = {}
        self._by_position: dict[object, bytes] = {}
        self._order: list[tuple[int, str]] = []
        self._bytes = self._dropped = 0
        self._waiting: dict[object, list[int]] = {}

    def find(self, base: object) -> bytes | None:
        return self._by_position.get(base) or self.by_id.get(str(base))

    def await_base(self, base: object, position: int) -> None:
        """Note a delta whose base has not come yet, and where its data begin; most are of no commits."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.setdefault(base, []).append(position)

    def add(self, start: int, data: bytes) -> None:
        """Take a commit, and those deltas that have waited for it; of what many build on, no more than is kept."""
        waiting = self._take(start, data)
        bases, held = [(data, waiting)] if waiting else [], len(data)
        while bases:
            base, waiting = bases[-1]
            if not waiting:
                bases.pop()
                held -= len(base)
                continue
            position = waiting.pop()
            delta, _ = _inflate(self._pack, position, len(self._pack) - 20, MAX_COMMIT_BYTES + 1)
            commit = _apply_delta(base, delta)
            more = self._take(position, commit)
            if more and held + len(commit) <= MAX_BASES_BYTES:
                bases.append((commit, more))
                held += len(commit)

    def _take(self, position: int, commit: bytes) -> list[int]:
        """Take one commit; return where the deltas are that have waited for it."""
        if not 0 < len(commit) <= MAX_COMMIT_BYTES:
            return []
        name = object_id(COMMIT, commit)
        parents = commit_parents(commit)
        self._links += 1 + len(parents)
        if self._links <= MAX_PARENTS:
            self.parents[name] = parents
        self._keep(position, name, commit)
        return self._waiting.pop(name, [])

    def _keep(self, start: int, name: str, data: bytes) -> None:
        self._by_position[start] = self.by_id[name] = data
        self._order.append((start, name))
        self._bytes += len(data)
        while self._bytes > MAX_BASES_BYTES:
            position, oldest = self._order[self._dropped]
            self._dropped += 1
            self._bytes -= len(self._by_position.pop(position))
            self.by_id.pop(oldest, None)


def commit_parents(commit: bytes) -> tuple[str, ...]:
    """Return a commit's parents as git reads them: only the lines right after ``tree``.

    Anybody can write a commit with a line that begins with ``parent`` further down, which git ignores.
    """
    header = re.match(rb"tree [0-9a-fA-F]{40}\n((?:parent [0-9a-fA-F]{40}\n)*)", commit)
    return tuple(line[7:].decode().lower() for line in header.group(1).splitlines()) if header else ()


def _inflate(pack: bytes | bytearray, position: int, end: int, limit: int) -> tuple[bytes, int]:
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
