"""``codecommit-mirror pipeline``."""

from __future__ import annotations

from pathlib import Path

import click

from ..aws.stack import replica_outputs, session
from ..azure import connection, held_credential
from ..azure import pipeline as azure_pipeline
from ..config.mirror import Mirror
from ..lifecycle import up as journey
from .options import confirmation, json_option, mirror_argument, operator_of, pull_request_option, yes_option
from .output_file import write
from .table import print_json, print_table

_EXIT_STATUS = {"succeeded": 0, "partiallySucceeded": 3}


@click.group()
def pipeline() -> None:
    """Render, connect, run and disconnect a mirror's Azure pipeline."""


@pipeline.command()
@mirror_argument
@click.option("--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]")
def render(mirror: Mirror, output: Path | None) -> None:
    """Print the pipeline's YAML, with the mirror program inside; it holds no secret."""
    write(azure_pipeline.render(mirror), output, azure_pipeline.SIGNATURE)


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


@pipeline.command()
@mirror_argument
@click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing.")
@pull_request_option
def connect(mirror: Mirror, dry_run: bool, pull_request: bool) -> None:
    """Create or update the pipeline, its YAML and its variables.

    Needs the deployed stack and AZURE_DEVOPS_EXT_PAT with the scopes Code (read & write) and Build (read & execute).
    With source_auth: pat, AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD are asked for, unless they are set in the
    environment or in the pipeline. A pipeline without a Git credential of the replica gets a new one.
    """
    operator = operator_of(mirror)
    outputs = replica_outputs(operator.aws, mirror)
    journey.connect(operator, outputs.replica_url, _tell, pull_request=pull_request, dry_run=dry_run)
    if not dry_run:
        journey.ensure_credential(operator, _tell)
        click.echo(f"{mirror.name} is connected. Run it: codecommit-mirror pipeline run {mirror.name}")


@pipeline.command()
@mirror_argument
@click.option("--branch", help="The branch whose YAML is run.  [default: the one that has it]")
@click.option("--timeout", default=150.0, show_default=True, metavar="MINUTES", help="How long to wait for the end.")
def run(mirror: Mirror, branch: str | None, timeout: float) -> None:
    """Run the pipeline now, follow it, and exit with its result.

    Exit status: 0 succeeded, 3 succeeded with issues, 1 anything else.
    """
    finished = journey.run(operator_of(mirror), _tell, branch=branch, timeout_minutes=timeout)
    click.echo(f"Run {finished.build.id} {finished.build.result}.")
    click.get_current_context().exit(_EXIT_STATUS.get(str(finished.build.result), 1))


@pipeline.command()
@mirror_argument
@pull_request_option
@yes_option
def disconnect(mirror: Mirror, pull_request: bool, yes: bool) -> None:
    """Delete the pipeline, and the YAML that 'connect' wrote; nothing else.

    Its runs go with it. One that is gone already is fine. Nothing in AWS is touched: the Git credential that the
    pipeline held is named, with the command that revokes it.
    """
    operator = operator_of(mirror)
    at_home, there = journey.look(operator)
    if there.definition:
        confirmation(yes)(f"Delete the pipeline {there.definition.name!r}, its runs and its variables?")
    connection.disconnect(at_home, operator.azure, there, pull_request=pull_request, say=_tell)
    held = held_credential.of_variables(there.definition.variables).id if there.definition else None
    if held:
        command = f"codecommit-mirror credentials revoke {mirror.name} {held}"
        _tell(f"{held}, which the pipeline held, may still be in IAM: {command}")


def _tell(line: str) -> None:
    click.echo(line, err=True)
