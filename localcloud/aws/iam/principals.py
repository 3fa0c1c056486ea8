"""A policy of a resource, or of a role's trust, may only name principals that exist.

This is what breaks a first deployment on AWS. Each service has words of its own for it:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html and
https://repost.aws/knowledge-center/s3-invalid-principal-in-policy-error. Quotas of IAM:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ministack.core import responses
from ministack.services import iam, kms, s3, sns

MAX_ACCESS_KEYS = 2
MAX_ATTACHED = 10
MAX_INLINE = {"User": 2048, "Role": 10240, "Group": 5120}
"""Characters of all inline policies together, white space not counted."""
_IAM_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):(?:(user|role)/(?:.*/)?([^/]+)|root)")
_SESSION_ARN = re.compile(r"arn:aws[a-z-]*:sts::(\d{12}):assumed-role/([^/]+)/[^/]+")

Parameters = dict[str, Any]


def install() -> None:
    """Refuse principals that do not exist, wherever a policy is stored, and what is above IAM's quotas."""
    _check_bucket_policies()
    _check_key_policies()
    _check_topic_policies()
    _check_trust_policies()
    _keep_quotas()


def unknown_principal(document: str | Mapping[str, Any] | None) -> str | None:
    """Return the first AWS principal of a policy that does not exist; None if each does."""
    try:
        parsed = json.loads(document) if isinstance(document, str) else document
    except ValueError:
        return None
    return next((name for name in _aws_principals(parsed or {}) if not _exists(name)), None)


def _aws_principals(document: Mapping[str, Any]) -> Iterator[str]:
    statements = document.get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        for element in ("Principal", "NotPrincipal"):
            principal = statement.get(element)
            names = principal.get("AWS", []) if isinstance(principal, dict) else []
            yield from [names] if isinstance(names, str) else names


def _exists(name: str) -> bool:
    if name == "*" or re.fullmatch(r"\d{12}", name):
        return True
    if session := _SESSION_ARN.fullmatch(name):
        return iam._roles.get_scoped(session[1], None, session[2]) is not None
    match = _IAM_ARN.fullmatch(name)
    if match is None:
        return False
    account, kind, entity = match.groups()
    if kind is None:
        return True
    store = iam._users if kind == "user" else iam._roles
    record = store.get_scoped(account, None, entity)
    return record is not None and record["Arn"] == name


def _check_bucket_policies() -> None:
    put = s3._put_bucket_policy

    def put_checked(name: str, body: bytes) -> Any:
        if unknown_principal(body.decode("utf-8", "replace")):
            return s3._error("MalformedPolicy", "Invalid principal in policy", 400)
        if _foreign_action(body):
            return s3._error("MalformedPolicy", "Policy has invalid action", 400)
        return put(name, body)

    s3._put_bucket_policy = put_checked


def _foreign_action(body: bytes) -> bool:
    """Whether a bucket's policy names an action of another service."""
    try:
        statements = json.loads(body).get("Statement", [])
    except (ValueError, AttributeError):
        return False
    for statement in [statements] if isinstance(statements, dict) else statements:
        actions = statement.get("Action", statement.get("NotAction", []))
        if any(action != "*" and not action.startswith("s3:") for action in _listed(actions)):
            return True
    return False


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _check_key_policies() -> None:
    create, put = kms._create_key, kms._put_key_policy

    def checked(store: Callable[[Parameters], Any]) -> Callable[[Parameters], Any]:
        def store_checked(data: Parameters) -> Any:
            if unknown_principal(data.get("Policy")):
                message = "Policy contains a statement with one or more invalid principals."
                return responses.error_response_json("MalformedPolicyDocumentException", message, 400)
            return store(data)

        return store_checked

    kms._create_key, kms._put_key_policy = checked(create), checked(put)


def _check_topic_policies() -> None:
    set_attributes = sns._set_topic_attributes

    def set_checked(parameters: Parameters) -> Any:
        if sns._p(parameters, "AttributeName") == "Policy" and unknown_principal(sns._p(parameters, "AttributeValue")):
            return sns._error("InvalidParameter", "Invalid parameter: Policy Error: PrincipalNotFound", 400)
        return set_attributes(parameters)

    sns._set_topic_attributes = set_checked


def _check_trust_policies() -> None:
    def checked(name: str, parameter: str) -> None:
        store = iam._IAM_HANDLERS[name]

        def store_checked(parameters: Parameters) -> Any:
            if unknown := unknown_principal(iam._p(parameters, parameter)):
                return iam._error(400, "MalformedPolicyDocument", f'Invalid principal in policy: "AWS":"{unknown}"')
            return store(parameters)

        iam._IAM_HANDLERS[name] = store_checked

    checked("CreateRole", "AssumeRolePolicyDocument")
    checked("UpdateAssumeRolePolicy", "PolicyDocument")


def _keep_quotas() -> None:
    for kind, store in (("User", iam._users), ("Role", iam._roles), ("Group", iam._groups)):
        _keep_attachments(kind, store)
        _keep_inline_size(kind)
    create = iam._IAM_HANDLERS["CreateAccessKey"]

    def create_at_most_two(parameters: Parameters) -> Any:
        name = iam._p(parameters, "UserName")
        if sum(record.get("UserName") == name for record in iam._access_keys.values()) >= MAX_ACCESS_KEYS:
            return iam._error(409, "LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {MAX_ACCESS_KEYS}")
        return create(parameters)

    iam._IAM_HANDLERS["CreateAccessKey"] = create_at_most_two


def _keep_attachments(kind: str, store: Any) -> None:
    attach = iam._IAM_HANDLERS[f"Attach{kind}Policy"]

    def attach_at_most_ten(parameters: Parameters) -> Any:
        entity = store.get(iam._p(parameters, f"{kind}Name")) or {}
        attached = entity.get("AttachedPolicies", [])
        if iam._p(parameters, "PolicyArn") not in attached and len(attached) >= MAX_ATTACHED:
            return iam._error(409, "LimitExceeded", f"Cannot exceed quota for PoliciesPer{kind}: {MAX_ATTACHED}")
        return attach(parameters)

    iam._IAM_HANDLERS[f"Attach{kind}Policy"] = attach_at_most_ten


def _keep_inline_size(kind: str) -> None:
    put = iam._IAM_HANDLERS[f"Put{kind}Policy"]

    def put_within_size(parameters: Parameters) -> Any:
        name, policy = iam._p(parameters, f"{kind}Name"), iam._p(parameters, "PolicyName")
        stored = {**_inline(kind, name), policy: iam._p(parameters, "PolicyDocument")}
        if sum(len("".join(str(document).split())) for document in stored.values()) > MAX_INLINE[kind]:
            message = f"Maximum policy size of {MAX_INLINE[kind]} bytes exceeded for {kind.lower()} {name}"
            return iam._error(409, "LimitExceeded", message)
        return put(parameters)

    iam._IAM_HANDLERS[f"Put{kind}Policy"] = put_within_size


def _inline(kind: str, name: str) -> dict[str, Any]:
    if kind == "Role":
        return dict((iam._roles.get(name) or {}).get("InlinePolicies") or {})
    store = iam._user_inline_policies if kind == "User" else iam._group_inline_policies
    return dict(store.get(name) or {})
