"""The Azure side of provisioning from CI, for mirrors that need no secret.

A job does not wait for the runs that it queues: with one parallel job they only begin once it has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from .. import engine
from ..azure import connection
from ..azure.client import Build
from ..azure.state import read_state, read_state_without_source
from ..config.ci import SOURCE_METADATA
from ..config.mirror import Mirror
from ..errors import MirrorError
from ..fleet.work import each
from ..lifecycle import replica_auth, verification
from ..lifecycle.connect import connect as connect_mirror
from ..lifecycle.context import MirrorContext
from ..progress import Board, Row, Say

_GOOD = ("succeeded", "partiallySucceeded")
_POLL_SECONDS = 2.0


def needs_no_secret(mirror: Mirror) -> bool:
    """Whether nothing secret is stored for the mirror, so that a job can connect its pipeline."""
    return mirror.replica_auth == "role" and mirror.source_auth == "job-token"


def connect(contexts: Mapping[str, MirrorContext], board: Board, *, minutes: float) -> list[str]:
    """Connect the mirrors' pipelines, and queue a run of each one that is new, was changed, or never succeeded.

    Args:
        contexts: mirrors that need no secret, by name.
        board: shows the progress, and which mirrors are left for the next time.
        minutes: after how long no further mirror is begun.

    Returns:
        The mirrors that have a run under way, which shows whether they work.
    """

    def work(context: MirrorContext, row: Row) -> bool:
        stack = context.find_stack()
        if stack is None or stack.outputs is None:
            raise MirrorError("the stack is not deployed; see the reason above.")
        if replica_auth.is_changing(context.mirror, stack.outputs):
            raise MirrorError(f"the pipeline still acts as a user; run 'codecommit-mirror up {row.name}' once.")
        with row.step("Connect the pipeline") as say, context.yaml_lock:
            state, changed = connect_mirror(
                context, stack.outputs.replica_url, say, role_arn=stack.outputs.push_role_arn
            )
        build = _proof(context.azure.builds(state.definition)) if state.definition and not changed else None
        if state.definition is None or (build and build.done):
            row.succeed("nothing to do")
            return False
        if build:
            row.succeed(f"run {build.id} has not ended yet")
            return True
        with row.step("Queue a run"):
            branch = connection.run_branch(read_state(context.mirror, context.azure)[0], context.azure, state)
            build = context.azure.queue(state.definition, branch)
        row.succeed(f"queued run {build.id}")
        return True

    made = each(contexts, board, work, minutes=minutes)
    return [name for name, under_way in made.items() if under_way]


def verify(contexts: Mapping[str, MirrorContext], board: Board, *, patience_minutes: float, minutes: float) -> None:
    """Wait for the mirrors' last runs, and compare both sides; the board's rows say how each one ended.

    Args:
        contexts: by the mirror's name.
        board: shows the progress.
        patience_minutes: how long to wait while none of the runs is in progress.
        minutes: after how long the mirrors whose runs have not ended are left.
    """
    moved = _Moved()

    def work(context: MirrorContext, row: Row) -> None:
        with row.step("Wait for the run") as say:
            build = _last_run(context, say, moved, patience_minutes * 60, lambda: board.seconds() >= minutes * 60)
        if not build.done:
            row.leave(f"run {build.id} has not ended; 'codecommit-mirror verify {row.name}' compares both sides later")
            return
        if build.result not in _GOOD:
            raise MirrorError(f"run {build.id} ended as {build.result}; see its log in Azure DevOps.")
        with row.step("Compare"):
            stack = context.find_stack()
            if stack is None or stack.outputs is None:
                raise MirrorError("the stack is not deployed.")
            found = verification.compare(context.mirror, stack.outputs.replica_url, context.aws, context.token)
            if found.different and build.result == "succeeded":
                raise MirrorError(f"{verification.differing_refs(len(found.different))}; run it again.")
        row.succeed(f"run {build.id} {build.result}: {engine.equal_refs(len(found.source) - len(found.different))}.")

    each(contexts, board, work, minutes=minutes)


class _Moved:
    """When a run was last seen in progress or at its end."""

    def __init__(self) -> None:
        self.at = time.monotonic()


def _last_run(context: MirrorContext, say: Say, moved: _Moved, patience: float, is_late: Callable[[], bool]) -> Build:
    """Return the last run once it has ended, or as it is when it is late."""
    _, state = read_state(context.mirror, context.azure)
    build = next(context.azure.builds(state.definition), None) if state.definition else None
    if state.definition is None or build is None:
        raise MirrorError("the pipeline has never run.")
    if build.done and build.result not in _GOOD:
        # One that began before it, or waits for an agent, may still succeed.
        for status in ("inProgress", "notStarted"):
            build = next(context.azure.builds(state.definition, status=status), build)
    say(f"run {build.id}")
    while not build.done and not is_late():
        if time.monotonic() - moved.at > patience:
            raise MirrorError(
                f"run {build.id} has not begun, and no other one is in progress: there may be no free parallel job; "
                "'codecommit-mirror status' shows later how it ended."
            )
        time.sleep(_POLL_SECONDS)
        now = context.azure.build(build.id)
        if now.status != "notStarted":
            moved.at = time.monotonic()
        build = now
    return build


def _proof(builds: Iterable[Build]) -> Build | None:
    """Return the run that shows that the pipeline works, or else the newest one that may still show it."""
    under_way = None
    for build in builds:
        if build.result in _GOOD:
            return build
        if not build.done:
            under_way = under_way or build
    return under_way


def source_of(name: str, template: Mapping[str, Any]) -> Mirror | None:
    """Return a mirror that is no longer in ``mirrors.yaml``, as far as its stack's template knows it.

    None if its pipeline is not CI's affair, because it needs a secret.
    """
    known = template.get("Metadata", {}).get(SOURCE_METADATA, {})
    if (known.get("source_auth"), known.get("replica_auth")) != ("job-token", "role"):
        return None
    try:
        return Mirror.model_validate({"name": name, "azure": known.get("azure")})
    except ValidationError:
        return None


def disconnect(context: MirrorContext, say: Say) -> None:
    """Delete a mirror's pipeline and its YAML, if they are there.

    Raises:
        MirrorError: the service refuses.
    """
    with context.yaml_lock:
        state = read_state_without_source(context.mirror, context.azure)
        if state is None:
            say("the repository with the YAML is not visible; delete any remaining pipeline by hand")
            return
        connection.disconnect(context.mirror, context.azure, state, pull_request=False, say=say)
