"""``codecommit-mirror demo``."""

from __future__ import annotations

import importlib.util

import click

from ..errors import MirrorError


@click.command()
@click.option("--source", metavar="PATH|URL", help="A Git repository to mirror instead of the built-in sample.")
@click.option("--keep", is_flag=True, help="Leave the embedded cloud running, and say how to look around.")
def demo(source: str | None, keep: bool) -> None:
    """Do the whole job on an embedded cloud; no account is needed or touched."""
    missing = [name for name in ("ministack", "hypercorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise MirrorError(
            f"the embedded cloud needs {' and '.join(missing)}; run 'make demo', or "
            "'pip install -r requirements-dev.txt' first."
        )
    from ..demo import run_demo

    run_demo(source, keep=keep)
