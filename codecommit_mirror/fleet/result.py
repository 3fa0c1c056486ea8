"""How a fleet's journeys ended: for scripts, and for the page of a run."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from ..progress import Row


def as_objects(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Return what ``--json`` prints about each mirror."""
    return [
        {
            "mirror": row.name,
            "result": row.result,
            "step": row.title,
            "seconds": round(row.seconds, 1),
            "message": row.message,
        }
        for row in rows
    ]


def sentence(rows: Iterable[Row]) -> str:
    """Return how many mirrors succeeded, and the names of the others."""
    ended = list(rows)
    done = f"{sum(row.result == 'succeeded' for row in ended):,} of {len(ended):,} mirrors succeeded"
    for result, label in (("failed", "failed"), ("left", "left for lack of time")):
        if names := [row.name for row in ended if row.result == result]:
            done += f"; {label}: {', '.join(names)}"
    return f"{done}."


def summary(title: str, rows: Iterable[Row]) -> str:
    """Return a summary in Markdown, failures first."""
    ended = list(rows)
    # What was left before it began is only named in the sentence.
    shown = sorted((row for row in ended if row.title or row.result != "left"), key=lambda row: not row.failed)
    lines = [f"## {title}", "", sentence(ended)]
    lines += ["", "| Mirror | Result | Step | Time | |", "|---|---|---|---|---|"] if shown else []
    lines += [
        f"| {cell(row.name)} | {'**failed**' if row.failed else row.result} | {row.title} | {row.seconds:.0f} s "
        f"| {cell(row.message)} |"
        for row in shown
    ]
    return "\n".join(lines) + "\n\n"


def cell(text: str) -> str:
    """Return text that cannot leave its cell of a table in Markdown, nor become markup."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
