"""A snapshot's manifest: which refs it has, which bundle holds their objects, and which manifest came before it.

Both lie in the vault below ``snapshots/<replica>/``, under one name of the UTC time and of digits that nobody can
guess, and so does the manifest's signature: the manifest's name with ``.sig``. A chain is a full bundle and the
incremental ones that build on it. Every manifest has a sequence number and names the one before it, with its SHA-256,
across chains too, so that none can be exchanged or left out unnoticed.

A manifest has the refs that changed since the one before it, and the hash of all. A full one's refs are in a list
beside it, and so are those of an incremental one from time to time: see ``list_is_due``.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from datetime import UTC, datetime

PREFIX = "snapshots/"
SIGNATURE_SUFFIX = ".sig"
TIME = "%Y%m%dT%H%M%SZ"
_FORMAT = 1
MAX_BYTES = 8 * 1024 * 1024
"""Of a manifest that is read: see ``list_is_due`` for what changed, and ``MAX_DELETED_BYTES`` for what went."""
MAX_DELETED_BYTES = 1024 * 1024
"""Of the names that one manifest says are deleted; a snapshot that deletes more has several."""
_OF_AN_ID = 50
"""Bytes of an id in JSON, and of what stands around it and the name."""
_MAX_LINKS = 64
_MIN_CHANGED_BYTES, _MAX_CHANGED_BYTES = 64 * 1024, 4 * 1024 * 1024
"""What changed since the last list may take so much whatever the list takes, and never more."""


@dataclass(frozen=True)
class Manifest:
    """One snapshot."""

    account: str
    region: str
    bucket: str
    """The vault that it was written for, even where a copy of it is read."""
    replica: str
    sequence: int
    """The number of the snapshot among all of its replica, from 1."""
    signed_by: str
    """The fingerprint of the key that signs it; empty if none did, and then it counts for nothing."""
    time: str
    """When the refs were read, as ``20261126T021500Z``."""
    ref_count: int
    refs_sha256: str
    """Of all refs, as the lines of a ``RefList``."""
    changed: Mapping[str, str]
    """The refs that the manifest before it lacks, or has with another id; none if there is a list."""
    deleted: tuple[str, ...]
    """Those that only the manifest before it has."""
    list_key: str | None
    """The key of the list of all refs, if it has one of its own: gzipped lines ``<id> <name>``, sorted by name."""
    list_version: str | None
    list_bytes: int
    """Of the last list, packed: its own, or that of the last manifest that had one."""
    links: int
    """How many manifests follow the last one that has a list, this one included; 0 for one that has it."""
    changed_bytes: int
    """What those say is changed and deleted, in JSON."""
    head: str | None
    """The replica's default branch as a full ref name, if it has one."""
    complete: bool
    """Whether these are all of the replica's refs: the last of several bundles of a large replica completes it."""
    bundle: str
    """The bundle's key."""
    bundle_version: str
    """The version of that object, as S3 named it; a copy of the vault may have others."""
    size: int
    """Bytes of the bundle."""
    sha256: str
    """Of the bundle, in hexadecimal."""
    prerequisites: tuple[str, ...]
    """Commits that the bundle builds on; none for a full one."""
    previous: str | None
    """The key of the manifest before it; None for the first one."""
    previous_sha256: str | None
    chain_started: str
    """The time of the full snapshot that its chain begins with."""
    chain_length: int
    """How many snapshots its chain has, up to this one."""
    lock_mode: str
    locked_until: str
    """Until when bundle and manifest were locked at first, as ``time``; the lock may have been extended since."""

    @property
    def full(self) -> bool:
        """Whether the bundle needs no other."""
        return not self.prerequisites

    @property
    def key(self) -> str:
        """The manifest's own key."""
        return f"{PREFIX}{self.replica}/{self.bundle.rpartition('/')[2].removesuffix('.bundle')}.json"

    @property
    def signature(self) -> str:
        """The key of its signature."""
        return self.key + SIGNATURE_SUFFIX


def bundle_key(replica: str, time: str) -> str:
    """Return a new key for a bundle, unlike that of any other invocation."""
    return f"{PREFIX}{replica}/{time}-{secrets.token_hex(4)}.bundle"


def list_key(bundle: str) -> str:
    """Return the key of the list beside a bundle."""
    return f"{bundle.removesuffix('.bundle')}.refs.gz"


def format_time(time: datetime) -> str:
    """Return a time as keys and manifests have it."""
    return time.astimezone(UTC).strftime(TIME)


def parse_time(text: str) -> datetime:
    """Return the time that ``format_time`` formatted; raise ValueError for other text."""
    return datetime.strptime(text, TIME).replace(tzinfo=UTC)


def weight(names: Iterable[str]) -> int:
    """Return how many bytes refs take in a manifest at most, with their ids."""
    return sum(len(json.dumps(name)) + _OF_AN_ID for name in names)


def list_is_due(before: Manifest | None, changed_bytes: int) -> bool:
    """Decide whether a manifest comes with a list of all refs: where following the changes would cost more.

    Args:
        before: the manifest before it; None for a full one, which builds on none.
        changed_bytes: what all manifests since the last list say is changed, this one included.
    """
    if before is None or before.links + 1 >= _MAX_LINKS:
        return True
    return changed_bytes > min(max(before.list_bytes, _MIN_CHANGED_BYTES), _MAX_CHANGED_BYTES)


def dump(manifest: Manifest) -> bytes:
    """Return the manifest as JSON; ref names that are not UTF-8 keep their surrogate escapes."""
    fields = {"format": _FORMAT, "key": manifest.key, **asdict(manifest)}
    return (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode()


def parse(data: bytes) -> Manifest:
    """Return the manifest that ``dump`` wrote.

    Raises:
        ValueError: it is damaged, or of a later format.
    """
    try:
        fields = json.loads(data)
        if fields.pop("format") != _FORMAT:
            raise ValueError("it has a format that this version does not know")
        key = fields.pop("key")
        fields |= {name: tuple(fields[name]) for name in ("prerequisites", "deleted")}
        manifest = Manifest(**{field.name: fields[field.name] for field in fields_of(Manifest)})
        parse_time(manifest.time)
        parse_time(manifest.chain_started)
        parse_time(manifest.locked_until)
        if manifest.key != key:
            raise ValueError(f"it says that it is {key}")
        if not isinstance(manifest.signed_by, str):
            raise TypeError("signed_by is no text")
        return manifest
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is damaged ({error})") from None


def digest(data: bytes) -> str:
    """Return the SHA-256 of a manifest's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def chain_of(manifest: Manifest, known: Mapping[str, Manifest]) -> list[Manifest]:
    """Return the manifests that a restore of this one needs, the full one first.

    Args:
        manifest: the snapshot to restore.
        known: the replica's manifests, by key.

    Raises:
        ValueError: one of them is missing.
    """
    chain = [manifest]
    while not chain[-1].full:
        key = chain[-1].previous
        if key is None or key not in known or len(chain) > len(known):
            raise ValueError(f"the snapshot that {chain[-1].key} builds on is missing")
        chain.append(known[key])
    return chain[::-1]


def as_of(manifests: Sequence[Manifest], time: datetime) -> Manifest | None:
    """Return the last complete snapshot taken at or before a time, by its number; None if there is none."""
    latest = format_time(time)
    return max((m for m in manifests if m.complete and m.time <= latest), key=lambda m: m.sequence, default=None)
