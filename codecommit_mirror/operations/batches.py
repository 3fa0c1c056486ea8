"""What is done for many mirrors together: one synthesis, one deployment, one commit for each branch with YAML."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..aws import assembly as cdk_out
from ..aws import cdk
from ..aws.session import client, sign_in_of
from ..aws.stack import delete_without_cleanup
from ..aws.stack_plan import WantedStack
from ..azure import files as azure_files
from ..azure.files import PlannedFile
from ..config.ci import Ci
from ..config.identity import EarlierSignIn, auth_migration_context
from ..errors import MirrorError
from ..progress import Board, Row, step
from .context import MirrorContext
from .loop import Policy, for_each_mirror

CONCURRENCY = 10
"""How many stacks are deployed at a time; CloudFormation and IAM throttle a fleet that does more."""
_BATCH = 50
"""How many stacks one run of the CDK CLI deploys: some minutes of a job."""
_Run = Callable[..., dict[str, str]]


@dataclass(frozen=True)
class Project:
    """A CDK project with mirrors."""

    folder: Path
    context: tuple[str, ...] = ()
    """How the CDK app finds the mirrors: ``-c key=value`` pairs."""
    section: Ci | None = None
    """How CI provisions the mirrors, where a command is about all of the file."""


def synthesize(
    project: Project, output: Path, names: Collection[str], migrating: Mapping[str, EarlierSignIn] | None = None
) -> dict[str, WantedStack]:
    """Run the CDK app once, and return the mirrors' stacks by the mirrors' names.

    Args:
        project: the CDK project.
        output: where to write its output.
        names: the mirrors that it must have.
        migrating: what pipelines signed in with that change, and need until a run has succeeded without it.

    Raises:
        MirrorError: it failed, or does not know a mirror.
    """
    # The CLI's own words for a folder without a CDK project are about an option.
    cdk.bootstrap_parameter(project.folder)
    migration = ["-c", f"auth_migration={auth_migration_context(migrating)}"] if migrating else []
    cdk.synthesize(project.folder, [*project.context, *migration], output)
    stacks = {stack.mirror: stack for stack in cdk_out.read(output)}
    if missing := [name for name in names if name not in stacks]:
        raise MirrorError(f"the CDK app in {project.folder} has no stack for {', '.join(missing)}; correct app.py.")
    return stacks


def deploy(contexts: Mapping[str, MirrorContext], board: Board, output: Path, title: str, policy: Policy) -> list[str]:
    """Deploy the mirrors' stacks as they were synthesised, as long as there is time; return those that did not fail."""
    deployed: list[str] = []
    for names in _batches(contexts):
        if board.seconds() >= policy.minutes * 60:
            for name in names:
                board.rows[name].leave("skipped: --minutes ran out")
            continue
        deployed += _run_cdk(cdk.deploy_all, {name: contexts[name] for name in names}, board, output, title)
    return deployed


def _batches(names: Collection[str]) -> Iterator[list[str]]:
    waiting = iter(names)
    while batch := list(islice(waiting, _BATCH)):
        yield batch


def destroy(contexts: Mapping[str, MirrorContext], board: Board, output: Path, title: str) -> list[str]:
    """Destroy the mirrors' stacks, whose users have no credentials any more; return those that did not fail."""

    def destroy_all(*arguments: Any, **options: Any) -> dict[str, str]:
        failures = cdk.destroy_all(*arguments, **options)
        return {name: reason for name, reason in failures.items() if not _delete_without_cleanup(contexts[name])}

    return _run_cdk(destroy_all, contexts, board, output, title)


def _delete_without_cleanup(context: MirrorContext) -> bool:
    try:
        return delete_without_cleanup(client(context.aws, "cloudformation"), context.mirror.stack_name)
    except MirrorError:
        # Then the CDK CLI's reason says more.
        return False


def _run_cdk(run: _Run, contexts: Mapping[str, MirrorContext], board: Board, output: Path, title: str) -> list[str]:
    if not contexts:
        return []
    rows = {context.mirror.stack_name: board.rows[name] for name, context in contexts.items()}
    for row in rows.values():
        row.begin(title)
    failures: dict[str, str] = {}
    for sign_in in dict.fromkeys(sign_in_of(context.mirror) for context in contexts.values()):
        failures |= run(
            next(iter(contexts.values())).folder,
            {n: c.mirror.stack_name for n, c in contexts.items() if sign_in_of(c.mirror) == sign_in},
            output,
            lambda stack, line: rows[stack].say(line) if stack in rows else None,
            concurrency=CONCURRENCY,
            sign_in=sign_in,
        )
    for name, reason in failures.items():
        board.rows[name].fail(reason)
    for row in rows.values():
        row.pause()
    return [name for name in contexts if name not in failures]


def deploy_alone(context: MirrorContext, project: Project) -> None:
    """Synthesise and deploy one mirror's stack.

    Raises:
        MirrorError: it failed.
    """
    cdk.deploy(project.folder, context.mirror.name, project.context, sign_in_of(context.mirror))


def commit_yaml(files: Mapping[str, PlannedFile], board: Board, policy: Policy, title: str) -> None:
    """Commit the YAML of mirrors, or its removal, with one commit for each branch; if it fails, all of them fail.

    Args:
        files: by the mirror's name.
        board: shows the progress.
        policy: whether pull requests bring the YAML in and out.
        title: the step's.
    """
    if policy.pull_request:
        for_each_mirror(files, board, lambda file, _: _propose(file, title), policy)
        return

    def commit(group: Mapping[str, PlannedFile], _: Row) -> None:
        with step(title):
            azure_files.commit_group(list(group.values()))

    groups = azure_files.by_branch(files)
    for_each_mirror(groups, board, commit, policy)
    for first, group in groups.items():
        for name in group if board.rows[first].failed else ():
            board.rows[name].fail(board.rows[first].message)


def _propose(file: PlannedFile, title: str) -> None:
    with step(title):
        azure_files.propose(file)
