"""Deliver Git credentials from IAM into the pipeline's secret variables; a password is only ever in memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from .. import engine_api
from ..aws import git_credentials, writer
from ..aws.git_credentials import Credential, IssuedCredential
from ..azure.rest.client import AzureDevOps
from ..azure.rest.objects import Definition
from ..azure.variables import (
    AWS_GIT_PASSWORD,
    AWS_GIT_USERNAME,
    HELD_CREDENTIAL,
    HeldCredential,
    Issuing,
    check_unchanged,
    has_replica_secrets,
    held_credential,
    plain_variable,
    secret_variable,
    update_variables,
)
from ..errors import AzureError, ConcurrentRunError, MirrorError
from ..progress import say
from .context import MirrorContext
from .state import MirrorState
from .verification import password_endpoint

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

_PROPAGATION_SECONDS = 120
"""IAM is eventually consistent: a new credential can be refused for some seconds."""
_MAX_ISSUING_TIME = timedelta(minutes=15)
"""Between the record and the credential that it announces, allowing for clock skew."""


@dataclass(frozen=True)
class CredentialTarget:
    """The pipeline that holds a credential, and the IAM user that the credential belongs to."""

    azure: AzureDevOps
    definition: Definition
    iam: IAMClient
    user: str
    account: str
    replica_url: str
    """Where the credential must work."""
    mirror: str
    """The mirror's name, for messages."""
    other_rights: Callable[[], str | None]
    """Says that the user may do more than push to the replica, if that is so."""

    def held(self) -> HeldCredential:
        """Return which credential the pipeline recorded when its definition was read."""
        return held_credential(self.definition.variables)

    def record(self, held: HeldCredential) -> None:
        """Record which credential the pipeline holds."""
        text = replace(held, account=self.account).to_json()
        update_variables(self.azure, self.definition, {HELD_CREDENTIAL: plain_variable(text)})

    def credentials(self) -> list[Credential]:
        """Return the user's credentials, oldest first."""
        return git_credentials.list_credentials(self.iam, self.user)

    def revoke(self, credential_id: str) -> None:
        """Deactivate and delete one of the user's credentials."""
        git_credentials.revoke(self.iam, self.user, credential_id)


def target_of(context: MirrorContext, state: MirrorState) -> CredentialTarget:
    """Return the mirror's pipeline and user.

    Raises:
        MirrorError: the mirror has no stack, no user or no pipeline.
    """
    outputs = state.replica_outputs()
    return CredentialTarget(
        azure=context.azure,
        definition=state.definition,
        iam=context.iam,
        user=outputs.user_of(state.mirror),
        account=outputs.replica_arn.split(":")[4],
        replica_url=outputs.replica_url,
        mirror=state.mirror.name,
        other_rights=partial(writer.other_rights, context.iam, state.mirror, outputs),
    )


def keeps_credential(held: HeldCredential, existing: Collection[Credential], *, has_secrets: bool) -> bool:
    """Decide whether the pipeline has a credential that appears to work; one that was entered by hand counts.

    Args:
        held: which credential the pipeline records.
        existing: the user's credentials.
        has_secrets: whether the pipeline has the secret variables at all.
    """
    return has_secrets and any(
        credential.status == "Active" and held.id in (credential.id, None) for credential in existing
    )


def deliver(context: MirrorContext, state: MirrorState) -> MirrorState:
    """Make sure that the pipeline holds a Git credential for the replica, unless it acts as a role.

    Raises:
        MirrorError: the credential cannot be issued, does not work, or cannot be stored.
    """
    if state.mirror.replica_auth == "role":
        say(f"none is stored: the role trusts the tokens of {state.mirror.token_subject}")
        return state
    target = target_of(context, state)
    if not ensure_credential(target):
        return state
    return replace(state, azure=replace(state.azure_side, definition=context.azure.definition(target.definition.id)))


def ensure_credential(target: CredentialTarget) -> bool:
    """Make sure that the pipeline holds a credential that appears to work; issue one if it does not.

    Secrets that were entered by hand are kept. Returns whether one was issued.

    Raises:
        MirrorError: a call failed; running again is safe.
    """
    held = revoke_undelivered(target)
    if keeps_credential(held, target.credentials(), has_secrets=has_replica_secrets(target.definition.variables)):
        say(f"kept {held.id or 'the credential that the pipeline has'}")
        return False
    issued = issue_into(target, held)
    say(f"issued {issued} and stored it in the pipeline's secret variables")
    return True


def undelivered_credentials(existing: Collection[Credential], held: HeldCredential) -> list[Credential]:
    """Return the credentials that an interrupted command issued, and whose passwords are lost."""
    if held.issuing is None:
        return []
    return [
        credential
        for credential in existing
        if credential.id not in held.issuing.existing
        and abs(credential.created - held.issuing.since) < _MAX_ISSUING_TIME
    ]


def revoke_undelivered(target: CredentialTarget) -> HeldCredential:
    """Revoke what an interrupted command issued but did not deliver; return what the pipeline holds.

    Raises:
        MirrorError: a call failed.
    """
    held = target.held()
    if held.issuing is None:
        return held
    for credential in undelivered_credentials(target.credentials(), held):
        target.revoke(credential.id)
        say(f"revoked {credential.id}, which an interrupted command had issued but not delivered")
    settled = HeldCredential(held.id)
    target.record(settled)
    return settled


def issue_into(target: CredentialTarget, held: HeldCredential, replaces: str | None = None) -> str:
    """Issue a credential, wait until the replica accepts it, store it in the pipeline in one update; return its id.

    Args:
        target: the pipeline and the user.
        held: what the pipeline holds until then.
        replaces: the credential that this one replaces.

    Raises:
        MirrorError: the user may do more than push to the replica, a call failed, the replica does not accept the
            credential, or another command interfered.
    """
    # Whoever may deploy decides which user a stack names, at any time.
    if other := target.other_rights():
        raise MirrorError(other)
    existing = target.credentials()
    git_credentials.ensure_credential_slot(existing, target.user, target.mirror)
    before = Issuing(datetime.now(UTC), frozenset(credential.id for credential in existing))
    issuing = HeldCredential(held.id, before, account=target.account)
    target.record(issuing)
    issued = git_credentials.issue(target.iam, target.user, target.mirror)
    delivered = HeldCredential(issued.id, replaces=replaces, account=target.account)
    with _revoked_unless_delivered(target, issued):
        _wait_until_accepted(
            target.replica_url,
            issued,
            lambda: check_unchanged(target.azure.definition(target.definition.id), issuing),
        )
        update_variables(
            target.azure,
            target.definition,
            {
                AWS_GIT_USERNAME: secret_variable(issued.user_name),
                AWS_GIT_PASSWORD: secret_variable(issued.password),
                HELD_CREDENTIAL: plain_variable(delivered.to_json()),
            },
            only_if=issuing,
        )
    return issued.id


@contextlib.contextmanager
def _revoked_unless_delivered(target: CredentialTarget, issued: IssuedCredential) -> Iterator[None]:
    try:
        yield
    except (AzureError, ConcurrentRunError) as error:
        if isinstance(error, ConcurrentRunError) or error.refused:
            target.revoke(issued.id)
        # After an unclear answer the update may have been made: the next command sees what the pipeline records.
        raise


def _wait_until_accepted(replica_url: str, issued: IssuedCredential, check: Callable[[], None]) -> None:
    endpoint = password_endpoint(replica_url, issued.user_name, issued.password)
    deadline, pause = time.monotonic() + _PROPAGATION_SECONDS, 0.5
    while True:
        try:
            engine_api.read_refs(endpoint, "git-receive-pack")
            return
        except (engine_api.MirrorFailure, engine_api.RetryableError) as failure:
            if time.monotonic() + pause > deadline:
                raise MirrorError(
                    f"{issued.id} was issued, but the replica did not accept it within {_PROPAGATION_SECONDS} seconds "
                    f"({str(failure).rstrip('.')}); run again, which revokes it and issues another."
                ) from None
        check()
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
