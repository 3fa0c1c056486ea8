#!/usr/bin/env python3
"""Make a replica repository equal to its source, ref by ref, without a clone.

A run reads the refs of both sides, plans the difference, asks the source for one pack with what the replica lacks,
and streams that pack on to the replica. A clone is made only when a server refuses every such pack. The replica's own
refs stand below refs/tags/codecommit-mirror/: tips that a run deleted or overwrote (archive/), refs outside branches
and tags where the replica takes them nowhere else (refs/), and a tag that says what a run found equal (confirmed).
This file reads from top to bottom:

    1. settings   from the environment
    2. protocol   smart HTTP: a list of refs, a pack from the source, a push to the replica
    3. packs      is a pack whole, and do its commits show that an update only adds to history
    4. plan       what to create, update, delete and keep in the archive; pure functions
    5. transfer   the relay, its step down to simpler packs, and in the end to plain git
    6. mirror     rounds of read, plan, push, until both sides are equal or it is clear why not
    7. report     for people, for the build agent, and as JSON

Needs Python 3.8 or later and its standard library; git 2.31 or later only where it has to step down. The environment:

    AZURE_REPO_URL, AZURE_GIT_USERNAME, AZURE_GIT_PASSWORD    the source (or SYSTEM_ACCESSTOKEN, the run's own token)
    AWS_REPO_URL, AWS_GIT_USERNAME, AWS_GIT_PASSWORD          the replica
    MIRROR_REFS               what below refs/ is mirrored: "heads tags notes"
    MIRROR_ARCHIVE_DAYS       how long tips that were deleted or overwritten are kept: 90; 0 adds and removes none
    MIRROR_ALLOW_DELETIONS    1: for this run, do without the guard against a source that lost most of its refs

Passwords stay in the environment, and go out in the Authorization header to the host that they are for. Ref names are
bytes from strangers: no shell sees them, and they are printed so that no build agent takes them for a command.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
import ipaddress
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import zlib
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterable, Iterator, Mapping, NamedTuple, Sequence, Tuple, Union

MAXIMUM_REFS_A_PUSH = 2000
"""CodeCommit takes 4,000: https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html"""
MAXIMUM_BRANCH_NAME = 256
"""Characters, without refs/heads/ (the same page)."""
MAXIMUM_HAVES = 2000
"""The most object ids that a request names for the pack to build on."""
MAXIMUM_OBJECTS_A_PUSH = 1_000_000
"""A first mirror with more objects goes in increments of history."""
COMMITS_AN_INCREMENT = 2000
MAXIMUM_BYTES_A_COMMAND_LINE = 500_000
"""macOS allows 1 MiB for arguments and environment together, Linux 2 MiB."""
BUFFER_BYTES = 16 * 1024 * 1024
"""A pack up to this size is looked into before it is pushed; a larger one is streamed unseen."""
LARGEST_COMMIT = 1_000_000
"""Bytes of a commit that is looked into; of a larger one no update counts as a fast-forward."""
CHUNK_BYTES = 64 * 1024
TIMEOUT_SECONDS = 300
MAXIMUM_ROUNDS = 6
MAXIMUM_HALVINGS = 64
"""In a run, to find the bad refs of pushes that were refused as a whole."""
MAXIMUM_WAIT_SECONDS = 600
MAXIMUM_PAGES = 1000
OWN = "refs/tags/codecommit-mirror/"
"""The replica's own refs, in a namespace that CodeCommit takes, reports as events and knows in IAM conditions."""
ARCHIVE = f"{OWN}archive/"
CARRIED = f"{OWN}refs/"
CONFIRMED = f"{OWN}confirmed"
ARCHIVE_TIME = "%Y%m%dT%H%M%SZ"
AGENT = "agent=codecommit-mirror"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
"""How a file of Git LFS begins in Git: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
NO_OBJECT = "0" * 40
EMPTY_PACK = b"PACK" + (2).to_bytes(4, "big") + bytes(4)
EMPTY_PACK += hashlib.sha1(EMPTY_PACK).digest()

Pack = Union[bytes, Iterator[bytes]]
"""A pack that is here as a whole, or that is on its way."""
Refs = Dict[str, str]
"""Ref name to object id, in hexadecimal. Names that are not UTF-8 are kept with surrogate escapes."""


class MirrorFailure(Exception):
    """Why the mirror cannot go on, and what to do, in one sentence."""


class Transient(Exception):
    """What may go better in a moment: a connection that broke, a server that is busy, a ref that moved."""

    def __init__(self, reason: str, wait_seconds: float = 0, status: int = 0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.status = status
        """What the server answered; 0 when the connection broke."""


class PackRefused(Exception):
    """The replica did not take a push in this form; it may take a simpler pack."""


class SourceRefused(Exception):
    """The source did not give a pack; it may give one without a broken ref, or in a simpler form."""


class TooLarge(Exception):
    """A push is too large; smaller ones are not."""


# ------------------------------------------------------------------------------------------------------- 1. settings


@dataclass(frozen=True)
class Endpoint:
    """One side of the mirror."""

    side: str
    url: str
    authorization: str = field(repr=False)
    """The value of the Authorization header."""
    username: str = field(repr=False)
    password: str = field(repr=False)
    remedy: str
    """What to check when this side does not accept the credentials."""


@dataclass(frozen=True)
class Settings:
    source: Endpoint
    replica: Endpoint
    namespaces: tuple[str, ...] = ("refs/heads/", "refs/tags/", "refs/notes/")
    archive_days: int = 90
    allow_deletions: bool = False


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings, or raise MirrorFailure that names the variable to set."""
    token = environment.get("SYSTEM_ACCESSTOKEN", "").strip()
    if _is_set(token):
        check_credential("SYSTEM_ACCESSTOKEN", token, bearer=True)
        username, password, authorization = "azure-pipelines", token, f"Bearer {token}"
        remedy = (
            "the job token of this pipeline was not accepted: in Project settings, Pipelines, Settings, check 'Limit "
            "job authorization scope' and give the project's Build Service the Read permission on the repository"
        )
    else:
        username, password = (_credential(environment, f"AZURE_GIT_{name}") for name in ("USERNAME", "PASSWORD"))
        authorization = basic(username, password)
        remedy = (
            "check the pipeline's variables AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD: the Git credentials or personal "
            "access token may be wrong, expired or global (those end on 1 December 2026); the scope is Code (read)"
        )
    source_url = repository_url("AZURE_REPO_URL", environment)
    source = Endpoint("source", source_url, authorization, username, password, remedy)
    username, password = (_credential(environment, f"AWS_GIT_{name}") for name in ("USERNAME", "PASSWORD"))
    remedy = (
        "check the pipeline's variables AWS_GIT_USERNAME and AWS_GIT_PASSWORD, that the credential is Active in IAM, "
        "and that the user's policy allows codecommit:GitPush on this repository"
    )
    replica_url = repository_url("AWS_REPO_URL", environment)
    replica = Endpoint("replica", replica_url, basic(username, password), username, password, remedy)
    days = environment.get("MIRROR_ARCHIVE_DAYS", "90").strip()
    if not re.fullmatch("[0-9]{1,5}", days):
        raise MirrorFailure(f"MIRROR_ARCHIVE_DAYS is {shown(days)!r}; give a number of days, 0 for no archive.")
    names = environment.get("MIRROR_REFS", "heads tags notes").split()
    if any(re.match("(refs|archive)(/|$)", name) for name in names):
        raise MirrorFailure("MIRROR_REFS names what is below refs/, like heads, and never the archive; correct it.")
    return Settings(
        source,
        replica,
        tuple(f"refs/{name}/" for name in names),
        int(days),
        environment.get("MIRROR_ALLOW_DELETIONS", "").strip() in ("1", "true", "True"),
    )


def repository_url(variable: str, environment: Mapping[str, str]) -> str:
    """Return the variable's URL with its scheme and without user and password."""
    given = _required(environment, variable)
    scheme, separator, rest = given.rpartition("://")
    scheme = scheme.lower() if separator else "https"
    authority, _, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63})(:[0-9]{1,5})?", host)
    usable = match and int((match.group(2) or ":443")[1:]) < 65536
    # An @ further on can be the end of a password that holds a slash: such a text is not repeated, to no log.
    if (
        not match
        or not usable
        or not path.strip("/")
        or re.search(r"[@?#\\\x00-\x1f]", path)
        or not re.fullmatch("[a-z]+", scheme)
    ):
        raise MirrorFailure(f"{variable} is not the URL of a repository; copy the HTTPS clone URL, without user@.")
    if scheme != "https" and not (scheme == "http" and is_loopback(match.group(1).strip("[]"))):
        raise MirrorFailure(f"{variable} would send the password over {scheme}, in the clear; use https://.")
    return f"{scheme}://{host}/" + urllib.parse.quote(path.strip("/"), safe="/%:+,;=!$&'()*~")


def _required(environment: Mapping[str, str], variable: str) -> str:
    value = environment.get(variable, "").strip()
    if not _is_set(value):
        raise MirrorFailure(
            f"the pipeline variable {variable} is not set; add it under Edit, Variables of the pipeline."
        )
    return value


def _credential(environment: Mapping[str, str], variable: str) -> str:
    value = _required(environment, variable)
    check_credential(variable, value)
    return value


def check_credential(name: str, value: str, *, bearer: bool = False) -> None:
    """Refuse a credential that cannot be sent, without repeating it.

    A line break would end a header, and http.client's exception would print the rest. A bearer token is visible ASCII
    (RFC 6750, 2.1).
    """
    if not (re.fullmatch("[!-~]+", value) if bearer else value.isprintable()):
        raise MirrorFailure(
            f"{name} contains a line break or another character that no credential contains; copy it again."
        )


def _is_set(value: str) -> bool:
    # Azure Pipelines leaves the macro of an unknown variable as it is.
    return bool(value) and not value.startswith("$" + "(")


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` names this machine; only such a host may be reached without TLS."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


# ------------------------------------------------------------------------------------------------------- 2. protocol


@dataclass(frozen=True)
class Advertisement:
    """What a server says of its refs (gitprotocol-pack, "Reference Discovery")."""

    refs: Refs
    """The replica's are brought up to date while a run pushes: what was pushed is there to build on."""
    capabilities: tuple[str, ...] = ()

    @property
    def head(self) -> str | None:
        """The branch that HEAD points at, where the server tells."""
        prefix = "symref=HEAD:"
        return next((word[len(prefix) :] for word in self.capabilities if word.startswith(prefix)), None)


class Traffic:
    """Counts bytes, and tells of long transfers, at most once a second."""

    def __init__(self) -> None:
        self.from_source = 0
        self.to_replica = 0
        self.objects = 0
        """Objects in the pack that is under way."""
        self._told = time.monotonic()

    def counting(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on what goes to the replica."""
        for part in parts:
            yield part
            self.to_replica += len(part)
            if time.monotonic() - self._told >= 1:
                self._told = time.monotonic()
                say(
                    f"  {in_bytes(self.from_source)} from the source, {in_bytes(self.to_replica)} to the replica; "
                    f"the pack has {self.objects:,} objects"
                )


def read_refs(endpoint: Endpoint, service: str, traffic: Traffic | None = None) -> Advertisement:
    """Ask a server for its refs over smart HTTP (gitprotocol-http).

    With ``git-receive-pack`` the permission to push is enough.
    """
    response = send(endpoint, "GET", f"/info/refs?service={service}", {})
    body = _whole(endpoint, response)
    if traffic and endpoint.side == "source":
        traffic.from_source += len(body)
    if response.headers.get_content_type() != f"application/x-{service}-advertisement":
        raise MirrorFailure(_refusal(endpoint, response.status))
    try:
        found = parse_advertisement(body)
    except ValueError as error:
        raise Transient(f"the {endpoint.side} {endpoint.url} sent a malformed list of refs ({error})") from None
    if "object-format=sha256" in found.capabilities:
        raise MirrorFailure(f"the {endpoint.side} has SHA-256 object ids, which CodeCommit does not take.")
    return found


def request_pack(
    source: Endpoint, capabilities: Sequence[str], wants: Sequence[str], haves: Sequence[str], traffic: Traffic
) -> Iterator[bytes]:
    """Ask for one pack with what is reachable from ``wants`` and not from ``haves``; yield its bytes.

    One stateless request: wants, haves and done together (gitprotocol-pack, "Packfile Negotiation"). Raises
    SourceRefused with the source's words; Transient when the connection breaks.
    """
    first = "".join(f" {word}" for word in capabilities).encode()
    lines = [b"want %s%s\n" % (want.encode(), first if not i else b"") for i, want in enumerate(wants)]
    body = b"".join(map(packet, lines)) + b"0000"
    body += b"".join(packet(b"have %s\n" % have.encode()) for have in haves) + packet(b"done\n")
    headers = {
        "Content-Type": "application/x-git-upload-pack-request",
        "Accept": "application/x-git-upload-pack-result",
    }
    response = send(source, "POST", "/git-upload-pack", headers, [body], len(body))
    if response.headers.get_content_type() != "application/x-git-upload-pack-result":
        raise MirrorFailure(_refusal(source, response.status))
    remarks = b""
    try:
        for line in read_packets(response):
            traffic.from_source += len(line) + 4
            if line[:1] == b"\x01":
                yield line[1:]
            elif line[:1] == b"\x02":
                remarks = (remarks + line[1:])[-600:]
            elif line[:1] == b"\x03":
                raise SourceRefused(f"{_words(line[1:])} {_complaints(remarks)}".rstrip())
            elif line.startswith(b"ERR "):
                raise SourceRefused(_words(line[4:]))
            elif not line.startswith((b"ACK ", b"NAK")):
                raise SourceRefused("the source's answer is not a pack")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Transient(f"the connection to the source broke ({_name(error)})") from None
    finally:
        response.close()


def _complaints(remarks: bytes) -> str:
    """Return what went wrong, of all that a server remarks while it works."""
    lines = [line for line in re.split(rb"[\r\n]+", remarks) if line.startswith((b"fatal:", b"error:"))]
    return f"({_words(b'; '.join(lines[-2:]))})" if lines else ""


def push(
    replica: Endpoint, capabilities: Sequence[str], commands: Sequence[Command], pack: Pack, traffic: Traffic
) -> dict[str, str]:
    """Send commands and a pack; return each refused ref with the server's reason.

    Only capabilities that this server advertised are named: CodeCommit aborts a push that names another one. An old
    value that does not hold any more is a refusal of that ref. Raises PackRefused when the push as a whole was refused
    or aborted, TooLarge when its size seems to be the reason, Transient when the outcome is not known.
    """
    wanted = offered(capabilities, "report-status", "side-band-64k", AGENT)
    first = b"\0" + "".join(f" {word}" for word in wanted).encode()
    head = b""
    for command in commands:
        line = f"{command.old or NO_OBJECT} {command.new or NO_OBJECT} {command.ref}".encode("utf-8", "surrogateescape")
        head += packet(line + (b"" if head else first))
    head += b"0000"
    headers = {
        "Content-Type": "application/x-git-receive-pack-request",
        "Accept": "application/x-git-receive-pack-result",
    }
    if all(command.new is None for command in commands):
        pack = b""  # A push that only deletes has no pack.
    length = len(head) + len(pack) if isinstance(pack, bytes) else None
    parts = itertools.chain([head], [pack] if isinstance(pack, bytes) else pack)
    response = send(replica, "POST", "/git-receive-pack", headers, traffic.counting(parts), length)
    body = _whole(replica, response)
    if response.headers.get_content_type() != "application/x-git-receive-pack-result":
        raise MirrorFailure(_refusal(replica, response.status))
    try:
        return parse_report(body, "side-band-64k" in wanted)
    except ValueError as error:
        raise Transient(f"the replica's answer to a push was cut short ({error})") from None


def offered(capabilities: Sequence[str], *wanted: str) -> list[str]:
    """Return those of the wanted capabilities that a server advertised; a value behind ``=`` is the client's own."""
    names = {word.partition("=")[0] for word in capabilities}
    return [word for word in wanted if word.partition("=")[0] in names]


def parse_report(body: bytes, side_band: bool) -> dict[str, str]:
    """Read a report-status (gitprotocol-pack, "Report Status"); ValueError when it is malformed.

    Raises PackRefused unless it says that the pack was taken: a server that aborts sends an empty one.
    """
    remarks: list[bytes] = []
    if side_band:
        report = b""
        for line in packet_lines(body):
            if line[:1] == b"\x01":
                report += line[1:]
            elif line[:1] == b"\x03":
                raise PackRefused(f"the replica stopped: {_words(line[1:])}")
            else:
                remarks.append(line[1:])
        body = report
    refused: dict[str, str] = {}
    unpacked = False
    for line in packet_lines(body):
        kind, _, rest = line.rstrip(b"\n").decode("utf-8", "surrogateescape").partition(" ")
        if kind == "unpack" and rest != "ok":
            raise PackRefused(
                f"the replica could not take the pack: {shown(rest)} {_words(b' '.join(remarks))}".rstrip()
            )
        unpacked = unpacked or kind == "unpack"
        if kind == "ng":
            ref, _, reason = rest.partition(" ")
            refused[ref] = f"{reason} {_words(b' '.join(remarks))}".rstrip()
        elif kind not in ("ok", "unpack", "option"):
            raise ValueError(f"not a report: {shown(kind)}")
    if not unpacked:
        words = _words(b" ".join(remarks))
        raise PackRefused(f"the replica aborted the push{f': {words}' if words else ' without giving a reason'}")
    return refused


def send(
    endpoint: Endpoint,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Iterable[bytes] | None = None,
    length: int | None = None,
) -> http.client.HTTPResponse:
    """Send one request on a connection of its own, and return the response when it is a success.

    Redirects are not followed: credentials go to the configured host and to no other.
    """
    url = urllib.parse.urlsplit(endpoint.url)
    connection = _connect(url)
    try:
        connection.putrequest(method, f"{url.path}{path}", skip_accept_encoding=True)
        sent = {"Authorization": endpoint.authorization, "User-Agent": "git/codecommit-mirror", **headers}
        if body is not None:
            sent.update({"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)})
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            for part in body or ():
                # Servers bound the size of a chunk.
                for start in range(0, len(part), CHUNK_BYTES):
                    piece = part[start : start + CHUNK_BYTES]
                    connection.send(piece if length is not None else b"%x\r\n%s\r\n" % (len(piece), piece))
            if body is not None and length is None:
                connection.send(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # A server that refuses early closes early; its answer may be there all the same.
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        what = "could not be reached" if body is None else "broke the connection"
        raise Transient(f"the {endpoint.side} {endpoint.url} {what} ({_name(error)})") from None
    except BaseException:
        connection.close()
        raise
    if response.status == 200:
        return response
    retry_after = response.headers.get("Retry-After", "")
    response.close()
    what = f"the {endpoint.side} {endpoint.url} answered {response.status}"
    if response.status == 413 and body is not None:
        raise TooLarge(what)
    if _seconds(retry_after) > MAXIMUM_WAIT_SECONDS:
        raise MirrorFailure(
            f"the {endpoint.side} {endpoint.url} asks to wait {_seconds(retry_after):,.0f} s; run again then."
        )
    if response.status in (408, 413, 429) or response.status >= 500:
        raise Transient(what, _seconds(retry_after), response.status)
    if response.status == 400 and body is not None:
        raise (PackRefused if endpoint.side == "replica" else SourceRefused)(f"{what} to the request")
    raise MirrorFailure(_refusal(endpoint, response.status, response.headers.get("Location", "")))


def _connect(url: urllib.parse.SplitResult) -> http.client.HTTPConnection:
    """Return a new connection to the URL's host, through the environment's proxy if there is one for https."""
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    host, port = url.hostname or "", url.port
    proxy = urllib.request.getproxies().get(url.scheme)
    if url.scheme != "https" or not proxy or urllib.request.proxy_bypass(host):
        return kind(host, port, timeout=TIMEOUT_SECONDS)
    try:
        via = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        connection = kind(via.hostname or "", via.port or 80, timeout=TIMEOUT_SECONDS)
    except ValueError:
        raise MirrorFailure("https_proxy is not a valid proxy URL; correct it.") from None
    authorization = {}
    if via.username:
        name, password = urllib.parse.unquote(via.username), urllib.parse.unquote(via.password or "")
        authorization["Proxy-Authorization"] = basic(name, password)
    connection.set_tunnel(host, port, authorization)
    return connection


def _whole(endpoint: Endpoint, response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Transient(f"the {endpoint.side}'s answer was cut short ({_name(error)})") from None
    finally:
        response.close()


def _seconds(retry_after: str) -> float:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds or a date."""
    try:
        if retry_after.strip().isdigit():
            return float(retry_after)
        date = email.utils.parsedate_tz(retry_after)
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _refusal(endpoint: Endpoint, status: int, location: str = "") -> str:
    what = f"the {endpoint.side} {endpoint.url}"
    here = urllib.parse.urlsplit(endpoint.url).netloc
    if 300 <= status < 400 and urllib.parse.urlsplit(location).netloc == here:
        return f"{what} has moved to {shown(location.partition('?')[0])}; use the new URL."
    if status == 404:
        return f"{what} does not exist (404); check its URL, and that it was not renamed or deleted."
    if status in (401, 403) or status < 400:
        page = "a sign-in page" if status < 400 else str(status)
        return f"{what} refused access ({page}); {endpoint.remedy}."
    return f"{what} answered {status}, which is not an answer of a Git server; check its URL."


def parse_advertisement(body: bytes) -> Advertisement:
    """Read a reference advertisement of protocol v0 or v1; ValueError when it is malformed."""
    refs: Refs = {}
    capabilities: list[str] = []
    if not body.endswith(b"0000"):
        raise ValueError("it ends too early")
    for line in packet_lines(body):
        line = line.rstrip(b"\n")
        if line.startswith((b"# service=", b"version ", b"shallow ")):
            continue
        if line.startswith(b"ERR "):
            raise ValueError(_words(line[4:]))
        line, separator, words = line.partition(b"\0")
        if separator:
            capabilities = words.decode("utf-8", "surrogateescape").split()
        object_id, space, name = line.decode("utf-8", "surrogateescape").partition(" ")
        if not space or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", object_id):
            raise ValueError(f"not a ref: {_words(line[:100])}")
        if name.startswith("refs/") and not name.endswith("^{}"):
            refs[name] = object_id
    return Advertisement(refs, tuple(capabilities))


def packet(payload: bytes) -> bytes:
    """Return a pkt-line (gitprotocol-common)."""
    return b"%04x%s" % (len(payload) + 4, payload)


def packet_lines(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of pkt-lines; flush packets are passed over; ValueError when one is malformed."""
    position = 0
    while position < len(data):
        length = _packet_length(data[position : position + 4])
        if position + length > len(data):
            raise ValueError(f"a pkt-line of length {length} at byte {position} of {len(data)}")
        if length > 4:
            yield data[position + 4 : position + length]
        position += length or 4


def read_packets(stream: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the payloads of a stream's pkt-lines; ValueError when it ends inside one."""
    while True:
        digits = _exactly(stream, 4)
        if not digits:
            return
        length = _packet_length(digits)
        if length > 4:
            payload = _exactly(stream, length - 4)
            if len(payload) < length - 4:
                raise ValueError("the stream ends inside a pkt-line")
            yield payload


def _exactly(stream: http.client.HTTPResponse, size: int) -> bytes:
    data = stream.read(size)
    while data and len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _packet_length(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9a-fA-F]{4}", digits):
        raise ValueError("no pkt-line where one should be")
    length = int(digits, 16)
    if length in (1, 2, 3):
        raise ValueError(f"a pkt-line of length {length}")
    return length


# ---------------------------------------------------------------------------------------------------------- 3. packs


def checked(pack: Iterable[bytes]) -> Iterator[bytes]:
    """Pass a pack on, and raise Transient instead of its end when its checksum is wrong (gitformat-pack)."""
    digest, tail = hashlib.sha1(), b""
    for part in pack:
        data = tail + part
        digest.update(data[:-20])
        tail = data[-20:]
        yield part
    if digest.digest() != tail:
        raise Transient("the pack from the source was not whole")


def object_count(start: bytes | bytearray) -> int:
    """Return the number of objects that a pack's header promises."""
    if len(start) < 12 or start[:4] != b"PACK":
        raise Transient("the source sent no pack")
    return int.from_bytes(start[8:12], "big")


class Contents(NamedTuple):
    """What a whole pack shows, as far as it can be read without other objects."""

    parents: dict[str, tuple[str, ...]]
    """Of each commit."""
    lfs_pointers: int
    """Files that Git LFS keeps elsewhere."""


def read_pack(pack: bytes) -> Contents:
    """Look into a pack (gitformat-pack)."""
    commits: dict[object, bytes] = {}
    contents = Contents({}, 0)
    position, end = 12, len(pack) - 20
    for _ in range(object_count(pack)):
        if position >= end:
            break
        start, kind = position, (pack[position] >> 4) & 7
        while pack[position] & 128:
            position += 1
        position += 1
        base: object = None
        if kind == 6:
            offset = pack[position] & 127
            while pack[position] & 128:
                position += 1
                offset = ((offset + 1) << 7) | (pack[position] & 127)
            position += 1
            base = start - offset
        elif kind == 7:
            base = pack[position : position + 20].hex()
            position += 20
        is_commit = kind == 1 or base in commits
        data, position = _inflate(pack, position, end, LARGEST_COMMIT + 1 if is_commit else len(LFS_POINTER))
        if base in commits:
            data = _apply_delta(commits[base], data)
        if is_commit and 0 < len(data) <= LARGEST_COMMIT:
            object_id = hashlib.sha1(b"commit %d\0%s" % (len(data), data)).hexdigest()
            commits[start] = commits[object_id] = data
            contents.parents[object_id] = commit_parents(data)
        elif kind == 3 and data == LFS_POINTER:
            contents = contents._replace(lfs_pointers=contents.lfs_pointers + 1)
    return contents


def commit_parents(commit: bytes) -> tuple[str, ...]:
    """Return a commit's parents as git reads them: the lines right behind ``tree``, and no others.

    Anybody can write a commit with a line that begins with ``parent`` further down, where git sees none.
    """
    header = re.match(rb"tree [0-9a-fA-F]{40}\n((?:parent [0-9a-fA-F]{40}\n)*)", commit)
    return tuple(line[7:].decode().lower() for line in header.group(1).splitlines()) if header else ()


def _inflate(pack: bytes, position: int, end: int, limit: int) -> tuple[bytes, int]:
    """Return the first ``limit`` bytes of an object's data, and where the next object is."""
    stream, kept = zlib.decompressobj(), bytearray()
    while not stream.eof and position < end:
        piece = pack[position : min(position + 4096, end)]
        data = stream.decompress(piece)
        kept += data[: max(0, limit - len(kept))]
        position += len(piece) - len(stream.unused_data)
    return bytes(kept), position


def _apply_delta(base: bytes, delta: bytes) -> bytes:
    """Apply a delta (gitformat-pack, "Deltified representation"); return nothing when the result is too large."""
    position, sizes, result = 0, [], bytearray()
    for _ in range(2):
        size, shift = 0, 0
        while delta[position] & 128:
            size |= (delta[position] & 127) << shift
            position, shift = position + 1, shift + 7
        sizes.append(size | delta[position] << shift)
        position += 1
    if sizes[1] > LARGEST_COMMIT:
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
    """Whether the known commits show that ``new`` has ``old`` in its history; False also when they do not tell."""
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


# ----------------------------------------------------------------------------------------------------------- 4. plan


class Command(NamedTuple):
    """One ref's change: ``old`` is what the replica must still have; None is no such ref."""

    ref: str
    old: str | None
    new: str | None


Plan = Tuple[Tuple[Command, ...], ...]
"""Pushes to make, in this order."""


def select(refs: Refs, namespaces: Sequence[str]) -> Refs:
    """Return the refs that are mirrored; the replica's own are not."""
    own = tuple(namespaces)
    return {name: value for name, value in refs.items() if name.startswith(own) and not _is_own(name)}


def _is_own(ref: str) -> bool:
    """Whether a ref is the replica's own, or in the way of those."""
    return f"{ref}/".startswith(OWN)


def original_name(ref: str) -> str:
    """Return the source's name of a ref that the replica may carry below its own prefix."""
    return f"refs/{ref[len(CARRIED) :]}" if ref.startswith(CARRIED) else ref


def carried_name(ref: str) -> str:
    """Return the name below which the replica carries a ref that it does not take under its own."""
    return CARRIED + ref[len("refs/") :]


def by_original_name(replica: Refs, namespaces: Sequence[str]) -> Refs:
    """Return the refs that the replica mirrors, by the names that the source has for them."""
    carried = {original_name(name): value for name, value in replica.items() if name.startswith(CARRIED)}
    return {**select(replica, namespaces), **select(carried, namespaces)}


def _is_other(ref: str) -> bool:
    """Whether a ref is neither a branch nor a tag: CodeCommit may not take it under its own name."""
    return not ref.startswith(("refs/heads/", "refs/tags/"))


def _kind(ref: str) -> str:
    return ref.split("/", 2)[1]


def replica_names(source: Iterable[str], replica: Iterable[str], refused: Iterable[str] = ()) -> dict[str, str]:
    """Decide under which name the replica has, or gets, each of the source's refs.

    What the replica has decides, so that no push that it refused is tried again by every run: a ref outside branches
    and tags is carried where it, or one of its kind, is carried already. Others are tried under their own names.

    Args:
        source: the names of the refs that are mirrored.
        replica: the names of all refs of the replica.
        refused: names that the replica refused in this run.
    """
    there, refused = set(replica), set(refused)
    carried_kinds = {_kind(original_name(name)) for name in there if name.startswith(CARRIED)}
    kept_kinds = {_kind(name) for name in there if _is_other(name)}

    def is_carried(name: str) -> bool:
        if not _is_other(name):
            return False
        if name in refused or carried_name(name) in there:
            return True
        if name in there:
            return False
        return _kind(name) in carried_kinds or (bool(carried_kinds) and _kind(name) not in kept_kinds)

    return {name: carried_name(name) if is_carried(name) else name for name in source}


def unmirrorable(source: Iterable[str], namespaces: Sequence[str]) -> dict[str, str]:
    """Return the source's refs that the replica cannot take, each with the reason and the remedy."""
    reasons = {name: _why_not(name) for name in source if name.startswith(tuple(namespaces))}
    return {name: why for name, why in reasons.items() if why}


def make_plan(source: Refs, replica: Refs, default_branch: str | None = None, given_up: Iterable[str] = ()) -> Plan:
    """Decide how the replica becomes equal to the source, both with the replica's names.

    A deletion goes first when its name is in the way of a new ref (``a`` and ``a/b`` cannot both be), else last and
    apart. On a replica without branches the default branch goes first and alone: CodeCommit makes the first branch
    that it gets the default one. Refs outside branches and tags go after all others, in pushes of their own, so that a
    server that refuses them harms nothing else. Refs that were given up in this run are left as they are.
    """
    left = set(given_up)
    changes = [
        Command(name, replica.get(name), value)
        for name, value in sorted(source.items())
        if replica.get(name) != value and name not in left
    ]
    deletions = [
        Command(name, value, None)
        for name, value in sorted(replica.items())
        if name not in source and name not in left and carried_name(name) not in source
    ]
    created = {change.ref for change in changes if change.old is None}
    parents = {ref[:end] for ref in created for end in _slashes(ref)}
    in_the_way = {
        deletion
        for deletion in deletions
        if deletion.ref in parents or any(deletion.ref[:end] in created for end in _slashes(deletion.ref))
    }
    first: list[Command] = []
    if not any(name.startswith("refs/heads/") for name in replica):
        branches = [change.ref for change in changes if change.ref.startswith("refs/heads/")]
        likely = [name for name in (default_branch, "refs/heads/main", "refs/heads/master") if name in branches]
        first = [change for change in changes if change.ref in [*likely, *branches][:1]]
    groups = (
        [deletion for deletion in deletions if deletion in in_the_way],
        first,
        [change for change in changes if change not in first],
        [deletion for deletion in deletions if deletion not in in_the_way],
    )
    split = [
        [command for command in group if _is_other(command.ref) == other] for other in (False, True) for group in groups
    ]
    return tuple(batch for group in split for batch in batches(group))


def _slashes(ref: str) -> list[int]:
    return [position for position, character in enumerate(ref) if character == "/"]


def _why_not(name: str) -> str | None:
    if _is_own(name):
        return f"names below {OWN} are reserved for the replica's own refs; rename the tag at the source"
    kind, _, short = name[len("refs/") :].partition("/")
    what = {"heads": "branch", "tags": "tag"}.get(kind)
    if what and re.fullmatch("[0-9a-fA-F]{40}", short):
        return f"CodeCommit takes no {what} name of 40 hexadecimal digits; rename the {what} at the source"
    if what == "branch" and len(short) > MAXIMUM_BRANCH_NAME:
        return (
            f"CodeCommit takes branch names of up to {MAXIMUM_BRANCH_NAME} characters; rename the branch at the source"
        )
    if what == "branch" and short == "@":
        return "CodeCommit does not accept @ as a branch name; rename the branch at the source"
    return None


def batches(commands: Sequence[Command], size: int = MAXIMUM_REFS_A_PUSH) -> Iterator[tuple[Command, ...]]:
    """Yield the commands in pushes of at most ``size``."""
    for start in range(0, len(commands), size):
        yield tuple(commands[start : start + size])


def why_stop(source: Refs, replica: Refs, listed: set[str] | None, allow_deletions: bool) -> str | None:
    """Return why this source must not be mirrored without a person's word: it lost too much at once.

    Args:
        source, replica: the refs of both sides.
        listed: the refs that Azure's REST API knows, where it could be asked.
        allow_deletions: a person gave the word.
    """
    if allow_deletions:
        return None
    go_ahead = "If that is right, run once with the pipeline variable MIRROR_ALLOW_DELETIONS=1"
    hidden = sorted(name for name in replica if name not in source and listed and name in listed)
    if hidden:
        return (
            f"Azure DevOps has {_listing(hidden)}, but does not show them to this user over Git (limited refs); give "
            f"the user the permission to read every ref. {go_ahead}."
        )
    mirrorable = dict.fromkeys((name for name in source if not _why_not(name)), "")
    for kinds, what in (
        (("refs/heads/", "refs/tags/"), "branches and tags"),
        (("refs/heads/",), "branches"),
        (("refs/tags/",), "tags"),
    ):
        had = select(replica, kinds)
        lost = sorted(name for name in had if name not in source)
        no_branch_left = "refs/heads/" in kinds and not select(mirrorable, kinds)
        if lost and (no_branch_left or (len(lost) > 10 and 2 * len(lost) > len(had))):
            left = "no" if no_branch_left else f"only {len(had) - len(lost):,} of the replica's {len(had):,}"
            return f"the source has {left} {what}; this run would delete {_listing(lost)}. {go_ahead}."
    return None


def _listing(names: Sequence[str]) -> str:
    listed = ", ".join(shown(name) for name in names[:20])
    return f"{count(names, 'ref')} ({listed}{', ...' if len(names) > 20 else ''})"


def to_archive(
    commands: Iterable[Command], safe: Iterable[str], source: Refs, replica: Refs, now: float
) -> dict[str, Command]:
    """Return, for each ref whose tip would be dropped, the command that keeps it.

    The archive's names are ``refs/tags/codecommit-mirror/archive/<UTC time>/<the source's name without refs/>``.

    Args:
        commands: what is about to be pushed.
        safe: refs whose update is a fast-forward, which drops nothing.
        source: the source's refs that are mirrored, with the replica's names.
        replica: every ref of the replica as it was read. A tip is not dropped while a ref that stays has it too, or a
            day-old archive entry for the same ref (so that a deletion which is always refused does not fill it).
        now: seconds since the epoch.
    """
    stays = {value for name, value in replica.items() if source.get(name) == value}
    young = time.strftime(ARCHIVE_TIME, time.gmtime(now - 86400))
    entries = list(_entries(replica))
    kept = {(ref, replica[name]) for name, stamp, ref in entries if stamp >= young}
    stamps, safe = {stamp for _, stamp, _ in entries}, set(safe)
    later = (time.strftime(ARCHIVE_TIME, time.gmtime(now + seconds)) for seconds in itertools.count())
    stamp = next(stamp for stamp in later if stamp not in stamps)
    return {
        ref: Command(f"{ARCHIVE}{stamp}/{original_name(ref)[len('refs/') :]}", None, old)
        for ref, old, _ in commands
        if old and old not in stays and ref not in safe and (original_name(ref), old) not in kept
    }


def expired(replica: Refs, archive_days: int, now: float) -> list[Command]:
    """Return the deletions of archive entries that are no longer needed.

    An entry is reused for a day when the same tip is dropped again, so each entry is kept one day longer.
    """
    limit = time.strftime(ARCHIVE_TIME, time.gmtime(max(0, now - (archive_days + 1) * 86400)))
    return [Command(name, replica[name], None) for name, stamp, _ in _entries(replica) if stamp < limit]


def _entries(replica: Refs) -> Iterator[tuple[str, str, str]]:
    """Yield each archive entry's name, its time, and the ref whose tip it keeps."""
    for name in sorted(replica):
        match = re.match(ARCHIVE + "([0-9]{8}T[0-9]{6}Z)/(.+)", name, re.DOTALL)
        if match:
            yield name, match.group(1), f"refs/{match.group(2)}"


def useful_haves(commands: Sequence[Command], replica: Refs, before: Refs, default_branch: str | None) -> list[str]:
    """Return what a pack for these commands can build on, the most useful first.

    Args:
        commands: what is about to be pushed.
        replica: every ref of the replica, with what this run has pushed.
        before: refs other than branches that the replica had when the round began; tags pushed since are left out,
            because they build on the same branches.
        default_branch: the source's.
    """
    values = [command.old for command in commands if command.old]
    values += [replica[default_branch]] if default_branch in replica else []
    values += [value for name, value in replica.items() if name.startswith("refs/heads/")]
    return list(dict.fromkeys([*values, *before.values()]))[:MAXIMUM_HAVES]


def confirmation(source_url: str, refs: Refs, commit: str, now: float) -> bytes:
    """Return the annotated tag that says what a run found equal.

    Args:
        source_url: the source.
        refs: what was equal, by the source's names.
        commit: one that the replica has: a tag has to name one.
        now: seconds since the epoch.
    """
    listing = "".join(f"{value} {name}\n" for name, value in sorted(refs.items(), key=lambda ref: _as_bytes(ref[0])))
    return _as_bytes(
        f"object {commit}\ntype commit\ntag {CONFIRMED[len('refs/tags/') :]}\n"
        f"tagger codecommit-mirror <codecommit-mirror@localhost> {int(now)} +0000\n\n"
        f"These refs were equal in the source and the replica.\n\nsource: {source_url}\nrefs: {len(refs)}\n"
        f"sha256: {hashlib.sha256(_as_bytes(listing)).hexdigest()}\n"
        f"time: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now))}\n"
    )


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def pack_of_tag(tag: bytes) -> tuple[str, bytes]:
    """Return an annotated tag's id, and a pack that holds it (gitformat-pack)."""
    size, header = len(tag), []
    byte, size = (4 << 4) | (size & 15), size >> 4
    while size:
        header.append(byte | 128)
        byte, size = size & 127, size >> 7
    pack = b"PACK" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([*header, byte]) + zlib.compress(tag)
    return hashlib.sha1(b"tag %d\0%s" % (len(tag), tag)).hexdigest(), pack + hashlib.sha1(pack).digest()


# ------------------------------------------------------------------------------------------------------- 5. transfer


class Form(NamedTuple):
    """What a pack may take for granted on the replica."""

    name: str
    thin: bool
    haves: bool


FORMS = (
    Form("a thin pack with what the replica lacks", thin=True, haves=True),
    Form("a self-contained pack with what the replica lacks", thin=False, haves=True),
    Form("a self-contained pack with everything", thin=False, haves=False),
)
"""From the cheapest to the simplest; plain git comes after the last."""


class Transfer:
    """Carries commands and their objects to the replica, keeping in the archive what they would drop.

    Steps down, for the rest of the run, where a server refuses the form of a pack.
    """

    def __init__(self, settings: Settings, folder: str, traffic: Traffic) -> None:
        self.archived: Refs = {}
        """Archive entries that this run made."""
        self.withheld: dict[str, str] = {}
        """Refs that were left alone because their old tip could not be archived."""
        self.refused_names: set[str] = set()
        """The source's names that the replica does not take, so that the refs are carried under others."""
        self.broken: set[str] = set()
        """Refs that the source lists and cannot give."""
        self.done: list[Command] = []
        """What the replica took, also in rounds that broke."""
        self.lfs_pointers = 0
        self.traffic = traffic
        self._settings = settings
        self._folder = folder
        self._forms = list(FORMS)
        self._git: Git | None = None
        self._source_has_given = False
        self._large = False
        self._broken_pushes = 0
        self._broken_other_pushes = 0
        self._broken_packs = 0
        self._isolating = False
        """Whether a source that keeps breaking is asked for less and less, to find the refs that it breaks at."""
        self._archive_was_too_large = False
        self._halvings_left = MAXIMUM_HALVINGS
        self._source_refs: Refs = {}
        self._wanted: Refs = {}
        self._replica_refs: Refs = {}
        self._before: Refs = {}

    def begin(self, source: Refs, wanted: Refs, replica: Advertisement) -> None:
        """Start a round from what was just read.

        Args:
            source: the source's refs that are mirrored.
            wanted: the same, with the replica's names.
            replica: all of the replica's refs.
        """
        self._source_refs, self._wanted, self._replica_refs = dict(source), dict(wanted), dict(replica.refs)
        self._isolating = False
        mirrored = by_original_name(replica.refs, self._settings.namespaces)
        self._before = {name: value for name, value in mirrored.items() if not name.startswith("refs/heads/")}

    def carry(self, commands: Sequence[Command], source: Advertisement, replica: Advertisement) -> dict[str, str]:
        """Push the commands; return the refused refs with the reasons.

        A push that either side refuses as a whole is tried in halves, so that one bad ref does not stop the rest.
        """
        try:
            refused = self._carry_stepping_down(commands, source, replica)
        except SourceRefused as refusal:
            refused = self._not_given(commands, refusal)
        pushed = [command for command in commands if command.ref not in self.withheld]
        if len(refused) == len(pushed) and self._may_halve(pushed):
            parts = (self.carry(part, source, replica) for part in _halves(pushed))
            return {ref: why for part in parts for ref, why in part.items()}
        return refused

    def carry_others(
        self, commands: Sequence[Command], source: Advertisement, replica: Advertisement
    ) -> tuple[list[Command], dict[str, str]]:
        """Push refs outside branches and tags; return what was pushed in the end, and the refused refs.

        Those that the replica does not take go below its own prefix, so that nothing is lost. Whether it takes them is
        asked once, and in the form of a pack that it took for the branches and tags before.
        """
        try:
            refused = self._carry_once(commands, source, replica)
        except (PackRefused, Transient) as refusal:
            # Once it may be chance: a connection that broke, or an abort of refs that the replica has taken before.
            self._broken_other_pushes += 1
            known = isinstance(refusal, PackRefused) and not any(command.old for command in commands)
            if self._broken_other_pushes < 2 and not known:
                raise Transient(str(refusal), getattr(refusal, "wait_seconds", 0)) from None
            if getattr(refusal, "status", 0) == 429:
                raise
            refused = {command.ref: str(refusal) for command in commands}
        except SourceRefused as refusal:
            if not self._may_halve(commands):
                return list(commands), self._not_given(commands, refusal)
            first, second = (self.carry_others(part, source, replica) for part in _halves(commands))
            return first[0] + second[0], {**first[1], **second[1]}
        left = {command.ref: command for command in commands if command.ref in refused and command.new}
        if not left:
            return list(commands), refused
        self.refused_names.update(left)
        say(f"The replica takes {count(left, 'ref')} outside branches and tags only below {CARRIED}.")
        carried = [Command(carried_name(ref), replica.refs.get(carried_name(ref)), c.new) for ref, c in left.items()]
        kept = [command for command in commands if command.ref not in left]
        refused = {ref: why for ref, why in refused.items() if ref not in left}
        return kept + carried, {**refused, **self.carry(carried, source, replica)}

    def _may_halve(self, commands: Sequence[Command]) -> bool:
        if len(commands) < 2 or not self._halvings_left:
            return False
        self._halvings_left -= 1
        return True

    def _not_given(self, commands: Sequence[Command], refusal: SourceRefused) -> dict[str, str]:
        refused = {command.ref: f"the source cannot provide this ref: {refusal}" for command in commands}
        self.broken.update(refused)
        return refused

    def _carry_stepping_down(
        self, commands: Sequence[Command], source: Advertisement, replica: Advertisement
    ) -> dict[str, str]:
        forms = list(self._forms)
        while True:
            try:
                return self._carry_once(commands, source, replica)
            except PackRefused as refusal:
                try:
                    self._step_down(self._forms[1:], str(refusal))
                except MirrorFailure as failure:
                    self._forms = forms
                    return {command.ref: f"{refusal}, and {failure}" for command in commands}
            except SourceRefused as refusal:
                # Once the source has given a pack in this form, it is a ref that is broken, and not the form.
                if self._source_has_given or not self._works_in_a_simpler_form(commands, refusal):
                    self._forms = forms
                    raise

    def _carry_once(self, commands: Sequence[Command], source: Advertisement, replica: Advertisement) -> dict[str, str]:
        """Push in the present form; by plain git where the replica does not report, or calls the push too large."""
        git = self._git
        if git is None and "report-status" not in replica.capabilities:
            git = self._use_git("the replica does not offer to report what became of a push")
        if git is None:
            try:
                return self._relay(commands, source, replica)
            except TooLarge as refusal:
                self._large = True
                git = self._use_git(str(refusal), "plain git, in increments of history")
        return self._by_git(git, commands, replica)

    def _step_down(self, forms: list[Form], reason: str) -> None:
        if not forms:
            self._use_git(reason)
            return
        say(f"Stepping down to {forms[0].name}: {reason}.")
        self._forms = forms

    def _use_git(self, reason: str, what: str = "plain git") -> Git:
        say(f"Stepping down to {what}: {reason}.")
        git = Git(self._folder)
        self._git = git
        return git

    def _works_in_a_simpler_form(self, commands: Sequence[Command], refusal: SourceRefused) -> bool:
        """Go to the next form of a pack for a source that has not given any; to plain git only if that can fetch."""
        if self._git:
            return False
        following = self._forms[1:]
        if following:
            say(f"Trying {following[0].name}: the source refused ({refusal}).")
            self._forms = following
            return True
        try:
            git = Git(self._folder)
            git.fetch(self._settings.source, self._names_at_source(commands))
        except (SourceRefused, Transient, MirrorFailure):
            return False
        say(f"Stepping down to plain git: the source refuses every form of a pack ({refusal}).")
        self._git = git
        return True

    def _names_at_source(self, commands: Sequence[Command]) -> list[str]:
        return [original_name(command.ref) for command in commands if command.new]

    def _relay(self, commands: Sequence[Command], source: Advertisement, replica: Advertisement) -> dict[str, str]:
        if "delete-refs" not in replica.capabilities and any(command.new is None for command in commands):
            return {command.ref: "the replica does not support deleting refs" for command in commands}
        present = set(replica.refs.values())
        wants = sorted({command.new for command in commands if command.new} - present)
        pack: Pack = EMPTY_PACK
        fast_forwards: list[str] = []
        if wants:
            start, rest, objects = self._request(commands, wants, source, replica)
            self.traffic.objects = objects
            if objects > MAXIMUM_OBJECTS_A_PUSH:
                raise TooLarge(f"the pack has {objects:,} objects")
            if rest is None:
                pack = start
                fast_forwards = self._look_into(commands, start)
            else:
                pack = itertools.chain([start], rest)
        commands = self._archive_or_withhold(commands, replica, fast_forwards)
        if not commands:
            return {}
        try:
            return push(self._settings.replica, replica.capabilities, commands, pack, self.traffic)
        except Transient as error:
            if error.status in (408, 504) or (not isinstance(pack, bytes) and error.status != 429):
                self._broken_pushes += 1
                if self._broken_pushes > 1:
                    raise TooLarge(f"{error}, for the second time") from None
            raise

    def _request(
        self, commands: Sequence[Command], wants: Sequence[str], source: Advertisement, replica: Advertisement
    ) -> tuple[bytes, Iterator[bytes] | None, int]:
        """Return the pack's start, its rest (None when the start is all of it), and its number of objects."""
        form = self._forms[0]
        capabilities = offered(source.capabilities, "side-band-64k", "no-progress")
        capabilities += offered(source.capabilities, "multi_ack_detailed", "multi_ack")[:1]
        if "side-band-64k" not in capabilities:
            raise SourceRefused("the source does not offer side-band-64k")
        if form.thin and "no-thin" not in replica.capabilities:
            capabilities += offered(source.capabilities, "thin-pack")
        if "ofs-delta" in replica.capabilities:
            capabilities += offered(source.capabilities, "ofs-delta")
        capabilities += offered(source.capabilities, AGENT)
        haves = useful_haves(commands, replica.refs, self._before, source.head) if form.haves else []
        pack = self._pack_from_source(capabilities, wants, haves)
        start = bytearray()
        for part in pack:
            start += part
            if len(start) > BUFFER_BYTES:
                return bytes(start), pack, object_count(start)
        return bytes(start), None, object_count(start)

    def _pack_from_source(
        self, capabilities: Sequence[str], wants: Sequence[str], haves: Sequence[str]
    ) -> Iterator[bytes]:
        """Yield a pack; raise Transient when the source has moved, SourceRefused when it cannot give what it lists."""
        try:
            yield from checked(request_pack(self._settings.source, capabilities, wants, haves, self.traffic))
            self._source_has_given = True
            self._broken_packs = 0
        except SourceRefused as refusal:
            if "not our ref" in str(refusal):
                now = read_refs(self._settings.source, "git-upload-pack", self.traffic).refs
                asked = set(wants)
                if any(now.get(name) != value for name, value in self._source_refs.items() if value in asked):
                    raise Transient("the source's refs changed while they were being read") from None
            raise
        except Transient as error:
            self._broken_packs += 1
            self._isolating = self._isolating or self._broken_packs > 2
            if self._isolating:
                raise SourceRefused(f"{error}, repeatedly") from None
            raise

    def _look_into(self, commands: Sequence[Command], pack: bytes) -> list[str]:
        """Count the pointers of Git LFS in a pack, and return the refs that it shows to be fast-forwarded."""
        try:
            contents = read_pack(pack)
        except (zlib.error, IndexError):
            return []
        self.lfs_pointers += contents.lfs_pointers
        updates = [command for command in commands if command.old and command.new]
        return [c.ref for c in updates if is_ancestor(c.old or "", c.new or "", contents.parents)]

    def _archive_or_withhold(
        self, commands: Sequence[Command], replica: Advertisement, fast_forwards: Iterable[str]
    ) -> Sequence[Command]:
        """Archive what the commands would drop; return the commands whose old tips are safe."""
        if not self._settings.archive_days:
            return commands
        entries = to_archive(commands, fast_forwards, self._wanted, self._replica_refs, time.time())
        if not entries:
            return commands
        say(f"Keeping {count(entries, 'tip')} in the archive before {'it goes' if len(entries) == 1 else 'they go'}.")
        reasons: dict[str, str] = {}
        for batch in batches(list(entries.values())):
            try:
                reasons.update(push_in_parts(self._settings.replica, replica.capabilities, batch, self.traffic))
            except PackRefused as refusal:
                reasons.update({entry.ref: str(refusal) for entry in batch})
            except TooLarge as refusal:
                if not self._archive_was_too_large:
                    self._archive_was_too_large = True
                    raise Transient(str(refusal)) from None
                reasons.update({entry.ref: str(refusal) for entry in batch})
        archived_now = read_refs(self._settings.replica, "git-receive-pack").refs
        for ref, entry in entries.items():
            if entry.new and archived_now.get(entry.ref) == entry.new:
                self.withheld.pop(ref, None)
                self.archived[entry.ref] = self._replica_refs[entry.ref] = entry.new
            else:
                self.withheld[ref] = (
                    f"its old tip could not be kept in the archive ({reasons.get(entry.ref, 'no reason given')}), so "
                    "it was left alone; set MIRROR_ARCHIVE_DAYS to 0 to go on without the archive"
                )
        return [command for command in commands if command.ref not in self.withheld]

    def _by_git(self, git: Git, commands: Sequence[Command], replica: Advertisement) -> dict[str, str]:
        git.fetch(self._settings.source, self._names_at_source(commands))
        self._source_has_given = True
        updates = [c for c in commands if c.old and c.new and c.ref.startswith("refs/heads/")]
        fast_forwards = [c.ref for c in updates if git.is_ancestor(c.old or "", c.new or "")]
        commands = self._archive_or_withhold(commands, replica, fast_forwards)
        refused: dict[str, str] = {}
        if self._large:
            commands = [self._by_increments(git, command, replica, refused) for command in commands]
            commands = [command for command in commands if command.ref not in refused]
        for batch in _by_command_line(commands):
            refused.update(git.push(self._settings.replica, batch))
        return refused

    def _by_increments(self, git: Git, command: Command, replica: Advertisement, refused: dict[str, str]) -> Command:
        """Push a branch's history piece by piece; return the command that is left to do."""
        steps = git.increments(command, replica.refs.values())
        for number, step in enumerate(steps, 1):
            say(f"Pushing {shown(command.ref)} in increments of history ({number} of {len(steps) + 1}).")
            refused.update(git.push(self._settings.replica, [step]))
            if command.ref in refused:
                break
            replica.refs[command.ref] = step.new or ""
        return command._replace(old=steps[-1].new) if steps else command


def _halves(commands: Sequence[Command]) -> tuple[Sequence[Command], Sequence[Command]]:
    half = len(commands) // 2
    return commands[:half], commands[half:]


def push_in_parts(
    replica: Endpoint, capabilities: Sequence[str], commands: Sequence[Command], traffic: Traffic
) -> dict[str, str]:
    """Push commands that need no objects, in halves where the replica calls a push too large; return refused refs."""
    pack = EMPTY_PACK if any(command.new for command in commands) else b""
    try:
        return push(replica, capabilities, commands, pack, traffic)
    except TooLarge:
        if len(commands) == 1:
            raise
    first, second = (push_in_parts(replica, capabilities, part, traffic) for part in _halves(commands))
    return {**first, **second}


class Git:
    """Plain git on a bare repository of its own, with one side's credentials in the environment."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        version = re.search(rb"(\d+)\.(\d+)", self._run(["--version"]).stdout)
        if not version or (int(version.group(1)), int(version.group(2))) < (2, 31):
            raise MirrorFailure("git 2.31 or later is needed for this; use a newer agent image.")
        self._run(["init", "--quiet", "--bare", "--template=", folder])
        self._numbers = itertools.count()
        self._hang_ups = 0

    def fetch(self, source: Endpoint, refs: Sequence[str]) -> None:
        """Fetch refs under names of our own: a name from outside may be too long for a file.

        Raises SourceRefused when the source says why it cannot give them, Transient otherwise.
        """
        if not refs:
            return
        refspecs = "".join(f"+{ref}:refs/mirror/{next(self._numbers)}\n" for ref in refs)
        arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--stdin", source.url]
        result = self._run(arguments, source, _as_bytes(refspecs), check=False)
        if result.returncode:
            words = f"git could not fetch: {_last_words(result.stderr)}"
            if re.search(b"remote: |remote error|not our ref", result.stderr):
                raise SourceRefused(words)
            raise Transient(words)

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether an update from ``old`` to ``new`` drops nothing, as far as the objects are here."""
        return self._run(["merge-base", "--is-ancestor", old, new], check=False).returncode == 0

    def increments(self, command: Command, known: Iterable[str]) -> list[Command]:
        """Return commands that bring a branch over piece by piece, up to but without its tip.

        Along first parents, so that each piece adds to the one before; for a new branch, or a fast-forward.
        """
        if not command.new or not command.ref.startswith("refs/heads/"):
            return []
        if command.old and not self.is_ancestor(command.old, command.new):
            return []
        there = "\n".join(f"^{value}" for value in set(known)).encode()
        arguments = ["rev-list", "--reverse", "--first-parent", "--ignore-missing", "--stdin", command.new]
        commits = self._run(arguments, text=there).stdout.decode().split()
        steps, old = [], command.old
        for commit in commits[COMMITS_AN_INCREMENT - 1 : -1 : COMMITS_AN_INCREMENT]:
            steps.append(Command(command.ref, old, commit))
            old = commit
        return steps

    def push(self, replica: Endpoint, commands: Sequence[Command]) -> dict[str, str]:
        """Push, each ref only if it still has its old value; return the refused refs with the reasons."""
        arguments = [argument for command in commands for argument in _push_arguments(command)]
        leases = [argument for argument in arguments if argument.startswith(b"--")]
        refspecs = [argument for argument in arguments if not argument.startswith(b"--")]
        result = self._run(
            ["push", "--porcelain", "--no-verify", *leases, replica.url, *refspecs], replica, check=False
        )
        refused: dict[str, str] = {}
        for line in result.stdout.decode("utf-8", "surrogateescape").split("\n"):
            flag, _, rest = line.partition("\t")
            if flag == "!":
                refs, _, reason = rest.partition("\t")
                refused[refs.partition(":")[2]] = shown(reason)
        if result.returncode and not refused:
            words = f"git could not push to the replica: {_last_words(result.stderr)}"
            # An abort without a reason and a connection that broke look the same, once.
            self._hang_ups += 1
            if self._hang_ups == 1 or re.search(b"returned error: (429|5[0-9][0-9])", result.stderr):
                raise Transient(words)
            return {command.ref: words for command in commands}
        return refused

    def _run(
        self, arguments: Sequence[object], endpoint: Endpoint | None = None, text: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        words = [word if isinstance(word, bytes) else os.fsencode(str(word)) for word in arguments]
        try:
            result = subprocess.run(
                [b"git", *words],
                cwd=self._folder,
                env=git_environment(os.environ, endpoint),
                input=text,
                capture_output=True,
            )
        except FileNotFoundError:
            raise MirrorFailure("git is not on this agent, and is needed now; use an image that has it.") from None
        if check and result.returncode:
            raise MirrorFailure(
                f"git {words[0].decode()} failed ({_last_words(result.stderr)}); check the agent's disk."
            )
        return result


def _by_command_line(commands: Sequence[Command]) -> Iterator[Sequence[Command]]:
    batch: list[Command] = []
    size = 0
    for command in commands:
        length = sum(len(argument) + 1 for argument in _push_arguments(command))
        if batch and size + length > MAXIMUM_BYTES_A_COMMAND_LINE:
            yield batch
            batch, size = [], 0
        batch.append(command)
        size += length
    if batch:
        yield batch


def _push_arguments(command: Command) -> tuple[bytes, bytes]:
    lease = f"--force-with-lease={command.ref}:{command.old or ''}"
    refspec = f"{command.new or ''}:{command.ref}"
    return lease.encode("utf-8", "surrogateescape"), refspec.encode("utf-8", "surrogateescape")


_CREDENTIAL_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$MIRROR_USERNAME" "$MIRROR_PASSWORD"; }; f'
)
_SECRET_VARIABLES = (
    "AZURE_GIT_USERNAME",
    "AZURE_GIT_PASSWORD",
    "AWS_GIT_USERNAME",
    "AWS_GIT_PASSWORD",
    "SYSTEM_ACCESSTOKEN",
)


def git_environment(environment: Mapping[str, str], endpoint: Endpoint | None) -> dict[str, str]:
    """Return git's environment: no setting of the machine's, no trace, and no credential but the one it needs."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _SECRET_VARIABLES and (not name.startswith("GIT_") or name.startswith("GIT_SSL_"))
    }
    settings = [
        ("credential.helper", ""),
        ("gc.auto", "0"),
        ("http.followRedirects", "false"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", "300"),
        ("protocol.allow", "never"),
        ("protocol.http.allow", "always"),
        ("protocol.https.allow", "always"),
        ("protocol.version", "0"),
    ]
    if endpoint:
        settings.append(("credential.helper", _CREDENTIAL_HELPER))
        kept.update(MIRROR_USERNAME=endpoint.username, MIRROR_PASSWORD=endpoint.password)
    kept.update(
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_TERMINAL_PROMPT="0",
        GIT_CONFIG_COUNT=str(len(settings)),
        LC_ALL="C.UTF-8",
    )
    for index, (key, value) in enumerate(settings):
        kept[f"GIT_CONFIG_KEY_{index}"], kept[f"GIT_CONFIG_VALUE_{index}"] = key, value
    return kept


def _last_words(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return _words(b"; ".join(lines[-3:])) or "it gave no reason"


# --------------------------------------------------------------------------------------------------------- 6. mirror


@dataclass
class Outcome:
    """What a run did, and how the two sides stand."""

    equal: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    archived: Refs = field(default_factory=dict)
    """Archive entries that were made, with the tips that they keep."""
    expired: int = 0
    carried: int = 0
    """Refs outside branches and tags that the replica has below its own prefix alone."""
    confirmed: bool = False
    """Whether the replica's confirming tag says what was equal."""
    lfs: bool = False
    """Whether the source was seen to keep files in Git LFS, which are not mirrored."""
    needs_a_person: dict[str, str] = field(default_factory=dict)
    """Refs that stay different until somebody acts, each with the reason and the remedy."""
    broken: dict[str, str] = field(default_factory=dict)
    """Refs that should be equal and are not, each with the reason."""
    bytes_from_source: int = 0
    bytes_to_replica: int = 0
    seconds: float = 0

    @property
    def result(self) -> str:
        """``Succeeded``, ``SucceededWithIssues`` or ``Failed``, as Azure Pipelines names them."""
        return "Failed" if self.broken else "SucceededWithIssues" if self.needs_a_person else "Succeeded"


def mirror(settings: Settings, folder: str, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Make the replica equal to the source.

    Goes in rounds: read both sides, plan, push, read the replica again. A round that lost a race or a connection is
    followed by another, which starts from what the replica has by then; nothing is overwritten on old knowledge.

    Args:
        settings: what to mirror.
        folder: an empty folder for plain git, should it come to that.
        sleep: waits between rounds.
    """
    started = time.monotonic()
    traffic = Traffic()
    transfer = Transfer(settings, folder, traffic)
    outcome = Outcome()
    refusals: dict[str, str] = {}
    unchanged: dict[str, int] = {}
    trouble = ""
    number, done = 0, 0
    counted: set[Command] = set()
    while number < MAXIMUM_ROUNDS:
        if trouble:
            say(f"Trying again: {trouble}.")
        try:
            # The replica first: what appears at the source in between is then new, and never something to delete.
            replica = read_refs(settings.replica, "git-receive-pack")
            source = read_refs(settings.source, "git-upload-pack", traffic)
            wanted = select(source.refs, settings.namespaces)
            present = by_original_name(replica.refs, settings.namespaces)
            if not trouble:
                say(
                    f"Source {settings.source.url} has {count(wanted, 'ref')}, "
                    f"replica {settings.replica.url} has {len(present):,}."
                )
            if source.refs and not wanted:
                raise MirrorFailure(
                    f"none of the source's {count(source.refs, 'ref')} is below {' or '.join(settings.namespaces)}; "
                    "correct refs: in mirrors.yaml and render the pipeline again."
                )
            listed = _refs_by_rest_api(settings, wanted, present, patient=number < MAXIMUM_ROUNDS - 1)
            stop = why_stop(wanted, present, listed, settings.allow_deletions)
            if stop:
                raise MirrorFailure(f"nothing was changed: {stop}")
            outcome.needs_a_person.update(unmirrorable(source.refs, settings.namespaces))
            if OWN.rstrip("/") in replica.refs:
                outcome.needs_a_person[OWN.rstrip("/")] = (
                    "this tag on the replica blocks the refs that the mirror keeps below that name; delete it on the "
                    "replica"
                )
            names = replica_names(wanted, replica.refs, transfer.refused_names)
            target = {names[name]: value for name, value in wanted.items()}
            mirrored = {name: value for name, value in replica.refs.items() if original_name(name) in present}
            plan = make_plan(target, mirrored, source.head, {*refusals, *outcome.needs_a_person})
            transfer.begin(wanted, target, replica)
            pushed, refused = _apply(plan, transfer, source, replica, settings.replica)
            after = read_refs(settings.replica, "git-receive-pack") if plan else replica
        except Transient as error:
            trouble = str(error)
            # As long as a round brings something over, the next one has all its tries.
            number, done = (number + 1 if len(transfer.done) == done else 1), len(transfer.done)
            if number < MAXIMUM_ROUNDS:
                sleep(_pause(error, number - 1))
            continue
        counted.update(pushed)
        moved = _tally(pushed, after.refs, {**refused, **transfer.withheld}, outcome, refusals, unchanged)
        if not moved:
            break
        number += 1
        trouble = f"{_listing(moved)} changed on the replica meanwhile, or did not change as it said"
    else:
        raise MirrorFailure(f"gave up after {MAXIMUM_ROUNDS} tries: {trouble}; what was pushed is safe, so run again.")
    _count(set(transfer.done) - counted, after.refs, outcome)
    outcome.archived = dict(transfer.archived)
    outcome.expired = _remove_expired(settings, after, traffic)
    outcome.carried = sum(name.startswith(CARRIED) for name in after.refs)
    outcome.lfs = bool(transfer.lfs_pointers) or (bool(transfer.done) and _uses_lfs(settings, source.head))
    now = by_original_name(after.refs, settings.namespaces)
    equal = {name: value for name, value in wanted.items() if now.get(name) == value}
    refusals = {original_name(ref): why for ref, why in refusals.items()}
    _judge(wanted, now, refusals, {original_name(ref) for ref in transfer.withheld}, outcome)
    if not outcome.broken:
        outcome.confirmed = _confirm(settings, after, source.head, equal, traffic, sleep)
    outcome.bytes_from_source, outcome.bytes_to_replica = traffic.from_source, traffic.to_replica
    outcome.seconds = time.monotonic() - started
    return outcome


def _pause(error: Transient, number: int) -> float:
    """Return how long to wait before the next try: what the server asked for, or twice as long each time."""
    return max(error.wait_seconds, random.uniform(0.5, 1) * float(2**number))


def compare(
    settings: Settings, replica_service: str = "git-receive-pack", sleep: Callable[[float], None] = time.sleep
) -> tuple[Refs, Refs, int]:
    """Read both sides and return the refs that should be equal, by the source's names: the source's, the replica's.

    A third value is the number of refs that the replica carries below its own prefix.

    Whoever may fetch from the replica, and not push to it, asks its ``git-upload-pack``.
    Raises MirrorFailure when a side cannot be read.
    """
    replica = read_refs_patiently(settings.replica, replica_service, sleep).refs
    source = read_refs_patiently(settings.source, "git-upload-pack", sleep).refs
    carried = sum(name.startswith(CARRIED) for name in replica)
    return select(source, settings.namespaces), by_original_name(replica, settings.namespaces), carried


def read_refs_patiently(endpoint: Endpoint, service: str, sleep: Callable[[float], None] = time.sleep) -> Advertisement:
    """Do as ``read_refs``, and try again what may pass; raise MirrorFailure when it does not."""
    for number in range(MAXIMUM_ROUNDS - 1):
        try:
            return read_refs(endpoint, service)
        except Transient as error:
            sleep(_pause(error, number))
    try:
        return read_refs(endpoint, service)
    except Transient as error:
        raise MirrorFailure(f"{error}; run again.") from None


def _apply(
    plan: Plan, transfer: Transfer, source: Advertisement, replica: Advertisement, replica_endpoint: Endpoint
) -> tuple[list[Command], dict[str, str]]:
    """Push what was planned; return the commands as they were pushed in the end, and the refused refs."""
    pushed: list[Command] = []
    refused: dict[str, str] = {}
    for number, commands in enumerate(plan, 1):
        say(f"Pushing {count(commands, 'ref')} to the replica ({number} of {len(plan)}).")
        done: Sequence[Command] = commands
        if _is_other(commands[0].ref):
            done, batch_refused = transfer.carry_others(commands, source, replica)
        else:
            batch_refused = transfer.carry(commands, source, replica)
        pushed += done
        refused.update(batch_refused)
        no_branch_yet = not any(name.startswith("refs/heads/") for name in replica.refs)
        branches = [c.ref for c in done if c.new and c.ref.startswith("refs/heads/")]
        by_replica = [ref for ref in branches if ref in batch_refused and ref not in transfer.broken]
        if no_branch_yet and by_replica and len(by_replica) == len(branches):
            ref, reason = by_replica[0], batch_refused[by_replica[0]]
            if ref in read_refs(replica_endpoint, "git-receive-pack").refs:
                raise Transient("another run was faster")
            raise MirrorFailure(
                f"the replica refused {shown(ref)} ({shown(reason)}); nothing else was pushed, since CodeCommit makes "
                "the first branch that it gets the default one."
            )
        # What was pushed is there for the next pack to build on.
        for command in done:
            if command.ref not in batch_refused and command.ref not in transfer.withheld:
                transfer.done.append(command)
                if command.new:
                    replica.refs[command.ref] = command.new
    return pushed, refused


def _tally(
    pushed: Sequence[Command],
    after: Refs,
    refused: Mapping[str, str],
    outcome: Outcome,
    refusals: dict[str, str],
    unchanged: dict[str, int],
) -> list[str]:
    """Count what happened by what the replica has now; return the refs that need another round.

    What the server answered does not count: an update that it called done, and that is not there, is tried once more.
    """
    moved: list[str] = []
    _count(pushed, after, outcome)
    for ref, old, new in pushed:
        if after.get(ref) == new:
            continue
        if after.get(ref) != old:
            moved.append(ref)
        elif ref in refused:
            refusals[ref] = refused[ref]
        else:
            unchanged[ref] = unchanged.get(ref, 0) + 1
            if unchanged[ref] > 1:
                refusals[ref] = "the replica says that it took the change, and did not"
            else:
                moved.append(ref)
    return moved


def _count(commands: Iterable[Command], after: Refs, outcome: Outcome) -> None:
    for ref, old, new in commands:
        if after.get(ref) != new:
            continue
        if new is None:
            outcome.deleted += 1
        elif old is None:
            outcome.created += 1
        else:
            outcome.updated += 1


def _judge(source: Refs, replica: Refs, refusals: Mapping[str, str], withheld: Iterable[str], outcome: Outcome) -> None:
    """Sort the refs, by the source's names, into those that are equal, need a person, or are broken.

    Only one branch can be the replica's default one, which a person has to change before it can be deleted.
    """
    gone = {name for name in refusals if name not in source} - set(withheld)
    branches = {name for name in gone if name.startswith("refs/heads/")}
    folders = {name[:end] for name in gone for end in _slashes(name)}
    for name in sorted({*source, *replica}):
        if name in outcome.needs_a_person:
            continue
        if source.get(name) == replica.get(name):
            outcome.equal += 1
        elif branches == {name}:
            outcome.needs_a_person[name] = (
                f"is gone at the source, and the replica refused to delete it ({refusals[name]}); if it is the default "
                "branch there, make another one the default with 'aws codecommit update-default-branch "
                "--repository-name REPLICA --default-branch-name BRANCH' and run again"
            )
        elif name in source and (name in folders or any(name[:end] in gone for end in _slashes(name))):
            outcome.needs_a_person[name] = "waits for the deletion of a branch whose name is in its way; see there"
        else:
            outcome.broken[name] = refusals.get(name) or "it differs, and nobody said why; run again"


def _remove_expired(settings: Settings, replica: Advertisement, traffic: Traffic) -> int:
    commands = expired(replica.refs, settings.archive_days, time.time()) if settings.archive_days else []
    removed = 0
    for batch in batches(commands):
        try:
            refused = push_in_parts(settings.replica, replica.capabilities, batch, traffic)
            removed += len(batch) - len(refused)
            if refused:
                entries = count(refused, "old archive entry", "old archive entries")
                say(f"{entries} cannot be removed: {min(refused.values())}.")
        except (MirrorFailure, Transient, PackRefused, TooLarge) as error:
            say(f"Old archive entries stay until the next run: {error}.")
    return removed


def _confirm(
    settings: Settings,
    after: Advertisement,
    default_branch: str | None,
    equal: Refs,
    traffic: Traffic,
    sleep: Callable[[float], None],
) -> bool:
    """Write the confirming tag, the one push of a run that found nothing to push; return whether it is there."""
    branches = [name for name in after.refs if name.startswith("refs/heads/")]
    branch = default_branch if default_branch in after.refs else next(iter(branches), None)
    if branch is None:
        say("This run is not confirmed: the replica has no branch for the confirming tag.")
        return False
    tag = confirmation(settings.source.url, equal, after.refs[branch], time.time())
    object_id, pack = pack_of_tag(tag)
    command = Command(CONFIRMED, after.refs.get(CONFIRMED), object_id)
    trouble: str | None = None
    for number in range(3):
        try:
            trouble = push(settings.replica, after.capabilities, [command], pack, traffic).get(CONFIRMED)
            break
        except Transient as error:
            trouble = str(error)
            if number < 2:
                sleep(_pause(error, number))
        except (MirrorFailure, PackRefused, TooLarge) as error:
            trouble = str(error)
            break
    if trouble and _has(settings.replica, CONFIRMED, object_id):
        return True
    if trouble:
        say(f"This run could not be confirmed on the replica ({shown(trouble)}); the next run tries again.")
    return not trouble


def _has(replica: Endpoint, ref: str, value: str) -> bool:
    """Whether the replica has a ref at a value, whatever it answered to the push: only the list counts."""
    try:
        return read_refs(replica, "git-receive-pack").refs.get(ref) == value
    except (MirrorFailure, Transient):
        return False


def _uses_lfs(settings: Settings, default_branch: str | None) -> bool:
    """Whether the default branch's .gitattributes names Git LFS, as far as Azure's REST API says (Items - Get)."""
    base, marker, repository = settings.source.url.partition("/_git/")
    if not marker or not default_branch:
        return False
    branch = urllib.parse.quote(default_branch[len("refs/heads/") :], safe="")
    path = (
        f"/_apis/git/repositories/{repository}/items?path=/.gitattributes&includeContent=true&%24format=json"
        f"&versionDescriptor.versionType=branch&versionDescriptor.version={branch}&api-version=7.1"
    )
    api = Endpoint("source", base, settings.source.authorization, "", "", "")
    try:
        return names_lfs(str(json.loads(_whole(api, send(api, "GET", path, {})))["content"]))
    except (MirrorFailure, Transient, ValueError, LookupError, TypeError):
        return False


def names_lfs(gitattributes: str) -> bool:
    """Whether a .gitattributes file puts files into Git LFS."""
    return bool(re.search(r"(?m)^[^#\n]*\sfilter=lfs(\s|$)", gitattributes))


def _refs_by_rest_api(settings: Settings, source: Refs, replica: Refs, patient: bool) -> set[str] | None:
    """Return the refs that Azure's REST API lists, if a deletion is planned and the API can be asked (Refs - List).

    Raises Transient when it may be asked again in a moment, and ``patient`` says to wait for that.
    """
    base, marker, repository = settings.source.url.partition("/_git/")
    if not marker or not replica.keys() - source.keys():
        return None
    names: set[str] = set()
    token = ""
    path = f"/_apis/git/repositories/{repository}/refs?api-version=7.1&%24top=1000"
    api = Endpoint("source", base, settings.source.authorization, "", "", "")
    try:
        for _ in range(MAXIMUM_PAGES):
            response = send(api, "GET", path + (f"&continuationToken={urllib.parse.quote(token)}" if token else ""), {})
            names.update(str(ref["name"]) for ref in json.loads(_whole(api, response))["value"])
            token = response.headers.get("x-ms-continuationtoken", "")
            if not token:
                return names
        return None
    except Transient:
        if patient:
            raise
        return None
    except (MirrorFailure, ValueError, LookupError, TypeError):
        return None


# --------------------------------------------------------------------------------------------------------- 7. report


def say(text: str) -> None:
    """Print one line."""
    print(text, flush=True)


def shown(text: str) -> str:
    """Return text from outside so that it can be printed: no control characters, nothing that an agent obeys."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub("#(?=#)", "# ", "".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def _words(text: bytes) -> str:
    return shown(" ".join(text.replace(b"\0", b" ").decode("utf-8", "surrogateescape").split())[:600])


def _name(error: BaseException) -> str:
    """Return what an error is, without text of the HTTP library, which may repeat what was sent."""
    return shown(getattr(error, "strerror", None) or type(error).__name__)


def count(things: Sequence[object] | Mapping[str, object], noun: str, plural: str = "") -> str:
    return f"{len(things):,} {noun if len(things) == 1 else plural or f'{noun}s'}"


def in_bytes(number: float) -> str:
    """Return a number of bytes for people, in decimal units."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


def summary(outcome: Outcome) -> list[str]:
    """Return the report as lines of Markdown."""
    lines = [
        f"Mirror {outcome.result}: {outcome.equal:,} refs are equal; {outcome.created:,} created, "
        f"{outcome.updated:,} updated, {outcome.deleted:,} deleted, {len(outcome.archived):,} archived, "
        f"{len(outcome.needs_a_person) + len(outcome.broken):,} refused; {in_bytes(outcome.bytes_from_source)} from "
        f"the source, {in_bytes(outcome.bytes_to_replica)} to the replica, {outcome.seconds:.1f} s."
    ]
    if outcome.carried:
        lines.append(carried_note(outcome.carried))
    if outcome.lfs:
        lines.append("The source uses Git LFS: its large files are not in the replica, only the pointers to them.")
    kept = {ref: f"keeps {value}" for ref, value in outcome.archived.items()}
    for heading, refs in (
        ("Not mirrored", outcome.broken),
        ("Needs a person", outcome.needs_a_person),
        ("Deleted or overwritten, and kept in the archive", kept),
    ):
        if refs:
            lines += ["", f"{heading}:"]
            lines += [
                f"- `{shown(ref).replace('`', chr(39))}`: {shown(why)}" for ref, why in sorted(refs.items())[:100]
            ]
            if len(refs) > 100:
                lines.append(f"- and {len(refs) - 100:,} more")
    return lines


def carried_note(number: int) -> str:
    """Return what a report says once of refs that the replica does not take under their own names."""
    return f"Refs outside branches and tags that the replica has only below {CARRIED}: {number:,}."


def as_json(outcome: Outcome) -> str:
    """Return the report for scripts."""
    return json.dumps({"result": outcome.result, **vars(outcome)}, indent=2)


def agent_command(name: str, message: str, **properties: str) -> None:
    """Give the build agent a logging command (Azure Pipelines, "Logging commands"), where there is one."""
    if os.environ.get("TF_BUILD"):
        escapes = [("%", "%AZP25"), ("\r", "%0D"), ("\n", "%0A"), (";", "%3B"), ("]", "%5D")]
        for character, escape in escapes:
            properties = {key: value.replace(character, escape) for key, value in properties.items()}
        for character, escape in escapes[:3]:
            message = message.replace(character, escape)
        fields = "".join(f"{key}={value};" for key, value in properties.items())
        print(f"##vso[{name} {fields}]{message}", flush=True)


def report(outcome: Outcome, settings: Settings, folder: str) -> None:
    lines = summary(outcome)
    for line in lines:
        say(line)
    path = os.path.join(folder, "Mirror.md")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join([*lines, "", f"Source: {settings.source.url}", f"Replica: {settings.replica.url}", ""]))
    agent_command("task.uploadsummary", path)
    for kind, refs in (("warning", outcome.needs_a_person), ("error", outcome.broken)):
        for ref, reason in sorted(refs.items())[:10]:
            agent_command("task.logissue", f"{shown(ref)}: {shown(reason)}", type=kind)
    if outcome.result != "Succeeded":
        agent_command("task.complete", "", result=outcome.result)


def main() -> int:
    """Run once; return the exit status: 0 unless the mirror is broken."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    # The agent reads the summary after this program has ended; it clears its own temporary folder.
    keep = os.environ.get("AGENT_TEMPDIRECTORY")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # A canceled run leaves nothing behind either.
    with tempfile.TemporaryDirectory(prefix="mirror-", dir=keep) as folder:
        try:
            settings = read_settings(os.environ)
            outcome = mirror(settings, folder)
        except MirrorFailure as failure:
            say(f"Mirror Failed: {failure}")
            agent_command("task.logissue", str(failure), type="error")
            agent_command("task.complete", "", result="Failed")
            return 1
        except Exception as error:
            agent_command(
                "task.logissue", f"the mirror program broke ({type(error).__name__}); see the log", type="error"
            )
            raise
        report(outcome, settings, keep or folder)
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
