"""HTTP to Azure DevOps' REST API: sign-in, time-outs, retries, paging, and errors with the service's own message."""

from __future__ import annotations

import functools
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx

from ...engine_api import RetryableError, patiently, retry_after_seconds
from ...errors import AzureError, MirrorError
from ...progress import say
from .token import SCOPES, AzureToken

API_VERSION = "7.1"
"""The newest version that is asked for; an Azure DevOps Server says if it only has an older one."""
TRIES = 5
_NEWEST = re.compile(r"latest REST API version this server supports is ([0-9]\.[0-9])\b")
_MUST_BE_PREVIEW = "VssInvalidPreviewVersionException"
_LOG = logging.getLogger(__name__)
_FIRST_CONNECT_SECONDS, _TIMEOUT = 3, httpx.Timeout(60, connect=15)
"""Without a network there is a word after three seconds; later tries give a slow one more time."""
_MAX_WAIT_SECONDS = 60.0
_RETRYABLE = {429, 500, 502, 503, 504}
_PAGE_SIZE = 200
_MAX_ANSWER_BYTES = 64_000_000


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return the certificates that are trusted, which take longer to read than a request."""
    return httpx.create_ssl_context()


class _Request(NamedTuple):
    method: str
    path: str
    query: Mapping[str, Any]
    body: Any
    accept: str
    action: str
    """What is being tried, as in "cannot ..."."""


class _Unsuccessful(RetryableError):
    """Raised when a request may be sent again; ``error`` says why, if it was the last time."""

    def __init__(self, error: AzureError, wait_seconds: float = 0) -> None:
        super().__init__(str(error), wait_seconds)
        self.error = error


class AzureHttp:
    """One project's REST API.

    Args:
        base: ``https://dev.azure.com/{organization}/{project}``, percent-encoded.
        token: the token to sign in with.
        sleep: waits before another try.
        transport: an httpx transport, for tests.
    """

    def __init__(
        self,
        base: str,
        token: AzureToken,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        token.check_destination(base)
        self._token, self._sleep = token, sleep
        self._newest = API_VERSION
        self._previews: set[str] = set()
        """Areas and resources that the server only has as previews."""
        try:
            self._client = httpx.Client(
                base_url=f"{base}/_apis/",
                # Not httpx's auth, which a redirect could carry to another host; none is followed either.
                headers={"Authorization": token.authorization, "Accept": "application/json"},
                timeout=_TIMEOUT,
                follow_redirects=False,
                verify=_certificates(),
                transport=transport,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise MirrorError(
                f"{base} cannot be reached ({error}); check azure.server, and HTTPS_PROXY and ALL_PROXY in the "
                "environment (a SOCKS proxy needs 'pip install httpx[socks]')."
            ) from None

    @property
    def organization_apis(self) -> str:
        """The address of what belongs to the project's organization, and not to the project."""
        return f"{str(self._client.base_url).removesuffix('/_apis/').rpartition('/')[0]}/_apis/"

    def is_older_than(self, version: str) -> bool:
        """Whether the server has said that it is older than a version of the API."""
        return self._newest < version

    def get(self, path: str, action: str, **query: Any) -> Any:
        """Get one JSON document."""
        return self.call("GET", path, action, query=query)

    def pages(self, path: str, action: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page."""
        token = ""
        while True:
            more = {"continuationToken": token} if token else {}
            response = self._send("GET", path, action, {"$top": _PAGE_SIZE, **query, **more}, None, API_VERSION)
            yield from self._json(response, action)["value"]
            token = response.headers.get("x-ms-continuationtoken", "")
            if not token:
                return

    def text(self, path: str, action: str, **query: Any) -> str:
        """Get plain text."""
        return self._send("GET", path, action, query, None, API_VERSION, accept="text/plain").text

    def call(
        self,
        method: str,
        path: str,
        action: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        version: str = API_VERSION,
    ) -> Any:
        """Call an operation and return its JSON document, or None if the answer is empty.

        Args:
            method: the HTTP method.
            path: below ``_apis/``, percent-encoded.
            action: what is being tried, as in "cannot ...".
            body: sent as JSON.
            query: the parameters other than ``api-version``.
            version: the ``api-version``.

        Raises:
            AzureError: the service refuses, or cannot be reached.
        """
        if method != "GET":
            self._token.check_writing()
        response = self._send(method, path, action, query or {}, body, version)
        return self._json(response, action) if response.content else None

    def _send(
        self,
        method: str,
        path: str,
        action: str,
        query: Mapping[str, Any],
        body: Any,
        version: str,
        accept: str = "application/json",
    ) -> httpx.Response:
        while True:
            asked = self._version(path, version)
            request = _Request(method, path, {**query, "api-version": asked}, body, accept, action)
            try:
                response = patiently(functools.partial(self._try, request), self._sleep, TRIES, _MAX_WAIT_SECONDS)
            except _Unsuccessful as last:
                raise last.error from None
            if not self._is_negotiated(response, path, asked):
                if problem := self._problem(response, action):
                    raise problem
                return response

    def _try(self, request: _Request, failures: int) -> httpx.Response:
        """Send a request once; raise ``_Unsuccessful`` if it may be sent again."""
        method, action = request.method, request.action
        try:
            with self._client.stream(
                method,
                request.path,
                params={name: value for name, value in request.query.items() if value is not None},
                headers={"Accept": request.accept},
                timeout=_TIMEOUT if failures else httpx.Timeout(60, connect=_FIRST_CONNECT_SECONDS),
                **({} if request.body is None else {"json": request.body}),
            ) as stream:
                response = _read(stream, action)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise self._unreachable(action, error) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if not failures:
                say(f"{self._client.base_url.host} cannot be reached ({_reason(error)}); trying again")
            raise _Unsuccessful(self._unreachable(action, error)) from None
        except httpx.TransportError as error:
            # It may have been done, so only what can safely be done twice is sent again.
            problem = self._unreachable(action, error)
            raise (problem if method == "POST" else _Unsuccessful(problem)) from None
        address = self._client.base_url.join(request.path).path
        _LOG.info("%s %s -> %s (request %s)", method, address, response.status_code, _request_id(response))
        is_busy = response.status_code == 429 or (response.status_code in _RETRYABLE and method != "POST")
        if is_busy and (refusal := self._problem(response, action)):
            raise _Unsuccessful(refusal, retry_after_seconds(response.headers.get("retry-after", "")))
        return response

    def _version(self, path: str, version: str) -> str:
        """Return the version to ask for: the wanted one, or the newest that the server has."""
        number, preview, rest = version.partition("-")
        asked = min(number, self._newest)
        return f"{asked}-preview" if _area(path) in self._previews and not preview else f"{asked}{preview}{rest}"

    def _is_negotiated(self, response: httpx.Response, path: str, asked: str) -> bool:
        """Whether a server refused the version that was asked for, and another one is left to ask for."""
        if response.status_code != 400:
            return False
        message, type_key = _error_message(response)
        found = _NEWEST.search(message)
        if found and found[1] < asked.partition("-")[0]:
            self._newest = min(found[1], self._newest)
            return True
        if type_key == _MUST_BE_PREVIEW and "-preview" not in asked:
            self._previews.add(_area(path))
            return True
        return False

    def _unreachable(self, action: str, error: Exception) -> AzureError:
        host = self._client.base_url.host
        why = f"cannot {action}: {host} cannot be reached ({_reason(error)})"
        return AzureError(f"{why}; check azure.server and the network, and run again.", 0)

    def _problem(self, response: httpx.Response, action: str) -> AzureError | None:
        """Return what an answer says is wrong; None for a success."""
        status, origin = response.status_code, self._token.origin
        kind = response.headers.get("content-type", "").partition(";")[0]
        if status in (203, 301, 302) or (status < 300 and kind == "text/html"):
            return AzureError(
                f"cannot {action}: Azure DevOps does not recognise the token from {origin} (it answers with a sign-in "
                f"page); create a new one for this organization, with the scopes {SCOPES}{self._global_token_hint()}.",
                401,
            )
        if status < 300:
            return None
        message, type_key = _error_message(response)
        if status == 401:
            return AzureError(
                f"cannot {action}: the token from {origin} is wrong, expired, or lacks a scope{_quoted(message)}; it "
                f"needs the scopes {SCOPES}{self._global_token_hint()}.",
                status,
                type_key,
            )
        if "VS403463" in message:
            return AzureError(
                f"cannot {action}: a conditional access policy of Microsoft Entra stops the token from {origin}"
                f"{_quoted(message)}; ask who administers it.",
                status,
                type_key,
            )
        if status == 403:
            return AzureError(
                f"cannot {action}: Azure DevOps denies it{_quoted(message)}; the token from {origin} needs the scopes "
                f"{SCOPES}, and its owner needs permission to do this.",
                status,
                type_key,
            )
        if status in _RETRYABLE:
            return AzureError(
                f"cannot {action}: Azure DevOps is busy or has an outage ({status}{_quoted(message)}); run again in a "
                "few minutes.",
                status,
                type_key,
            )
        return AzureError(f"cannot {action}: {message or f'Azure DevOps answered {status}'}", status, type_key)

    def _global_token_hint(self) -> str:
        """Return the note about personal access tokens for all organizations.

        https://devblogs.microsoft.com/devops/retirement-of-global-personal-access-tokens-in-azure-devops/
        """
        if self._token.bearer:
            return ""
        return "; a global token (All accessible organizations) stops working on 1 December 2026"

    def _json(self, response: httpx.Response, action: str) -> Any:
        try:
            return response.json()
        except json.JSONDecodeError:
            raise AzureError(
                f"cannot {action}: {self._client.base_url.host} did not answer with JSON; check azure.server.",
                response.status_code,
            ) from None


def _read(stream: httpx.Response, action: str) -> httpx.Response:
    """Return a whole answer.

    Raises:
        AzureError: it is longer than any that is asked for, such as a file that somebody put at a path of ours.
    """
    content = bytearray()
    for part in stream.iter_bytes():
        content += part
        if len(content) > _MAX_ANSWER_BYTES:
            raise AzureError(f"cannot {action}: the answer has more than {_MAX_ANSWER_BYTES // 10**6} MB.", 0)
    headers = [(key, value) for key, value in stream.headers.multi_items() if key != "content-encoding"]
    return httpx.Response(stream.status_code, headers=headers, content=bytes(content), request=stream.request)


def _area(path: str) -> str:
    """Return the area and the resource of an operation."""
    return "/".join(path.partition("_apis/")[2].split("/")[:2] if "_apis/" in path else path.split("/")[:2])


def _request_id(response: httpx.Response) -> str:
    """Return the id by which Azure DevOps' support finds a request."""
    return str(response.headers.get("ActivityId") or response.headers.get("X-VSS-E2EID") or "unknown")


def _reason(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _error_message(response: httpx.Response) -> tuple[str, str]:
    """Return the service's own message, from JSON, a header or the title of a page, and the kind of error."""
    try:
        body = json.loads(response.content.decode("utf-8-sig"))
        return str(body["message"]).strip(), str(body.get("typeKey", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        found = re.search(r"(TF|VS)[0-9]{5,6}: [^<\r\n]{1,300}", response.text)
        return unquote(response.headers.get("X-TFS-ServiceError", "")) or (found[0] if found else ""), ""


def _quoted(message: str) -> str:
    return f" ({message.rstrip('.')})" if message else ""
