"""Git access to CodeCommit with the function's role."""

from __future__ import annotations

import time as clock
from collections.abc import Callable

from ..engine.refs import Advertisement
from ..engine.settings import Endpoint, make_endpoint
from ..engine.wire.protocol import read_refs
from ..engine.wire.retries import patiently

MAX_LIST_BYTES = 16_000_000
"""Of a list of refs; a name with a character beyond U+FFFF takes several times as much memory."""
_TRIES = 4
_MAX_WAIT_SECONDS = 60


def endpoint(url: str, user: str, password: str) -> Endpoint:
    """Return a replica, to be read with a signed password."""
    return make_endpoint("replica", url, user, password, "codecommit:GitPull on this repository is needed")


def read_patiently(
    sign_in: Callable[[], Endpoint],
    limit: int = MAX_LIST_BYTES,
    sleep: Callable[[float], None] = clock.sleep,
) -> Advertisement:
    """Read a replica's refs, with retries: CodeCommit limits the requests of an account and region.

    Args:
        sign_in: returns the endpoint, with a new password.
        limit: bytes that are read.
        sleep: waits between tries.

    Raises:
        RetryableError: every try failed.
        AnswerTooLarge: the list of refs is longer than that.
        MirrorFailure: the replica cannot be read.
    """
    return patiently(lambda _: read_refs(sign_in(), "git-upload-pack", limit=limit), sleep, _TRIES, _MAX_WAIT_SECONDS)
