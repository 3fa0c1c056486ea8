"""Permissions boundaries as conditions see them, and in simulations.

``iam:PermissionsBoundary`` is the boundary that a request sets, or that the user or role which it is about has:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsidentityandaccessmanagementiam.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ministack.core import iam_evaluator, responses
from ministack.services import iam

from .judgement import Request, give_keys

_SETTING = ("CreateUser", "CreateRole", "PutUserPermissionsBoundary", "PutRolePermissionsBoundary")
_ABOUT = [
    "AttachUserPolicy",
    "AttachRolePolicy",
    "DetachUserPolicy",
    "DetachRolePolicy",
    "PutUserPolicy",
    "PutRolePolicy",
    "DeleteUserPolicy",
    "DeleteRolePolicy",
    "DeleteUserPermissionsBoundary",
    "DeleteRolePermissionsBoundary",
    "UpdateAssumeRolePolicy",
]


def install() -> None:
    """Give conditions the boundary, and simulate within it."""
    give_keys("iam", _keys)
    iam._simulate_principal_policy = iam._IAM_HANDLERS["SimulatePrincipalPolicy"] = _simulate


def context_of(action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the condition keys of a call of IAM's.

    Args:
        action: its name, without ``iam:``.
        parameters: its parameters by name.
    """
    keys: dict[str, Any] = {}
    if policy := parameters.get("PolicyArn"):
        keys["iam:policyarn"] = policy
    if action in _SETTING and parameters.get("PermissionsBoundary"):
        keys["iam:permissionsboundary"] = parameters["PermissionsBoundary"]
    elif action in _ABOUT:
        entity = iam._users.get(parameters.get("UserName", "")) or iam._roles.get(parameters.get("RoleName", "")) or {}
        if entity.get("PermissionsBoundary"):
            keys["iam:permissionsboundary"] = entity["PermissionsBoundary"]
    return keys


def _keys(request: Request) -> dict[str, Any]:
    names = ("PolicyArn", "PermissionsBoundary", "UserName", "RoleName")
    return context_of(request.action.partition(":")[2], {name: request.parameter(name) for name in names})


def _simulate(parameters: dict[str, Any]) -> Any:
    """Answer SimulatePrincipalPolicy with the principal's boundary; an unknown principal or action is an error."""
    source, account = iam._p(parameters, "PolicySourceArn"), responses.get_account_id()
    kind, _, path = source.rpartition(":")[2].partition("/")
    name = path.rpartition("/")[2]
    stores = {"user": iam._users, "role": iam._roles, "group": iam._groups}
    if kind not in stores or name not in stores[kind]:
        return iam._error(404, "NoSuchEntity", f"The {kind} with name {name} cannot be found.")
    if kind == "user":
        policies = iam_evaluator._gather_user_policies(name, account)
    elif kind == "role":
        policies = iam_evaluator._gather_role_policies(name, account)
    else:
        policies = _group_policies(name, account)
    limits = [] if kind == "group" else iam_evaluator._permissions_boundary(stores[kind], name, account)
    actions, resource = iam._extract_simulate_params(parameters)
    for action in actions:
        if ":" not in action:
            return iam._error(400, "InvalidInput", f"Invalid Entity Action: {action}")
    members = "".join(_result(action, resource, source, account, policies, limits) for action in actions)
    return iam._xml(
        200,
        "SimulatePrincipalPolicyResponse",
        f"<SimulatePrincipalPolicyResult><EvaluationResults>{members}</EvaluationResults>"
        "<IsTruncated>false</IsTruncated></SimulatePrincipalPolicyResult>",
    )


def _group_policies(name: str, account: str) -> list[Any]:
    documents = list((iam._group_inline_policies.get(name) or {}).values())
    attached = iam._groups[name].get("AttachedPolicies", [])
    documents += [iam_evaluator._resolve_managed_policy_document(arn, account) for arn in attached]
    return [iam_evaluator.parse_policy_document(document) for document in documents if document]


def _result(action: str, resource: str, source: str, account: str, policies: Any, limits: Any) -> str:
    context = iam_evaluator.EvalContext(
        principal_arn=source,
        principal_type="User" if ":user/" in source else "AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=responses.get_region(),
    )
    decisions = {"Allow": "allowed", "Deny": "explicitDeny", "ImplicitDeny": "implicitDeny"}
    decision = iam_evaluator.evaluate(context, policies, *limits).decision
    within = all(iam_evaluator.evaluate(context, limit).decision == "Allow" for limit in limits)
    return (
        f"<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName>"
        f"<EvalDecision>{decisions[decision]}</EvalDecision><MatchedStatements></MatchedStatements>"
        "<MissingContextValues></MissingContextValues>"
        + (
            "<PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>"
            f"{str(within).lower()}</AllowedByPermissionsBoundary></PermissionsBoundaryDecisionDetail>"
            if limits
            else ""
        )
        + "</member>"
    )
