"""Read how a mirror is; if one thing cannot be read, what was read before it stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from ..aws import git_credentials, writer
from ..aws.git_credentials import Credential
from ..aws.repository import find_clone_url, missing_repository
from ..aws.session import client
from ..aws.stack import ReplicaOutputs, ReplicaStackState, read_outputs
from ..aws.writer import PipelineRecord
from ..azure.rest.objects import NO_OBJECT, Build, PushedRef
from ..azure.state import AzureState, read_state
from ..azure.variables import held_credential
from ..backup.snapshots import Snapshots, read_chain
from ..config.guard import Guard
from ..config.mirror import Mirror
from ..errors import DeniedError, MirrorError, NotFoundError
from ..operations import verification
from ..operations.context import MirrorContext
from ..operations.state import read_record
from ..operations.verification import Comparison

_MAX_REF_CHANGES = 2_000
"""How many changes of refs are read to find out how far a replica is behind."""


@dataclass
class Readings:
    """What was read of a mirror; None if it was not read or does not exist."""

    mirror: Mirror
    account: str | None = None
    region: str | None = None
    stack: ReplicaStackState | None = None
    drifted: Sequence[str] = ()
    """The logical ids of what CloudFormation found to have drifted when it last looked."""
    credentials: Sequence[Credential] = ()
    foreign_rights: Sequence[str] | None = None
    """What the user or role has beside the mirror's policy; None if it was not read."""
    record: PipelineRecord | None = None
    azure: AzureState | None = None
    last_run: Build | None = None
    comparison: Comparison | None = None
    since: datetime | None = None
    """When the oldest push was made that the replica does not have."""
    replica_is_gone: bool = False
    snapshots: Snapshots | None = None
    """Its snapshots; None if it was not read, or the guard is not deployed."""
    error: str | None = None
    """Why something could not be read."""

    @property
    def acts_as_role(self) -> bool:
        """Whether the deployed stack has a role and no user."""
        outputs = self.stack.outputs if self.stack else None
        return outputs is not None and outputs.push_user_name is None

    @property
    def held(self) -> str | None:
        """The id of the credential that the pipeline records."""
        definition = self.azure.definition if self.azure else None
        return held_credential(definition.variables).id if definition else None

    @property
    def credential_age_days(self) -> int | None:
        """The age of the credential that the pipeline holds, or of the oldest one if that is unknown."""
        aged = [credential for credential in self.credentials if credential.id == self.held] or self.credentials
        return aged[0].age_days() if self.azure and aged else None


def read(
    context: MirrorContext, *, deep: bool = False, guard_of: Callable[[Mirror], Guard | None] = lambda _: None
) -> Readings:
    """Read a mirror's status.

    Args:
        context: the mirror's.
        deep: whether to read what takes further calls for each mirror: a user's policies and keys, snapshots.
        guard_of: returns the guard of mirrors.yaml that watches a mirror, if one does.
    """
    readings = Readings(context.mirror)
    if deep and (guard := guard_of(context.mirror)):
        with suppress(MirrorError):
            readings.snapshots = read_chain(context.aws, context.mirror.name, pinned=guard.keys)
    try:
        _read(context, readings, deep=deep)
    except MirrorError as failure:
        readings.error = str(failure)
    return readings


def _read(context: MirrorContext, readings: Readings, *, deep: bool) -> None:
    readings.region = str(context.aws.region_name)
    readings.stack = context.find_stack()
    readings.account = context.mirror.account or (context.account if deep else None)
    if readings.stack is None:
        return
    if readings.stack.drift[0] == "DRIFTED":
        cloudformation = client(context.aws, "cloudformation")
        readings.drifted = writer.drifted_resources(cloudformation, context.mirror.stack_name)
    if not readings.acts_as_role:
        user = readings.stack.user_name(context.mirror)
        readings.credentials = git_credentials.find_credentials(context.iam, user) or ()
    if deep and readings.stack.outputs:
        readings.foreign_rights = _foreign_rights(context, readings.stack.outputs)
    readings.record = _read_record(context, readings.stack)
    recorded = readings.record.definition if readings.record else None
    readings.mirror, azure = read_state(context.mirror, context.azure, recorded, trusts_file=False)
    readings.azure = context.with_engine(azure)
    if readings.azure.definition:
        readings.last_run = context.azure.newest_build(readings.azure.definition)
    if readings.stack.outputs is None:
        return
    readings.comparison = _compare(context, readings, readings.stack.outputs)
    if readings.comparison.different:
        pushes = islice(context.azure.pushed_refs(readings.azure.source), _MAX_REF_CHANGES)
        readings.since = behind_since(pushes, readings.comparison.source, readings.comparison.replica)


def _read_record(context: MirrorContext, stack: ReplicaStackState) -> PipelineRecord | None:
    """Return which pipeline is recorded, or None if these credentials may not look."""
    with suppress(DeniedError):
        return read_record(context, stack.outputs)
    return None


def _foreign_rights(context: MirrorContext, outputs: ReplicaOutputs) -> list[str] | None:
    """Return what the user or role has beside the policy, or None if these credentials may not look."""
    try:
        return writer.foreign_rights(context.iam, context.mirror, outputs)
    except NotFoundError:
        return []
    except DeniedError:
        return None


def _compare(context: MirrorContext, readings: Readings, outputs: ReplicaOutputs) -> Comparison:
    mirror = context.mirror
    try:
        url = read_outputs(context.aws, mirror).replica_url if mirror.existing else outputs.replica_url
        return verification.compare(mirror, url, context.aws, context.token)
    except MirrorError:
        if find_clone_url(context.aws, mirror.name) is None:
            readings.replica_is_gone = True
            raise MirrorError(missing_repository(mirror)) from None
        raise


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
