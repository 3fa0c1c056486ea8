"""Take a mirror down: read its state, decide what to delete, ask, then delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import engine
from ..aws import cdk, git_credentials
from ..aws.git_credentials import Credential
from ..aws.session import NotFoundError
from ..aws.stack import ReplicaStackState, deployed_deletion_policy, find_clone_url, find_stack, untag_replica
from ..azure import connection
from ..azure.state import AzureState, read_state_without_source
from ..azure.variables import HeldCredential, held_credential
from ..config.mirror import Mirror
from ..errors import MirrorError
from ..progress import Confirm, Say, Steps
from . import verification
from .context import MirrorContext
from .up import wait_for_stack

STEPS = ("Read the current state", "Disconnect the pipeline", "Revoke the Git credentials", "cdk destroy")


@dataclass(frozen=True)
class DeployedMirror:
    """What exists of a mirror in both clouds."""

    region: str
    account: str
    stack: ReplicaStackState | None
    deletion_policy: str | None
    """What the deployed stack does with its repository; None if it owns none."""
    repository: str
    """The contents of the CodeCommit repository in words; empty if the stack does not delete it."""
    azure: AzureState | None
    """None if the repository with the YAML does not exist."""

    @property
    def keeps_replica(self) -> bool:
        """Whether the repository outlives the stack."""
        return self.stack is not None and self.deletion_policy != "Delete"


@dataclass(frozen=True)
class DownPlan:
    """What is to be deleted."""

    question: str | None
    """What to ask before anything is deleted; None if nothing needs a confirmation."""
    note: str
    """What happens to the replica."""


def down(context: MirrorContext, steps: Steps, confirm: Confirm, *, pull_request: bool = False) -> str:
    """Take a mirror down, resuming where an earlier run stopped; return the closing message.

    Raises:
        MirrorError: a step failed, or the answer was no; running again resumes from there.
    """
    mirror = context.mirror
    with steps.step(STEPS[0]) as say:
        state, todo = look(context, say)
        if todo.question:
            confirm(todo.question)
    disconnect_and_revoke(context, steps, state, pull_request=pull_request)
    with steps.step(STEPS[3]) as say:
        if state.stack:
            cdk.destroy(context.folder, mirror.name, context.cdk_context, say)
            say(f"deleted the stack {mirror.stack_name!r}")
        else:
            say("nothing to destroy")
        return end(context, state)


def look(context: MirrorContext, say: Say) -> tuple[DeployedMirror, DownPlan]:
    """Return what there is, and what is to be deleted; changes nothing.

    Raises:
        MirrorError: something cannot be read, or is not to be deleted.
    """
    wait_for_stack(context, say)
    state = read_deployed(context)
    todo = plan(context.mirror, state)
    say(todo.note)
    return state, todo


def disconnect_and_revoke(context: MirrorContext, steps: Steps, state: DeployedMirror, *, pull_request: bool) -> None:
    """Do all that comes before the stack's deletion.

    Raises:
        MirrorError: a step failed; running again resumes from there.
    """
    mirror = context.mirror
    with steps.step(STEPS[1]) as say, context.yaml_lock:
        # Another mirror's removal may have moved the branch since.
        azure = state.azure and read_state_without_source(mirror, context.azure)
        if azure:
            connection.disconnect(mirror, context.azure, azure, pull_request=pull_request, say=say)
        else:
            name = mirror.azure.pipelines_repository or mirror.azure.repository
            say(f"the repository {name!r} is not visible; delete any remaining pipeline by hand")
    with steps.step(STEPS[2]) as say:
        revoked = _revoke(context, state)
        for identifier in revoked:
            say(f"revoked {identifier}")
        if not revoked:
            say("there are no credentials to revoke")


def end(context: MirrorContext, state: DeployedMirror) -> str:
    """Do what remains after the stack's deletion; return the closing message.

    Raises:
        MirrorError: a call failed.
    """
    if state.stack and state.keeps_replica:
        untag_replica(context.aws, context.mirror)
    kept = " Its replica stays in CodeCommit." if state.keeps_replica else ""
    return f"{context.mirror.name} is down.{kept}"


def read_deployed(context: MirrorContext) -> DeployedMirror:
    """Read what exists of a mirror; changes nothing.

    Raises:
        MirrorError: something cannot be read.
    """
    mirror = context.mirror
    stack = find_stack(context.aws, mirror)
    policy = deployed_deletion_policy(context.aws, mirror) if stack else None
    return DeployedMirror(
        region=str(context.aws.region_name),
        account=context.account,
        stack=stack,
        deletion_policy=policy,
        repository=_describe_repository(context) if policy == "Delete" else "",
        azure=read_state_without_source(mirror, context.azure),
    )


def plan(mirror: Mirror, state: DeployedMirror) -> DownPlan:
    """Decide what to delete.

    Raises:
        MirrorError: the stack is protected, the mirror lives elsewhere, or mirrors.yaml contradicts the stack.
    """
    _check_location(mirror, state)
    deleted = []
    if state.azure and state.azure.definition:
        deleted.append(f"the pipeline {state.azure.definition.name!r} with its runs")
    if state.stack is None:
        note = f"the stack {mirror.stack_name!r} is not in region {state.region} of this account"
    elif state.keeps_replica:
        note = "the replica and its history stay"
    else:
        note = f"to be deleted: {state.repository}"
        deleted.append(state.repository)
    aside = "The source keeps its commits."
    if state.azure is None:
        deleted = deleted or ["what remains in AWS"]
        aside = "Azure DevOps is left alone, because the repository there does not exist or is not visible."
    question = f"Delete {' and '.join(deleted)}? {aside}" if deleted else None
    return DownPlan(question, note)


def _check_location(mirror: Mirror, state: DeployedMirror) -> None:
    """Refuse to delete what is protected, what belongs to another account or region, and what mirrors.yaml keeps."""
    if state.stack is None:
        wrong = connection.wrong_replica(state.azure, state.region, state.account) if state.azure else None
        if wrong:
            raise MirrorError(wrong)
        return
    if state.stack.protected:
        raise MirrorError(
            f"the stack {mirror.stack_name!r} has termination protection; set termination_protection: false in "
            f"mirrors.yaml, run 'cdk deploy {mirror.name}', then run this again."
        )
    if state.keeps_replica == mirror.keeps_replica:
        return
    configured = "existing: true" if mirror.existing else f"on_destroy: {mirror.on_destroy}"
    remedy = "correct mirrors.yaml" if mirror.existing else f"run 'cdk deploy {mirror.name}' first"
    if state.deletion_policy is None:
        remedy = "set existing: true, since the stack only refers to it"
    raise MirrorError(
        f"mirrors.yaml says {configured}, but the deployed stack {'keeps' if state.keeps_replica else 'deletes'} the "
        f"repository; {remedy}."
    )


def _describe_repository(context: MirrorContext) -> str:
    name = context.mirror.name
    url = find_clone_url(context.aws, name)
    if url is None:
        return f"the stack, whose CodeCommit repository {name!r} is already gone"
    refs = verification.replica_refs(context.aws, url)
    archived = sum(ref.startswith(engine.ARCHIVE_PREFIX) for ref in refs)
    return (
        f"the CodeCommit repository {name!r} with {engine.count(refs, 'ref')} ({archived:,} of them archived) and all "
        "history"
    )


def _revoke(context: MirrorContext, state: DeployedMirror) -> list[str]:
    """Revoke the credentials that the mirror leaves behind; return their ids."""
    user = state.stack.user_name(context.mirror) if state.stack else context.mirror.user_name
    held = held_credential(state.azure.variables) if state.azure else HeldCredential()
    try:
        existing = git_credentials.list_credentials(context.iam, user)
    except NotFoundError:
        return []
    chosen = credentials_to_revoke(existing, held, has_stack=state.stack is not None)
    return [credential.id for credential in chosen if git_credentials.revoke(context.iam, user, credential.id)]


def credentials_to_revoke(existing: Sequence[Credential], held: HeldCredential, *, has_stack: bool) -> list[Credential]:
    """Decide which credentials go: all of the stack's user; without a stack only those that the pipeline held.

    Without a stack the user may belong to something else.
    """
    return [credential for credential in existing if has_stack or credential.id in (held.id, held.replaces)]
