"""Bring many mirrors up: one preflight for all, one deployment, and then each one's pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..aws import cdk
from ..aws.stack import ReplicaOutputs
from ..errors import MirrorError
from ..lifecycle import preflight, replica_auth
from ..lifecycle.context import MirrorContext
from ..lifecycle.up import STEPS, ask_for_secrets, complete_deployment, connect_and_run, prepare_deployment
from ..progress import Board, Row
from .work import each

CONCURRENCY = 10
"""How many stacks are deployed at a time; CloudFormation and IAM throttle a fleet that does more."""


def up(
    contexts: Mapping[str, MirrorContext], board: Board, cdk_context: Sequence[str], *, pull_request: bool = False
) -> None:
    """Bring mirrors up, resuming where earlier runs stopped; the board's rows say how each one ended.

    Args:
        contexts: by the mirror's name.
        board: shows the progress.
        cdk_context: how the CDK app finds all of them.
        pull_request: whether pull requests bring the YAML in.

    Raises:
        MirrorError: something stops all of them.
    """

    def finish(given: tuple[MirrorContext, ReplicaOutputs], row: Row) -> None:
        message = connect_and_run(given[0], row, given[1], pull_request=pull_request, always_run=False)
        row.succeed(message)

    ready = _preflight(contexts, board)
    outputs = deploy(ready, board, cdk_context)
    each({name: (ready[name], outputs[name]) for name in outputs}, board, finish)


def _preflight(contexts: Mapping[str, MirrorContext], board: Board) -> dict[str, MirrorContext]:
    """Return the mirrors that nothing stops; those of an account that cannot be used, or has no room, fail together."""
    places: dict[tuple[str | None, str | None], list[MirrorContext]] = {}
    for context in contexts.values():
        places.setdefault((context.mirror.account, context.mirror.region), []).append(context)
    for group in places.values():
        if problems := preflight.find_account_problems(group[0]):
            _fail(group, board, problems)
            continue
        new = [context for context in group if preflight.is_new(context)]
        if problems := preflight.find_quota_problems(new):
            _fail(new, board, problems)

    def check(context: MirrorContext, row: Row) -> MirrorContext:
        with row.step(STEPS[0]):
            if problems := preflight.find_mirror_problems(context):
                raise MirrorError("\n".join(problems))
            ask_for_secrets(context)
        return context

    return each({name: contexts[name] for name in board.open_rows}, board, check)


def _fail(contexts: Sequence[MirrorContext], board: Board, problems: Sequence[str]) -> None:
    for context in contexts:
        board.rows[context.mirror.name].fail("\n".join(problems))


def deploy(
    contexts: Mapping[str, MirrorContext], board: Board, cdk_context: Sequence[str]
) -> dict[str, ReplicaOutputs]:
    """Deploy the mirrors' stacks together, and return the outputs of those that did not fail."""

    def prepare(context: MirrorContext, row: Row) -> bool:
        with row.step(STEPS[1]) as say:
            return prepare_deployment(context, say)

    def complete(given: tuple[MirrorContext, bool], row: Row) -> ReplicaOutputs:
        with row.step(STEPS[1]) as say:
            return complete_deployment(given[0], say, changing=given[1])

    changing = each(contexts, board, prepare)
    changes = replica_auth.cdk_context([name for name, changes in changing.items() if changes])
    stacks = {name: contexts[name].mirror.stack_name for name in changing}
    for name, reason in run_cdk(contexts, stacks, board, [*cdk_context, *changes], destroy=False).items():
        board.rows[name].fail(f"cdk deploy failed: {reason}")
    deployed = [name for name in changing if name in board.open_rows]
    return each({name: (contexts[name], changing[name]) for name in deployed}, board, complete)


def run_cdk(
    contexts: Mapping[str, MirrorContext],
    stacks: Mapping[str, str],
    board: Board,
    cdk_context: Sequence[str],
    *,
    destroy: bool,
) -> dict[str, str]:
    """Deploy or destroy stacks together; return the reasons of those that failed.

    Raises:
        MirrorError: the CDK app failed.
    """
    if not stacks:
        return {}
    rows = {stack: board.rows[mirror] for mirror, stack in stacks.items()}
    folder = next(iter(contexts.values())).folder
    board.say(f"cdk {'destroy' if destroy else 'deploy'} of {len(stacks):,} stacks")
    for row in rows.values():
        row.begin("cdk destroy" if destroy else STEPS[1])
    with tempfile.TemporaryDirectory(prefix="cdk-") as assembly:
        cdk.synthesize(folder, cdk_context, Path(assembly))
        run = cdk.destroy_all if destroy else cdk.deploy_all
        failures = run(
            folder,
            stacks,
            Path(assembly),
            lambda stack, line: rows[stack].details.append(line) if stack in rows else None,
            concurrency=CONCURRENCY,
        )
    for row in rows.values():
        row.pause()
    return failures
