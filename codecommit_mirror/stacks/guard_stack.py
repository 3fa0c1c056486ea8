"""The guard's stack: one for an account and region, whatever the number of mirrors."""

from __future__ import annotations

from aws_cdk import CfnOutput, Environment, Stack, Tags
from constructs import Construct

from ..config.guard import STACK_NAME, Guard
from .guard.guard_function import GuardFunction
from .guard.notifications import Notifications
from .guard.self_watch import SelfWatch
from .guard.triggers import Triggers
from .vault_stack import VaultStack


class GuardStack(Stack):
    """Composes what AWS keeps and watches of every replica of an account and region.

    It finds the replicas by their tags and refers to no mirror's stack, so that either may be deployed first.

    Outputs: ``TopicArn``, ``FunctionName``.

    Args:
        guard: the section ``guard`` of mirrors.yaml.
        vault: where it keeps snapshots.
    """

    def __init__(self, scope: Construct, *, guard: Guard, vault: VaultStack) -> None:
        super().__init__(
            scope,
            STACK_NAME,
            stack_name=STACK_NAME,
            description="Snapshots of the CodeCommit replicas, and messages about changes that no run made",
            env=Environment(account=guard.account, region=guard.region),
        )
        notifications = Notifications(
            self, "Notifications", email=guard.email, topic_arn=guard.topic_arn, deployer=vault.deployer
        )
        guarded = GuardFunction(self, "Guard", guard=guard, vault=vault, notifications=notifications)
        triggers = Triggers(
            self,
            "Triggers",
            function=guarded.function,
            snapshots_every=guard.snapshots.every if guard.snapshots else None,
        )
        SelfWatch(
            self,
            "SelfWatch",
            function=guarded.function,
            check=triggers.check,
            log=guarded.log,
            topic=notifications.topic,
        )
        Tags.of(self).add("managed-by", "codecommit-mirror")
        CfnOutput(self, "TopicArn", value=notifications.topic.topic_arn, description="Topic of the messages")
        CfnOutput(self, "FunctionName", value=guarded.function.function_name, description="The guard's function")
