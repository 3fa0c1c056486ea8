"""Who hands a role to a service needs ``iam:PassRole`` on it.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html; ``iam:PassedToService`` names the service.
"""

from __future__ import annotations

import json
from typing import Any

from ..xml import between
from .judgement import Call, Request, also_needs, give_keys

ACTION = "iam:PassRole"
TAKING_A_ROLE = frozenset(
    {"CreateStack", "UpdateStack", "DeleteStack", "CreateChangeSet", "ContinueUpdateRollback", "RollbackStack"}
)
"""The operations of CloudFormation that can be given an execution role."""


def install() -> None:
    """Ask for the right wherever a request hands over a role."""
    also_needs("lambda", lambda request: _if_named(_field(request.body, "Role"), "lambda.amazonaws.com"))
    also_needs("cloudformation", _to_cloudformation)
    give_keys("cloudformation", _keys)
    also_needs("s3", _to_s3)
    also_needs("events", lambda request: _in_targets(request, "events.amazonaws.com"))
    also_needs("scheduler", _to_scheduler)


def passing(role_arn: str, service: str) -> Call:
    """Return the call that hands a role to a service."""
    return ACTION, role_arn, {"iam:PassedToService": service}


def _if_named(role_arn: Any, service: str) -> list[Call]:
    return [passing(str(role_arn), service)] if role_arn else []


def _keys(request: Request) -> dict[str, Any]:
    role = request.parameter("RoleARN")
    return {"cloudformation:rolearn": role} if role else {}


def _to_cloudformation(request: Request) -> list[Call]:
    if request.action.partition(":")[2] not in TAKING_A_ROLE:
        return []
    return _if_named(request.parameter("RoleARN"), "cloudformation.amazonaws.com")


def _to_s3(request: Request) -> list[Call]:
    if request.method != "PUT" or "replication" not in request.query:
        return []
    return _if_named(between(request.body, "Role"), "s3.amazonaws.com")


def _in_targets(request: Request, service: str) -> list[Call]:
    targets = _field(request.body, "Targets") or []
    return [
        call for target in targets if isinstance(target, dict) for call in _if_named(target.get("RoleArn"), service)
    ]


def _to_scheduler(request: Request) -> list[Call]:
    target = _field(request.body, "Target") or {}
    return _if_named(target.get("RoleArn"), "scheduler.amazonaws.com") if isinstance(target, dict) else []


def _field(body: bytes, name: str) -> Any:
    try:
        document = json.loads(body) if body.lstrip()[:1] == b"{" else {}
    except ValueError:
        return None
    return document.get(name)
