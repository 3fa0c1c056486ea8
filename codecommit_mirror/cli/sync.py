"""``codecommit-mirror sync`` and ``codecommit-mirror verify``."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from .. import engine_api
from ..actions import SYMBOLS, Action, Verb
from ..aws.session import session
from ..aws.stack import read_outputs
from ..azure.rest.objects import GOOD_RESULTS
from ..config.mirror import Mirror
from ..errors import MirrorError
from ..operations.batches import Policy, for_each_mirror
from ..operations.context import MirrorContext
from ..operations.run import Movement, wait_for_last_run
from ..operations.verification import Preview, compare, compare_with, differing_refs, pipeline_settings, preview
from ..progress import Board, Row, step
from .options import (
    JOB_MINUTES,
    context_of,
    contexts_of,
    json_option,
    mirror_argument,
    mirrors_argument,
    summary_option,
)
from .output import DIFFERS, FAILED, echo, print_json, print_table, report_mirrors


def credentials_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option that names the CSV file of ``credentials issue``."""
    return click.option(
        "--credentials",
        type=click.Path(path_type=Path),
        help="The CSV file that 'credentials issue' wrote.  [default: AWS_GIT_USERNAME and AWS_GIT_PASSWORD]",
    )(command)


@click.command()
@mirror_argument
@credentials_option
@click.option("--dry-run", is_flag=True, help="Show which refs would change, and change nothing.")
@json_option
def sync(mirror: Mirror, credentials: Path | None, dry_run: bool, as_json: bool) -> None:
    """Mirror once from this machine, as a run of the pipeline does.

    Credentials come from the environment, under the names of the pipeline's variables.
    """
    settings = _settings(mirror, credentials)
    if dry_run:
        _show_preview(preview(settings), as_json)
        return
    with (
        engine_api.failures_as_mirror_errors(),
        tempfile.TemporaryDirectory(prefix="mirror-") as folder,
        contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
    ):
        outcome = engine_api.mirror(settings, folder)
    if as_json:
        print_json({"result": outcome.result, **vars(outcome)})
    else:
        echo("\n".join(engine_api.summary(outcome)))
    sys.exit(FAILED if outcome.broken else DIFFERS if outcome.needs_attention else 0)


def _show_preview(preview: Preview, as_json: bool) -> None:
    """Print which refs a run would change."""
    actions = [_action(*command) for command in preview.commands]
    counts = Counter(action.verb for action in actions)
    if as_json:
        changes = [{"ref": c.ref, "from": c.old, "to": c.new} for c in preview.commands]
        print_json(
            {
                "changes": changes,
                "archived_at_most": preview.archived_at_most,
                "unmirrorable": preview.unmirrorable,
                "stop": preview.stop,
            }
        )
        return
    for action in actions:
        echo(engine_api.sanitize(str(action)))
    for ref, why in sorted(preview.unmirrorable.items()):
        echo(f"! ref {engine_api.sanitize(ref)}: {why}")
    if preview.stop:
        echo(f"A run would change nothing: {preview.stop}")
    counted = ", ".join(f"{counts[verb]:,} to {verb}" for verb in SYMBOLS if counts[verb])
    archived = engine_api.count(preview.archived_at_most, "tip")
    echo(f"{counted}; at most {archived} archived." if counted else "Nothing would change.")


def _action(ref: str, old: str | None, new: str | None) -> Action:
    verb: Verb = "delete" if new is None else "update" if old else "create"
    return Action(verb, f"ref {ref}", old, new)


@click.command()
@mirrors_argument
@credentials_option
@click.option("--wait", is_flag=True, help="Wait for the pipelines' latest runs first, which must have succeeded.")
@click.option(
    "--patience",
    default=15.0,
    show_default=True,
    metavar="MINUTES",
    help="With --wait: how long to wait with no run in progress.",
)
@click.option(
    "--minutes",
    default=JOB_MINUTES,
    show_default=True,
    metavar="MINUTES",
    help="With --wait: mirrors whose runs have not ended within this time are not compared.",
)
@summary_option
@json_option
def verify(
    mirrors: tuple[Mirror, ...],
    credentials: Path | None,
    wait: bool,
    patience: float,
    minutes: float,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Compare source and replica ref by ref; exit 0 only if they are equal.

    Reads both sides with your own tokens: AWS credentials and AZURE_DEVOPS_EXT_PAT. With --credentials, or with
    AWS_GIT_PASSWORD in the environment, it reads one mirror as the pipeline does. Exit status: 0 if every replica is
    equal to its source, 3 if one differs, 1 if one could not be compared or its run has not ended in time.
    """
    if len(mirrors) == 1 and not summary and not wait:
        _verify_one(mirrors[0], credentials, as_json)
        return
    if credentials:
        raise click.UsageError("--credentials is for one NAME.")
    with Board(mirror.name for mirror in mirrors) as board:
        work = _waiting(board, patience, minutes) if wait else _compare
        for_each_mirror(contexts_of(mirrors, board), board, work, Policy(minutes=minutes if wait else math.inf))
    report_mirrors("Source and replica compared", board, summary, as_json)


def _waiting(board: Board, patience: float, minutes: float) -> Callable[[MirrorContext, Row], None]:
    """Return the work of comparing a mirror once its latest run has ended."""
    movement = Movement()

    def work(context: MirrorContext, row: Row) -> None:
        with step("Wait for the run"):
            build = wait_for_last_run(context, movement, patience, lambda: board.seconds() >= minutes * 60)
        if not build.done:
            row.leave(f"run {build.id} has not ended; 'codecommit-mirror verify {row.name}' compares both sides later")
            return
        if build.result not in GOOD_RESULTS:
            raise MirrorError(f"run {build.id} ended as {build.result}; see its log in Azure DevOps.")
        _compare(context, row, f"run {build.id} {build.result}: ", may_differ=build.result != "succeeded")

    return work


def _compare(context: MirrorContext, row: Row, begin: str = "", *, may_differ: bool = False) -> None:
    with step("Compare"):
        url = read_outputs(context.aws, context.mirror).replica_url
        comparison = compare(context.mirror, url, context.aws, context.token)
        if comparison.different and not may_differ:
            names = ", ".join(engine_api.sanitize(name) for name in comparison.different[:5])
            row.differ(f"{differing_refs(len(comparison.different))}: {names}")
            return
    row.succeed(f"{begin}{engine_api.equal_refs(len(comparison.source) - len(comparison.different))}.")


def _verify_one(mirror: Mirror, credentials: Path | None, as_json: bool) -> None:
    if credentials or os.environ.get("AWS_GIT_PASSWORD"):
        comparison = compare_with(_settings(mirror, credentials))
    else:
        context = context_of(mirror)
        url = read_outputs(context.aws, mirror).replica_url
        comparison = compare(mirror, url, context.aws, context.token)
    source, replica, different = comparison.source, comparison.replica, comparison.different
    if as_json:
        refs = {name: {"source": source.get(name), "replica": replica.get(name)} for name in different}
        print_json({"equal": not different, "refs": len(source), "carried": comparison.carried, "different": refs})
    elif different:
        rows = [(engine_api.sanitize(n), source.get(n, "-"), replica.get(n, "-")) for n in different]
        print_table(("REF", "SOURCE", "REPLICA"), rows)
        echo(f"{differing_refs(len(different))}, out of {len({*source, *replica}):,}.")
    else:
        echo(f"{engine_api.equal_refs(len(source))}.")
    if comparison.carried and not as_json:
        echo(engine_api.carried_note(comparison.carried))
    sys.exit(DIFFERS if different else 0)


def _settings(mirror: Mirror, credentials: Path | None) -> engine_api.Settings:
    return pipeline_settings(mirror, read_outputs(session(mirror), mirror).replica_url, os.environ, credentials)
