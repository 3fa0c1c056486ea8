"""Where progress is shown: a part that changes in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


class Screen:
    """A console, and the part of it that changes; threads can share it.

    Args:
        render: returns what the changing part shows now.
        console: where to print; standard error by default, which leaves standard output to the result.
        live: whether there is a changing part on a terminal.
        refresh_per_second: how often it changes.
    """

    def __init__(
        self,
        render: Callable[[], RenderableType],
        console: Console | None = None,
        *,
        live: bool = True,
        refresh_per_second: float = 8,
    ) -> None:
        # Rich takes longer to import than most commands need to run.
        from rich.console import Console

        self.console = console or Console(stderr=True, highlight=False)
        self.is_live = live and self.console.is_terminal
        """Whether it is a terminal with a changing part."""
        self.lock = threading.RLock()
        """Held by a thread that prints several lines, or asks a person."""
        self._render, self._refresh_per_second = render, refresh_per_second
        self._live: Live | None = None

    def start(self) -> None:
        """Begin to show the changing part."""
        from rich.live import Live

        if self.is_live:
            self._live = Live(
                get_renderable=self._render,
                console=self.console,
                refresh_per_second=self._refresh_per_second,
                transient=True,
            )
            self._live.start()

    def stop(self) -> None:
        """Remove the changing part."""
        if self._live:
            self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal alone while a person is asked something; other threads that print or ask wait."""
        with self.lock:
            self.stop()
            try:
                yield
            finally:
                self.start()

    def print(self, line: str) -> None:
        """Print a line, which stays."""
        from rich.text import Text

        # As text, because a branch may be called [bold]; unwrapped, because scripts and logs read these lines.
        with self.lock:
            self.console.print(Text(line), soft_wrap=True)
