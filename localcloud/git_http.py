"""Git's smart HTTP protocol on ``git http-backend``, with the host's own rules in front of it.

A host (CodeCommit, Azure Repos) is a function from a request to either a repository to serve or an answer of its own.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from .isolated_git import isolated_environment

_CHUNK = 1 << 18
_SERVICES = ("git-upload-pack", "git-receive-pack")
_LFS = "/info/lfs/"


class Body(Protocol):
    """A request's body as a stream."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""


@dataclass(frozen=True)
class GitRequest:
    """One smart HTTP request, before it is served."""

    repository: str
    """The decoded URL path up to, and without, ``/info/refs`` or the service's name."""
    service: str
    """``git-upload-pack`` (a fetch) or ``git-receive-pack`` (a push)."""
    username: str | None
    password: str | None
    """Basic credentials; a Bearer token is a password without a username."""
    first_line: bytes | None
    """The first pkt-line's payload of an upload-pack request; None for an advertisement or a push."""
    body: Body
    """What a POST sends; read by git, unless the host reads it."""
    advertisement: bool = False
    """Whether it only asks for the refs."""
    host: str = ""
    """The Host header."""


@dataclass(frozen=True)
class Serve:
    """Let git serve this bare repository."""

    repository: Path
    done: Callable[[], None] = lambda: None
    """Called when git has done its work, before the answer ends."""


@dataclass(frozen=True)
class Answer:
    """Answer without asking git."""

    status: int
    body: str | bytes | Path
    """A path is a file that is streamed."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/plain; charset=utf-8"


Host = Callable[[GitRequest], Serve | Answer]


@dataclass(frozen=True)
class ApiRequest:
    """One request that is not Git's."""

    method: str
    path: str
    """The decoded URL path."""
    query: Mapping[str, str]
    scheme: str
    """Of the Authorization header, in lower case; empty without one."""
    token: str | None
    """The password or token that came with it."""
    body: bytes
    accept: str = ""


Api = Callable[[ApiRequest], Answer]


@dataclass(frozen=True)
class LfsRequest:
    """One request of Git LFS."""

    method: str
    repository: str
    """The decoded URL path up to, and without, ``/info/lfs``."""
    path: str
    """What follows it, such as ``/objects/batch``."""
    url: str
    """Up to and with ``/info/lfs``, as the client wrote it."""
    username: str | None
    password: str | None
    body: Body


LfsHost = Callable[[LfsRequest], Answer]

CHALLENGE = "Basic realm="


class GitHttpServer(ThreadingHTTPServer):
    """Serves one host's repositories on a free port of 127.0.0.1, in threads of this process."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: Host, api: Api | None = None, lfs: LfsHost | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host, self.api, self.lfs = host, api, lfs
        self.bytes_out = 0
        """Bytes of the bodies of all answers; for benchmarks."""
        self.requests = {"git": 0, "api": 0}
        """How many requests of each kind there were; for benchmarks."""
        self.delay_seconds = 0.0
        """How long a round trip takes; a new connection takes two more, as with TLS 1.3."""
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, name="git-http", daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that disconnected; print anything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    """Seconds after which an idle connection ends."""
    disable_nagle_algorithm = True
    """Or an answer in several pieces waits for the client's delayed acknowledgement on a connection that is kept."""
    server: GitHttpServer

    def setup(self) -> None:
        super().setup()
        time.sleep(2 * self.server.delay_seconds)

    def parse_request(self) -> bool:
        time.sleep(self.server.delay_seconds)
        return super().parse_request()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        service = (parse_qs(url.query).get("service") or [""])[0]
        if not url.path.endswith("/info/refs") or service not in _SERVICES:
            return self._call_api()
        self._handle(url.path.removesuffix("/info/refs"), service, "/info/refs", url.query)
        return None

    def do_POST(self) -> None:
        path, _, service = urlsplit(self.path).path.rpartition("/")
        if service not in _SERVICES:
            return self._call_api()
        self._handle(path, service, f"/{service}", "")
        return None

    def _call_api(self) -> None:
        url = urlsplit(self.path)
        if self.server.lfs and _LFS in url.path:
            return self._call_lfs(self.server.lfs, url.path)
        self.server.requests["api"] += 1
        if not self.server.api:
            return self._answer(Answer(404, "Not a Git request.\n"))
        request = ApiRequest(
            method=self.command,
            path=unquote(url.path),
            query={name: values[-1] for name, values in parse_qs(url.query).items()},
            scheme=self.headers.get("Authorization", "").partition(" ")[0].lower(),
            token=self._credentials()[1],
            body=RequestBody(self).read(-1),
            accept=self.headers.get("Accept", ""),
        )
        return self._answer(self.server.api(request), ends=False)

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _call_api

    def _call_lfs(self, lfs: LfsHost, url_path: str) -> None:
        self.server.requests["git"] += 1
        repository, _, rest = url_path.partition(_LFS)
        username, password = self._credentials()
        request = LfsRequest(
            method=self.command,
            repository=unquote(repository),
            path=f"/{rest}",
            url=f"http://{self.headers.get('Host', '')}{repository}{_LFS}".rstrip("/"),
            username=username,
            password=password,
            body=RequestBody(self),
        )
        try:
            answer = lfs(request)
        except ConnectionError:
            self.close_connection = True
            return
        self._answer(answer)

    def _handle(self, repository: str, service: str, path_info: str, query: str) -> None:
        self.server.requests["git"] += 1
        username, password = self._credentials()
        body: Body = RequestBody(self)
        first_line = None
        encoding = self.headers.get("Content-Encoding", "")
        if self.command == "POST" and service == "git-upload-pack":
            raw = body.read(-1)
            if encoding == "gzip":
                raw, encoding = zlib.decompress(raw, wbits=31), ""
            first_line = raw[4 : int(raw[:4], 16)] if len(raw) > 4 else b""
            body = io.BytesIO(raw)
        request = GitRequest(
            repository=unquote(repository),
            service=service,
            username=username,
            password=password,
            first_line=first_line,
            body=body,
            advertisement=self.command == "GET",
            host=self.headers.get("Host", ""),
        )
        try:
            decision = self.server.host(request)
        except ConnectionError:
            self.close_connection = True
            return None
        if isinstance(decision, Answer):
            return self._answer(decision)
        self._serve(
            decision,
            body,
            {
                "PATH_INFO": path_info,
                "QUERY_STRING": query,
                "HTTP_CONTENT_ENCODING": encoding,
                "REMOTE_USER": username or "bearer",
            },
        )
        return None

    def _serve(self, decision: Serve, body: Body, variables: Mapping[str, str]) -> None:
        """Let ``git http-backend`` answer a request (CGI, RFC 3875)."""
        environment = {
            **isolated_environment(),
            "GIT_PROJECT_ROOT": str(decision.repository),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "REMOTE_ADDR": "127.0.0.1",
            **variables,
        }
        backend = subprocess.Popen(
            ["git", "http-backend"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert backend.stdout
        try:
            feeder = threading.Thread(target=_feed, args=(body, backend), daemon=True)
            feeder.start()
            self._relay(backend.stdout, decision.done)
            feeder.join()
        except ConnectionError:
            self.close_connection = True
        finally:
            backend.kill()
            backend.wait()
            backend.stdout.close()

    def _credentials(self) -> tuple[str | None, str | None]:
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return None, value
        if scheme.lower() != "basic":
            return None, None
        try:
            username, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None, None
        return username, password

    def _answer(self, answer: Answer, *, ends: bool = True) -> None:
        """Answer without git; the connection ends if the client may still send what belongs to no later request."""
        self.close_connection = self.close_connection or ends
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as stream:
            length = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Type": answer.content_type}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.server.bytes_out += length
            shutil.copyfileobj(stream, self.wfile)

    def _relay(self, output: IO[bytes], done: Callable[[], None]) -> None:
        headers = list(_cgi_headers(output))
        status = next((int(value[:3]) for name, value in headers if name == "Status"), 200)
        self.send_response(status)
        for name, value in headers:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while data := output.read1(_CHUNK):  # type: ignore[attr-defined]
            self.server.bytes_out += len(data)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        done()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Suppress request logging."""


def _cgi_headers(output: IO[bytes]) -> Iterator[tuple[str, str]]:
    while (line := output.readline().strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        yield name, value.strip()


def _feed(body: Body, backend: subprocess.Popen[bytes]) -> None:
    assert backend.stdin
    try:
        with contextlib.suppress(BrokenPipeError), backend.stdin as pipe:
            while data := body.read(_CHUNK):
                pipe.write(data)
    except ConnectionError:
        # Git must not take the end of a broken request for the end of the pack.
        backend.kill()


class RequestBody:
    """The request's body as a stream, whether its length is given or it is chunked."""

    def __init__(self, request: BaseHTTPRequestHandler) -> None:
        self._stream = request.rfile
        self._chunked = request.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._left = 0 if self._chunked else int(request.headers.get("Content-Length") or 0)
        if request.headers.get("Expect", "").lower() == "100-continue":
            request.send_response_only(100)
            request.end_headers()

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, all of them for -1, and fewer only at the end."""
        parts, wanted = [], size
        while wanted and (part := self._some(_CHUNK if size < 0 else wanted)):
            parts.append(part)
            wanted -= len(part) if size > 0 else 0
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        if self._chunked and not self._left:
            size_line = self._stream.readline()
            if not size_line:
                raise ConnectionResetError("the request ends inside its body")
            self._left = int(size_line.split(b";")[0], 16)
            if not self._left:
                self._stream.readline()
                self._chunked = False
                return b""
        data = self._stream.read1(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise ConnectionResetError("the request ends inside its body")
        self._left -= len(data)
        if self._chunked and not self._left:
            self._stream.readline()
        return data
