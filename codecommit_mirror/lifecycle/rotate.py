"""A new credential in, proven by a run, the old one out: through the second of IAM's two slots.

At every moment the pipeline holds one credential that works. What is under way is written beside the pipeline's secrets
(``held_credential``), so that a rotation that was killed is finished by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..aws import git_credentials as credentials
from ..aws.git_credentials import Credential
from ..azure import held_credential
from ..azure.held_credential import HeldCredential
from .credential_delivery import Recipient, issue_into, revoke_strays

Say = Callable[[str], None]
STEPS = ("New credential", "Run with the new credential", "Run without the old credential, and delete it")


@dataclass(frozen=True)
class Rotation:
    """What is to be done."""

    old: str | None
    """The credential to take out; None when none is left."""
    issue: bool
    """Whether a new one is still to be issued: not when an interrupted rotation has delivered it."""
    sure: bool
    """Whether the pipeline says that it holds ``old``; else a person must agree."""


def plan(existing: Collection[Credential], held: HeldCredential, has_secrets: bool, user: str, mirror: str) -> Rotation:
    """Decide what a rotation has to do.

    Args:
        existing: the user's credentials, strays aside.
        held: what the pipeline says that it holds.
        has_secrets: whether the pipeline has the secret variables at all.
        user, mirror: for messages.

    Raises:
        MirrorError: there is no room for a new credential; it names what is in the way.
    """
    ids = [credential.id for credential in existing]
    if held.replaces is not None and held.id in ids:
        return Rotation(held.replaces, issue=False, sure=True)
    if held.id not in ids and held.replaces not in ids and has_secrets and len(ids) == 1:
        return Rotation(ids[0], issue=True, sure=False)
    credentials.check_room(list(existing), user, mirror, in_use=held.id)
    old = next((identifier for identifier in (held.id, held.replaces) if identifier in ids), None)
    return Rotation(old, issue=True, sure=True)


def rotate(
    to: Recipient,
    *,
    step: Callable[[str], AbstractContextManager[Say]],
    prove: Callable[[Say], None],
    confirm: Callable[[str], None],
) -> None:
    """Rotate the pipeline's credential, or finish a rotation that was interrupted.

    Args:
        to: the pipeline and the user.
        step: begins one of ``STEPS``.
        prove: runs the pipeline and compares both sides; raises when the credential does not do.
        confirm: asks a person; raises when the answer is no.
    """
    with step(STEPS[0]) as say:
        held = revoke_strays(to, say)
        todo = plan(to.credentials(), held, held_credential.has_secrets(to.definition.variables), to.user, to.mirror)
        new = held.id
        if todo.issue:
            if not todo.sure:
                confirm(f"The pipeline does not say which credential it holds. Is it {todo.old}? It will be deleted.")
            new = issue_into(to, held, replaces=todo.old)
            say(f"issued {new} into the pipeline's secret variables")
        else:
            say(f"going on with {new}, which an interrupted rotation has delivered")
    with step(STEPS[1]) as say:
        prove(say)
    with step(STEPS[2]) as say:
        if any(credential.id == todo.old for credential in to.credentials()):
            credentials.deactivate(to.iam, to.user, str(todo.old))
            say(f"deactivated {todo.old}")
            prove(say)
            to.revoke(str(todo.old))
            say(f"deleted {todo.old}")
        else:
            say("there is none")
        to.write_held(HeldCredential(new))
