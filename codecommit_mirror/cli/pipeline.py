"""``codecommit-mirror pipeline``."""

from __future__ import annotations

from pathlib import Path

import click

from .. import engine
from ..aws.session import session
from ..aws.stack import read_outputs
from ..azure import connection
from ..azure import pipeline as azure_pipeline
from ..azure.state import read_state
from ..azure.variables import held_credential, wanted_variables
from ..config.mirror import Mirror
from ..lifecycle import connect as connecting
from ..lifecycle.run import RUN_MINUTES
from ..lifecycle.run import run as run_pipeline
from .options import confirmation, context_of, json_option, mirror_argument, pull_request_option, yes_option
from .output import print_json, print_table, write_rendered

_EXIT_STATUS = {"succeeded": 0, "partiallySucceeded": 3}


@click.group()
def pipeline() -> None:
    """Render, connect, run and disconnect a mirror's Azure pipeline."""


@pipeline.command()
@mirror_argument
@click.option("--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]")
def render(mirror: Mirror, output: Path | None) -> None:
    """Print the pipeline's YAML, with the engine inside; it contains no secret."""
    write_rendered(azure_pipeline.render(mirror), output, azure_pipeline.SIGNATURE)


@pipeline.command()
@click.option("--role", is_flag=True, help="As pipelines with replica_auth: role carry it.")
def program(role: bool) -> None:
    """Print the engine as the pipeline carries it, for auditors: one readable program."""
    click.echo(engine.program(role=role), nl=False)


@pipeline.command()
@mirror_argument
@json_option
def variables(mirror: Mirror, as_json: bool) -> None:
    """List the pipeline's variables, with plain values and the origins of secret ones."""
    outputs = read_outputs(session(mirror), mirror)
    wanted = wanted_variables(mirror, outputs.replica_url, outputs.push_role_arn)
    if as_json:
        names = ("name", "value", "secret", "source")
        print_json({"variables": [{name: getattr(v, name) for name in names} for v in wanted]})
        return
    rows = [(v.name, "yes" if v.secret else "no", v.value or "(not shown)", v.source) for v in wanted]
    print_table(("NAME", "SECRET", "VALUE", "FROM"), rows)


@pipeline.command()
@mirror_argument
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@pull_request_option
def connect(mirror: Mirror, dry_run: bool, pull_request: bool) -> None:
    """Create or update the pipeline, its YAML and its variables.

    Needs the deployed stack and AZURE_DEVOPS_EXT_PAT with the scopes Code (read & write) and Build (read & execute).
    With source_auth: pat, AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD are asked for, unless they are set in the
    environment or in the pipeline. A pipeline without a Git credential of the replica gets a new one.
    """
    context = context_of(mirror)
    outputs = read_outputs(context.aws, mirror)
    connecting.connect(
        context,
        outputs.replica_url,
        _say,
        role_arn=outputs.push_role_arn,
        pull_request=pull_request,
        dry_run=dry_run,
    )
    if not dry_run:
        connecting.ensure_pipeline_credential(context, _say)
        click.echo(f"{mirror.name} is connected. Run it: codecommit-mirror pipeline run {mirror.name}")


@pipeline.command()
@mirror_argument
@click.option("--branch", help="The branch whose YAML is run.  [default: the one that has the file]")
@click.option(
    "--timeout", default=RUN_MINUTES, show_default=True, metavar="MINUTES", help="How long to wait for it to end."
)
def run(mirror: Mirror, branch: str | None, timeout: float) -> None:
    """Run the pipeline now, follow it, and exit with its result.

    Exit status: 0 succeeded, 3 succeeded with issues, 1 anything else.
    """
    result = run_pipeline(context_of(mirror), _say, branch=branch, timeout_minutes=timeout)
    click.echo(f"Run {result.build.id} ended as {result.build.result}.")
    click.get_current_context().exit(_EXIT_STATUS.get(str(result.build.result), 1))


@pipeline.command()
@mirror_argument
@pull_request_option
@yes_option
def disconnect(mirror: Mirror, pull_request: bool, yes: bool) -> None:
    """Delete the pipeline, and the YAML that 'connect' wrote; nothing else.

    Its runs are deleted with it. A pipeline that is already gone is fine. Nothing in AWS changes; the command names
    the Git credential that the pipeline held, and how to revoke it.
    """
    context = context_of(mirror)
    resolved, state = read_state(mirror, context.azure)
    if state.definition:
        confirmation(yes)(f"Delete the pipeline {state.definition.name!r}, its runs and its variables?")
    connection.disconnect(resolved, context.azure, state, pull_request=pull_request, say=_say)
    held = held_credential(state.variables).id
    if held:
        command = f"codecommit-mirror credentials revoke {mirror.name} {held}"
        _say(f"{held}, which the pipeline held, may still exist in IAM; revoke it with: {command}")


def _say(line: str) -> None:
    click.echo(line, err=True)
