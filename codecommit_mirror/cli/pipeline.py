"""``codecommit-mirror pipeline``."""

from __future__ import annotations

from pathlib import Path

import click

from .. import pipeline as azure_pipeline
from ..aws import replica_outputs, session
from ..config import Mirror
from ..errors import MirrorError
from .mirror_option import json_option, mirror_argument
from .table import print_json, print_table


@click.group()
def pipeline() -> None:
    """Render a mirror's Azure pipeline, and list the variables that it wants."""


@pipeline.command()
@mirror_argument
@click.option("--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]")
def render(mirror: Mirror, output: Path | None) -> None:
    """Print the pipeline's YAML, with the mirror program inside; it holds no secret."""
    text = azure_pipeline.render(mirror)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        if output.exists() and azure_pipeline.SIGNATURE not in output.read_text(encoding="utf-8", errors="replace"):
            raise MirrorError(f"{output} was not written by this command and is not overwritten; name another file.")
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MirrorError(f"{output} cannot be written ({error.strerror}); name another with --output.") from None
    click.echo(f"Wrote {output}.", err=True)


@pipeline.command()
@mirror_argument
@json_option
def variables(mirror: Mirror, as_json: bool) -> None:
    """List the pipeline's variables: plain ones with their values, secret ones with where they come from."""
    wanted = azure_pipeline.variables(mirror, replica_outputs(session(mirror), mirror).replica_url)
    if as_json:
        print_json([{"name": v.name, "value": v.value, "secret": v.secret, "source": v.source} for v in wanted])
        return
    rows = [(v.name, "yes" if v.secret else "no", v.value or "(not shown)", v.source) for v in wanted]
    print_table(("NAME", "SECRET", "VALUE", "FROM"), rows)
