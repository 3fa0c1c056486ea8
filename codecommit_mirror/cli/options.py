"""Options and arguments that several commands share."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ..aws.session import account_of, session_in
from ..config.ci import Ci
from ..config.load import DEFAULT_FILE, Configuration, load, load_mirrors, named_mirrors, single_mirror
from ..config.mirror import Mirror
from ..config.mirrors_file import read
from ..errors import ConfigurationError, MirrorError
from ..operations.batches import Policy, Project, refuse
from ..operations.context import ClientPool, MirrorContext
from ..progress import Board, Confirm

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
    """Give a command NAME..., --project and --all, and call it with the mirrors."""
    return mirrors_argument_unless("")(command)


def mirrors_argument_unless(flag: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Do as :func:`mirrors_argument`, but with no mirrors where a flag of the command selects others."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.argument("names", nargs=-1, metavar="NAME...", shell_complete=complete_mirror)
        @config_option
        @click.option("--all", "every", is_flag=True, help="Every mirror of mirrors.yaml, in place of names.")
        @click.option("--project", metavar="PROJECT", help="Every mirror whose source is in this Azure DevOps project.")
        @click.option(
            "--azure-repo-url",
            metavar="URL",
            help="The source's clone URL, for one mirror that is not in mirrors.yaml (cdk: -c azure_repo_url).",
        )
        @functools.wraps(command)
        def wrapped(
            names: tuple[str, ...],
            config: Path,
            every: bool,
            project: str | None,
            azure_repo_url: str | None,
            **options: Any,
        ) -> None:
            others = bool(flag and options.get(flag))
            if [every, bool(names), bool(project), others].count(True) != 1:
                raise click.UsageError("give the names of mirrors or patterns like 'shop-*', --project, or --all.")
            if azure_repo_url and len(names) != 1:
                raise click.UsageError("--azure-repo-url is for one NAME.")
            if azure_repo_url:
                mirrors: tuple[Mirror, ...] = (single_mirror(names[0], azure_repo_url),)
            else:
                mirrors = () if others else narrowed(_selected(config, names, project))
            command(mirrors=mirrors, **options)

        return wrapped

    return decorate


def _selected(config: Path, names: tuple[str, ...], project: str | None) -> tuple[Mirror, ...]:
    """Return the mirrors that are named, match a pattern, or belong to a project; all of them if none is given.

    Raises:
        ConfigurationError: a name or a pattern selects nothing.
    """
    if not any(set(name) & set("*?[") for name in names) and not project:
        return named_mirrors(config, names) if names else load_mirrors(config)
    mirrors = load_mirrors(config)
    if project:
        chosen = [mirror for mirror in mirrors if mirror.azure.project.lower() == project.lower()]
        if not chosen:
            known = ", ".join(sorted({mirror.azure.project for mirror in mirrors}))
            raise ConfigurationError(f"{config} has no mirror of the project {project!r}; it has those of {known}.")
        return tuple(chosen)
    for pattern in names:
        if not fnmatch.filter([mirror.name for mirror in mirrors], pattern):
            raise ConfigurationError(
                f"{pattern!r} matches no mirror of {config}; 'codecommit-mirror status' lists them."
            )
    return tuple(m for m in mirrors if any(fnmatch.fnmatchcase(m.name, pattern) for pattern in names))


def contexts_of(mirrors: Sequence[Mirror], board: Board | None = None) -> dict[str, MirrorContext]:
    """Return the contexts of a command's mirrors, which share clients; a person is asked for each secret once."""
    clients = ClientPool(many=len(mirrors) > 1)
    ask = _asking_once(_asker(board)) if sys.stdin.isatty() else None
    return {mirror.name: MirrorContext(mirror, os.environ, Path.cwd(), ask, clients=clients) for mirror in mirrors}


def context_of(mirror: Mirror) -> MirrorContext:
    """Return the context of the current command's only mirror."""
    return contexts_of([mirror])[mirror.name]


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


def cdk_context_of(mirrors: Sequence[Mirror]) -> tuple[str, ...]:
    """Return how the CDK app finds the mirrors: one of them alone, which is quicker, or all of the file."""
    given = click.get_current_context().params
    if given.get("azure_repo_url"):
        # Not the URL that was given, which may contain a password.
        return ("-c", f"replica={mirrors[0].name}", "-c", f"azure_repo_url={mirrors[0].azure.clone_url}")
    file = ("-c", f"config={Path(given['config']).resolve()}")
    alone = len(mirrors) == 1 and not given.get("every")
    return (*file, "-c", f"mirror={mirrors[0].name}") if alone else file


ACCOUNT_VARIABLE = "CODECOMMIT_MIRROR_ACCOUNT"
"""The account that a job of CI works in, with its own credentials."""


def narrowed(mirrors: Sequence[Mirror], account: str | None = None) -> tuple[Mirror, ...]:
    """Return the mirrors of one account, without the ways in that people have to it.

    Args:
        mirrors: of any accounts.
        account: the account. Default: the one that the environment names; without one, all mirrors stay as they are.
    """
    account = account or os.environ.get(ACCOUNT_VARIABLE)
    if account is None:
        return tuple(mirrors)
    here = [mirror for mirror in mirrors if mirror.account in (None, account)]
    return tuple(mirror.model_copy(update={"profile": None, "assume_role": None}) for mirror in here)


def section_of(configuration: Configuration) -> Ci | None:
    """Return the section ``ci`` that concerns a command: of several, that of the account of the credentials.

    Raises:
        MirrorError: AWS does not say whose the credentials are.
    """
    if len(configuration.cis) < 2:
        return configuration.ci_of(None)
    return configuration.ci_of(os.environ.get(ACCOUNT_VARIABLE) or account_of(session_in(configuration.cis[0].region)))


def project_of(mirrors: Sequence[Mirror]) -> Project:
    """Return the CDK project of the current folder; with ``--all`` it knows how CI provisions the file's mirrors."""
    given = click.get_current_context().params
    section = section_of(load(given["config"])) if given.get("every") else None
    return Project(Path.cwd(), cdk_context_of(mirrors), section)


def configuration(only: str | None = None) -> Configuration:
    """Return the current command's mirrors file; see ``load``. With a URL it is optional, and has other mirrors."""
    given = click.get_current_context().params
    if given.get("azure_repo_url"):
        return load(given["config"]) if given["config"].exists() else Configuration(())
    return load(given["config"], only)


def inside_repository(config: Path) -> str:
    """Return the file's path in its repository, which is the current folder.

    Raises:
        MirrorError: it is elsewhere.
    """
    if config.is_absolute() or ".." in config.parts:
        raise MirrorError(f"{config} is not in this folder; run this command in the repository that contains it.")
    return config.as_posix()


def _asker(board: Board | None) -> Callable[[str], str]:
    def ask(name: str) -> str:
        with board.paused() if board else contextlib.nullcontext():
            # A user name is no secret, and a typing error in it should be seen.
            hidden = not name.endswith("USERNAME")
            kind = "a token with the scope Code (read); what you type is not shown" if hidden else "any, with a token"
            text = f"{name} of the source ({kind})"
            answer: str = click.prompt(text, hide_input=hidden, err=True)
        return answer

    return ask


def confirmation(yes: bool, board: Board | None = None, done: str = "deleted") -> Confirm:
    """Return a function that asks before something is done; ``--yes`` answers for the user.

    Args:
        yes: whether ``--yes`` was given.
        board: what is shown meanwhile.
        done: what has not happened if the answer is no.
    """

    def confirm(question: str, typed: str | None = None) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            refuse(question)
        with board.paused() if board else contextlib.nullcontext():
            if typed is None:
                agreed = click.confirm(question, err=True)
            else:
                agreed = click.prompt(f"{question}\nType {typed} to go on", err=True) == typed
        if not agreed:
            raise MirrorError(f"stopped; nothing was {done}.")

    return confirm


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a job in CI."""
    for option in (
        no_azure_option,
        minutes_option,
        click.option(
            "--job",
            is_flag=True,
            help="For a job in CI: ask nothing, wait for no run, and leave anything that stores secrets to a person.",
        ),
    ):
        command = option(command)
    return command


no_azure_option = click.option(
    "--no-azure", is_flag=True, help="Leave the Azure side alone, for a job without a token for it."
)
minutes_option = click.option(
    "--minutes",
    type=float,
    metavar="MINUTES",
    help="Work that does not fit into this time is left for the next run.  [default: 40 with --job, else no limit]",
)
JOB_MINUTES = 40.0
"""AWS credentials of a job last an hour."""


def _agree(question: str, typed: str | None = None) -> None:
    """Stand for a person who says yes: ``up`` does what was merged, and ``down`` takes only what was approved."""


def policy_of(
    confirm: Confirm, *, job: bool, minutes: float | None, no_azure: bool, pull_request: bool = False
) -> Policy:
    """Return how a command works, by its options."""
    return Policy(
        _agree if job else confirm,
        minutes=minutes if minutes is not None else JOB_MINUTES if job else math.inf,
        waits=not job,
        pull_request=pull_request,
        azure="none" if no_azure else "without secrets" if job else "all",
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
yes_option = click.option(
    "--yes", is_flag=True, envvar="CODECOMMIT_MIRROR_YES", help="Do not ask before something is changed; for CI."
)
change_source_option = click.option(
    "--change-source", is_flag=True, help="Let the replica of NAME follow another source, after showing what changes."
)
replace_pipeline_option = click.option(
    "--replace-pipeline", is_flag=True, help="Disable a pipeline that is not recorded as the mirror's, and create one."
)
summary_option = click.option(
    "--summary", type=click.Path(path_type=Path), help="A file to which a summary in Markdown is appended."
)
pull_request_option = click.option(
    "--pull-request", is_flag=True, help="Add or remove the YAML through a pull request, if policies forbid a push."
)
