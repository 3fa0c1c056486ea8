"""Replication with locks, holds and version ids, by the role's rights; two accounts; a region that is down."""

import datetime
import uuid

import pytest
from botocore.exceptions import ClientError

from .conftest import allow, deny, document, refuses

OTHER = "444455556666"
UNTIL = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)
LOCK = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": UNTIL}
READING = (
    "s3:GetReplicationConfiguration",
    "s3:ListBucket",
    "s3:GetObjectVersionForReplication",
    "s3:GetObjectVersionAcl",
    "s3:GetObjectVersionTagging",
    "s3:GetObjectRetention",
    "s3:GetObjectLegalHold",
)
WRITING = ("s3:ReplicateObject", "s3:ReplicateTags")


@pytest.fixture(autouse=True)
def _as_usual(cloud):
    yield
    cloud.aws.replicate("at once")
    cloud.aws.refuse_broken_replication(True)


@pytest.fixture
def target(cloud):
    """Another bucket with Object Lock."""
    name = f"copy-{uuid.uuid4().hex[:12]}"
    where = {"LocationConstraint": cloud.region}
    cloud.client("s3").create_bucket(Bucket=name, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=where)
    return name


def replicate(cloud, bucket, target, role, prefix="", markers="Disabled"):
    rule = {
        "ID": "copy",
        "Status": "Enabled",
        "Priority": 1,
        "Filter": {"Prefix": prefix},
        "DeleteMarkerReplication": {"Status": markers},
        "Destination": {"Bucket": f"arn:aws:s3:::{target}"},
    }
    cloud.client("s3").put_bucket_replication(Bucket=bucket, ReplicationConfiguration={"Role": role, "Rules": [rule]})


@pytest.fixture
def copied(cloud, bucket, target, role):
    """Two buckets, of which one is replicated to the other."""
    replicate(cloud, bucket, target, role("s3.amazonaws.com", allow(*READING, *WRITING)))
    return bucket, target


def status(cloud, bucket, key):
    return cloud.client("s3").head_object(Bucket=bucket, Key=key).get("ReplicationStatus")


def test_a_replica_has_the_version_the_lock_the_hold_and_the_tags(cloud, copied):
    s3, (bucket, target) = cloud.client("s3"), copied
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockLegalHoldStatus="ON", Tagging="a=b", **LOCK)[
        "VersionId"
    ]
    assert (status(cloud, bucket, "k"), status(cloud, target, "k")) == ("COMPLETED", "REPLICA")
    there = {"Bucket": target, "Key": "k", "VersionId": version}
    assert s3.get_object(**there)["Body"].read() == b"x"
    assert s3.get_object_retention(**there)["Retention"]["Mode"] == "COMPLIANCE"
    assert s3.get_object_legal_hold(**there)["LegalHold"]["Status"] == "ON"
    assert s3.get_object_tagging(**there)["TagSet"] == [{"Key": "a", "Value": "b"}]
    with refuses("AccessDenied"):
        s3.delete_object(**there)


def test_an_upload_in_parts_is_replicated_with_its_lock(cloud, copied):
    s3, (bucket, target) = cloud.client("s3"), copied
    upload = {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, **LOCK)["UploadId"]
    etag = s3.upload_part(PartNumber=1, Body=b"x", **upload)["ETag"]
    s3.complete_multipart_upload(MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}, **upload)
    assert s3.get_object_retention(Bucket=target, Key="k")["Retention"]["Mode"] == "COMPLIANCE"


def test_later_changes_follow_one_way(cloud, copied):
    s3, (bucket, target) = cloud.client("s3"), copied
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **LOCK)["VersionId"]
    later = UNTIL + datetime.timedelta(days=5)
    s3.put_object_retention(
        Bucket=bucket, Key="k", VersionId=version, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": later}
    )
    kept = s3.get_object_retention(Bucket=target, Key="k")["Retention"]["RetainUntilDate"]
    assert abs(kept - later) < datetime.timedelta(seconds=2)
    s3.put_object_legal_hold(Bucket=target, Key="k", VersionId=version, LegalHold={"Status": "ON"})
    with refuses("NoSuchObjectLockConfiguration"):
        s3.get_object_legal_hold(Bucket=bucket, Key="k")


def test_what_is_there_already_stays_where_it_is_and_deletions_are_not_replicated(cloud, bucket, target, role):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    replicate(cloud, bucket, target, role("s3.amazonaws.com", allow(*READING, *WRITING)))
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_object(Bucket=bucket, Key="k", VersionId=version)
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=target)["Contents"]] == ["k"]


def test_without_a_lock_of_its_own_a_replica_takes_the_destinations(cloud, copied):
    s3, (bucket, target) = cloud.client("s3"), copied
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}}
    s3.put_object_lock_configuration(
        Bucket=target, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.get_object_retention(Bucket=target, Key="k")["Retention"]["Mode"] == "GOVERNANCE"


@pytest.mark.parametrize(
    "missing", ["s3:GetObjectRetention", "s3:GetObjectVersionForReplication", "s3:ReplicateObject"]
)
def test_a_right_that_the_role_lacks_fails_the_replica(cloud, bucket, target, role, missing):
    rights = [action for action in (*READING, *WRITING) if action != missing]
    replicate(cloud, bucket, target, role("s3.amazonaws.com", allow(*rights)))
    cloud.client("s3").put_object(Bucket=bucket, Key="k", Body=b"x", **LOCK)
    assert status(cloud, bucket, "k") == "FAILED"
    with refuses("404"):
        cloud.client("s3").head_object(Bucket=target, Key="k")


def test_a_deny_of_the_destination_binds_the_role_in_the_same_account(cloud, copied):
    bucket, target = copied
    statement = deny("s3:ReplicateObject", on=f"arn:aws:s3:::{target}/*", principal="*")
    cloud.client("s3").put_bucket_policy(Bucket=target, Policy=document(statement))
    cloud.client("s3").put_object(Bucket=bucket, Key="k", Body=b"x")
    assert status(cloud, bucket, "k") == "FAILED"


def test_replication_that_lags_or_fails(cloud, copied):
    s3, (bucket, target) = cloud.client("s3"), copied
    cloud.aws.replicate("lags")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **LOCK)
    assert status(cloud, bucket, "k") == "PENDING"
    with refuses("404"):
        s3.head_object(Bucket=target, Key="k")
    cloud.aws.replicate("at once")
    cloud.aws.catch_up()
    assert (status(cloud, bucket, "k"), status(cloud, target, "k")) == ("COMPLETED", "REPLICA")
    cloud.aws.replicate("fails")
    s3.put_object(Bucket=bucket, Key="another", Body=b"x")
    assert status(cloud, bucket, "another") == "FAILED"


def test_a_destination_that_is_missing_is_refused(cloud, bucket, role):
    with refuses("InvalidRequest", "Destination bucket must have versioning enabled."):
        replicate(cloud, bucket, "no-such-bucket-anywhere", role("s3.amazonaws.com"))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_destination_without_a_lock_is_refused_or_fails(cloud, bucket, role, at_once):
    """Nobody has recorded which; a product must see both."""
    s3, plain = cloud.client("s3"), f"plain-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=plain, CreateBucketConfiguration={"LocationConstraint": cloud.region})
    s3.put_bucket_versioning(Bucket=plain, VersioningConfiguration={"Status": "Enabled"})
    copying = role("s3.amazonaws.com", allow(*READING, *WRITING))
    cloud.aws.refuse_broken_replication(at_once)
    if at_once:
        with refuses("InvalidRequest"):
            replicate(cloud, bucket, plain, copying)
        return
    replicate(cloud, bucket, plain, copying)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **LOCK)
    assert status(cloud, bucket, "k") == "FAILED"


def test_a_role_that_is_missing_is_refused_or_fails(cloud, bucket, target):
    missing = f"arn:aws:iam::{cloud.account}:role/no-such-role"
    with refuses("InvalidRequest"):
        replicate(cloud, bucket, target, missing)
    cloud.aws.refuse_broken_replication(False)
    replicate(cloud, bucket, target, missing)
    cloud.client("s3").put_object(Bucket=bucket, Key="k", Body=b"x")
    assert status(cloud, bucket, "k") == "FAILED"


def test_what_kms_encrypts_is_not_replicated(cloud, copied):
    bucket, target = copied
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    cloud.client("s3").put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    assert status(cloud, bucket, "k") == "FAILED"
    with refuses("404"):
        cloud.client("s3").head_object(Bucket=target, Key="k")


def test_tags_that_are_removed_are_removed_from_the_replica(cloud, copied):
    s3, (bucket, target) = cloud.client("s3"), copied
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=b")
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=target, Key="k")["TagSet"] == []


@pytest.mark.parametrize("may", [True, False])
def test_a_delete_marker_needs_its_right(cloud, bucket, target, role, may):
    s3 = cloud.client("s3")
    more = ("s3:ReplicateDelete",) if may else ()
    replicate(cloud, bucket, target, role("s3.amazonaws.com", allow(*READING, *WRITING, *more)), markers="Enabled")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k")
    assert bool(s3.list_object_versions(Bucket=target).get("DeleteMarkers")) is may


def test_what_is_written_while_the_other_region_is_down_arrives_later(cloud, bucket, role):
    s3, there, name = cloud.client("s3"), cloud.client("s3", "us-west-2"), f"far-{uuid.uuid4().hex[:12]}"
    where = {"LocationConstraint": "us-west-2"}
    there.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=where)
    replicate(cloud, bucket, name, role("s3.amazonaws.com", allow(*READING, *WRITING)))
    cloud.aws.take_down("us-west-2")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **LOCK)
    assert status(cloud, bucket, "k") == "PENDING"
    cloud.aws.bring_back("us-west-2")
    assert status(cloud, bucket, "k") == "COMPLETED"
    assert there.get_object_retention(Bucket=name, Key="k")["Retention"]["Mode"] == "COMPLIANCE"


def test_another_account_must_let_the_role_in(cloud, bucket, role):
    other, s3 = cloud.other_account(OTHER)("s3"), cloud.client("s3")
    target = f"other-{uuid.uuid4().hex[:12]}"
    where = {"LocationConstraint": cloud.region}
    other.create_bucket(Bucket=target, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=where)
    copying = role("s3.amazonaws.com", allow(*READING, *WRITING))
    replicate(cloud, bucket, target, copying)
    s3.put_object(Bucket=bucket, Key="refused", Body=b"x", **LOCK)
    assert status(cloud, bucket, "refused") == "FAILED"
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": copying},
        "Action": list(WRITING),
        "Resource": f"arn:aws:s3:::{target}/*",
    }
    other.put_bucket_policy(Bucket=target, Policy=document(statement))
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **LOCK)["VersionId"]
    assert status(cloud, bucket, "k") == "COMPLETED"
    there = {"Bucket": target, "Key": "k", "VersionId": version}
    assert other.get_object_retention(**there)["Retention"]["Mode"] == "COMPLIANCE"
    with refuses("AccessDenied"):
        s3.get_object(**there)


def test_accounts_share_nothing(cloud, person):
    other = cloud.other_account(OTHER)
    name = f"group-{uuid.uuid4().hex[:8]}"
    cloud.client("iam").create_group(GroupName=name)
    assert name not in [group["GroupName"] for group in other("iam").list_groups()["Groups"]]
    assert other("sts").get_caller_identity()["Account"] == OTHER
    key = other("kms").create_key()["KeyMetadata"]["Arn"]
    with refuses("AccessDeniedException"):
        person(allow("kms:*")).client("kms").describe_key(KeyId=key)


def test_a_region_that_is_down_answers_nothing(cloud, person):
    someone = person(allow("codecommit:*"))
    there, here = (someone.client("codecommit", region) for region in ("eu-central-1", cloud.region))
    there.list_repositories()
    cloud.aws.take_down("eu-central-1")
    try:
        with pytest.raises(ClientError, match="503"):
            there.list_repositories()
        here.list_repositories()
    finally:
        cloud.aws.bring_back("eu-central-1")
    there.list_repositories()
