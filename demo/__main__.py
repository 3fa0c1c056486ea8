"""``python -m demo``: show the whole journey of one mirror on the embedded cloud."""

from __future__ import annotations

import sys

import click

from codecommit_mirror.errors import MirrorError

from .journey import run_demo


@click.command()
@click.option("--source", metavar="PATH|URL", help="A Git repository to mirror instead of the built-in sample.")
@click.option("--keep", is_flag=True, help="Leave the embedded cloud running, and print how to explore it.")
@click.option(
    "--repositories",
    type=click.IntRange(1, 50),
    default=1,
    show_default=True,
    help="With --keep: how many repositories Azure DevOps has, so that you can mirror the others yourself.",
)
def demo(source: str | None, keep: bool, repositories: int) -> None:
    """Show the whole journey on an embedded cloud; no account is needed or touched."""
    if repositories > 1 and not keep:
        raise click.UsageError(
            "--repositories requires --keep: without --keep the embedded cloud stops when the demo ends."
        )
    try:
        run_demo(source, keep=keep, repositories=repositories)
    except MirrorError as error:
        sys.exit(f"error: {error}")


demo()
