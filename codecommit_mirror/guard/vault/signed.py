"""Which objects of a replica the guard wrote: the manifests that its key signed, and the bundles that these name.

Whoever else may put objects into the vault can add manifests, versions and delete markers. None of them is believed,
hides anything, or costs more than a look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .manifest import MAX_BYTES, SIGNATURE_SUFFIX, Manifest, digest, parse
from .public_key import PublicKey
from .ref_list import MAX_LIST_BYTES, RefList
from .store import Listing, Store, Version

_MAX_VERSIONS = 10
"""How many versions of a manifest and of its signature are looked at; the guard writes one."""
_MAX_SIGNATURE_BYTES = 1024
_MAX_CANDIDATES = 1000
"""How many new manifests are looked at in one go, the newest first."""


@dataclass(frozen=True)
class Signed:
    """A manifest that a trusted key has signed."""

    manifest: Manifest
    sha256: str
    """Of the manifest's bytes, in hexadecimal."""
    objects: tuple[Version, ...]
    """Itself, its signature and, if those very versions are there, its bundle and its list of refs."""

    @property
    def is_whole(self) -> bool:
        """Whether bundle and list are there as they were written."""
        return len(self.objects) == (4 if self.manifest.list_key else 3)

    @property
    def without_changes(self) -> Signed:
        """The same without what the manifest says of refs, which takes most of the memory."""
        return replace(self, manifest=replace(self.manifest, changed={}, deleted=()))


class SignedSnapshots:
    """The signed snapshots of one replica, read when they are asked for.

    Args:
        store: the vault.
        listing: the replica's objects.
        keys: the keys whose signatures count, by fingerprint.
        vault: the bucket that the snapshots were written for; None if any will do, as in a copy.
    """

    def __init__(self, store: Store, listing: Listing, keys: Mapping[str, PublicKey], vault: str | None = None) -> None:
        self._store, self._listing, self._keys, self._vault = store, listing, keys, vault
        self._read: dict[str, Signed | None] = {}

    def get(self, key: str) -> Signed | None:
        """Return the first validly signed version of a manifest, without what changed; None if there is none."""
        if key not in self._read:
            found = self.find(key)
            self._read[key] = found.without_changes if found else None
        return self._read[key]

    def find(self, key: str) -> Signed | None:
        """Return the first validly signed version of a manifest; None if there is none. It is not kept: see ``get``."""
        versions = self._listing.by_key
        signatures = [
            (version, data)
            for version in versions.get(key + SIGNATURE_SUFFIX, ())[:_MAX_VERSIONS]
            if version.size <= _MAX_SIGNATURE_BYTES and (data := self._store.try_to_read(version))
        ]
        if not signatures:
            return None
        for version in versions.get(key, ())[:_MAX_VERSIONS]:
            if version.size <= MAX_BYTES and (data := self._store.try_to_read(version)):
                for signature, value in signatures:
                    manifest = self._verified(key, data, value)
                    if manifest:
                        return Signed(manifest, digest(data), (version, signature, *self._beside(manifest)))
        return None

    def _verified(self, key: str, data: bytes, signature: bytes) -> Manifest | None:
        try:
            manifest = parse(data)
        except ValueError:
            return None
        signer = self._keys.get(manifest.signed_by)
        if manifest.key != key or self._vault not in (None, manifest.bucket):
            return None
        return manifest if signer and signer.verifies(data, signature) else None

    def _beside(self, manifest: Manifest) -> list[Version]:
        wanted = [(manifest.bundle, manifest.bundle_version), (manifest.list_key, manifest.list_version)]
        there = (version for key, _ in wanted for version in self._listing.by_key.get(key or "", ()))
        return [version for version in there if (version.key, version.id) in wanted]

    def last(self, noted: str, seen: str) -> Signed | None:
        """Return the last signed snapshot, by its number.

        Args:
            noted: the key of the last one, as the state has it.
            seen: the date of the newest object at that time; only newer ones are looked at.
        """
        last: Signed | None = None
        for key in dict.fromkeys([*self._newest(seen), *([noted] if noted else [])]):
            found = self.find(key)
            self._read[key] = found.without_changes if found else None
            if found and (last is None or found.manifest.sequence > last.manifest.sequence):
                last = found
        return last

    def _newest(self, seen: str) -> list[str]:
        keys = {v.key for v in self._listing.versions if v.written >= seen and v.key.endswith(".json")}
        return sorted(keys, reverse=True)[:_MAX_CANDIDATES]

    def chain(self, last: Signed) -> list[Signed]:
        """Return the snapshots that a restore of this one needs, the newest first, as far as they are there as signed.

        What one that is older than a list says of refs is left out: nothing needs it.
        """
        chain, has_list = [last], False
        while not chain[-1].manifest.full:
            before = chain[-1].manifest
            has_list = has_list or before.list_key is not None
            signed = self.find(before.previous or "")
            if not signed or signed.sha256 != before.previous_sha256 or len(chain) > len(self._listing.versions):
                break
            chain.append(signed.without_changes if has_list else signed)
        return chain

    def refs(self, chain: Sequence[Signed]) -> RefList:
        """Return the refs of the first of some snapshots.

        Args:
            chain: as ``chain`` returned it.

        Raises:
            ValueError: what they are cannot be told, for something of that is missing or not as it was signed.
        """
        return refs_of([signed.manifest for signed in chain], self._store, self._listing)

    def foreign(self, seen: str, chain: Iterable[Signed]) -> list[Version]:
        """Return the versions since a date that belong to no signed snapshot, and what hides those of the chain.

        Args:
            seen: the date.
            chain: the snapshots that are needed. A life-cycle rule hides what is not.
        """
        new = [version for version in self._listing.versions if version.written >= seen]
        judged = self._newest(seen)
        own = {(v.key, v.id) for key in judged if (signed := self.get(key)) for v in signed.objects}
        needed = {version.key for signed in chain for version in signed.objects}
        own |= {(version.key, version.id) for signed in chain for version in signed.objects}
        return [v for v in new if (v.key in needed if v.deletes else (v.key, v.id) not in own)]


def is_sound(chain: Sequence[Signed]) -> bool:
    """Whether a restore finds all that it needs, as ``SignedSnapshots.chain`` returned it."""
    return bool(chain) and chain[-1].manifest.full and all(signed.is_whole for signed in chain)


def refs_of(chain: Iterable[Manifest], store: Store, listing: Listing) -> RefList:
    """Return the refs of the first of some snapshots: a list, and what has changed since.

    Args:
        chain: that snapshot and those before it, the newest first.
        store: the vault.
        listing: the replica's objects.

    Raises:
        ValueError: what they are cannot be told, for something of that is missing or not as it was signed.
    """
    newest: Manifest | None = None
    changed: dict[str, str] = {}
    deleted: set[str] = set()
    for manifest in chain:
        newest = newest or manifest
        if manifest.list_key:
            version = listing.find(manifest.list_key, manifest.list_version or "")
            data = store.try_to_read(version) if version and version.size <= MAX_LIST_BYTES else None
            if data is None:
                raise ValueError(f"{manifest.list_key} is missing, or cannot be read")
            gone = sorted(deleted, key=lambda name: name.encode("utf-8", "surrogateescape"))
            refs = RefList.inflate(data).updated(RefList.of(changed), gone)
            if refs.sha256 != newest.refs_sha256:
                raise ValueError(f"the refs of {newest.key} are not those that it says: their SHA-256 differs")
            return refs
        deleted |= {name for name in manifest.deleted if name not in changed}
        changed = {**{name: value for name, value in manifest.changed.items() if name not in deleted}, **changed}
    raise ValueError("the list of refs that a snapshot builds on is missing")
