"""The guard's stack: one for an account and region, whatever the number of mirrors."""

from __future__ import annotations

from aws_cdk import CfnOutput, Duration, Environment, Stack, Tags
from aws_cdk import aws_sns as sns
from constructs import Construct

from ..config.guard import STACK_NAME, SnapshotSchedule
from ..config.guard import Guard as Settings
from ..constructs import Guard, SnapshotTimes
from .vault_stack import VaultStack


class GuardStack(Stack):
    """The guard.

    Outputs: ``TopicArn``, ``FunctionName``.

    Args:
        guard: the section ``guard`` of mirrors.yaml.
        vault: where it keeps snapshots.
        suffix: what its id in the app ends with, where the app has several.
    """

    def __init__(self, scope: Construct, *, guard: Settings, vault: VaultStack, suffix: str = "") -> None:
        super().__init__(
            scope,
            f"{STACK_NAME}{suffix}",
            stack_name=STACK_NAME,
            description="Snapshots of the CodeCommit replicas, and messages about changes that no run made",
            env=Environment(account=guard.account, region=guard.region),
        )
        topic = sns.Topic.from_topic_arn(self, "Topic", guard.topic_arn) if guard.topic_arn else None
        own = Guard(
            self,
            "Guard",
            vault=vault.vault,
            email=guard.email,
            topic=topic,
            stale_after=Duration.hours(guard.stale_after),
            snapshots=_times(guard.snapshots) if guard.snapshots else None,
            takes_snapshots=guard.snapshots is not None,
            trusted_keys=guard.keys,
        )
        Tags.of(self).add("managed-by", "codecommit-mirror")
        CfnOutput(self, "TopicArn", value=own.topic.topic_arn, description="Topic of the messages")
        CfnOutput(self, "FunctionName", value=own.function.function_name, description="The guard's function")


def _times(schedule: SnapshotSchedule) -> SnapshotTimes:
    return SnapshotTimes(
        every=Duration.hours(schedule.every),
        keep=Duration.hours(schedule.keep),
        full_every=Duration.hours(schedule.full_every),
        governance=schedule.lock == "governance",
    )
