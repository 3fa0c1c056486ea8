"""A replica's snapshots in the vault: read, chosen by time, and verified byte by byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import boto3
from botocore import exceptions

from ..aws.session import aws_failures, client
from ..config.guard import STACK_NAME, VAULT_STACK_NAME
from ..errors import MirrorError, NotFoundError
from ..guard_api import (
    PREFIX,
    KeyUnusableError,
    Listing,
    Manifest,
    PublicKey,
    RefList,
    Signed,
    SignedSnapshots,
    Signer,
    Store,
    Version,
    as_of,
    chain_of,
    format_time,
    parse_time,
    refs_of,
)

_FIRST_YEAR = 2000
_READ_TRIES = 5
_READERS = 8
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Snapshots:
    """All snapshots of one replica that a trusted key has signed.

    Attributes:
        store: the vault.
        signed: by key, in the order of their numbers.
        listing: all objects, whoever put them there.
        unsigned: the keys of manifests that no trusted key has signed; they count for nothing.
    """

    store: Store
    signed: Mapping[str, Signed]
    listing: Listing
    unsigned: tuple[str, ...]

    @cached_property
    def manifests(self) -> Mapping[str, Manifest]:
        """The snapshots, by key, in the order of their numbers."""
        return {key: signed.manifest for key, signed in self.signed.items()}

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
            left_out = f" that its key has signed ({len(self.unsigned):,} without)" if self.unsigned else ""
            raise MirrorError(
                f"there is no snapshot of this replica in the bucket {self.store.bucket}{left_out} yet; the guard "
                "takes one when it next looks at it."
            )
        snapshot = as_of(self.complete, time or _tomorrow())
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

    def refs(self, manifest: Manifest) -> RefList:
        """Return a snapshot's refs.

        Raises:
            MirrorError: what they are cannot be told.
        """
        with aws_failures(f"read the snapshots in the bucket {self.store.bucket}"):
            try:
                return refs_of(reversed(self.chain(manifest)), self.store, self.listing)
            except ValueError as error:
                raise MirrorError(f"{error}; restore another snapshot with --at.") from None

    def read_bundle(self, manifest: Manifest) -> Iterator[bytes]:
        """Yield a bundle's bytes; a connection that breaks is made again where it broke.

        Raises:
            MirrorError: it is not there, or cannot be read.
        """
        key, version = manifest.bundle, self._bundle(manifest)
        if version is None:
            raise MirrorError(
                f"{key} is missing from the bucket {self.store.bucket}; restore another snapshot with --at."
            )
        done = 0
        for number in range(_READ_TRIES):
            try:
                with aws_failures(f"read {key}"):
                    stream = self.store.open(version, done)
                while data := stream.read(_CHUNK):
                    done += len(data)
                    yield data
            except (exceptions.BotoCoreError, OSError) as error:
                if number == _READ_TRIES - 1:
                    raise MirrorError(f"cannot read {key}: the connection to S3 broke ({error}); run again.") from None
                continue
            return

    def _bundle(self, manifest: Manifest) -> Version | None:
        return self.listing.find(manifest.bundle, manifest.bundle_version)

    def _own(self, manifest: Manifest) -> list[Version | None]:
        """Return a snapshot's own objects; None for one that is gone."""
        beside = [self._bundle(manifest)]
        if manifest.list_key:
            beside.append(self.listing.find(manifest.list_key, manifest.list_version or ""))
        return list(dict.fromkeys([*self.signed[manifest.key].objects, *beside]))

    def is_gone(self, manifest: Manifest) -> bool:
        """Whether a snapshot's bundle is not there."""
        return self._bundle(manifest) is None

    def is_cold(self, manifest: Manifest) -> bool:
        """Whether a snapshot's own objects were moved where nothing reads them at once."""
        return any(version is not None and version.is_cold for version in self._own(manifest))

    def locked_until(self, manifest: Manifest) -> datetime | None:
        """Return until when a snapshot's own objects are locked; None if one of them is not, or is gone."""
        with aws_failures("read the locks of the snapshots"):
            locks = [self.store.lock_of(version) if version else None for version in self._own(manifest)]
        times = [lock[1] for lock in locks if lock]
        return min(times) if len(times) == len(locks) else None


def find_bucket(aws: boto3.Session) -> str:
    """Return the vault's bucket, as its stack names it.

    Raises:
        NotFoundError: there is no vault in this account and region.
        MirrorError: the call failed.
    """
    return stack_output(aws, VAULT_STACK_NAME, "Bucket", ", or name the bucket of an earlier one with --bucket")


def stack_output(aws: boto3.Session, stack_name: str, key: str, otherwise: str = "") -> str:
    """Return an output of the guard's or the vault's stack.

    Args:
        aws: a session that may read the stack.
        stack_name: its name.
        key: the output's.
        otherwise: what else a person could do if there is no such stack.

    Raises:
        NotFoundError: there is no such stack in this account and region.
        MirrorError: the call failed.
    """
    with aws_failures(f"read the stack {stack_name}"):
        try:
            stack = client(aws, "cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise NotFoundError(
                f"there is no stack {stack_name} in region {aws.region_name} of this account; deploy it with 'cdk "
                f"deploy {STACK_NAME}'{otherwise}."
            ) from None
    for output in stack.get("Outputs", []):
        if output.get("OutputKey") == key:
            return output["OutputValue"]
    raise MirrorError(f"the stack {stack_name} has no {key} yet; run 'cdk deploy {STACK_NAME}'.")


def signing_key(aws: boto3.Session) -> PublicKey:
    """Return the public half of the key that signs snapshots in this account and region.

    Raises:
        NotFoundError: there is no vault.
        MirrorError: KMS does not show the key.
    """
    arn = stack_output(aws, VAULT_STACK_NAME, "SigningKeyArn", ", or pin the key's fingerprint under guard.keys")
    with aws_failures(f"read the public key of {arn}"):
        try:
            return Signer(client(aws, "kms"), arn).public_key()
        except KeyUnusableError as error:
            raise MirrorError(
                f"KMS does not show the public key of {arn} ({error}), so that no signature can be checked; write its "
                "fingerprint under guard.keys in mirrors.yaml, or enable the key again."
            ) from None


def _trusted_keys(aws: boto3.Session, store: Store, pinned: Sequence[str]) -> dict[str, PublicKey]:
    """Return the keys whose signatures count: those that are pinned, or else the vault's, as AWS shows it.

    Raises:
        MirrorError: a pinned key is not in the bucket, or KMS does not show the vault's.
    """
    keys = {}
    for fingerprint in pinned:
        with aws_failures(f"read the public keys in the bucket {store.bucket}"):
            key = store.public_key(fingerprint)
        if key is None:
            raise MirrorError(
                f"the bucket {store.bucket} has no public key with the fingerprint {fingerprint}; correct guard.keys."
            )
        keys[fingerprint] = key
    if not keys:
        key = signing_key(aws)
        keys[key.fingerprint] = key
    return keys


def read_snapshots(
    aws: boto3.Session, replica: str, bucket: str | None = None, pinned: Sequence[str] = ()
) -> Snapshots:
    """Read the manifests of a replica's snapshots, and check their signatures.

    Args:
        aws: a session that may read the bucket.
        replica: the replica's name.
        bucket: the bucket; that of the vault's stack by default.
        pinned: fingerprints of the keys whose signatures count; that of the vault's stack by default.

    Raises:
        MirrorError: there is no bucket, it cannot be read, no signature can be checked, or it has snapshots of several
            vaults: the last one of one could be older than those of another.
    """
    store, listing = _list(aws, replica, bucket)
    keys = _manifest_keys(listing)
    if not keys:
        return Snapshots(store, {}, listing, ())
    snapshots = SignedSnapshots(store, listing, _trusted_keys(aws, store, pinned), None if bucket else store.bucket)
    with aws_failures(f"read the snapshots in the bucket {store.bucket}"), ThreadPoolExecutor(_READERS) as pool:
        found = dict(zip(keys, pool.map(snapshots.find, keys), strict=True))
    signed = {key: one for key, one in found.items() if one}
    if len(vaults := sorted({one.manifest.bucket for one in signed.values()})) > 1:
        raise MirrorError(
            f"the bucket {store.bucket} has snapshots of several vaults ({', '.join(vaults)}): copy those of each "
            "into a bucket of its own."
        )
    ordered = dict(sorted(signed.items(), key=lambda item: item[1].manifest.sequence))
    return Snapshots(store, ordered, listing, tuple(key for key in keys if key not in signed))


def read_chain(aws: boto3.Session, replica: str, at: datetime | None = None, pinned: Sequence[str] = ()) -> Snapshots:
    """Read the manifests of the last snapshot, or of the last one by a time, and of its chain, several at a time.

    The others stay unread. ``unsigned`` are newer ones that are passed over: they have no valid signature, or S3 does
    not give them out. If there is no such chain, all are read, to say why.

    Args:
        aws: a session that may read the vault.
        replica: the replica's name.
        at: the time.
        pinned: fingerprints of the keys whose signatures count; that of the vault's stack by default.

    Raises:
        MirrorError: as ``read_snapshots``.
    """
    store, listing = _list(aws, replica, None)
    latest = f"{PREFIX}{replica}/{format_time(at or _tomorrow())}~"
    # Their names begin with the time, which grows with their numbers.
    keys = sorted((key for key in _manifest_keys(listing) if key < latest), reverse=True)
    chain: list[Signed] = []
    passed_over: list[str] = []
    snapshots = SignedSnapshots(store, listing, _trusted_keys(aws, store, pinned) if keys else {}, store.bucket)
    with aws_failures(f"read the snapshots in the bucket {store.bucket}"), ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(keys), _READERS):
            some = keys[start : start + _READERS]
            for key, signed in zip(some, pool.map(snapshots.find, some), strict=True):
                if signed is None:
                    passed_over += [] if chain else [key]
                elif (not chain and signed.manifest.complete) or (
                    chain and signed.manifest.key == chain[-1].manifest.previous
                ):
                    chain.append(signed)
                if chain and chain[-1].manifest.full:
                    found = {one.manifest.key: one for one in reversed(chain)}
                    return Snapshots(store, found, listing, tuple(passed_over))
    return read_snapshots(aws, replica, None, pinned)


def _list(aws: boto3.Session, replica: str, bucket: str | None) -> tuple[Store, Listing]:
    """Return a bucket, by default the vault's, and what it has of a replica.

    Raises:
        MirrorError: there is no bucket, or it cannot be read.
    """
    store = Store(client(aws, "s3"), bucket or find_bucket(aws))
    with aws_failures(f"read the snapshots in the bucket {store.bucket}"):
        try:
            return store, store.listing(replica)
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchBucket":
                raise
            raise MirrorError(f"the bucket {store.bucket!r} does not exist; correct --bucket.") from None


def _manifest_keys(listing: Listing) -> list[str]:
    return [key for key in listing.by_key if key.endswith(".json")]


def _tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def problems(snapshots: Snapshots, now: datetime, chain: Sequence[Manifest] | None = None) -> Iterator[tuple[str, str]]:
    """Yield the key and the sentence of what is wrong with signed manifests, their order and locks, without bundles.

    Args:
        snapshots: a replica's.
        now: the time.
        chain: whose locks are read. Default: the last one's, which keeps what the replica is now.
    """
    before: Signed | None = None
    for key, signed in snapshots.signed.items():
        manifest = signed.manifest
        if before and (manifest.sequence, manifest.previous) != (before.manifest.sequence + 1, before.manifest.key):
            yield key, f"the snapshot before it, number {manifest.sequence - 1}, is missing"
        elif before and manifest.previous_sha256 != before.sha256:
            yield before.manifest.key, "it is not the manifest that the next one names: its SHA-256 differs"
        elif not before and not manifest.full:
            yield key, f"the manifest before it, {manifest.previous}, is missing"
        before = signed
    needed = {one.key: one for one in (_last_chain(snapshots) if chain is None else chain)}
    for key, manifest in snapshots.manifests.items():
        if key not in needed and snapshots.is_gone(manifest) and parse_time(manifest.locked_until) > now:
            yield key, "its bundle is missing"
    for manifest in needed.values():
        yield from ((manifest.key, sentence) for sentence in _object_problems(snapshots, manifest, now))


def _object_problems(snapshots: Snapshots, manifest: Manifest, now: datetime) -> Iterator[str]:
    """Yield what is wrong with what lies beside a manifest, and with the locks."""
    if manifest.list_key:
        try:
            snapshots.refs(manifest)
        except MirrorError as error:
            yield str(error).rstrip(".")
    until = snapshots.locked_until(manifest)
    if snapshots.is_cold(manifest):
        yield "it is in an archive: a restore reads it once somebody has restored it from there"
    if until is None:
        yield "it is not locked, or its bundle or its list of refs is missing"
    elif until <= now:
        yield f"its lock ended at {readable(until)}"


def _last_chain(snapshots: Snapshots) -> Sequence[Manifest]:
    """Return the snapshots of the last chain; none if one of them is missing, which is told in its place."""
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
    if moment > _tomorrow():
        raise MirrorError(f"--at {text!r} is in the future; name an earlier time, or leave --at out for the latest.")
    return moment


def readable(time: datetime | str) -> str:
    """Return a time for people, in UTC."""
    moment = parse_time(time) if isinstance(time, str) else time.astimezone(UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
