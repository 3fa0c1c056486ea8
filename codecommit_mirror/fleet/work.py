"""Work on many mirrors, several at a time."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TypeVar

from ..errors import MirrorError
from ..progress import Board, Row

Given = TypeVar("Given")
Made = TypeVar("Made")

WORKERS = 8
"""How many mirrors are worked on at a time: Azure DevOps delays a user who makes many requests
(https://learn.microsoft.com/azure/devops/integrate/concepts/rate-limits)."""


def each(
    given: Mapping[str, Given],
    board: Board,
    work: Callable[[Given, Row], Made],
    *,
    workers: int = WORKERS,
    minutes: float = math.inf,
) -> dict[str, Made]:
    """Work on each mirror, and return what was made of those that did not fail; a failure ends the mirror's row.

    Threads that are still working do not keep the program from being interrupted: every journey can be resumed.

    Args:
        given: what to work on, by the mirror's name.
        board: shows the progress.
        work: does the work of one mirror.
        workers: how many mirrors are worked on at a time.
        minutes: how old the board is when no further mirror is begun; the others are left.

    Raises:
        Exception: one of our own mistakes, once the others have ended.
    """
    made: dict[str, Made] = {}
    crashes: list[Exception] = []

    def work_on(name: str) -> None:
        row = board.rows[name]
        if board.seconds() >= minutes * 60:
            row.leave("there was no time for it")
            return
        try:
            made[name] = work(given[name], row)
        except MirrorError as error:
            row.fail(str(error))
        except Exception as error:
            row.fail(f"this is a mistake in codecommit-mirror ({type(error).__name__})")
            crashes.append(error)

    _in_threads(given, work_on, workers)
    if crashes:
        raise crashes[0]
    return {name: made[name] for name in given if name in made}


def _in_threads(names: Collection[str], work_on: Callable[[str], None], workers: int) -> None:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                work_on(waiting.get_nowait())

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(names)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
