"""A bucket's configurations, as its template has them: each through the call that sets it.

ministack applies CORS, website and block of public access only, and drops the rest in silence.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-s3-bucket.html
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from ministack.services import s3
from ministack.services.cloudformation import provisioners

ToXml = Callable[[Any], bytes]
STORES = {
    "BucketEncryption": s3._bucket_encryption,
    "CorsConfiguration": s3._bucket_cors,
    "LifecycleConfiguration": s3._bucket_lifecycle,
    "ObjectLockConfiguration": s3._bucket_object_lock,
    "ReplicationConfiguration": s3._bucket_replication,
    "Tags": s3._bucket_tags,
}
"""Where S3 keeps what a property sets."""
_applied: dict[tuple[str, str], Any] = {}
"""What S3 kept when a property was applied, by the bucket's name and the property's."""
_RENAMED: dict[str, str] = {
    "Id": "ID",
    "Rules": "Rule",
    "TagFilters": "Tag",
    "TagFilter": "Tag",
    "Transitions": "Transition",
    "NoncurrentVersionTransitions": "NoncurrentVersionTransition",
    "TransitionInDays": "Days",
    "TransitionDate": "Date",
    "ServerSideEncryptionConfiguration": "Rule",
    "ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault",
}
"""Members that the API spells in another way."""


def install() -> None:
    """Apply every configuration, and refuse to delete a bucket that is not empty."""
    configurations = (
        (
            "BucketEncryption",
            _body("ServerSideEncryptionConfiguration"),
            s3._put_bucket_encryption,
            s3._delete_bucket_encryption,
        ),
        ("LifecycleConfiguration", _lifecycle, s3._put_bucket_lifecycle, s3._delete_bucket_lifecycle),
        ("OwnershipControls", _body("OwnershipControls"), s3._put_bucket_ownership_controls, _keep),
        (
            "ReplicationConfiguration",
            _body("ReplicationConfiguration"),
            s3._put_bucket_replication,
            s3._delete_bucket_replication,
        ),
        ("ObjectLockConfiguration", _body("ObjectLockConfiguration"), s3._put_object_lock_configuration, _keep),
        ("AccessControl", str.encode, _private_only, _keep),
        ("Tags", lambda tags: tags, _tag, lambda name: s3._bucket_tags.pop(name, None)),
    )
    known = provisioners._S3_BUCKET_CONFIGURATIONS
    provisioners._S3_BUCKET_CONFIGURATIONS = tuple(
        (name, to_xml, _raising(name, put), delete) for name, to_xml, put, delete in (*known, *configurations)
    )
    provisioners._STACK_TAG_PROPERTY["AWS::S3::Bucket"] = ("Tags", "list")
    _lock_before_anything_else()
    _keep_what_is_not_empty()


def is_as_applied(name: str, property_name: str) -> bool:
    """Whether a bucket still has what its template set."""
    return bool(_applied.get((name, property_name)) == STORES[property_name].get(name))


def _raising(property_name: str, put: Callable[[str, Any], Any]) -> Callable[[str, Any], None]:
    """Let a configuration that S3 refuses fail the resource, with S3's words."""

    def put_or_raise(name: str, body: Any) -> None:
        answer = put(name, body)
        if answer and answer[0] >= 400:
            raise ValueError(f"{property_name}: {answer[2].decode('utf-8', 'replace')}")
        if property_name in STORES:
            _applied[name, property_name] = copy.deepcopy(STORES[property_name].get(name))

    return put_or_raise


def _body(root: str) -> ToXml:
    def to_xml(value: Any) -> bytes:
        element = Element(root, xmlns=s3.S3_NS)
        _add(element, value)
        return bytes(tostring(element, encoding="utf-8"))

    return to_xml


def _add(parent: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, member in value.items():
            for item in member if isinstance(member, list) else [member]:
                _add(SubElement(parent, _RENAMED.get(str(key), str(key))), item)
    else:
        parent.text = str(value).lower() if isinstance(value, bool) else str(value)


def _lifecycle(configuration: Mapping[str, Any]) -> bytes:
    rules = [_lifecycle_rule(dict(rule)) for rule in configuration["Rules"]]
    return _body("LifecycleConfiguration")({"Rules": rules})


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule as the API has it: its filter and its expiration are elements of their own."""
    expiration = {
        "Days": rule.pop("ExpirationInDays", None),
        "Date": rule.pop("ExpirationDate", None),
        "ExpiredObjectDeleteMarker": rule.pop("ExpiredObjectDeleteMarker", None),
    }
    if days := rule.pop("NoncurrentVersionExpirationInDays", None):
        rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
    for transition in rule.get("NoncurrentVersionTransitions") or []:
        transition["NoncurrentDays"] = transition.pop("TransitionInDays")
    prefix, tags = rule.pop("Prefix", None), rule.pop("TagFilters", None) or []
    members: dict[str, Any] = {**({"Prefix": prefix} if prefix else {}), **({"TagFilters": tags} if tags else {})}
    rule["Filter"] = {"And": members} if len(tags) + bool(prefix) > 1 else members
    if set_expiration := {key: value for key, value in expiration.items() if value is not None}:
        rule["Expiration"] = set_expiration
    return rule


def _keep(name: str) -> None:
    """Leave what cannot be taken back: ownership goes on, and Object Lock stays for ever."""


def _private_only(name: str, acl: bytes) -> Any:
    if acl in (b"Private", b"LogDeliveryWrite", b"BucketOwnerFullControl"):
        return None
    return s3._error("AccessControlListNotSupported", "The bucket does not allow ACLs", 400)


def _tag(name: str, tags: list[dict[str, str]]) -> None:
    s3._bucket_tags[name] = {tag["Key"]: tag["Value"] for tag in tags}


def _lock_before_anything_else() -> None:
    """Enable Object Lock, which only a new bucket can have and which versions depend on."""
    apply = provisioners._s3_apply_configurations

    def apply_locked(name: str, properties: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> None:
        if properties.get("ObjectLockEnabled") and not s3._bucket_object_lock.get(name):
            s3._bucket_versioning[name] = "Enabled"
            s3._bucket_object_lock[name] = {"enabled": True, "default_retention": None}
        if old and old.get("ObjectLockEnabled") and not properties.get("ObjectLockEnabled"):
            raise ValueError("ObjectLockEnabled: Object Lock cannot be disabled once it is enabled")
        apply(name, properties, old)

    provisioners._s3_apply_configurations = apply_locked


def _keep_what_is_not_empty() -> None:
    handlers = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    delete = handlers["delete"]

    def delete_if_empty(physical_id: str, properties: Mapping[str, Any]) -> None:
        bucket = s3._buckets.get(physical_id)
        if bucket and (bucket["objects"] or s3._bucket_has_versions(physical_id)):
            raise ValueError(f"The bucket you tried to delete is not empty: {physical_id}")
        delete(physical_id, properties)
        for store in (s3._bucket_object_lock, s3._bucket_lifecycle, s3._bucket_replication, s3._bucket_tags):
            store.pop(physical_id, None)

    handlers["delete"] = delete_if_empty
