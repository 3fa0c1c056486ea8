"""How a mirror is: its stack, its credentials, its last run, and how far the replica is behind the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from ..aws import git_credentials as credentials
from ..aws.stack import Missing, find_clone_url, find_stack, replica_outputs, repository_is_gone
from ..azure import held_credential
from ..azure.client import NO_OBJECT, Build, PushedRef
from ..errors import MirrorError
from . import verification
from .context import Operator
from .up import look

_GOOD_STACK = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")
_REF_CHANGES_LOOKED_AT = 2_000
_GOOD_RUN = ("succeeded", "partiallySucceeded")


@dataclass(frozen=True)
class Status:
    """One mirror, at one moment."""

    name: str
    stack: str | None = None
    """CloudFormation's word; None when there is no stack."""
    credentials: int = 0
    credential_age_days: int | None = None
    """Of the credential that the pipeline holds, or of the oldest where that is not known."""
    credential_works: bool = True
    """Whether the credential that the pipeline holds is there and active, as far as the pipeline tells."""
    pipeline: str | None = None
    enabled: bool = True
    """Whether the pipeline takes runs."""
    last_run: Build | None = None
    refs: int | None = None
    different: int | None = None
    carried: int = 0
    """How many refs the replica only takes below its own prefix."""
    behind_since: datetime | None = None
    """When the oldest push was made that the replica does not have."""
    lfs: bool = False
    """Whether the source keeps files in Git LFS, which are not in the replica."""
    error: str | None = None
    """Why the rest is not known."""

    def lag(self, now: datetime) -> timedelta | None:
        """Return how long the replica has been behind; zero when the refs are equal, None when it is not known."""
        if self.different == 0:
            return timedelta()
        return now - self.behind_since if self.behind_since else None


def attention(status: Status, *, now: datetime, longest_lag: timedelta, oldest_days: int | None) -> list[str]:
    """Return why somebody should look at a mirror; nothing when it is well.

    Args:
        status: the mirror's.
        now: the time.
        longest_lag: how long the replica may be behind.
        oldest_days: how old the credential may be; None for any age.
    """
    reasons = []
    if status.error:
        reasons.append(status.error)
    if status.stack is None and not status.error:
        reasons.append("not deployed")
    elif status.stack and status.stack not in _GOOD_STACK:
        reasons.append(f"the stack is {status.stack}")
    if status.stack and not status.error:
        if status.pipeline is None:
            reasons.append("no pipeline")
        elif status.last_run is None:
            reasons.append("never run")
        if not status.enabled:
            reasons.append("the pipeline is disabled or paused")
    if not status.credential_works:
        reasons.append(f"the pipeline's Git credential is gone or inactive; run 'codecommit-mirror up {status.name}'")
    if status.last_run and status.last_run.done and status.last_run.result not in _GOOD_RUN:
        reasons.append(f"run {status.last_run.id} {status.last_run.result}")
    if status.different:
        lag = status.lag(now)
        if lag is None or lag > longest_lag:
            behind = "" if lag is None else f", behind for {duration(lag)}"
            reasons.append(f"{status.different:,} refs differ{behind}")
    if oldest_days is not None and (status.credential_age_days or 0) > oldest_days:
        reasons.append(f"the credential is {status.credential_age_days} days old")
    return reasons


def behind_since(pushes: Iterable[PushedRef], source: Mapping[str, str], replica: Mapping[str, str]) -> datetime | None:
    """Return when the oldest push was made that the replica does not have yet.

    Args:
        pushes: changes of the source's refs, the newest first.
        source, replica: the refs of both sides.
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


def read(operator: Operator) -> Status:
    """Look at a mirror; what cannot be read is said in ``error``."""
    status = Status(operator.mirror.name)
    try:
        stack = find_stack(operator.aws, operator.mirror)
        if stack is None:
            return status
        user = stack.outputs.get("PushUserName", operator.mirror.user_name)
        status = replace(status, stack=stack.status)
        try:
            issued = credentials.list_credentials(operator.iam, user)
        except Missing:
            issued = []
        status = replace(status, credentials=len(issued))
        _, there = look(operator)
        definition = there.definition
        held = held_credential.of_variables(definition.variables).id if definition else None
        aged = [c for c in issued if c.id == held] or issued
        status = replace(
            status,
            credential_works=not definition or any(c.status == "Active" and held in (c.id, None) for c in issued),
            credential_age_days=aged[0].age_days() if aged else None,
            pipeline=definition.name if definition else None,
            lfs=there.lfs,
            enabled=not definition or definition.body.get("queueStatus", "enabled") == "enabled",
        )
        if definition:
            status = replace(status, last_run=next(operator.azure.builds(definition), None))
        if "ReplicaUrl" in stack.outputs:
            found = _compare(operator)
            status = replace(status, refs=len(found.source), different=len(found.different), carried=found.carried)
            if found.different:
                pushes = islice(operator.azure.pushed_refs(there.source), _REF_CHANGES_LOOKED_AT)
                since = behind_since(pushes, found.source, found.replica)
                status = replace(status, behind_since=since)
    except MirrorError as error:
        return replace(status, error=str(error))
    return status


def _compare(operator: Operator) -> verification.Comparison:
    mirror = operator.mirror
    try:
        url = replica_outputs(operator.aws, mirror).replica_url
        return verification.compare(mirror, url, operator.aws, operator.token)
    except MirrorError:
        if find_clone_url(operator.aws, mirror.name) is None:
            raise MirrorError(repository_is_gone(mirror)) from None
        raise


def duration(length: timedelta) -> str:
    """Return a duration in its largest unit, like ``3 h``."""
    seconds = int(length.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def as_json(status: Status, reasons: list[str], now: datetime) -> dict[str, object]:
    """Return what ``status --json`` prints of a mirror."""
    run, lag = status.last_run, status.lag(now)
    return {
        "mirror": status.name,
        "healthy": not reasons,
        "attention": reasons,
        "stack": status.stack,
        "credentials": status.credentials,
        "credential_age_days": status.credential_age_days,
        "pipeline": status.pipeline,
        "last_run": run
        and {
            "id": run.id,
            "status": run.status,
            "result": run.result,
            "reason": run.reason,
            "finished": run.finished.astimezone(UTC).isoformat() if run.finished else None,
        },
        "refs": status.refs,
        "different": status.different,
        "carried": status.carried,
        "lfs": status.lfs,
        "lag_seconds": None if lag is None else int(lag.total_seconds()),
    }
