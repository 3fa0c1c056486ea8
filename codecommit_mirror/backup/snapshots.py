"""A replica's snapshots in the guard's bucket: read, chosen by time, and verified byte by byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import boto3
from botocore import exceptions

from ..aws.session import aws_failures, client
from ..config.guard import STACK_NAME
from ..errors import MirrorError, NotFoundError
from ..guard import Manifest, Store, as_of, chain_of, parse_time

_FIRST_YEAR = 2000
_READ_TRIES = 5
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Snapshots:
    """All snapshots of one replica.

    Attributes:
        store: the bucket.
        manifests: by key, the oldest first; what cannot be read is in ``damaged``.
        sha256: each manifest's own SHA-256, by key.
        versions: the first version of each object, by key.
        damaged: why a manifest cannot be read, by key.
    """

    store: Store
    manifests: Mapping[str, Manifest]
    sha256: Mapping[str, str]
    versions: Mapping[str, str]
    damaged: Mapping[str, str]

    @property
    def complete(self) -> list[Manifest]:
        """The snapshots that have all refs, the oldest first."""
        return [manifest for manifest in self.manifests.values() if manifest.complete]

    def at(self, time: datetime | None) -> Manifest:
        """Return the last snapshot, or the last one that was taken by ``time``.

        Raises:
            MirrorError: there is none.
        """
        if not self.complete:
            raise MirrorError(
                f"there is no snapshot of this replica in the bucket {self.store.bucket} yet; the guard takes one "
                "when it next looks at it."
            )
        snapshot = as_of(self.complete, time or datetime.now(UTC) + timedelta(days=1))
        if snapshot is None:
            first = f"; the first one is from {readable(self.complete[0].time)}" if self.complete else ""
            raise MirrorError(f"there is no snapshot of that time or before{first}; give a later --at.")
        return snapshot

    def chain(self, manifest: Manifest) -> list[Manifest]:
        """Return the snapshots that a restore of this one needs, the full one first.

        Raises:
            MirrorError: one is missing or damaged.
        """
        try:
            return chain_of(manifest, self.manifests)
        except ValueError as error:
            raise MirrorError(f"{error}; restore an earlier snapshot with --at.") from None

    def read(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes; a connection that breaks is made again where it broke.

        Raises:
            MirrorError: it is not there, or cannot be read.
        """
        if key not in self.versions:
            raise MirrorError(
                f"{key} is missing from the bucket {self.store.bucket}; restore another snapshot with --at."
            )
        done = 0
        for number in range(_READ_TRIES):
            try:
                with aws_failures(f"read {key}"):
                    stream = self.store.open(key, self.versions[key], done)
                while data := stream.read(_CHUNK):
                    done += len(data)
                    yield data
            except (exceptions.BotoCoreError, OSError) as error:
                if number == _READ_TRIES - 1:
                    raise MirrorError(f"cannot read {key}: the connection to S3 broke ({error}); run again.") from None
                continue
            return

    def locked_until(self, manifest: Manifest) -> datetime | None:
        """Return until when a snapshot's own objects are locked; None if one of them is not."""
        locks = []
        with aws_failures("read the locks of the snapshots"):
            for key in (manifest.key, manifest.bundle):
                if key not in self.versions:
                    return None
                locks.append(self.store.locked_until(key, self.versions[key]))
        times = [lock[1] for lock in locks if lock]
        return min(times) if len(times) == len(locks) else None


def find_bucket(aws: boto3.Session) -> str:
    """Return the guard's bucket, as its stack names it.

    Raises:
        NotFoundError: there is no guard in this account and region.
        MirrorError: the call failed.
    """
    return guard_output(aws, "SnapshotBucket")


def guard_output(aws: boto3.Session, key: str) -> str:
    """Return an output of the guard's stack.

    Raises:
        NotFoundError: there is no guard in this account and region.
        MirrorError: the call failed.
    """
    with aws_failures(f"read the stack {STACK_NAME}"):
        try:
            stack = client(aws, "cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"][0]
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise NotFoundError(
                f"there is no stack {STACK_NAME} in region {aws.region_name} of this account; deploy it with 'cdk "
                f"deploy {STACK_NAME}', or name the bucket of an earlier one with --bucket."
            ) from None
    for output in stack.get("Outputs", []):
        if output.get("OutputKey") == key:
            return output["OutputValue"]
    raise MirrorError(f"the stack {STACK_NAME} has no {key} yet; run 'cdk deploy {STACK_NAME}'.")


def read_snapshots(aws: boto3.Session, replica: str, bucket: str | None = None) -> Snapshots:
    """Read the manifests of a replica's snapshots.

    Args:
        aws: a session that may read the bucket.
        replica: the replica's name.
        bucket: the bucket; that of the guard's stack by default.

    Raises:
        MirrorError: there is no bucket, or it cannot be read.
    """
    store = Store(client(aws, "s3"), bucket or find_bucket(aws))
    manifests: dict[str, Manifest] = {}
    sha256: dict[str, str] = {}
    damaged: dict[str, str] = {}
    with aws_failures(f"read the snapshots in the bucket {store.bucket}"):
        try:
            versions = store.versions(replica)
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchBucket":
                raise
            raise MirrorError(f"the bucket {store.bucket!r} does not exist; correct --bucket.") from None
        for key in sorted(key for key in versions if key.endswith(".json")):
            try:
                manifests[key], sha256[key] = store.manifest(key, versions[key])
            except ValueError as error:
                damaged[key] = str(error)
    return Snapshots(store, manifests, sha256, versions, damaged)


def problems(snapshots: Snapshots, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the key and the sentence of what is wrong with manifests, hash chain and locks, without reading bundles."""
    yield from ((key, f"the manifest cannot be read: {why}") for key, why in snapshots.damaged.items())
    previous: str | None = None
    for key, manifest in snapshots.manifests.items():
        if manifest.key != key:
            yield key, f"it says that it is {manifest.key}"
        if manifest.previous and manifest.previous in snapshots.sha256:
            if snapshots.sha256[manifest.previous] != manifest.previous_sha256:
                yield manifest.previous, "it is not the manifest that the next one names: its SHA-256 differs"
        elif manifest.previous and (previous or not manifest.full):
            yield key, f"the manifest before it, {manifest.previous}, is missing"
        previous = key
    for manifest in _needed(snapshots):
        until = snapshots.locked_until(manifest)
        if until is None:
            yield manifest.key, "it is not locked, or its bundle is missing"
        elif until <= now:
            yield manifest.key, f"its lock ended at {readable(until)}"


def _needed(snapshots: Snapshots) -> Sequence[Manifest]:
    """Return the snapshots of the last chain: those that keep what the replica is now."""
    if not snapshots.complete:
        return ()
    try:
        return chain_of(snapshots.complete[-1], snapshots.manifests)
    except ValueError:
        return ()


def parse_at(text: str) -> datetime:
    """Return the time of ``--at``: an ISO 8601 date, which means its end in UTC, or date and time.

    Raises:
        MirrorError: it is neither.
    """
    try:
        time = datetime.fromisoformat(text)
        if "T" not in text and " " not in text:
            time += timedelta(days=1, seconds=-1)
        moment = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.year < _FIRST_YEAR:
        raise MirrorError(
            f"--at {text!r} is not a time; write a date like 2026-11-20 (its end, in UTC) or 2026-11-20T08:30Z."
        )
    if moment > datetime.now(UTC) + timedelta(days=1):
        raise MirrorError(f"--at {text!r} is in the future; name an earlier time, or leave --at out for the latest.")
    return moment


def readable(time: datetime | str) -> str:
    """Return a time for people, in UTC."""
    moment = parse_time(time) if isinstance(time, str) else time.astimezone(UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
