"""The key that signs snapshots: the guard's role signs with it, and nobody else."""

from __future__ import annotations

from aws_cdk import Aws, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

_ADMINISTRATION = [
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:GetPublicKey",
    "kms:ListAliases",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
    "kms:Verify",
]
"""What the account's own policies may grant: everything but Sign, and CreateGrant, which could grant Sign."""


class SigningKey(Construct):
    """An asymmetric key that stays when the stack goes.

    Args:
        guard: the guard's role.
        alias: the key's alias.
    """

    def __init__(self, scope: Construct, construct_id: str, *, guard: iam.IRole, alias: str) -> None:
        super().__init__(scope, construct_id)
        everybody = [iam.AnyPrincipal()]
        self.key = kms.Key(
            self,
            "Key",
            description="Signs the guard's snapshots.",
            key_spec=kms.KeySpec.RSA_3072,
            key_usage=kms.KeyUsage.SIGN_VERIFY,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
            policy=iam.PolicyDocument(
                statements=[
                    iam.PolicyStatement(
                        sid="Administration",
                        principals=[iam.AccountPrincipal(Aws.ACCOUNT_ID)],
                        actions=_ADMINISTRATION,
                        resources=["*"],
                    ),
                    iam.PolicyStatement(
                        sid="TheGuardSigns",
                        principals=[iam.ArnPrincipal(guard.role_arn)],
                        actions=["kms:Sign", "kms:GetPublicKey"],
                        resources=["*"],
                    ),
                    iam.PolicyStatement(
                        sid="NobodyElseSigns",
                        effect=iam.Effect.DENY,
                        principals=everybody,
                        actions=["kms:Sign", "kms:CreateGrant"],
                        resources=["*"],
                        conditions={"ArnNotEquals": {"aws:PrincipalArn": guard.role_arn}},
                    ),
                ]
            ),
        )
        self.key.add_alias(alias).apply_removal_policy(RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
