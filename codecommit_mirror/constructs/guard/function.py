"""The guard's function: the packages ``engine`` and ``guard``, and its rights outside the vault."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from aws_cdk import Aws, CfnResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from ...guard.names import REPLICA_TAG
from ..nag_suppressions import acknowledge
from ..vault.vault import Vault
from .notifications import Notifications

_PACKAGE = Path(__file__).parents[2]
_SETTINGS = (
    "lambda:GetFunctionConcurrency",
    "lambda:GetFunctionConfiguration",
    "lambda:GetFunctionEventInvokeConfig",
    "lambda:GetPolicy",
)
_CARRIED = ("engine", "guard")
MEMORY_MB = 512
_ACCEPTED = {
    "CloudWatchLogGroupEncrypted": "It holds names of replicas and refs; CloudWatch's default key suffices.",
    "LambdaConcurrency": "A reservation comes out of the account's concurrency; small accounts have none to spare.",
    "LambdaDLQ": "Events that it cannot handle go to the topic, as an on-failure destination.",
    "LambdaInsideVPC": "It reads CodeCommit and writes to S3, both public endpoints of AWS.",
}


class GuardFunction(Construct):
    """The function, its log group, and its rights outside the vault.

    Args:
        name: the function's.
        environment: how it looks after the replicas.
        vault: where snapshots and the guard's own notes are kept, with the role that may write there.
        notifications: where messages go.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        environment: Mapping[str, str],
        vault: Vault,
        notifications: Notifications,
    ) -> None:
        super().__init__(scope, construct_id)
        stacks = list(dict.fromkeys(Stack.of(construct).stack_name for construct in (self, vault)))
        log = logs.LogGroup(self, "Log", retention=logs.RetentionDays.ONE_YEAR, removal_policy=RemovalPolicy.DESTROY)
        role = self._role(vault)
        policy = iam.ManagedPolicy(
            self, "Policy", statements=_statements(notifications, log.log_group_arn, name, stacks), roles=[role]
        )
        self.log = log
        with _code() as code:
            self.function = lambda_.Function(
                self,
                "Function",
                function_name=name,
                runtime=lambda_.Runtime.PYTHON_3_14,
                architecture=lambda_.Architecture.ARM_64,
                handler="codecommit_mirror.guard.handler.handler",
                code=code,
                role=role,
                log_group=log,
                memory_size=MEMORY_MB,
                timeout=Duration.minutes(15),
                description="Keeps snapshots of the CodeCommit replicas, and watches them.",
                environment={
                    "BUCKET": vault.bucket.bucket_name,
                    "SIGNING_KEY": vault.key.key_arn,
                    "STACKS": " ".join(stacks),
                    "TOPIC_ARN": notifications.topic.topic_arn,
                    "LOG_GROUP": log.log_group_name,
                    **environment,
                },
            )
        # CDK writes the dependency on the role beside the reference to it, which cfn-lint finds redundant (W3005).
        cast(CfnResource, self.function.node.default_child).add_deletion_override("DependsOn")
        # Lambda asks whether the role may publish.
        self._report_unhandled(notifications).node.add_dependency(policy)
        self._accept(stacks)

    def _role(self, vault: Vault) -> iam.IRole:
        """Return the vault's role; of another stack by its name, not by an import: so CDK lets that stack alone."""
        if Stack.of(vault) is Stack.of(self):
            return vault.role
        return iam.Role.from_role_name(self, "Role", vault.role_name)

    def _accept(self, stacks: Sequence[str]) -> None:
        acknowledge(self, _ACCEPTED)
        reasons = {
            "arn:<AWS::Partition>:codecommit:<AWS::Region>:<AWS::AccountId>:*": "Only what has a replica's tag.",
            "*": "Listing tags, rules and alarms, reading subscriptions, and metrics cannot be limited to a resource.",
            "arn:<AWS::Partition>:events:<AWS::Region>:<AWS::AccountId>:rule/*": "Its rules have generated names.",
            **{
                f"arn:<AWS::Partition>:cloudformation:<AWS::Region>:<AWS::AccountId>:stack/{stack}/*": "A stack's id."
                for stack in stacks
            },
        }
        acknowledge(self, {f"IAM5[Resource::{arn}]": why for arn, why in reasons.items()}, ["AwsSolutions"])

    def _report_unhandled(self, notifications: Notifications) -> lambda_.CfnEventInvokeConfig:
        """Let people see an event that the function could not handle even when it was tried again."""
        return lambda_.CfnEventInvokeConfig(
            self,
            "Unhandled",
            function_name=self.function.function_name,
            qualifier="$LATEST",
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=notifications.topic.topic_arn)
            ),
        )


@contextmanager
def _code() -> Iterator[lambda_.Code]:
    """Provide what the function runs, while it is taken into the assembly."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, _PACKAGE.name)
        for name in _CARRIED:
            shutil.copytree(_PACKAGE / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(_PACKAGE / "__init__.py", package)
        yield lambda_.Code.from_asset(folder)


def _statements(
    notifications: Notifications, log_arn: str, name: str, stack_names: Sequence[str]
) -> Sequence[iam.PolicyStatement]:
    """Return all that the function may do outside the vault."""
    tagged = {"Null": {f"aws:ResourceTag/{REPLICA_TAG}": "false"}}
    here = f"{Aws.REGION}:{Aws.ACCOUNT_ID}"
    repositories = f"arn:{Aws.PARTITION}:codecommit:{here}:*"
    function = f"arn:{Aws.PARTITION}:lambda:{here}:function:{name}"
    rules = f"arn:{Aws.PARTITION}:events:{here}:rule/*"
    stacks = [f"arn:{Aws.PARTITION}:cloudformation:{here}:stack/{stack}/*" for stack in stack_names]
    allowed: list[tuple[list[str], list[str], dict[str, dict[str, str]] | None]] = [
        (["codecommit:GetRepository", "codecommit:GitPull"], [repositories], tagged),
        (["tag:GetResources"], ["*"], None),
        (["lambda:InvokeFunction", *_SETTINGS], [function], None),
        # What it compares hourly: itself.
        (["events:DescribeRule"], [rules], None),
        (["events:ListRuleNamesByTarget", "events:ListTargetsByRule"], ["*"], None),
        (["cloudwatch:DescribeAlarms", "cloudwatch:PutMetricData"], ["*"], None),
        (["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic"], [notifications.topic.topic_arn], None),
        (["sns:GetSubscriptionAttributes"], ["*"], None),
        (["cloudformation:DescribeStacks"], stacks, None),
        (["sns:Publish"], [notifications.topic.topic_arn], None),
        (["logs:CreateLogStream", "logs:PutLogEvents"], [log_arn], None),
    ]
    if notifications.key:
        actions = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey", "kms:GetKeyPolicy"]
        allowed.append((actions, [notifications.key.key_arn], None))
    return [
        iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
        for actions, resources, conditions in allowed
    ]
