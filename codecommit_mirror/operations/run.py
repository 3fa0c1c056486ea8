"""Run a mirror's pipeline, once or until both sides are equal; wait for runs that were queued before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from .. import engine_api
from ..azure import connection, runs
from ..azure.rest.objects import GOOD_RESULTS, WITH_ISSUES, Build
from ..azure.state import AzureState
from ..errors import MirrorError
from ..progress import say
from . import verification
from .context import MirrorContext
from .state import MirrorState, not_connected, read_azure
from .verification import Comparison

RUN_MINUTES = 150.0
_MAX_RUNS = 3
_POLL_SECONDS = 2.0


def run(
    context: MirrorContext,
    azure: AzureState,
    *,
    branch: str | None = None,
    parameters: Mapping[str, str] | None = None,
    timeout_minutes: float = RUN_MINUTES,
) -> runs.RunResult:
    """Queue a run of the mirror's pipeline and follow it to its end.

    Args:
        context: the mirror's.
        azure: its state in Azure DevOps.
        branch: the branch whose YAML is run; None for the one that has it.
        parameters: values of runtime parameters.
        timeout_minutes: how long to wait.

    Raises:
        MirrorError: there is no pipeline, or the run does not end in time.
    """
    if azure.definition is None:
        raise MirrorError(not_connected(context.mirror))
    branch = branch or connection.run_branch(context.mirror, azure)
    result = runs.run(context.azure, azure.definition, branch, parameters=parameters, timeout_minutes=timeout_minutes)
    if result.summary:
        say(result.summary)
    return result


def run_successfully(context: MirrorContext, azure: AzureState) -> runs.RunResult:
    """Run the pipeline and follow it to its end.

    Raises:
        MirrorError: there is no pipeline, or its run failed.
    """
    result = run(context, azure)
    if not result.succeeded:
        raise MirrorError(
            f"run {result.build.id} ended as {result.build.result}; correct what its log above reports, and run this "
            "again."
        )
    return result


def run_until_equal(context: MirrorContext, state: MirrorState) -> Comparison:
    """Run the pipeline until both sides are equal, and return the refs; a push in between takes another run.

    Refs that need a person's attention are reported, and do not prevent success.

    Raises:
        MirrorError: a run failed, or the sides still differ after the last one.
    """
    replica_url = state.replica_outputs().replica_url
    for number in range(_MAX_RUNS):
        if number:
            say("not equal yet: refs may have changed at the source in the meantime; running again")
        result = run_successfully(context, state.azure_side)
        comparison = verification.compare(state.mirror, replica_url, context.aws, context.token)
        if not comparison.different:
            say(engine_api.equal_refs(len(comparison.source)))
            return comparison
    named = ", ".join(engine_api.sanitize(name) for name in comparison.different[:5])
    differ = f"{verification.differing_refs(len(comparison.different))} ({named})"
    if result.build.result == WITH_ISSUES:
        say(f"{differ} until a person acts: see the run's summary in Azure DevOps")
        return comparison
    raise MirrorError(f"{differ} after {_MAX_RUNS} runs; see the last run's summary in Azure DevOps for the reason.")


class Movement:
    """When a run of any mirror was last seen in progress or at its end: with one parallel job they take turns."""

    def __init__(self) -> None:
        self.at = time.monotonic()


def wait_for_last_run(
    context: MirrorContext, movement: Movement, patience_minutes: float, is_late: Callable[[], bool]
) -> Build:
    """Return a mirror's latest run once it has ended, or as it is when it is late.

    Args:
        context: the mirror's.
        movement: shared by all mirrors that are waited for.
        patience_minutes: how long to wait while none of their runs is in progress.
        is_late: whether there is no more time.

    Raises:
        MirrorError: the pipeline has never run, or nothing moves.
    """
    azure = read_azure(context)
    build = next(context.azure.builds(azure.definition), None) if azure.definition else None
    if azure.definition is None or build is None:
        raise MirrorError("the pipeline has never run.")
    if build.done and build.result not in GOOD_RESULTS:
        # One that began before it, or waits for an agent, may still succeed.
        for status in ("inProgress", "notStarted"):
            build = next(context.azure.builds(azure.definition, status=status), build)
    say(f"run {build.id}")
    while not build.done and not is_late():
        if time.monotonic() - movement.at > patience_minutes * 60:
            raise MirrorError(
                f"run {build.id} has not begun, and no other one is in progress: there may be no free parallel job; "
                "'codecommit-mirror status' shows later how it ended."
            )
        time.sleep(_POLL_SECONDS)
        build = context.azure.build(build.id)
        if build.status != "notStarted":
            movement.at = time.monotonic()
    return build
