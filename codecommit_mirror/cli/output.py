"""Results: tables and JSON on standard output, rendered files on the disk."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import MirrorError
from ..progress import Board, clean
from . import results

FAILED, DIFFERS = 1, 3
"""Exit statuses beside 0, in order, and 2, wrong usage: something failed; something differs or needs attention."""
JSON_FORMAT = 1
_COLUMNS = 80
_NO_BREAK = "\N{NO-BREAK SPACE}"


def echo(text: str, *, err: bool = False) -> None:
    """Print text that may come from a server, a file or another person."""
    click.echo(clean(text), err=err)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as its widest cell; nothing is cut, because ids and URLs are copied from them."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_paragraph(text: str, *, first: str = "", rest: str = "") -> None:
    """Print a paragraph: on a terminal wrapped at 80 columns, otherwise on one line, which other programs can search.

    Args:
        text: the paragraph.
        first: starts the first line.
        rest: starts the others.
    """
    lines = wrap(text, first=first, rest=rest) if sys.stdout.isatty() else [first + text]
    echo("\n".join(lines))


def wrap(text: str, *, first: str = "", rest: str = "") -> list[str]:
    """Return text in lines of at most 80 columns, except that links and quoted commands stay whole."""
    whole = re.sub("'[^']*'", lambda quoted: quoted[0].replace(" ", _NO_BREAK), text)
    lines = textwrap.wrap(
        whole, _COLUMNS, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object, with the number of its format: the same for every command's ``--json``.

    A key that is added leaves the number as it is; one that is taken out, or means something else, raises it.
    """
    # Inside a string of JSON this is the same character.
    click.echo(json.dumps({"format": JSON_FORMAT, **value}, indent=2).replace("##", "#\\u0023"))


def append_summary(path: Path | None, text: str) -> None:
    """Append Markdown to the file of ``--summary``, if it was given.

    Raises:
        MirrorError: it cannot be written.
    """
    if path is None:
        return
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise MirrorError(f"{path} cannot be written ({error.strerror}); name another with --summary.") from None


def report_mirrors(
    title: str,
    board: Board,
    summary: Path | None,
    as_json: bool,
    *,
    details: Mapping[str, Mapping[str, Any]] | None = None,
    also: Mapping[str, Any] | None = None,
    resumes: bool = False,
    may_leave: bool = False,
) -> None:
    """Print how the work on mirrors ended, and exit: 0 if all of them succeeded, 1 if one failed, 3 otherwise.

    Args:
        title: of the summary.
        board: the mirrors.
        summary: the file of ``--summary``, if it was given.
        as_json: whether to print JSON.
        details: what else the JSON says of a mirror, by its name.
        also: what else the JSON says.
        resumes: whether running the command again picks up where it stopped.
        may_leave: whether mirrors for which there was no time are as they should be.

    Raises:
        MirrorError: the only mirror failed.
    """
    rows = list(board.rows.values())
    failed = any(row.failed or (row.result == "left" and not may_leave) for row in rows)
    append_summary(summary, results.summary(title, rows))
    if as_json:
        objects = results.as_objects(rows)
        mirrors = [{**mirror, **(details or {}).get(str(mirror["mirror"]), {})} for mirror in objects]
        print_json({"mirrors": mirrors, **(also or {})})
    elif len(rows) == 1:
        if rows[0].failed:
            raise MirrorError(rows[0].message)
        echo(f"{rows[0].message} ({board.seconds():.0f} s)")
    else:
        again = " Run this again to pick up where it stopped." if failed and resumes else ""
        echo(f"{results.sentence(rows)}{again} ({board.seconds():.0f} s)")
    needs_attention = any(row.result in ("needs a person", "differs") for row in rows)
    click.get_current_context().exit(FAILED if failed else DIFFERS if needs_attention else 0)


def write_text(path: Path, text: str, option: str) -> None:
    """Write a file, over an earlier one.

    Raises:
        MirrorError: it cannot be written; it names the option that gave the path.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MirrorError(f"{path} cannot be written ({error.strerror}); name another with {option}.") from None


def write_rendered(text: str, output: Path | None, signature: str) -> None:
    """Print rendered text, or write it to a new file or over an earlier rendered one.

    Args:
        text: the text.
        output: the file; None for standard output.
        signature: the line that identifies a file of an earlier rendering.

    Raises:
        MirrorError: the file was not rendered by this command, or cannot be written.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        if output.exists() and signature not in output.read_text(encoding="utf-8", errors="replace"):
            raise MirrorError(
                f"{output} was not written by this command and will not be overwritten; name another file."
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MirrorError(f"{output} cannot be written ({error.strerror}); name another with --output.") from None
    click.echo(f"Wrote {output}.", err=True)
