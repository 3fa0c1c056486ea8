"""Where the guard's messages go: an SNS topic with one e-mail subscription, or an existing topic."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct


class Notifications(Construct):
    """An encrypted topic that the guard's role and this account's CloudWatch may publish to.

    SNS's own key does not let CloudWatch publish, so that the topic has a key of its own.

    Args:
        email: the recipient's address; AWS asks it to confirm once.
        topic: an existing topic, whose own policies must let CloudWatch and the guard's role publish.
        deployer: the ARN of the role that CloudFormation acts as when it changes the topic's key; nobody else can
            silence the guard by that.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, email: str | None, topic: sns.ITopic | None, deployer: str
    ) -> None:
        super().__init__(scope, construct_id)
        if topic:
            self.topic: sns.ITopic = topic
            self.key: kms.IKey | None = None
            return
        key = kms.Key(
            self,
            "Key",
            description="Encrypts the guard's messages.",
            enable_key_rotation=True,
            pending_window=Duration.days(7),
            removal_policy=RemovalPolicy.DESTROY,
        )
        own_topic = sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        cloudwatch = iam.ServicePrincipal("cloudwatch.amazonaws.com")
        here = {"StringEquals": {"aws:SourceAccount": Stack.of(self).account}}
        key.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[cloudwatch],
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
                conditions=here,
            )
        )
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="OnlyItsDeployerChangesIt",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["kms:DisableKey", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion"],
                resources=["*"],
                conditions={"ArnNotEquals": {"aws:PrincipalArn": deployer}},
            )
        )
        own_topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[cloudwatch],
                actions=["sns:Publish"],
                resources=[own_topic.topic_arn],
                conditions=here,
            )
        )
        if email:
            own_topic.add_subscription(subscriptions.EmailSubscription(email))
        self.topic, self.key = own_topic, key
