"""Replication as S3 does it: by the role, with the version's id, its locks and holds, and later changes of them.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/replication.html, replication-what-is-isnot-replicated.html,
setting-repl-config-perm-overview.html and object-lock-managing.html. What is there before the configuration is not
replicated, delete markers only if the rule says so, and deletions of versions never. Whether a destination without
Object Lock, or a role that does not exist, is refused at once or fails object by object is not known: either can be
chosen.
"""

from __future__ import annotations

import copy
import enum
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from ministack.core import responses
from ministack.services import iam, s3

from ..rights import acting
from ..xml import between

_SERVICE = "s3.amazonaws.com"
_UNSEEN = frozenset({"uploads", "partNumber", "annotation", "restore"})


class Mode(enum.Enum):
    """When replication happens."""

    AT_ONCE = "at once"
    LAGS = "lags"
    """Not before it is released: objects stay PENDING."""
    FAILS = "fails"


@dataclass(frozen=True)
class _Version:
    account: str
    bucket: str
    key: str
    id: str


class Replication:
    """The replication of all buckets."""

    def __init__(self, regions_down: Set[str]) -> None:
        self.regions_down = regions_down
        self.mode = Mode.AT_ONCE
        self.checks_at_once = True
        """Whether a configuration that cannot work is refused, rather than failing object by object."""
        self._waiting: list[_Version] = []

    def changed(self, version: _Version) -> None:
        """Replicate a version that was written, or whose lock, hold or tags have changed."""
        if self.mode is Mode.LAGS:
            self._waiting.append(version)
        else:
            self._replicate(version)

    def marked(self, bucket: str, key: str, replicate: Callable[[str, str], None]) -> None:
        """Replicate a delete marker, if the rule says so and the role may; it never waits."""
        rule, role = s3._replication_rule_for(bucket, key, {})
        if rule is None or self.mode is not Mode.AT_ONCE:
            return
        try:
            with acting.session_of(role, "s3-replication", _SERVICE) as access_key_id:
                acting.require(access_key_id, "s3:ReplicateDelete", f"{rule['Destination']['Bucket']}/{key}")
        except acting.DeniedError:
            return
        replicate(bucket, key)

    def release(self) -> None:
        """Replicate what has waited."""
        waiting, self._waiting = self._waiting, []
        for version in waiting:
            self._replicate(version)

    def _replicate(self, version: _Version) -> None:
        with s3._in_account(version.account):
            source = _record(version.bucket, version.key, version.id)
            if source is None:
                return
            tags = s3._object_tags.get((version.bucket, version.key, version.id), {})
            rule, role = s3._replication_rule_for(version.bucket, version.key, tags)
            if rule is None:
                return
            if _region(_destination(rule)) in self.regions_down:
                self._waiting.append(version)
                return
            done = self.mode is not Mode.FAILS and _copy(version, source, rule, role)
            _stamp(version.bucket, version.key, version.id, "COMPLETED" if done else "FAILED")


def install(regions_down: Set[str]) -> Replication:
    """Replicate as S3 does, but into no region that is down, and return what controls it."""
    replication = Replication(regions_down)
    dispatch, put = s3._dispatch, s3._put_bucket_replication

    def pending(bucket: str, key: str, record: dict[str, Any], data: Any, tags: Any = None) -> None:
        if s3._replication_rule_for(bucket, key, tags)[0] is not None:
            record["replication_status"] = "PENDING"

    def replicating(
        method: str, bucket: str, key: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Any:
        status, answer, text = dispatch(method, bucket, key, headers, body, query)
        if key and status in (200, 204) and method in ("PUT", "POST", "DELETE") and not query.keys() & _UNSEEN:
            for version in _changed(method, bucket, key, query, answer):
                replication.changed(version)
        return status, answer, text

    def put_checked(bucket: str, body: bytes) -> Any:
        return _configuration_problem(bucket, body, replication.checks_at_once) or put(bucket, body)

    replicate_marker = s3._maybe_replicate_delete_marker
    s3._maybe_replicate_delete_marker = lambda bucket, key: replication.marked(bucket, key, replicate_marker)
    s3._maybe_replicate = pending
    s3._dispatch = replicating
    s3._put_bucket_replication = put_checked
    return replication


def _changed(
    method: str, bucket: str, key: str, query: Mapping[str, Any], answer: Mapping[str, str]
) -> Iterator[_Version]:
    """Yield the version that a request wrote or changed, if its bucket replicates."""
    if not s3._bucket_replication.get(bucket):
        return
    about = query.keys() & {"retention", "legal-hold", "tagging"}
    if method == "DELETE" and not about:
        return
    current = (s3._buckets.get(bucket) or {"objects": {}})["objects"].get(key) or {}
    version = s3._qp(query, "versionId") or answer.get("x-amz-version-id") or current.get("version_id")
    record = _record(bucket, key, str(version))
    # What was there before the configuration is not replicated, and so later changes of it are not.
    if record and record.get("replication_status"):
        yield _Version(responses.get_account_id(), bucket, key, str(version))


def _record(bucket: str, key: str, version: str) -> Any:
    entries = s3._object_versions.get((bucket, key), [])
    return next((e for e in entries if e["version_id"] == version and not e.get("is_delete_marker")), None)


def _destination(rule: Mapping[str, Any]) -> str:
    return str((rule.get("Destination") or {}).get("Bucket", "")).rpartition(":::")[2]


def _region(bucket: str) -> str:
    owner = s3._bucket_owner_account(bucket)
    record = s3._buckets.get_scoped(owner, None, bucket) if owner else None
    return str((record or {}).get("region", ""))


def _stamp(bucket: str, key: str, version: str, status: str) -> None:
    current = s3._buckets[bucket]["objects"].get(key)
    for record in (_record(bucket, key, version), current):
        if record and record.get("version_id") == version:
            record["replication_status"] = status


def _copy(version: _Version, source: Mapping[str, Any], rule: Mapping[str, Any], role: str) -> bool:
    """Write the replica, or bring its lock, hold and tags up to date; return whether that was possible."""
    destination = _destination(rule)
    owner = s3._bucket_owner_account(destination)
    if owner is None or not _can_be_copied(version, source, owner, destination):
        return False
    here = (version.bucket, version.key, version.id)
    stores = {"tags": s3._object_tags, "retention": s3._object_retention, "hold": s3._object_legal_hold}
    carried = {name: copy.deepcopy(store.get(here)) for name, store in stores.items()}
    locked = bool(s3._bucket_object_lock.get(version.bucket))
    try:
        _require(version, destination, role, rule, owner, locked=locked, tagged=bool(carried["tags"]))
    except acting.DeniedError:
        return False
    data = s3._version_body(s3._buckets[version.bucket], version.bucket, version.key, source)
    record = s3._object_record_from_version(source)
    with s3._in_account(owner):
        there = (destination, version.key, version.id)
        if _record(destination, version.key, version.id) is None:
            _write(destination, version.key, version.id, record, data, rule)
            if not carried["retention"]:
                s3._apply_object_lock_from_headers(destination, version.key, {}, version.id)
        for name, store in stores.items():
            if carried[name] is not None:
                store[there] = carried[name]
            elif name == "tags":
                store.pop(there, None)
    return True


def _can_be_copied(version: _Version, source: Mapping[str, Any], owner: str, destination: str) -> bool:
    if destination == version.bucket or s3._bucket_versioning.get_scoped(owner, None, destination) != "Enabled":
        return False
    if str(source.get("preserved_headers", {}).get("x-amz-server-side-encryption", "")).startswith("aws:kms"):
        # S3 replicates these only where a rule selects them, which no configuration here may.
        return False
    here = (version.bucket, version.key, version.id)
    is_locked = s3._object_retention.get(here) or s3._object_legal_hold.get(here)
    return not is_locked or bool(s3._bucket_object_lock.get_scoped(owner, None, destination))


def _require(
    version: _Version,
    destination: str,
    role: str,
    rule: Mapping[str, Any],
    owner: str,
    *,
    locked: bool,
    tagged: bool,
) -> None:
    """Check every right that the replication role needs, on both sides."""
    source, target = (f"arn:aws:s3:::{name}" for name in (version.bucket, destination))
    calls = [
        ("s3:GetReplicationConfiguration", source),
        ("s3:ListBucket", source),
        ("s3:GetObjectVersionForReplication", f"{source}/{version.key}"),
        ("s3:GetObjectVersionAcl", f"{source}/{version.key}"),
        ("s3:GetObjectVersionTagging", f"{source}/{version.key}"),
        ("s3:ReplicateObject", f"{target}/{version.key}"),
    ]
    if locked:
        calls += [(f"s3:GetObject{kind}", f"{source}/{version.key}") for kind in ("Retention", "LegalHold")]
    if tagged:
        calls.append(("s3:ReplicateTags", f"{target}/{version.key}"))
    if (rule.get("Destination") or {}).get("AccessControlTranslation") and owner != version.account:
        calls.append(("s3:ObjectOwnerOverrideToBucketOwner", f"{target}/{version.key}"))
    with acting.session_of(role, "s3-replication", _SERVICE) as key:
        for action, arn in calls:
            acting.require(key, action, arn)


def _write(bucket: str, key: str, version: str, record: dict[str, Any], data: Any, rule: Mapping[str, Any]) -> None:
    replica = {**copy.deepcopy(record), "replication_status": "REPLICA", "version_id": version}
    if storage_class := (rule.get("Destination") or {}).get("StorageClass"):
        replica["storage_class"] = storage_class
    entries = s3._object_versions.setdefault((bucket, key), [])
    for entry in entries:
        entry["is_latest"] = False
    entries.append({**s3._version_entry_from_record(replica, version, data), "is_latest": True})
    replica["body"] = data
    s3._buckets[bucket]["objects"][key] = replica
    if s3.S3_PERSIST:
        s3._persist_object(bucket, key, replica)


def _configuration_problem(bucket: str, body: bytes, at_once: bool) -> Any:
    """Return why a configuration is refused: a destination that is missing always, the rest perhaps."""
    text = body.decode("utf-8", "replace")
    if "SseKmsEncryptedObjects" in text:
        message = "The embedded cloud replicates no objects that are encrypted with KMS."
        return s3._error("NotImplemented", message, 501)
    for destination in re.findall(r"<Bucket>(?:arn:aws:s3:::)?([^<]+)</Bucket>", text):
        owner = s3._bucket_owner_account(destination)
        if owner is None or s3._bucket_versioning.get_scoped(owner, None, destination) != "Enabled":
            return s3._error("InvalidRequest", "Destination bucket must have versioning enabled.", 400)
        locked = s3._bucket_object_lock.get_scoped(owner, None, destination)
        if at_once and s3._bucket_object_lock.get(bucket) and not locked:
            message = "Object Lock configuration cannot be enabled on the source only"
            return s3._error("InvalidRequest", message, 400)
    role = between(body, "Role")
    if at_once and iam._roles.get(role.rpartition("/")[2]) is None:
        return s3._error("InvalidRequest", "The replication role does not exist", 400)
    return None
