"""Git access to CodeCommit with the function's role: a signature in place of a password.

Signature Version 4 of the pseudo-method ``GIT``, the path and the host without its port, as ``aws codecommit
credential-helper`` makes it (https://docs.aws.amazon.com/codecommit/latest/userguide/setting-up-https-unixes.html).
"""

from __future__ import annotations

import hashlib
import hmac
import time as clock
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime

from mirror_engine.model import Advertisement, Endpoint, RetryableError, make_endpoint, retry_delay
from mirror_engine.protocol import read_refs

_TRIES = 4
_MAX_WAIT_SECONDS = 60


def sign(url: str, region: str, access_key: str, secret_key: str, token: str | None, now: datetime) -> tuple[str, str]:
    """Return a user name and a password for a clone URL; they are valid for 15 minutes."""
    parts = urllib.parse.urlsplit(url)
    time = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
    canonical = f"GIT\n{parts.path}\n\nhost:{parts.hostname}\n\nhost\n"
    scope = f"{time[:8]}/{region}/codecommit/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return (f"{access_key}%{token}" if token else access_key), f"{time}Z{key.hex()}"


def endpoint(url: str, user: str, password: str) -> Endpoint:
    """Return a replica, to be read with a signed password."""
    return make_endpoint("replica", url, user, password, "codecommit:GitPull on this repository is needed")


def read_patiently(sign_in: Callable[[], Endpoint], sleep: Callable[[float], None] = clock.sleep) -> Advertisement:
    """Read a replica's refs, with retries: CodeCommit limits the requests of an account and region.

    Args:
        sign_in: returns the endpoint, with a new password.
        sleep: waits between tries.

    Raises:
        RetryableError: every try failed.
        MirrorFailure: the replica cannot be read.
    """
    for number in range(_TRIES):
        try:
            return read_refs(sign_in(), "git-upload-pack")
        except RetryableError as error:
            if number == _TRIES - 1:
                raise
            sleep(min(_MAX_WAIT_SECONDS, retry_delay(error, number)))
    raise AssertionError("the last try returns or raises")
