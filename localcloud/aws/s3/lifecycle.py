"""Life-cycle rules, checked when they are stored and executed as days pass.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html and
lifecycle-transition-general-considerations.html: 30 days bind STANDARD_IA and ONEZONE_IA only, objects below 128 KB do
not move by default; a time is rounded up to the next midnight UTC. A version under a lock or a hold stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from xml.etree.ElementTree import Element

from ministack.core import responses
from ministack.services import s3

from ..clock import Clock

_DAY = timedelta(days=1)
_BOUND = {"STANDARD_IA": 30, "ONEZONE_IA": 30}
_NOT_EXECUTED = (
    "Date",
    "NoncurrentVersionTransition",
    "NewerNoncurrentVersions",
    "ObjectSizeGreaterThan",
    "ObjectSizeLessThan",
)
MIN_BYTES = 128 * 1024
"""Smaller objects do not change their storage class by default."""
Rule = Mapping[str, Any]


def install(clock: Clock) -> None:
    """Check rules, execute them each day, and let locks end by the same clock."""
    put = s3._put_bucket_lifecycle

    def put_checked(bucket: str, body: bytes) -> Any:
        return _problem(body) or put(bucket, body)

    s3._put_bucket_lifecycle = put_checked
    s3.now_iso = clock.iso
    clock.every_day(lambda: _execute(clock.now()))


def _problem(body: bytes) -> Any:
    try:
        root = s3.fromstring(body)
    except Exception:  # the parser's own; S3 reports it
        return None
    for name in _NOT_EXECUTED:
        if _first(root, name) is not None:
            return s3._error("NotImplemented", f"The embedded cloud does not execute {name} in life-cycle rules.", 501)
    for transition in _all(root, "Transition"):
        storage, days = _text(transition, "StorageClass"), _text(transition, "Days")
        if days and int(days) < _BOUND.get(storage, 0):
            message = (
                f"'Days' in Transition action must be greater than or equal to {_BOUND[storage]} for storageClass "
                f"'{storage}'"
            )
            return s3._error("InvalidArgument", message, 400)
    return None


def _execute(now: datetime) -> None:
    for account, bucket in [key for key, _ in s3._bucket_lifecycle.to_dict().items()]:
        with responses.request_scope(account, responses.get_region()):
            for rule in _rules(bucket):
                for key in list(s3._buckets[bucket]["objects"]) + _hidden(bucket):
                    if key.startswith(rule["prefix"]):
                        _apply(bucket, key, rule, now)
                _abort_uploads(bucket, rule, now)


def _hidden(bucket: str) -> list[str]:
    """Return the keys whose latest version is a delete marker."""
    objects = s3._buckets[bucket]["objects"]
    return [key for name, key in list(s3._object_versions) if name == bucket and key not in objects]


def _rules(bucket: str) -> Iterator[Rule]:
    answer = s3._get_bucket_lifecycle(bucket)
    if answer[0] != 200:
        return
    for element in _all(s3.fromstring(answer[2]), "Rule"):
        if _text(element, "Status") != "Enabled":
            continue
        tags = {_text(tag, "Key"): _text(tag, "Value") for tag in _all(element, "Tag")}
        yield {
            "prefix": _text(element, "Prefix"),
            "tags": tags,
            "expires": _days(_first(element, "Expiration"), "Days"),
            "orphans": _text(_first(element, "Expiration"), "ExpiredObjectDeleteMarker") == "true",
            "noncurrent": _days(_first(element, "NoncurrentVersionExpiration"), "NoncurrentDays"),
            "aborts": _days(_first(element, "AbortIncompleteMultipartUpload"), "DaysAfterInitiation"),
            "moves": [
                (int(_text(move, "Days") or 0), _text(move, "StorageClass")) for move in _all(element, "Transition")
            ],
        }


def _apply(bucket: str, key: str, rule: Rule, now: datetime) -> None:
    current = s3._buckets[bucket]["objects"].get(key)
    if current is not None and _tagged(bucket, key, current.get("version_id"), rule):
        for days, storage in rule["moves"]:
            if current["size"] >= MIN_BYTES and _due(current["last_modified"], days, now):
                current["storage_class"] = storage
        if rule["expires"] is not None and _due(current["last_modified"], rule["expires"], now):
            # Behind a delete marker, or for good in a bucket without versions.
            s3._delete_object(bucket, key)
    if rule["noncurrent"] is not None:
        _remove_noncurrent(bucket, key, rule, now)
    entries = s3._object_versions.get((bucket, key), [])
    if rule["orphans"] and len(entries) == 1 and entries[0].get("is_delete_marker"):
        s3._delete_object_version(s3._buckets[bucket], bucket, key, entries[0]["version_id"])


def _tagged(bucket: str, key: str, version: str | None, rule: Rule) -> bool:
    tags = s3._object_tags.get((bucket, key, version), {})
    return all(tags.get(name) == value for name, value in rule["tags"].items())


def _remove_noncurrent(bucket: str, key: str, rule: Rule, now: datetime) -> None:
    entries = list(s3._object_versions.get((bucket, key), []))
    for entry, successor in itertools.pairwise(entries):
        version = entry["version_id"]
        if entry.get("is_delete_marker") and rule["tags"]:
            continue
        if not _tagged(bucket, key, version, rule) or not _due(successor["last_modified"], rule["noncurrent"], now):
            continue
        if s3._check_object_lock(bucket, key, {}, version) is None:
            s3._delete_object_version(s3._buckets[bucket], bucket, key, version)


def _abort_uploads(bucket: str, rule: Rule, now: datetime) -> None:
    if rule["aborts"] is None:
        return
    for upload_id, upload in list(s3._multipart_uploads.items()):
        mine = upload["bucket"] == bucket and upload["key"].startswith(rule["prefix"])
        if mine and _due(upload["created"], rule["aborts"], now):
            del s3._multipart_uploads[upload_id]


def _due(since: str, days: int, now: datetime) -> bool:
    """Whether so many days have passed, rounded up to the next midnight."""
    end = datetime.fromisoformat(since) + days * _DAY
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
    return now >= (midnight if midnight == end else midnight + _DAY)


def _all(element: Any, name: str) -> Iterator[Element]:
    for child in element.iter():
        if child.tag.rpartition("}")[2] == name:
            yield child


def _first(element: Any, name: str) -> Any:
    return next(_all(element, name), None)


def _text(element: Any, name: str) -> str:
    found = _first(element, name) if element is not None else None
    return (found.text or "") if found is not None else ""


def _days(element: Any, name: str) -> int | None:
    text = _text(element, name)
    return int(text) if text else None
