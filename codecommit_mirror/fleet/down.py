"""Take many mirrors down: read them all, ask once, and then delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..lifecycle.context import MirrorContext
from ..lifecycle.down import STEPS, DeployedMirror, DownPlan, disconnect_and_revoke, end, look
from ..progress import Board, Confirm, Row
from .up import run_cdk
from .work import each

_MAX_LISTED = 20


def down(
    contexts: Mapping[str, MirrorContext],
    board: Board,
    cdk_context: Sequence[str],
    confirm: Confirm,
    *,
    pull_request: bool = False,
) -> None:
    """Take mirrors down, resuming where earlier runs stopped; the board's rows say how each one ended.

    Args:
        contexts: by the mirror's name.
        board: shows the progress.
        cdk_context: how the CDK app finds all of them.
        confirm: asks a person, once for all of them.
        pull_request: whether pull requests remove the YAML.

    Raises:
        MirrorError: the answer was no, or something stops all of them.
    """

    def read(context: MirrorContext, row: Row) -> tuple[DeployedMirror, DownPlan]:
        with row.step(STEPS[0]) as say:
            return look(context, say)

    def disconnect(given: tuple[MirrorContext, DeployedMirror], row: Row) -> DeployedMirror:
        disconnect_and_revoke(given[0], row, given[1], pull_request=pull_request)
        return given[1]

    def finish(given: tuple[MirrorContext, DeployedMirror], row: Row) -> None:
        with row.step(STEPS[3]):
            message = end(*given)
        row.succeed(message)

    found = each(contexts, board, read)
    if questions := [todo.question for _, todo in found.values() if todo.question]:
        confirm(_question(questions))
    states = each({name: (contexts[name], state) for name, (state, _) in found.items()}, board, disconnect)
    stacks = {name: contexts[name].mirror.stack_name for name, state in states.items() if state.stack}
    for name, reason in run_cdk(contexts, stacks, board, cdk_context, destroy=True).items():
        board.rows[name].fail(f"cdk destroy failed: {reason}")
    each({name: (contexts[name], states[name]) for name in states if name in board.open_rows}, board, finish)


def _question(questions: Sequence[str]) -> str:
    listed = "\n".join(f"- {question}" for question in questions[:_MAX_LISTED])
    more = f"\n- and {len(questions) - _MAX_LISTED:,} more" if len(questions) > _MAX_LISTED else ""
    return f"{listed}{more}\nDelete all of these ({len(questions):,} mirrors)?"
