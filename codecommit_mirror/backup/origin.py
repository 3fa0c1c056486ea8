"""Where a restore takes a repository from: the replica, its archive, or a chain of snapshots."""

from __future__ import annotations

import contextvars
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

import boto3

from .. import engine_api
from ..aws.repository import find_clone_url
from ..aws.session import aws_failures, client
from ..errors import MirrorError
from ..guard_api import Manifest, RefList, digest, format_time, parse_time, read_confirmation, read_entries, read_header
from ..operations.verification import replica_endpoint
from .pushing import GROWING
from .repository import BareRepository, hashed
from .snapshots import Snapshots, readable

_PACKS_AT_A_TIME = 2


@dataclass(frozen=True)
class Origin:
    """A repository as it was at one time."""

    description: str
    """What it is, for people."""
    time: datetime | None
    """When the refs were so; None for now."""
    refs: Mapping[str, str]
    """The mirrored refs, by the source's names."""
    head: str | None
    chain: tuple[Manifest, ...] = ()
    """The snapshots to read; empty if the replica is read."""
    capabilities: tuple[str, ...] = ()
    bytes: int = 0
    """How many bytes the snapshots have; 0 if that is not known."""
    is_confirmed: bool | None = None
    """Whether all of it is what a run of the mirror has confirmed; None if that is not known."""
    unread: tuple[str, ...] = ()
    """Archive entries that could not be read, so that what they keep is missing."""
    snapshots: Snapshots | None = field(default=None, repr=False)
    endpoint: engine_api.Endpoint | None = field(default=None, repr=False)

    @property
    def left_out(self) -> list[str]:
        """What could not be read, or does not count, in sentences for people."""
        sentences = []
        if self.snapshots and (passed_over := self.snapshots.unsigned):
            sentences.append(
                f"{engine_api.count(passed_over, 'manifest')} without a valid signature, or that S3 does not give out, "
                f"passed over; the first is {engine_api.sanitize(min(passed_over))}"
            )
        if self.unread:
            sentences.append(
                f"{engine_api.count(self.unread, 'archive entry', 'archive entries')} could not be read, and what they "
                f"keep is missing; the first is {engine_api.sanitize(self.unread[0])}"
            )
        return sentences

    def fetch(self, repository: BareRepository, refs: Mapping[str, str]) -> None:
        """Put every object that the refs need into a repository.

        Raises:
            MirrorError: something cannot be read, or is not what it was.
        """
        if self.snapshots:
            self._add_bundles(self.snapshots, repository)
        elif self.endpoint and refs:
            with engine_api.failures_as_mirror_errors():
                pack = engine_api.whole_pack(self.endpoint, self.capabilities, sorted(set(refs.values())))
                repository.add_pack(pack, "the pack from the replica")
        repository.check_connected(refs)

    def _add_bundles(self, snapshots: Snapshots, repository: BareRepository) -> None:
        """Add the chain's packs, a large one beside the small ones after it: none is thin, so none needs another."""
        with ThreadPoolExecutor(_PACKS_AT_A_TIME) as pool:
            added = [
                pool.submit(contextvars.copy_context().run, _add_bundle, snapshots, repository, manifest)
                for manifest in self.chain
            ]
            try:
                for one in added:
                    one.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _add_bundle(snapshots: Snapshots, repository: BareRepository, manifest: Manifest) -> None:
    read = hashed(snapshots.read_bundle(manifest), manifest.size, manifest.sha256, manifest.bundle)
    reader = io.BufferedReader(_Reader(read), 1 << 20)
    try:
        read_header(reader)
    except ValueError as error:
        raise MirrorError(f"{manifest.bundle}: {error}; restore another snapshot with --at.") from None
    parts = iter(lambda: reader.read(1 << 18), b"")
    repository.add_pack(parts, manifest.bundle)


class _Reader(io.RawIOBase):
    """Parts as a raw stream."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts: Iterator[bytes] = iter(parts)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        if not self._left:
            self._left = next(self._parts, b"")
        size = min(len(view), len(self._left))
        view[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def from_snapshots(snapshots: Snapshots, at: datetime | None) -> Origin:
    """Return what a snapshot has.

    Raises:
        MirrorError: there is no snapshot of that time, or its chain is broken.
    """
    manifest = snapshots.at(at)
    chain = snapshots.chain(manifest)
    return Origin(
        description=f"the snapshot of {readable(manifest.time)}",
        time=parse_time(manifest.time),
        refs=_restorable(snapshots.refs(manifest)),
        head=manifest.head,
        chain=tuple(chain),
        bytes=sum(snapshot.size for snapshot in chain),
        snapshots=snapshots,
    )


def from_replica(aws: boto3.Session, name: str, at: datetime | None) -> Origin:
    """Return what the replica has or, from its archive, what it had at a given time.

    Raises:
        MirrorError: there is no replica, or it cannot be read.
    """
    url = find_clone_url(aws, name)
    if url is None:
        raise MirrorError(
            f"there is no CodeCommit repository {name!r} in region {aws.region_name}; restore it with --from snapshots."
        )
    endpoint = replica_endpoint(aws, url)
    with engine_api.failures_as_mirror_errors():
        advertised = engine_api.read_refs_patiently(endpoint, "git-upload-pack")
    head = default_branch(aws, name)
    description = f"the replica {name}"
    refs = _restorable(advertised.refs)
    unread: tuple[str, ...] = ()
    if at:
        with engine_api.failures_as_mirror_errors():
            dropped, unread = dropped_since(
                advertised.refs, at, lambda ids: read_entries(endpoint, advertised.capabilities, ids)
            )
        refs = {**refs, **_restorable(dropped)}
        description = f"the replica {name}, with the tips from its archive that runs dropped since {readable(at)}"
    return Origin(
        description,
        at,
        refs,
        head,
        capabilities=advertised.capabilities,
        # The digest of a confirmation leaves the archive out.
        is_confirmed=_is_confirmed(endpoint, advertised) and (None if at else True),
        unread=unread,
        endpoint=endpoint,
    )


def _is_confirmed(endpoint: engine_api.Endpoint, advertised: engine_api.Advertisement) -> bool:
    """Whether a run has confirmed what a replica has now."""
    tag = advertised.refs.get(engine_api.CONFIRMED_TAG)
    try:
        confirmation = read_confirmation(endpoint, advertised.capabilities, tag) if tag else None
    except engine_api.RetryableError:
        return False
    return confirmation is not None and confirmation.sha256 == digest(RefList.of(advertised.refs))


def _restorable(replica: Mapping[str, str]) -> dict[str, str]:
    """Return the mirrored refs by the source's names, without what a restore left, and what shows other contents.

    Anyone who may push to the replica gives the engine's own refs any name, and one without a kind is no ref.
    """
    refs = engine_api.by_original_name(engine_api.ReplicaRefs(dict(replica)), ("refs/",))
    left_out = ("refs/replace/", *GROWING)
    return {n: value for n, value in refs.items() if n.count("/") > 1 and not n.startswith(left_out)}


def dropped_since(
    replica: Mapping[str, str], at: datetime, read: Callable[[Sequence[str]], Mapping[str, Mapping[str, str]]]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the tip of each ref that was deleted or overwritten after a time: the first one that was dropped since.

    The second value has the entries that keep nothing, because they could not be read or because no run wrote them.

    Args:
        replica: all refs on the replica.
        at: the time.
        read: returns what entries keep, by their ids.
    """
    limit = format_time(at)
    entries = [entry for entry in engine_api.archive_entries(dict(replica)) if entry[1] >= limit]
    common = read([replica[name] for name, _, place in entries if "/" not in place])
    tips: dict[str, str] = {}
    for name, _, place in entries:
        kept = {f"refs/{place}": replica[name]} if "/" in place else common[replica[name]]
        for ref, value in kept.items():
            tips.setdefault(ref, value)
    return tips, tuple(name for name, _, place in entries if "/" not in place and not common[replica[name]])


def default_branch(aws: boto3.Session, name: str) -> str | None:
    """Return the replica's default branch as a full ref name, if it has one."""
    with aws_failures(f"read the repository {name}"):
        branch = (
            client(aws, "codecommit").get_repository(repositoryName=name)["repositoryMetadata"].get("defaultBranch")
        )
    return f"refs/heads/{branch}" if branch else None
