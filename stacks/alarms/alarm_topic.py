"""Where alarms go: an SNS topic of the mirror's own with one e-mail subscription, or an existing one."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct


class AlarmTopic(Construct):
    """An encrypted topic that EventBridge may publish to, this account's CloudWatch where it has to, and nobody else.

    SNS's own key does not let them, so that the topic has a key of its own.

    Args:
        email: the recipient's address; AWS asks it to confirm once.
        topic_arn: an existing topic, whose own policies must let EventBridge and CloudWatch publish.
        for_cloudwatch: whether an alarm of CloudWatch's goes there too.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, email: str | None, topic_arn: str | None, for_cloudwatch: bool
    ) -> None:
        super().__init__(scope, construct_id)
        if topic_arn:
            self.topic = sns.Topic.from_topic_arn(self, "Topic", topic_arn)
            return
        key = kms.Key(
            self,
            "Key",
            description="Encrypts the mirror's alarms.",
            enable_key_rotation=True,
            pending_window=Duration.days(7),
            removal_policy=RemovalPolicy.DESTROY,
        )
        topic = sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        own = {"StringEquals": {"aws:SourceAccount": Stack.of(self).account}}
        # A topic's policy for EventBridge takes no conditions.
        for service, conditions in (("events", None), *([("cloudwatch", own)] if for_cloudwatch else [])):
            publisher = [iam.ServicePrincipal(f"{service}.amazonaws.com")]
            key.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=publisher,
                    actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                    resources=["*"],
                    conditions=conditions,
                )
            )
            topic.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=publisher,
                    actions=["sns:Publish"],
                    resources=[topic.topic_arn],
                    conditions=conditions,
                )
            )
        if email:
            topic.add_subscription(subscriptions.EmailSubscription(email))
        self.topic = topic
