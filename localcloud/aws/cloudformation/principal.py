"""As whom CloudFormation acts: a stack's execution role, or the caller of the operation.

A role that was passed once is used by later operations too. Its session is called ``AWSCloudFormation``.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-iam-servicerole.html and
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/security-iam.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from ministack import app
from ministack.core import responses, router
from ministack.services import cloudformation
from ministack.services.cloudformation.helpers import _error, _p

from ..rights import acting
from ..rights.judgement import Call
from ..rights.pass_role import TAKING_A_ROLE

_SERVICE = "cloudformation.amazonaws.com"
_SERVICES = {"iam": "Iam", "s3": "S3", "lambda": "Lambda", "kms": "Kms", "sns": "Sns", "logs": "CloudWatchLogs"}
_FORWARDED = {"aws:CalledVia": [_SERVICE], "aws:CalledViaFirst": _SERVICE, "aws:CalledViaLast": _SERVICE}


@dataclass(frozen=True)
class Principal:
    """Who an operation on a stack is done as."""

    access_key_id: str
    role_arn: str = ""


_principal: ContextVar[Principal | None] = ContextVar("localcloud_stack_principal", default=None)
_roles: dict[str, str] = {}
"""The role of each stack that has one, by the account, the region and its name."""
_roles_of_change_sets: dict[str, str] = {}
"""The role with which each change set will be executed, by its stack's place and its name."""


def install() -> None:
    """Note who each operation is done as; refuse a role that cannot be assumed."""
    handle = cloudformation.handle_request

    async def as_principal(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Any:
        parameters = {**query, **parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)}
        action = _p(parameters, "Action") or ""
        passed = (_p(parameters, "RoleARN") or "") if action in TAKING_A_ROLE else ""
        if passed and acting.role_for(passed, _SERVICE) is None:
            return _error("ValidationError", f"Role {passed} is invalid or cannot be assumed", 400)
        role_arn = passed or _known_role(action, parameters)
        token = _principal.set(Principal(router.extract_access_key_id(headers, query) or "", role_arn))
        try:
            answer = await handle(method, path, headers, body, query)
        finally:
            _principal.reset(token)
        if answer[0] == 200:
            _keep(action, parameters, role_arn)
        return answer

    cloudformation.handle_request = app.SERVICE_HANDLERS["cloudformation"] = as_principal


def _known_role(action: str, parameters: Mapping[str, Any]) -> str:
    """Return the role of an operation that passes none: a stack that is only being created has none."""
    if action == "ExecuteChangeSet":
        return _roles_of_change_sets.get(_change_set(parameters), "")
    if action == "CreateStack" or _p(parameters, "ChangeSetType") == "CREATE":
        return ""
    return _roles.get(_place(parameters), "")


def _keep(action: str, parameters: Mapping[str, Any], role_arn: str) -> None:
    """Keep the role for later operations, once the operation has been accepted."""
    if action == "CreateChangeSet":
        _roles_of_change_sets[_change_set(parameters)] = role_arn
    elif action in TAKING_A_ROLE or action == "ExecuteChangeSet":
        _roles[_place(parameters)] = role_arn


def require(calls: Iterable[Call]) -> None:
    """Check the calls that a resource causes.

    Raises:
        ValueError: one is refused; in CloudFormation's words.
    """
    principal = _principal.get()
    if principal is None:
        return
    with _key(principal) as (access_key_id, keys):
        for action, arn, context in calls:
            try:
                acting.require(access_key_id, action, arn, {**keys, **context})
            except acting.DeniedError as error:
                service = action.partition(":")[0]
                raise ValueError(
                    f'Resource handler returned message: "{error} (Service: {_SERVICES.get(service, service)}, '
                    'Status Code: 403)" (HandlerErrorCode: AccessDenied)'
                ) from None


@contextmanager
def _key(principal: Principal) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not principal.role_arn:
        yield principal.access_key_id, {**_FORWARDED, "aws:ViaAWSService": "true"}
        return
    try:
        with acting.session_of(principal.role_arn, "AWSCloudFormation", _SERVICE) as key:
            yield key, {}
    except acting.DeniedError:
        raise ValueError(f"Role {principal.role_arn} is invalid or cannot be assumed") from None


def _place(parameters: Mapping[str, Any]) -> str:
    name = _p(parameters, "StackName") or ""
    if not name and (change_set := _p(parameters, "ChangeSetName")):
        _, found = cloudformation.changesets._find_change_set(change_set, "")
        name = found["StackName"] if found else ""
    return f"{responses.get_account_id()}/{responses.get_region()}/{_name(name)}"


def _change_set(parameters: Mapping[str, Any]) -> str:
    return f"{_place(parameters)}/{_name(_p(parameters, 'ChangeSetName') or '')}"


def _name(name_or_arn: str) -> str:
    return name_or_arn.split("/")[1] if name_or_arn.startswith("arn:") else name_or_arn
