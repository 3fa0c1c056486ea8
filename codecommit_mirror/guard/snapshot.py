"""Take a snapshot of a replica: one ref listing, and a pack of what the last snapshot lacks, as a locked git bundle."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any

from ..engine.failures import MirrorFailure, PackRefused, RetryableError, SourceRefused
from ..engine.refs import ARCHIVE_PREFIX, CONFIRMED_TAG
from ..engine.settings import Endpoint
from ..engine.wire.packs import EMPTY_PACK, fetch_pack, object_count
from ..engine.wire.transport import Traffic
from .kept import Kept, read_kept
from .replica.git_access import Advertised
from .replica.known_commits import known_after
from .replica.replicas import Access
from .replica.slices import Ask, Attempt, bundles, can_be_sliced, commits_at, tells_nothing
from .vault.bundle import header
from .vault.bundle_plan import SLICES, BundlePlan, plan, starts_chain
from .vault.manifest import (
    MAX_BYTES,
    PREFIX,
    Manifest,
    bundle_key,
    digest,
    dump,
    format_time,
    list_is_due,
    list_key,
    parse_time,
    weight,
)
from .vault.ref_list import RefList
from .vault.signer import KeyUnusableError
from .vault.state import Goal, State
from .vault.store import Listing, Lock, Mode, StorageClass, Version
from .vault.vault import Vault

_SHORTEST_IN_GLACIER = timedelta(days=90)
"""For which S3 bills an object of the class GLACIER_IR at least."""
_SECOND = timedelta(seconds=1)
_QUICK = 1 / 8
"""A slice that takes a smaller part of an attempt's time doubles the next one."""
_LONGEST_INVOCATION = timedelta(minutes=15)
"""Lambda's limit: a snapshot that was begun longer ago has ended, one way or the other."""
_SCHEDULE_SLACK = timedelta(minutes=15)
"""By how much the time between two scheduled invocations may be shorter than ``every``: one lasts no longer."""


@dataclass(frozen=True)
class Retention:
    """How often snapshots are taken and a chain starts anew, and how long they are kept and locked."""

    every: timedelta
    keep: timedelta
    full_every: timedelta
    mode: Mode

    @property
    def longest(self) -> timedelta:
        """For how long an object is locked at most; the vault's policy allows no more."""
        return self.keep + self.full_every

    @property
    def storage(self) -> StorageClass:
        """The storage class of bundles: GLACIER_IR, which is read at once, if they stay for as long as it is billed."""
        return "GLACIER_IR" if self.keep >= _SHORTEST_IN_GLACIER else "STANDARD"


@dataclass(frozen=True)
class SnapshotResult:
    """What was done."""

    kind: str
    """``full``, ``incremental``, ``unchanged``, ``empty``, ``waiting``, or ``busy``: see ``Snapshots.take``."""
    refs: int
    bytes: int = 0
    lost: tuple[str, ...] = ()
    """Objects of the last snapshot's chain that are gone, or not locked."""
    foreign: tuple[Version, ...] = ()
    """New versions that no signature of the guard's is about."""
    dropped: tuple[str, ...] = ()
    """The last snapshot's archive entries that the replica lacks, or has with another id."""


def dropped(refs: RefList, before: RefList) -> tuple[str, ...]:
    """Return the archive entries of an earlier list that this one lacks, or has with another id."""
    return tuple(name for name, value in before.below(ARCHIVE_PREFIX).items() if refs.get(name) != value)


def is_unchanged(refs: RefList, last: Manifest | None, base: RefList) -> bool:
    """Whether the last snapshot is complete, and has all of these refs and no others.

    The confirming tag, which every run rewrites, is left out of account.

    Args:
        refs: the replica's.
        last: the last snapshot.
        base: its refs.
    """
    if last is None or not last.complete:
        return False
    changed, deleted = refs.since(base)
    return {*itertools.islice(changed, 2), *itertools.islice(deleted, 2)} <= {CONFIRMED_TAG}


@dataclass
class _Progress:
    """What an attempt has come to."""

    commits: list[str]
    """What ``known_commits`` has found in the chain."""
    at: str
    """The key of the last manifest of the chain in which they are."""


def _peeled(ask: Ask, value: str) -> Sequence[str]:
    """Return the commit that an object is or leads to; nothing if it leads to none, or the replica does not say."""
    try:
        return ask(value, 1)
    except (RetryableError, SourceRefused, PackRefused, MirrorFailure):
        return ()


class Snapshots:
    """Takes one replica's snapshots.

    Args:
        vault: where to.
        retention: for how long.
        clock: returns the time.
        seconds: how long an attempt may take.
    """

    def __init__(self, vault: Vault, retention: Retention, clock: Callable[[], datetime], seconds: float) -> None:
        self._vault, self._retention, self._clock, self._seconds = vault, retention, clock, seconds
        self._store, self._states = vault.store, vault.states
        self._began = time.monotonic()

    def _now(self) -> datetime:
        # Locks and keys are precise to the second.
        return self._clock().replace(microsecond=0)

    def take(self, replica: str, access: Access, advertised: Advertised) -> SnapshotResult:
        """Take a snapshot if the replica has changed, and keep its chain locked.

        Snapshots build on what the guard's key has signed, and on nothing else. If something that the last one needs
        is gone or not locked, a new chain starts, at most once in ``Retention.every``; until then the result is
        ``waiting``. If another invocation takes one, or has just taken one, it is ``busy``. While the key does not
        sign, snapshots are written all the same, unsigned: none builds on them, and the first one after that has
        everything since the last one that was signed.

        Args:
            replica: its name.
            access: where its pack comes from.
            advertised: its refs.

        Raises:
            RetryableError, MirrorFailure, SourceRefused: the replica could not be read; nothing is half-done, since
                the manifest is written last.
        """
        # What anybody puts where the slices' refs are is none of the mirror's, and would pass for one of them.
        refs = advertised.refs.updated(RefList(), advertised.refs.below(SLICES))
        now, advertised = self._now(), replace(advertised, refs=refs)
        found = read_kept(self._vault, replica)
        state, last, lost, read = found.state, found.last, found.lost, (found.state, found.tag)
        names = dropped(refs, found.archive)
        result = SnapshotResult("empty", len(refs), lost=found.told, foreign=found.foreign, dropped=names)
        if not refs and last is None and not lost:
            # There is nothing to save, and nobody needs to hear that nothing was.
            self._states.update(replica, lambda state: replace(state, snapshot_at=format_time(now)), read)
            return result
        if lost and state.mended_at and now - parse_time(state.mended_at) < self._retention.every - _SCHEDULE_SLACK:
            return replace(result, kind="waiting")
        if last and not lost and is_unchanged(refs, last.manifest, found.refs):
            self._keep_locked(found.locks, now)
            self._finish(replica, last.manifest, found.listing, now, read)
            return replace(result, kind="unchanged")
        if not self._claim(replica, now, read):
            return SnapshotResult("busy", len(refs))
        try:
            return self._save(replica, access, advertised, found, result, now)
        finally:
            self._states.update(replica, lambda state: replace(state, taking=""))

    def _claim(self, replica: str, now: datetime, read: tuple[State, str | None]) -> bool:
        """Note that this invocation takes the snapshot; return False if another one does or did: both would be next."""
        stamp, seen = format_time(now), read[0]

        def claim(state: State) -> State:
            is_taken = state.taking and now - parse_time(state.taking) < _LONGEST_INVOCATION
            is_done = (state.last_manifest, state.snapshot_at) != (seen.last_manifest, seen.snapshot_at)
            return state if is_taken or is_done else replace(state, taking=stamp)

        before, after = self._states.update(replica, claim, read)
        return before != after

    def _save(
        self,
        replica: str,
        access: Access,
        advertised: Advertised,
        found: Kept,
        result: SnapshotResult,
        now: datetime,
    ) -> SnapshotResult:
        """Write the snapshot that is due, in one part or several."""
        state, last = found.state, found.last
        base = last.manifest if last else None
        anew = bool(found.lost) or starts_chain(base, now, self._retention.full_every)
        if anew or (base and not base.complete):
            # The replica may prepare such a pack for longer than an invocation has, before the first part is full.
            self._note_interruptible(replica, state, mended_at=format_time(now) if found.lost else "")
        # Also of a chain that ends here: the snapshots that are kept include its last one. Before the first part, for
        # an attempt may be interrupted, again and again.
        self._keep_locked(found.kept, now + _LONGEST_INVOCATION)
        before = (last.manifest, last.sha256) if last else None
        is_full, size, kept = False, 0, RefList() if anew else found.refs
        progress = _Progress([] if anew else list(found.commits), state.commits_at)
        ask = self._ask(access, advertised)
        # Each part has all refs, so that no more than one is kept.
        for part in self._parts(replica, access, advertised, kept, state, ask, progress):
            commits, kept = known_after(progress.commits, part, kept, lambda value: _peeled(ask, value)), part.refs
            before = self._write(replica, access, advertised.capabilities, part, before, state)
            is_full, size = is_full or before[0].full, size + before[0].size
            if before[0].signed_by:
                progress.commits[:], progress.at = commits, before[0].key
        if before is None:
            raise AssertionError("a snapshot has a part")
        written = before[0]
        self._finish(replica, written, found.listing, now, commits=tuple(progress.commits))
        if written.signed_by and state.last_manifest < f"{PREFIX}{replica}/{written.chain_started}":
            self._mark_expired(found.listing, written, now)
        return replace(result, kind="full" if is_full else "incremental", bytes=size)

    def _ask(self, access: Access, advertised: Advertised) -> Ask:
        """Return what tells the commits at a distance from a tip."""
        words = advertised.capabilities
        if not can_be_sliced(words):
            return tells_nothing
        return cache(lambda tip, distance: commits_at(access.endpoint(), words, tip, distance))

    def _parts(
        self,
        replica: str,
        access: Access,
        advertised: Advertised,
        kept: RefList,
        state: State,
        ask: Ask,
        progress: _Progress,
    ) -> Iterator[BundlePlan]:
        """Yield the bundles to write: usually one, and after an interruption slices of the history before it."""
        refs, head = advertised.refs, access.head
        if not state.interrupted:
            return plan(refs, head, kept, known=progress.commits)
        goals: Sequence[Goal] = state.goals
        if ask is tells_nothing:
            # Such a server gives out only what a ref points at.
            goals = [goal for goal in goals if refs.get(goal.ref) == goal.commit]
        note = partial(self._note_goals, replica, progress)
        return bundles(refs, head, kept, ask, Attempt(goals, self._seconds * _QUICK, note, progress.commits))

    def _note_goals(self, replica: str, progress: _Progress, goals: Sequence[Goal]) -> None:
        """Note what the next attempt goes on with, should this one be interrupted."""
        commits, at = tuple(progress.commits), progress.at
        self._states.update(replica, lambda state: replace(state, goals=tuple(goals), commits=commits, commits_at=at))

    def _finish(
        self,
        replica: str,
        last: Manifest,
        listing: Listing,
        now: datetime,
        read: tuple[State, str | None] | None = None,
        commits: tuple[str, ...] | None = None,
    ) -> None:
        """Note that the replica is equal to its last snapshot, and which commits that has brought."""

        def note(state: State) -> State:
            state = replace(state, snapshot_at=format_time(now), interrupted=0, goals=())
            if not last.signed_by:
                return state
            seen = max((version.written for version in listing.versions), default="")
            until = format_time(now + self._retention.keep)
            if commits is not None:
                state = replace(state, commits=commits, commits_at=last.key)
            return replace(state, last_manifest=last.key, locked_until=until, vault_seen=seen)

        self._states.update(replica, note, read)

    def _write(
        self,
        replica: str,
        access: Access,
        capabilities: Sequence[str],
        part: BundlePlan,
        last: tuple[Manifest, str] | None,
        state: State,
    ) -> tuple[Manifest, str]:
        """Write one bundle, its list of refs if one is due, and its manifest; return that and its SHA-256."""
        stamp = format_time(now := self._now())
        if last and stamp <= last[0].time:
            stamp = format_time(parse_time(last[0].time) + _SECOND)
        before = last[0] if last and part.prerequisites else None
        started = before.chain_started if before else stamp
        latest = now + self._retention.longest
        until = min(latest, max(parse_time(started) + self._retention.full_every, now) + self._retention.keep)
        key, lock = bundle_key(replica, stamp), (self._retention.mode, until)
        head = part.refs.get(access.head) if access.head else None
        bundle = header(part.prerequisites, part.changed, head)
        count = partial(self._note_interruptible, replica, state)
        parts = itertools.chain(bundle, self._in_time(_pack(access.endpoint(), capabilities, part), count))
        size, sha256, version = self._store.put_bundle(key, parts, lock, self._retention.storage, count)
        manifest = Manifest(
            account=self._vault.account,
            region=self._vault.region,
            bucket=self._store.bucket,
            replica=replica,
            sequence=last[0].sequence + 1 if last else 1,
            signed_by=self._fingerprint(),
            time=stamp,
            **self._refs_fields(part, key, before, lock),
            head=access.head,
            complete=part.complete,
            bundle=key,
            bundle_version=version,
            size=size,
            sha256=sha256,
            prerequisites=tuple(part.prerequisites),
            previous=last[0].key if last else None,
            previous_sha256=last[1] if last else None,
            chain_started=started,
            chain_length=before.chain_length + 1 if before else 1,
            lock_mode=self._retention.mode,
            locked_until=format_time(until),
        )
        return self._put(manifest, until)

    def _refs_fields(self, part: BundlePlan, bundle: str, before: Manifest | None, lock: Lock) -> dict[str, Any]:
        """Return what a manifest says of refs, after the list of all was written if one is due."""
        fields = {"ref_count": len(part.refs), "refs_sha256": part.refs.sha256, "deleted": tuple(part.deleted)}
        changed_bytes = before.changed_bytes + weight(itertools.chain(part.changed, part.deleted)) if before else 0
        if before and not list_is_due(before, changed_bytes):
            return {
                **fields,
                "changed": dict(part.changed),
                "list_key": None,
                "list_version": None,
                "list_bytes": before.list_bytes,
                "links": before.links + 1,
                "changed_bytes": changed_bytes,
            }
        key = list_key(bundle)
        size, version = self._store.put_list(key, part.refs, lock)
        return {
            **fields,
            "changed": {},
            "list_key": key,
            "list_version": version,
            "list_bytes": size,
            "links": 0,
            "changed_bytes": 0,
        }

    def _in_time(self, pack: Iterator[bytes], count: Callable[[], object]) -> Iterator[bytes]:
        """Pass a pack on while there is time: what ends by itself leaves nothing behind, and is tried again at once."""
        for piece in pack:
            if time.monotonic() - self._began > self._seconds:
                count()
                raise RetryableError("the time that an invocation has is up")
            yield piece

    def _put(self, manifest: Manifest, until: datetime) -> tuple[Manifest, str]:
        """Write a manifest with its signature; return it as it was written, and its SHA-256."""
        manifest, data, signature = self._sign(manifest)
        if len(data) > MAX_BYTES:
            raise RetryableError("the manifest would be larger than is read of one")
        if not self._store.put_manifest(manifest, data, signature, self._retention.mode, until):
            raise RetryableError("another snapshot was taken in the same second")
        return manifest, digest(data)

    def _sign(self, manifest: Manifest) -> tuple[Manifest, bytes, bytes | None]:
        """Return a manifest as it is written, its bytes, and their signature if the key makes one."""
        data = dump(manifest)
        if manifest.signed_by:
            with suppress(KeyUnusableError):
                return manifest, data, self._vault.signer.sign(data)
        manifest = replace(manifest, signed_by="")
        return manifest, dump(manifest), None

    def _fingerprint(self) -> str:
        """Return the fingerprint of the key that signs, and keep its public half beside the snapshots."""
        try:
            public = self._vault.signer.public_key()
        except KeyUnusableError:
            return ""
        now = self._now()
        longest = self._retention.longest
        self._store.keep_public_key(public, self._retention.mode, now + self._retention.keep, now + longest)
        return public.fingerprint

    def _note_interruptible(self, replica: str, before: State, mended_at: str = "") -> None:
        """Count the attempt, once, until ``_finish`` notes that it ended."""
        self._states.update(
            replica,
            lambda state: replace(state, interrupted=before.interrupted + 1, mended_at=mended_at or state.mended_at),
        )

    def _keep_locked(self, locks: Mapping[Version, Lock | None], now: datetime) -> None:
        """Extend the locks that may end before the last snapshot may, if that is replaced at a time."""
        needed = now + self._retention.keep
        self._store.extend(locks, self._retention.mode, needed, self._now() + self._retention.longest)

    def _mark_expired(self, listing: Listing, last: Manifest, now: datetime) -> None:
        """Release what earlier chains hold once none of its locks lasts."""
        begin = f"{PREFIX}{last.replica}/{last.chain_started}"
        for version in listing.versions:
            if version.key < begin and not version.deletes:
                lock = self._store.lock_of(version)
                if lock is None or lock[1] <= now:
                    self._store.mark_expired(version)


def _pack(endpoint: Endpoint, advertised: Sequence[str], part: BundlePlan) -> Iterator[bytes]:
    """Yield the pack that brings a part's objects: never a thin one, since git before 2.50 refuses some of those."""
    if not part.wants:
        yield EMPTY_PACK
        return
    pack = fetch_pack(endpoint, advertised, part.wants, part.prerequisites, Traffic())
    start = bytearray()
    for piece in pack:
        start += piece
        if len(start) >= 12:
            break
    object_count(start)
    yield bytes(start)
    yield from pack
