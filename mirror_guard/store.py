"""The bucket: snapshots, which are written once and locked, and each replica's state, which is rewritten.

Every version of every object stays in the bucket. The first version of a snapshot's object is the one that was locked;
a version or a delete marker above it is not the guard's, and is not read.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from .manifest import PREFIX, Manifest, digest, dump, parse
from .names import EXPIRED_TAG

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Mode = Literal["COMPLIANCE", "GOVERNANCE"]
PART_BYTES = 8 * 1024 * 1024
_STATE_PREFIX = "state/"
_STATE_TRIES = 10
_PRECONDITION = {"PreconditionFailed", "ConditionalRequestConflict"}


def _transfer_config() -> TransferConfig:
    config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=2)
    # One part is sent while the next one is filled, whatever the size of the bundle.
    config.max_in_memory_upload_chunks = 2
    return config


_TRANSFER = _transfer_config()


@dataclass(frozen=True)
class State:
    """What the guard remembers of a replica between two invocations."""

    confirmed_id: str = ""
    """The object id of the confirming tag that was seen last."""
    confirmed_sha256: str = ""
    """The SHA-256 of the refs that the run found equal, as the tag says."""
    confirmed_at: str = ""
    """When that run was, as ``manifest.TIME``; empty if no run has confirmed the replica."""
    first_seen: str = ""
    """When the guard looked at the replica for the first time."""
    stale_since: str = ""
    """When people were notified that the replica is stale; empty if it is not."""
    changed_since: str = ""
    """When people were notified of a change that no run made; empty if there is none."""
    unattributed_since: str = ""
    """When the last change was made whose author CodeCommit did not name; empty if there is none."""
    unattributed: str = ""
    """What that change was."""
    snapshot_at: str = ""
    """When the replica was last found equal to its last snapshot, as ``manifest.TIME``."""
    locked_chain: str = ""
    """The chain that ``locked_until`` is about, as ``chain_started`` of its manifests."""
    locked_until: str = ""
    """Until when every object of that chain is locked."""
    interrupted: int = 0
    """How many attempts at the next snapshot did not end; attempts that ended quickly are not counted."""
    unsaved_since: str = ""
    """When people were notified that no snapshot is taken; empty if one is."""
    gone_since: str = ""
    """When people were notified that the replica is gone, or has lost its tags; empty if it is there."""
    outbox: tuple[tuple[str, str, str], ...] = ()
    """Subject, body and time of messages that are decided on, and not known to be sent."""


class StateChangedError(Exception):
    """Raised when another invocation has rewritten a replica's state."""


class Store:
    """The bucket's objects."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3, self.bucket = s3, bucket

    def versions(self, replica: str) -> dict[str, str]:
        """Return the first version of each of a replica's snapshot objects, by key."""
        first: dict[str, str] = {}
        pages = self._s3.get_paginator("list_object_versions").paginate(
            Bucket=self.bucket, Prefix=f"{PREFIX}{replica}/"
        )
        for page in pages:
            # The newest version of each key comes first.
            first.update((str(entry["Key"]), str(entry["VersionId"])) for entry in page.get("Versions", []))
        return first

    def manifest(self, key: str, version: str) -> tuple[Manifest, str]:
        """Return a manifest and its SHA-256.

        Raises:
            ValueError: it is damaged.
        """
        data = self._s3.get_object(Bucket=self.bucket, Key=key, VersionId=version)["Body"].read()
        return parse(data), digest(data)

    def latest_manifest(self, versions: dict[str, str]) -> tuple[Manifest, str] | None:
        """Return the last manifest and its SHA-256; None if there is none."""
        keys = sorted(key for key in versions if key.endswith(".json"))
        return self.manifest(keys[-1], versions[keys[-1]]) if keys else None

    def open(self, key: str, version: str, start: int = 0) -> IO[bytes]:
        """Return a stream of an object's bytes, from a position on."""
        answer = self._s3.get_object(Bucket=self.bucket, Key=key, VersionId=version, Range=f"bytes={start}-")
        return cast(IO[bytes], answer["Body"])

    def known_replicas(self) -> set[str]:
        """Return the names of the replicas that have a state."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=_STATE_PREFIX)
        keys = (str(entry["Key"]) for page in pages for entry in page.get("Contents", []))
        return {key.removeprefix(_STATE_PREFIX).removesuffix(".json") for key in keys}

    def put_bundle(
        self, key: str, parts: Iterable[bytes], mode: Mode, until: datetime, on_large: Callable[[], object]
    ) -> tuple[int, str]:
        """Upload a bundle while it arrives, locked; return its size and its SHA-256.

        A failure leaves nothing behind but parts, which the bucket's life-cycle rule removes. ``on_large`` is called
        before a bundle of more than one part is uploaded, which may take longer than an invocation has.
        """
        stream = _Stream(parts)
        lock: dict[str, Any] = {
            "ObjectLockMode": mode,
            "ObjectLockRetainUntilDate": until,
            "ChecksumAlgorithm": "SHA256",
            "ContentType": "application/x-git-bundle",
        }
        if stream.has_more_than(PART_BYTES):
            on_large()
            self._s3.upload_fileobj(cast(IO[bytes], stream), self.bucket, key, ExtraArgs=lock, Config=_TRANSFER)
        else:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=stream.read(), **lock)
        return stream.size, stream.sha256.hexdigest()

    def put_manifest(self, manifest: Manifest, mode: Mode, until: datetime) -> bool:
        """Write a manifest, locked; return False if another invocation wrote one of this second."""
        try:
            self._s3.put_object(
                Bucket=self.bucket,
                Key=manifest.key,
                Body=dump(manifest),
                ContentType="application/json",
                ChecksumAlgorithm="SHA256",
                ObjectLockMode=mode,
                ObjectLockRetainUntilDate=until,
                IfNoneMatch="*",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _PRECONDITION:
                return False
            raise
        return True

    def locked_until(self, key: str, version: str) -> tuple[Mode, datetime] | None:
        """Return an object's lock; None if it has none."""
        try:
            answer = self._s3.get_object_retention(Bucket=self.bucket, Key=key, VersionId=version)["Retention"]
        except ClientError as error:
            # A bucket that the snapshots were copied to may have no locks at all.
            if error.response["Error"]["Code"] in ("NoSuchObjectLockConfiguration", "InvalidRequest"):
                return None
            raise
        return answer["Mode"], answer["RetainUntilDate"]

    def extend_lock(self, key: str, version: str, mode: Mode, until: datetime) -> None:
        """Lock an object for longer; a lock that lasts at least as long stays."""
        lock = self.locked_until(key, version)
        if lock is None or lock[1] < until:
            self._s3.put_object_retention(
                Bucket=self.bucket,
                Key=key,
                VersionId=version,
                Retention={"Mode": lock[0] if lock else mode, "RetainUntilDate": until},
                ChecksumAlgorithm="SHA256",
            )

    def mark_expired(self, key: str, version: str) -> None:
        """Let the life-cycle rule remove an object."""
        tags: Any = {"TagSet": [{"Key": EXPIRED_TAG, "Value": "true"}]}
        self._s3.put_object_tagging(Bucket=self.bucket, Key=key, VersionId=version, Tagging=tags)

    def read_state(self, replica: str) -> tuple[State, str | None]:
        """Return a replica's state, and the tag that ``write_state`` compares; None if there is no state yet."""
        try:
            answer = self._s3.get_object(Bucket=self.bucket, Key=f"{_STATE_PREFIX}{replica}.json")
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return State(), None
            raise
        fields = json.loads(answer["Body"].read())
        known = {name: value for name, value in fields.items() if name in State.__dataclass_fields__}
        known["outbox"] = tuple((subject, body, queued) for subject, body, queued in known.get("outbox", ()))
        return State(**known), answer["ETag"]

    def update_state(
        self, replica: str, decide: Callable[[State], State], read: tuple[State, str | None] | None = None
    ) -> tuple[State, State]:
        """Rewrite a replica's state with what ``decide`` makes of it, and return the old and the new one.

        If another invocation has rewritten it meanwhile, ``decide`` is asked again: of two that decide the same, one
        sees the other's decision.

        Args:
            replica: its name.
            decide: returns the new state.
            read: what ``read_state`` returned a moment ago, which need not be read again.

        Raises:
            StateChangedError: others were faster every time.
        """
        for number in range(_STATE_TRIES):
            old, tag = read or self.read_state(replica)
            read = None
            new = decide(old)
            if new == old:
                return old, new
            try:
                self.write_state(replica, new, tag)
            except StateChangedError:
                time.sleep(random.uniform(0, min(2, 0.05 * 2**number)))  # noqa: S311
                continue
            return old, new
        raise StateChangedError(f"the state of {replica} was rewritten {_STATE_TRIES} times in a row")

    def write_state(self, replica: str, state: State, previous: str | None) -> None:
        """Rewrite a replica's state.

        Raises:
            StateChangedError: another invocation has rewritten it since it was read.
        """
        condition: Any = {"IfMatch": previous} if previous else {"IfNoneMatch": "*"}
        try:
            self._s3.put_object(
                Bucket=self.bucket,
                Key=f"{_STATE_PREFIX}{replica}.json",
                Body=json.dumps(asdict(state), indent=1).encode(),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _PRECONDITION:
                raise StateChangedError(replica) from None
            raise


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
