"""What the guard itself consists of, as AWS has it: rules, function, vault, key, alarms, topic.

Each part is a short text that is the same as long as nothing changed; an hourly look compares them with the last one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

_NONE = {
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
    "ReplicationConfigurationNotFoundError",
    "ServerSideEncryptionConfigurationNotFoundError",
    "ResourceNotFoundException",
    "NotFound",
}
"""Codes of what is not there, or not any longer."""
_SETTINGS = (
    "Role",
    "Handler",
    "Runtime",
    "Timeout",
    "MemorySize",
    "Environment",
    "Layers",
    "LoggingConfig",
    "VpcConfig",
)


@dataclass(frozen=True)
class Deployment:
    """The guard's parts.

    Attributes:
        parts: a text for each, by what people call it.
        subscribers: how many subscriptions of the topic are confirmed; None if that may not be seen.
        deployed: when the stacks of the guard and the vault were last deployed, in ISO 8601.
    """

    parts: Mapping[str, str]
    subscribers: int | None
    deployed: str


def read(client: Callable[[str], Any], environment: Mapping[str, str]) -> Deployment:
    """Read what the guard consists of.

    Args:
        client: returns a client for a service.
        environment: the function's.
    """
    name, bucket, key = (environment[n] for n in ("AWS_LAMBDA_FUNCTION_NAME", "BUCKET", "SIGNING_KEY"))
    parts = dict(_function_and_rules(client, name))
    parts |= {f"vault: {what}": _digest(call) for what, call in _of_bucket(client("s3"), bucket)}
    parts["signing key: policy"] = _digest(lambda: client("kms").get_key_policy(KeyId=key, PolicyName="default"))
    parts |= _alarms(client("cloudwatch"), name)
    found, subscribers = _topic(client, environment["TOPIC_ARN"])
    deployed = _deployed(client, environment)
    # Who deploys other code for a moment, and then the same again, leaves nothing else.
    parts["last deployment of the stacks"] = deployed
    return Deployment({**parts, **found}, subscribers, deployed)


def _function_and_rules(client: Callable[[str], Any], name: str) -> Iterator[tuple[str, str]]:
    lambda_, events = client("lambda"), client("events")
    function = lambda_.get_function_configuration(FunctionName=name)
    yield "function: code", str(function["CodeSha256"])
    yield "function: settings", _short({key: function.get(key) for key in _SETTINGS})
    yield "function: who may call it", _digest(lambda: lambda_.get_policy(FunctionName=name)["Policy"])
    yield "function: concurrency", _digest(lambda: lambda_.get_function_concurrency(FunctionName=name))
    yield "function: what fails goes", _digest(lambda: _invoke_config(lambda_, name))
    for rule in events.list_rule_names_by_target(TargetArn=function["FunctionArn"])["RuleNames"]:
        shown = events.describe_rule(Name=rule)
        targets = events.list_targets_by_rule(Rule=rule)["Targets"]
        what = {key: shown.get(key) for key in ("State", "ScheduleExpression", "EventPattern")}
        yield f"rule {rule}", f"{shown['State']} {_short({**what, 'targets': targets})}"


def _topic(client: Callable[[str], Any], arn: str) -> tuple[dict[str, str], int | None]:
    """Return the parts of the topic, and how many confirmed subscriptions get every message.

    A topic of another account may not be looked at, nor may the key of one that the stack does not own.
    """
    sns, kms, parts = client("sns"), client("kms"), {}
    try:
        topic = sns.get_topic_attributes(TopicArn=arn)["Attributes"]
    except sns.exceptions.AuthorizationErrorException:
        return {}, None
    key = topic.get("KmsMasterKeyId")
    parts["topic: policy and key"] = _short({"Policy": topic.get("Policy"), "KmsMasterKeyId": key})
    is_usable = True
    if key:
        with suppress(kms.exceptions.ClientError):
            parts["topic's key: policy"] = _digest(lambda: kms.get_key_policy(KeyId=key, PolicyName="default"))
            is_usable = kms.describe_key(KeyId=key)["KeyMetadata"]["Enabled"]
    pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=arn)
    confirmed = [one for page in pages for one in page["Subscriptions"] if one["SubscriptionArn"].startswith("arn:")]
    filters = {
        f"subscription of {one['Endpoint']} ({one['Protocol']})": sns.get_subscription_attributes(
            SubscriptionArn=one["SubscriptionArn"]
        )["Attributes"].get("FilterPolicy", "")
        for one in confirmed
    }
    return {**parts, **filters}, sum(not text for text in filters.values()) if is_usable else 0


def _invoke_config(lambda_: Any, name: str) -> Any:
    found = lambda_.get_function_event_invoke_config(FunctionName=name)
    return {key: found.get(key) for key in ("DestinationConfig", "MaximumRetryAttempts", "MaximumEventAgeInSeconds")}


def _of_bucket(s3: Any, bucket: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "policy", lambda: s3.get_bucket_policy(Bucket=bucket)["Policy"]
    yield "encryption", lambda: s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    yield "replication", lambda: s3.get_bucket_replication(Bucket=bucket)["ReplicationConfiguration"]
    yield "life cycle", lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    yield "locking", lambda: s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]


def _alarms(cloudwatch: Any, guard: str) -> dict[str, str]:
    """Return the alarms that have the guard's name."""
    volatile = ("StateValue", "StateReason", "StateReasonData", "StateUpdatedTimestamp", "StateTransitionedTimestamp")
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{guard}-")
    alarms = (alarm for page in pages for alarm in page["MetricAlarms"])
    return {
        f"alarm {alarm['AlarmName']}": _short({key: part for key, part in alarm.items() if key not in volatile})
        for alarm in alarms
    }


def _deployed(client: Callable[[str], Any], environment: Mapping[str, str]) -> str:
    times = []
    for name in environment["STACKS"].split():
        (stack,) = client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        times.append(stack.get("LastUpdatedTime") or stack["CreationTime"])
    return str(max(times).strftime("%Y-%m-%d %H:%M:%S UTC"))


def _digest(call: Callable[[], Any]) -> str:
    try:
        return _short(call())
    except ClientError as error:
        if error.response["Error"]["Code"] in _NONE:
            return "none"
        raise


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if key != "ResponseMetadata"}
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what differs between two looks, a phrase each."""
    gone = [f"{part} is gone" for part in sorted(before.keys() - now.keys())]
    added = [f"{part} is new" for part in sorted(now.keys() - before.keys())]
    changed = [f"{part} was changed" for part in sorted(before.keys() & now.keys()) if before[part] != now[part]]
    return [*gone, *changed, *added]
