"""HTTP to Azure DevOps' REST API: sign-in, time-outs, retries, paging, and errors with the service's own message."""

from __future__ import annotations

import email.utils
import functools
import json
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from ..errors import AzureError, MirrorError
from ..progress import say
from .token import SCOPES, AzureToken

API_VERSION = "7.1"
TRIES = 5
_LOG = logging.getLogger(__name__)
_FIRST_CONNECT_SECONDS, _TIMEOUT = 3, httpx.Timeout(60, connect=15)
"""Without a network there is a word after three seconds; later tries give a slow one more time."""
_MAX_WAIT_SECONDS = 60.0
_RETRYABLE = {429, 500, 502, 503, 504}
_PAGE_SIZE = 200


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return the certificates that are trusted, which take longer to read than a request."""
    return httpx.create_ssl_context()


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
        asked = {name: value for name, value in query.items() if value is not None}
        wait = 0.0
        for number in range(TRIES):
            if wait:
                self._sleep(wait)
            last = number == TRIES - 1
            wait = random.uniform(0.5, 1) * 2**number  # noqa: S311
            try:
                response = self._client.request(
                    method,
                    path,
                    params={**asked, "api-version": version},
                    headers={"Accept": accept},
                    timeout=_TIMEOUT if number else httpx.Timeout(60, connect=_FIRST_CONNECT_SECONDS),
                    **({} if body is None else {"json": body}),
                )
            except (httpx.InvalidURL, UnicodeError) as error:
                raise self._unreachable(action, error) from None
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if last:
                    raise self._unreachable(action, error) from None
                if not number:
                    say(f"{self._client.base_url.host} cannot be reached ({_reason(error)}); trying again")
                continue
            except httpx.TransportError as error:
                # It may have been done, so only what can safely be done twice is sent again.
                if last or method == "POST":
                    raise self._unreachable(action, error) from None
                continue
            _LOG.info("%s %s -> %s", method, self._client.base_url.join(path).path, response.status_code)
            retry = response.status_code == 429 or (response.status_code in _RETRYABLE and method != "POST")
            if retry and not last:
                wait = max(wait, _retry_after(response))
                continue
            self._check(response, action)
            return response
        raise AssertionError("the last try returns or raises")

    def _unreachable(self, action: str, error: Exception) -> AzureError:
        host = self._client.base_url.host
        why = f"cannot {action}: {host} cannot be reached ({_reason(error)})"
        return AzureError(f"{why}; check azure.server and the network, and run again.", 0)

    def _check(self, response: httpx.Response, action: str) -> None:
        status, origin = response.status_code, self._token.origin
        kind = response.headers.get("content-type", "").partition(";")[0]
        if status in (203, 301, 302) or (status < 300 and kind == "text/html"):
            raise AzureError(
                f"cannot {action}: Azure DevOps does not recognise the token from {origin} (it answers with a sign-in "
                f"page); create a new one for this organization, with the scopes {SCOPES}{self._global_token_hint()}.",
                401,
            )
        if status < 300:
            return
        message, type_key = _error_message(response)
        if status == 401:
            raise AzureError(
                f"cannot {action}: the token from {origin} is wrong, expired, or lacks a scope{_quoted(message)}; it "
                f"needs the scopes {SCOPES}{self._global_token_hint()}.",
                status,
                type_key,
            )
        if status == 403:
            raise AzureError(
                f"cannot {action}: Azure DevOps denies it{_quoted(message)}; the token from {origin} needs the scopes "
                f"{SCOPES}, and its owner needs permission to do this.",
                status,
                type_key,
            )
        if status in _RETRYABLE:
            raise AzureError(
                f"cannot {action}: Azure DevOps is busy or has an outage ({status}{_quoted(message)}); run again in a "
                "few minutes.",
                status,
                type_key,
            )
        raise AzureError(f"cannot {action}: {message or f'Azure DevOps answered {status}'}", status, type_key)

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


def _reason(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _error_message(response: httpx.Response) -> tuple[str, str]:
    try:
        body = response.json()
        return str(body["message"]).strip(), str(body.get("typeKey", ""))
    except (json.JSONDecodeError, LookupError, TypeError, AttributeError):
        return "", ""


def _quoted(message: str) -> str:
    return f" ({message.rstrip('.')})" if message else ""


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that Retry-After asks for, as a number or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), _MAX_WAIT_SECONDS)
