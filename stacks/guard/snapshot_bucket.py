"""Where snapshots are kept: a bucket whose locked objects cannot be deleted, and only the guard can add to."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from mirror_guard.names import EXPIRED_TAG

from ..nag_suppressions import acknowledge

_ACCEPTED = {
    "S3BucketLoggingEnabled": "Each write is by one role and is locked; CloudTrail logs the rest where it is wanted.",
    "S3BucketReplicationEnabled": "It is itself a copy: of the replica, which is a copy of the source.",
    "S3DefaultEncryptionKMS": "Whoever could delete a key could delete the snapshots; S3's own key is out of reach.",
}


class SnapshotBucket(Construct):
    """A versioned bucket with Object Lock, which stays when the stack goes.

    Objects get their locks one by one from the guard, since each is locked for as long as a snapshot needs it. The
    guard cannot delete: it marks what has expired, and a life-cycle rule removes that once its lock has ended.
    """

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        day = Duration.days(1)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            versioned=True,
            object_lock_enabled=True,
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            removal_policy=RemovalPolicy.RETAIN,
            lifecycle_rules=[
                s3.LifecycleRule(id="interrupted-uploads", abort_incomplete_multipart_upload_after=day),
                s3.LifecycleRule(
                    id="expired-snapshots",
                    tag_filters={EXPIRED_TAG: "true"},
                    expiration=day,
                    noncurrent_version_expiration=day,
                ),
                s3.LifecycleRule(id="earlier-states", prefix="state/", noncurrent_version_expiration=Duration.days(30)),
                s3.LifecycleRule(id="orphaned-delete-markers", expired_object_delete_marker=True),
            ],
        )
        acknowledge(self.bucket, _ACCEPTED)
        acknowledge(self.bucket, {"S1": _ACCEPTED["S3BucketLoggingEnabled"]}, ["AwsSolutions"])

    def let_only(self, role: iam.IRole) -> None:
        """Let only this role put objects into the bucket."""
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="OnlyTheGuardWrites",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject", "s3:PutObjectTagging", "s3:PutObjectVersionTagging"],
                resources=[self.bucket.arn_for_objects("*")],
                conditions={"ArnNotEquals": {"aws:PrincipalArn": role.role_arn}},
            )
        )
