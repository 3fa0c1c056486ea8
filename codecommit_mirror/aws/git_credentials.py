"""Git credentials for CodeCommit: IAM service-specific credentials, for which CloudFormation has no resource type."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MirrorError, NotFoundError
from .session import aws_failures

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

SERVICE = "codecommit.amazonaws.com"
MAX_PER_USER = 2
"""How many service-specific credentials a user can have for one service (IAM quotas)."""


@dataclass(frozen=True)
class Credential:
    """A Git credential, as IAM lists it."""

    id: str
    user_name: str
    """The Git user name, like ``name-at-123456789012``, which is not the IAM user's name."""
    status: str
    created: datetime

    def age_days(self, now: datetime | None = None) -> int:
        """Return the age in whole days."""
        return ((now or datetime.now(UTC)) - self.created).days


@dataclass(frozen=True)
class IssuedCredential(Credential):
    """A credential with its password, which IAM only shows at creation."""

    password: str = field(repr=False)


def list_credentials(iam: IAMClient, user: str) -> list[Credential]:
    """Return the user's credentials for CodeCommit, oldest first.

    Raises:
        MirrorError: the call failed.
    """
    with aws_failures(f"list the Git credentials of {user}"):
        answer = iam.list_service_specific_credentials(UserName=user, ServiceName=SERVICE)
    credentials = [
        Credential(c["ServiceSpecificCredentialId"], c.get("ServiceUserName", ""), c["Status"], c["CreateDate"])
        for c in answer.get("ServiceSpecificCredentials", [])
    ]
    return sorted(credentials, key=lambda credential: credential.created)


def find_credentials(iam: IAMClient, user: str) -> list[Credential] | None:
    """Return the user's credentials for CodeCommit, oldest first, or None if there is no such user.

    Raises:
        MirrorError: the call failed.
    """
    try:
        return list_credentials(iam, user)
    except NotFoundError:
        return None


def ensure_credential_slot(existing: Sequence[Credential], user: str, mirror: str, in_use: str | None = None) -> None:
    """Raise MirrorError if IAM would refuse another credential; it says which one to delete.

    Args:
        existing: the user's credentials.
        user: the IAM user.
        mirror: the mirror's name, for the command.
        in_use: the credential that the pipeline is known to hold, which should not be deleted.
    """
    if len(existing) < MAX_PER_USER:
        return
    listed = ", ".join(f"{c.id} ({c.status}, {c.age_days()} days old)" for c in existing)
    free = min((c for c in existing if c.id != in_use), key=lambda c: (c.status == "Active", c.created))
    warning = f"the pipeline uses {in_use}" if in_use else "a pipeline that uses it will stop working"
    raise MirrorError(
        f"{user} has {len(existing)} Git credentials already, and IAM allows {MAX_PER_USER}: {listed}; delete one with "
        f"'codecommit-mirror credentials revoke {mirror} {free.id}' ({warning})."
    )


def issue(iam: IAMClient, user: str, mirror: str) -> IssuedCredential:
    """Create a credential.

    Raises:
        MirrorError: the user has two credentials already, or the call failed.
    """
    ensure_credential_slot(list_credentials(iam, user), user, mirror)
    with aws_failures(f"issue a Git credential for {user}"):
        created = iam.create_service_specific_credential(UserName=user, ServiceName=SERVICE)
    c = created["ServiceSpecificCredential"]
    return IssuedCredential(
        id=c["ServiceSpecificCredentialId"],
        user_name=c.get("ServiceUserName", ""),
        status=c["Status"],
        created=c["CreateDate"],
        password=c.get("ServicePassword", ""),
    )


def deactivate(iam: IAMClient, user: str, credential_id: str) -> None:
    """Deactivate a credential without deleting it; one that no longer exists is fine.

    Raises:
        MirrorError: the call failed.
    """
    with (
        aws_failures(f"deactivate the Git credential {credential_id} of {user}"),
        contextlib.suppress(iam.exceptions.NoSuchEntityException),
    ):
        iam.update_service_specific_credential(
            UserName=user, ServiceSpecificCredentialId=credential_id, Status="Inactive"
        )


def revoke(iam: IAMClient, user: str, credential_id: str) -> bool:
    """Deactivate and delete a credential; return False if it no longer existed.

    Raises:
        MirrorError: a call failed.
    """
    deactivate(iam, user, credential_id)
    with aws_failures(f"revoke the Git credential {credential_id} of {user}"):
        try:
            iam.delete_service_specific_credential(UserName=user, ServiceSpecificCredentialId=credential_id)
        except iam.exceptions.NoSuchEntityException:
            return False
    return True


def to_csv(credential: IssuedCredential) -> str:
    """Return the CSV text that the IAM console offers for download."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("User Name", "Password"), (credential.user_name, credential.password)]
    )
    return text.getvalue()


@contextmanager
def private_file(path: Path) -> Iterator[int]:
    """Create a file that only its owner can read, and delete it again if the block fails.

    Yields its descriptor, so that the file exists before a password is issued that is shown only once.

    Raises:
        MirrorError: the file exists already, or cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise MirrorError(
            f"{path} exists and will not be overwritten; move it away, or name another with --output."
        ) from None
    except OSError as error:
        raise MirrorError(f"{path} cannot be written ({error.strerror}); name another with --output.") from None
    try:
        yield descriptor
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
