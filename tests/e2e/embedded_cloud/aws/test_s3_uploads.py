"""What rides along with an upload needs its own rights, and a Deny of them binds."""

import datetime
import urllib.error
import urllib.request

import httpx
import pytest

from .conftest import allow, deny, document, refuses

UNTIL = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)
RIDES = {
    "s3:PutObjectRetention": {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": UNTIL},
    "s3:PutObjectLegalHold": {"ObjectLockLegalHoldStatus": "ON"},
    "s3:PutObjectTagging": {"Tagging": "a=b"},
    "s3:PutObjectAcl": {"ACL": "bucket-owner-full-control"},
}
EVERYBODY = "*"


@pytest.mark.parametrize("action", RIDES)
def test_a_header_needs_its_right(person, bucket, action):
    s3 = person(allow("s3:PutObject")).client("s3")
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **RIDES[action])
    with refuses("AccessDenied"):
        s3.create_multipart_upload(Bucket=bucket, Key="k", **RIDES[action])
    with refuses("AccessDenied"):
        s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/plain", **RIDES[action])
    allowed = person(allow("s3:PutObject", action)).client("s3")
    allowed.put_object(Bucket=bucket, Key="k", Body=b"x", **RIDES[action])
    allowed.create_multipart_upload(Bucket=bucket, Key="k", **RIDES[action])


@pytest.mark.parametrize("action", RIDES)
def test_a_buckets_deny_binds_an_upload_of_the_administrator(cloud, bucket, action):
    s3, objects = cloud.client("s3"), f"arn:aws:s3:::{bucket}/*"
    s3.put_bucket_policy(Bucket=bucket, Policy=document(deny(action, on=objects, principal=EVERYBODY)))
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **RIDES[action])
    with refuses("AccessDenied"):
        s3.create_multipart_upload(Bucket=bucket, Key="k", **RIDES[action])


def put_with_condition(cloud, bucket, actions, **condition):
    objects = f"arn:aws:s3:::{bucket}/*"
    policy = document(deny(*actions, on=objects, principal=EVERYBODY, **condition))
    cloud.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)


def test_a_deny_limits_how_long_a_lock_may_last(cloud, bucket):
    s3 = cloud.client("s3")
    put_with_condition(
        cloud,
        bucket,
        ["s3:PutObject", "s3:PutObjectRetention"],
        NumericGreaterThan={"s3:object-lock-remaining-retention-days": "30"},
    )
    lock = {"ObjectLockMode": "COMPLIANCE"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockRetainUntilDate=UNTIL, **lock)
    far = UNTIL + datetime.timedelta(days=365)
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockRetainUntilDate=far, **lock)
    with refuses("AccessDenied"):
        s3.create_multipart_upload(Bucket=bucket, Key="k", ObjectLockRetainUntilDate=far, **lock)
    with refuses("AccessDenied"):
        s3.put_object_retention(Bucket=bucket, Key="k", Retention={"Mode": "COMPLIANCE", "RetainUntilDate": far})


@pytest.mark.parametrize(
    ("condition", "passes"),
    [
        ({"StringEquals": {"s3:object-lock-mode": "COMPLIANCE"}}, {"ObjectLockMode": "GOVERNANCE"}),
        ({"DateGreaterThan": {"s3:object-lock-retain-until-date": "2100-01-01T00:00:00Z"}}, {}),
    ],
)
def test_a_deny_on_a_locks_mode_or_date(cloud, bucket, condition, passes):
    s3 = cloud.client("s3")
    put_with_condition(cloud, bucket, ["s3:PutObject"], **condition)
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": UNTIL.replace(year=2101)}
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **lock)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **{**lock, "ObjectLockRetainUntilDate": UNTIL, **passes})


def test_a_deny_on_a_hold(cloud, bucket):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_with_condition(
        cloud,
        bucket,
        ["s3:PutObject", "s3:PutObjectLegalHold"],
        StringEquals={"s3:object-lock-legal-hold": "ON"},
    )
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockLegalHoldStatus="ON")
    with refuses("AccessDenied"):
        s3.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "ON"})
    s3.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "OFF"})


def test_uploads_can_be_made_conditional(cloud, bucket):
    """As the user guide has it: only what creates an object is asked for the header."""
    s3 = cloud.client("s3")
    put_with_condition(
        cloud,
        bucket,
        ["s3:PutObject"],
        Null={"s3:if-none-match": "true"},
        Bool={"s3:ObjectCreationOperation": "true"},
    )
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", IfNoneMatch="*")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    etag = s3.upload_part(PartNumber=1, Body=b"x", **part)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    with refuses("AccessDenied"):
        s3.complete_multipart_upload(MultipartUpload=parts, **part)
    s3.complete_multipart_upload(MultipartUpload=parts, IfNoneMatch="*", **part)


def test_tags_of_an_upload_are_seen(cloud, bucket):
    s3 = cloud.client("s3")
    put_with_condition(cloud, bucket, ["s3:PutObject"], StringEquals={"s3:RequestObjectTag/expired": "true"})
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="expired=true")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="expired=false")


@pytest.mark.parametrize(
    "statement",
    [
        {"Principal": "*", "Condition": {"StringEquals": {"s3:never-heard-of": "x"}}},
        {"Principal": "*", "Condition": {"Null": {"aws:NewKey": "true"}}},
        {"NotPrincipal": {"AWS": "111122223333"}},
        {"Principal": {"CanonicalUser": "0123"}},
    ],
)
def test_a_deny_that_cannot_be_judged_is_an_error_that_names_it(cloud, bucket, statement):
    s3 = cloud.client("s3")
    full = {"Effect": "Deny", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*", **statement}
    s3.put_bucket_policy(Bucket=bucket, Policy=document(full))
    with refuses("EmbeddedCloudCannotJudge", f"arn:aws:s3:::{bucket}/k"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    # What the statement is not about goes on.
    s3.list_objects_v2(Bucket=bucket)


def test_variables_are_replaced(person, bucket):
    own = f"arn:aws:s3:::{bucket}/${{aws:username}}/*"
    someone = person(allow("s3:PutObject", on=own))
    s3 = someone.client("s3")
    s3.put_object(Bucket=bucket, Key=f"{someone.name}/k", Body=b"x")
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="another/k", Body=b"x")
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="${aws:username}/k", Body=b"x")
    someone.may(allow("s3:PutObject"), deny("s3:PutObject", on=own))
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key=f"{someone.name}/k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="another/k", Body=b"x")


def test_a_part_or_a_body_that_was_altered_is_refused(cloud, bucket):
    """The signature is right; the body is not the one that was signed."""
    s3 = cloud.client("s3")

    def alter(request, **_):
        request.body = b"what was altered"

    s3.meta.events.register_last("before-send.s3.PutObject", alter)
    try:
        with refuses("XAmzContentSHA256Mismatch"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"what was signed.", ContentType="text/plain")
    finally:
        s3.meta.events.unregister("before-send.s3.PutObject", alter)


def test_parts_have_their_size_and_order(cloud, bucket):
    s3 = cloud.client("s3")
    upload = {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    small = [
        {"PartNumber": number, "ETag": s3.upload_part(PartNumber=number, Body=b"small", **upload)["ETag"]}
        for number in (1, 2)
    ]
    with refuses("EntityTooSmall"):
        s3.complete_multipart_upload(MultipartUpload={"Parts": small}, **upload)
    large = s3.upload_part(PartNumber=1, Body=bytes(5 * 1024**2), **upload)["ETag"]
    parts = [{"PartNumber": 1, "ETag": large}, small[1]]
    with refuses("InvalidPartOrder"):
        s3.complete_multipart_upload(MultipartUpload={"Parts": parts[::-1]}, **upload)
    s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)


def test_an_upload_has_one_checksum(cloud, bucket):
    s3 = cloud.client("s3")
    digest = "ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs="
    answer = s3.put_object(Bucket=bucket, Key="k", Body=b"a", ChecksumSHA256=digest)
    assert answer["ChecksumSHA256"] == digest
    with refuses("InvalidRequest"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"a", ChecksumSHA256=digest, ChecksumCRC32="6Le+Qw==")
    with refuses("InvalidRequest"):
        s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT")


def test_a_bucket_of_another_account_is_refused(cloud, bucket):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"a", ExpectedBucketOwner=cloud.account)
    with refuses("AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"a", ExpectedBucketOwner="444455556666")
    with refuses("403"):
        s3.head_object(Bucket=bucket, Key="k", ExpectedBucketOwner="444455556666")


def test_what_is_missing_is_hidden_from_who_may_not_list(person, bucket):
    someone = person(allow("s3:GetObject"))
    s3 = someone.client("s3")
    with refuses("AccessDenied"):
        s3.get_object(Bucket=bucket, Key="missing")
    with refuses("403"):
        s3.head_object(Bucket=bucket, Key="missing")
    someone.may(allow("s3:GetObject", "s3:ListBucket"))
    with refuses("NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="missing")
    with refuses("404"):
        s3.head_object(Bucket=bucket, Key="missing")


def test_a_lock_is_shown_to_who_may_read_it(cloud, person, bucket):
    cloud.client("s3").put_object(Bucket=bucket, Key="k", Body=b"x", **RIDES["s3:PutObjectRetention"])
    someone = person(allow("s3:GetObject"))
    assert "ObjectLockMode" not in someone.client("s3").head_object(Bucket=bucket, Key="k")
    someone.may(allow("s3:GetObject", "s3:GetObjectRetention"))
    assert someone.client("s3").head_object(Bucket=bucket, Key="k")["ObjectLockMode"] == "GOVERNANCE"


def test_a_bucket_is_no_host_name(cloud, bucket):
    """What serves those checks less."""
    url = f"{cloud.aws_url}/k?x-amz-acl=private"
    request = urllib.request.Request(url, b"x", method="PUT", headers={"Host": f"{bucket}.s3.localhost"})
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(request)


def test_a_form_uploads_nothing(cloud, bucket):
    """Its signature is in fields that nobody here reads."""
    form = cloud.client("s3").generate_presigned_post(bucket, "k")
    answer = httpx.post(form["url"], data=form["fields"], files={"file": b"x"})
    assert answer.status_code == 403
