"""One loop over the mirrors of a command, for one and for five hundred; one that fails does not stop the others."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from ..azure.connection import Allowed
from ..config.mirror import Mirror
from ..errors import MirrorError
from ..progress import Board, Confirm, Row, working_on

Item = TypeVar("Item")
Value = TypeVar("Value")

WORKERS = 8
"""How many mirrors are worked on at a time: Azure DevOps delays a user who makes many requests
(https://learn.microsoft.com/azure/devops/integrate/concepts/rate-limits)."""


def refuse(question: str, typed: str | None = None) -> None:
    """Stand for a person who cannot be asked.

    Raises:
        MirrorError: always.
    """
    del typed
    raise MirrorError(f"there is no terminal to ask on: {question} Use --yes to confirm.")


@dataclass(frozen=True)
class Policy:
    """How a command works on mirrors; it decides nothing about what is done to them."""

    confirm: Confirm = refuse
    """Asks a person, once for all mirrors."""
    minutes: float = math.inf
    """How old the board is when no further mirror is begun; the others are left."""
    waits: bool = True
    """Whether the runs that it queues are waited for."""
    pull_request: bool = False
    """Whether pull requests bring the YAML in and out."""
    change_source: bool = False
    """Whether a replica may follow another source from now on, because a person said so."""
    allowed: Allowed = field(default_factory=Allowed)
    """What a person has allowed in Azure DevOps."""
    workers: int = WORKERS
    azure: Literal["all", "without secrets", "none"] = "all"
    """Of which mirrors the Azure side is read and changed: a job of CI has no secrets, or no token at all."""

    def covers_azure(self, mirror: Mirror) -> bool:
        """Whether the Azure side of a mirror is read and changed."""
        stores_no_secret = mirror.replica_auth == "role" and mirror.source_auth == "job-token"
        return self.azure == "all" or (self.azure == "without secrets" and stores_no_secret)


def for_each_mirror(
    items: Mapping[str, Item], board: Board, work: Callable[[Item, Row], Value], policy: Policy
) -> dict[str, Value]:
    """Work on each mirror, and return the values of those that did not fail; a failure ends the mirror's row.

    Threads that are still working do not keep the program from being interrupted: every command can be run again.

    Args:
        items: what to work on, by the mirror's name.
        board: shows the progress.
        work: does the work of one mirror.
        policy: how many mirrors are worked on at a time, and for how long.

    Raises:
        Exception: a bug of ours, once the others have ended.
    """
    values: dict[str, Value] = {}
    crashes: list[Exception] = []

    def work_on(name: str) -> None:
        row = board.rows[name]
        if board.seconds() >= policy.minutes * 60:
            row.leave("skipped: --minutes ran out")
            return
        try:
            with working_on(row):
                values[name] = work(items[name], row)
        except MirrorError as error:
            row.fail(str(error))
        except Exception as error:
            row.fail(f"internal error ({type(error).__name__}): please report it")
            crashes.append(error)

    _in_threads(items, work_on, policy.workers)
    if crashes:
        raise crashes[0]
    return {name: values[name] for name in items if name in values}


def _in_threads(names: Collection[str], work_on: Callable[[str], None], workers: int) -> None:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                work_on(waiting.get_nowait())

    if len(names) == 1:
        work()
        return
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(names)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
