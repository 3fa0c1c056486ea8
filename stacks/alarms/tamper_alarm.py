"""Notify people when somebody other than the mirror's user changes the replica."""

from __future__ import annotations

from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sns as sns
from constructs import Construct

from .replica_changes import WatchedReplica


class TamperAlarm(Construct):
    """An EventBridge rule on changes of the replica's branches and tags by another caller, with a message for people.

    Args:
        replica: what is watched.
        topic: where the message goes.
    """

    def __init__(self, scope: Construct, construct_id: str, *, replica: WatchedReplica, topic: sns.ITopic) -> None:
        super().__init__(scope, construct_id)

        def of_event(field: str) -> str:
            return events.EventField.from_path(f"$.detail.{field}")

        message = (
            f"Somebody other than the mirror changed the replica {replica.name}: {of_event('callerUserArn')}, "
            f"{of_event('event')} {of_event('referenceFullName')}, from {of_event('oldCommitId')} to "
            f"{of_event('commitId')} (a created ref has no old commit, a deleted one no new), at "
            f"{events.EventField.time}. The next run of the mirror undoes it."
        )
        events.Rule(
            self,
            "Rule",
            description=f"Changes of the replica {replica.name} by somebody other than the mirror's user",
            event_pattern=replica.changes(
                ("referenceCreated", "referenceUpdated", "referenceDeleted"),
                # The service's own examples have no caller: an event without one is reported too.
                callerUserArn=events.Match.any_of(
                    events.Match.anything_but(replica.user_arn), events.Match.does_not_exist()
                ),
            ),
            targets=[targets.SnsTopic(topic, message=events.RuleTargetInput.from_text(message))],
        )
