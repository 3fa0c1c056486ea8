"""What the vault has of a replica before a snapshot, and whether the next one can build on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..engine.refs import ARCHIVE_PREFIX
from .vault.ref_list import RefList
from .vault.signed import Signed, SignedSnapshots, is_sound
from .vault.state import State
from .vault.store import Listing, Lock, Store, Version
from .vault.vault import Vault


@dataclass(frozen=True)
class Kept:
    """What there is of a replica in the vault."""

    listing: Listing
    state: State
    tag: str | None
    """The state's, for ``States.update``."""
    last: Signed | None
    refs: RefList
    """The last snapshot's, as far as they can be told."""
    locks: Mapping[Version, Lock | None]
    """Of all that the last snapshot's chain consists of; nothing if something of that is gone."""
    kept: Mapping[Version, Lock | None]
    """Of that and, while it is a part of one that is not complete yet, of the last complete one's chain."""
    lost: tuple[str, ...]
    """What the last snapshot needs and cannot be relied on."""
    told: tuple[str, ...]
    """The same of the last complete snapshot, which people are told of."""
    archive: RefList
    """The archive entries of the last complete snapshot."""
    foreign: tuple[Version, ...]
    commits: tuple[str, ...]
    """What ``known_commits`` has found in the chain."""


def read_kept(vault: Vault, replica: str) -> Kept:
    """Read what there is of a replica in the vault."""
    store = vault.store
    # Before the objects: a snapshot that is written in between is not one that is gone.
    state, tag = vault.states.read(replica)
    listing = store.listing(replica)
    signed = SignedSnapshots(store, listing, vault.keys(), store.bucket)
    last = signed.last(state.last_manifest, state.vault_seen)
    chain = signed.chain(last) if last else []
    refs, chain = _refs_of(signed, chain)
    locks = _locks_of(store, chain)
    archive, kept, lost = refs.below(ARCHIVE_PREFIX), locks, _lost(state, last, locks)
    told = lost
    if last and not last.manifest.complete and state.last_manifest:
        # Which a later one has begun to replace: what is lost of it is told when that is complete.
        complete = signed.find(state.last_manifest)
        earlier, whole = _refs_of(signed, signed.chain(complete) if complete else [])
        archive, locks_of_whole = earlier.below(ARCHIVE_PREFIX), _locks_of(store, whole)
        kept, told = {**locks_of_whole, **locks}, _lost(state, complete, locks_of_whole)
    foreign = signed.foreign(state.vault_seen, chain or ([last] if last else []))
    commits = state.commits if any(one.manifest.key == state.commits_at for one in chain) else ()
    return Kept(listing, state, tag, last, refs, locks, kept, lost, told, archive, tuple(foreign), commits)


def _locks_of(store: Store, chain: Sequence[Signed]) -> Mapping[Version, Lock | None]:
    """Return the locks of all that a chain consists of; nothing if something of that is gone."""
    return store.locks(version for one in chain for version in one.objects) if is_sound(chain) else {}


def _refs_of(signed: SignedSnapshots, chain: list[Signed]) -> tuple[RefList, list[Signed]]:
    """Return the refs of a chain's last snapshot, with the chain; nothing of both if they cannot be told."""
    try:
        return (signed.refs(chain), chain) if chain else (RefList(), [])
    except ValueError:
        return RefList(), []


def _lost(state: State, last: Signed | None, locks: Mapping[Version, Lock | None]) -> tuple[str, ...]:
    """Return what the last snapshot needs and cannot be relied on: it is gone, not locked, or in an archive.

    Args:
        state: the replica's.
        last: the last snapshot that is there.
        locks: all that its chain consists of; nothing if something of that is gone.
    """
    if state.last_manifest and (last is None or last.manifest.key < state.last_manifest):
        return (state.last_manifest,)
    if last and not locks:
        return (last.manifest.key,)
    return tuple(version.key for version, lock in locks.items() if lock is None or not version.is_where_it_was_put)
