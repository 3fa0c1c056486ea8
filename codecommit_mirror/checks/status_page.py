"""The status of a fleet as one page that needs nothing else, and as a summary in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

from jinja2 import Environment, StrictUndefined

from ..markdown import cell
from .judging import WORST_FIRST, Verdict

COLUMNS = ("Mirror", "State", "Attention", "Latest run", "Refs", "Behind", "Credential")
_MAX_LISTED = 100


@dataclass(frozen=True)
class Cell:
    """A cell's text, what it is sorted by, and where it leads."""

    text: str
    sort: str
    link: str | None = None
    """Where to look at it."""


@dataclass(frozen=True)
class Line:
    """One mirror's line."""

    kind: Verdict
    """The mirror's verdict."""
    cells: tuple[Cell, ...]
    """One for each of ``COLUMNS``."""


def page(lines: Sequence[Line], now: datetime) -> str:
    """Return the page: sortable, filterable, readable on a phone, with no script or style from elsewhere."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = (resources.files("codecommit_mirror.checks") / "status_page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        mirrors=_worst_first(lines), columns=COLUMNS, counts=_counts(lines), time=f"{now:%Y-%m-%d %H:%M} UTC"
    )


def summary(lines: Sequence[Line]) -> str:
    """Return a summary in Markdown: how many mirrors are healthy, and the others."""
    counts = _counts(lines)
    text = [
        "## Status of the mirrors",
        "",
        f"{counts['ok']:,} ok, {counts['warning']:,} with warnings, {counts['failed']:,} failed, of {len(lines):,}.",
        "",
    ]
    notable = [line for line in _worst_first(lines) if line.kind in ("failed", "warning")]
    if notable:
        text += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        text += [f"| {' | '.join(cell(entry.text) for entry in line.cells)} |" for line in notable[:_MAX_LISTED]]
        text += [f"\nand {len(notable) - _MAX_LISTED:,} more"] if len(notable) > _MAX_LISTED else []
    return "\n".join([*text, ""]) + "\n"


def _counts(lines: Sequence[Line]) -> dict[Verdict, int]:
    return {kind: sum(line.kind == kind for line in lines) for kind in WORST_FIRST}


def _worst_first(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: WORST_FIRST.index(line.kind))
