"""The status of a fleet as one page that needs nothing else, and as a summary in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

from jinja2 import Environment, StrictUndefined

from ..markdown import cell

COLUMNS = ("Mirror", "State", "Attention", "Last run", "Refs", "Behind", "Credential")
_MAX_LISTED = 100


@dataclass(frozen=True)
class Cell:
    """A cell's text, and what it is sorted by."""

    text: str
    sort: str


@dataclass(frozen=True)
class Line:
    """One mirror's line."""

    kind: str
    """``good``, ``bad`` or ``unknown``."""
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
        f"{counts['healthy']:,} healthy, {counts['attention']:,} need attention, {counts['unknown']:,} could not be "
        f"read, of {len(lines):,}.",
        "",
    ]
    notable = [line for line in _worst_first(lines) if line.kind != "good"]
    if notable:
        text += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        text += [f"| {' | '.join(cell(one.text) for one in line.cells)} |" for line in notable[:_MAX_LISTED]]
        text += [f"\nand {len(notable) - _MAX_LISTED:,} more"] if len(notable) > _MAX_LISTED else []
    return "\n".join([*text, ""]) + "\n"


def _counts(lines: Sequence[Line]) -> dict[str, int]:
    kinds = {"attention": "bad", "healthy": "good", "unknown": "unknown"}
    return {name: sum(line.kind == kind for line in lines) for name, kind in kinds.items()}


def _worst_first(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: ("bad", "unknown", "good").index(line.kind))
