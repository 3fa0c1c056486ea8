"""SSH public keys of users, a third way to push to CodeCommit: five API calls.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_UploadSSHPublicKey.html: at most five a user; a user that has
one cannot be deleted. The embedded cloud has no SSH server: a key is listed, and cannot push.
"""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from ministack.core import responses
from ministack.services import iam

MAX_PER_USER = 5
_TYPES = ("ssh-rsa ", "-----BEGIN ")

Answer = Any  # ministack's (status, headers, body)
Parameters = dict[str, Any]


@dataclass
class PublicKey:
    """One key's record."""

    account: str
    user_name: str
    body: str
    id: str
    status: str = "Active"
    uploaded: str = field(default_factory=lambda: str(iam._now()))


class PublicKeys:
    """All SSH public keys of the embedded cloud."""

    def __init__(self) -> None:
        self._records: list[PublicKey] = []

    def of_user(self, name: str) -> list[PublicKey]:
        """Return a user's keys."""
        here = (responses.get_account_id(), name)
        return [record for record in self._records if (record.account, record.user_name) == here]

    def upload(self, parameters: Parameters) -> Answer:
        """Add a key (UploadSSHPublicKey)."""
        name, body = iam._p(parameters, "UserName"), iam._p(parameters, "SSHPublicKeyBody")
        if name not in iam._users:
            return _no_user(name)
        if not body.startswith(_TYPES):
            return iam._error(400, "InvalidPublicKey", "The SSH public key is invalid.")
        if any(record.body == body for record in self.of_user(name)):
            return iam._error(400, "DuplicateSSHPublicKey", "The SSH public key is already associated with the user.")
        if len(self.of_user(name)) >= MAX_PER_USER:
            return iam._error(409, "LimitExceeded", f"Cannot exceed quota for SSHPublicKeysPerUser: {MAX_PER_USER}")
        letters = string.ascii_uppercase + "234567"
        identifier = "APKA" + "".join(secrets.choice(letters) for _ in range(17))
        record = PublicKey(responses.get_account_id(), name, body, identifier)
        self._records.append(record)
        return _answer("UploadSSHPublicKey", f"<SSHPublicKey>{_xml(record, with_body=True)}</SSHPublicKey>")

    def list(self, parameters: Parameters) -> Answer:
        """List a user's keys (ListSSHPublicKeys)."""
        name = iam._p(parameters, "UserName")
        if name not in iam._users:
            return _no_user(name)
        members = "".join(f"<member>{_xml(record)}</member>" for record in self.of_user(name))
        return _answer("ListSSHPublicKeys", f"<SSHPublicKeys>{members}</SSHPublicKeys><IsTruncated>false</IsTruncated>")

    def get(self, parameters: Parameters) -> Answer:
        """Return one key (GetSSHPublicKey)."""
        record = self._record(parameters)
        if record is None:
            return _no_key(parameters)
        return _answer("GetSSHPublicKey", f"<SSHPublicKey>{_xml(record, with_body=True)}</SSHPublicKey>")

    def update(self, parameters: Parameters) -> Answer:
        """Activate or deactivate a key (UpdateSSHPublicKey)."""
        record, status = self._record(parameters), iam._p(parameters, "Status")
        if record is None:
            return _no_key(parameters)
        if status not in ("Active", "Inactive"):
            return iam._error(400, "ValidationError", f"{status} is not Active or Inactive.")
        record.status = status
        return iam._xml(200, "UpdateSSHPublicKeyResponse", "")

    def delete(self, parameters: Parameters) -> Answer:
        """Delete a key (DeleteSSHPublicKey)."""
        record = self._record(parameters)
        if record is None:
            return _no_key(parameters)
        self._records.remove(record)
        return iam._xml(200, "DeleteSSHPublicKeyResponse", "")

    def _record(self, parameters: Parameters) -> PublicKey | None:
        identifier = iam._p(parameters, "SSHPublicKeyId")
        records = self.of_user(iam._p(parameters, "UserName"))
        return next((record for record in records if record.id == identifier), None)


def install(keys: PublicKeys) -> None:
    """Add the calls, and make DeleteUser refuse while a user has a key."""
    delete_user: Callable[[Parameters], Answer] = iam._delete_user

    def delete_user_without_keys(parameters: Parameters) -> Answer:
        if keys.of_user(iam._p(parameters, "UserName")):
            return iam._error(409, "DeleteConflict", "Cannot delete entity, must remove SSH public keys first.")
        return delete_user(parameters)

    iam._delete_user = delete_user_without_keys
    iam._IAM_HANDLERS.update(
        {
            "DeleteUser": delete_user_without_keys,
            "UploadSSHPublicKey": keys.upload,
            "ListSSHPublicKeys": keys.list,
            "GetSSHPublicKey": keys.get,
            "UpdateSSHPublicKey": keys.update,
            "DeleteSSHPublicKey": keys.delete,
        }
    )


def _no_user(name: str) -> Answer:
    return iam._error(404, "NoSuchEntity", f"The user with name {name} cannot be found.")


def _no_key(parameters: Parameters) -> Answer:
    identifier = iam._p(parameters, "SSHPublicKeyId")
    return iam._error(404, "NoSuchEntity", f"The Public Key with id {identifier} cannot be found.")


def _xml(record: PublicKey, *, with_body: bool = False) -> str:
    fields = {
        "UserName": record.user_name,
        "SSHPublicKeyId": record.id,
        "Status": record.status,
        "UploadDate": record.uploaded,
    }
    if with_body:
        digest = hashlib.md5(record.body.encode(), usedforsecurity=False).hexdigest()
        fields["SSHPublicKeyBody"] = record.body
        fields["Fingerprint"] = ":".join(digest[start : start + 2] for start in range(0, 32, 2))
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())


def _answer(action: str, body: str) -> Answer:
    return iam._xml(200, f"{action}Response", f"<{action}Result>{body}</{action}Result>")
