"""Where ministack's IAM is laxer than the service, it is made as strict.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteUser.html, API_DeletePolicy.html, API_CreateUser.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ministack.core import iam_evaluator
from ministack.services import iam
from ministack.services.cloudformation import provisioners

Answer = Any  # ministack's (status, headers, body)
Parameters = dict[str, Any]


def install() -> None:
    """Refuse names that are taken, and let CloudFormation delete only what it attached itself."""
    _let_no_name_differ_by_case_alone()
    _let_cloudformation_take_over_nothing()
    _stop_deletions_of_what_others_attached()
    _name_the_role_of_a_session()


def _name_the_role_of_a_session() -> None:
    """Give ``aws:PrincipalArn`` the role's ARN for a session of a role.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-principalarn
    """
    resolve: Callable[[str, Any], Any] = iam_evaluator._resolve_condition_key

    def resolve_role(key: str, context: Any) -> Any:
        value = resolve(key, context)
        if key.lower() != "aws:principalarn" or ":assumed-role/" not in str(value):
            return value
        name = str(value).split("/")[1]
        role = iam._roles.get(name)
        return role["Arn"] if role else value

    iam_evaluator._resolve_condition_key = resolve_role


def _let_no_name_differ_by_case_alone() -> None:
    create_user: Callable[[Parameters], Answer] = iam._create_user

    def create_user_once(parameters: Parameters) -> Answer:
        name = iam._p(parameters, "UserName")
        if any(existing.lower() == name.lower() for existing in iam._users):
            return iam._error(409, "EntityAlreadyExists", f"User with name {name} already exists.")
        return create_user(parameters)

    iam._create_user = iam._IAM_HANDLERS["CreateUser"] = create_user_once


def _let_cloudformation_take_over_nothing() -> None:
    """A stack cannot create a role or a policy whose name somebody else's has (API_CreateRole, API_CreatePolicy)."""
    handlers = provisioners._RESOURCE_HANDLERS

    def refuse_names(kind: str, key: str, names: Callable[[], list[str]]) -> None:
        create = handlers[f"AWS::IAM::{kind}"]["create"]

        def create_once(logical_id: str, properties: Mapping[str, Any], stack_name: str) -> Any:
            name = properties.get(key)
            if name and name.lower() in (other.lower() for other in names()):
                raise ValueError(f"EntityAlreadyExists: A {kind} with name {name} already exists.")
            return create(logical_id, properties, stack_name)

        handlers[f"AWS::IAM::{kind}"]["create"] = create_once

    refuse_names("Role", "RoleName", lambda: list(iam._roles))
    refuse_names("ManagedPolicy", "ManagedPolicyName", lambda: [arn.rpartition("/")[2] for arn in iam._policies])


def _stop_deletions_of_what_others_attached() -> None:
    """CloudFormation takes back what a stack's template gave to a user or a policy, and nothing else."""
    handlers = provisioners._RESOURCE_HANDLERS
    delete_user, delete_policy = (handlers[f"AWS::IAM::{kind}"]["delete"] for kind in ("User", "ManagedPolicy"))

    def delete_user_of_the_stack(name: str, properties: Mapping[str, Any]) -> None:
        user = iam._users.get(name) or {}
        own = {str(arn) for arn in properties.get("ManagedPolicyArns") or []}
        inline = {policy["PolicyName"] for policy in properties.get("Policies") or []}
        if set(user.get("AttachedPolicies", [])) - own:
            raise ValueError(f"{name}: DeleteConflict: Cannot delete entity, must detach all policies first.")
        if set(iam._user_inline_policies.get(name) or {}) - inline:
            raise ValueError(f"{name}: DeleteConflict: Cannot delete entity, must delete policies first.")
        delete_user(name, properties)

    def delete_policy_of_the_stack(arn: str, properties: Mapping[str, Any]) -> None:
        holders = {"Roles": iam._roles, "Users": iam._users, "Groups": iam._groups}
        for key, entities in holders.items():
            own = properties.get(key) or []
            if any(arn in e.get("AttachedPolicies", []) for name, e in entities.items() if name not in own):
                raise ValueError(f"{arn}: DeleteConflict: Cannot delete a policy attached to entities.")
        delete_policy(arn, properties)

    handlers["AWS::IAM::User"]["delete"] = delete_user_of_the_stack
    handlers["AWS::IAM::ManagedPolicy"]["delete"] = delete_policy_of_the_stack
