"""``codecommit-mirror up``, ``down`` and ``rotate``."""

from __future__ import annotations

from pathlib import Path

import click

from ..azure import parallel_jobs
from ..config.mirror import Mirror
from ..fleet import down as down_fleet
from ..fleet import up as up_fleet
from ..fleet.work import each
from ..lifecycle import down as down_journey
from ..lifecycle import rotate as rotate_journey
from ..lifecycle import up as up_journey
from ..lifecycle.context import MirrorContext
from ..progress import Board, Checklist, Row
from .options import (
    cdk_context_of_all,
    confirmation,
    context_of,
    contexts_of,
    json_option,
    mirrors_argument,
    pull_request_option,
    summary_option,
    yes_option,
)
from .output import report_fleet


@click.command()
@mirrors_argument
@pull_request_option
@summary_option
@json_option
def up(mirrors: tuple[Mirror, ...], is_fleet: bool, pull_request: bool, summary: Path | None, as_json: bool) -> None:
    """Bring mirrors up: deploy, connect, issue the credential, run, verify.

    Run it in the project's folder, with AWS credentials as for cdk and with AZURE_DEVOPS_EXT_PAT. It is safe to run
    again at any time, and resumes where an earlier run stopped. Of several mirrors, one that fails does not stop the
    others. Exit status: 0 if every mirror is up, 1 otherwise.
    """
    if not (is_fleet or summary or as_json):
        with Checklist(up_journey.STEPS) as checklist:
            message = up_journey.up(context_of(mirrors[0], checklist), checklist, pull_request=pull_request)
        click.echo(f"{message} ({checklist.seconds():.0f} s)")
        return
    with Board(mirror.name for mirror in mirrors) as board:
        if note := parallel_jobs.note(mirrors):
            board.say(f"note: {note}")
        up_fleet.up(contexts_of(mirrors, board), board, cdk_context_of_all(mirrors), pull_request=pull_request)
    report_fleet("Mirrors brought up", board, summary, as_json, resumes=True)


@click.command()
@mirrors_argument
@pull_request_option
@yes_option
@summary_option
@json_option
def down(
    mirrors: tuple[Mirror, ...], is_fleet: bool, pull_request: bool, yes: bool, summary: Path | None, as_json: bool
) -> None:
    """Take mirrors down: disconnect, revoke, destroy.

    The source repositories only lose the pipelines' YAML. Run the command again to resume where an earlier run stopped.
    Of several mirrors, one that fails does not stop the others. Exit status: 0 if every mirror is down, 1 otherwise.
    """
    if not (is_fleet or summary or as_json):
        with Checklist(down_journey.STEPS) as checklist:
            message = down_journey.down(
                context_of(mirrors[0], checklist), checklist, confirmation(yes, checklist), pull_request=pull_request
            )
        click.echo(f"{message} ({checklist.seconds():.0f} s)")
        return
    with Board(mirror.name for mirror in mirrors) as board:
        down_fleet.down(
            contexts_of(mirrors, board),
            board,
            cdk_context_of_all(mirrors),
            confirmation(yes, board),
            pull_request=pull_request,
        )
    report_fleet("Mirrors taken down", board, summary, as_json, resumes=True)


@click.command()
@mirrors_argument
@yes_option
@summary_option
@json_option
def rotate(mirrors: tuple[Mirror, ...], is_fleet: bool, yes: bool, summary: Path | None, as_json: bool) -> None:
    """Replace the pipelines' Git credentials, and verify the new ones with runs.

    A pipeline holds a working credential at all times. Run the command again to finish an interrupted rotation. With
    replica_auth: role there is nothing to rotate. Exit status: 0 if every rotation succeeded, 1 otherwise.
    """
    if not (is_fleet or summary or as_json):
        with Checklist(rotate_journey.STEPS) as checklist:
            message = rotate_journey.rotate(context_of(mirrors[0], checklist), checklist, confirmation(yes, checklist))
        click.echo(f"{message} ({checklist.seconds():.0f} s)")
        return
    with Board(mirror.name for mirror in mirrors) as board:
        confirm = confirmation(yes, board)

        def work(context: MirrorContext, row: Row) -> None:
            row.succeed(rotate_journey.rotate(context, row, confirm))

        each(contexts_of(mirrors, board), board, work)
    report_fleet("Credentials rotated", board, summary, as_json)
