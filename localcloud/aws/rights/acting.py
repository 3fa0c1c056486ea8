"""What a service does on somebody's behalf: as a role that was passed to it, or with the caller's own rights.

Every such call is checked as a request of that principal would be, resource policies included.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ministack.core import iam_actions, iam_evaluator, responses
from ministack.services import iam, sts

from .judgement import DeniedError as DeniedError
from .judgement import without_request

_SECONDS = 3600


def require(access_key_id: str, action: str, resource_arn: str = "*", context: Mapping[str, Any] | None = None) -> None:
    """Check one call of the principal whose access key this is.

    Args:
        access_key_id: of a user, or of a session.
        action: ``service:Operation``.
        resource_arn: what the call is about.
        context: condition keys of the call.

    Raises:
        DeniedError: the principal may not make it.
    """
    service = action.partition(":")[0]
    keys = {key.lower(): value for key, value in (context or {}).items()}
    with responses.request_scope(account_of(access_key_id), responses.get_region()), without_request():
        denied = iam_evaluator.enforce(access_key_id, action, service, responses.get_region(), resource_arn, keys)
    if denied is None:
        return
    if isinstance(denied, iam_evaluator.AuthError):
        raise DeniedError(f"{denied.code}: {denied.message}")
    raise DeniedError(words(action, denied, resource_arn))


def account_of(access_key_id: str) -> str:
    """Return the account of a user's or a session's access key."""
    account = responses._account_from_sts_session(access_key_id)
    return str(account or iam_evaluator.find_iam_access_key_account(access_key_id) or responses.get_account_id())


def words(action: str, denied: Any, resource_arn: str) -> str:
    """Return the message of a denial, as services pass it on."""
    explicit = denied.decision == "Deny"
    if explicit and denied.resource_policy_arn:
        return str(
            iam_actions._resource_policy_denial(action.partition(":")[0], action, denied.principal_arn, resource_arn)
        )
    return str(iam_actions.identity_denial_message(action, denied.principal_arn, resource_arn, explicit))


@contextmanager
def session_of(role_arn: str, name: str, trusted: str) -> Iterator[str]:
    """Give a service a session of a role, as the service takes one for what it does in the role's name.

    Args:
        role_arn: the role.
        name: the session's name.
        trusted: the service's principal, such as ``s3.amazonaws.com``.

    Yields:
        The session's access key.

    Raises:
        DeniedError: there is no such role, or it does not trust the service.
    """
    account, role_name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    role = role_for(role_arn, trusted)
    if role is None:
        raise DeniedError(f"{trusted} is not authorized to perform: sts:AssumeRole on resource: {role_arn}")
    key = str(iam._gen_session_access_key())
    sts.register_session(
        key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role_name}/{name}",
            "UserId": f"{role['RoleId']}:{name}",
            "SecretAccessKey": iam._gen_secret(),
            "SessionToken": iam._gen_session_token(),
            "Expiration": time.time() + _SECONDS,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
        },
    )
    try:
        yield key
    finally:
        sts._sessions.pop(key, None)


def role_for(role_arn: str, service: str) -> Mapping[str, Any] | None:
    """Return the role of this ARN; None if there is none, or it does not trust the service."""
    if role_arn.count(":") < 5:
        return None
    role: Mapping[str, Any] | None = iam._roles.get_scoped(role_arn.split(":")[4], None, role_arn.rpartition("/")[2])
    return role if role and role["Arn"] == role_arn and _trusts(role, service) else None


def _trusts(role: Mapping[str, Any], service: str) -> bool:
    """Whether a role's trust policy lets a service assume it."""
    document = json.loads(role.get("AssumeRolePolicyDocument") or "{}")
    statements = document.get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        named = service in ([services] if isinstance(services, str) else services)
        actions = statement.get("Action", [])
        assumes = "sts:AssumeRole" in ([actions] if isinstance(actions, str) else actions) or actions == "*"
        if statement.get("Effect") == "Allow" and named and assumes:
            return True
    return False
