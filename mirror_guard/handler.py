"""The guard's Lambda function: what each kind of invocation does.

- An event of EventBridge about a replica's ref: judge the change.
- ``{"task": "check"}``, hourly: look at every replica, and notify people of what began or is over.
- ``{"task": "snapshots"}``, on a schedule: start ``{"task": "snapshot", "replica": ARN}`` for each replica, so that one
  that is slow or broken does not stop the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.config import Config

from mirror_engine.model import CONFIRMED_TAG, MirrorFailure, PackRefused, RetryableError, SourceRefused
from mirror_engine.packs import is_ancestor, read_pack
from mirror_engine.protocol import offered, read_refs, request_pack
from mirror_engine.transport import Traffic

from . import replicas, watch
from .changes import Change, Verdict, from_event, judge
from .confirmation import digest, read_confirmation
from .messages import Message
from .replicas import Access, Replica
from .snapshot import Retention, Snapshots
from .store import Mode, State, Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_WORKERS = 8
_MAX_INSPECTED_BYTES = 16 * 1024 * 1024
_ENGINE_FAILURES = (MirrorFailure, PackRefused, RetryableError, SourceRefused)
_CLIENTS = Config(retries={"mode": "adaptive", "max_attempts": 8}, max_pool_connections=2 * _WORKERS)


def handler(event: Mapping[str, Any], _context: object) -> object:
    """Handle one invocation."""
    guard = Guard(os.environ, boto3.Session())
    task = event.get("task")
    if task == "check":
        return guard.check()
    if task == "snapshots":
        return guard.start_snapshots()
    if task == "snapshot":
        return guard.snapshot(str(event["replica"]))
    return guard.handle_change(event)


class ReplicasFailedError(Exception):
    """Raised at the end of a check that some replicas failed, so that the function's own alarm goes off."""


@dataclass
class Guard:
    """The guard of one account and region."""

    environment: Mapping[str, str]
    session: boto3.Session
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @cached_property
    def store(self) -> Store:
        """The bucket."""
        s3 = cast("S3Client", self._client("s3"))
        return Store(s3, self.environment["BUCKET"])

    def _client(self, service: Any) -> Any:
        return self.session.client(service, config=_CLIENTS)

    @cached_property
    def _codecommit(self) -> Any:
        return self._client("codecommit")

    @cached_property
    def _tagging(self) -> Any:
        return self._client("resourcegroupstaggingapi")

    @property
    def _region(self) -> str:
        return str(self.session.region_name)

    def handle_change(self, event: Mapping[str, Any]) -> str:
        """Judge one change of a ref, and notify people if no run made it."""
        change = from_event(event)
        arn = next(iter(event.get("resources") or []), "")
        replica = replicas.find(self._tagging, arn) if change and arn else None
        if change is None or replica is None:
            return "not a change of a replica"
        access = replicas.open_replica(self.session, self._codecommit, replica)
        verdict = judge(
            change,
            replica,
            lambda: read_refs(access.endpoint(), "git-upload-pack").refs,
            lambda old, new: _is_kept(access, old, new),
            self.clock(),
        )
        if verdict is not Verdict.BY_A_RUN:
            _log(
                replica=replica.name,
                change=change.kind,
                ref=change.ref,
                old=change.old,
                new=change.new,
                caller=change.caller,
                verdict=verdict.name,
            )
            self._update(replica, lambda state: self._noted(state, replica, change, verdict))
        if change.ref == CONFIRMED_TAG and verdict is not Verdict.BY_SOMEBODY_ELSE:
            self._look(replica)
        return verdict.name

    def _noted(self, state: State, replica: Replica, change: Change, verdict: Verdict) -> tuple[State, list[Message]]:
        state, message = watch.note_change(
            state,
            change,
            verdict,
            replica=replica.name,
            region=self._region,
            log_group=self.environment["LOG_GROUP"],
            now=self.clock(),
        )
        return state, [message] if message else []

    def check(self) -> dict[str, int]:
        """Look at every replica; one that cannot be read does not stop the others.

        Raises:
            ReplicasFailedError: some could not be read.
        """
        found = list(replicas.find_all(self._tagging))
        with ThreadPoolExecutor(_WORKERS) as pool:
            failures = [failure for failure in pool.map(self._look_safely, found) if failure]
        if failures:
            raise ReplicasFailedError(f"{len(failures)} of {len(found)} replicas could not be read: {failures[0]}")
        return {"replicas": len(found)}

    def _look_safely(self, replica: Replica) -> str | None:
        try:
            self._look(replica)
        except Exception as error:
            # The next hour looks again; whatever it is, the other replicas are looked at.
            _log(replica=replica.name, error=f"{type(error).__name__}: {error}")
            return f"{replica.name}: {error}"
        return None

    def _look(self, replica: Replica) -> None:
        access = replicas.open_replica(self.session, self._codecommit, replica)
        endpoint = access.endpoint()
        found = read_refs(endpoint, "git-upload-pack")
        tag = found.refs.get(CONFIRMED_TAG, "")

        def decide(state: State) -> tuple[State, list[Message]]:
            if tag and tag != state.confirmed_id:
                confirmation = read_confirmation(endpoint, found.capabilities, found.refs)
                state = watch.note_confirmation(state, tag, confirmation, self.clock())
            return watch.check(
                state,
                refs_sha256=digest(found.refs),
                replica=replica.name,
                region=self._region,
                stale_after=timedelta(hours=int(self.environment["STALE_AFTER_HOURS"])),
                log_group=self.environment["LOG_GROUP"],
                now=self.clock(),
            )

        state = self._update(replica, decide)
        _log(
            replica=replica.name,
            status="changed" if state.changed_since else "stale" if state.stale_since else "ok",
            confirmed=state.confirmed_at or None,
            snapshot=state.snapshot_at or None,
            refs=len(found.refs),
        )

    def _update(self, replica: Replica, decide: Callable[[State], tuple[State, list[Message]]]) -> State:
        """Write what was decided, and then send the messages: of two invocations that decide the same, one does."""
        messages: list[Message] = []

        def decide_again(state: State) -> State:
            new, due = decide(state)
            messages[:] = due
            return new

        old, new = self.store.update_state(replica.name, decide_again)
        if new != old:
            self._send(messages)
        return new

    def _send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            topic = self.environment["TOPIC_ARN"]
            self._client("sns").publish(TopicArn=topic, Subject=message.subject, Message=message.body)

    def start_snapshots(self) -> dict[str, int]:
        """Start the snapshot of each replica in an invocation of its own."""
        client, name, number = self._client("lambda"), self.environment["AWS_LAMBDA_FUNCTION_NAME"], 0
        for replica in replicas.find_all(self._tagging):
            payload = json.dumps({"task": "snapshot", "replica": replica.arn}).encode()
            client.invoke(FunctionName=name, InvocationType="Event", Payload=payload)
            number += 1
        return {"replicas": number}

    def snapshot(self, arn: str) -> dict[str, object]:
        """Take one replica's snapshot."""
        replica = replicas.find(self._tagging, arn)
        if replica is None:
            return {"kind": "gone"}
        retention = Retention(
            timedelta(hours=int(self.environment["KEEP_HOURS"])),
            timedelta(hours=int(self.environment["FULL_EVERY_HOURS"])),
            cast(Mode, self.environment["LOCK_MODE"]),
        )
        access = replicas.open_replica(self.session, self._codecommit, replica)
        taken = Snapshots(self.store, retention, self.clock).take(replica.name, access)
        _log(replica=replica.name, snapshot_kind=taken.kind, refs=taken.refs, bytes=taken.bytes)
        return {"kind": taken.kind, "refs": taken.refs, "bytes": taken.bytes}


def _is_kept(access: Access, old: str, new: str) -> bool:
    """Whether ``old`` is in the history of ``new``, as far as 16 MiB of a pack show: no run relies on more."""
    endpoint = access.endpoint()
    found = read_refs(endpoint, "git-upload-pack")
    words = offered(found.capabilities, "side-band-64k", "no-progress") + offered(
        found.capabilities, "multi_ack_detailed"
    )
    data = bytearray()
    pack = request_pack(endpoint, words, [new], [old], Traffic())
    try:
        for part in pack:
            data += part
            if len(data) > _MAX_INSPECTED_BYTES:
                return False
        return is_ancestor(old, new, read_pack(bytes(data)).parents)
    except _ENGINE_FAILURES:
        return False
    finally:
        pack.close()  # type: ignore[attr-defined]


def _log(**fields: object) -> None:
    """Print one line of JSON, which the dashboard's table reads."""
    print(json.dumps(fields), flush=True)
