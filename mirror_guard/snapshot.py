"""Take a snapshot of a replica: one ref listing, and a pack of what the last snapshot lacks, as a locked git bundle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mirror_engine.failures import RetryableError
from mirror_engine.refs import CONFIRMED_TAG, Advertisement
from mirror_engine.settings import Endpoint
from mirror_engine.wire.packs import EMPTY_PACK, fetch_pack, object_count
from mirror_engine.wire.transport import Traffic

from .bundle import header
from .git_access import read_patiently
from .manifest import Manifest, bundle_key, chain_of, digest, dump, format_time, manifest_key, parse_time
from .replicas import Access
from .store import Mode, State, Store

_MAX_PREREQUISITES = 2000
_MAX_HALVINGS = 8


@dataclass(frozen=True)
class Retention:
    """How often a chain starts anew, and how long snapshots are kept and locked."""

    keep: timedelta
    full_every: timedelta
    mode: Mode


@dataclass(frozen=True)
class BundlePlan:
    """One bundle to write."""

    refs: Mapping[str, str]
    """Every ref that the replica's snapshots have once this part is written."""
    wants: tuple[str, ...]
    prerequisites: tuple[str, ...]
    complete: bool


@dataclass(frozen=True)
class SnapshotResult:
    """What was done."""

    kind: str
    """``full``, ``incremental``, ``unchanged`` or ``empty``."""
    refs: int
    bytes: int = 0


def without_confirmation(refs: Mapping[str, str]) -> dict[str, str]:
    """Return the refs without the confirming tag, which every run rewrites."""
    return {name: value for name, value in refs.items() if name != CONFIRMED_TAG}


def starts_chain(last: Manifest | None, now: datetime, full_every: timedelta) -> bool:
    """Decide whether the next snapshot starts a new chain, with a full bundle.

    One also starts where the last snapshot has no branch that a bundle could build on: see ``prerequisites``.

    Args:
        last: the last snapshot, complete or not; a chain does not end with one that is not.
        now: the time.
        full_every: how old a chain becomes.
    """
    return last is None or (last.complete and now - parse_time(last.chain_started) >= full_every)


def plan(
    refs: Mapping[str, str], head: str | None, last: Manifest | None, *, anew: bool, halvings: int
) -> list[BundlePlan]:
    """Split a snapshot into bundles: usually one.

    Args:
        refs: the replica's refs.
        head: its default branch.
        last: the last snapshot, complete or not.
        anew: whether a new chain starts (``starts_chain``).
        halvings: how often attempts were interrupted; each time the refs are kept in twice as many bundles, so that a
            replica that is too large for one invocation is kept by several.
    """
    base = {} if anew or last is None else dict(last.refs)
    order = sorted(refs, key=lambda name: (name != head, not name.startswith("refs/heads/"), name))
    missing = [name for name in order if base.get(name) != refs[name]]
    size = max(1, -(-len(missing) // 2 ** min(halvings, _MAX_HALVINGS)))
    groups = [missing[start : start + size] for start in range(0, len(missing), size)] or [[]]
    parts: list[BundlePlan] = []
    kept = {name: value for name, value in base.items() if refs.get(name) == value}
    available = base
    for number, group in enumerate(groups, 1):
        kept |= {name: refs[name] for name in group}
        bases = prerequisites(available, group)
        known = set(available.values()) if bases else set()
        wants = [value for name, value in kept.items() if value not in known]
        parts.append(BundlePlan(dict(kept), tuple(dict.fromkeys(wants)), bases, number == len(groups)))
        available = {**available, **kept}
    return parts


def prerequisites(available: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    """Return commits that a bundle can build on: tips of branches, first those of the branches that it brings.

    Only a branch's tip is certain to be a commit, as a prerequisite must be.
    """
    branches = {name: value for name, value in available.items() if name.startswith("refs/heads/")}
    first = [branches[name] for name in names if name in branches]
    return tuple(dict.fromkeys([*first, *branches.values()]))[:_MAX_PREREQUISITES]


def is_unchanged(refs: Mapping[str, str], last: Manifest | None) -> bool:
    """Whether the last snapshot has all of these refs, and no others."""
    return last is not None and last.complete and without_confirmation(last.refs) == without_confirmation(refs)


class Snapshots:
    """Takes one replica's snapshots.

    Args:
        store: the bucket.
        retention: for how long.
        clock: returns the time.
    """

    def __init__(self, store: Store, retention: Retention, clock: Callable[[], datetime]) -> None:
        self._store, self._retention, self._clock = store, retention, clock

    def _now(self) -> datetime:
        # Locks and keys are precise to the second.
        return self._clock().replace(microsecond=0)

    def take(self, replica: str, access: Access) -> SnapshotResult:
        """Take a snapshot if the replica has changed, and keep its chain locked.

        Raises:
            RetryableError, MirrorFailure, SourceRefused: the replica could not be read; nothing is half-done, since
                the manifest is written last.
        """
        now = self._now()
        refs = (advertised := read_patiently(access.endpoint)).refs
        versions = self._store.versions(replica)
        last = self._store.latest_manifest(versions)
        if not refs and last is None:
            return SnapshotResult("empty", 0)
        if is_unchanged(refs, last[0] if last else None):
            self._finish(replica, last[0] if last else None, now)
            return SnapshotResult("unchanged", len(refs))
        before, tag = self._store.read_state(replica)
        anew = starts_chain(last[0] if last else None, now, self._retention.full_every)
        if anew or (last and not last[0].complete):
            # The replica may prepare such a pack for longer than an invocation has, before the first part is full.
            self._note_interruptible(replica, before)
        written: list[Manifest] = []
        for part in plan(refs, access.head, last[0] if last else None, anew=anew, halvings=before.interrupted):
            last = self._write(replica, access, advertised, part, last, before)
            written.append(last[0])
        self._finish(replica, written[-1], now, (before, tag))
        is_full = written[0].full
        if is_full:
            self._mark_expired(versions, written[-1], now)
        size = sum(manifest.size for manifest in written)
        return SnapshotResult("full" if is_full else "incremental", len(refs), size)

    def _finish(
        self, replica: str, last: Manifest | None, now: datetime, read: tuple[State, str | None] | None = None
    ) -> None:
        """Keep the last snapshot's chain locked, and note that the replica is equal to it."""

        def note(state: State) -> State:
            state = replace(state, snapshot_at=format_time(now), interrupted=0)
            if last is None:
                return state
            until = last.locked_until if last.full else ""
            if state.locked_chain == last.chain_started:
                until = state.locked_until
            until = self._keep_locked(until, replica, last, now)
            return replace(state, locked_chain=last.chain_started, locked_until=until)

        self._store.update_state(replica, note, read)

    def _write(
        self,
        replica: str,
        access: Access,
        advertisement: Advertisement,
        part: BundlePlan,
        last: tuple[Manifest, str] | None,
        state: State,
    ) -> tuple[Manifest, str]:
        """Write one bundle and its manifest; return the manifest and its SHA-256."""
        now = self._now()
        time = format_time(now)
        if last and time <= last[0].time:
            time = format_time(parse_time(last[0].time) + timedelta(seconds=1))
        continued = bool(part.prerequisites) and last is not None
        started = last[0].chain_started if continued and last else time
        until = max(parse_time(started) + self._retention.full_every, now) + self._retention.keep
        if state.locked_until and state.locked_chain == started:
            # All of a chain is locked for as long as any of it, although the retention may be shorter by now.
            until = max(until, parse_time(state.locked_until))
        key = bundle_key(replica, time)
        parts = itertools.chain(
            [header(part.prerequisites, part.refs, access.head)],
            _pack(access.endpoint(), advertisement.capabilities, part),
        )
        size, sha256 = self._store.put_bundle(
            key, parts, self._retention.mode, until, lambda: self._note_interruptible(replica, state)
        )
        manifest = Manifest(
            replica=replica,
            time=time,
            refs=part.refs,
            head=access.head,
            complete=part.complete,
            bundle=key,
            size=size,
            sha256=sha256,
            prerequisites=part.prerequisites if continued else (),
            previous=last[0].key if last else None,
            previous_sha256=last[1] if last else None,
            chain_started=started,
            locked_until=format_time(until),
        )
        if not self._store.put_manifest(manifest, self._retention.mode, until):
            raise RetryableError("another snapshot was taken in the same second")
        return manifest, digest(dump(manifest))

    def _note_interruptible(self, replica: str, before: State) -> None:
        """Count the attempt, once, until ``_finish`` notes that it ended."""
        self._store.update_state(replica, lambda state: replace(state, interrupted=before.interrupted + 1))

    def _keep_locked(self, locked_until: str, replica: str, last: Manifest, now: datetime) -> str:
        """Extend the locks of a snapshot's chain, if one may end before the snapshot may; return when they end."""
        needed = now + self._retention.keep
        if locked_until and parse_time(locked_until) >= needed:
            return locked_until
        until = needed + self._retention.full_every
        versions = self._store.versions(replica)
        known = {}
        manifest: Manifest | None = last
        while manifest and manifest.key not in known:
            known[manifest.key] = manifest
            previous = None if manifest.full else manifest.previous
            manifest = self._store.manifest(previous, versions[previous])[0] if previous in versions else None
        for snapshot in chain_of(last, known):
            for key in (snapshot.bundle, snapshot.key):
                self._store.extend_lock(key, versions[key], self._retention.mode, until)
        return format_time(until)

    def _mark_expired(self, versions: dict[str, str], last: Manifest, now: datetime) -> None:
        """Release what earlier chains hold once none of its locks lasts."""
        for key in sorted(versions):
            if key < manifest_key(last.replica, last.chain_started).removesuffix(".json"):
                lock = self._store.locked_until(key, versions[key])
                if lock is None or lock[1] <= now:
                    self._store.mark_expired(key, versions[key])


def _pack(endpoint: Endpoint, advertised: Sequence[str], part: BundlePlan) -> Iterator[bytes]:
    """Yield the pack that brings a part's objects."""
    if not part.wants:
        yield EMPTY_PACK
        return
    pack = fetch_pack(endpoint, advertised, part.wants, part.prerequisites, Traffic(), thin=True)
    start = bytearray()
    for piece in pack:
        start += piece
        if len(start) >= 12:
            break
    object_count(start)
    yield bytes(start)
    yield from pack
