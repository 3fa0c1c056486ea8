"""Where ministack's S3 is laxer than the service about Object Lock, it is made as strict.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html and its API reference; the words about a missing
checksum were recorded in https://github.com/supabase/storage/issues/423.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ministack.services import s3

from ..xml import between

Answer = Any  # ministack's (status, headers, body)
_LOCK = "x-amz-object-lock-"
_MODES = ("GOVERNANCE", "COMPLIANCE")
_locks: dict[str, dict[str, str]] = {}
"""The lock headers of each upload in parts, by its id."""


def install() -> None:
    """Check uploads with a lock, keep versioning on, and lock what is uploaded in parts."""
    dispatch = s3._dispatch

    def strict(
        method: str, bucket: str, key: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Answer:
        refused = _refusal(method, bucket, key, headers, body, query)
        return refused or dispatch(method, bucket, key, headers, body, query)

    s3._dispatch = strict
    _lock_what_is_uploaded_in_parts()
    _lock_copies()


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
    if method == "PUT" and key and query.keys() & {"retention", "legal-hold"}:
        return _on_a_delete_marker(bucket, key, query) or (
            _date_problem(between(body, "RetainUntilDate")) if "retention" in query else None
        )
    if key and method == "PUT" and "partNumber" in query:
        upload = s3._multipart_uploads.get(s3._qp(query, "uploadId")) or {}
        locked = upload and (_locks.get(s3._qp(query, "uploadId")) or _default_retention(bucket))
        return _checksum_problem(headers, "Upload Part") if locked and "x-amz-copy-source" not in headers else None
    starts_upload = (method == "PUT" and not query.keys() & {"tagging", "acl", "annotation"}) or (
        method == "POST" and "uploads" in query
    )
    return _upload_problem(method, bucket, headers) if key and starts_upload else None


def _upload_problem(method: str, bucket: str, headers: Mapping[str, str]) -> Answer | None:
    mode, until, hold = (headers.get(f"{_LOCK}{name}") for name in ("mode", "retain-until-date", "legal-hold"))
    if bool(mode) != bool(until):
        message = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"
        return s3._error("InvalidArgument", message, 400)
    if mode and mode not in _MODES:
        return s3._error("InvalidArgument", "Unknown wormMode directive.", 400)
    if until and (problem := _date_problem(until)):
        return problem
    # A copy and an upload in parts begin without a body.
    has_body = method == "PUT" and "x-amz-copy-source" not in headers
    if has_body and (mode or hold or _default_retention(bucket)):
        return _checksum_problem(headers, "Put Object")
    return None


def _checksum_problem(headers: Mapping[str, str], operation: str) -> Answer | None:
    """Refuse an upload without a checksum of its own; the signed digest of the body is not one."""
    if "content-md5" in headers or any(
        name.startswith("x-amz-checksum-") or name == "x-amz-trailer" for name in headers
    ):
        return None
    message = (
        f"Content-MD5 OR x-amz-checksum- HTTP header is required for {operation} requests with Object Lock parameters"
    )
    return s3._error("InvalidRequest", message, 400)


def _default_retention(bucket: str) -> Mapping[str, Any] | None:
    return (s3._bucket_object_lock.get(bucket) or {}).get("default_retention")


def _on_a_delete_marker(bucket: str, key: str, query: Mapping[str, Any]) -> Answer | None:
    version = s3._qp(query, "versionId")
    versions = s3._object_versions.get((bucket, key), [])
    if any(entry["version_id"] == version and entry.get("is_delete_marker") for entry in versions):
        return s3._error("MethodNotAllowed", "The specified method is not allowed against this resource.", 405)
    return None


def _lock_what_is_uploaded_in_parts() -> None:
    """Give the object of an upload in parts the lock that it began with: named, or the bucket's default then."""
    create, complete = s3._create_multipart_upload, s3._complete_multipart_upload

    def create_with_lock(bucket: str, key: str, headers: dict[str, str]) -> Answer:
        status, answer, body = create(bucket, key, headers)
        named = {name: value for name, value in headers.items() if name.startswith(_LOCK)}
        default = _default_retention(bucket)
        if default and f"{_LOCK}mode" not in named:
            named |= {f"{_LOCK}mode": default["Mode"], f"{_LOCK}retain-until-date": _until(default)}
        _locks[between(body, "UploadId")] = named
        return status, answer, body

    def complete_with_lock(
        bucket: str, key: str, body: bytes, query: dict[str, Any], *rest: Any, **more: Any
    ) -> Answer:
        status, answer, text = complete(bucket, key, body, query, *rest, **more)
        if status == 200 and (lock := _locks.pop(s3._qp(query, "uploadId"), None)):
            s3._apply_object_lock_from_headers(bucket, key, lock, answer.get("x-amz-version-id"))
        return status, answer, text

    s3._create_multipart_upload, s3._complete_multipart_upload = create_with_lock, complete_with_lock


def _lock_copies() -> None:
    """Give a copy the lock that its request names, or the bucket's default."""
    copy = s3._copy_object

    def copy_with_lock(bucket: str, key: str, headers: dict[str, str]) -> Answer:
        status, answer, body = copy(bucket, key, headers)
        if status == 200:
            s3._apply_object_lock_from_headers(bucket, key, headers, answer.get("x-amz-version-id"))
        return status, answer, body

    s3._copy_object = copy_with_lock


def _until(default: Mapping[str, Any]) -> str:
    days = default.get("Days") or 365 * default["Years"]
    return (datetime.fromisoformat(s3.now_iso()) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _date_problem(until: str) -> Answer | None:
    try:
        time = datetime.fromisoformat(until)
    except ValueError:
        return s3._error("InvalidArgument", "The retain until date is not a valid date", 400)
    if (time if time.tzinfo else time.replace(tzinfo=UTC)) <= datetime.fromisoformat(s3.now_iso()):
        return s3._error("InvalidArgument", "The retain until date must be in the future!", 400)
    return None
