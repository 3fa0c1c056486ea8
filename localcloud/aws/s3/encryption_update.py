"""UpdateObjectEncryption: another key for an object that is there, unless a lock or a hold protects it.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_UpdateObjectEncryption.html: the rights that it needs, and what it
refuses in which words. Which calls to KMS it makes for an object under S3's own key is not documented; all those that
the page names are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ministack.core import iam_actions, router
from ministack.services import s3

from ..xml import between
from . import encryption

_KMS = ("kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo")
_ARN = "arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[0-9a-zA-Z-]+"
_NEEDS_KEY = (
    "Requests that modify an object's encryption type to SSE-KMS require {} Amazon Web Services KMS key Amazon "
    "Resource Name (ARN). {}, and then try again."
)
_NEW_TYPE = (
    "Requests that modify an object encryption configuration require a valid new encryption type. Valid values are "
    "SSEKMS. Modify the request to specify SSE-KMS for the updated encryption type, and then try again."
)
_LOCKED = (
    "The encryption type for the specified object can't be updated because that object is protected by S3 Object Lock."
)
_FOREIGN = (
    "The Amazon Web Services KMS key in the request must be owned by the same account as the bucket. Modify the "
    "request to specify a KMS key from the same account, and then try again."
)


def install() -> None:
    """Give the action its name, and do what it does."""
    iam_actions._S3_OBJECT_QUERY_ACTIONS["encryption"] = {"PUT": "UpdateObjectEncryption"}
    dispatch = s3._dispatch

    def with_updates(
        method: str, bucket: str, key: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Any:
        if method == "PUT" and key and "encryption" in query:
            return _update(bucket, key, router.extract_access_key_id(headers, query) or "", body, query)
        return dispatch(method, bucket, key, headers, body, query)

    s3._dispatch = with_updates


def _update(bucket: str, key: str, access_key_id: str, body: bytes, query: Mapping[str, Any]) -> Any:
    there = s3._ensure_bucket(bucket)
    if there is None:
        return s3._no_such_bucket(bucket)
    target, missing = s3._object_lock_target(bucket, key, there, dict(query))
    if missing:
        return missing
    arn = between(body, "KMSKeyArn")
    if problem := _problem(body, arn):
        return s3._error("InvalidRequest", problem, 400)
    if arn.split(":")[4] != s3._bucket_owner_account(bucket):
        return s3._error("AccessDenied", _FOREIGN, 403)
    if _is_locked(target):
        return s3._error("AccessDenied", _LOCKED, 403)
    for action in _KMS:
        if refused := encryption.refusal(action, arn, access_key_id, bucket, key):
            return refused
    for record in _records(there, bucket, key, target[2]):
        record["preserved_headers"] = {**record.get("preserved_headers", {}), **encryption.with_key(arn)}
    return 200, {}, b""


def _is_locked(target: tuple[str, str, str | None]) -> bool:
    until = (s3._object_retention.get(target) or {}).get("RetainUntilDate")
    now = datetime.fromisoformat(s3.now_iso())
    return s3._object_legal_hold.get(target) == "ON" or bool(until and datetime.fromisoformat(until) > now)


def _problem(body: bytes, arn: str) -> str:
    if b"<SSE-KMS" not in body:
        return _NEW_TYPE
    if not arn:
        return _NEEDS_KEY.format("an", "Modify the request to specify a KMS key ARN")
    if not re.fullmatch(_ARN, arn):
        return _NEEDS_KEY.format("a valid", "Confirm that you have a correctly formatted KMS key ARN in your request")
    return ""


def _records(there: Mapping[str, Any], bucket: str, key: str, version: str | None) -> list[dict[str, Any]]:
    """Return where the version is recorded: as the current object, and among the versions."""
    current = there["objects"].get(key)
    versions = [entry for entry in s3._object_versions.get((bucket, key), []) if entry["version_id"] == version]
    return [*([current] if current and current.get("version_id") == version else []), *versions]
