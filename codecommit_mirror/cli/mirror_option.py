"""What every command that works on a mirror takes: its name, and where its configuration is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..config import DEFAULT_FILE, load_mirrors, single_mirror


def mirror_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument NAME and the options that find it, and call it with a ``Mirror``."""

    @click.argument("name")
    @click.option(
        "--config", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True, help="The mirrors file."
    )
    @click.option(
        "--azure-repo-url",
        metavar="URL",
        help="The source's clone URL, for a mirror that is in no file (cdk: -c azure_repo_url).",
    )
    @functools.wraps(command)
    def wrapped(name: str, config: Path, azure_repo_url: str | None, **options: Any) -> None:
        if azure_repo_url:
            mirror = single_mirror(name, azure_repo_url)
        else:
            (mirror,) = load_mirrors(config, name)
        command(mirror=mirror, **options)

    return wrapped


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
