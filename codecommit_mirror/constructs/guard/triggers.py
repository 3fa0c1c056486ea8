"""What invokes the guard: changes of any repository's refs, and two schedules."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from ...guard.names import EVENT_KINDS


class Triggers(Construct):
    """One rule for all replicas, and a rule for each schedule, whatever the number of mirrors.

    Args:
        function: the guard.
        snapshots_every: time between two snapshots; None for no snapshots.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, function: lambda_.Function, snapshots_every: Duration | None
    ) -> None:
        super().__init__(scope, construct_id)
        events.Rule(
            self,
            "Changes",
            description="Changes of refs of CodeCommit repositories; the guard knows which are replicas",
            event_pattern=events.EventPattern(
                source=["aws.codecommit"],
                detail_type=["CodeCommit Repository State Change"],
                detail={"event": list(EVENT_KINDS)},
            ),
            targets=[targets.LambdaFunction(function)],
        )
        self.check = self._schedule("Check", Duration.hours(1), "check", "Looks at every replica", function)
        if snapshots_every:
            self._schedule("Snapshots", snapshots_every, "snapshots", "Takes a snapshot of every replica", function)

    def _schedule(
        self, name: str, every: Duration, task: str, description: str, function: lambda_.Function
    ) -> events.Rule:
        return events.Rule(
            self,
            name,
            description=description,
            schedule=events.Schedule.rate(every),
            targets=[targets.LambdaFunction(function, event=events.RuleTargetInput.from_object({"task": task}))],
        )
