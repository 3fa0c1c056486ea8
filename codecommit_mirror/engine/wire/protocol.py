"""Git's smart HTTP protocol: a list of refs, a pack from the source, a push to the replica (gitprotocol-http, v0)."""

from __future__ import annotations

import http.client
import itertools
import re
from typing import Callable, Iterable, Iterator, Sequence, TypeVar

from ..failures import MirrorFailure, PackRefused, RetryableError, SourceRefused
from ..refs import NO_OBJECT, Advertisement, Command, Pack, Refs
from ..settings import Endpoint
from ..text import error_name, printable, sanitize, to_bytes
from .transport import AGENT, MAX_BODY_BYTES, Traffic, access_problem, read_body, send

_List = TypeVar("_List")


def read_refs(endpoint: Endpoint, service: str, traffic: Traffic | None = None) -> Advertisement:
    """Ask a server for its refs over smart HTTP (gitprotocol-http).

    With ``git-receive-pack`` the permission to push is enough.
    """
    return read_list(endpoint, service, parse_advertisement, traffic)


def read_list(
    endpoint: Endpoint,
    service: str,
    parse: Callable[[bytes], _List],
    traffic: Traffic | None = None,
    limit: int = MAX_BODY_BYTES,
) -> _List:
    """Ask a server for its refs, in at most ``limit`` bytes, and return what ``parse`` makes of them."""
    response = send(endpoint, "GET", f"/info/refs?service={service}", {})
    body = read_body(endpoint, response, limit)
    if traffic and endpoint.side == "source":
        traffic.from_source += len(body)
    if response.headers.get_content_type() != f"application/x-{service}-advertisement":
        raise MirrorFailure(access_problem(endpoint, response.status))
    try:
        has_long_ids = "object-format=sha256" in advertised_capabilities(body)
        found = parse(body)
    except ValueError as error:
        raise RetryableError(f"{endpoint} sent a malformed list of refs ({error})") from None
    if has_long_ids:
        raise MirrorFailure(f"the {endpoint.side} has SHA-256 object ids, which CodeCommit does not support.")
    return found


def request_pack(
    source: Endpoint,
    capabilities: Sequence[str],
    wants: Sequence[str],
    haves: Sequence[str],
    traffic: Traffic,
    limit: bytes = b"",
) -> Iterator[bytes]:
    """Ask for one pack with everything reachable from ``wants`` and not from ``haves``; yield its bytes.

    One stateless request: wants, a line with a filter or a depth, haves and done together (gitprotocol-pack, "Packfile
    Negotiation"). Raises SourceRefused with the source's message; RetryableError if the connection breaks.
    """
    body = _want(capabilities, wants, haves, limit)
    response = _ask(source, "git-upload-pack", [body], len(body))
    remarks, has_pack = b"", False
    try:
        for line in read_pkt_lines(response):
            traffic.from_source += len(line) + 4
            if line[:1] == b"\x01":
                has_pack = True
                yield line[1:]
            elif line[:1] == b"\x02":
                remarks = (remarks + line[1:])[-600:]
            elif line[:1] == b"\x03":
                raise SourceRefused(f"{printable(line[1:])} {_complaints(remarks)}".rstrip())
            elif line.startswith(b"ERR "):
                raise SourceRefused(printable(line[4:]))
            elif not line.startswith((b"ACK ", b"NAK", b"shallow ")):
                raise SourceRefused("the source's answer is not a pack")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RetryableError(f"the connection to the source broke ({error_name(error)})") from None
    finally:
        response.close()
    if not has_pack and _complaints(remarks):
        raise SourceRefused(_complaints(remarks))


def _want(capabilities: Sequence[str], wants: Sequence[str], haves: Sequence[str], limit: bytes) -> bytes:
    words, body = "".join(f" {word}" for word in capabilities), bytearray()
    for want in wants:
        body += pkt_line(f"want {want}{'' if body else words}\n".encode())
    body += (pkt_line(limit) if limit else b"") + b"0000"
    for have in haves:
        body += pkt_line(f"have {have}\n".encode())
    return bytes(body + pkt_line(b"done\n"))


def common_objects(
    source: Endpoint, capabilities: Sequence[str], want: str, haves: Sequence[str], traffic: Traffic
) -> set[str]:
    """Return which of ``haves`` the source has too, without any pack: it acknowledges them (gitprotocol-pack).

    Raises SourceRefused and RetryableError as ``request_pack`` does.
    """
    words = "".join(f" {word}" for word in offered(capabilities, "multi_ack_detailed", AGENT)).encode()
    body = pkt_line(b"want %s%s\n" % (want.encode(), words)) + b"0000"
    body += b"".join(pkt_line(b"have %s\n" % have.encode()) for have in haves) + b"0000"
    answer = read_body(source, _ask(source, "git-upload-pack", [body], len(body)))
    traffic.from_source += len(answer)
    try:
        lines = [line.decode("ascii", "replace").split() for line in split_pkt_lines(answer)]
    except ValueError as error:
        raise RetryableError(f"the source's answer was cut short ({error})") from None
    if any(words[:1] == ["ERR"] for words in lines):
        raise SourceRefused(printable(answer[:600]))
    return {words[1] for words in lines if words[:1] == ["ACK"] and len(words) > 1} & set(haves)


def _ask(endpoint: Endpoint, service: str, body: Iterable[bytes], length: int | None) -> http.client.HTTPResponse:
    headers = {"Content-Type": f"application/x-{service}-request", "Accept": f"application/x-{service}-result"}
    response = send(endpoint, "POST", f"/{service}", headers, body, length)
    if response.headers.get_content_type() != headers["Accept"]:
        response.close()
        raise MirrorFailure(access_problem(endpoint, response.status))
    return response


def _complaints(remarks: bytes) -> str:
    """Return the error messages among a server's progress messages: git's, and Azure Repos' with their codes."""
    found = re.compile(rb"fatal:|error:|\??(TF|VS)[0-9]{5,6}")
    lines = [line for line in re.split(rb"[\r\n]+", remarks) if found.match(line)]
    return f"({printable(b'; '.join(lines[-2:]))})" if lines else ""


def push(
    replica: Endpoint, capabilities: Sequence[str], commands: Sequence[Command], pack: Pack, traffic: Traffic
) -> dict[str, str]:
    """Send commands and a pack; return each refused ref with the server's reason.

    Only capabilities that this server advertised are named: CodeCommit aborts a push that names any other. A ref that
    no longer has its old value is refused. Raises PackRefused if the push as a whole was refused or aborted, TooLarge
    if its size seems to be the reason, RetryableError if the outcome is not known.
    """
    wanted = offered(capabilities, "report-status", "side-band-64k", AGENT)
    first = b"\0" + "".join(f" {word}" for word in wanted).encode()
    head = b""
    for command in commands:
        line = to_bytes(f"{command.old or NO_OBJECT} {command.new or NO_OBJECT} {command.ref}")
        head += pkt_line(line + (b"" if head else first))
    head += b"0000"
    if all(command.new is None for command in commands):
        pack = b""  # A push that only deletes has no pack.
    length = len(head) + len(pack) if isinstance(pack, bytes) else None
    parts = itertools.chain([head], [pack] if isinstance(pack, bytes) else pack)
    body = read_body(replica, _ask(replica, "git-receive-pack", traffic.counting(parts), length))
    try:
        return parse_report(body, "side-band-64k" in wanted)
    except ValueError as error:
        raise RetryableError(f"the replica's answer to a push was cut short ({error})") from None


def offered(capabilities: Sequence[str], *wanted: str) -> list[str]:
    """Return the wanted capabilities that a server advertised; a value after ``=`` is the client's own."""
    names = {word.partition("=")[0] for word in capabilities}
    return [word for word in wanted if word.partition("=")[0] in names]


def parse_report(body: bytes, side_band: bool) -> dict[str, str]:
    """Parse a report-status (gitprotocol-pack, "Report Status") into each refused ref with the reason.

    Raises PackRefused unless it confirms the pack, because a server that aborts sends an empty report; ValueError if it
    is malformed.
    """
    remarks: list[bytes] = []
    if side_band:
        report = b""
        for line in split_pkt_lines(body):
            if line[:1] == b"\x01":
                report += line[1:]
            elif line[:1] == b"\x03":
                raise PackRefused(f"the replica stopped: {printable(line[1:])}")
            else:
                remarks.append(line[1:])
        body = report
    refused: dict[str, str] = {}
    unpacked = False
    for line in split_pkt_lines(body):
        kind, _, rest = line.rstrip(b"\n").decode("utf-8", "surrogateescape").partition(" ")
        if kind == "unpack" and rest != "ok":
            raise PackRefused(
                f"the replica could not unpack the pack: {sanitize(rest)} {printable(b' '.join(remarks))}".rstrip()
            )
        unpacked = unpacked or kind == "unpack"
        if kind == "ng":
            ref, _, reason = rest.partition(" ")
            refused[ref] = f"{reason} {printable(b' '.join(remarks))}".rstrip()
        elif kind not in ("ok", "unpack", "option"):
            raise ValueError(f"not a report: {sanitize(kind)}")
    if not unpacked:
        words = printable(b" ".join(remarks))
        raise PackRefused(f"the replica aborted the push{f': {words}' if words else ' without giving a reason'}")
    return refused


def parse_advertisement(body: bytes) -> Advertisement:
    """Parse a reference advertisement of protocol v0 or v1; raise ValueError if it is malformed."""
    refs: Refs = {}
    peeled: Refs = {}
    for value, name in advertised_refs(body):
        text = name.decode("utf-8", "surrogateescape")
        if text.endswith("^{}"):
            peeled[text[:-3]] = value.decode()
        elif text.startswith("refs/"):
            refs[text] = value.decode()
    return Advertisement(refs, advertised_capabilities(body), peeled)


def advertised_refs(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the id and the name in each line of an advertisement; raise ValueError if it is malformed."""
    if not body.endswith(b"0000"):
        raise ValueError("it ends too early")
    for line in split_pkt_lines(body):
        line = line.partition(b"\0")[0].rstrip(b"\n")
        if line.startswith((b"# service=", b"version ", b"shallow ")):
            continue
        if line.startswith(b"ERR "):
            raise ValueError(printable(line[4:]))
        value, space, name = line.partition(b" ")
        if not space or not re.fullmatch(b"[0-9a-f]{40}|[0-9a-f]{64}", value):
            raise ValueError(f"not a ref: {printable(line[:100])}")
        yield value, name


def advertised_capabilities(body: bytes) -> tuple[str, ...]:
    """Return the capabilities, which the first ref's line has after its name."""
    words = next((line.partition(b"\0")[2] for line in split_pkt_lines(body) if b"\0" in line), b"")
    return tuple(words.decode("utf-8", "surrogateescape").split())


def pkt_line(payload: bytes) -> bytes:
    """Wrap data in a pkt-line (gitprotocol-common)."""
    return b"%04x%s" % (len(payload) + 4, payload)


def split_pkt_lines(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of pkt-lines, without flush packets; raise ValueError if one is malformed."""
    position = 0
    while position < len(data):
        length = _pkt_length(data[position : position + 4])
        if position + length > len(data):
            raise ValueError(f"a pkt-line of length {length} at byte {position} of {len(data)}")
        if length > 4:
            yield data[position + 4 : position + length]
        position += length or 4


def read_pkt_lines(stream: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the payloads of a stream's pkt-lines; raise ValueError if it ends inside one."""
    while True:
        digits = _read_exactly(stream, 4)
        if not digits:
            return
        length = _pkt_length(digits)
        if length > 4:
            payload = _read_exactly(stream, length - 4)
            if len(payload) < length - 4:
                raise ValueError("the stream ends inside a pkt-line")
            yield payload


def _read_exactly(stream: http.client.HTTPResponse, size: int) -> bytes:
    data = stream.read(size)
    while data and len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _pkt_length(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9a-fA-F]{4}", digits):
        raise ValueError("no pkt-line where one should be")
    length = int(digits, 16)
    if length in (1, 2, 3):
        raise ValueError(f"a pkt-line of length {length}")
    return length
