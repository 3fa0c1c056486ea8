"""The vault's bucket: its objects are locked, each prefix takes objects from one principal, and its settings stay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from ...guard.names import EXPIRED_TAG
from ..nag_suppressions import acknowledge

GUARD_PREFIXES = ("snapshots", "state", "keys")
"""What the guard writes, and nobody else; nobody writes anything else."""
_ACCEPTED = {
    "S3BucketLoggingEnabled": "Each write is by one role and is locked; CloudTrail logs the rest where it is wanted.",
    "S3BucketReplicationEnabled": "It is itself a copy: of the replica, which is a copy of the source.",
    "S3DefaultEncryptionKMS": "Whoever could delete a key could delete the snapshots; S3's own key is out of reach.",
}
_PUT = ["s3:PutObject"]
_REPLICATE = [
    "s3:ObjectOwnerOverrideToBucketOwner",
    "s3:ReplicateDelete",
    "s3:ReplicateObject",
    "s3:ReplicateTags",
]
_LOCK = [
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersionTagging",
    "s3:PutObjectAcl",
    "s3:PutObjectRetention",
    "s3:PutObjectTagging",
    "s3:PutObjectVersionAcl",
    "s3:PutObjectVersionTagging",
]
_ENCRYPTION = "s3:x-amz-server-side-encryption"
_DELETE = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
_SETTINGS = [
    "s3:CreateBucket*",
    "s3:DeleteBucket*",
    "s3:Put*Configuration",
    "s3:PutBucket*",
    "s3:TagResource",
    "s3:UntagResource",
]
"""What changes a bucket, with the actions that S3 will have: it refuses a policy that names an action it lacks."""


class VaultBucket(Construct):
    """A versioned bucket with Object Lock, which stays with its policy when the stack goes.

    Objects get their locks one by one from the guard, since each is locked for as long as a snapshot needs it. Nobody
    deletes: the guard marks what has expired, and a life-cycle rule removes that once its lock has ended.

    Args:
        guard: the guard's role.
        deployer: the ARN of the role that CloudFormation acts as when it changes the bucket.
        longest_hours: for how long an object is locked at most.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, guard: iam.IRole, deployer: str, longest_hours: int
    ) -> None:
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
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
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
        self._protect(guard.role_arn, deployer, math.ceil(longest_hours / 24) + 1)
        # Without it CloudFormation removes the policy of a bucket that stays (aws-cdk#27125).
        self.bucket.policy.apply_removal_policy(RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)

    def _protect(self, guard: str, deployer: str, longest_days: int) -> None:
        """Deny each kind of change to everybody but one principal, the account's administrators included."""
        everything = [self.bucket.arn_for_objects("*")]
        prefixes = [self.bucket.arn_for_objects(f"{prefix}/*") for prefix in GUARD_PREFIXES]
        self._deny("OnlyTheGuardWrites", [*_PUT, "s3:AbortMultipartUpload"], prefixes, _unless(guard))
        self._deny("NothingIsReplicatedHere", _REPLICATE, everything, None)
        self._deny("NobodyWritesElsewhere", _PUT, prefixes, None, elsewhere=True)
        self._deny("OnlyTheGuardLocksAndTags", _LOCK, everything, _unless(guard))
        self._deny("NobodyHolds", ["s3:PutObjectLegalHold"], everything, None)
        self._deny("NobodyChangesKeys", ["s3:UpdateObjectEncryption"], everything, None)
        self._deny("OnlyItsDeployerDeletes", _DELETE, everything, _unless(deployer))
        self._deny("OnlyItsDeployerChangesIt", _SETTINGS, [self.bucket.bucket_arn], _unless(deployer))
        self._deny(
            "OnlyWithTheKeyOfS3",
            _PUT,
            everything,
            # Parts of a multipart upload say nothing of encryption; whether they are judged by it is not known.
            {"StringNotEquals": {_ENCRYPTION: "AES256"}, "Null": {_ENCRYPTION: "false"}},
        )
        self._deny(
            "NoLockOutlastsTheSnapshots",
            [*_PUT, "s3:PutObjectRetention"],
            everything,
            {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": str(longest_days)}},
        )

    def _deny(
        self,
        sid: str,
        actions: Sequence[str],
        resources: Sequence[str],
        conditions: Mapping[str, object] | None,
        *,
        elsewhere: bool = False,
    ) -> None:
        where = {"not_resources": resources} if elsewhere else {"resources": resources}
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid=sid,
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=actions,
                conditions=conditions,
                **where,
            )
        )


def _unless(principal: str) -> dict[str, object]:
    return {"ArnNotEquals": {"aws:PrincipalArn": principal}}
