"""Rotate the pipeline's Git credential: issue a new one, verify it with a run, delete the old one.

IAM allows two credentials, so the pipeline holds one that works at every moment. What is being done is recorded beside
the pipeline's secrets, so that the next rotation finishes one that was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ..actions import Action
from ..aws import git_credentials, writer
from ..aws.git_credentials import Credential
from ..azure import runs
from ..azure.variables import AZURE_SECRETS, HeldCredential, has_replica_secrets, secret_variable, update_variables
from ..errors import MirrorError
from ..progress import Confirm, say, step
from . import state, verification
from .context import MirrorContext
from .credential_delivery import (
    CredentialTarget,
    issue_into,
    revoke_undelivered,
    target_of,
    undelivered_credentials,
)
from .preflight import missing_secrets
from .run import RUN_MINUTES, run_until_equal

READ, ISSUE, PROVE, DELETE = STEPS = (
    "Read both clouds",
    "New credential",
    "Run with the new credential",
    "Run without the old credential, and delete it",
)
SOURCE = "Store the source's credentials"


@dataclass(frozen=True)
class RotationPlan:
    """What a rotation has to do."""

    old: str | None
    """The credential to delete; None if there is none."""
    issue: bool
    """Whether to issue a new one, which an interrupted rotation may have done already."""
    certain: bool
    """Whether the pipeline records that it holds ``old``; otherwise a person must confirm it."""


def rotate(context: MirrorContext, confirm: Confirm) -> str:
    """Rotate the pipeline's credential, or finish a rotation that was interrupted; return the closing message.

    Raises:
        MirrorError: a step failed; running again resumes from there.
    """
    if context.mirror.replica_auth == "role":
        return f"{context.mirror.name} has nothing to rotate: its pipeline acts as a role, and no credential is stored."
    context.token.check_writing()
    with step(READ):
        current = _read(context)
        target = target_of(context, current)
        say(f"pipeline {target.definition.name!r}, user {target.user}")

    def verify() -> None:
        run_until_equal(context, current)
        # Runs that began with the old credential need it until they end.
        for build in list(context.azure.builds(target.definition, status="inProgress")):
            runs.follow(context.azure, build, timeout_minutes=RUN_MINUTES)

    replace_credential(target, verify=verify, confirm=confirm)
    return f"{context.mirror.name} has a new credential, and the old one is deleted."


def _read(context: MirrorContext) -> state.MirrorState:
    current = state.read(context, state.settled_stack(context), compare=False)
    if current.other_source:
        raise MirrorError(current.other_source)
    if current.outputs and (other := writer.other_rights(context.iam, current.mirror, current.outputs)):
        raise MirrorError(other)
    if current.mirror.replica_auth == "user" and current.record and current.record.is_of_role:
        raise MirrorError(
            f"the pipeline of {current.mirror.name} is recorded in the tags of a role, which CI may write; run "
            f"'codecommit-mirror up {current.mirror.name}' first, and look at the pipeline that it names."
        )
    return current


def preview(context: MirrorContext) -> tuple[Action, ...]:
    """Return what a rotation would do; changes nothing.

    Raises:
        MirrorError: something cannot be read, or IAM would refuse a new credential.
    """
    if context.mirror.replica_auth == "role":
        return ()
    target = target_of(context, _read(context))
    existing, held = target.credentials(), target.held()
    lost = undelivered_credentials(existing, held)
    kept = [credential for credential in existing if credential not in lost]
    has_secrets = has_replica_secrets(target.definition.variables)
    todo = plan(kept, replace(held, issuing=None), has_secrets, target.user, target.mirror)
    new = Action("create", f"Git credential of {target.user!r}, stored in the pipeline's secret variables")
    run = Action("run", "pipeline, until both sides are equal")
    return (
        *(
            Action("delete", f"Git credential {credential.id}, which an interrupted command had issued")
            for credential in lost
        ),
        *((new,) if todo.issue else ()),
        replace(run, after="with the new credential"),
        *((replace(run, after="without the old credential"),) if todo.old else ()),
        *((Action("delete", f"Git credential {todo.old}"),) if todo.old else ()),
    )


def preview_source(context: MirrorContext) -> tuple[Action, ...]:
    """Return what storing the source's credentials anew would do; changes nothing."""
    if context.mirror.source_auth == "job-token":
        return ()
    stored = (Action("update", f"secret variable {name}") for name in AZURE_SECRETS)
    return (*stored, Action("run", "pipeline, until both sides are equal", after="with the new credentials"))


def rotate_source(context: MirrorContext) -> str:
    """Store new Git credentials of the source in the pipeline, and prove them with a run; return the closing message.

    Raises:
        MirrorError: there is no one to ask for them, the source does not accept them, or the run failed.
    """
    mirror = context.mirror
    if mirror.source_auth == "job-token":
        return f"{mirror.name} has nothing to rotate: its pipeline reads the source with the run's own token."
    given, unknown = context.source_secrets, [name for name in AZURE_SECRETS if name not in context.source_secrets]
    if unknown and context.ask is None:
        raise MirrorError(missing_secrets(unknown))
    context.token.check_writing()
    with step(READ):
        current = _read(context)
    given.update({name: context.ask(name) for name in unknown if context.ask})
    with step(SOURCE):
        verification.check_source_credentials(mirror, given, context.named_server)
        update_variables(
            context.azure, current.definition, {name: secret_variable(given[name]) for name in AZURE_SECRETS}
        )
        say(f"stored {' and '.join(AZURE_SECRETS)} in the pipeline's secret variables")
    with step(PROVE):
        run_until_equal(context, current)
    return f"{mirror.name} reads its source with new credentials."


def plan(
    existing: Collection[Credential], held: HeldCredential, has_secrets: bool, user: str, mirror: str
) -> RotationPlan:
    """Decide what a rotation has to do.

    Args:
        existing: the user's credentials, without undelivered ones.
        held: which credential the pipeline records.
        has_secrets: whether the pipeline has the secret variables at all.
        user: the IAM user, for messages.
        mirror: the mirror's name, for messages.

    Raises:
        MirrorError: IAM would refuse a new credential; it says which one to delete.
    """
    ids = [credential.id for credential in existing]
    created = {credential.id: credential.created for credential in existing}
    # The variable is plain, and whoever may edit the pipeline can write that a rotation was interrupted.
    if held.id in created and held.replaces in created and created[held.replaces] <= created[held.id]:
        return RotationPlan(held.replaces, issue=False, certain=True)
    if held.id not in ids and held.replaces not in ids and has_secrets and len(ids) == 1:
        return RotationPlan(ids[0], issue=True, certain=False)
    git_credentials.ensure_credential_slot(list(existing), user, mirror, in_use=held.id)
    old = next((identifier for identifier in (held.id, held.replaces) if identifier in ids), None)
    return RotationPlan(old, issue=True, certain=True)


def replace_credential(target: CredentialTarget, *, verify: Callable[[], None], confirm: Confirm) -> None:
    """Replace the credential in the pipeline.

    Args:
        target: the pipeline and the user.
        verify: runs the pipeline and compares both sides; raises if the credential does not work.
        confirm: asks a person.

    Raises:
        MirrorError: a step failed; running again resumes from there.
    """
    with step(ISSUE):
        held = revoke_undelivered(target)
        has_secrets = has_replica_secrets(target.definition.variables)
        todo = plan(target.credentials(), held, has_secrets, target.user, target.mirror)
        new = held.id
        if todo.issue:
            if not todo.certain:
                confirm(
                    f"The pipeline does not record which credential it holds. Is it {todo.old}? It will be deleted."
                )
            new = issue_into(target, held, replaces=todo.old)
            say(f"issued {new} and stored it in the pipeline's secret variables")
        else:
            say(f"continuing with {new}, which an interrupted rotation delivered")
    with step(PROVE):
        verify()
    with step(DELETE):
        if any(credential.id == todo.old for credential in target.credentials()):
            git_credentials.deactivate(target.iam, target.user, str(todo.old))
            say(f"deactivated {todo.old}")
            verify()
            target.revoke(str(todo.old))
            say(f"deleted {todo.old}")
        else:
            say("there is no old credential")
        target.record(HeldCredential(new))
