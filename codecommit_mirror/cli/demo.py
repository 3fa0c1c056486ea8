"""``codecommit-mirror demo``."""

from __future__ import annotations

import importlib.util

import click

from ..errors import MirrorError


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
    missing = [name for name in ("ministack", "hypercorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise MirrorError(f"the embedded cloud needs {' and '.join(missing)}; run 'make demo', or 'make setup' first.")
    from ..demo import run_demo

    run_demo(source, keep=keep, repositories=repositories)
