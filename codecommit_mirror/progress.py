"""A list of steps that is ticked off: live on a terminal, one plain line after the other elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

Say = Callable[[str], None]


class Checklist:
    """Tells steps with elapsed times; a context manager.

    Args:
        titles: the steps, in their order; empty when they are not known beforehand, which tells them plainly.
        console: where to; standard error by default, which leaves standard output to the result.
    """

    def __init__(self, titles: Sequence[str], console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._titles = list(titles)
        self._live_wanted = bool(titles) and self._console.is_terminal
        self.done: list[tuple[str, float]] = []
        """The steps that are done, with their times in seconds."""
        self._began = self._step_began = time.monotonic()
        self._current: str | None = None
        self._spinner = Spinner("dots")
        self._live = self._new_live()

    def __enter__(self) -> Checklist:
        if self._live_wanted:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live_wanted:
            self._live.stop()

    @contextmanager
    def step(self, title: str) -> Iterator[Say]:
        """Do one step; yields what prints a line below it."""
        self._current, self._step_began = title, time.monotonic()
        if not self._live_wanted:
            self._print(f"[{self._step_began - self._began:6.1f} s] {title}")
        try:
            yield self.say
            self.done.append((title, time.monotonic() - self._step_began))
        finally:
            self._current = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal alone, for as long as a person is asked something."""
        if self._live_wanted:
            # Erased, not left behind: the list is drawn again below the answer.
            self._live.transient = True
            self._live.stop()
        try:
            yield
        finally:
            if self._live_wanted:
                self._live = self._new_live()
                self._live.start()

    def seconds(self) -> float:
        """Return the time since the list was made."""
        return time.monotonic() - self._began

    def say(self, line: str) -> None:
        """Print a line below the step."""
        self._print(f"           {line}")

    def _new_live(self) -> Live:
        return Live(get_renderable=self._render, console=self._console, refresh_per_second=8)

    def _print(self, line: str) -> None:
        # As text: a branch may be called [bold].
        self._console.print(Text(line))

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        seconds = dict(self.done)
        for title in self._titles:
            if title in seconds:
                table.add_row(Text("✔", "green"), title, Text(f"{seconds[title]:.1f} s", "dim"))
            elif title == self._current:
                elapsed = time.monotonic() - self._step_began
                table.add_row(self._spinner, Text(title, "bold"), Text(f"{elapsed:.0f} s", "dim"))
            else:
                table.add_row(Text("·", "dim"), Text(title, "dim"), "")
        return table
