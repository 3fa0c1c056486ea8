"""``codecommit-mirror sync`` and ``codecommit-mirror verify``."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from pipeline_templates import mirror_sync

from .. import engine
from ..aws.stack import replica_outputs, session
from ..config.mirror import Mirror
from ..lifecycle.verification import Comparison, compare, engine_failures
from .options import json_option, mirror_argument, operator_of
from .table import print_json, print_table


def credentials_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option that names the CSV file of ``credentials issue``."""
    return click.option(
        "--credentials",
        type=click.Path(path_type=Path),
        help="The CSV file of 'credentials issue'.  [default: AWS_GIT_USERNAME and AWS_GIT_PASSWORD]",
    )(command)


@click.command()
@mirror_argument
@credentials_option
@json_option
def sync(mirror: Mirror, credentials: Path | None, as_json: bool) -> None:
    """Mirror once, from here: what a run of the pipeline does.

    Credentials come from the environment, by the pipeline variables' names.
    """
    with engine_failures(), tempfile.TemporaryDirectory(prefix="mirror-") as folder:
        settings = _settings(mirror, credentials)
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            outcome = mirror_sync.mirror(settings, folder)
    click.echo(mirror_sync.as_json(outcome) if as_json else "\n".join(mirror_sync.summary(outcome)))
    sys.exit(1 if outcome.broken else 0)


@click.command()
@mirror_argument
@credentials_option
@json_option
def verify(mirror: Mirror, credentials: Path | None, as_json: bool) -> None:
    """Compare source and replica ref by ref; exit 0 only when they are equal.

    Reads both sides with your own tokens: AWS credentials and AZURE_DEVOPS_EXT_PAT. With --credentials, or with
    AWS_GIT_PASSWORD in the environment, it reads as the pipeline does.
    """
    if credentials or os.environ.get("AWS_GIT_PASSWORD"):
        with engine_failures():
            found = Comparison(*mirror_sync.compare(_settings(mirror, credentials)))
    else:
        operator = operator_of(mirror)
        url = replica_outputs(operator.aws, mirror).replica_url
        found = compare(mirror, url, operator.aws, operator.token)
    source, replica, different = found.source, found.replica, found.different
    if as_json:
        refs = {name: {"source": source.get(name), "replica": replica.get(name)} for name in different}
        print_json({"equal": not different, "refs": len(source), "carried": found.carried, "different": refs})
    elif different:
        rows = [(mirror_sync.shown(n), source.get(n, "-"), replica.get(n, "-")) for n in different]
        print_table(("REF", "SOURCE", "REPLICA"), rows)
        click.echo(f"{len(different):,} of {len({*source, *replica}):,} refs differ.")
    else:
        click.echo(f"{len(source):,} refs are equal.")
    if found.carried and not as_json:
        click.echo(mirror_sync.carried_note(found.carried))
    sys.exit(1 if different else 0)


def _settings(mirror: Mirror, credentials: Path | None) -> mirror_sync.Settings:
    return engine.settings(mirror, replica_outputs(session(mirror), mirror).replica_url, os.environ, credentials)
