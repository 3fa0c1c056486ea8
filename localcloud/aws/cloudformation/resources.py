"""What ministack drops of other resources: boundaries, reserved concurrency, a topic's key, tags, groups.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-template-resource-type-ref.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ministack.core import responses
from ministack.services import cloudwatch, iam, lambda_svc, sns
from ministack.services.cloudformation import provisioners

from ..iam.principals import unknown_principal

Properties = Mapping[str, Any]
_POLICIES = {
    "AWS::S3::BucketPolicy": ("PolicyDocument", "Invalid principal in policy (Service: S3, Status Code: 400)"),
    "AWS::IAM::Role": ("AssumeRolePolicyDocument", 'Invalid principal in policy: "AWS":"{name}"'),
    "AWS::KMS::Key": ("KeyPolicy", "Policy contains a statement with one or more invalid principals."),
    "AWS::SNS::TopicPolicy": ("PolicyDocument", "Invalid parameter: Policy Error: PrincipalNotFound"),
}
"""The policies that name principals, and the words in which one that does not exist is refused."""


def install() -> None:
    """Apply what is dropped, and add groups."""
    _after("AWS::IAM::Role", _set_boundary)
    _after("AWS::Lambda::Function", _reserve_concurrency)
    _after("AWS::SNS::Topic", _encrypt_topic)
    _after("AWS::CloudWatch::Alarm", _tag("alarm"))
    _after("AWS::CloudWatch::Dashboard", _tag("dashboard"))
    provisioners._RESOURCE_HANDLERS["AWS::IAM::Group"] = {
        "create": _create_group,
        "update": _update_group,
        "delete": _delete_group,
    }


def problem_of_principals(resource_type: str, properties: Properties) -> str | None:
    """Return why a resource's policy is refused; None if each principal that it names exists."""
    name, words = _POLICIES.get(resource_type, ("", ""))
    unknown = unknown_principal(properties.get(name)) if name else None
    return words.format(name=unknown) if unknown else None


def problem_of_attachments(properties: Properties) -> str | None:
    """Return why a managed policy cannot be attached; None if each exists."""
    unknown = next((arn for arn in properties.get("ManagedPolicyArns") or [] if not iam.policy_known(arn)), None)
    return None if unknown is None else f"Policy {unknown} does not exist or is not attachable."


def problem_of_an_existing_policy(
    resource_type: str, properties: Properties, policies: Mapping[str, Any]
) -> str | None:
    """Return why a bucket's policy cannot be created: it has one already, whoever put it there."""
    bucket = properties.get("Bucket", "")
    if resource_type == "AWS::S3::BucketPolicy" and bucket in policies:
        return f"The bucket policy already exists on bucket {bucket}."
    return None


def _after(resource_type: str, apply: Callable[[str, Properties], None]) -> None:
    """Let a function apply what the handlers of a type drop."""
    handlers = provisioners._RESOURCE_HANDLERS[resource_type]
    for verb in ("create", "update"):
        if verb in handlers:
            handlers[verb] = _applying(handlers[verb], apply, properties_at=1 if verb == "create" else 2)


def _applying(handler: Callable[..., Any], apply: Callable[[str, Properties], None], properties_at: int) -> Any:
    def handle(*arguments: Any, **options: Any) -> Any:
        result = handler(*arguments, **options)
        apply(result[0], arguments[properties_at])
        return result

    return handle


def _set_boundary(name: str, properties: Properties) -> None:
    boundary = properties.get("PermissionsBoundary")
    if boundary and not iam.policy_known(boundary):
        raise ValueError(f"Scope ARN: {boundary} does not exist or is not attachable.")
    iam._roles[name]["PermissionsBoundary"] = boundary


def _reserve_concurrency(name: str, properties: Properties) -> None:
    reserved = properties.get("ReservedConcurrentExecutions")
    if reserved is None:
        lambda_svc._delete_function_concurrency(name)
    else:
        lambda_svc._put_function_concurrency(name, {"ReservedConcurrentExecutions": int(reserved)})


def _encrypt_topic(arn: str, properties: Properties) -> None:
    sns._topics[arn]["attributes"]["KmsMasterKeyId"] = properties.get("KmsMasterKeyId", "")


def _tag(kind: str) -> Callable[[str, Properties], None]:
    def tag(name: str, properties: Properties) -> None:
        account, region = responses.get_account_id(), responses.get_region()
        arns = {
            "alarm": f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
            "dashboard": f"arn:aws:cloudwatch::{account}:dashboard/{name}",
        }
        cloudwatch._resource_tags[arns[kind]] = {tag["Key"]: tag["Value"] for tag in properties.get("Tags") or []}

    return tag


def _create_group(logical_id: str, properties: Properties, stack_name: str) -> tuple[str, dict[str, str]]:
    name = properties.get("GroupName") or provisioners._physical_name(stack_name, logical_id, max_len=128)
    _call(iam._create_group({"GroupName": name, "Path": properties.get("Path", "/")}))
    return _update_group(name, {}, properties, stack_name)


def _update_group(name: str, old: Properties, new: Properties, stack_name: str) -> tuple[str, dict[str, str]]:
    before, after = set(old.get("ManagedPolicyArns") or []), set(new.get("ManagedPolicyArns") or [])
    for arn in sorted(before - after):
        _call(iam._detach_group_policy({"GroupName": name, "PolicyArn": arn}))
    for arn in sorted(after - before):
        _call(iam._attach_group_policy({"GroupName": name, "PolicyArn": arn}))
    inline, wanted = ({p["PolicyName"]: p for p in side.get("Policies") or []} for side in (old, new))
    for policy in inline.keys() - wanted.keys():
        _call(iam._delete_group_policy({"GroupName": name, "PolicyName": policy}))
    for policy, entry in wanted.items():
        document = provisioners.json.dumps(entry["PolicyDocument"])
        _call(iam._put_group_policy({"GroupName": name, "PolicyName": policy, "PolicyDocument": document}))
    return name, {"Arn": iam._groups[name]["Arn"]}


def _delete_group(name: str, properties: Properties) -> None:
    if name in iam._groups:
        _update_group(name, properties, {}, "")
        _call(iam._delete_group({"GroupName": name}))


def _call(answer: Any) -> None:
    if answer[0] >= 400:
        raise ValueError(answer[2].decode("utf-8", "replace"))
