"""What the guard remembers between two invocations: signed, so that nobody else can silence it with a note.

The signature is in the object's metadata, so that both change at once. An object that is not signed counts for nothing,
and the last one that is counts in its place; while the signing key is out of order, the guard has nothing else to go by
than the newest.
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from .public_key import PublicKey
from .signer import KeyUnusableError, Signer
from .store import PRECONDITION, is_refusal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

GUARD = "guard/itself"
"""What the guard remembers of itself has this name, which no repository can have."""
_PREFIX = "state/"
_KIND = "the guard's state"
"""So that no other text that the key signs passes for a state."""
_SIGNATURE = "signature"
_TRIES = 10
_MAX_EARLIER = 50


class Goal(NamedTuple):
    """A commit that is on its way into the snapshots, in slices of its history."""

    ref: str
    """The ref that is kept on it once it is there."""
    commit: str
    exponent: int
    """How much the next slice takes: 2 ** ``exponent`` distances, or that part of the commits of one."""


@dataclass(frozen=True)
class State:
    """What the guard remembers of a replica between two invocations."""

    confirmed_id: str = ""
    """The object id of the confirming tag that was seen last."""
    confirmed_sha256: str = ""
    """The SHA-256 of the refs that the replica had after that run, as the tag says."""
    confirmed_at: str = ""
    """When that run was, as ``manifest.TIME``; empty if no run has confirmed the replica."""
    first_seen: str = ""
    """When the guard looked at the replica for the first time."""
    stale_since: str = ""
    """When people were notified that the replica is stale; empty if it is not."""
    changed_since: str = ""
    """When people were notified of a change that no run made; empty if there is none."""
    changed_by: tuple[str, ...] = ()
    """Who people were told of since then."""
    writer: str = ""
    """Who writes to the replica and how long its archive is kept, as its tags said at the last look."""
    repository: str = ""
    """The id of its repository in CodeCommit."""
    head: str = ""
    """Its default branch, as a full ref name."""
    archive: tuple[str, ...] = ()
    """Its newest archive entries."""
    unreadable: int = 0
    """How many looks in a row could not read it."""
    unattributed_since: str = ""
    """When the last change was made whose author CodeCommit did not name; empty if there is none."""
    unattributed_first: str = ""
    """When the first of them was made that no run has confirmed."""
    unattributed: str = ""
    """What that change was."""
    snapshot_at: str = ""
    """When the replica was last found equal to its last snapshot, as ``manifest.TIME``."""
    last_manifest: str = ""
    """The key of the last manifest that was signed."""
    locked_until: str = ""
    """Until when that snapshot is locked at least: for messages only, since locks are read from S3."""
    taking: str = ""
    """When a snapshot was begun that has not ended; empty if none is under way."""
    mended_at: str = ""
    """When a chain was last started anew because something that it needs was gone or not locked."""
    vault_seen: str = ""
    """The newest of the replica's objects that was looked at, as S3 dates it."""
    foreign: str = ""
    """The SHA-256 of the versions that people were notified of because no signature of the guard's is about them."""
    interrupted: int = 0
    """How many attempts at the next snapshot did not end; attempts that ended quickly are not counted."""
    goals: tuple[Goal, ...] = ()
    """What those have begun with and not reached; each is needed for the one before it."""
    commits: tuple[str, ...] = ()
    """What ``replica.known_commits`` has found in its snapshots, the newest last."""
    commits_at: str = ""
    """The key of the manifest in whose chain they are."""
    unsaved_since: str = ""
    """When people were notified that no snapshot is taken; empty if one is."""
    gone_since: str = ""
    """When people were notified that the replica is gone, or has lost its tags; empty if it is there."""
    known: Mapping[str, str] = field(default_factory=dict)
    """Of the guard itself: what people were notified of, and when."""
    replicas: tuple[str, ...] = ()
    """Of the guard itself: the replicas that there were at the last look."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """Of the guard itself: their names by the ids of their repositories."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Of the guard itself: what it consists of, as of the last look."""
    outbox: tuple[tuple[str, str, str], ...] = ()
    """Subject, body and time of messages that are decided on, and not known to be sent."""


class StateChangedError(Exception):
    """Raised when another invocation has rewritten a replica's state."""


class _Stored(NamedTuple):
    data: bytes
    metadata: Mapping[str, str]
    tag: str


class States:
    """The states of replicas, and of the guard.

    Args:
        s3: a client.
        bucket: the vault.
        signer: signs them.
        keys: returns the keys that they may be signed with.
    """

    def __init__(self, s3: S3Client, bucket: str, signer: Signer, keys: Callable[[], Iterable[PublicKey]]) -> None:
        self._s3, self._bucket, self._signer, self._keys = s3, bucket, signer, keys

    def names(self) -> set[str]:
        """Return the names of the replicas that have a state."""
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=_PREFIX)
        keys = (str(entry["Key"]) for page in pages for entry in page.get("Versions", []))
        return {key.removeprefix(_PREFIX).removesuffix(".json") for key in keys} - {GUARD}

    def read(self, name: str) -> tuple[State, str | None]:
        """Return a replica's state, and the tag that ``write`` compares; None if there is no object of it."""
        newest = self._newest(name)
        if newest is None:
            return self._last_signed(name), None
        return self._parse(name, newest.data, newest.metadata) or self._last_signed(name), newest.tag

    def is_signed(self, name: str) -> bool:
        """Whether the newest object of a state is signed, or there is none."""
        newest = self._newest(name)
        return newest is None or self._is_signed(newest.data, newest.metadata)

    def _newest(self, name: str) -> _Stored | None:
        """Return the newest object of a state, without data if S3 does not give them out; None if there is none."""
        try:
            return self._get(name)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            if not is_refusal(error):
                raise
        # Somebody put one into an archive, or encrypted it with a key of their own.
        tags = [version["ETag"] for version in self._versions(name) if version["IsLatest"]]
        return _Stored(b"", {}, tags[0]) if tags else None

    def _get(self, name: str, **version: Any) -> _Stored:
        answer = self._s3.get_object(Bucket=self._bucket, Key=_key(name), **version)
        return _Stored(answer["Body"].read(), answer["Metadata"], answer["ETag"])

    def _versions(self, name: str) -> list[Any]:
        """Return the newest versions of a state's object."""
        answer = self._s3.list_object_versions(Bucket=self._bucket, Prefix=_key(name), MaxKeys=_MAX_EARLIER)
        return [version for version in answer.get("Versions", []) if version["Key"] == _key(name)]

    def _last_signed(self, name: str) -> State:
        """Return the newest earlier state that is signed."""
        for version in self._versions(name):
            try:
                found = self._get(name, VersionId=version["VersionId"])
            except ClientError as error:
                if not is_refusal(error):
                    raise
                continue
            state = self._parse(name, found.data, found.metadata)
            if state:
                return state
        return State()

    def _parse(self, name: str, data: bytes, metadata: Mapping[str, str]) -> State | None:
        """Return the state that an object has; None if it is not to be believed."""
        is_signed = self._is_signed(data, metadata)
        if not is_signed and self._key_is_usable():
            return None
        try:
            fields = json.loads(data)
            if (fields.pop("kind"), fields.pop("replica")) != (_KIND, name):
                return None
            fields |= {name: tuple(fields[name]) for name in ("archive", "changed_by", "replicas", "commits")}
            fields["goals"] = tuple(Goal(*goal) for goal in fields["goals"])
            # Words that are not signed might be anybody's.
            outbox = fields["outbox"] if is_signed else ()
            fields["outbox"] = tuple((subject, body, queued) for subject, body, queued in outbox)
            return State(**fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _is_signed(self, data: bytes, metadata: Mapping[str, str]) -> bool:
        try:
            signature = base64.b64decode(metadata.get(_SIGNATURE, ""), validate=True)
        except binascii.Error:
            return False
        return any(key.verifies(data, signature) for key in self._keys())

    def _key_is_usable(self) -> bool:
        try:
            self._signer.check()
        except KeyUnusableError:
            return False
        return True

    def update(
        self, name: str, decide: Callable[[State], State], read: tuple[State, str | None] | None = None
    ) -> tuple[State, State]:
        """Rewrite a state with what ``decide`` makes of it, and return the old and the new one.

        If another invocation has rewritten it meanwhile, ``decide`` is asked again: of two that decide the same, one
        sees the other's decision.

        Args:
            name: the replica's name.
            decide: returns the new state.
            read: what ``read`` returned a moment ago, which need not be read again.

        Raises:
            StateChangedError: others were faster every time.
        """
        for number in range(_TRIES):
            old, tag = read or self.read(name)
            read = None
            new = decide(old)
            if new == old:
                return old, new
            try:
                self.write(name, new, tag)
            except StateChangedError:
                time.sleep(random.uniform(0, min(2, 0.05 * 2**number)))  # noqa: S311
                continue
            return old, new
        raise StateChangedError(f"the state of {name} was rewritten {_TRIES} times in a row")

    def write(self, name: str, state: State, previous: str | None) -> None:
        """Rewrite a state.

        Raises:
            StateChangedError: another invocation has rewritten it since it was read.
        """
        data = json.dumps({"kind": _KIND, "replica": name, **asdict(state)}, indent=1).encode()
        try:
            metadata = {_SIGNATURE: base64.b64encode(self._signer.sign(data)).decode()}
        except KeyUnusableError:
            metadata = {}
        condition: Any = {"IfMatch": previous} if previous else {"IfNoneMatch": "*"}
        try:
            self._s3.put_object(
                Bucket=self._bucket,
                Key=_key(name),
                Body=data,
                Metadata=metadata,
                ContentType="application/json",
                ServerSideEncryption="AES256",
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in PRECONDITION:
                raise StateChangedError(name) from None
            raise


def _key(name: str) -> str:
    return f"{_PREFIX}{name}.json"
