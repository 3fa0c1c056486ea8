"""Options and arguments that several commands share."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ..config.load import DEFAULT_FILE, load_mirrors, named_mirrors, single_mirror
from ..config.mirror import Mirror
from ..config.mirrors_file import read
from ..errors import MirrorError
from ..lifecycle.context import ClientPool, MirrorContext
from ..progress import Board, Checklist, Confirm

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_FILE,
    show_default=True,
    envvar="CODECOMMIT_MIRROR_CONFIG",
    show_envvar=True,
    help="The mirrors file.",
)


def complete_mirror(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the file's mirrors that begin with a text, for the shell's completion."""
    path = ctx.params.get("config") or os.environ.get("CODECOMMIT_MIRROR_CONFIG") or DEFAULT_FILE
    try:
        return [name for name in read(Path(path)).mirrors if name.startswith(incomplete)]
    except MirrorError:
        return []


def mirror_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument NAME and the options that find it, and call it with a ``Mirror``."""

    @click.argument("name", shell_complete=complete_mirror)
    @config_option
    @click.option(
        "--azure-repo-url",
        metavar="URL",
        help="The source's clone URL, for a mirror that is not in mirrors.yaml (cdk: -c azure_repo_url).",
    )
    @functools.wraps(command)
    def wrapped(name: str, config: Path, azure_repo_url: str | None, **options: Any) -> None:
        if azure_repo_url:
            mirror = single_mirror(name, azure_repo_url)
        else:
            (mirror,) = load_mirrors(config, name)
        command(mirror=mirror, **options)

    return wrapped


def mirrors_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command NAME... and --all, and call it with the mirrors, and with whether they are several."""

    @click.argument("names", nargs=-1, metavar="NAME...", shell_complete=complete_mirror)
    @config_option
    @click.option("--all", "every", is_flag=True, help="Every mirror of mirrors.yaml, in place of names.")
    @click.option(
        "--azure-repo-url",
        metavar="URL",
        help="The source's clone URL, for one mirror that is not in mirrors.yaml (cdk: -c azure_repo_url).",
    )
    @functools.wraps(command)
    def wrapped(names: tuple[str, ...], config: Path, every: bool, azure_repo_url: str | None, **options: Any) -> None:
        if every == bool(names):
            raise click.UsageError("give the names of mirrors, or --all for every mirror.")
        if azure_repo_url and len(names) != 1:
            raise click.UsageError("--azure-repo-url is for one NAME.")
        if azure_repo_url:
            mirrors: tuple[Mirror, ...] = (single_mirror(names[0], azure_repo_url),)
        else:
            mirrors = load_mirrors(config) if every else named_mirrors(config, names)
        command(mirrors=mirrors, is_fleet=every or len(names) > 1, **options)

    return wrapped


def contexts_of(mirrors: Sequence[Mirror], board: Board) -> dict[str, MirrorContext]:
    """Return the contexts of many mirrors, which share clients; a person is asked for each secret once."""
    clients, ask = ClientPool(many=len(mirrors) > 1), _asking_once(_asker(board))
    contexts = {mirror.name: context_of(mirror, clients=clients) for mirror in mirrors}
    for context in contexts.values():
        context.ask = context.ask and ask
    return contexts


def _asking_once(ask: Callable[[str], str]) -> Callable[[str], str]:
    """Return a function that asks for each secret once, whichever thread needs it first."""
    answers: dict[str, str] = {}
    lock = threading.Lock()

    def ask_once(name: str) -> str:
        with lock:
            if name not in answers:
                answers[name] = ask(name)
            return answers[name]

    return ask_once


def cdk_context_of_all(mirrors: Sequence[Mirror]) -> tuple[str, ...]:
    """Return how the CDK app finds all mirrors."""
    given = click.get_current_context().params
    if given.get("azure_repo_url"):
        return ("-c", f"replica={mirrors[0].name}", "-c", f"azure_repo_url={mirrors[0].azure.clone_url}")
    return ("-c", f"config={Path(given['config']).resolve()}")


def inside_repository(config: Path) -> str:
    """Return the file's path in its repository, which is the current folder.

    Raises:
        MirrorError: it is elsewhere.
    """
    if config.is_absolute() or ".." in config.parts:
        raise MirrorError(f"{config} is not in this folder; run this command in the repository that contains it.")
    return config.as_posix()


def _asker(screen: Board | Checklist | None) -> Callable[[str], str]:
    def ask(name: str) -> str:
        with screen.paused() if screen else contextlib.nullcontext():
            text = f"{name} (from Repos: Clone, Generate Git Credentials; what you type is not shown)"
            answer: str = click.prompt(text, hide_input=True, err=True)
        return answer

    return ask


def context_of(mirror: Mirror, checklist: Checklist | None = None, clients: ClientPool | None = None) -> MirrorContext:
    """Return the context of the current command: this folder, this environment and this terminal."""
    given = click.get_current_context().params
    cdk_context = ["-c", f"config={Path(given['config']).resolve()}", "-c", f"mirror={mirror.name}"]
    if given.get("azure_repo_url"):
        # Not the URL that was given, which may contain a password.
        cdk_context = ["-c", f"replica={mirror.name}", "-c", f"azure_repo_url={mirror.azure.clone_url}"]
    return MirrorContext(
        mirror,
        os.environ,
        Path.cwd(),
        tuple(cdk_context),
        _asker(checklist) if sys.stdin.isatty() else None,
        clients=clients or ClientPool(),
    )


def confirmation(yes: bool, screen: Board | Checklist | None = None) -> Confirm:
    """Return a function that asks before something is deleted; ``--yes`` answers for the user."""

    def confirm(question: str) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise MirrorError(f"there is no terminal to ask on: {question} Use --yes to confirm.")
        with screen.paused() if screen else contextlib.nullcontext():
            agreed = click.confirm(question, err=True)
        if not agreed:
            raise MirrorError("stopped; nothing was deleted.")

    return confirm


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask before something is deleted; for CI.")
summary_option = click.option(
    "--summary", type=click.Path(path_type=Path), help="A file to which a summary in Markdown is appended."
)
pull_request_option = click.option(
    "--pull-request", is_flag=True, help="Add or remove the YAML through a pull request, if policies forbid a push."
)
