"""The vault: what outlives the guard, and everything else."""

from __future__ import annotations

from functools import reduce
from typing import cast

from aws_cdk import Aws, CfnElement, CfnResource, DefaultStackSynthesizer, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from ...config.guard import STACK_NAME, VAULT_STACK_NAME
from ..nag_suppressions import acknowledge
from .bucket import GUARD_PREFIXES, VaultBucket
from .signing_key import SigningKey

_SETTINGS = (
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketPolicy",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
)
"""What the guard compares hourly."""
_QUALIFIER = "@aws-cdk/core:bootstrapQualifier"


def reading(bucket: str, key: str) -> list[tuple[list[str], list[str]]]:
    """Return what restoring and verifying take: actions, and the ARNs that they are for.

    Args:
        bucket: the ARN of the vault's bucket, or a pattern.
        key: the ARN of its key, or a pattern.
    """
    return [
        (["s3:ListBucketVersions"], [bucket]),
        (
            ["s3:GetObjectRetention", "s3:GetObjectVersion"],
            [f"{bucket}/{prefix}/*" for prefix in ("snapshots", "keys")],
        ),
        (["kms:GetPublicKey"], [key]),
    ]


class Vault(Construct):
    """What snapshots are kept in: the bucket, the key that signs them, and the role of the guard.

    All of it stays when the stack is destroyed. The role has a fixed name, so that a guard which was destroyed is
    deployed again beside the same vault. Give the stack termination protection, and deploy it yourself.

    Attributes:
        bucket: where the snapshots are.
        key: what signs them.
        role: who adds them, and nobody else.
        role_name: its name.
        deployer: the ARN of the role that may change the bucket's settings.
        longest_hours: for how long an object is locked at most.

    Args:
        deployer: the ARN of the role that CloudFormation acts as when it deploys the stack. Default: the execution role
            of CDK's bootstrap.
        longest: for how long an object is locked at most: how long snapshots are kept, and how long a chain of them is.
        role_name: the guard's role's name, unique in the account.
        key_alias: the key's alias, unique in the account and region.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        deployer: str | None = None,
        longest: Duration | None = None,
        role_name: str = f"{STACK_NAME}-{Aws.REGION}",
        key_alias: str = VAULT_STACK_NAME,
    ) -> None:
        super().__init__(scope, construct_id)
        self.role_name = role_name
        self.role: iam.Role = iam.Role(
            self,
            "GuardRole",
            role_name=self.role_name,
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description="The guard: reads the replicas, and is the only one that adds snapshots to the vault.",
        )
        self.deployer = deployer or self._execution_role()
        self.longest_hours = int((longest or Duration.days(430)).to_hours())
        self.bucket: s3.Bucket = VaultBucket(
            self, "Snapshots", guard=self.role, deployer=self.deployer, longest_hours=self.longest_hours
        ).bucket
        self.key: kms.Key = SigningKey(self, "SigningKey", guard=self.role, alias=key_alias).key
        self._let_guard_write()

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let somebody list, read and verify the snapshots, as ``restore`` and ``snapshots`` do.

        Args:
            grantee: a role, a user or a group.
        """
        first, *others = (
            iam.Grant.add_to_principal(grantee=grantee, actions=actions, resource_arns=arns)
            for actions, arns in reading(self.bucket.bucket_arn, self.key.key_arn)
        )
        return reduce(iam.Grant.combine, others, first)

    def _execution_role(self) -> str:
        """Return the role that CloudFormation acts as for stacks of the account's own bootstrap."""
        qualifier = self.node.try_get_context(_QUALIFIER) or DefaultStackSynthesizer.DEFAULT_QUALIFIER
        name = f"cdk-{qualifier}-cfn-exec-role-{Aws.ACCOUNT_ID}-{Aws.REGION}"
        return f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/{name}"

    def _let_guard_write(self) -> None:
        objects = [self.bucket.arn_for_objects(f"{prefix}/*") for prefix in GUARD_PREFIXES]
        locked = [self.bucket.arn_for_objects(f"{prefix}/*") for prefix in ("snapshots", "keys")]
        allowed = [
            (["s3:ListBucket", "s3:ListBucketVersions", *_SETTINGS], [self.bucket.bucket_arn]),
            (["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:AbortMultipartUpload"], objects),
            (["s3:GetObjectRetention", "s3:PutObjectRetention", "s3:PutObjectVersionTagging"], locked),
            (["kms:Sign", "kms:GetPublicKey", "kms:GetKeyPolicy"], [self.key.key_arn]),
        ]
        policy = iam.ManagedPolicy(
            self,
            "GuardPolicy",
            roles=[self.role],
            statements=[iam.PolicyStatement(actions=actions, resources=where) for actions, where in allowed],
        )
        arn = f"<{Stack.of(self).get_logical_id(cast(CfnElement, self.bucket.node.default_child))}.Arn>"
        reason = "Its own objects have no fixed names."
        reasons = {f"IAM5[Resource::{arn}/{prefix}/*]": reason for prefix in GUARD_PREFIXES}
        acknowledge(policy, reasons, ["AwsSolutions"])
        for resource in (self.role, policy):
            cast(CfnResource, resource.node.default_child).apply_removal_policy(
                RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
            )
