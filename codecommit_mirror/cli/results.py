"""How the work on mirrors ended: for people, for scripts, and for the page of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..engine_api import sanitize
from ..markdown import cell
from ..progress import Row

_OTHER_RESULTS = (
    ("failed", "failed"),
    ("needs a person", "need a person"),
    ("differs", "differ"),
    ("left", "left for lack of time"),
)
_MAX_PLAN = 500_000
"""Characters; GitHub accepts a mebibyte for a step's summary."""


def as_objects(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Return what ``--json`` prints about each mirror."""
    return [
        {
            "mirror": row.name,
            "result": row.result,
            "step": row.title,
            "seconds": round(row.seconds, 1),
            "message": row.short_message,
        }
        for row in rows
    ]


def sentence(rows: Iterable[Row]) -> str:
    """Return how many mirrors succeeded, and the names of the others."""
    ended = list(rows)
    done = f"{sum(row.result == 'succeeded' for row in ended):,} of {len(ended):,} mirrors succeeded"
    for result, label in _OTHER_RESULTS:
        if names := [row.name for row in ended if row.result == result]:
            done += f"; {label}: {', '.join(names)}"
    return f"{done}."


def summary(title: str, rows: Iterable[Row]) -> str:
    """Return a summary in Markdown, failures first."""
    ended = list(rows)
    # What was left before it began, and what needed nothing, is only counted.
    begun = [row for row in ended if (row.title or row.result != "left") and not row.is_unchanged]
    shown = sorted(begun, key=lambda row: not row.failed)
    unchanged = sum(row.is_unchanged for row in ended)
    lines = [f"## {title}", "", f"{sentence(ended)}{f' {unchanged:,} had nothing to do.' if unchanged else ''}"]
    lines += ["", "| Mirror | Result | Step | Time | |", "|---|---|---|---|---|"] if shown else []
    lines += [
        f"| {cell(row.name)} | {'**failed**' if row.failed else row.result} | {row.title} | {row.seconds:.0f} s "
        f"| {cell(row.short_message)} |"
        for row in shown
    ]
    return "\n".join(lines) + "\n\n"


def markdown_plan(lines: Sequence[str], verdict: Sequence[str]) -> str:
    """Return a plan in Markdown; its text contains names that others chose, and cannot leave the fence."""
    text = "\n".join(lines)
    text = text if len(text) <= _MAX_PLAN else text[:_MAX_PLAN] + "\n... and more"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    fenced = [fence + "text", text, fence, ""] if text else []
    return "\n".join(["## Plan", "", *fenced, *(f"- {cell(sanitize(line))}" for line in verdict), "", ""])
