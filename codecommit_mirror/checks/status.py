"""A mirror's status: its stack, credentials, last run, and how far the replica is behind the source.

Read first (``read``), then judged by pure functions (``attention``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from ..aws import git_credentials
from ..aws.git_credentials import Credential
from ..aws.session import NotFoundError
from ..aws.stack import (
    COMPLETE,
    ReplicaOutputs,
    ReplicaStackState,
    find_clone_url,
    missing_repository,
    read_outputs,
)
from ..azure.client import NO_OBJECT, Build, PushedRef
from ..azure.state import AzureState, read_state
from ..azure.variables import held_credential
from ..errors import MirrorError
from ..operations import verification
from ..operations.context import MirrorContext
from ..operations.verification import Comparison, differing_refs

_MAX_REF_CHANGES = 2_000
"""How many changes of refs are read to find out how far a replica is behind."""
_GOOD_RESULTS = ("succeeded", "partiallySucceeded")


@dataclass(frozen=True)
class Status:
    """A mirror at one moment."""

    name: str
    stack: str | None = None
    """CloudFormation's status; None if there is no stack."""
    acts_as_role: bool = False
    """Whether the pipeline acts as a role, so that there is no user and no Git credential."""
    credentials: int = 0
    """How many Git credentials the mirror's user has."""
    credential_age_days: int | None = None
    """Of the credential that the pipeline holds, or of the oldest one if that is unknown."""
    credential_works: bool = True
    """Whether the credential that the pipeline holds exists and is active, as far as it is known."""
    pipeline: str | None = None
    enabled: bool = True
    """Whether the pipeline accepts runs."""
    last_run: Build | None = None
    refs: int | None = None
    different: int | None = None
    carried: int = 0
    """How many refs the replica only accepts below the engine's own prefix."""
    behind_since: datetime | None = None
    """When the oldest push was made that the replica does not have."""
    lfs: bool = False
    """Whether the source keeps files in Git LFS, which are not in the replica."""
    error: str | None = None
    """Why something could not be read."""

    def lag(self, now: datetime) -> timedelta | None:
        """Return how long the replica has been behind: zero if the refs are equal, None if it is unknown."""
        if self.different == 0:
            return timedelta()
        return now - self.behind_since if self.behind_since else None


def attention(
    status: Status,
    *,
    now: datetime,
    longest_lag: timedelta,
    oldest_days: int | None,
    unguarded: str | None = None,
) -> list[str]:
    """Return why a mirror needs attention; nothing if it is well, as far as it could be read.

    Args:
        status: the mirror's.
        now: the time.
        longest_lag: how long the replica may be behind.
        oldest_days: how old the credential may be; None for any age.
        unguarded: why the guard does not watch it, if it does not.
    """
    return [
        *_stack_reasons(status),
        *_run_reasons(status),
        *_lag_reasons(status, now, longest_lag),
        *_age_reasons(status, oldest_days),
        *([unguarded] if unguarded and status.stack else []),
    ]


def _stack_reasons(status: Status) -> list[str]:
    if status.stack is None:
        return [] if status.error else ["not deployed"]
    return [] if status.stack in COMPLETE else [f"the stack is {status.stack}"]


def _run_reasons(status: Status) -> list[str]:
    reasons = []
    if status.stack and not status.error:
        if status.pipeline is None:
            reasons.append("no pipeline")
        elif status.last_run is None:
            reasons.append("never run")
        if not status.enabled:
            reasons.append("the pipeline is disabled or paused")
    if not status.credential_works:
        reasons.append(f"the pipeline's Git credential is gone or inactive; run 'codecommit-mirror up {status.name}'")
    if status.last_run and status.last_run.done and status.last_run.result not in _GOOD_RESULTS:
        reasons.append(f"run {status.last_run.id} {status.last_run.result}")
    return reasons


def _lag_reasons(status: Status, now: datetime, longest_lag: timedelta) -> list[str]:
    lag = status.lag(now)
    if not status.different or (lag is not None and lag <= longest_lag):
        return []
    behind = "" if lag is None else f", behind for {duration(lag)}"
    return [f"{differing_refs(status.different)}{behind}"]


def _age_reasons(status: Status, oldest_days: int | None) -> list[str]:
    age = status.credential_age_days or 0
    return [f"the credential is {age} days old"] if oldest_days is not None and age > oldest_days else []


def behind_since(pushes: Iterable[PushedRef], source: Mapping[str, str], replica: Mapping[str, str]) -> datetime | None:
    """Return when the oldest push was made that the replica does not have yet.

    Args:
        pushes: changes of the source's refs, the newest first.
        source: the source's refs.
        replica: the replica's refs, by the source's names.
    """
    waiting = {name for name in {*source, *replica} if source.get(name) != replica.get(name)}
    oldest = None
    for push in pushes:
        if push.name not in waiting:
            continue
        if push.new == replica.get(push.name, NO_OBJECT):
            waiting.discard(push.name)
            if not waiting:
                break
            continue
        oldest = push.date
    return oldest


@dataclass
class Readings:
    """What was read of a mirror; None if it was not read or does not exist."""

    stack: ReplicaStackState | None = None
    credentials: Sequence[Credential] = ()
    azure: AzureState | None = None
    last_run: Build | None = None
    comparison: Comparison | None = None
    since: datetime | None = None
    """When the oldest push was made that the replica does not have."""

    @property
    def acts_as_role(self) -> bool:
        """Whether the deployed stack has a role and no user."""
        outputs = self.stack.outputs if self.stack else None
        return outputs is not None and outputs.push_user_name is None

    def read(self, context: MirrorContext) -> None:
        """Read one thing after the other; if one cannot be read, what was read before it stays."""
        self.stack = context.find_stack()
        if self.stack is None:
            return
        if not self.acts_as_role:
            self.credentials = _list_credentials(context, self.stack)
        _, self.azure = read_state(context.mirror, context.azure)
        if self.azure.definition:
            self.last_run = next(context.azure.builds(self.azure.definition), None)
        if self.stack.outputs is None:
            return
        self.comparison = _compare(context, self.stack.outputs)
        if self.comparison.different:
            pushes = islice(context.azure.pushed_refs(self.azure.source), _MAX_REF_CHANGES)
            self.since = behind_since(pushes, self.comparison.source, self.comparison.replica)


def read(context: MirrorContext) -> Status:
    """Read a mirror's status; ``error`` says what could not be read, and the rest is what could."""
    readings = Readings()
    error = None
    try:
        readings.read(context)
    except MirrorError as failure:
        error = str(failure)
    return summarize(context.mirror.name, readings, error)


def summarize(name: str, readings: Readings, error: str | None = None) -> Status:
    """Return the status that these readings mean; ``error`` says why they are not complete."""
    azure, credentials, comparison = readings.azure, readings.credentials, readings.comparison
    definition = azure.definition if azure else None
    held = held_credential(definition.variables).id if definition else None
    aged = [credential for credential in credentials if credential.id == held] or credentials
    return Status(
        name=name,
        stack=readings.stack.status if readings.stack else None,
        acts_as_role=readings.acts_as_role,
        credentials=len(credentials),
        credential_age_days=aged[0].age_days() if azure and aged else None,
        credential_works=not definition
        or readings.acts_as_role
        or any(credential.status == "Active" and held in (credential.id, None) for credential in credentials),
        pipeline=definition.name if definition else None,
        enabled=not definition or definition.body.get("queueStatus", "enabled") == "enabled",
        last_run=readings.last_run,
        refs=len(comparison.source) if comparison else None,
        different=len(comparison.different) if comparison else None,
        carried=comparison.carried if comparison else 0,
        behind_since=readings.since,
        lfs=azure.lfs if azure else False,
        error=error,
    )


def _list_credentials(context: MirrorContext, stack: ReplicaStackState) -> list[Credential]:
    try:
        return git_credentials.list_credentials(context.iam, stack.user_name(context.mirror))
    except NotFoundError:
        return []


def _compare(context: MirrorContext, outputs: ReplicaOutputs) -> Comparison:
    mirror = context.mirror
    try:
        url = read_outputs(context.aws, mirror).replica_url if mirror.existing else outputs.replica_url
        return verification.compare(mirror, url, context.aws, context.token)
    except MirrorError:
        if find_clone_url(context.aws, mirror.name) is None:
            raise MirrorError(missing_repository(mirror)) from None
        raise


def duration(length: timedelta) -> str:
    """Return a duration in its largest unit, like ``3 h``."""
    seconds = int(length.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
