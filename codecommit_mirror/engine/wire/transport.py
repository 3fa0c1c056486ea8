"""HTTP to one side of the mirror: one request and its answer, and errors that say whether to retry."""

from __future__ import annotations

import email.message
import http.client
import re
import time
import urllib.parse
from typing import Iterable, Iterator, Mapping

from ..failures import AnswerTooLarge, MirrorFailure, PackRefused, RetryableError, SourceRefused, TooLarge
from ..settings import Endpoint
from ..text import error_name, format_bytes, printable, sanitize, say
from .connection import connection_failure
from .idle import get_response, take_connection
from .retries import MAX_WAIT_SECONDS, retry_after_seconds

AGENT = "agent=codecommit-mirror"
CHUNK_BYTES = 64 * 1024
MAX_REASON_BYTES = 8192
"""Of an answer that refuses, in which the reason is looked for."""
MAX_BODY_BYTES = 64_000_000
"""Of an answer that is read as a whole: a list of some 800,000 refs."""


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
    """Send one request, and return the response if it is a success; its connection is used again once it was read.

    Redirects are not followed: credentials go to the configured host and to no other. On a connection that was used
    before, and that the server has closed meanwhile, a request is sent again if its body is a list, or if it has none;
    a push never is. Raises RetryableError, TooLarge, PackRefused, SourceRefused or MirrorFailure, depending on the
    answer.
    """
    endpoint = endpoint.now()
    address = endpoint.git_url or endpoint.url
    url = urllib.parse.urlsplit(address)
    sent = {"Authorization": endpoint.authorization, "User-Agent": "git/codecommit-mirror", **headers}
    if body is not None:
        sent.update({"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)})
    while True:
        connection, was_used = take_connection(url)
        try:
            response = _exchange(connection, method, url, path, sent, body, chunked=length is None)
            break
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if was_used and (body is None or isinstance(body, list)):
                continue
            raise connection_failure(str(endpoint), address, error, was_sending=body is not None) from None
        except BaseException:
            connection.close()
            raise
    if response.status != 200:
        raise _failure(endpoint, response, has_body=body is not None)
    return response


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    url: urllib.parse.SplitResult,
    path: str,
    headers: Mapping[str, str],
    body: Iterable[bytes] | None,
    *,
    chunked: bool,
) -> http.client.HTTPResponse:
    """Send one request on a connection, and return the answer."""
    connection.putrequest(method, f"{url.path}{path}", skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    has_sent_all = body is None or _send_body(connection, body, chunked=chunked)
    return get_response(connection, url, has_sent_all=has_sent_all)


def _send_body(connection: http.client.HTTPConnection, body: Iterable[bytes], *, chunked: bool) -> bool:
    """Send a body, and return whether all of it was sent."""
    try:
        for part in body:
            # Servers limit the size of a chunk.
            for start in range(0, len(part), CHUNK_BYTES):
                piece = part[start : start + CHUNK_BYTES]
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
        return True
    except (BrokenPipeError, ConnectionResetError):
        return False  # A server that refuses early closes the connection early; its answer may still be readable.


def _failure(endpoint: Endpoint, response: http.client.HTTPResponse, *, has_body: bool) -> Exception:
    """Return the exception that an unsuccessful answer means."""
    reason = server_reason(response)
    problem = f"{endpoint} answered {response.status}{reason}"
    wait = retry_after_seconds(response.headers.get("Retry-After", ""))
    if response.status == 413 and has_body:
        return TooLarge(problem)
    if wait > MAX_WAIT_SECONDS:
        return MirrorFailure(f"{endpoint} asked for a wait of {wait:,.0f} s; retry after that.")
    if response.status in (408, 413, 429) or response.status >= 500:
        return RetryableError(problem, wait, response.status)
    if response.status == 400 and has_body:
        return (PackRefused if endpoint.side == "replica" else SourceRefused)(f"{problem} to the request")
    return MirrorFailure(access_problem(endpoint, response.status, response.headers, reason))


def server_reason(response: http.client.HTTPResponse) -> str:
    """Return a service's own words for a refusal, in parentheses, with the id by which its support finds the request.

    Azure DevOps gives a reason with a code, in a header, a text or the title of a page.
    """
    try:
        body = response.read(MAX_REASON_BYTES)
    except (OSError, http.client.HTTPException):
        body = b""
    finally:
        response.close()
    found = re.search(rb"(TF|VS)[0-9]{5,6}: [^<\"\r\n]{1,300}", body)
    words = urllib.parse.unquote_to_bytes(response.headers.get("X-TFS-ServiceError", "")) or (found and found[0]) or b""
    if not words and response.headers.get_content_type() == "text/plain":
        words = body[:200]
    names = ("ActivityId", "X-VSS-E2EID", "x-amzn-RequestId")
    ids = [f"request {sanitize(response.headers[name])[:64]}" for name in names if response.headers.get(name)]
    parts = [*([printable(words).rstrip(".")] if words.strip() else []), *ids[:1]]
    return f" ({', '.join(parts)})" if parts else ""


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


def access_problem(
    endpoint: Endpoint, status: int, headers: email.message.Message | None = None, reason: str = ""
) -> str:
    """Return the sentence for an answer that is not a Git server's.

    Args:
        endpoint: who answered.
        status: with which HTTP status.
        headers: of the answer.
        reason: the service's own, in parentheses.
    """
    subject, headers = str(endpoint), headers or email.message.Message()
    here, location = urllib.parse.urlsplit(endpoint.url).netloc, headers.get("Location", "")
    if 300 <= status < 400 and urllib.parse.urlsplit(location).netloc == here:
        return f"{subject} has moved to {sanitize(location.partition('?')[0])}; use the new URL."
    if status == 404 and headers.get("X-VSS-UserData"):
        return (
            f"{subject} is not there for this user (404){reason}: it is disabled or gone, or the user may not read it; "
            "check the repository's settings and its permission Read."
        )
    if status == 404:
        return (
            f"{subject} does not exist (404){reason}; check the URL, and whether it was renamed, disabled or deleted."
        )
    if "VS403463" in reason:
        return (
            f"{subject} refused access ({status}){reason}; a conditional access policy of Microsoft Entra stops it: "
            "ask who administers that policy to let this identity, or the agent's network, through."
        )
    if status in (401, 403) or status < 400:
        page = "a sign-in page" if status < 400 else str(status)
        return f"{subject} refused access ({page}){reason}; {endpoint.remedy}."
    return f"{subject} answered {status}{reason}, which a Git server would not do; check the URL."
