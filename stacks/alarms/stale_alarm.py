"""Notify people when no run has confirmed the replica for too long, for whatever reason.

Every run that did not fail writes the tag ``codecommit-mirror/confirmed`` anew: GitPush is enough for that, and
CodeCommit reports it as an event. A rule counts those events, and an alarm watches the rule's own metric and treats
missing data as breaching.
"""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_sns as sns
from constructs import Construct

from codecommit_mirror.engine import CONFIRMED_TAG

from .replica_changes import WatchedReplica


class StaleAlarm(Construct):
    """A rule on the confirmations of the mirror's user, and an alarm on their absence.

    Args:
        replica: what is watched, and who confirms.
        hours: how long there may be no confirmation, 1 to 168.
        topic: where the alarm goes.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, replica: WatchedReplica, hours: int, topic: sns.ITopic
    ) -> None:
        super().__init__(scope, construct_id)
        rule = events.Rule(
            self,
            "Confirmations",
            description=f"Runs of the mirror that did not fail, for the replica {replica.name}",
            event_pattern=replica.changes(
                ("referenceCreated", "referenceUpdated"),
                referenceFullName=[CONFIRMED_TAG],
                callerUserArn=events.Match.any_of(
                    events.Match.exact_string(replica.user_arn), events.Match.does_not_exist()
                ),
            ),
        )
        alarm = cloudwatch.Alarm(
            self,
            "Alarm",
            alarm_description=(
                f"No run has confirmed the replica {replica.name} for {hours} hours. "
                f"Look with: codecommit-mirror status {replica.name}"
            ),
            metric=cloudwatch.Metric(
                namespace="AWS/Events",
                metric_name="TriggeredRules",
                dimensions_map={"RuleName": rule.rule_name},
                statistic="Sum",
                period=Duration.hours(1),
            ),
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            threshold=1,
            evaluation_periods=hours,
            datapoints_to_alarm=hours,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(topic))
        alarm.add_ok_action(actions.SnsAction(topic))
