"""HTTP to one side of the mirror: one request on a connection of its own, and errors that say whether to retry."""

from __future__ import annotations

import email.utils
import http.client
import random
import time
import urllib.parse
import urllib.request
from typing import Iterable, Iterator, Mapping

from ..failures import AnswerTooLarge, MirrorFailure, PackRefused, RetryableError, SourceRefused, TooLarge
from ..settings import Endpoint, basic_auth_header
from ..text import error_name, format_bytes, sanitize, say

AGENT = "agent=codecommit-mirror"
CHUNK_BYTES = 64 * 1024
TIMEOUT_SECONDS = 300
MAX_WAIT_SECONDS = 600
MAX_BODY_BYTES = 64_000_000
"""Of an answer that is read as a whole: a list of some 800,000 refs."""
MAX_ROUNDS = 6
"""How often a run, or one request of it, is tried."""


class Traffic:
    """Counts bytes, and reports on long transfers at most once a second."""

    def __init__(self) -> None:
        self.from_source = 0
        self.to_replica = 0
        self.objects = 0
        """Objects in the pack that is being transferred."""
        self._reported = time.monotonic()

    def counting(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on what is sent to the replica, and count it."""
        for part in parts:
            yield part
            self.to_replica += len(part)
            if time.monotonic() - self._reported >= 1:
                self._reported = time.monotonic()
                received, sent = format_bytes(self.from_source), format_bytes(self.to_replica)
                say(f"  {received} from the source, {sent} to the replica; the pack has {self.objects:,} objects")


def send(
    endpoint: Endpoint,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Iterable[bytes] | None = None,
    length: int | None = None,
) -> http.client.HTTPResponse:
    """Send one request on a connection of its own, and return the response if it is a success.

    Redirects are not followed: credentials go to the configured host and to no other. Raises RetryableError, TooLarge,
    PackRefused, SourceRefused or MirrorFailure, depending on the answer.
    """
    endpoint = endpoint.now()
    url = urllib.parse.urlsplit(endpoint.url)
    connection = open_connection(url)
    try:
        connection.putrequest(method, f"{url.path}{path}", skip_accept_encoding=True)
        sent = {"Authorization": endpoint.authorization, "User-Agent": "git/codecommit-mirror", **headers}
        if body is not None:
            sent.update({"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)})
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        if body is not None:
            _send_body(connection, body, chunked=length is None)
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        problem = "could not be reached" if body is None else "broke the connection"
        raise RetryableError(f"{endpoint} {problem} ({error_name(error)})") from None
    except BaseException:
        connection.close()
        raise
    if response.status != 200:
        response.close()
        raise _failure(endpoint, response, has_body=body is not None)
    return response


def _send_body(connection: http.client.HTTPConnection, body: Iterable[bytes], *, chunked: bool) -> None:
    try:
        for part in body:
            # Servers limit the size of a chunk.
            for start in range(0, len(part), CHUNK_BYTES):
                piece = part[start : start + CHUNK_BYTES]
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass  # A server that refuses early closes the connection early; its answer may still be readable.


def _failure(endpoint: Endpoint, response: http.client.HTTPResponse, *, has_body: bool) -> Exception:
    """Return the exception that an unsuccessful answer means."""
    problem = f"{endpoint} answered {response.status}"
    wait = retry_after_seconds(response.headers.get("Retry-After", ""))
    if response.status == 413 and has_body:
        return TooLarge(problem)
    if wait > MAX_WAIT_SECONDS:
        return MirrorFailure(f"{endpoint} asked for a wait of {wait:,.0f} s; retry after that.")
    if response.status in (408, 413, 429) or response.status >= 500:
        return RetryableError(problem, wait, response.status)
    if response.status == 400 and has_body:
        return (PackRefused if endpoint.side == "replica" else SourceRefused)(f"{problem} to the request")
    return MirrorFailure(access_problem(endpoint, response.status, response.headers.get("Location", "")))


def open_connection(url: urllib.parse.SplitResult) -> http.client.HTTPConnection:
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
        authorization["Proxy-Authorization"] = basic_auth_header(name, password)
    connection.set_tunnel(host, port, authorization)
    return connection


def read_body(endpoint: Endpoint, response: http.client.HTTPResponse, limit: int = MAX_BODY_BYTES) -> bytes:
    """Read a whole answer of at most ``limit`` bytes; raise RetryableError if the connection breaks."""
    try:
        body = response.read(limit + 1)
    except (OSError, http.client.HTTPException) as error:
        raise RetryableError(f"the {endpoint.side}'s answer was cut short ({error_name(error)})") from None
    finally:
        response.close()
    if len(body) > limit:
        raise AnswerTooLarge(f"{endpoint} sent more than {format_bytes(limit)} in one answer; check its URL.")
    return body


def retry_after_seconds(retry_after: str) -> float:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds or a date."""
    try:
        if retry_after.strip().isdigit():
            return float(retry_after)
        date = email.utils.parsedate_tz(retry_after)
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else 0.0
    except (ValueError, OverflowError):
        return 0.0


def access_problem(endpoint: Endpoint, status: int, location: str = "") -> str:
    """Return the sentence for an answer that is not a Git server's."""
    subject = str(endpoint)
    here = urllib.parse.urlsplit(endpoint.url).netloc
    if 300 <= status < 400 and urllib.parse.urlsplit(location).netloc == here:
        return f"{subject} has moved to {sanitize(location.partition('?')[0])}; use the new URL."
    if status == 404:
        return f"{subject} does not exist (404); check the URL, and whether the repository was renamed or deleted."
    if status in (401, 403) or status < 400:
        page = "a sign-in page" if status < 400 else str(status)
        return f"{subject} refused access ({page}); {endpoint.remedy}."
    return f"{subject} answered {status}, which a Git server would not do; check the URL."


def retry_delay(error: RetryableError, number: int) -> float:
    """Return the seconds to wait before the next try: what the server asked for, or twice as long each time."""
    return max(error.wait_seconds, random.uniform(0.5, 1) * float(2**number))
