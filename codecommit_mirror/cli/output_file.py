"""A rendered file, on standard output or on the disk."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import MirrorError


def write(text: str, output: Path | None, signature: str) -> None:
    """Print a text, or write it to a file that is not there yet, or that has the signature of an earlier one.

    Raises:
        MirrorError: the file is somebody else's, or cannot be written.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        if output.exists() and signature not in output.read_text(encoding="utf-8", errors="replace"):
            raise MirrorError(f"{output} was not written by this command and is not overwritten; name another file.")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MirrorError(f"{output} cannot be written ({error.strerror}); name another with --output.") from None
    click.echo(f"Wrote {output}.", err=True)
