"""CloudTrail: who did what, refused calls and pushes included, as LookupEvents shows it.

A record names the API's own event (``GitPush``, ``DeleteRepository``), the caller's ARN with the session's name, and
``errorCode`` for a refusal. Objects of S3 are data events, which LookupEvents never shows.
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html,
https://docs.aws.amazon.com/codecommit/latest/userguide/integ-cloudtrail.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from ministack.core import iam_actions, iam_evaluator, responses
from ministack.services import cloudtrail

_SOURCES = {"events": "events", "tag": "tagging", "logs": "logs", "cloudwatch": "monitoring"}
_OBJECT_ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipart", "s3:ListMultipart")
_READING = ("Get", "List", "Describe", "Head", "Lookup", "GitPull")
_recorded: ContextVar[bool] = ContextVar("localcloud_recorded", default=True)
"""Whether the request that is being served has its record."""


def install() -> None:
    """Record each request once, when it is known whether it is allowed."""
    extract, enforce = iam_actions.extract_iam_action, iam_evaluator.enforce

    def extract_unrecorded(*arguments: Any, **options: Any) -> Any:
        _recorded.set(False)
        return extract(*arguments, **options)

    def enforce_and_record(
        access_key_id: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        # What the request needs beside its own action is asked for on the way, and is no call.
        is_the_call = not _recorded.get()
        _recorded.set(True)
        denied = enforce(access_key_id, action, service, region, resource_arn, service_context)
        if is_the_call and not action.startswith(_OBJECT_ACTIONS):
            _record_call(access_key_id, action, resource_arn, denied)
        return denied

    iam_actions.extract_iam_action = extract_unrecorded
    iam_evaluator.enforce = enforce_and_record


def record(action: str, caller_arn: str, resource_arn: str, error: str = "") -> None:
    """Record one event.

    Args:
        action: ``service:EventName``.
        caller_arn: who did it, a session with its name.
        resource_arn: what it was about.
        error: the error's code, for a refused call.
    """
    service, _, name = action.partition(":")
    source = f"{_SOURCES.get(service, service)}.amazonaws.com"
    account, now = responses.get_account_id(), time.time()
    event = {
        "eventVersion": "1.11",
        "userIdentity": {"type": _kind(caller_arn), "arn": caller_arn, "accountId": account},
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "eventSource": source,
        "eventName": name,
        "awsRegion": responses.get_region(),
        "resources": [{"ARN": resource_arn}],
        "eventID": cloudtrail.new_uuid(),
        "eventType": "AwsApiCall",
        "readOnly": name.startswith(_READING),
        "recipientAccountId": account,
        **({"errorCode": error} if error else {}),
    }
    cloudtrail._get_event_queue().append(
        {
            "EventId": event["eventID"],
            "EventName": name,
            "EventSource": source,
            "EventTime": now,
            "Username": caller_arn.rpartition("/")[2],
            "ReadOnly": str(event["readOnly"]).lower(),
            "Resources": [{"ResourceName": resource_arn.rpartition(":")[2]}],
            "CloudTrailEvent": json.dumps(event),
        }
    )


def _record_call(access_key_id: str, action: str, resource_arn: str, denied: Any) -> None:
    credential = iam_evaluator.resolve_credential(access_key_id, responses.get_account_id())
    caller = getattr(credential, "principal_arn", "")
    error = "" if denied is None else getattr(denied, "code", "AccessDenied")
    record(action, caller, resource_arn, error)


def _kind(caller_arn: str) -> str:
    return "AssumedRole" if ":assumed-role/" in caller_arn else "IAMUser"
