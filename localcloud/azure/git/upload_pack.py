"""What Azure Repos sends who fetches: capabilities, packs and refusals as they were recorded.

- The capabilities, and the space after the NUL: https://github.com/GitoxideLabs/gitoxide/issues/1025
- No offset deltas, so that every delta names its base; a base may come after what builds on it, also in a pack that is
  complete: the same issue, and https://github.com/GitoxideLabs/gitoxide/issues/2882
- ``multi_ack`` is required of a list of capabilities, and ``agent`` and ``ofs-delta`` are tolerated: measured in
  https://github.com/ConfigButler/gitops-reverser
- ``filter`` knows ``blob:none`` and ``tree:0``: https://devblogs.microsoft.com/devops (November 2023)

How a request with another filter fails is not recorded. That a thin pack may have commits as deltas of what the client
has is plausible, and not recorded: so it can be chosen.
"""

from __future__ import annotations

import enum
import hashlib
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...git_http import Answer, GitRequest
from ...isolated_git import isolated_environment

CAPABILITIES = (
    "multi_ack thin-pack side-band side-band-64k no-progress multi_ack_detailed no-done shallow allow-tip-sha1-in-want "
    "filter"
)
NO_OBJECT = "0" * 40
_TOLERATED = (b"agent=", b"ofs-delta", b"include-tag")
_FILTERS = (b"blob:none", b"tree:0")
_MAX_SHAPED_BYTES = 8 * 1024 * 1024
"""Larger packs are sent as git made them: to shape one, all of it is inflated."""
BAND_BYTES = 65_515
"""What a pkt-line carries of one band."""
_COMMIT, _DELTA = 1, 7


class PackShape(enum.Enum):
    """In which order a pack's objects come, and what they build on."""

    LATE_BASES = "late-bases"
    """All deltas come before what they build on, as was recorded of a quarter of all fetches."""
    IN_ORDER = "in-order"
    """As git makes it, without offset deltas."""
    COMMIT_DELTAS = "commit-deltas"
    """As ``LATE_BASES``; and the commits of a thin pack are deltas of a commit that the client says it has."""


def serve(
    repository: Path,
    request: GitRequest,
    shape: PackShape = PackShape.LATE_BASES,
    shown: frozenset[str] | None = None,
) -> Answer:
    """Answer a fetch.

    Args:
        repository: the bare repository.
        request: the request.
        shape: of the packs.
        shown: the refs that there seem to be; None for all.
    """
    if request.advertisement:
        content_type = "application/x-git-upload-pack-advertisement"
        return Answer(200, advertisement(repository, shown), {"Cache-Control": "no-cache"}, content_type)
    return answer(repository, request.body.read(1 << 40), shape, shown)


def advertisement(repository: Path, shown: frozenset[str] | None = None) -> bytes:
    """Return the list of refs."""
    listing = _git(repository, "for-each-ref", "--format=%(objectname) %(refname) %(*objectname)")
    head = _git(repository, "symbolic-ref", "HEAD").strip()
    lines: list[tuple[str, str]] = []
    for line in filter(None, listing.split("\n")):
        value, name, peeled = line.split(" ")
        if shown is not None and name not in shown:
            continue
        lines += [(value, name), *([(peeled, f"{name}^{{}}")] if peeled else [])]
    default = next((value for value, name in lines if name == head), None)
    words = f"{CAPABILITIES} symref=HEAD:{head}" if default else CAPABILITIES
    lines = [*([(default, "HEAD")] if default else []), *lines] or [(NO_OBJECT, "capabilities^{}")]
    packets = [
        packet(f"{value} {name}{'' if number else f'{chr(0)} {words}'}\n".encode("utf-8", "surrogateescape"))
        for number, (value, name) in enumerate(lines)
    ]
    return packet(b"# service=git-upload-pack\n") + b"0000" + b"".join(packets) + b"0000"


def answer(repository: Path, request: bytes, shape: PackShape, shown: frozenset[str] | None = None) -> Answer:
    """Answer a request for a pack.

    Args:
        repository: the bare repository.
        request: the body.
        shape: of the packs.
        shown: the refs whose objects may be asked for; None for all.
    """
    lines = list(payloads(request))
    first = (lines[0] if lines else None) or b""
    words = first.split()[2:]
    if words and not any(word in (b"multi_ack", b"multi_ack_detailed") for word in words):
        return Answer(
            400,
            "TF401041: The Git protocol sent is not as expected (Clients must support multi-ack or "
            "multi_ack_detailed).\n",
        )
    for line in filter(None, lines):
        if line.startswith(b"filter ") and line.split()[1] not in _FILTERS:
            return _result(packet(b"ERR TF401041: The Git protocol sent is not as expected (filter)."))
    wants = [line.split()[1].decode() for line in lines if line and line.startswith(b"want ")]
    if missing := _missing(repository, wants, shown):
        return _result(packet(f"\x03TF401035: The object '{missing}' does not exist.".encode()))
    kept = [word for word in words if not word.startswith(_TOLERATED)]
    lines[0] = b" ".join([*first.split()[:2], *kept]) + b"\n" if first else first
    done = subprocess.run(
        [
            *("git", "-c", "uploadpack.allowFilter=true", "upload-pack", "--stateless-rpc", str(repository)),
        ],
        input=b"".join(b"0000" if line is None else packet(line) for line in lines),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=isolated_environment(),
        check=False,
    )
    haves = [line.split()[1].decode() for line in lines if line and line.startswith(b"have ")]
    is_thin = b"thin-pack" in words
    is_shaped = shape is not PackShape.IN_ORDER and b"side-band-64k" in words and len(done.stdout) < _MAX_SHAPED_BYTES
    if not is_shaped:
        return _result(done.stdout)
    return _result(_shaped(repository, done.stdout, haves if is_thin and shape is PackShape.COMMIT_DELTAS else []))


def _result(body: bytes) -> Answer:
    return Answer(200, body, {"Cache-Control": "no-cache"}, "application/x-git-upload-pack-result")


def _missing(repository: Path, wants: Sequence[str], shown: frozenset[str] | None) -> str | None:
    """Return the first of the wanted ids that is no ref's: only those may be asked for."""
    listing = (
        line.split(" ") for line in _git(repository, "for-each-ref", "--format=%(objectname) %(refname)").split("\n")
    )
    tips = {words[0] for words in listing if shown is None or words[-1] in shown}
    return next((want for want in wants if want not in tips), None)


def _shaped(repository: Path, body: bytes, haves: Sequence[str]) -> bytes:
    """Return an answer with its pack in another order, and with commits as deltas if there is something to build on."""
    before, data, after = b"", bytearray(), b""
    for line in payloads(body):
        if line is not None and line[:1] == b"\x01":
            data += line[1:]
        elif data:
            after += b"0000" if line is None else packet(line)
        else:
            before += b"0000" if line is None else packet(line)
    if len(data) < 32:
        return body
    pack = bytes(data)
    base = next((have for have in haves if _git(repository, "cat-file", "-t", have).strip() == "commit"), None)
    entries = list(_entries(pack))
    if base:
        size = int(_git(repository, "cat-file", "-s", base))
        bodies = {raw: zlib.decompress(raw[_header_length(raw) :]) for kind, raw in entries if kind == _COMMIT}
        deltas = {raw: _as_delta(base, size, body) for raw, body in bodies.items()}
        entries = [(_DELTA, deltas[raw]) if kind == _COMMIT else (kind, raw) for kind, raw in entries]
    ordered = sorted(entries, key=lambda entry: entry[0] != _DELTA)
    shaped = pack[:12] + b"".join(raw for _, raw in ordered)
    shaped += hashlib.sha1(shaped).digest()  # noqa: S324
    bands = (shaped[start : start + BAND_BYTES] for start in range(0, len(shaped), BAND_BYTES))
    return before + b"".join(packet(b"\x01" + band) for band in bands) + (after or b"0000")


def _entries(pack: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each object's kind and its bytes in the pack."""
    position = 12
    for _ in range(int.from_bytes(pack[8:12], "big")):
        start, kind = position, (pack[position] >> 4) & 7
        position += _header_length(pack[position : position + 10]) + (20 if kind == _DELTA else 0)
        stream = zlib.decompressobj()
        while not stream.eof:
            piece = pack[position : position + 4096]
            stream.decompress(piece)
            position += len(piece) - len(stream.unused_data)
        yield kind, pack[start:position]


def _header_length(raw: bytes) -> int:
    return next(number for number, byte in enumerate(raw, 1) if not byte & 128)


def _as_delta(base: str, base_size: int, data: bytes) -> bytes:
    """Return an object as a delta that copies nothing of its base (gitformat-pack)."""
    pieces = [data[start : start + 127] for start in range(0, len(data), 127)]
    delta = _size(base_size) + _size(len(data)) + b"".join(bytes([len(piece)]) + piece for piece in pieces)
    size, header = len(delta), []
    byte, size = (_DELTA << 4) | (size & 15), size >> 4
    while size:
        header.append(byte | 128)
        byte, size = size & 127, size >> 7
    return bytes([*header, byte]) + bytes.fromhex(base) + zlib.compress(delta)


def _size(number: int) -> bytes:
    digits = []
    while number >= 128:
        digits.append((number & 127) | 128)
        number >>= 7
    return bytes([*digits, number])


def payloads(data: bytes) -> Iterator[bytes | None]:
    """Yield the payloads of pkt-lines; None for a flush packet."""
    position = 0
    while position + 4 <= len(data):
        length = int(data[position : position + 4], 16)
        yield data[position + 4 : position + length] if length else None
        position += length or 4


def packet(payload: bytes) -> bytes:
    """Wrap data in a pkt-line (gitprotocol-common)."""
    return b"%04x%s" % (len(payload) + 4, payload)


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        capture_output=True,
        env=isolated_environment(),
        check=False,
    )
    return done.stdout.decode("utf-8", "surrogateescape")
