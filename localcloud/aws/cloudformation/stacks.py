"""Where ministack's CloudFormation is laxer than the service, it is made as strict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ministack.core import iam_actions
from ministack.services import cloudformation
from ministack.services.cloudformation import changesets, engine, handlers, stacks

_NEVER_IMPORTED = ("AWS::CodeCommit::Repository",)


def install() -> None:
    """Make deletions stop as the service's do, policies see a stack's tags, and repositories not be imported."""
    _stop_deletions_at_the_first_failure()
    _let_policies_see_tags()
    _refuse_imports()
    _join_in_conditions()


def set_status(name: str, status: str) -> None:
    """Give every stack of a name a status, as an operation that another run has begun does."""
    for (_, _, key), stack in list(cloudformation._stacks._data.items()):
        if key == name:
            stack["StackStatus"] = status


def _join_in_conditions() -> None:
    """Evaluate ``Fn::Join`` in conditions, with which CDK's bootstrap template asks whether a list is empty.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference-conditions.html
    """
    evaluate = engine._evaluate_conditions

    def evaluate_joined(template: dict[str, Any], parameters: Mapping[str, Any]) -> Any:
        conditions = _joined(template.get("Conditions", {}), parameters)
        return evaluate({**template, "Conditions": conditions}, parameters)

    for module in (engine, stacks, changesets, handlers):
        if hasattr(module, "_evaluate_conditions"):
            module._evaluate_conditions = evaluate_joined


def _joined(expression: Any, parameters: Mapping[str, Any]) -> Any:
    if isinstance(expression, list):
        return [_joined(item, parameters) for item in expression]
    if not isinstance(expression, dict):
        return expression
    if "Fn::Join" not in expression:
        return {key: _joined(value, parameters) for key, value in expression.items()}
    separator, items = expression["Fn::Join"]
    if isinstance(items, dict) and "Ref" in items:
        value = parameters[items["Ref"]]["Value"]
        items = value if isinstance(value, list) else value.split(",")
    return separator.join(str(item) for item in items)


def _refuse_imports() -> None:
    """Refuse to import what the service's list of supported resources lacks, in the service's words.

    Recorded in https://github.com/aws-samples/aws-control-tower-cicd-cloud-custodian/issues/1; still asked for in
    https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1002.
    """
    import_changes = changesets._import_changes

    def refusing(resources: list[dict[str, Any]], template: Any, diff: Any) -> Any:
        types = [entry.get("ResourceType") for entry in resources]
        if refused := [kind for kind in types if kind in _NEVER_IMPORTED]:
            raise ValueError(f"The following resource types are not supported for resource import: {','.join(refused)}")
        return import_changes(resources, template, diff)

    changesets._import_changes = refusing


def _let_policies_see_tags() -> None:
    """Give ``aws:ResourceTag/KEY`` to policies on calls for one stack."""
    request_tag_context = iam_actions.request_tag_context

    def with_resource_tags(service: str, action: str, body: bytes, parameters: Mapping[str, Any]) -> dict[str, Any]:
        context: dict[str, Any] = request_tag_context(service, action, body, parameters)
        name = iam_actions._query_param(parameters, "StackName") if service == "cloudformation" else None
        if name:
            stack = cloudformation._stacks.get(name.split("/")[1] if name.startswith("arn:") else name) or {}
            context |= {f"aws:ResourceTag/{tag['Key']}".lower(): tag["Value"] for tag in stack.get("Tags", [])}
        return context

    iam_actions.request_tag_context = with_resource_tags


def _stop_deletions_at_the_first_failure() -> None:
    """Make a stack's deletion stop at the first resource that cannot be deleted.

    What the failed resource depends on is not touched, and a later DeleteStack starts again from there.
    """
    delete_stack, delete_resource = stacks._delete_stack_async, stacks._delete_resource
    failed: set[str] = set()

    async def delete_stack_until_failure(stack_name: str, *arguments: Any, **options: Any) -> None:
        failed.discard(stack_name)
        await delete_stack(stack_name, *arguments, **options)

    def delete_resource_until_failure(
        resource_type: str, physical_id: str, properties: Any, stack_name: str, logical_id: str
    ) -> None:
        if stack_name in failed:
            raise ValueError("Resource deletion cancelled")
        try:
            delete_resource(resource_type, physical_id, properties, stack_name, logical_id)
        except Exception:
            failed.add(stack_name)
            raise

    stacks._delete_stack_async = delete_stack_until_failure
    stacks._delete_resource = delete_resource_until_failure
    # DeleteStack's handler holds the function under its own name.
    handlers._delete_stack_async = delete_stack_until_failure
