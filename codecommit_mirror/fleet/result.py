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
            "result": "failed" if row.failed else "succeeded",
            "step": row.title,
            "seconds": round(row.seconds, 1),
            "message": row.message,
        }
        for row in rows
    ]


def sentence(rows: Iterable[Row]) -> str:
    """Return how many mirrors succeeded, and the names of those that failed."""
    ended = list(rows)
    failed = [row.name for row in ended if row.failed]
    done = f"{len(ended) - len(failed):,} of {len(ended):,} mirrors succeeded"
    return f"{done}; failed: {', '.join(failed)}. Running this again does only what is left." if failed else f"{done}."


def summary(title: str, rows: Iterable[Row]) -> str:
    """Return a summary in Markdown, failures first."""
    ended = sorted(rows, key=lambda row: not row.failed)
    lines = [f"## {title}", "", sentence(ended), "", "| Mirror | Result | Step | Time | |", "|---|---|---|---|---|"]
    lines += [
        f"| {cell(row.name)} | {'**failed**' if row.failed else 'succeeded'} | {row.title} | {row.seconds:.0f} s "
        f"| {cell(row.message)} |"
        for row in ended
    ]
    return "\n".join(lines) + "\n\n"


def cell(text: str) -> str:
    """Return text that cannot leave its cell of a table in Markdown, nor become markup."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
