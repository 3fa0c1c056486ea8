"""Tells when somebody other than the mirror's user changes the replica."""

from __future__ import annotations

from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sns as sns
from constructs import Construct

CHANGES = ("referenceCreated", "referenceUpdated", "referenceDeleted")
"""https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html"""


class TamperAlarm(Construct):
    """An EventBridge rule on changes of the replica's branches and tags by another caller, with a message for people.

    Args:
        repository_arn: the replica.
        name: the replica's name, for the message.
        user_arn: the only user whose changes are as they should be.
        topic: where the message goes.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        repository_arn: str,
        name: str,
        user_arn: str,
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, construct_id)

        def of_event(field: str) -> str:
            return events.EventField.from_path(f"$.detail.{field}")

        message = (
            f"Somebody other than the mirror changed the replica {name}: {of_event('callerUserArn')}, "
            f"{of_event('event')} {of_event('referenceFullName')}, from {of_event('oldCommitId')} to "
            f"{of_event('commitId')} (a created ref has no old commit), at {events.EventField.time}. The next run of "
            "the mirror undoes it, and keeps what was there below refs/archive."
        )
        events.Rule(
            self,
            "Rule",
            description=f"Changes of the replica {name} by somebody other than the mirror's user",
            event_pattern=events.EventPattern(
                source=["aws.codecommit"],
                detail_type=["CodeCommit Repository State Change"],
                resources=[repository_arn],
                detail={"event": list(CHANGES), "callerUserArn": events.Match.anything_but(user_arn)},
            ),
            targets=[targets.SnsTopic(topic, message=events.RuleTargetInput.from_text(message))],
        )
