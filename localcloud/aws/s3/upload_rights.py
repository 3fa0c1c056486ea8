"""What rides along with an upload needs rights of its own, and is seen by conditions.

Lock, hold, tag and ACL headers are asked for one by one, so that a Deny of ``s3:PutObjectRetention`` binds an upload
with a lock: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html, API_CreateMultipartUpload.html and
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html. The condition keys are those of
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from ministack.core import iam_actions
from ministack.services import s3

from ..rights.judgement import Request, give_keys
from ..xml import between
from .encryption import key_arn

_LOCK = "x-amz-object-lock-"
_GRANTS = ("x-amz-acl", "x-amz-grant-")
_SUBRESOURCES = frozenset({"acl", "encryption", "tagging", "retention", "legal-hold", "annotation", "restore"})


def install() -> None:
    """Ask for the rights, and give requests their keys."""
    additional = iam_actions.s3_additional_checks

    def additional_checks(
        method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> list[tuple[str, str]]:
        checks: list[tuple[str, str]] = additional(method, path, headers, body, query)
        if _starts_upload(method, path, query):
            arn = "arn:aws:s3:::" + "/".join(part for part in path.split("/") if part)
            checks += [(action, arn) for action in _rights(headers)]
        return checks

    iam_actions.s3_additional_checks = additional_checks
    give_keys("s3", _keys)


def _starts_upload(method: str, path: str, query: Mapping[str, Any]) -> bool:
    """Whether a request is PutObject, CopyObject or CreateMultipartUpload, which take these headers."""
    if len([part for part in path.split("/") if part]) < 2:
        return False
    return (method == "PUT" and not query.keys() & {"partNumber", *_SUBRESOURCES}) or (
        method == "POST" and "uploads" in query
    )


def _rights(headers: Mapping[str, str]) -> list[str]:
    """Return the actions that an upload's headers need beside PutObject."""
    needed = {
        "s3:PutObjectRetention": any(headers.get(f"{_LOCK}{name}") for name in ("mode", "retain-until-date")),
        "s3:PutObjectLegalHold": bool(headers.get(f"{_LOCK}legal-hold")),
        "s3:PutObjectTagging": bool(headers.get("x-amz-tagging")),
        "s3:PutObjectAcl": any(name.startswith(_GRANTS) for name in headers),
    }
    return [action for action, asked in needed.items() if asked]


def _keys(request: Request) -> dict[str, Any]:
    query = request.query
    headers = s3._merge_hoisted_amz_headers(dict(request.headers), query)
    keys: dict[str, Any] = {}
    if version := s3._qp(query, "versionId"):
        keys["s3:versionid"] = version
    if digest := headers.get("x-amz-content-sha256"):
        keys["s3:x-amz-content-sha256"] = digest
    if request.action == "s3:PutObject":
        keys |= _upload_keys(query, headers)
    elif request.action == "s3:PutObjectRetention":
        mode, until = between(request.body, "Mode"), between(request.body, "RetainUntilDate")
        keys |= {"s3:object-lock-mode": mode, "s3:object-lock-retain-until-date": until, **_remaining_days(until)}
    elif request.action == "s3:PutObjectLegalHold":
        keys["s3:object-lock-legal-hold"] = between(request.body, "Status")
    return keys


def _upload_keys(query: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    part = "partNumber" in query
    keys: dict[str, Any] = {"s3:objectcreationoperation": str(not part and "uploads" not in query).lower()}
    plain = {
        "s3:if-none-match": "if-none-match",
        "s3:if-match": "if-match",
        "s3:x-amz-copy-source": "x-amz-copy-source",
        "s3:x-amz-storage-class": "x-amz-storage-class",
        "s3:object-lock-mode": f"{_LOCK}mode",
        "s3:object-lock-retain-until-date": f"{_LOCK}retain-until-date",
        "s3:object-lock-legal-hold": f"{_LOCK}legal-hold",
    }
    keys |= {key: headers[header] for key, header in plain.items() if headers.get(header)}
    if until := headers.get(f"{_LOCK}retain-until-date"):
        keys |= _remaining_days(until)
    upload = s3._multipart_uploads.get(s3._qp(query, "uploadId")) or {}
    stored = upload.get("preserved_headers", {})
    key_id = "x-amz-server-side-encryption-aws-kms-key-id"
    if key := headers.get(key_id) or (stored.get(key_id) if upload.get("requested_sse") else None):
        # Whatever form the request names the key in.
        keys[f"s3:{key_id}"] = key_arn(key)
    tags = dict(parse_qsl(headers.get("x-amz-tagging", ""), keep_blank_values=True))
    keys |= {f"s3:requestobjecttag/{name}".lower(): value for name, value in tags.items()}
    if tags:
        keys["s3:requestobjecttagkeys"] = list(tags)
    return keys


def _remaining_days(until: str) -> dict[str, str]:
    """Return the condition key for the days that a lock would still last; a day that has begun counts."""
    try:
        time = datetime.fromisoformat(until)
    except ValueError:
        return {}
    left = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime.fromisoformat(s3.now_iso())
    return {"s3:object-lock-remaining-retention-days": str(math.ceil(left.total_seconds() / 86400))}
