"""``codecommit-mirror up``, ``down`` and ``rotate``."""

from __future__ import annotations

import click

from ..config.mirror import Mirror
from ..lifecycle import down as down_journey
from ..lifecycle import rotate as rotate_journey
from ..lifecycle import up as up_journey
from ..progress import Checklist
from .options import confirmation, context_of, mirror_argument, pull_request_option, yes_option


@click.command()
@mirror_argument
@pull_request_option
def up(mirror: Mirror, pull_request: bool) -> None:
    """Bring a mirror up: deploy, connect, issue the credential, run, verify.

    Run it in the project's folder, with AWS credentials as for cdk and with AZURE_DEVOPS_EXT_PAT. It is safe to run
    again at any time, and resumes where an earlier run stopped.
    """
    with Checklist(up_journey.STEPS) as checklist:
        message = up_journey.up(context_of(mirror, checklist), checklist, pull_request=pull_request)
    click.echo(f"{message} ({checklist.seconds():.0f} s)")


@click.command()
@mirror_argument
@pull_request_option
@yes_option
def down(mirror: Mirror, pull_request: bool, yes: bool) -> None:
    """Take a mirror down: disconnect, revoke, destroy.

    The source repository only loses the pipeline's YAML. Run the command again to resume where an earlier run stopped.
    """
    with Checklist(down_journey.STEPS) as checklist:
        message = down_journey.down(
            context_of(mirror, checklist), checklist, confirmation(yes, checklist), pull_request=pull_request
        )
    click.echo(f"{message} ({checklist.seconds():.0f} s)")


@click.command()
@mirror_argument
@yes_option
def rotate(mirror: Mirror, yes: bool) -> None:
    """Replace the pipeline's Git credential, and verify the new one with a run.

    The pipeline holds a working credential at all times. Run the command again to finish an interrupted rotation. With
    replica_auth: role there is nothing to rotate.
    """
    if mirror.replica_auth == "role":
        click.echo(f"{mirror.name} has nothing to rotate: its pipeline acts as a role, and no credential is stored.")
        return
    with Checklist(rotate_journey.STEPS) as checklist:
        message = rotate_journey.rotate(context_of(mirror, checklist), checklist, confirmation(yes, checklist))
    click.echo(f"{message} ({checklist.seconds():.0f} s)")
