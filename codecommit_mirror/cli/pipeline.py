"""``codecommit-mirror pipeline``."""

from __future__ import annotations

from pathlib import Path

import click

from ..aws.session import session
from ..aws.stack import read_outputs
from ..azure import pipeline as azure_pipeline
from ..azure.rest.objects import WITH_ISSUES
from ..azure.state import read_state
from ..azure.variables import wanted_variables
from ..config.mirror import Mirror
from ..operations.run import RUN_MINUTES
from ..operations.run import run as run_pipeline
from ..rendering import engine_program
from .options import context_of, json_option, mirror_argument
from .output import echo, print_json, print_table, write_rendered

_EXIT_STATUS = {"succeeded": 0, WITH_ISSUES: 3}


@click.group()
def pipeline() -> None:
    """Render and run a mirror's Azure pipeline."""


@pipeline.command()
@mirror_argument
@click.option("--engine", is_flag=True, help="Print the template with the engine that mirrors share.")
@click.option("--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]")
def render(mirror: Mirror, engine: bool, output: Path | None) -> None:
    """Print the pipeline's YAML, which contains no secret.

    It has the engine inside, or extends the template with the one that the mirrors of the file share.
    """
    text = azure_pipeline.render_engine() if engine else azure_pipeline.render(mirror)
    write_rendered(text, output, azure_pipeline.SIGNATURE)


@pipeline.command()
@click.option("--role", is_flag=True, help="As pipelines with replica_auth: role carry it.")
def program(role: bool) -> None:
    """Print the engine as the pipeline carries it, for auditors: one readable program."""
    click.echo(engine_program.program(role=role), nl=False)


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
@click.option("--branch", help="The branch whose YAML is run.  [default: the one that has the file]")
@click.option(
    "--timeout", default=RUN_MINUTES, show_default=True, metavar="MINUTES", help="How long to wait for it to end."
)
@click.option("--allow-deletions", is_flag=True, help="Let this run delete most of the replica's refs.")
@click.option(
    "--replace-history",
    metavar="MARK",
    help="Let this run replace a history that is not the source's, whose mark an earlier run has printed.",
)
def run(
    mirror: Mirror, branch: str | None, timeout: float, *, allow_deletions: bool, replace_history: str | None
) -> None:
    """Run the pipeline now, follow it, and exit with its result.

    Whoever may queue a run may allow it deletions; their tips stay in the archive.

    Exit status: 0 succeeded, 3 succeeded with issues, 1 anything else.
    """
    context = context_of(mirror)
    _, state = read_state(mirror, context.azure)
    parameters = azure_pipeline.run_parameters(allow_deletions=allow_deletions, replace_history=replace_history)
    result = run_pipeline(context, state, branch=branch, parameters=parameters, timeout_minutes=timeout)
    echo(f"Run {result.build.id} ended as {result.build.result}.")
    click.get_current_context().exit(_EXIT_STATUS.get(str(result.build.result), 1))
