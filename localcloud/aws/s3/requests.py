"""What S3 checks of every request beside policies.

A signed body must be the one that was signed, a bucket must belong to whom the request says, what is missing is hidden
from those who may not list, and a lock from those who may not read it.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html, API_HeadObject.html,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html and
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ministack.core import responses, router
from ministack.services import s3

from ..rights import acting

_DENIED = ("AccessDenied", "Access Denied", 403)
_LOCK_RIGHTS = {
    "x-amz-object-lock-mode": "s3:GetObjectRetention",
    "x-amz-object-lock-retain-until-date": "s3:GetObjectRetention",
    "x-amz-object-lock-legal-hold": "s3:GetObjectLegalHold",
}


def install() -> None:
    """Check the request before S3 serves it, and what it answers before the caller sees it."""
    dispatch = s3._dispatch

    def checked(method: str, bucket: str, key: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Any:
        refused = _altered(headers, body) or _foreign(bucket, headers)
        if refused:
            return refused
        answer = dispatch(method, bucket, key, headers, body, query)
        access_key_id = router.extract_access_key_id(headers, query) or ""
        if not key or method not in ("GET", "HEAD") or not access_key_id:
            return answer
        return _seen_by(access_key_id, bucket, key, answer)

    s3._dispatch = checked
    _let_buckets_of_other_accounts_decide()


def _let_buckets_of_other_accounts_decide() -> None:
    """Let the owner of a bucket decide, wherever the caller's account is; without a policy the answer is no."""
    find = s3.bucket_policy_for_arn

    def policy_of_any_bucket(arn: str) -> tuple[str, str] | None:
        bucket = arn.removeprefix("arn:aws:s3:::").partition("/")[0]
        owner = s3._bucket_owner_account(bucket) if arn.startswith("arn:aws:s3:::") else None
        if owner is None or owner == responses.get_account_id():
            found: tuple[str, str] | None = find(arn)
            return found
        return s3._bucket_policies.get_scoped(owner, None, bucket) or "", owner

    s3.bucket_policy_for_arn = policy_of_any_bucket


def _altered(headers: Mapping[str, str], body: bytes) -> Any:
    signed = headers.get("x-amz-content-sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", signed) or hashlib.sha256(body).hexdigest() == signed:
        return None
    message = "The provided 'x-amz-content-sha256' header does not match what was computed."
    return s3._error("XAmzContentSHA256Mismatch", message, 400)


def _foreign(bucket: str, headers: Mapping[str, str]) -> Any:
    source = headers.get("x-amz-copy-source", "").lstrip("/").partition("/")[0]
    expected = {
        bucket: headers.get("x-amz-expected-bucket-owner"),
        source: headers.get("x-amz-source-expected-bucket-owner"),
    }
    for name, owner in expected.items():
        if name and owner and owner != (s3._bucket_owner_account(name) or responses.get_account_id()):
            return s3._error(*_DENIED)
    return None


def _seen_by(access_key_id: str, bucket: str, key: str, answer: Any) -> Any:
    status, headers, body = answer
    if status == 404 and b"NoSuchKey" in body and not _may(access_key_id, "s3:ListBucket", f"arn:aws:s3:::{bucket}"):
        return s3._error(*_DENIED)
    hidden = [
        name
        for name, action in _LOCK_RIGHTS.items()
        if name in headers and not _may(access_key_id, action, f"arn:aws:s3:::{bucket}/{key}")
    ]
    return status, {name: value for name, value in headers.items() if name not in hidden}, body


def _may(access_key_id: str, action: str, arn: str) -> bool:
    try:
        acting.require(access_key_id, action, arn)
    except acting.DeniedError:
        return False
    return True
