"""Run a mirror's pipeline, once or until both sides are equal."""

from __future__ import annotations

from .. import engine
from ..azure import connection, runs
from ..azure.state import AzureState, read_state
from ..errors import MirrorError
from ..progress import Say
from . import verification
from .connect import not_connected
from .context import MirrorContext

RUN_MINUTES = 150.0
_MAX_RUNS = 3


def run(context: MirrorContext, say: Say, *, branch: str | None, timeout_minutes: float) -> runs.RunResult:
    """Queue a run of the mirror's pipeline and follow it to its end.

    Raises:
        MirrorError: there is no pipeline, or the run does not end in time.
    """
    mirror, state = read_state(context.mirror, context.azure)
    if state.definition is None:
        raise MirrorError(not_connected(context))
    chosen = branch or connection.run_branch(mirror, context.azure, state)
    result = runs.run(context.azure, state.definition, chosen, say, timeout_minutes=timeout_minutes)
    if result.summary:
        say(result.summary)
    return result


def run_successfully(context: MirrorContext, say: Say) -> runs.RunResult:
    """Run the pipeline and follow it to its end.

    Raises:
        MirrorError: there is no pipeline, or its run failed.
    """
    result = run(context, say, branch=None, timeout_minutes=RUN_MINUTES)
    if not result.succeeded:
        raise MirrorError(
            f"run {result.build.id} ended as {result.build.result}; correct what its log above reports, and run this "
            "again."
        )
    return result


def equal_refs(context: MirrorContext, replica_url: str, state: AzureState) -> list[str] | None:
    """Return the refs if the last run succeeded and both sides are equal; None if it takes another run to know.

    Raises:
        MirrorError: a side cannot be read.
    """
    last = next(context.azure.builds(state.definition), None) if state.definition else None
    if last is None or last.result != "succeeded":
        return None
    found = verification.compare(context.mirror, replica_url, context.aws, context.token)
    return None if found.different else list(found.source)


def run_until_equal(context: MirrorContext, replica_url: str, say: Say) -> list[str]:
    """Run the pipeline until both sides are equal, and return the refs; a push in between takes another run.

    Refs that need a person's attention are reported, and do not prevent success.

    Raises:
        MirrorError: a run failed, or the sides still differ after the last one.
    """
    for number in range(_MAX_RUNS):
        if number:
            say("not equal yet: refs may have changed at the source in the meantime; running again")
        result = run_successfully(context, say)
        found = verification.compare(context.mirror, replica_url, context.aws, context.token)
        if not found.different:
            say(engine.equal_refs(len(found.source)))
            return list(found.source)
    named = ", ".join(engine.sanitize(name) for name in found.different[:5])
    differ = f"{verification.differing_refs(len(found.different))} ({named})"
    if result.build.result == "partiallySucceeded":
        say(f"{differ} until a person acts: see the run's summary in Azure DevOps")
        return [name for name in found.source if name not in found.different]
    raise MirrorError(f"{differ} after {_MAX_RUNS} runs; see the last run's summary in Azure DevOps for the reason.")
