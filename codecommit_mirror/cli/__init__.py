"""The command line: ``codecommit-mirror``."""

from __future__ import annotations

import sys

import click

from ..errors import MirrorError
from .ci import ci
from .credentials import credentials
from .demo import demo
from .init import init
from .lifecycle import down, rotate, up
from .pipeline import pipeline
from .status import status
from .sync import sync, verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="codecommit-mirror")
def cli() -> None:
    """Mirror Azure Repos repositories to AWS CodeCommit.

    'up NAME' does everything, and 'down NAME' takes it back; the other commands do parts of it.
    """


for command in (init, up, status, rotate, down, credentials, pipeline, sync, verify, ci, demo):
    cli.add_command(command)


def main() -> None:
    """Run a command; a user's mistake ends in one sentence and exit status 1."""
    try:
        sys.exit(cli.main(prog_name="codecommit-mirror", standalone_mode=False))
    except MirrorError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped; running it again is safe, and goes on from there.", err=True)
        sys.exit(130)
