"""The progress of one mirror, step by step: a live checklist on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from .screen import Screen
from .steps import Say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_MAX_LIVE_DETAILS = 8
"""How many lines a step shows while it is running; all of them stay on the screen when it has ended."""
_DETAIL_INDENT = 4


class Checklist:
    """Shows steps with their details and elapsed times; a context manager.

    Args:
        titles: the steps, in order; empty if they are not known beforehand, which prints plain lines.
        console: where to print; standard error by default, which leaves standard output to the result.
    """

    def __init__(self, titles: Sequence[str], console: Console | None = None) -> None:
        self._titles = list(titles)
        self.done: list[tuple[str, float]] = []
        """The steps that have ended, with their times in seconds."""
        self._began = self._step_began = time.monotonic()
        self._current: str | None = None
        self._ended: set[str] = set()
        self._details: list[str] = []
        self._screen = Screen(self._render, console, live=bool(titles))
        self.paused = self._screen.paused
        """Leaves the terminal alone while a person is asked something."""

    def __enter__(self) -> Checklist:
        self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.stop()
        remaining = [title for title in self._titles if title not in self._ended]
        if error and self._ended and remaining:
            self._screen.print(f"not done: {', '.join(remaining)}")

    @contextmanager
    def step(self, title: str) -> Iterator[Say]:
        """Do one step; yield a function that prints a line below it."""
        self._current, self._details, self._step_began = title, [], time.monotonic()
        if not self._screen.is_live:
            self._screen.print(f"[{self._step_began - self._began:6.1f} s] {title}")
        try:
            yield self.say
        except BaseException:
            self._end_step("✘", "red")
            raise
        self.done.append((title, time.monotonic() - self._step_began))
        self._end_step("✔", "green")

    def seconds(self) -> float:
        """Return the seconds since the checklist was made."""
        return time.monotonic() - self._began

    def say(self, line: str) -> None:
        """Print a line below the current step."""
        if self._screen.is_live and self._current is not None:
            self._details.append(line)
        else:
            self._screen.print(f"           {line}")

    def _end_step(self, mark: str, style: str) -> None:
        """Move a step with its details out of the live part of the screen, where it stays."""
        from rich.text import Text

        if self._screen.is_live and self._current is not None:
            elapsed = time.monotonic() - self._step_began
            self._screen.console.print(
                Text.assemble((mark, style), " ", self._current, "  ", (f"{elapsed:.1f} s", "dim")),
                *(self._detail(line) for line in self._details),
                sep="\n",
            )
        self._ended.add(str(self._current))
        self._current = None

    @staticmethod
    def _detail(line: str) -> RenderableType:
        from rich.padding import Padding
        from rich.text import Text

        return Padding(Text(line, overflow="fold"), (0, 0, 0, _DETAIL_INDENT), expand=False)

    def _render(self) -> RenderableType:
        """Return the live part: the current step with its latest details, and the steps that follow."""
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.text import Text

        rows: list[RenderableType] = []
        for title in self._titles:
            if title == self._current:
                elapsed = time.monotonic() - self._step_began
                rows.append(Spinner("dots", Text.assemble((title, "bold"), "  ", (f"{elapsed:.0f} s", "dim"))))
                latest = self._details[-_MAX_LIVE_DETAILS:]
                rows += [Text(" " * _DETAIL_INDENT + line, no_wrap=True, overflow="ellipsis") for line in latest]
            elif title not in self._ended:
                rows.append(Text(f"· {title}", "dim"))
        return Group(*rows)
