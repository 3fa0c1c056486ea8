"""IAM service-specific credentials, which ministack lacks: five API calls, the limit of two, and DeleteConflict."""

from __future__ import annotations

import hmac
import re
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from ministack.core import responses
from ministack.services import iam

SERVICE = "codecommit.amazonaws.com"
MAX_PER_USER = 2
"""For each user and service: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""

Answer = Any  # ministack's (status, headers, body)
Parameters = dict[str, Any]


@dataclass
class ServiceCredential:
    """One credential's record."""

    account: str
    user_name: str
    service_user_name: str
    password: str
    id: str
    status: str = "Active"
    created: str = field(default_factory=lambda: str(iam._now()))


class ServiceCredentials:
    """All service-specific credentials of the embedded cloud."""

    def __init__(self) -> None:
        self._records: dict[str, ServiceCredential] = {}

    def authenticate(self, service_user_name: str, password: str) -> ServiceCredential | None:
        """Return the active credential that the pair belongs to."""
        for record in list(self._records.values()):
            if record.service_user_name == service_user_name and record.status == "Active":
                return record if hmac.compare_digest(record.password.encode(), password.encode()) else None
        return None

    def of_user(self, user_name: str) -> list[ServiceCredential]:
        """Return a user's credentials."""
        account = responses.get_account_id()
        return [r for r in self._records.values() if (r.account, r.user_name) == (account, user_name)]

    def create(self, parameters: Parameters) -> Answer:
        """Issue a credential (CreateServiceSpecificCredential)."""
        user, error = _user(parameters)
        if error:
            return error
        if iam._p(parameters, "ServiceName") != SERVICE:
            return iam._error(404, "NotSupportedService", f"The embedded cloud only issues credentials for {SERVICE}.")
        existing = self.of_user(user)
        if len(existing) >= MAX_PER_USER:
            return iam._error(
                409, "LimitExceeded", f"Cannot exceed quota for ServiceSpecificCredentialsPerUser: {MAX_PER_USER}"
            )
        account = responses.get_account_id()
        taken = {record.service_user_name for record in existing}
        names = (f"{user}{suffix}-at-{account}" for suffix in ("", *(f"+{n}" for n in range(1, 100))))
        record = ServiceCredential(
            account=account,
            user_name=user,
            service_user_name=next(name for name in names if name not in taken),
            password=_password(),
            id="ACCA" + "".join(secrets.choice(string.ascii_uppercase + "234567") for _ in range(17)),
        )
        self._records[record.id] = record
        body = f"<ServiceSpecificCredential>{_xml(record, password=True)}</ServiceSpecificCredential>"
        return _answer("CreateServiceSpecificCredential", body)

    def list(self, parameters: Parameters) -> Answer:
        """List a user's credentials (ListServiceSpecificCredentials)."""
        user, error = _user(parameters)
        if error:
            return error
        service = iam._p(parameters, "ServiceName")
        records = [r for r in self.of_user(user) if service in ("", SERVICE)]
        members = "".join(f"<member>{_xml(record)}</member>" for record in records)
        return _answer(
            "ListServiceSpecificCredentials", f"<ServiceSpecificCredentials>{members}</ServiceSpecificCredentials>"
        )

    def update(self, parameters: Parameters) -> Answer:
        """Activate or deactivate a credential (UpdateServiceSpecificCredential)."""
        record, error = self._record(parameters)
        if record is None:
            return error
        status = iam._p(parameters, "Status")
        if status not in ("Active", "Inactive"):
            return iam._error(400, "ValidationError", f"{status} is not Active or Inactive.")
        record.status = status
        return iam._xml(200, "UpdateServiceSpecificCredentialResponse", "")

    def reset(self, parameters: Parameters) -> Answer:
        """Give a credential a new password (ResetServiceSpecificCredential)."""
        record, error = self._record(parameters)
        if record is None:
            return error
        record.password = _password()
        body = f"<ServiceSpecificCredential>{_xml(record, password=True)}</ServiceSpecificCredential>"
        return _answer("ResetServiceSpecificCredential", body)

    def delete(self, parameters: Parameters) -> Answer:
        """Delete a credential (DeleteServiceSpecificCredential)."""
        record, error = self._record(parameters)
        if record is None:
            return error
        del self._records[record.id]
        return iam._xml(200, "DeleteServiceSpecificCredentialResponse", "")

    def _record(self, parameters: Parameters) -> tuple[ServiceCredential | None, Answer]:
        user, error = _user(parameters)
        if error:
            return None, error
        identifier = iam._p(parameters, "ServiceSpecificCredentialId")
        for record in self.of_user(user):
            if record.id == identifier:
                return record, (200, {}, b"")
        return None, iam._error(404, "NoSuchEntity", f"Service Specific Credential {identifier} does not exist.")


def install(credentials: ServiceCredentials) -> None:
    """Add the calls to ministack's IAM, and make DeleteUser refuse while a user has credentials."""
    delete_user: Callable[[Parameters], Answer] = iam._delete_user

    def delete_user_without_credentials(parameters: Parameters) -> Answer:
        if credentials.of_user(iam._p(parameters, "UserName")):
            return iam._error(409, "DeleteConflict", "Cannot delete entity, must remove referenced objects first.")
        return delete_user(parameters)

    # CloudFormation's provisioner calls the module's function, the API its table of handlers.
    iam._delete_user = delete_user_without_credentials
    iam._IAM_HANDLERS.update(
        {
            "DeleteUser": delete_user_without_credentials,
            "CreateServiceSpecificCredential": credentials.create,
            "ListServiceSpecificCredentials": credentials.list,
            "UpdateServiceSpecificCredential": credentials.update,
            "ResetServiceSpecificCredential": credentials.reset,
            "DeleteServiceSpecificCredential": credentials.delete,
        }
    )


def _user(parameters: Parameters) -> tuple[str, Any]:
    name = iam._p(parameters, "UserName")
    if not re.fullmatch(r"[\w+=,.@-]{1,64}", name):
        return name, iam._error(400, "ValidationError", "The specified value for userName is invalid.")
    if name not in iam._users:
        return name, iam._error(404, "NoSuchEntity", f"The user with name {name} cannot be found.")
    return name, None


def _password() -> str:
    """Return a password of the service's form: base64, and always with the characters that URLs and shells trip on."""
    body = [secrets.choice(string.ascii_letters + string.digits) for _ in range(40)]
    for position, character in zip(secrets.SystemRandom().sample(range(40), 2), "+/", strict=False):
        body[position] = character
    return "".join(body) + "="


def _xml(record: ServiceCredential, *, password: bool = False) -> str:
    fields = {
        "UserName": record.user_name,
        "Status": record.status,
        "ServiceUserName": record.service_user_name,
        "CreateDate": record.created,
        "ServiceSpecificCredentialId": record.id,
        "ServiceName": SERVICE,
    }
    if password:
        fields["ServicePassword"] = record.password
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())


def _answer(action: str, body: str) -> Answer:
    return iam._xml(200, f"{action}Response", f"<{action}Result>{body}</{action}Result>")
