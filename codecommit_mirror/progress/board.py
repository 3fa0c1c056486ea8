"""The progress of many mirrors, one line for each: a live table on a terminal, plain lines elsewhere.

On a terminal only the mirrors that are being worked on move; one that has ended becomes a line above them, so that
the table fits on the screen for 500 mirrors too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from .screen import Screen
from .steps import Say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Result = Literal["succeeded", "failed", "left"]
"""``left``: there was no time for it."""

_OTHER_LINES = 3
"""How much of the screen the table leaves free."""


class Row:
    """One mirror's line; it shows the steps of its journey, as a checklist does.

    Args:
        board: the board that it is on.
        name: the mirror's name.
    """

    def __init__(self, board: Board, name: str) -> None:
        self._board = board
        self.name = name
        self.title = ""
        """The current step, or the last one."""
        self.details: list[str] = []
        """What was said in the current step."""
        self.message = ""
        """How the journey ended."""
        self.result: Result | None = None
        """None until the journey has ended."""
        self.seconds = 0.0
        """How long its steps took."""
        self._began: float | None = None

    @contextmanager
    def step(self, title: str) -> Iterator[Say]:
        """Do one step; yield a function that adds a line to its details."""
        self.begin(title)
        try:
            yield self.details.append
        finally:
            self.pause()

    def begin(self, title: str) -> None:
        """Begin a step, which lasts until ``pause``, ``succeed`` or ``fail``."""
        is_new = title != self.title
        self.title, self.details, self._began = title, [], time.monotonic()
        if is_new:
            self._board.changed(self)

    def pause(self) -> None:
        """End a step; the mirror waits for its next one."""
        self.seconds += self.elapsed
        self._began = None

    def succeed(self, message: str) -> None:
        """End the journey; a message that begins with the mirror's name loses it, since the row shows it."""
        self._end(message.removeprefix(f"{self.name} "), "succeeded")

    def fail(self, message: str) -> None:
        """End the journey with the reason why it failed."""
        self._end(message, "failed")

    def leave(self, message: str) -> None:
        """End the journey for now, because there is no time for it."""
        self._end(message, "left")

    @property
    def failed(self) -> bool:
        """Whether the journey has failed."""
        return self.result == "failed"

    @property
    def elapsed(self) -> float:
        """How long the current step has taken; zero between steps."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    @property
    def is_working(self) -> bool:
        """Whether a step is being done."""
        return self._began is not None and self.result is None

    def _end(self, message: str, result: Result) -> None:
        self.pause()
        self.message, self.result = message, result
        self._board.changed(self)


class Board:
    """Shows many mirrors' journeys; a context manager.

    Args:
        names: the mirrors' names.
        console: where to print; standard error by default, which leaves standard output to the result.
    """

    def __init__(self, names: Iterable[str], console: Console | None = None) -> None:
        self._began = time.monotonic()
        self.rows = {name: Row(self, name) for name in names}
        self._screen = Screen(self._render, console, refresh_per_second=4)
        self.paused = self._screen.paused
        """Leaves the terminal alone while a person is asked something."""

    def __enter__(self) -> Board:
        self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.stop()

    @property
    def open_rows(self) -> dict[str, Row]:
        """The mirrors whose journeys have not ended."""
        return {name: row for name, row in self.rows.items() if row.result is None}

    def say(self, line: str) -> None:
        """Print a line that is about all mirrors."""
        self._screen.print(f"[{self.seconds():6.1f} s] {line}")

    def seconds(self) -> float:
        """Return the seconds since the board was made."""
        return time.monotonic() - self._began

    def changed(self, row: Row) -> None:
        """Show what a row has begun, or how it ended."""
        if row.result:
            # What was left before it began is only counted.
            if row.title or row.result != "left":
                self._print_end(row)
        elif not self._screen.is_live:
            self._screen.print(f"[{self.seconds():6.1f} s] {row.name}: {row.title}")

    def _print_end(self, row: Row) -> None:
        from rich.text import Text

        with self._screen.lock:
            if not self._screen.is_live:
                label = {"failed": "FAILED: ", "left": "left: "}.get(str(row.result), "")
                self._screen.print(f"[{self.seconds():6.1f} s] {row.name}: {label}{row.message}")
            else:
                mark = {"failed": ("✘", "red"), "left": ("…", "yellow")}.get(str(row.result), ("✔", "green"))
                taken = (f"{row.seconds:.0f} s", "dim")
                self._screen.console.print(Text.assemble(mark, f" {row.name}  {row.message}  ", taken), soft_wrap=True)
            if row.failed:
                for detail in row.details:
                    self._screen.print(f"           {detail}")

    def _render(self) -> RenderableType:
        """Return the live part: what is being worked on, and how many mirrors there are in each state."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        rows = list(self.rows.values())
        working = sorted((row for row in rows if row.is_working), key=lambda row: -row.elapsed)
        shown = working[: max(1, self._screen.console.height - _OTHER_LINES)]
        table = Table.grid(padding=(0, 2))
        for ratio in (3, 3, 1, 6):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
        for row in shown:
            latest = row.details[-1:] or [""]
            table.add_row(Text(row.name), Text(row.title, "bold"), Text(f"{row.elapsed:.0f} s", "dim"), Text(latest[0]))
        done, failed, left = (sum(row.result == one for row in rows) for one in ("succeeded", "failed", "left"))
        waiting = len(rows) - done - failed - left - len(working)
        counts = f"{done:,} done, {failed:,} failed, {len(working):,} working, {waiting:,} waiting, of {len(rows):,}"
        counts += f", {left:,} left" if left else ""
        return Group(table, Text(counts, "dim"))
