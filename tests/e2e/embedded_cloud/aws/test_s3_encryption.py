"""Every object is encrypted, and whoever uses a key of KMS needs the key's own permission."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from .conftest import allow, deny, document, refuses

KEY_ID = "x-amz-server-side-encryption-aws-kms-key-id"


@pytest.fixture
def key(cloud):
    """A key that its account may use, and whose policies decide."""
    return cloud.client("kms").create_key()["KeyMetadata"]["Arn"]


def encrypted(key):
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}


def default_to(cloud, bucket, key):
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    cloud.client("s3").put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def test_aes256_where_nothing_is_said(cloud, bucket):
    s3 = cloud.client("s3")
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ServerSideEncryption"] == "AES256"
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"
    assert s3.create_multipart_upload(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"


def test_a_put_asks_to_generate_and_a_get_to_decrypt(cloud, person, bucket, key):
    objects = allow("s3:PutObject", "s3:GetObject")
    someone = person(objects)
    s3 = someone.client("s3")
    with refuses("AccessDenied", "kms:GenerateDataKey"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **encrypted(key))
    with refuses("AccessDenied", "kms:GenerateDataKey"):
        s3.create_multipart_upload(Bucket=bucket, Key="k", **encrypted(key))
    someone.may(objects, allow("kms:GenerateDataKey", on=key))
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **encrypted(key))
    with refuses("AccessDenied", "kms:Decrypt"):
        s3.get_object(Bucket=bucket, Key="k", ChecksumMode="DISABLED")
    with refuses("AccessDenied", "kms:Decrypt"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    plain = {"Bucket": bucket, "Key": "plain"}
    plain["UploadId"] = s3.create_multipart_upload(**plain)["UploadId"]
    with refuses("AccessDenied", "kms:Decrypt"):
        s3.upload_part_copy(PartNumber=1, CopySource=f"{bucket}/k", **plain)
    # HEAD asks KMS only for a checksum.
    s3.head_object(Bucket=bucket, Key="k")
    with refuses("403"):
        s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    upload = {"Bucket": bucket, "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, **encrypted(key))["UploadId"]
    with refuses("AccessDenied", "kms:Decrypt"):
        s3.upload_part(PartNumber=1, Body=b"x", **upload)
    someone.may(objects, allow("kms:GenerateDataKey", "kms:Decrypt", on=key))
    s3.upload_part(PartNumber=1, Body=b"x", **upload)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_awss_own_key_is_for_everyone_in_the_account(cloud, person, bucket):
    s3 = person(allow("s3:PutObject", "s3:GetObject")).client("s3")
    managed = s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms")["SSEKMSKeyId"]
    assert managed == cloud.client("kms").describe_key(KeyId="alias/aws/s3")["KeyMetadata"]["Arn"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_buckets_default_asks_as_well(cloud, person, bucket, key):
    default_to(cloud, bucket, key)
    s3 = person(allow("s3:PutObject")).client("s3")
    with refuses("AccessDenied", "kms:GenerateDataKey"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256")


def test_a_key_that_is_unknown_disabled_or_dying(cloud, bucket, key):
    s3, kms = cloud.client("s3"), cloud.client("kms")
    missing = f"arn:aws:kms:{cloud.region}:{cloud.account}:key/{uuid.uuid4()}"
    with refuses("KMS.NotFoundException"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **encrypted(missing))
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **encrypted(key))
    kms.disable_key(KeyId=key)
    with refuses("KMS.DisabledException"):
        s3.put_object(Bucket=bucket, Key="another", Body=b"x", **encrypted(key))
    with refuses("KMS.DisabledException"):
        s3.get_object(Bucket=bucket, Key="k")
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    with refuses("KMS.KMSInvalidStateException"):
        s3.get_object(Bucket=bucket, Key="k")
    kms.cancel_key_deletion(KeyId=key)
    kms.enable_key(KeyId=key)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_another_key_for_what_is_there_unless_it_is_locked(cloud, person, bucket, key):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    update = {"Bucket": bucket, "Key": "k", "ObjectEncryption": {"SSEKMS": {"KMSKeyArn": key}}}
    mallory = person(allow("s3:PutObject"))
    with refuses("AccessDenied", "s3:UpdateObjectEncryption"):
        mallory.client("s3").update_object_encryption(**update)
    mallory.may(allow("s3:UpdateObjectEncryption"))
    with refuses("AccessDenied", "kms:Encrypt"):
        mallory.client("s3").update_object_encryption(**update)
    s3.update_object_encryption(**update)
    assert s3.head_object(Bucket=bucket, Key="k")["SSEKMSKeyId"] == key
    cloud.client("kms").disable_key(KeyId=key)
    with refuses("KMS.DisabledException"):
        s3.get_object(Bucket=bucket, Key="k")
    cloud.client("kms").enable_key(KeyId=key)
    elsewhere = key.replace(cloud.account, "999999999999")
    for arn, refusal in (
        (key.replace("key/", "alias/"), ("InvalidRequest", "correctly formatted")),
        (elsewhere, ("AccessDenied", "same account")),
    ):
        with refuses(*refusal):
            s3.update_object_encryption(Bucket=bucket, Key="k", ObjectEncryption={"SSEKMS": {"KMSKeyArn": arn}})


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_what_is_locked_keeps_its_key(cloud, bucket, key, mode):
    s3, until = cloud.client("s3"), datetime.now(UTC) + timedelta(days=1)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockMode=mode, ObjectLockRetainUntilDate=until)
    with refuses("AccessDenied", "protected by S3 Object Lock"):
        s3.update_object_encryption(Bucket=bucket, Key="k", ObjectEncryption={"SSEKMS": {"KMSKeyArn": key}})


def test_a_deny_on_the_key_sees_it_in_every_form(cloud, bucket, key):
    s3, objects = cloud.client("s3"), f"arn:aws:s3:::{bucket}/*"
    condition = {f"s3:{KEY_ID}": key}
    s3.put_bucket_policy(
        Bucket=bucket,
        Policy=document(deny("s3:PutObject", on=objects, principal="*", StringEquals=condition)),
    )
    for form in (key, key.rpartition("/")[2]):
        with refuses("AccessDenied"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"x", **encrypted(form))
    with refuses("AccessDenied"):
        s3.create_multipart_upload(Bucket=bucket, Key="k", **encrypted(key))
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_a_deny_on_what_is_signed_and_how(cloud, key):
    """``kms:MessageType`` and ``kms:SigningAlgorithm`` bind; a raw message has 4,096 bytes at most."""
    kms = cloud.client("kms")
    signing = kms.create_key(KeySpec="RSA_3072", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    how = {"KeyId": signing, "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"}
    kms.sign(Message=bytes(4096), MessageType="RAW", **how)
    with refuses("ValidationException", "less than or equal to 4096"):
        kms.sign(Message=bytes(4097), MessageType="RAW", **how)
    policy = json.loads(kms.get_key_policy(KeyId=signing)["Policy"])
    policy["Statement"].append(deny("kms:Sign", principal="*", StringEquals={"kms:MessageType": "RAW"}))
    kms.put_key_policy(KeyId=signing, Policy=json.dumps(policy))
    with refuses("AccessDeniedException"):
        kms.sign(Message=b"x", MessageType="RAW", **how)
    with refuses("AccessDeniedException"):
        kms.sign(Message=b"x", **how)  # RAW is the default
    kms.sign(Message=bytes(32), MessageType="DIGEST", **how)


def test_a_key_that_is_disabled_or_dying_shows_no_public_key(cloud):
    kms = cloud.client("kms")
    key = kms.create_key(KeySpec="RSA_3072", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=key)
    with refuses("DisabledException"):
        kms.get_public_key(KeyId=key)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    with refuses("KMSInvalidStateException"):
        kms.get_public_key(KeyId=key)


def test_a_key_policy_names_who_exists(cloud):
    with refuses("MalformedPolicyDocumentException", "invalid principals"):
        cloud.client("kms").create_key(
            Policy=document(
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{cloud.account}:role/nobody"},
                    "Action": "kms:*",
                    "Resource": "*",
                }
            )
        )
