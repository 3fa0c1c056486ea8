"""Who watches the guard: alarms on its failures, its silence and its having no hearers, and a table of all replicas."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from constructs import Construct

from ...guard.names import LOOKS, NAMESPACE, SUBSCRIBERS
from ..nag_suppressions import acknowledge

_SILENT_HOURS = 3


class SelfWatch(Construct):
    """Four alarms and a dashboard.

    Args:
        name: the guard's, with which its dashboard and its alarms are found: the guard compares what begins with it.
        function: the guard.
        check: the rule that makes it look every hour.
        log: its log group, which has a line of JSON for each replica and hour.
        topic: where the alarms go.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        function: lambda_.Function,
        check: events.Rule,
        log: logs.ILogGroup,
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, construct_id)
        hour = Duration.hours(1)
        failures = cloudwatch.Alarm(
            self,
            "Failures",
            alarm_name=f"{name}-Failures",
            alarm_description=f"The guard failed. Its log group is {log.log_group_name}.",
            metric=function.metric_errors(period=hour, statistic="Sum"),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        silence = self._missing(
            name,
            "Silence",
            f"The guard has not looked at the replicas for {_SILENT_HOURS} hours.",
            # Its own, since a call that is throttled or refused counts as an invocation, too.
            cloudwatch.Metric(namespace=NAMESPACE, metric_name=LOOKS, period=hour, statistic="Sum"),
        )
        stopped = self._missing(
            name,
            "Stopped",
            f"Nothing has made the guard look at the replicas for {_SILENT_HOURS} hours.",
            _invocations(check, hour),
        )
        unheard = self._missing(
            name,
            "Unheard",
            "Nobody gets every message of the guard's topic; so this alarm is only shown.",
            cloudwatch.Metric(namespace=NAMESPACE, metric_name=SUBSCRIBERS, period=hour, statistic="Maximum"),
        )
        acknowledge(unheard, {"CloudWatchAlarmAction": "It is about the topic that its action would use."})
        for alarm in (failures, silence, stopped):
            alarm.add_alarm_action(actions.SnsAction(topic))
            alarm.add_ok_action(actions.SnsAction(topic))
        self._show([failures, silence, stopped, unheard], log, name)

    def _show(self, alarms: list[cloudwatch.IAlarm], log: logs.ILogGroup, name: str) -> None:
        """Make the dashboard."""
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=name,
            default_interval=Duration.hours(_SILENT_HOURS),
            widgets=[[cloudwatch.AlarmStatusWidget(alarms=alarms, width=24)], [_table(log)]],
        )

    def _missing(self, name: str, what: str, description: str, metric: cloudwatch.Metric) -> cloudwatch.Alarm:
        """Return an alarm that is on if a metric has been missing, or zero, for some hours."""
        return cloudwatch.Alarm(
            self,
            what,
            alarm_name=f"{name}-{what}",
            alarm_description=description,
            metric=metric,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            threshold=1,
            evaluation_periods=_SILENT_HOURS,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )


def _invocations(rule: events.Rule, period: Duration) -> cloudwatch.Metric:
    """Return EventBridge's own metric, which nobody else can write, as anybody who may put metrics can ours."""
    return cloudwatch.Metric(
        namespace="AWS/Events",
        metric_name="Invocations",
        dimensions_map={"RuleName": rule.rule_name},
        period=period,
        statistic="Sum",
    )


def _table(log: logs.ILogGroup) -> cloudwatch.LogQueryWidget:
    """Return the table of all replicas, from the lines of the guard's last look."""
    return cloudwatch.LogQueryWidget(
        title="Replicas, as of the last hourly look",
        log_group_names=[log.log_group_name],
        query_lines=[
            "filter ispresent(status)",
            "stats latest(status) as state, latest(confirmed) as confirmed_by_a_run, "
            "latest(snapshot) as last_snapshot, latest(refs) as number_of_refs by replica",
            "sort state asc, replica asc",
        ],
        view=cloudwatch.LogQueryVisualizationType.TABLE,
        width=24,
        height=12,
    )
