"""The mirror that this thread works on: whatever is called for it reports here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from .board import Row
from .clean import clean

_row: ContextVar[Row | None] = ContextVar("row", default=None)


@contextmanager
def working_on(row: Row) -> Iterator[None]:
    """Let everything that is called in the block report to a row."""
    token = _row.set(row)
    try:
        yield
    finally:
        _row.reset(token)


def say(line: str) -> None:
    """Report what is happening, below the current step; on standard error where there is no row."""
    row = _row.get()
    if row is None:
        print(clean(line), file=sys.stderr, flush=True)
    else:
        row.say(line)


def step(title: str) -> AbstractContextManager[None]:
    """Do one step of the current row's work.

    Raises:
        LookupError: there is no current row.
    """
    row = _row.get()
    if row is None:
        raise LookupError(f"no mirror is being worked on: {title}")
    return row.step(title)
