"""The progress of one mirror or of many: live on a terminal, plain lines elsewhere.

One mirror is shown in detail, as a checklist of its steps. Of many, the terminal shows a table of those that are being
worked on; one that has ended becomes a line above it, so that the table fits on the screen for 500 mirrors too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from .clean import clean
from .screen import Screen

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Item = TypeVar("Item")
Result = Literal["succeeded", "failed", "left", "needs a person", "differs"]
"""``left``: skipped, since ``--minutes`` ran out; ``needs a person``: what can be done without one is done."""


class Confirm(Protocol):
    """Asks a person; raises MirrorError if the answer is no, or if there is no one to ask."""

    def __call__(self, question: str, typed: str | None = None) -> None:
        """Ask a question, which is answered with yes or by typing a text."""
        ...


_OTHER_LINES = 3
"""How much of the screen the table leaves free."""
_MAX_LIVE_DETAILS = 8
"""How many lines a step shows while it is running; all of them stay on the screen when it has ended."""
_DETAIL_INDENT = 4
_LABELS = {"failed": "FAILED: ", "left": "left: ", "needs a person": "needs a person: ", "differs": "differs: "}
_MARKS = {
    "failed": ("✘", "red"),
    "left": ("…", "yellow"),
    "needs a person": ("!", "yellow"),
    "differs": ("≠", "yellow"),
}


class Row:
    """One mirror's steps and result.

    Args:
        board: the board that it is on.
        name: the mirror's name.
    """

    def __init__(self, board: Board, name: str) -> None:
        self._board = board
        self.name = name
        self.title = ""
        """The current step, or the latest one."""
        self.details: list[str] = []
        """What was reported in the current step."""
        self.done: list[tuple[str, float]] = []
        """The steps that succeeded, with their times in seconds."""
        self.message = ""
        """How the work ended."""
        self.result: Result | None = None
        """None until the work has ended."""
        self.is_unchanged = False
        """Whether nothing was to be done."""
        self.seconds = 0.0
        """How long its steps took."""
        self._began: float | None = None

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Do one step; ``say`` adds lines to its details."""
        self.begin(title)
        try:
            yield
        except BaseException:
            self._end_step(failed=True)
            raise
        self._end_step()

    def begin(self, title: str) -> None:
        """Begin a step, which lasts until ``pause``, ``succeed`` or ``fail``."""
        is_new = title != self.title
        self.title, self.details, self._began = title, [], time.monotonic()
        if is_new:
            self._board.show_step(self)

    def say(self, line: str) -> None:
        """Add a line to the current step's details."""
        for part in clean(line).splitlines():
            self.details.append(part)
            self._board.show_detail(self, part)

    def pause(self) -> None:
        """End a step; the mirror waits for its next one."""
        if self._began is not None:
            self._end_step()

    def succeed(self, message: str, *, unchanged: bool = False) -> None:
        """End the work with its result.

        Args:
            message: the result.
            unchanged: whether nothing was to be done.
        """
        self.is_unchanged = unchanged
        self._end(message, "succeeded")

    def fail(self, message: str) -> None:
        """End the work with the reason why it failed."""
        self._end(message, "failed")

    def leave(self, message: str) -> None:
        """End the work for now, because there is no time for it."""
        self._end(message, "left")

    def hand_over(self, message: str) -> None:
        """End the work with what a person has to do."""
        self._end(message, "needs a person")

    def differ(self, message: str) -> None:
        """End the work with how the two sides differ."""
        self._end(message, "differs")

    @property
    def failed(self) -> bool:
        """Whether the work has failed."""
        return self.result == "failed"

    @property
    def elapsed(self) -> float:
        """How long the current step has taken, in seconds; zero between steps."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    @property
    def is_working(self) -> bool:
        """Whether a step is being done."""
        return self._began is not None and self.result is None

    @property
    def short_message(self) -> str:
        """The message without the mirror's name in front, where the name is shown beside it."""
        return self.message.removeprefix(f"{self.name} ")

    def _end_step(self, *, failed: bool = False) -> None:
        elapsed = self.elapsed
        self.seconds += elapsed
        self._began = None
        if not failed:
            self.done.append((self.title, elapsed))
        self._board.show_end_of_step(self, elapsed, failed=failed)

    def _end(self, message: str, result: Result) -> None:
        self.pause()
        self.message, self.result = clean(message), result
        self._board.show_end(self)


class Board:
    """Shows the work on mirrors; a context manager.

    Args:
        names: the mirrors' names.
        titles: the steps, in order, if they are known beforehand.
        console: where to print; standard error by default, which leaves standard output to the result.
        live: whether a part of a terminal changes in place.
    """

    def __init__(
        self, names: Iterable[str], titles: Sequence[str] = (), console: Console | None = None, *, live: bool = True
    ) -> None:
        self._began = time.monotonic()
        self.rows = {name: Row(self, name) for name in names}
        self._titles = list(titles)
        self._in_detail = len(self.rows) == 1
        self._screen = Screen(self._render, console, live=live, refresh_per_second=4)
        self.paused = self._screen.paused
        """Leaves the terminal alone while a person is asked something."""

    def __enter__(self) -> Board:
        self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.stop()
        for row in self.rows.values():
            done = [title for title, _ in row.done]
            remaining = [title for title in self._titles if title not in (*done, row.title)]
            if self._in_detail and (error or row.failed) and done and remaining:
                self._screen.print(f"not done: {', '.join(remaining)}")

    def remaining(self, by_mirror: Mapping[str, Item]) -> dict[str, Item]:
        """Return what belongs to mirrors whose work has not ended."""
        return {name: item for name, item in by_mirror.items() if self.rows[name].result is None}

    def say(self, line: str) -> None:
        """Print a line that is about all mirrors."""
        self._screen.print(f"[{self.seconds():6.1f} s] {clean(line)}")

    def seconds(self) -> float:
        """Return the seconds since the board was made."""
        return time.monotonic() - self._began

    def show_step(self, row: Row) -> None:
        """Show that a row has begun a step."""
        if not self._screen.is_live:
            self.say(row.title if self._in_detail else f"{row.name}: {row.title}")

    def show_detail(self, row: Row, line: str) -> None:
        """Show a line below a row's step, if it is the only row; of many rows, the live table shows their latest."""
        if self._in_detail and not (self._screen.is_live and row.is_working):
            self._print_detail(line)

    def show_end_of_step(self, row: Row, seconds: float, *, failed: bool) -> None:
        """Move a step with its details out of the live part of the screen, where it stays."""
        if not (self._in_detail and self._screen.is_live):
            return
        from rich.text import Text

        mark = ("✘", "red") if failed else ("✔", "green")
        line = Text.assemble(mark, " ", row.title, "  ", (f"{seconds:.1f} s", "dim"))
        self._screen.console.print(line, *(_indented(detail) for detail in row.details), sep="\n")

    def show_end(self, row: Row) -> None:
        """Show how the work on a row ended; the only row's result is printed by the command."""
        # What was left before it began is only counted.
        if self._in_detail or not (row.title or row.result != "left"):
            return
        from rich.text import Text

        with self._screen.lock:
            if not self._screen.is_live:
                self.say(f"{row.name}: {_LABELS.get(str(row.result), '')}{row.short_message}")
            else:
                mark = _MARKS.get(str(row.result), ("✔", "green"))
                seconds = (f"{row.seconds:.0f} s", "dim")
                line = Text.assemble(mark, f" {row.name}  {row.short_message}  ", seconds)
                self._screen.console.print(line, soft_wrap=True)
            if row.failed:
                for detail in row.details:
                    self._print_detail(detail)

    def _print_detail(self, line: str) -> None:
        self._screen.print(f"           {line}")

    def _render(self) -> RenderableType:
        return self._render_steps(*self.rows.values()) if self._in_detail else self._render_table()

    def _render_steps(self, row: Row) -> RenderableType:
        """Return the current step with its latest details, and the steps that follow."""
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.text import Text

        done = {title for title, _ in row.done}
        parts: list[RenderableType] = []
        if row.is_working:
            parts.append(Spinner("dots", Text.assemble((row.title, "bold"), "  ", (f"{row.elapsed:.0f} s", "dim"))))
            latest = row.details[-_MAX_LIVE_DETAILS:]
            parts += [Text(" " * _DETAIL_INDENT + line, no_wrap=True, overflow="ellipsis") for line in latest]
        parts += [Text(f"· {title}", "dim") for title in self._titles if title not in done and title != row.title]
        return Group(*parts)

    def _render_table(self) -> RenderableType:
        """Return what is being worked on, and how many mirrors there are in each state."""
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
        return Group(table, Text(_counts(rows, len(working)), "dim"))


def _counts(rows: Sequence[Row], working: int) -> str:
    ended = {result: sum(row.result == result for row in rows) for result in ("succeeded", *_LABELS)}
    waiting = len(rows) - sum(ended.values()) - working
    counts = f"{ended['succeeded']:,} done, {ended['failed']:,} failed, {working:,} working, {waiting:,} waiting, "
    others = "".join(f", {ended[name]:,} {label}" for name, label in _OTHERS if ended[name])
    return f"{counts}of {len(rows):,}{others}"


_OTHERS = (("left", "left"), ("needs a person", "need a person"), ("differs", "differ"))


def _indented(line: str) -> RenderableType:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(line, overflow="fold"), (0, 0, 0, _DETAIL_INDENT), expand=False)
