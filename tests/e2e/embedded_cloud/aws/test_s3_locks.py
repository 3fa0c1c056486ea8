"""Object Lock where the embedded cloud was laxer than S3."""

import datetime

import pytest

from .conftest import refuses

UNTIL = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)
LOCKS = {
    "retention": {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": UNTIL},
    "hold": {"ObjectLockLegalHoldStatus": "ON"},
    "default": {},
}


def keep_by_default(cloud, bucket, days=10):
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": days}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": retention}
    cloud.client("s3").put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)


def without_checksum(request, **_):
    for name in [
        name for name in request.headers if name.lower().startswith(("x-amz-checksum-", "x-amz-sdk-checksum"))
    ]:
        del request.headers[name]


@pytest.fixture
def no_checksums(cloud):
    """Send uploads with the digest of the signature alone, which is not enough."""
    s3 = cloud.client("s3")
    events = [f"before-sign.s3.{operation}" for operation in ("PutObject", "UploadPart")]
    for event in events:
        s3.meta.events.register_first(event, without_checksum)
    yield
    for event in events:
        s3.meta.events.unregister(event, without_checksum)


@pytest.mark.parametrize("lock", LOCKS)
def test_an_upload_with_a_lock_needs_a_checksum(cloud, bucket, lock, no_checksums):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    if lock == "default":
        keep_by_default(cloud, bucket)
    with refuses("InvalidRequest", "x-amz-checksum-"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **LOCKS[lock])
    upload = {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, **LOCKS[lock])["UploadId"]
    with refuses("InvalidRequest", "x-amz-checksum-"):
        s3.upload_part(PartNumber=1, Body=b"x", **upload)


def test_the_default_of_an_upload_in_parts_is_that_of_its_beginning(cloud, bucket):
    s3 = cloud.client("s3")
    keep_by_default(cloud, bucket)
    upload = {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    etag = s3.upload_part(PartNumber=1, Body=b"x", **upload)["ETag"]
    keep_by_default(cloud, bucket, days=100)
    s3.complete_multipart_upload(MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}, **upload)
    kept = s3.get_object_retention(Bucket=bucket, Key="k")["Retention"]
    assert kept["Mode"] == "GOVERNANCE"
    assert kept["RetainUntilDate"] - datetime.datetime.now(datetime.UTC) < datetime.timedelta(days=11)


def test_an_unknown_mode_is_refused(cloud, bucket):
    s3 = cloud.client("s3")
    with refuses("InvalidArgument", "Unknown wormMode directive."):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockMode="FOREVER", ObjectLockRetainUntilDate=UNTIL)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refuses("MalformedXML"):
        s3.put_object_retention(Bucket=bucket, Key="k", Retention={"Mode": "FOREVER", "RetainUntilDate": UNTIL})


def test_a_delete_marker_takes_no_lock(cloud, bucket):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": UNTIL}
    with refuses("MethodNotAllowed"):
        s3.put_object_retention(Bucket=bucket, Key="k", VersionId=marker, Retention=retention)


def test_a_copy_with_a_lock_works(cloud, bucket):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k", **LOCKS["retention"])
    assert s3.get_object_retention(Bucket=bucket, Key="copy")["Retention"]["Mode"] == "GOVERNANCE"


def test_a_completion_that_is_refused_loses_no_lock(cloud, bucket):
    s3, upload = cloud.client("s3"), {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, **LOCKS["retention"])["UploadId"]
    etag = s3.upload_part(PartNumber=1, Body=b"x", **upload)["ETag"]
    with refuses("InvalidPart"):
        s3.complete_multipart_upload(MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": '"0"'}]}, **upload)
    s3.complete_multipart_upload(MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}, **upload)
    assert s3.get_object_retention(Bucket=bucket, Key="k")["Retention"]["Mode"] == "GOVERNANCE"
