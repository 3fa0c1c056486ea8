"""What makes plain ``cdk destroy`` work: the user's Git credentials go before the user.

IAM refuses to delete a user that has service-specific credentials (DeleteConflict), and CloudFormation has no resource
type for them. A custom resource that depends on the user is deleted before it, and removes what was issued meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from aws_cdk import CfnResource, CustomResource, Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from .nag_suppressions import acknowledge

_HANDLER = Path(__file__).with_name("credential_cleanup_handler.py")
# The same for every mirror: each call to CDK goes to another process, and there may be hundreds of mirrors.
_CODE = lambda_.Code.from_inline(_HANDLER.read_text(encoding="utf-8"))
_RUNTIME = lambda_.Runtime.PYTHON_3_14
_LAMBDA = iam.ServicePrincipal("lambda.amazonaws.com")
_TIMEOUT, _SERVICE_TIMEOUT = Duration.minutes(2), Duration.minutes(5)

_ACCEPTED = {
    "CloudWatchLogGroupEncrypted": "It holds a user's name and a count; CloudWatch's default key suffices.",
    "IAMNoInlinePolicy": "The role is this function's alone; managed policies are scarce in an account with a fleet.",
    "LambdaConcurrency": "CloudFormation calls it once; a reservation would take from the account's own.",
    "LambdaDLQ": "CloudFormation waits for its answer and reports a failure.",
    "LambdaInsideVPC": "It calls IAM and CloudFormation's response address, both public endpoints of AWS.",
}
"""Findings of cdk-nag, each with the reason why it is accepted."""


class CredentialCleanup(Construct):
    """Deletes one user's service-specific credentials when the stack goes.

    The function's role may list, deactivate and delete them for that user, write its log, and nothing else.

    Args:
        user: the user.
    """

    def __init__(self, scope: Construct, construct_id: str, *, user: iam.User) -> None:
        super().__init__(scope, construct_id)
        log = logs.LogGroup(self, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY)
        credentials = iam.PolicyStatement(
            actions=[
                "iam:ListServiceSpecificCredentials",
                "iam:UpdateServiceSpecificCredential",
                "iam:DeleteServiceSpecificCredential",
            ],
            resources=[user.user_arn],
        )
        writing = iam.PolicyStatement(
            actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[log.log_group_arn]
        )
        role = iam.Role(
            self,
            "Role",
            assumed_by=_LAMBDA,
            description="Removes the Git credentials of the replica's user, and nothing else.",
            # An account has 1,500 managed policies, and each mirror needs one for its user.
            inline_policies={"Cleanup": iam.PolicyDocument(statements=[credentials, writing])},
        )
        function = lambda_.Function(
            self,
            "Function",
            runtime=_RUNTIME,
            handler="index.handler",
            code=_CODE,
            role=role,
            log_group=log,
            timeout=_TIMEOUT,
            description="Removes the Git credentials of the replica's user before CloudFormation deletes it.",
        )
        # CDK writes the dependency on the role beside the reference to it, which cfn-lint finds redundant (W3005).
        cast(CfnResource, function.node.default_child).add_deletion_override("DependsOn")
        acknowledge(self, _ACCEPTED)
        CustomResource(
            self,
            "Credentials",
            resource_type="Custom::GitCredentials",
            service_token=function.function_arn,
            service_timeout=_SERVICE_TIMEOUT,
            properties={"UserName": user.user_name},
        )
