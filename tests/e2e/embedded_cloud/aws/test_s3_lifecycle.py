"""Life-cycle rules are checked, and executed as days pass."""

import datetime

import pytest

from localcloud import LocalCloud

from .conftest import refuses


@pytest.fixture(scope="module")
def cloud():
    """A cloud of its own, whose clock is moved."""
    with LocalCloud() as running:
        yield running


def rules(cloud, bucket, *rules):
    cloud.client("s3").put_bucket_lifecycle_configuration(
        Bucket=bucket,
        LifecycleConfiguration={
            "Rules": [{"ID": f"rule-{n}", "Status": "Enabled", **rule} for n, rule in enumerate(rules)]
        },
    )


def versions(cloud, bucket, kind="Versions"):
    return [entry["Key"] for entry in cloud.client("s3").list_object_versions(Bucket=bucket).get(kind, [])]


def test_thirty_days_bind_the_infrequent_classes_only(cloud, bucket):
    def moving(storage_class, days):
        return {"Filter": {}, "Transitions": [{"Days": days, "StorageClass": storage_class}]}

    for storage_class in ("STANDARD_IA", "ONEZONE_IA"):
        with refuses("InvalidArgument", "greater than or equal to 30"):
            rules(cloud, bucket, moving(storage_class, 29))
        rules(cloud, bucket, moving(storage_class, 30))
    rules(cloud, bucket, moving("GLACIER_IR", 0))


def test_what_is_marked_expires_and_its_marker_goes_as_well(cloud, bucket):
    """As the snapshots' bucket has it."""
    s3, tag = cloud.client("s3"), {"Tag": {"Key": "expired", "Value": "true"}}
    rules(
        cloud,
        bucket,
        {"Filter": tag, "Expiration": {"Days": 1}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
        {"Filter": {}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
    )
    s3.put_object(Bucket=bucket, Key="released", Body=b"x", Tagging="expired=true")
    s3.put_object(Bucket=bucket, Key="kept", Body=b"x")
    cloud.aws.move_clock(days=2)
    assert versions(cloud, bucket, "DeleteMarkers") == ["released"]
    cloud.aws.move_clock(days=3)
    assert (versions(cloud, bucket), versions(cloud, bucket, "DeleteMarkers")) == (["kept"], [])


def test_a_lock_holds_until_its_end(cloud, bucket):
    s3 = cloud.client("s3")
    rules(
        cloud, bucket, {"Filter": {}, "Expiration": {"Days": 1}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    )
    now = datetime.datetime.now(datetime.UTC)
    # The cloud's clock may be ahead by what earlier tests have moved it.
    until = now + datetime.timedelta(days=30)
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **lock)
    cloud.aws.move_clock(days=10)
    assert versions(cloud, bucket) == ["k"]
    cloud.aws.move_clock(days=30)
    assert versions(cloud, bucket) == []


def test_uploads_that_nobody_completed_are_aborted(cloud, bucket):
    s3 = cloud.client("s3")
    rules(cloud, bucket, {"Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}})
    s3.create_multipart_upload(Bucket=bucket, Key="k")
    cloud.aws.move_clock(days=2)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_large_objects_move_and_small_ones_stay(cloud, bucket):
    s3 = cloud.client("s3")
    rules(cloud, bucket, {"Filter": {}, "Transitions": [{"Days": 1, "StorageClass": "GLACIER_IR"}]})
    s3.put_object(Bucket=bucket, Key="large", Body=bytes(128 * 1024))
    s3.put_object(Bucket=bucket, Key="small", Body=b"x")
    cloud.aws.move_clock(days=3)
    assert s3.head_object(Bucket=bucket, Key="large")["StorageClass"] == "GLACIER_IR"
    assert "StorageClass" not in s3.head_object(Bucket=bucket, Key="small")


@pytest.mark.parametrize(
    "rule",
    [
        {"Filter": {}, "Expiration": {"Date": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)}},
        {"Filter": {"ObjectSizeGreaterThan": 1}, "Expiration": {"Days": 1}},
        {"Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 2}},
    ],
    ids=["date", "size", "newer versions"],
)
def test_what_would_not_be_executed_is_refused(cloud, bucket, rule):
    with refuses("NotImplemented"):
        rules(cloud, bucket, rule)
