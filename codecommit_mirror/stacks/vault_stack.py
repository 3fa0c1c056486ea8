"""The vault's stack: what outlives the guard, and everything else."""

from __future__ import annotations

from typing import cast

from aws_cdk import (
    Aws,
    CfnElement,
    CfnOutput,
    CfnResource,
    DefaultStackSynthesizer,
    Environment,
    RemovalPolicy,
    Stack,
    Tags,
)
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.guard import STACK_NAME, VAULT_STACK_NAME, Guard, SnapshotSchedule
from .nag_suppressions import acknowledge
from .vault.bucket import GUARD_PREFIXES, VaultBucket
from .vault.signing_key import SigningKey

_SETTINGS = (
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketPolicy",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
)
"""What the guard compares hourly."""
_QUALIFIER = "@aws-cdk/core:bootstrapQualifier"


class VaultStack(Stack):
    """Composes what snapshots are kept in: the bucket, the key that signs them, and the role of the guard.

    All of it stays when the stack is destroyed. The role has a fixed name, so that a guard which was destroyed is
    deployed again beside the same vault. A person deploys the stack, with the account's own bootstrap.

    Outputs: ``Bucket``, ``SigningKeyArn``.

    Args:
        guard: the section ``guard`` of mirrors.yaml.
    """

    def __init__(self, scope: Construct, *, guard: Guard) -> None:
        super().__init__(
            scope,
            VAULT_STACK_NAME,
            stack_name=VAULT_STACK_NAME,
            description="Locked and signed snapshots of the CodeCommit replicas",
            env=Environment(account=guard.account, region=guard.region),
            termination_protection=True,
        )
        self.role_name = f"{STACK_NAME}-{Aws.REGION}"
        self.role = iam.Role(
            self,
            "GuardRole",
            role_name=self.role_name,
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description="The guard: reads the replicas, and is the only one that adds snapshots to the vault.",
        )
        self.deployer = guard.deployed_by or self._execution_role()
        schedule = guard.snapshots or SnapshotSchedule()
        self.bucket = VaultBucket(
            self,
            "Snapshots",
            guard=self.role,
            deployer=self.deployer,
            longest_hours=schedule.keep + schedule.full_every,
        ).bucket
        self.key = SigningKey(self, "SigningKey", guard=self.role, alias=VAULT_STACK_NAME).key
        self._let_guard_write()
        Tags.of(self).add("managed-by", "codecommit-mirror")
        CfnOutput(self, "Bucket", value=self.bucket.bucket_name, description="Bucket of the snapshots")
        CfnOutput(self, "SigningKeyArn", value=self.key.key_arn, description="Key that signs the snapshots")

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
        arn = f"<{self.get_logical_id(cast(CfnElement, self.bucket.node.default_child))}.Arn>"
        reason = "Its own objects have no fixed names."
        reasons = {f"IAM5[Resource::{arn}/{prefix}/*]": reason for prefix in GUARD_PREFIXES}
        acknowledge(policy, reasons, ["AwsSolutions"])
        for resource in (self.role, policy):
            cast(CfnResource, resource.node.default_child).apply_removal_policy(
                RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
            )
