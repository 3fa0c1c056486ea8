"""What happens to each resource of a stack: its properties are judged, then the calls, and only then is it done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ministack.services import s3
from ministack.services.cloudformation import provisioners, stacks

from . import calls, principal, properties, resources

Properties = Mapping[str, Any]
_MOVED_IN_PLACE = ("AWS::S3::BucketPolicy",)
"""Types that ministack moves to what they are about next, without a creation and a deletion."""


def install() -> None:
    """Judge every creation, update and deletion."""
    create, update, delete = stacks._provision_resource, stacks._update_resource, stacks._delete_resource

    def create_judged(kind: str, logical_id: str, new: Properties, stack_name: str) -> Any:
        _refuse(properties.problem(kind, new))
        _refuse(resources.problem_of_principals(kind, new))
        _refuse(resources.problem_of_attachments(new))
        known = calls.kind_of(kind)
        name = str(new.get(known.name) or _future_name(kind, stack_name, logical_id))
        principal.require(calls.creating(known, name, new))
        _refuse(resources.problem_of_an_existing_policy(kind, new, s3._bucket_policies))
        return create(kind, logical_id, new, stack_name)

    def update_judged(
        kind: str,
        physical_id: str,
        old: Properties,
        new: Properties,
        stack_name: str,
        logical_id: str | None = None,
        attributes: Properties | None = None,
    ) -> Any:
        if old != new:
            _refuse(properties.problem(kind, new))
            _refuse(resources.problem_of_principals(kind, new))
            _refuse(resources.problem_of_attachments(new))
            known, name = calls.kind_of(kind), _name(kind, physical_id, new)
            if kind in _MOVED_IN_PLACE and old[known.name] != new[known.name]:
                principal.require([*calls.creating(known, name, new), *calls.deleting(known, old[known.name], old)])
                _refuse(resources.problem_of_an_existing_policy(kind, new, s3._bucket_policies))
            changes = calls.changed(kind, known, known.arn_of(name), old, new)
            principal.require(changes + calls.updating(known, name, old, new))
        return update(kind, physical_id, old, new, stack_name, logical_id, attributes)

    def delete_judged(
        kind: str, physical_id: str, old: Properties, stack_name: str | None = None, logical_id: str | None = None
    ) -> Any:
        principal.require(calls.deleting(calls.kind_of(kind), _name(kind, physical_id, old), old))
        return delete(kind, physical_id, old, stack_name, logical_id)

    stacks._update_resource = update_judged
    # ministack's own update replaces resources with the other two.
    stacks._provision_resource = provisioners._provision_resource = create_judged
    stacks._delete_resource = provisioners._delete_resource = delete_judged


def _refuse(problem: str | None) -> None:
    if problem:
        raise ValueError(problem)


def _name(resource_type: str, physical_id: str, current: Properties) -> str:
    """Return the name in the ARN of a resource that exists; some have physical ids that are no names."""
    named_otherwise = (
        "AWS::CodeCommit::Repository",
        "AWS::S3::BucketPolicy",
        "AWS::Lambda::",
        "AWS::SNS::Subscription",
    )
    known = calls.kind_of(resource_type)
    if resource_type.startswith(named_otherwise) and current.get(known.name):
        return str(current[known.name])
    return physical_id


def _future_name(resource_type: str, stack_name: str, logical_id: str) -> str:
    lower = resource_type in ("AWS::S3::Bucket", "AWS::ECR::Repository")
    return str(provisioners._physical_name(stack_name, logical_id, lowercase=lower, max_len=63))
