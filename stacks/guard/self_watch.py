"""Who watches the guard: alarms on its failures, its silence and its having no hearers, and a table of all replicas."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from constructs import Construct

from codecommit_mirror.config.guard import STACK_NAME
from mirror_guard.names import LOOKS, NAMESPACE, SUBSCRIBERS

from ..nag_suppressions import acknowledge

_SILENT_HOURS = 3


class SelfWatch(Construct):
    """Three alarms and a dashboard.

    Args:
        function: the guard.
        log: its log group, which has a line of JSON for each replica and hour.
        topic: where the alarms go.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        function: lambda_.Function,
        log: logs.ILogGroup,
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, construct_id)
        hour = Duration.hours(1)
        failures = cloudwatch.Alarm(
            self,
            "Failures",
            alarm_description=f"The guard failed. Its log group is {log.log_group_name}.",
            metric=function.metric_errors(period=hour, statistic="Sum"),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        silence = cloudwatch.Alarm(
            self,
            "Silence",
            alarm_description=f"The guard has not looked at the replicas for {_SILENT_HOURS} hours.",
            # Its own, since a call that is throttled or refused counts as an invocation, too.
            metric=cloudwatch.Metric(namespace=NAMESPACE, metric_name=LOOKS, period=hour, statistic="Sum"),
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            threshold=1,
            evaluation_periods=_SILENT_HOURS,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
        unheard = self._unheard(hour)
        for alarm in (failures, silence):
            alarm.add_alarm_action(actions.SnsAction(topic))
            alarm.add_ok_action(actions.SnsAction(topic))
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=STACK_NAME,
            default_interval=Duration.hours(_SILENT_HOURS),
            widgets=[[cloudwatch.AlarmStatusWidget(alarms=[failures, silence, unheard], width=24)], [_table(log)]],
        )

    def _unheard(self, hour: Duration) -> cloudwatch.Alarm:
        """Return the alarm that nobody hears of the others."""
        alarm = cloudwatch.Alarm(
            self,
            "Unheard",
            alarm_description="Nobody has confirmed a subscription to the guard's topic; so this alarm is only shown.",
            metric=cloudwatch.Metric(namespace=NAMESPACE, metric_name=SUBSCRIBERS, period=hour, statistic="Maximum"),
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            threshold=1,
            evaluation_periods=_SILENT_HOURS,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
        acknowledge(alarm, {"CloudWatchAlarmAction": "It is about the topic that its action would use."})
        return alarm


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
