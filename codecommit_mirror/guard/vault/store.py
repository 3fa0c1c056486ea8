"""The vault's objects: snapshots and public keys, which are written once and locked.

Every version of every object stays there while it is locked. What the guard wrote is known by its signatures, not by
being first or last: see ``signed``.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, Literal, cast, get_args

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from ..names import EXPIRED_TAG
from .manifest import PREFIX, Manifest
from .public_key import PublicKey, parse_pem
from .ref_list import RefList

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Mode = Literal["COMPLIANCE", "GOVERNANCE"]
Lock = tuple[Mode, datetime]
"""Its mode, and when it ends."""
PART_BYTES = 8 * 1024 * 1024
PRECONDITION = {"PreconditionFailed", "ConditionalRequestConflict"}
StorageClass = Literal["STANDARD", "GLACIER_IR"]
COLD_BYTES = 128 * 1024
"""S3 bills a smaller object of the class GLACIER_IR as one of this size
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html)."""
_KEYS_PREFIX = "keys/"
_MAX_KEY_BYTES = 8192
_TOO_MANY, _SERVER_ERROR = 429, 500


def _transfer_config() -> TransferConfig:
    config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=2)
    # One part is sent while the next one is filled, whatever the size of the bundle.
    config.max_in_memory_upload_chunks = 2
    return config


_TRANSFER = _transfer_config()


@dataclass(frozen=True)
class Version:
    """One version of an object, or a delete marker."""

    key: str
    id: str
    size: int
    written: str
    """When, by S3's clock, in ISO 8601; the times of a bucket's versions compare as text."""
    deletes: bool = False
    """Whether it is a delete marker, which hides the object and removes nothing."""
    storage: str = "STANDARD"
    """Its storage class."""

    @property
    def is_cold(self) -> bool:
        """Whether nothing can be read of it before somebody restores it from an archive."""
        return self.storage in ("GLACIER", "DEEP_ARCHIVE")

    @property
    def is_where_it_was_put(self) -> bool:
        """Whether it has a storage class that the guard gives its objects."""
        return self.storage in get_args(StorageClass)


@dataclass(frozen=True)
class Listing:
    """All versions of a replica's snapshot objects."""

    versions: Sequence[Version]
    """Of each key the oldest first."""

    @cached_property
    def by_key(self) -> Mapping[str, Sequence[Version]]:
        """The versions of each object, the oldest first, without delete markers."""
        found: dict[str, list[Version]] = {}
        for version in self.versions:
            if not version.deletes:
                found.setdefault(version.key, []).append(version)
        return found

    def find(self, key: str, version: str) -> Version | None:
        """Return a version of an object, or its first one where this one is not there, as in a copy of the vault."""
        there = self.by_key.get(key, ())
        return next((one for one in there if one.id == version), there[0] if there else None)


class Store:
    """The bucket's objects."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3, self.bucket = s3, bucket

    def listing(self, replica: str) -> Listing:
        """Return all versions of a replica's snapshot objects."""
        return self._list(f"{PREFIX}{replica}/")

    def _list(self, prefix: str) -> Listing:
        """Return all versions below a prefix (ListObjectVersions)."""
        versions: list[Version] = []
        for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=prefix):
            versions += (_version(entry) for entry in page.get("Versions", []))
            versions += (_version(entry, deletes=True) for entry in page.get("DeleteMarkers", []))
        # S3 lists the newest version of each key first.
        return Listing(sorted(reversed(versions), key=lambda version: version.key))

    def read(self, version: Version) -> bytes:
        """Return the bytes of one version of an object."""
        return self._s3.get_object(Bucket=self.bucket, Key=version.key, VersionId=version.id)["Body"].read()

    def try_to_read(self, version: Version) -> bytes | None:
        """Return the bytes of an object that anybody may have put there; None if S3 does not give them out.

        It may be in an archive, or encrypted with a key that only somebody else has.
        """
        try:
            return self.read(version)
        except ClientError as error:
            if not is_refusal(error):
                raise
            return None

    def open(self, version: Version, start: int = 0) -> IO[bytes]:
        """Return a stream of an object's bytes, from a position on."""
        answer = self._s3.get_object(Bucket=self.bucket, Key=version.key, VersionId=version.id, Range=f"bytes={start}-")
        return cast(IO[bytes], answer["Body"])

    def saved_replicas(self) -> set[str]:
        """Return the names of the replicas below whose names objects are, whatever hides them."""
        pages = self._s3.get_paginator("list_object_versions").paginate(
            Bucket=self.bucket, Prefix=PREFIX, Delimiter="/"
        )
        found = (str(entry["Prefix"]) for page in pages for entry in page.get("CommonPrefixes", []))
        return {prefix.removeprefix(PREFIX).rstrip("/") for prefix in found}

    def put_list(self, key: str, refs: RefList, lock: Lock) -> tuple[int, str]:
        """Upload a list of refs, packed; return its size and its version."""
        data = b"".join(refs.deflate())
        version = self._s3.put_object(Bucket=self.bucket, Key=key, Body=data, **_locked("application/gzip", *lock))
        return len(data), version["VersionId"]

    def put_bundle(
        self, key: str, parts: Iterable[bytes], lock: Lock, storage: StorageClass, on_large: Callable[[], object]
    ) -> tuple[int, str, str]:
        """Upload a bundle while it arrives; return its size, its SHA-256 and its version.

        A failure leaves nothing behind but parts, which the bucket's life-cycle rule removes.

        Args:
            key: the object's key.
            parts: its bytes.
            lock: its lock.
            storage: its storage class, unless it is so small that GLACIER_IR costs more.
            on_large: is called before a bundle of more than one part is uploaded, which may take longer than an
                invocation has.
        """
        stream = _Stream(parts)
        settings = _locked("application/x-git-bundle", *lock)
        if stream.has_more_than(COLD_BYTES):
            settings["StorageClass"] = storage
        if stream.has_more_than(PART_BYTES):
            on_large()
            self._s3.upload_fileobj(cast(IO[bytes], stream), self.bucket, key, ExtraArgs=settings, Config=_TRANSFER)
            version = self._s3.head_object(Bucket=self.bucket, Key=key)["VersionId"]
        else:
            version = self._s3.put_object(Bucket=self.bucket, Key=key, Body=stream.read(), **settings)["VersionId"]
        return stream.size, stream.sha256.hexdigest(), version

    def put_manifest(
        self, manifest: Manifest, data: bytes, signature: bytes | None, mode: Mode, until: datetime
    ) -> bool:
        """Write a manifest after its signature, both locked; return False if one of this second is there already.

        Args:
            manifest: the manifest.
            data: its bytes, as ``dump`` returned them.
            signature: their signature, if there is one.
            mode: the mode of the locks.
            until: when the locks end.
        """
        if signature is not None:
            settings = _locked("application/octet-stream", mode, until)
            self._s3.put_object(Bucket=self.bucket, Key=manifest.signature, Body=signature, **settings)
        return self._put_new(manifest.key, data, _locked("application/json", mode, until))

    def _put_new(self, key: str, data: bytes, settings: dict[str, Any]) -> bool:
        try:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*", **settings)
        except ClientError as error:
            if error.response["Error"]["Code"] in PRECONDITION:
                return False
            raise
        return True

    def keep_public_key(self, key: PublicKey, mode: Mode, needed: datetime, until: datetime) -> None:
        """Keep a public key in the bucket, locked as long as the snapshots that it verifies.

        Args:
            key: the key.
            mode: the mode of the lock.
            needed: until when it has to be locked.
            until: when the lock ends, if a new one is needed.
        """
        there = self._public_keys().get(key.fingerprint)
        if there is None:
            name = f"{_KEYS_PREFIX}{key.fingerprint}.pem"
            self._put_new(name, key.pem.encode(), _locked("application/x-pem-file", mode, until))
        else:
            self.extend(self.locks([there]), mode, needed, until)

    def public_key(self, fingerprint: str) -> PublicKey | None:
        """Return a public key that the bucket keeps; None if it is not there."""
        version = self._public_keys().get(fingerprint)
        return parse_pem(self.read(version).decode()) if version else None

    def locked_public_keys(self) -> list[PublicKey]:
        """Return the public keys that the bucket keeps, and that are locked."""
        return [parse_pem(self.read(v).decode()) for v in self._public_keys().values() if self.lock_of(v)]

    def _public_keys(self) -> dict[str, Version]:
        """Return the versions that have the public keys they are named after, by fingerprint."""
        found = {}
        for version in self._list(_KEYS_PREFIX).versions:
            fingerprint = version.key.removeprefix(_KEYS_PREFIX).removesuffix(".pem")
            if fingerprint not in found and not version.deletes and version.size <= _MAX_KEY_BYTES:
                with suppress(ValueError):
                    data = self.try_to_read(version)
                    if data and parse_pem(data.decode()).fingerprint == fingerprint:
                        found[fingerprint] = version
        return found

    def lock_of(self, version: Version) -> Lock | None:
        """Return an object's lock; None if it has none."""
        try:
            answer = self._s3.get_object_retention(Bucket=self.bucket, Key=version.key, VersionId=version.id)
        except ClientError as error:
            # A bucket that the snapshots were copied to may have no locks at all.
            if error.response["Error"]["Code"] in ("NoSuchObjectLockConfiguration", "InvalidRequest"):
                return None
            raise
        return answer["Retention"]["Mode"], answer["Retention"]["RetainUntilDate"]

    def locks(self, versions: Iterable[Version]) -> dict[Version, Lock | None]:
        """Return the locks of objects, as S3 has them."""
        return {version: self.lock_of(version) for version in versions}

    def extend(self, locks: Mapping[Version, Lock | None], mode: Mode, needed: datetime, until: datetime) -> None:
        """Lock objects for longer if their locks end before a time; a longer lock stays.

        Args:
            locks: the objects, with the locks they have.
            mode: the mode of a new lock; another lock keeps its own.
            needed: until when they have to be locked.
            until: when a lock ends that is not long enough.
        """
        for version, lock in locks.items():
            if lock is None or lock[1] < needed:
                self._s3.put_object_retention(
                    Bucket=self.bucket,
                    Key=version.key,
                    VersionId=version.id,
                    Retention={"Mode": lock[0] if lock else mode, "RetainUntilDate": until},
                    ChecksumAlgorithm="SHA256",
                )

    def mark_expired(self, version: Version) -> None:
        """Let the life-cycle rule remove an object."""
        tags: Any = {"TagSet": [{"Key": EXPIRED_TAG, "Value": "true"}]}
        self._s3.put_object_tagging(Bucket=self.bucket, Key=version.key, VersionId=version.id, Tagging=tags)


def is_refusal(error: ClientError) -> bool:
    """Whether S3 will refuse the same request again."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)
    return status < _SERVER_ERROR and status != _TOO_MANY


def _version(entry: Any, *, deletes: bool = False) -> Version:
    return Version(
        str(entry["Key"]),
        str(entry["VersionId"]),
        entry.get("Size", 0),
        entry["LastModified"].isoformat(),
        deletes,
        entry.get("StorageClass", "STANDARD"),
    )


def _locked(content_type: str, mode: Mode, until: datetime) -> dict[str, Any]:
    """Return the settings of an upload that is locked, and that S3 encrypts with its own key.

    The bucket's default could be changed to a key that somebody deletes.
    """
    return {
        "ContentType": content_type,
        "ChecksumAlgorithm": "SHA256",
        "ServerSideEncryption": "AES256",
        "ObjectLockMode": mode,
        "ObjectLockRetainUntilDate": until,
    }


class _Stream(io.RawIOBase):
    """A readable stream over parts that arrive, which counts and hashes what is read."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts: Iterator[bytes] = iter(parts)
        self._left = b""
        self.size = 0
        self.sha256 = hashlib.sha256()

    def has_more_than(self, size: int) -> bool:
        """Whether there are more bytes than so many; they stay to be read."""
        pieces, length = [self._left], len(self._left)
        while length <= size and (part := next(self._parts, None)) is not None:
            pieces.append(part)
            length += len(part)
        self._left = b"".join(pieces)
        return length > size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return exactly ``size`` bytes, and fewer only at the end."""
        pieces, missing = [self._left], (size if size >= 0 else 1 << 62) - len(self._left)
        while missing > 0 and (part := next(self._parts, None)) is not None:
            pieces.append(part)
            missing -= len(part)
        data = b"".join(pieces)
        result, self._left = (data, b"") if size < 0 else (data[:size], data[size:])
        self.size += len(result)
        self.sha256.update(result)
        return result
