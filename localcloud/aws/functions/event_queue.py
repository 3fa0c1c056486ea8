"""Events on their way to functions: permission, retries, and everything that a queue may do to them.

EventBridge and SNS may invoke a function only if its policy lets them. The event then waits in Lambda's queue: it is
tried three times in all (on AWS with waits of one and two minutes, here of a fraction of a second), for hours while the
function is throttled, and goes to the failure destination at the end, with the rights of the function's role.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html,
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async.html: an event may come twice. A rule's missing permission
is a failed delivery: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html
"""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from threading import Lock, Timer
from typing import Any

from ministack.core.iam_evaluator import EvalContext, evaluate_resource_policy
from ministack.services import eventbridge, lambda_svc, sns

from ..rights import acting

_AT_A_TIME = 3
_ATTEMPTS = 3
_WAITS = (0.2, 0.4)
_THROTTLED_WAIT, _THROTTLED_TRIES = 0.3, 200
_LATE_SECONDS = 2.0


_rule: ContextVar[str] = ContextVar("localcloud_rule", default="")
"""The ARN of the rule whose target is being invoked."""


class Delivery(enum.Enum):
    """How the queue delivers: AWS promises at least once, and no order."""

    ONCE = "once"
    TWICE = "twice"
    LATE = "late"
    """Each event some seconds after it happened."""
    SHUFFLED = "shuffled"
    """Of the events of some seconds, the last one first."""


class EventQueue:
    """The queue of asynchronous invocations of all functions."""

    def __init__(self) -> None:
        self.delivery = Delivery.ONCE
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="event")
        self._lock = Lock()
        self._waiting: list[tuple[dict[str, Any], Any]] = []
        self.undelivered: list[str] = []
        """Functions that a service tried to invoke without permission, the oldest first."""

    def put(self, function_arn: str, event: Any, *, service: str, source_arn: str) -> None:
        """Invoke a function with an event, as a service does."""
        function, config, _ = lambda_svc._get_func_record_for_ref(function_arn)
        if not function or not config:
            return
        if not may_invoke(function, function_arn, service, source_arn):
            self.undelivered.append(function_arn)
            return
        record = lambda_svc._execution_record_for_config(function, config)
        if self.delivery is Delivery.SHUFFLED:
            self._shuffle(record, event)
        elif self.delivery is Delivery.LATE:
            Timer(_LATE_SECONDS, self._submit, (record, event)).start()
        else:
            for _ in range(2 if self.delivery is Delivery.TWICE else 1):
                self._submit(record, event)

    def _shuffle(self, record: dict[str, Any], event: Any) -> None:
        with self._lock:
            first = not self._waiting
            self._waiting.append((record, event))
        if first:
            Timer(_LATE_SECONDS, self._deliver_backwards).start()

    def _deliver_backwards(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for record, event in reversed(waiting):
            self._submit(record, event)

    def _submit(self, record: dict[str, Any], event: Any) -> None:
        self._pool.submit(lambda_svc._run_with_function_config_scope, record, _try, record, event)


def install() -> EventQueue:
    """Let EventBridge and SNS invoke functions through the queue, and return it."""
    queue = EventQueue()

    def from_rule(arn: str, payload: Any) -> None:
        queue.put(arn, json.loads(payload), service="events.amazonaws.com", source_arn=_rule.get())

    invoke = eventbridge._invoke_target

    def invoke_of_rule(target: Any, event: Any, rule: Mapping[str, Any], view: Any = None) -> None:
        token = _rule.set(str(rule.get("Arn", "")))
        try:
            invoke(target, event, rule, view)
        finally:
            _rule.reset(token)

    eventbridge._dispatch_to_lambda = from_rule
    eventbridge._invoke_target = invoke_of_rule
    _from_topics(queue)
    return queue


def _from_topics(queue: EventQueue) -> None:
    def deliver(endpoint: str, envelope: str, topic_arn: str, subscription_arn: str, *_: Any) -> None:
        record = {"EventVersion": "1.0", "EventSource": "aws:sns", "EventSubscriptionArn": subscription_arn}
        event = {"Records": [{**record, "Sns": json.loads(envelope)}]}
        queue.put(endpoint, event, service="sns.amazonaws.com", source_arn=topic_arn)

    sns._deliver_to_lambda = deliver


def may_invoke(function: Mapping[str, Any], function_arn: str, service: str, source_arn: str) -> bool:
    """Whether a function's policy lets a service invoke it for something of its own."""
    account = function_arn.split(":")[4]
    context = EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account=account,
        action="lambda:InvokeFunction",
        resource_arn=function_arn,
        region=function_arn.split(":")[3],
        service_context={
            "aws:sourcearn": source_arn,
            "aws:sourceaccount": source_arn.split(":")[4] if source_arn.count(":") > 4 else account,
            "aws:principalisawsservice": "true",
        },
    )
    return bool(evaluate_resource_policy(function["policy"], context, service=service).decision == "Allow")


def _try(record: dict[str, Any], event: Any) -> None:
    """Invoke a function until it succeeds or has failed for good."""
    settings = _settings(record)
    attempts = 1 + int(settings.get("MaximumRetryAttempts", _ATTEMPTS - 1))
    failures = throttled = 0
    while True:
        # As the function is now: its code and its concurrency may have changed meanwhile.
        function = {**record, **(lambda_svc._functions.get(record["config"]["FunctionName"]) or {})}
        result = lambda_svc._execute_function(function, event)
        _count(record, result)
        if not result.get("error") and not result.get("throttle"):
            return
        if result.get("throttle"):
            throttled += 1
            if throttled >= _THROTTLED_TRIES:
                break
            time.sleep(_THROTTLED_WAIT)
            continue
        failures += 1
        if failures >= attempts:
            break
        time.sleep(_WAITS[min(failures, len(_WAITS)) - 1])
    destination = ((settings.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination", "")
    if destination:
        _send_to(destination, record, event, result)


def _settings(record: Mapping[str, Any]) -> Mapping[str, Any]:
    configs = record.get("event_invoke_configs") or {}
    return record.get("event_invoke_config") or configs.get("$LATEST") or configs.get("") or {}


def _count(record: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    lambda_svc._emit_lambda_metrics(
        record["config"]["FunctionName"],
        duration_ms=0.0,
        error=bool(result.get("error")),
        throttle=bool(result.get("throttle")),
    )


def _send_to(destination: str, record: dict[str, Any], event: Any, result: Any) -> None:
    """Send a failed event on, as the function's role."""
    action = {"sns": "sns:Publish", "sqs": "sqs:SendMessage", "lambda": "lambda:InvokeFunction"}
    config = record["config"]
    try:
        with acting.session_of(config["Role"], config["FunctionName"], "lambda.amazonaws.com") as key:
            acting.require(key, action[destination.split(":")[2]], destination)
    except acting.DeniedError:
        return
    lambda_svc._route_async_failure(destination, config["FunctionName"], event, result)
