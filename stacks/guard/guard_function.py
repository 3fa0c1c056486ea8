"""The guard's function: the packages ``mirror_engine`` and ``mirror_guard``, and a role that can do nothing else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from aws_cdk import Aws, CfnElement, CfnResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from codecommit_mirror.config.guard import STACK_NAME, Guard
from mirror_guard.names import REPLICA_TAG

from ..nag_suppressions import acknowledge
from .notifications import Notifications
from .snapshot_bucket import SnapshotBucket

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("mirror_engine", "mirror_guard")
MEMORY_MB = 256
_ACCEPTED = {
    "CloudWatchLogGroupEncrypted": "It holds names of replicas and refs; CloudWatch's default key suffices.",
    "LambdaConcurrency": "A reservation comes out of the account's concurrency; small accounts have none to spare.",
    "LambdaDLQ": "Events that it cannot handle go to the topic, as an on-failure destination.",
    "LambdaInsideVPC": "It reads CodeCommit and writes to S3, both public endpoints of AWS.",
}


class GuardFunction(Construct):
    """The function, its log group and its role.

    Args:
        guard: the section ``guard``.
        bucket: where snapshots and the guard's own notes are kept.
        notifications: where messages go.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        guard: Guard,
        bucket: SnapshotBucket,
        notifications: Notifications,
    ) -> None:
        super().__init__(scope, construct_id)
        log = logs.LogGroup(self, "Log", retention=logs.RetentionDays.ONE_YEAR, removal_policy=RemovalPolicy.DESTROY)
        statements = _statements(bucket.bucket.bucket_arn, notifications, log.log_group_arn)
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description="Reads the replicas, adds snapshots to one bucket, and publishes to one topic.",
            managed_policies=[iam.ManagedPolicy(self, "Policy", statements=statements)],
        )
        bucket.let_only(role)
        self.log = log
        with tempfile.TemporaryDirectory() as folder:
            for package in _PACKAGES:
                shutil.copytree(_ROOT / package, Path(folder, package), ignore=shutil.ignore_patterns("__pycache__"))
            self.function = lambda_.Function(
                self,
                "Function",
                function_name=STACK_NAME,
                runtime=lambda_.Runtime.PYTHON_3_14,
                architecture=lambda_.Architecture.ARM_64,
                handler="mirror_guard.handler.handler",
                code=lambda_.Code.from_asset(folder),
                role=role,
                log_group=log,
                memory_size=MEMORY_MB,
                timeout=Duration.minutes(15),
                description="Keeps snapshots of the CodeCommit replicas, and watches them.",
                environment=_environment(guard, bucket, notifications, log),
            )
        # CDK writes the dependency on the role beside the reference to it, which cfn-lint finds redundant (W3005).
        cast(CfnResource, self.function.node.default_child).add_deletion_override("DependsOn")
        self._report_unhandled(notifications)
        acknowledge(self, _ACCEPTED)
        objects = f"<{Stack.of(self).get_logical_id(cast(CfnElement, bucket.bucket.node.default_child))}.Arn>"
        reasons = {
            "arn:<AWS::Partition>:codecommit:<AWS::Region>:<AWS::AccountId>:*": "Only what has a replica's tag.",
            "*": "Listing tags cannot be limited to a resource.",
            **dict.fromkeys((f"{objects}/snapshots/*", f"{objects}/state/*"), "Its own objects have no fixed names."),
        }
        acknowledge(self, {f"IAM5[Resource::{arn}]": why for arn, why in reasons.items()}, ["AwsSolutions"])

    def _report_unhandled(self, notifications: Notifications) -> None:
        """Let people see an event that the function could not handle even when it was tried again."""
        lambda_.CfnEventInvokeConfig(
            self,
            "Unhandled",
            function_name=self.function.function_name,
            qualifier="$LATEST",
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=notifications.topic.topic_arn)
            ),
        )


def _environment(
    guard: Guard, bucket: SnapshotBucket, notifications: Notifications, log: logs.LogGroup
) -> dict[str, str]:
    values = {
        "BUCKET": bucket.bucket.bucket_name,
        "TOPIC_ARN": notifications.topic.topic_arn,
        "LOG_GROUP": log.log_group_name,
        "STALE_AFTER_HOURS": str(guard.stale_after),
    }
    if guard.snapshots:
        values["KEEP_HOURS"] = str(guard.snapshots.keep)
        values["FULL_EVERY_HOURS"] = str(guard.snapshots.full_every)
        values["EVERY_HOURS"] = str(guard.snapshots.every)
        values["LOCK_MODE"] = guard.snapshots.lock.upper()
    return values


def _statements(bucket_arn: str, notifications: Notifications, log_arn: str) -> Sequence[iam.PolicyStatement]:
    """Return all that the function may do."""
    tagged = {"Null": {f"aws:ResourceTag/{REPLICA_TAG}": "false"}}
    here = f"{Aws.REGION}:{Aws.ACCOUNT_ID}"
    repositories = f"arn:{Aws.PARTITION}:codecommit:{here}:*"
    function = f"arn:{Aws.PARTITION}:lambda:{here}:function:{STACK_NAME}"
    objects = [f"{bucket_arn}/{prefix}/*" for prefix in ("snapshots", "state")]
    allowed: list[tuple[list[str], list[str], dict[str, dict[str, str]] | None]] = [
        (["codecommit:GetRepository", "codecommit:GitPull"], [repositories], tagged),
        (["tag:GetResources"], ["*"], None),
        (["s3:ListBucket", "s3:ListBucketVersions"], [bucket_arn], None),
        (
            ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:AbortMultipartUpload"],
            objects,
            None,
        ),
        (
            ["s3:GetObjectRetention", "s3:PutObjectRetention", "s3:PutObjectVersionTagging"],
            objects[:1],
            None,
        ),
        (["lambda:InvokeFunction"], [function], None),
        (["sns:Publish"], [notifications.topic.topic_arn], None),
        (["logs:CreateLogStream", "logs:PutLogEvents"], [log_arn], None),
    ]
    if notifications.key:
        allowed.append((["kms:Decrypt", "kms:GenerateDataKey"], [notifications.key.key_arn], None))
    return [
        iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
        for actions, resources, conditions in allowed
    ]
