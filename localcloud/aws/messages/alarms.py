"""Alarms that are evaluated as time passes, with the dimensions and the missing data that they name.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html: each minute for periods of a
minute and more; here each second, and whenever the clock is moved. EventBridge's own metrics are counted too:
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ministack.core import responses
from ministack.services import cloudwatch, eventbridge

from ..clock import Clock

_EVERY_SECONDS = 1.0
_COMPARISONS = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
Alarm = dict[str, Any]


def install(clock: Clock) -> None:
    """Evaluate alarms by themselves, and by nothing else."""
    _count_invocations()
    cloudwatch.time = _Time(clock)
    cloudwatch._evaluate_all_alarms = lambda: None
    cloudwatch._evaluate_alarm = lambda alarm: None
    clock.every_day(lambda: evaluate(clock.now()))

    def run() -> None:
        while True:
            time.sleep(_EVERY_SECONDS)
            evaluate(clock.now())

    threading.Thread(target=run, name="alarms", daemon=True).start()


class _Time:
    """Stands for the module of that name, so that data are put at the clock's time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        """Return the clock's time in seconds."""
        return self._clock.now().timestamp()


def evaluate(now: datetime) -> None:
    """Bring every alarm of every account and region to the state that its data are in."""
    for (account, region, _), alarm in list(cloudwatch._alarms._data.items()):
        if not alarm.get("MetricName") or alarm["ComparisonOperator"] not in _COMPARISONS:
            continue
        with responses.request_scope(account, region):
            state, reason = state_of(alarm, _values(alarm, now.timestamp()))
            if state != alarm["StateValue"]:
                _change(alarm, state, reason)


def state_of(alarm: Mapping[str, Any], values: list[float | None]) -> tuple[str, str]:
    """Return an alarm's state and the reason.

    Args:
        alarm: its configuration.
        values: the statistic of each evaluated period, the latest first; None for a period without data.
    """
    wanted = int(alarm.get("DatapointsToAlarm") or alarm.get("EvaluationPeriods", 1))
    missing = alarm.get("TreatMissingData") or "missing"
    if all(value is None for value in values) and missing == "missing":
        return "INSUFFICIENT_DATA", "Insufficient Data: no datapoints were received"
    if missing == "ignore" and any(value is None for value in values):
        return alarm["StateValue"], ""
    breaching = [_breaches(alarm, value) if value is not None else missing == "breaching" for value in values]
    shown = ", ".join("no datapoint" if value is None else str(value) for value in values)
    reason = f"Threshold Crossed: {sum(breaching)} of the last {len(values)} datapoints were breaching [{shown}]"
    return ("ALARM" if sum(breaching) >= wanted else "OK"), reason


def _breaches(alarm: Mapping[str, Any], value: float) -> bool:
    return bool(_COMPARISONS[alarm["ComparisonOperator"]](value, float(alarm.get("Threshold", 0))))


def _values(alarm: Mapping[str, Any], now: float) -> list[float | None]:
    """Return the statistic of the last periods, the one that is going on included."""
    period, count = int(alarm.get("Period", 60)), int(alarm.get("EvaluationPeriods", 1))
    points = _points(alarm)
    values: list[float | None] = []
    for number in range(count):
        end, start = now - number * period, now - (number + 1) * period
        inside = [point for point in points if start < point["Timestamp"] <= end]
        statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic", "Average")
        value = cloudwatch._stat_value(cloudwatch._calc_stats(inside), statistic, inside) if inside else None
        values.append(None if value is None else float(value))
    return values


def _points(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    dimensions = cloudwatch._dims_key(cloudwatch._dims_from_list(alarm.get("Dimensions") or []))
    key = (alarm["Namespace"], alarm["MetricName"], dimensions)
    return list(cloudwatch._metrics.get(key, []))


def _change(alarm: Alarm, state: str, reason: str) -> None:
    old = alarm["StateValue"]
    alarm |= {"StateValue": state, "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
    cloudwatch._record_history(alarm["AlarmName"], old, state, reason)
    cloudwatch._dispatch_alarm_actions(alarm, old, state, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def _count_invocations() -> None:
    """Count what each rule invokes."""
    invoke = eventbridge._invoke_target

    def invoke_and_count(target: Any, event: Any, rule: Mapping[str, Any], view: Any = None) -> None:
        invoke(target, event, rule, view)
        cloudwatch.record_metric("AWS/Events", "Invocations", 1, "Count", {"RuleName": rule["Name"]})

    eventbridge._invoke_target = invoke_and_count
