"""What every command that works on a mirror takes: its name, and where its configuration is."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..config.mirror import DEFAULT_FILE, Mirror, load_mirrors, single_mirror
from ..errors import MirrorError
from ..lifecycle.context import Operator
from ..progress import Checklist

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_FILE,
    show_default=True,
    envvar="CODECOMMIT_MIRROR_CONFIG",
    show_envvar=True,
    help="The mirrors file.",
)


def mirror_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument NAME and the options that find it, and call it with a ``Mirror``."""

    @click.argument("name")
    @config_option
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


def operator_of(mirror: Mirror, checklist: Checklist | None = None) -> Operator:
    """Return who runs the command that is under way, in this folder, with this environment and terminal."""
    given = click.get_current_context().params
    context = ["-c", f"config={Path(given['config']).resolve()}", "-c", f"mirror={mirror.name}"]
    if given.get("azure_repo_url"):
        # Not as it was given: there may be a password in it.
        context = ["-c", f"replica={mirror.name}", "-c", f"azure_repo_url={mirror.azure.clone_url}"]

    def ask(name: str) -> str:
        with checklist.paused() if checklist else contextlib.nullcontext():
            text = f"{name} (in Repos: Clone, Generate Git Credentials; not shown)"
            answer: str = click.prompt(text, hide_input=True, err=True)
        return answer

    return Operator(mirror, os.environ, Path.cwd(), tuple(context), ask if sys.stdin.isatty() else None)


def confirmation(yes: bool, checklist: Checklist | None = None) -> Callable[[str], None]:
    """Return what asks a person before something is deleted; ``--yes`` answers for them."""

    def confirm(question: str) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise MirrorError(f"nobody can be asked here: {question} Give --yes to agree.")
        with checklist.paused() if checklist else contextlib.nullcontext():
            agreed = click.confirm(question, err=True)
        if not agreed:
            raise MirrorError("stopped; nothing was deleted.")

    return confirm


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask before something is deleted; for CI.")
pull_request_option = click.option(
    "--pull-request", is_flag=True, help="Bring the YAML in, or out, by a pull request; where policies forbid a push."
)
