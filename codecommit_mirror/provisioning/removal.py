"""Remove mirrors that are no longer in mirrors.yaml, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..config.mirror import Mirror
from ..errors import MirrorError
from ..fleet.work import each
from ..lifecycle.context import MirrorContext
from ..progress import Board, Row
from .account import Account
from .pipelines import disconnect


def remove(
    account: Account,
    names: Sequence[str],
    board: Board,
    context_of: Callable[[Mirror], MirrorContext] | None,
    *,
    minutes: float,
) -> list[str]:
    """Delete the stacks of mirrors; the board's rows say how each removal ended. Return those that were still there.

    Args:
        account: the account that has them.
        names: the mirrors.
        board: shows the progress.
        context_of: what to work with on the Azure side of a mirror; None to leave that side alone.
        minutes: after how long no further mirror is begun.
    """

    def work(name: str, row: Row) -> bool:
        if problem := account.removal_problem(name):
            raise MirrorError(problem)
        rest = f"; 'pipeline disconnect {name} --azure-repo-url URL' deletes its pipeline, if it has one"
        if context_of:
            with row.step("Disconnect the pipeline"):
                if mirror := account.source_of(name):
                    disconnect(context_of(mirror), lambda line: board.say(f"{name}: {line}"))
                    rest = ""
        with row.step("Delete the stack"):
            is_deleted = account.remove(name)
        row.succeed(f"{'deleted' if is_deleted else 'was already gone'}{rest}")
        return is_deleted

    made = each({name: name for name in names}, board, work, minutes=minutes)
    return [name for name, is_deleted in made.items() if is_deleted]
