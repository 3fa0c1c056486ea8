"""Encryption at rest: AES256 where nothing is said, and KMS is asked for what its keys protect.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/default-encryption-faq.html (every object since 2023), and
https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html for the calls: GenerateDataKey for a put
and for CreateMultipartUpload, Decrypt for a get, a copy's source and UploadPart. HEAD asks only when a checksum is
asked for. The codes are those that clients report: KMS.DisabledException, KMS.KMSInvalidStateException,
KMS.NotFoundException, all 400.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ministack.core import responses, router
from ministack.services import kms, s3

from ..rights import acting

_ALGORITHM = "x-amz-server-side-encryption"
_KEY = f"{_ALGORITHM}-aws-kms-key-id"
_STATES = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}
_AWS_MANAGED = "alias/aws/s3"


def install() -> None:
    """Encrypt what names no algorithm, and ask KMS before anything is written or read."""
    resolve, dispatch = s3._resolve_sse_write_headers, s3._dispatch

    def resolve_write_headers(headers: Mapping[str, str], bucket: str) -> Any:
        named = dict(headers)
        if named.get(_ALGORITHM) == "aws:kms":
            named[_KEY] = named.get(_KEY) or _managed_key()
        stored, error = resolve(named, bucket)
        if error is None and not stored:
            stored = {_ALGORITHM: "AES256"}
        if error is None and stored.get(_ALGORITHM) == "aws:kms":
            stored[_KEY] = stored.get(_KEY) or _managed_key()
        return stored, error

    def asking_kms(
        method: str, bucket: str, key: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Any:
        for action, key_id in _calls(method, bucket, key, headers, query):
            if refused := refusal(action, key_id, router.extract_access_key_id(headers, query) or "", bucket, key):
                return refused
        return dispatch(method, bucket, key, headers, body, query)

    s3._resolve_sse_write_headers = resolve_write_headers
    s3._dispatch = asking_kms
    _find_keys_of_other_accounts()


def key_arn(key_id: str) -> str:
    """Return the ARN of a key that is named by id, alias or ARN; the name itself if there is none."""
    record = _record(key_id)
    return str(record["Arn"]) if record else key_id


def _calls(
    method: str, bucket: str, key: str, headers: Mapping[str, str], query: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return the calls to KMS that a request causes: the action, and the key as the object or request names it."""
    if not key or s3._buckets.get(bucket) is None:
        return []
    upload = s3._multipart_uploads.get(s3._qp(query, "uploadId"))
    source = _source(headers) if method == "PUT" else None
    reading = _of(_headers_of(*source), "kms:Decrypt") if source else []
    if upload and "partNumber" in query:
        return reading + _of(upload.get("preserved_headers", {}), "kms:Decrypt")
    if method == "POST" and "uploads" in query:
        return _of(_write_headers(headers, bucket), "kms:GenerateDataKey")
    if query.keys() & {"acl", "tagging", "retention", "legal-hold", "attributes", "uploadId", "annotation"}:
        return []
    if method == "PUT":
        return reading + _of(_write_headers(headers, bucket), "kms:GenerateDataKey")
    checks = headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    if method == "GET" or (method == "HEAD" and checks):
        return _of(_headers_of(bucket, key, s3._qp(query, "versionId")), "kms:Decrypt")
    return []


def _of(headers: Mapping[str, str], action: str) -> list[tuple[str, str]]:
    key_id = headers.get(_KEY) if headers.get(_ALGORITHM, "").startswith("aws:kms") else None
    # AWS's own key for S3 lets everyone in the account use it through S3.
    return [(action, key_id)] if key_id and key_arn(key_id) != key_arn(_AWS_MANAGED) else []


def _managed_key() -> str:
    """Return the ARN of AWS's own key for S3 in this account and region, which is made when it is first used."""
    if kms._resolve_key(_AWS_MANAGED) is None:
        made = json.loads(kms._create_key({"Description": "Default key that protects my S3 objects"})[2])
        kms._aliases[kms._alias_arn(_AWS_MANAGED)] = made["KeyMetadata"]["KeyId"]
    return key_arn(_AWS_MANAGED)


def _write_headers(headers: Mapping[str, str], bucket: str) -> Mapping[str, str]:
    stored, error = s3._resolve_sse_write_headers(headers, bucket)
    return {} if error else stored


def _headers_of(bucket: str, key: str, version: str) -> Mapping[str, str]:
    if version:
        versions = s3._object_versions.get((bucket, key), [])
        entry = next((v for v in versions if v["version_id"] == version and not v.get("is_delete_marker")), None)
        record = s3._object_record_from_version(entry) if entry else {}
    else:
        record = (s3._buckets.get(bucket) or {"objects": {}})["objects"].get(key) or {}
    return dict(record.get("preserved_headers", {}))


def _source(headers: Mapping[str, str]) -> tuple[str, str, str] | None:
    from ministack.core import iam_actions

    source = iam_actions._s3_source_object(headers)
    if source is None:
        return None
    bucket, _, key = source[0].removeprefix("arn:aws:s3:::").partition("/")
    return bucket, key, source[1]


def with_key(key_arn: str) -> dict[str, str]:
    """Return the headers of an object that a key protects."""
    return {_ALGORITHM: "aws:kms", _KEY: key_arn}


def refusal(action: str, key_id: str, access_key_id: str, bucket: str, key: str) -> Any:
    """Return what S3 answers if KMS refuses a call for an object; None if it does not.

    Args:
        action: ``kms:Operation``.
        key_id: the key, in any form.
        access_key_id: whose request it is.
        bucket: the object's bucket.
        key: the object's key.
    """
    record = _record(key_id)
    if record is None:
        return s3._error("KMS.NotFoundException", f"Key '{key_id}' does not exist", 400)
    context = {
        "kms:ViaService": f"s3.{responses.get_region()}.amazonaws.com",
        "kms:EncryptionContext:aws:s3:arn": f"arn:aws:s3:::{bucket}/{key}",
    }
    try:
        acting.require(access_key_id, action, record["Arn"], context)
    except acting.DeniedError as error:
        return s3._error("AccessDenied", str(error), 403)
    if code := _STATES.get(record["KeyState"]):
        state = "is disabled" if record["KeyState"] == "Disabled" else "is pending deletion"
        return s3._error(f"KMS.{code}", f"{record['Arn']} {state}.", 400)
    return None


def _record(key_id: str) -> Any:
    if not key_id.startswith("arn:"):
        return kms._resolve_key(key_id)
    region, account = key_id.split(":")[3:5]
    with responses.request_scope(account, region):
        return kms._resolve_key(key_id)


def _find_keys_of_other_accounts() -> None:
    """Let the key's own policy decide wherever the key is."""

    def key_policy_for_arn(arn: str) -> tuple[str, str] | None:
        record = _record(arn) if arn.startswith("arn:aws:kms:") else None
        return (record.get("Policy") or "", arn.split(":")[4]) if record else None

    kms.key_policy_for_arn = key_policy_for_arn
