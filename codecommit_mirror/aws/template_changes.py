"""What a deployment changes in a stack, resource by resource; what widens rights comes first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..actions import Action

_RIGHTS = ("AWS::IAM::", "AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy", "AWS::KMS::Key", "AWS::Lambda::Permission")
_DATA = ("AWS::CodeCommit::Repository", "AWS::S3::Bucket")
"""Types whose deletion loses data for good."""
_COMPARED = ("Type", "Properties", "DeletionPolicy", "UpdateReplacePolicy")


def template_changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Action]:
    """Return what changes between two templates.

    Args:
        before: the deployed template; None for a new stack.
        after: the synthesised one.
    """
    old, new = (before or {}).get("Resources", {}), after.get("Resources", {})
    actions = {}
    for identifier in {**old, **new}:
        if action := _change(identifier, old.get(identifier), new.get(identifier)):
            actions[identifier] = action
    order = sorted(actions, key=lambda identifier: not _is_about_rights(new.get(identifier) or old[identifier]))
    return [actions[identifier] for identifier in order]


def _change(identifier: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Action | None:
    if old is None and new is not None:
        return Action("create", _name(identifier, new), after=_statements(new, {}))
    if new is None and old is not None:
        keeps = old.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate")
        return Action("delete", _name(identifier, old), is_destructive=old["Type"] in _DATA and not keeps)
    if old is None or new is None or _compared(old) == _compared(new):
        return None
    if old["Type"] != new["Type"]:
        return Action("replace", _name(identifier, new), old["Type"], new["Type"], is_destructive=old["Type"] in _DATA)
    properties = {*old.get("Properties", {}), *new.get("Properties", {})}
    changed = sorted(
        name for name in properties if old.get("Properties", {}).get(name) != new.get("Properties", {}).get(name)
    )
    added = _statements(new, old)
    return Action("update", _name(identifier, new), after=", ".join(changed) + (f"; {added}" if added else ""))


def _compared(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {key: resource.get(key) for key in _COMPARED}


def _name(identifier: str, resource: Mapping[str, Any]) -> str:
    """Return a resource's type and construct path, as the CDK CLI prints them."""
    path = str(resource.get("Metadata", {}).get("aws:cdk:path", identifier))
    return f"{resource['Type']} {path.partition('/')[2].removesuffix('/Resource') or path}"


def _is_about_rights(resource: Mapping[str, Any]) -> bool:
    return str(resource["Type"]).startswith(_RIGHTS)


def _statements(new: Mapping[str, Any], old: Mapping[str, Any]) -> str | None:
    """Return the statements of policies that are new in a resource."""
    known = [json.dumps(statement, sort_keys=True) for statement in _find_statements(old.get("Properties"))]
    added = [
        text
        for statement in _find_statements(new.get("Properties"))
        if (text := json.dumps(statement, sort_keys=True)) not in known
    ]
    return "; ".join(added) or None


def _find_statements(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        own = value.get("Statement", [])
        statements = own if isinstance(own, list) else [own]
        return [
            *statements,
            *(statement for key, part in value.items() if key != "Statement" for statement in _find_statements(part)),
        ]
    if isinstance(value, list):
        return [statement for part in value for statement in _find_statements(part)]
    return []
