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
from ministack.services import iam as iam_service
from ministack.services.cloudformation.helpers import _error, _p

from ..rights import acting
from ..rights.judgement import Call

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
"""The role of each stack and change set, by the account, the region and its name."""


def install() -> None:
    """Note who each operation is done as; refuse a role that cannot be assumed."""
    handle = cloudformation.handle_request

    async def as_principal(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Any:
        parameters = {**query, **parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)}
        role_arn = _p(parameters, "RoleARN") or ""
        if role_arn and not _assumable(role_arn):
            return _error("ValidationError", f"Role {role_arn} is invalid or cannot be assumed", 400)
        places = _places(parameters)
        role_arn = role_arn or next((_roles[place] for place in places if place in _roles), "")
        if role_arn:
            _roles.update(dict.fromkeys(places, role_arn))
        token = _principal.set(Principal(router.extract_access_key_id(headers, query) or "", role_arn))
        try:
            return await handle(method, path, headers, body, query)
        finally:
            _principal.reset(token)

    cloudformation.handle_request = app.SERVICE_HANDLERS["cloudformation"] = as_principal


def forget(stack_name: str) -> None:
    """Forget the role of a stack that is gone."""
    _roles.pop(_place(stack_name), None)


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


def _assumable(role_arn: str) -> bool:
    role = iam_service._roles.get(role_arn.rpartition("/")[2])
    return bool(role and role["Arn"] == role_arn and acting.trusts(role, _SERVICE))


def _places(parameters: Mapping[str, Any]) -> list[str]:
    name = _p(parameters, "StackName") or ""
    if not name and (change_set := _p(parameters, "ChangeSetName")):
        _, found = cloudformation.changesets._find_change_set(change_set, "")
        name = found["StackName"] if found else ""
    return [_place(name)] if name else []


def _place(name: str) -> str:
    if name.startswith("arn:"):
        name = name.split("/")[1]
    return f"{responses.get_account_id()}/{responses.get_region()}/{name}"
