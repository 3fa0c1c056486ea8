"""HTTPS Git credentials for CodeCommit: IAM service-specific credentials, which CloudFormation has no type for."""

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

from ..errors import MirrorError
from .stack import aws_failures

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

SERVICE = "codecommit.amazonaws.com"
MAXIMUM = 2
"""Service-specific credentials of a user for one service (IAM quotas)."""


@dataclass(frozen=True)
class Credential:
    """One HTTPS Git credential, as IAM lists it."""

    id: str
    user_name: str
    """The Git user name, like ``name-at-123456789012``; not the IAM user's."""
    status: str
    created: datetime

    def age_days(self, now: datetime | None = None) -> int:
        """Return the age in whole days."""
        return ((now or datetime.now(UTC)) - self.created).days


@dataclass(frozen=True)
class IssuedCredential(Credential):
    """A credential whose password is known; IAM shows it once, at creation."""

    password: str = field(repr=False)


def list_credentials(iam: IAMClient, user: str) -> list[Credential]:
    """Return the user's credentials for CodeCommit, oldest first.

    Raises:
        MirrorError: the call failed.
    """
    with aws_failures(f"list the Git credentials of {user}"):
        answer = iam.list_service_specific_credentials(UserName=user, ServiceName=SERVICE)
    found = [
        Credential(c["ServiceSpecificCredentialId"], c.get("ServiceUserName", ""), c["Status"], c["CreateDate"])
        for c in answer.get("ServiceSpecificCredentials", [])
    ]
    return sorted(found, key=lambda credential: credential.created)


def check_room(existing: Sequence[Credential], user: str, mirror: str, in_use: str | None = None) -> None:
    """Raise MirrorError when IAM would refuse one more credential, and say how to free a place.

    Args:
        existing: the user's credentials.
        user: the IAM user.
        mirror: the mirror's name, for the command.
        in_use: the credential that a pipeline is known to hold, which is not the one to revoke.
    """
    if len(existing) < MAXIMUM:
        return
    listed = ", ".join(f"{c.id} ({c.status}, {c.age_days()} days old)" for c in existing)
    free = min((c for c in existing if c.id != in_use), key=lambda c: (c.status == "Active", c.created))
    warning = f"the pipeline uses {in_use}" if in_use else "a pipeline that uses it stops"
    raise MirrorError(
        f"{user} has {len(existing)} Git credentials already, and IAM allows {MAXIMUM}: {listed}; free one with "
        f"'codecommit-mirror credentials revoke {mirror} {free.id}' ({warning})."
    )


def issue(iam: IAMClient, user: str, mirror: str) -> IssuedCredential:
    """Create a credential.

    Raises:
        MirrorError: the user has the maximum already, or the call failed.
    """
    check_room(list_credentials(iam, user), user, mirror)
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
    """Make a credential useless, and keep it; one that is gone is fine.

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
    """Deactivate, then delete a credential; return False when it was already gone.

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
    """Return the console's own download: a header and one row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("User Name", "Password"), (credential.user_name, credential.password)]
    )
    return text.getvalue()


@contextmanager
def private_file(path: Path) -> Iterator[int]:
    """Create a file that nobody else can read, and never an existing one; it goes again when the block fails.

    Yields its descriptor, so that the file is there before a password is asked for that can be had only once.

    Raises:
        MirrorError: the file exists, or cannot be made there.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise MirrorError(
            f"{path} exists and is not overwritten; move it away, or name another with --output."
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
