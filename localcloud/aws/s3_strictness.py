"""Where ministack's S3 is laxer than the service about Object Lock, it is made as strict.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html and its API reference; the words about a missing
checksum were recorded in https://github.com/supabase/storage/issues/423.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ministack.services import s3
from ministack.services.cloudformation import provisioners

Answer = Any  # ministack's (status, headers, body)
_LOCK = "x-amz-object-lock-"


def install() -> None:
    """Check uploads with a lock, keep versioning on, and let CloudFormation create and keep such buckets."""
    dispatch = s3._dispatch

    def strict(
        method: str, bucket: str, key: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Answer:
        refused = _refusal(method, bucket, key, headers, body, query)
        return refused or dispatch(method, bucket, key, headers, body, query)

    s3._dispatch = strict
    _lock_what_is_uploaded_in_parts()
    _let_cloudformation_lock()


def _refusal(
    method: str, bucket: str, key: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
) -> Answer | None:
    if method == "PUT" and not key and "versioning" in query and s3._bucket_object_lock.get(bucket):
        if b"<Status>Suspended" in body:
            message = (
                "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
            )
            return s3._error("InvalidBucketState", message, 409)
        return None
    if method == "PUT" and key and "retention" in query:
        return _date_problem(_between(body, "RetainUntilDate"))
    starts_upload = (method == "PUT" and not query.keys() & {"partNumber", "tagging", "legal-hold", "acl"}) or (
        method == "POST" and "uploads" in query
    )
    if not key or not starts_upload:
        return None
    mode, until = headers.get(f"{_LOCK}mode"), headers.get(f"{_LOCK}retain-until-date")
    if bool(mode) != bool(until):
        message = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"
        return s3._error("InvalidArgument", message, 400)
    if not until:
        return None
    has_checksum = "content-md5" in headers or any(
        name.startswith("x-amz-checksum-") or name in ("x-amz-sdk-checksum-algorithm", "x-amz-trailer")
        for name in headers
    )
    if not has_checksum:
        message = (
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
        )
        return s3._error("InvalidRequest", message, 400)
    return _date_problem(until)


def _lock_what_is_uploaded_in_parts() -> None:
    """Give the object of a multipart upload the lock that CreateMultipartUpload named."""
    create, complete = s3._create_multipart_upload, s3._complete_multipart_upload
    locks: dict[str, dict[str, str]] = {}

    def create_with_lock(bucket: str, key: str, headers: dict[str, str]) -> Answer:
        status, answer, body = create(bucket, key, headers)
        locks[_between(body, "UploadId")] = {name: value for name, value in headers.items() if name.startswith(_LOCK)}
        return status, answer, body

    def complete_with_lock(
        bucket: str, key: str, body: bytes, query: dict[str, Any], *rest: Any, **more: Any
    ) -> Answer:
        status, answer, text = complete(bucket, key, body, query, *rest, **more)
        lock = locks.pop(s3._qp(query, "uploadId"), {})
        if status == 200 and lock:
            s3._apply_object_lock_from_headers(bucket, key, lock, answer.get("x-amz-version-id"))
        return status, answer, text

    s3._create_multipart_upload, s3._complete_multipart_upload = create_with_lock, complete_with_lock


def _date_problem(until: str) -> Answer | None:
    try:
        time = datetime.fromisoformat(until)
    except ValueError:
        return s3._error("InvalidArgument", "The retain until date is not a valid date", 400)
    if (time if time.tzinfo else time.replace(tzinfo=UTC)) <= datetime.now(UTC):
        return s3._error("InvalidArgument", "The retain until date must be in the future!", 400)
    return None


def _between(body: bytes, tag: str) -> str:
    return body.decode("utf-8", "replace").partition(f"<{tag}>")[2].partition("<")[0]


def _let_cloudformation_lock() -> None:
    """Apply ``ObjectLockEnabled``, and refuse to delete a bucket that is not empty, as the service does."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    create, delete = handlers["create"], handlers["delete"]

    def create_locked(logical_id: str, properties: Mapping[str, Any], stack_name: str) -> Any:
        result = create(logical_id, properties, stack_name)
        if properties.get("ObjectLockEnabled"):
            s3._bucket_object_lock[result[0]] = {"enabled": True, "default_retention": None}
            s3._bucket_versioning[result[0]] = "Enabled"
        return result

    def delete_if_empty(physical_id: str, properties: Mapping[str, Any]) -> None:
        bucket = s3._buckets.get(physical_id)
        if bucket and (bucket["objects"] or s3._bucket_has_versions(physical_id)):
            raise ValueError(f"The bucket you tried to delete is not empty: {physical_id}")
        delete(physical_id, properties)

    handlers["create"], handlers["delete"] = create_locked, delete_if_empty
