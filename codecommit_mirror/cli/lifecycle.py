"""``codecommit-mirror up``, ``down`` and ``rotate``."""

from __future__ import annotations

import click

from ..config.mirror import Mirror
from ..lifecycle import up as journey
from ..progress import Checklist
from .options import confirmation, mirror_argument, operator_of, pull_request_option, yes_option


@click.command()
@mirror_argument
@pull_request_option
def up(mirror: Mirror, pull_request: bool) -> None:
    """Bring a mirror up: deploy, connect, issue the credential, run, verify.

    Run it in the project's folder. Tokens: AWS credentials as for cdk, and AZURE_DEVOPS_EXT_PAT. It goes on from where
    an earlier run stopped, and is safe to run again at any time.
    """
    with Checklist(journey.UP) as checklist:
        last = journey.up(operator_of(mirror, checklist), checklist, pull_request=pull_request)
    click.echo(f"{last} ({checklist.seconds():.0f} s)")


@click.command()
@mirror_argument
@pull_request_option
@yes_option
def down(mirror: Mirror, pull_request: bool, yes: bool) -> None:
    """Take a mirror down: disconnect, revoke, destroy.

    The source repository loses the pipeline's YAML and nothing else. It goes on from where an earlier run stopped.
    """
    with Checklist(journey.DOWN) as checklist:
        last = journey.down(
            operator_of(mirror, checklist), checklist, confirmation(yes, checklist), pull_request=pull_request
        )
    click.echo(f"{last} ({checklist.seconds():.0f} s)")


@click.command()
@mirror_argument
@yes_option
def rotate(mirror: Mirror, yes: bool) -> None:
    """Replace the pipeline's Git credential, proven by a run.

    At every moment the pipeline holds one that works. Run it again to finish a rotation that was interrupted.
    """
    with Checklist(journey.ROTATE) as checklist:
        last = journey.rotate(operator_of(mirror, checklist), checklist, confirmation(yes, checklist))
    click.echo(f"{last} ({checklist.seconds():.0f} s)")
