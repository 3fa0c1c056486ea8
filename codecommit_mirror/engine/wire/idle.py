"""Connections that stay open for the next request to the same host, and one that is opened ahead of its request."""

from __future__ import annotations

import http.client
import selectors
import threading
import time
import urllib.parse
from typing import NamedTuple

from ..failures import MirrorFailure
from .connection import open_connection

IDLE_SECONDS = 5.0
"""For how long an idle connection is used again: what is sent into one that its server closes may be lost."""


class _Idle(NamedTuple):
    connection: http.client.HTTPConnection
    since: float
    was_used: bool


_idle: dict[str, list[_Idle]] = {}
_opening: dict[str, threading.Thread] = {}


class Response(http.client.HTTPResponse):
    """An answer, which keeps its connection for the next request if it is closed after it was read to its end."""

    connection: http.client.HTTPConnection | None = None
    place = ""
    """Which connections can take this one's place."""
    is_answer_to_all = True
    """Whether the whole request was sent before the answer came."""

    def close(self) -> None:
        """Close the answer, and keep its connection or close that, too."""
        is_whole = self.isclosed() and self.is_answer_to_all
        super().close()
        connection, self.connection = self.connection, None
        if connection and is_whole and connection.sock is not None:
            _idle.setdefault(self.place, []).append(_Idle(connection, time.monotonic(), was_used=True))
        elif connection:
            connection.close()


def take_connection(url: urllib.parse.SplitResult) -> tuple[http.client.HTTPConnection, bool]:
    """Return a connection to a URL's host, and whether it was used before; raise MirrorFailure if the proxy is none."""
    place = _place(url)
    opening = _opening.pop(place, None)
    if opening:
        opening.join()
    while True:
        try:
            connection, since, was_used = _idle[place].pop()
        except LookupError:
            return open_connection(url), False
        if time.monotonic() - since <= IDLE_SECONDS and not (was_used and _is_readable(connection)):
            return connection, was_used
        connection.close()


def get_response(
    connection: http.client.HTTPConnection, url: urllib.parse.SplitResult, *, has_sent_all: bool
) -> Response:
    """Return the answer on a connection, which is kept once the answer was read to its end."""
    connection.response_class = Response
    response = connection.getresponse()
    if not isinstance(response, Response):
        raise AssertionError("the connection makes its own answers")
    response.connection, response.place, response.is_answer_to_all = connection, _place(url), has_sent_all
    return response


def open_ahead(address: str) -> None:
    """Open a connection to a URL's host, which the next request to it takes; whether it fails shows then."""
    url = urllib.parse.urlsplit(address)
    place = _place(url)

    def connect() -> None:
        try:
            connection = open_connection(url)
            connection.connect()
        except (OSError, http.client.HTTPException, MirrorFailure):
            return
        _idle.setdefault(place, []).append(_Idle(connection, time.monotonic(), was_used=False))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    _opening[place] = thread


def _place(url: urllib.parse.SplitResult) -> str:
    return f"{url.scheme}://{url.hostname}:{url.port}"


def _is_readable(connection: http.client.HTTPConnection) -> bool:
    """Whether something came on an idle connection: its end, or what belongs to no request."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))
