"""Drift of what this repository's templates deploy: what a resource is now, in the template's own shape.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-stack-drift.html: only what a template sets is
compared. ministack reads few types, and of buckets and roles hardly more than the name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core import iam_evaluator, responses
from ministack.services import cloudwatch, eventbridge, iam, kms, lambda_svc, s3, sns
from ministack.services.cloudformation import drift, provisioners

from . import buckets

Properties = Mapping[str, Any]
Reader = Callable[[str, Properties], Mapping[str, Any] | None]


def install() -> None:
    """Add readers, and extend those that ministack has."""
    readers: dict[str, tuple[Reader, str]] = {
        "AWS::S3::Bucket": (_bucket, " ".join(buckets.STORES)),
        "AWS::S3::BucketPolicy": (_bucket_policy, "PolicyDocument"),
        "AWS::IAM::Role": (_entity(iam._roles), "Policies ManagedPolicyArns PermissionsBoundary"),
        "AWS::IAM::User": (_entity(iam._users), "ManagedPolicyArns PermissionsBoundary Groups Tags"),
        "AWS::IAM::Group": (_entity(iam._groups), "ManagedPolicyArns"),
        "AWS::IAM::ManagedPolicy": (_managed_policy, "PolicyDocument"),
        "AWS::IAM::OIDCProvider": (_provider, "ClientIdList ThumbprintList"),
        "AWS::KMS::Key": (_key, "KeyPolicy EnableKeyRotation"),
        "AWS::SNS::Topic": (_topic, "KmsMasterKeyId"),
        "AWS::SNS::TopicPolicy": (_topic_policy, "PolicyDocument"),
        "AWS::Lambda::Function": (_function, "ReservedConcurrentExecutions LoggingConfig"),
        "AWS::Lambda::EventInvokeConfig": (_invoke_config, "DestinationConfig"),
        "AWS::Lambda::Permission": (_permission, ""),
        "AWS::Events::Rule": (_rule, "State ScheduleExpression EventPattern Targets"),
        "AWS::CloudWatch::Alarm": (_alarm, "AlarmActions OKActions Threshold Period EvaluationPeriods ActionsEnabled"),
        "AWS::CloudWatch::Dashboard": (_dashboard, ""),
        "AWS::KMS::Alias": (_kms_alias, ""),
    }
    for kind, (reader, names) in readers.items():
        known, covered = drift._DRIFT_READERS.get(kind, (lambda name, properties: {}, frozenset()))
        drift._DRIFT_READERS[kind] = (_joined(known, reader), covered | frozenset(names.split()))


def _joined(known: Reader, more: Reader) -> Reader:
    def read(name: str, properties: Properties) -> Mapping[str, Any] | None:
        first, second = known(name, properties), more(name, properties)
        return None if first is None or second is None else {**first, **second}

    return read


def _document(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value else value


def _bucket(name: str, properties: Properties) -> Mapping[str, Any] | None:
    if name not in s3._buckets:
        return None
    return {key: properties.get(key) if buckets.is_as_applied(name, key) else {} for key in buckets.STORES}


def _bucket_policy(name: str, properties: Properties) -> Mapping[str, Any] | None:
    policy = s3._bucket_policies.get(properties["Bucket"])
    return {"PolicyDocument": _document(policy)} if policy else None


def _entity(store: Any) -> Reader:
    def read(name: str, properties: Properties) -> Mapping[str, Any] | None:
        entity = store.get(name)
        if entity is None:
            return None
        inline = entity.get("InlinePolicies") or {}
        policies = [{"PolicyName": key, "PolicyDocument": _document(value)} for key, value in inline.items()]
        current = {
            "Policies": policies,
            "ManagedPolicyArns": list(entity.get("AttachedPolicies", [])),
            "PermissionsBoundary": entity.get("PermissionsBoundary"),
            "Tags": provisioners._tag_map(entity.get("Tags")),
            "Groups": [group for group, record in iam._groups.items() if name in record.get("Users", [])],
        }
        return {key: value for key, value in current.items() if value is not None}

    return read


def _managed_policy(arn: str, properties: Properties) -> Mapping[str, Any] | None:
    if arn not in iam._policies:
        return None
    document = iam_evaluator._resolve_managed_policy_document(arn, responses.get_account_id())
    return {"PolicyDocument": _document(document)}


def _provider(arn: str, properties: Properties) -> Mapping[str, Any] | None:
    provider = iam._oidc_providers.get(arn)
    if provider is None:
        return None
    return {"ClientIdList": provider["ClientIDList"], "ThumbprintList": provider["ThumbprintList"]}


def _key(key_id: str, properties: Properties) -> Mapping[str, Any] | None:
    record = kms._resolve_key(key_id)
    if record is None or record["KeyState"] == "PendingDeletion":
        return None
    return {
        "KeyPolicy": _document(record.get("Policy")),
        "EnableKeyRotation": bool(record.get("KeyRotationEnabled", properties.get("EnableKeyRotation"))),
    }


def _kms_alias(name: str, properties: Properties) -> Mapping[str, Any] | None:
    return {} if kms._resolve_key(name) else None


def _topic(arn: str, properties: Properties) -> Mapping[str, Any] | None:
    topic = sns._topics.get(arn)
    return None if topic is None else {"KmsMasterKeyId": topic["attributes"].get("KmsMasterKeyId", "")}


def _topic_policy(name: str, properties: Properties) -> Mapping[str, Any] | None:
    topics = [sns._topics.get(arn) for arn in properties["Topics"]]
    if None in topics:
        return None
    return {"PolicyDocument": _document(topics[0]["attributes"].get("Policy"))}


def _function(name: str, properties: Properties) -> Mapping[str, Any] | None:
    function = lambda_svc._functions.get(name)
    if function is None:
        return None
    reserved = function.get("concurrency")
    logging = function["config"].get("LoggingConfig") or {}
    return {
        "LoggingConfig": {key: logging.get(key) for key in properties.get("LoggingConfig") or {}},
        **({} if reserved is None else {"ReservedConcurrentExecutions": reserved}),
    }


def _invoke_config(name: str, properties: Properties) -> Mapping[str, Any] | None:
    function = lambda_svc._functions.get(name.partition(":")[0])
    config = lambda_svc._event_invoke_config(function, "$LATEST") if function else None
    return None if config is None else {"DestinationConfig": config.get("DestinationConfig")}


def _permission(name: str, properties: Properties) -> Mapping[str, Any] | None:
    function, _, _, _ = provisioners._lambda_function_for_cfn_ref(properties["FunctionName"])
    statements = (function or {}).get("policy", {}).get("Statement", [])
    return {} if any(statement.get("Sid") == name for statement in statements) else None


def _rule(name: str, properties: Properties) -> Mapping[str, Any] | None:
    key = eventbridge._rule_key(name, provisioners._eb_rule_bus_name(properties))
    rule = eventbridge._rules.get(key)
    if rule is None:
        return None
    current = {name: rule.get(name) for name in ("State", "ScheduleExpression")}
    pattern = _document(rule.get("EventPattern"))
    return {**current, "EventPattern": pattern, "Targets": eventbridge._targets.get(key, [])}


def _alarm(name: str, properties: Properties) -> Mapping[str, Any] | None:
    alarm = cloudwatch._alarms.get(name)
    if alarm is None:
        return None
    return {
        key: alarm[key]
        for key in ("AlarmActions", "OKActions", "Threshold", "Period", "EvaluationPeriods")
        if key in alarm
    } | {"ActionsEnabled": alarm.get("ActionsEnabled", True)}


def _dashboard(name: str, properties: Properties) -> Mapping[str, Any] | None:
    return {} if name in cloudwatch._dashboards else None
