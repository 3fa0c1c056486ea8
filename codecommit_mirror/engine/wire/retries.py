"""When something that may pass is tried again: how often, and after how long."""

from __future__ import annotations

import email.utils
import random
import time
from typing import Callable, TypeVar

from ..failures import RetryableError

MAX_ROUNDS = 6
"""How often a run, or one request of it, is tried."""
MAX_WAIT_SECONDS = 600
"""For the same request; a server that asks for more gets none."""
Answer = TypeVar("Answer")


def patiently(
    ask: Callable[[int], Answer],
    sleep: Callable[[float], None],
    tries: int = MAX_ROUNDS,
    longest: float = MAX_WAIT_SECONDS,
) -> Answer:
    """Return what ``ask`` returns, and try again after each RetryableError; the last one is raised.

    Args:
        ask: is given how often it has failed.
        sleep: waits between tries.
        tries: how often it is tried.
        longest: the most seconds between two tries.
    """
    failed = 0
    while True:
        try:
            return ask(failed)
        except RetryableError as error:
            failed += 1
            if failed >= tries:
                raise
            sleep(min(retry_delay(error, failed - 1), longest))


def retry_delay(error: RetryableError, number: int) -> float:
    """Return the seconds to wait before the next try: what the server asked for, or twice as long each time."""
    return max(error.wait_seconds, random.uniform(0.5, 1) * float(2**number))


def retry_after_seconds(retry_after: str) -> float:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds or a date."""
    try:
        if retry_after.strip().isdigit():
            return float(retry_after)
        date = email.utils.parsedate_tz(retry_after)
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else 0.0
    except (ValueError, OverflowError):
        return 0.0
