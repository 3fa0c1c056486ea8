"""What Azure Repos does with a push, as it was recorded.

- Refs below ``refs/pull/`` are the system's, and refused one by one:
  https://github.com/swellaby/vsts-mirror-git-repository/issues/25
- A branch's policies refuse a push to it: https://github.com/microsoft/win-net-test/issues/45
- A push of more than 5 GB is TF402462: https://learn.microsoft.com/azure/devops/repos/git/limits and public logs.
  Whether its report refuses the pack or each ref is not recorded, so it can be chosen.

Git itself does the rest, and so decides what is advertised, which is not recorded.
"""

from __future__ import annotations

import enum
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...git_http import Answer, Body
from ...isolated_git import isolated_environment
from ..repos import Repository, ServiceError
from .upload_pack import BAND_BYTES, packet, payloads

_SYSTEM_ONLY = "The current action can only be performed by the system."


class TooLargeIs(enum.Enum):
    """What the report of a push that is too large refuses."""

    EACH_REF = "each-ref"
    THE_PACK = "the-pack"


@dataclass
class Limits:
    """What a push may have."""

    megabytes: int = 5120
    too_large_is: TooLargeIs = TooLargeIs.EACH_REF


class _Command(NamedTuple):
    ref: str
    line: bytes
    """Without the capabilities."""


def answer(repository: Repository, body: Body, limits: Limits) -> Answer:
    """Do what a push asks for, and return the report.

    Args:
        repository: the repository.
        body: of the request.
        limits: what the push may have.
    """
    data = body.read(1 << 40)
    commands, capabilities, pack = _read(data)
    if not commands:
        return _result(_receive(repository, data))
    if len(pack) > limits.megabytes * 1024 * 1024:
        why = (
            "TF402462: This push was rejected because its size is greater than the "
            f"{limits.megabytes} MB limit for pushes in this repository."
        )
        unpacked = why if limits.too_large_is is TooLargeIs.THE_PACK else "ok"
        refused = {command.ref: why if unpacked == "ok" else "unpacker error" for command in commands}
        return _result(_rendered(f"unpack {unpacked}\n".encode(), refused, capabilities))
    refused = {c.ref: reason for c in commands if (reason := _refusal(repository, c.ref))}
    allowed = [command for command in commands if command.ref not in refused]
    if not allowed:
        return _result(_rendered(b"unpack ok\n", refused, capabilities))
    lines = [c.line + (b"" if number else b"\0" + capabilities) for number, c in enumerate(allowed)]
    done = _receive(repository, b"".join(map(packet, lines)) + b"0000" + pack)
    return _result(_with_refusals(done, refused, capabilities) if refused else done)


def _refusal(repository: Repository, ref: str) -> str | None:
    if ref.startswith("refs/pull/"):
        return _SYSTEM_ONLY
    try:
        repository.check_policy(ref)
    except ServiceError as refusal:
        return str(refusal)
    return None


def _read(data: bytes) -> tuple[Sequence[_Command], bytes, bytes]:
    """Return the commands, the capabilities, and the pack (gitprotocol-pack)."""
    commands: list[_Command] = []
    capabilities, position = b"", 0
    while (length := int(data[position : position + 4] or b"0", 16)) > 4:
        line, _, named = data[position + 4 : position + length].partition(b"\0")
        capabilities = capabilities or named
        line = line.rstrip(b"\n")
        commands.append(_Command(line.split(b" ", 2)[2].decode("utf-8", "surrogateescape"), line))
        position += length
    return commands, capabilities, data[position + 4 :]


def _receive(repository: Repository, data: bytes) -> bytes:
    return subprocess.run(
        ["git", "receive-pack", "--stateless-rpc", str(repository.path)],
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=isolated_environment(),
        check=False,
    ).stdout


def _with_refusals(done: bytes, refused: Mapping[str, str], capabilities: bytes) -> bytes:
    """Return git's answer with the refs that it was not asked for in its report."""
    is_banded = b"side-band-64k" in capabilities
    lines = [line for line in payloads(done) if line]
    report = b"".join(line[1:] for line in lines if line[:1] == b"\x01") if is_banded else done
    remarks = b"".join(packet(line) for line in lines if line[:1] == b"\x02") if is_banded else b""
    kept = b"".join(packet(line) for line in payloads(report) if line)
    return remarks + _banded(kept + _refusals(refused), is_banded)


def _rendered(first: bytes, refused: Mapping[str, str], capabilities: bytes) -> bytes:
    return _banded(packet(first) + _refusals(refused), b"side-band-64k" in capabilities)


def _refusals(refused: Mapping[str, str]) -> bytes:
    return b"".join(
        packet(f"ng {ref} {why}\n".encode("utf-8", "surrogateescape")) for ref, why in sorted(refused.items())
    )


def _banded(lines: bytes, is_banded: bool) -> bytes:
    report = lines + b"0000"
    if not is_banded:
        return report
    bands = (report[start : start + BAND_BYTES] for start in range(0, len(report), BAND_BYTES))
    return b"".join(packet(b"\x01" + band) for band in bands) + b"0000"


def _result(body: bytes) -> Answer:
    return Answer(200, body, {"Cache-Control": "no-cache"}, "application/x-git-receive-pack-result")
