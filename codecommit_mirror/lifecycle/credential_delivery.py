"""Git credentials from IAM into the pipeline's secret variables; on the way a password is in memory alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline_templates import mirror_sync

from ..aws import git_credentials as credentials
from ..aws.git_credentials import Credential, IssuedCredential
from ..azure import held_credential
from ..azure.client import AzureDevOps, Definition
from ..azure.held_credential import HeldCredential, Issuing
from ..azure.http import AzureError
from ..errors import MirrorError
from .verification import password_endpoint

_CONFLICTS = 5
_PROPAGATION_SECONDS = 120
"""IAM is eventually consistent: a new credential can be refused for some seconds."""

Say = Callable[[str], None]


class TakenOver(MirrorError):
    """Another run of this program has changed what the pipeline holds."""


def _check_still_ours(definition: Definition, held: HeldCredential) -> None:
    if held_credential.of_variables(definition.variables) != held:
        raise TakenOver(f"another run of this program works on {definition.name!r}; run again when it is done.")


def set_variables(
    azure: AzureDevOps,
    definition: Definition,
    changes: Mapping[str, Mapping[str, Any] | None],
    only_if: HeldCredential | None = None,
) -> Definition:
    """Set variables of a pipeline, or remove those that are None, and leave every other one as it is.

    Somebody else's change in between is not overwritten: the definition is read again and changed anew.

    Args:
        azure, definition: the pipeline.
        changes: values by name.
        only_if: what the pipeline must still say of its credential; another run of this program may have taken over.
    """
    for _ in range(_CONFLICTS):
        definition = azure.definition(definition.id)
        note = changes.get(held_credential.VARIABLE)
        if only_if is not None and note == definition.variables.get(held_credential.VARIABLE):
            return definition  # Done by an update whose answer was lost on the way.
        if only_if is not None:
            _check_still_ours(definition, only_if)
        variables = {name: value for name, value in definition.variables.items() if name not in changes}
        variables.update({name: dict(value) for name, value in changes.items() if value is not None})
        if variables == definition.variables:
            return definition
        try:
            return azure.update_definition(definition, {**definition.body, "variables": variables})
        except AzureError as error:
            if error.status != 409:
                raise
    raise MirrorError(f"the pipeline {definition.name!r} is changed by somebody else all the time; run again later.")


def plain(value: str) -> dict[str, Any]:
    """Return a variable that everybody may read."""
    return {"value": value}


def secret(value: str) -> dict[str, Any]:
    """Return a secret variable."""
    return {"value": value, "isSecret": True}


@dataclass(frozen=True)
class Recipient:
    """The pipeline that holds a credential, and the IAM user whose credential it is."""

    azure: AzureDevOps
    definition: Definition
    iam: Any
    user: str
    account: str
    replica_url: str
    """Where the credential must work."""
    mirror: str
    """The mirror's name, for messages."""

    def held(self) -> HeldCredential:
        """Return what the pipeline said that it holds, when its definition was read."""
        return held_credential.of_variables(self.definition.variables)

    def write_held(self, held: HeldCredential) -> None:
        """Write which credential the pipeline holds."""
        text = replace(held, account=self.account).text()
        set_variables(self.azure, self.definition, {held_credential.VARIABLE: plain(text)})

    def credentials(self) -> list[Credential]:
        """Return the user's credentials, oldest first."""
        return credentials.list_credentials(self.iam, self.user)

    def revoke(self, credential_id: str) -> None:
        """Deactivate and delete one of them."""
        credentials.revoke(self.iam, self.user, credential_id)


def ensure_credential(to: Recipient, say: Say) -> None:
    """Make sure that the pipeline holds a credential that works as far as can be known; issue one if it does not.

    A pipeline that was given secrets by hand keeps them.
    """
    held = revoke_strays(to, say)
    existing = {credential.id: credential for credential in to.credentials()}
    if held_credential.has_secrets(to.definition.variables):
        if held.id is None and any(credential.status == "Active" for credential in existing.values()):
            say("kept the credential that the pipeline has")
            return
        if held.id in existing and existing[held.id].status == "Active":
            say(f"kept {held.id}")
            return
    issued = issue_into(to, held)
    say(f"issued {issued} into the pipeline's secret variables")


def revoke_strays(to: Recipient, say: Say) -> HeldCredential:
    """Revoke what an interrupted run issued and did not deliver, and return what the pipeline holds."""
    held = to.held()
    if held.issuing is None:
        return held
    for stray in held_credential.strays(to.credentials(), held):
        to.revoke(stray.id)
        say(f"revoked {stray.id}, which an interrupted run had issued and not delivered")
    settled = HeldCredential(held.id)
    to.write_held(settled)
    return settled


def issue_into(to: Recipient, held: HeldCredential, replaces: str | None = None) -> str:
    """Issue a credential, wait until the replica takes it, put it into the pipeline in one update; return its id.

    Args:
        to: who gets it.
        held: what the pipeline holds until then.
        replaces: the credential that this one takes the place of.
    """
    existing = to.credentials()
    credentials.check_room(existing, to.user, to.mirror)
    before = Issuing(datetime.now(UTC), frozenset(c.id for c in existing))
    issuing = HeldCredential(held.id, before, account=to.account)
    delivered = HeldCredential(None, replaces=replaces, account=to.account)
    to.write_held(issuing)
    issued = credentials.issue(to.iam, to.user, to.mirror)
    with _revoked_unless_delivered(to, issued):
        _wait_until_accepted(
            to.replica_url, issued, lambda: _check_still_ours(to.azure.definition(to.definition.id), issuing)
        )
        set_variables(
            to.azure,
            to.definition,
            {
                held_credential.USER_NAME: secret(issued.user_name),
                held_credential.PASSWORD: secret(issued.password),
                held_credential.VARIABLE: plain(replace(delivered, id=issued.id).text()),
            },
            only_if=issuing,
        )
    return issued.id


@contextlib.contextmanager
def _revoked_unless_delivered(to: Recipient, issued: IssuedCredential) -> Iterator[None]:
    try:
        yield
    except (AzureError, TakenOver) as error:
        if isinstance(error, TakenOver) or error.refused:
            to.revoke(issued.id)
        # Where the answer is not clear, the update may have been done: the next run sees what the pipeline says.
        raise


def _wait_until_accepted(replica_url: str, issued: IssuedCredential, check: Callable[[], None]) -> None:
    endpoint = password_endpoint(replica_url, issued.user_name, issued.password)
    deadline, pause = time.monotonic() + _PROPAGATION_SECONDS, 0.5
    while True:
        try:
            mirror_sync.read_refs(endpoint, "git-receive-pack")
            return
        except (mirror_sync.MirrorFailure, mirror_sync.Transient) as failure:
            if time.monotonic() + pause > deadline:
                raise MirrorError(
                    f"{issued.id} was issued, but the replica has not taken it for {_PROPAGATION_SECONDS} seconds "
                    f"({str(failure).rstrip('.')}); run again, which revokes it and issues another."
                ) from None
        check()
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
