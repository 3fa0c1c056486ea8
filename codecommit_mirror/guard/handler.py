"""The guard's Lambda function: what each kind of invocation does.

- An event of EventBridge about a replica's ref: judge the change.
- ``{"task": "check"}``, hourly: look at every replica, and notify people of what began or is over.
- ``{"task": "snapshots"}``, on a schedule: start ``{"task": "snapshot", "replica": ARN}`` for each replica, so that one
  that is slow or broken does not stop the others.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from typing import Any, cast

import boto3
from botocore.config import Config

from ..engine.failures import AnswerTooLarge
from ..engine.refs import ARCHIVE_PREFIX, CONFIRMED_TAG
from . import deployment, watch
from .changes import Change, Verdict, from_event, judge, lost_entries
from .messages import Message, archive_dropped
from .names import LOOKS, NAMESPACE, SUBSCRIBERS
from .replica import replicas
from .replica.confirmation import digest, read_confirmation
from .replica.git_access import read_patiently
from .replica.history import is_kept, read_entries
from .replica.replicas import Access, Replica
from .snapshot import Retention, SnapshotResult, Snapshots
from .vault.manifest import format_time
from .vault.ref_list import MAX_LIST_BYTES
from .vault.signed import SignedSnapshots
from .vault.signer import KeyUnusableError
from .vault.state import GUARD, State
from .vault.store import Mode
from .vault.vault import Vault, open_vault

_WORKERS = 8
_OUTBOX_PATIENCE = timedelta(minutes=15)
"""After what time a message that was queued counts as not sent."""
_SECONDS_BETWEEN_SNAPSHOTS, _SECONDS_OF_STARTS = 0.2, 600
"""An invocation has fifteen minutes, whatever the number of replicas."""
_SECONDS_TO_END = 30
"""Which an attempt leaves of an invocation's time, so that it ends by itself."""
_TAGS_SECONDS = 120
_FOUND: dict[str, tuple[Replica | None, float]] = {}
"""Replicas by ARN, with the time of their look-up: a push can be thousands of events."""
_IDS: list[Any] = [{}, -math.inf]
"""Names of replicas by the ids of their repositories, with the time of their look-up."""
_SHORT_LIST = 1_000_000
_LONG_LIST = MAX_LIST_BYTES
"""Bytes of a list of refs: several short ones are read at once, and long ones one after the other."""
_MAX_KNOWN_TIPS = 20_000
"""How many tips of archive entries are remembered: some 10 MB."""
_MAX_UNREADABLE = 10
"""If more replicas cannot be read, the function fails: the reason lies elsewhere."""
_CLIENTS = Config(retries={"mode": "adaptive", "max_attempts": 8}, max_pool_connections=2 * _WORKERS)


def handler(event: Mapping[str, Any], context: Any) -> object:
    """Handle one invocation."""
    guard = _guard()
    task = event.get("task")
    if task == "check":
        return guard.check()
    if task == "snapshots":
        return guard.start_snapshots()
    if task == "snapshot":
        return guard.snapshot(str(event["replica"]), context.get_remaining_time_in_millis() / 1000 - _SECONDS_TO_END)
    return guard.handle_change(event)


@cache
def _guard() -> Guard:
    """Return the guard, whose clients all invocations of one instance of the function share."""
    return Guard(os.environ, boto3.Session())


class ReplicasFailedError(Exception):
    """Raised at the end of a check that some replicas failed, so that the function's own alarm goes off."""


@dataclass
class Guard:
    """The guard of one account and region."""

    environment: Mapping[str, str]
    session: boto3.Session
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _tips: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """What archive entries keep, by their ids: a push can be thousands of events."""
    _ids: dict[str, str] = field(default_factory=dict)
    """The replicas that were looked at, by the ids of their repositories."""

    @cached_property
    def vault(self) -> Vault:
        """Where snapshots and states are kept."""
        return open_vault(
            self._client("s3"),
            self._client("kms"),
            self.environment["BUCKET"],
            self.environment["SIGNING_KEY"],
            self.environment.get("KEYS", "").split(),
        )

    def _client(self, service: Any) -> Any:
        return self.session.client(service, config=_CLIENTS)

    @cached_property
    def _codecommit(self) -> Any:
        return self._client("codecommit")

    @cached_property
    def _tagging(self) -> Any:
        return self._client("resourcegroupstaggingapi")

    @cached_property
    def _sns(self) -> Any:
        return self._client("sns")

    def _open(self, replica: Replica) -> Access:
        return replicas.open_replica(self.session, self._codecommit, replica)

    def _find(self, arn: str) -> Replica | None:
        """Return a replica by its tags, which one instance of the function looks up every few minutes."""
        replica, looked_up = _FOUND.get(arn, (None, -math.inf))
        if time.monotonic() - looked_up > _TAGS_SECONDS:
            replica = replicas.find(self._tagging, arn)
            if replica:
                self._note_tags(replica)
            elif self._is_watched(arn):
                # Somebody has taken its tags away: whoever writes now is nobody that the guard knows.
                return Replica(arn.rpartition(":")[2], arn, "", 0)
            _FOUND[arn] = (replica, time.monotonic())
        return replica

    def _renamed(self, arn: str, identifier: str) -> Replica | None:
        """Return the replica that a repository without a replica's tags was at the last look, under another name."""
        if time.monotonic() - _IDS[1] > _TAGS_SECONDS:
            _IDS[:] = [self.vault.states.read(GUARD)[0].ids, time.monotonic()]
        name = _IDS[0].get(identifier)
        return Replica(name, arn, "", 0) if name and name != arn.rpartition(":")[2] else None

    def _is_watched(self, arn: str) -> bool:
        """Whether a repository without a replica's tags was one at the last look."""
        state, _ = self.vault.states.read(arn.rpartition(":")[2])
        return bool(state.first_seen) and not state.gone_since

    def _note_tags(self, replica: Replica) -> None:
        """Compare a replica's tags with those at the last look."""
        tags, region = replica.tags, self._region
        self._update(replica.name, lambda state: watch.note_tags(state, tags, replica=replica.name, region=region))

    @property
    def _region(self) -> str:
        return str(self.session.region_name)

    def _tips_of(self, access: Access, capabilities: Sequence[str], entry: str) -> Mapping[str, str]:
        """Return the tips that an archive entry keeps, which its id decides for ever; none are read again."""
        if entry not in self._tips:
            found = read_entries(access.endpoint(), capabilities, [entry])[entry]
            if not found:
                return {}
            if sum(map(len, self._tips.values())) + len(found) > _MAX_KNOWN_TIPS:
                self._tips.clear()
            self._tips[entry] = found
        return self._tips[entry]

    def handle_change(self, event: Mapping[str, Any]) -> str:
        """Judge one change of a ref, and notify people if no run made it."""
        change = from_event(event)
        arn = next(iter(event.get("resources") or []), "")
        identifier = str((event.get("detail") or {}).get("repositoryId", ""))
        replica = (self._find(arn) or self._renamed(arn, identifier)) if change and arn else None
        if change is None or replica is None:
            return "not a change of a replica"
        change = change.not_after(self.clock())
        read = cache(lambda: read_patiently(self._open(replica).endpoint))

        def tips_of(entry: str) -> Mapping[str, str]:
            return self._tips_of(self._open(replica), read().capabilities, entry)

        verdict = judge(
            change, replica, read, lambda old, new: is_kept(self._open(replica), old, new), tips_of, self.clock()
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
            self._update(replica.name, lambda state: self._noted(state, replica, change, verdict))
        # What has no tags may not be read.
        if change.ref == CONFIRMED_TAG and replica.writer:
            self._look(replica, heard=change.new or "", believe=verdict is not Verdict.BY_SOMEBODY_ELSE)
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
        """Look at every replica, and for those that are gone; one that cannot be read does not stop the others.

        Raises:
            ReplicasFailedError: some could not be read.
        """
        existing = list(replicas.find_all(self._tagging))
        # The session makes one client at a time; the threads share them.
        _ = self.vault, self._codecommit, self._sns
        known = self.vault.states.names() | self.vault.store.saved_replicas()
        gone = sorted(known - {replica.name for replica in existing})
        absences = [partial(self._update, name, partial(self._noted_absence, name=name)) for name in gone]
        failures = _failures([self._check_key, self._check_deployment, *absences])
        failures += self._look_at_all(existing)
        # At last, so that a look knows which replicas are not new.
        failures += _failures([partial(self._note_replicas, sorted(replica.name for replica in existing))])
        if not failures:
            # The alarm on silence goes by this: it says that the guard looked, and not that somebody called it.
            self._put_metric(LOOKS, 1)
        else:
            raise ReplicasFailedError(f"{len(failures)} looks failed, with {len(existing)} replicas: {failures[0]}")
        return {"replicas": len(existing)}

    def _look_at_all(self, existing: Sequence[Replica]) -> list[str]:
        """Look at each replica, and notify people of those that cannot be read; return what failed beyond that."""
        with ThreadPoolExecutor(_WORKERS) as pool:
            problems = list(pool.map(partial(self._look_safely, limit=_SHORT_LIST), existing))
        for number, replica in enumerate(existing):
            if isinstance(problems[number], AnswerTooLarge):
                problems[number] = self._look_safely(replica, limit=_LONG_LIST)
        failed = [(replica, str(problem)) for replica, problem in zip(existing, problems, strict=True) if problem]
        failures = _failures([partial(self._note_unreadable, replica, problem) for replica, problem in failed])
        if len(failed) > _MAX_UNREADABLE:
            failures += [f"{replica.name}: {problem}" for replica, problem in failed]
        return failures

    def _note_replicas(self, names: list[str]) -> None:
        """Tell people which repositories the guard has begun to keep: their tags may be anybody's."""
        self._update(GUARD, lambda state: watch.note_replicas(state, names, self._ids, region=self._region))

    def _check_deployment(self) -> None:
        """Compare what the guard consists of with the last look, and count who hears of it."""
        found = deployment.read(self._client, self.environment)
        self._update(GUARD, lambda state: watch.note_deployment(state, found, region=self._region))
        if found.subscribers is not None:
            self._put_metric(SUBSCRIBERS, found.subscribers)

    def _put_metric(self, name: str, value: int) -> None:
        metric = {"MetricName": name, "Value": value, "Unit": "Count"}
        self._client("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=[metric])

    def _check_key(self) -> None:
        problem = None
        try:
            self.vault.signer.check()
        except KeyUnusableError as error:
            problem = str(error)
        is_signed = self.vault.states.is_signed(GUARD)
        key, region, now = self.environment["SIGNING_KEY"], self._region, self.clock()
        self._update(
            GUARD,
            lambda state: watch.note_key(state, problem, is_signed=is_signed, key=key, region=region, now=now),
        )

    def _noted_absence(self, state: State, name: str) -> tuple[State, list[Message]]:
        if not state.first_seen and not state.gone_since and not self._is_saved(name):
            return state, []
        state, message = watch.note_absence(state, replica=name, region=self._region, now=self.clock())
        return state, [message] if message else []

    def _is_saved(self, name: str) -> bool:
        """Whether the vault has a snapshot of a replica of which the guard remembers nothing."""
        store = self.vault.store
        signed = SignedSnapshots(store, store.listing(name), self.vault.keys(), store.bucket)
        return signed.last("", "") is not None

    def _look_safely(self, replica: Replica, limit: int) -> Exception | None:
        """Look at a replica; return why that failed, if it did, since the others are looked at all the same."""
        try:
            self._look(replica, limit=limit)
        except Exception as error:
            _log(replica=replica.name, error=f"{type(error).__name__}: {error}")
            return error
        return None

    def _note_unreadable(self, replica: Replica, problem: str) -> None:
        """Notify people of a replica that cannot be read, and of what is due all the same."""
        self._update(replica.name, lambda state: self._checked(state, replica, None, problem))

    def _look(
        self, replica: Replica, *, heard: str | None = None, believe: bool = True, limit: int = _LONG_LIST
    ) -> None:
        """Read a replica and its confirming tag; one that the mirror did not write is not believed.

        Args:
            replica: the replica.
            heard: the id that an event named as the tag's, or as its commit's: a tag of which none told is not taken
                for a run's. None in the hourly look.
            believe: whether the mirror's own writer wrote it.
            limit: bytes of the list of refs that are read.
        """
        access, advertised = replicas.read_replica(self.session, self._codecommit, replica, limit)
        tag = advertised.refs.get(CONFIRMED_TAG, "")
        is_heard = heard is not None and heard in (tag, advertised.peeled.get(CONFIRMED_TAG))
        self._ids[access.id] = replica.name

        def decide(state: State) -> tuple[State, list[Message]]:
            where = {"replica": replica.name, "region": self._region}
            state, due = watch.note_tags(state, replica.tags, **where)
            state, more = watch.note_repository(state, access.id, access.head or "", **where)
            if tag and tag != state.confirmed_id and not believe:
                state = watch.disbelieve(state, tag)
            elif tag and state.confirmed_id and tag != state.confirmed_id and heard is None:
                state = watch.note_unheard(state, self.clock())
            elif tag and tag != state.confirmed_id and (is_heard or not state.confirmed_id):
                confirmation = read_confirmation(access.endpoint(), advertised.capabilities, tag)
                state = watch.note_confirmation(state, tag, confirmation, self.clock())
            entries = advertised.refs.below(ARCHIVE_PREFIX)
            days, now = replica.archive_days, self.clock()
            state, lost = watch.note_archive(state, entries, archive_days=days, now=now, **where)
            state, rest = self._checked(state, replica, digest(advertised.refs))
            return state, due + more + lost + rest

        state = self._update(replica.name, decide)
        _log(
            replica=replica.name,
            status="changed" if state.changed_since else "stale" if state.stale_since else "ok",
            confirmed=state.confirmed_at or None,
            snapshot=state.snapshot_at or None,
            refs=len(advertised.refs),
        )

    def _checked(
        self, state: State, replica: Replica, refs_sha256: str | None, problem: str = ""
    ) -> tuple[State, list[Message]]:
        every = self.environment.get("EVERY_HOURS")
        return watch.check(
            state,
            refs_sha256=refs_sha256,
            problem=problem,
            # Only asked of a replica whose notes are not there.
            was_known=not state.first_seen and replica.name in self.vault.states.read(GUARD)[0].replicas,
            replica=replica.name,
            region=self._region,
            stale_after=timedelta(hours=int(self.environment["STALE_AFTER_HOURS"])),
            saved_every=timedelta(hours=int(every)) if every else None,
            log_group=self.environment["LOG_GROUP"],
            now=self.clock(),
        )

    def _update(self, name: str, decide: Callable[[State], tuple[State, list[Message]]]) -> State:
        """Write what was decided, with the messages that are due; then send them, and note that they were sent.

        Of two invocations that decide the same, one writes it. A message that could not be sent stays in the state, and
        the next look tries again.
        """
        queued = format_time(self.clock())
        mine: list[tuple[str, str, str]] = []

        def decide_and_queue(state: State) -> State:
            new, due = decide(state)
            mine[:] = [(message.subject, message.body, queued) for message in due]
            return replace(new, outbox=(*new.outbox, *mine))

        old, state = self.vault.states.update(name, decide_and_queue)
        left = format_time(self.clock() - _OUTBOX_PATIENCE)
        to_send = [message for message in state.outbox if message[2] < left] + (mine if state != old else [])
        sent, failures = self._send(to_send)
        if sent:
            self.vault.states.update(
                name,
                lambda now: replace(now, outbox=tuple(message for message in now.outbox if message not in sent)),
            )
        if failures:
            raise failures[0]
        return state

    def _send(self, messages: Iterable[tuple[str, str, str]]) -> tuple[list[tuple[str, str, str]], list[Exception]]:
        """Send messages; return those that were sent, and why others were not: one that fails holds up no other."""
        sent, failures = [], list[Exception]()
        for message in messages:
            subject, body, _ = message
            try:
                self._sns.publish(TopicArn=self.environment["TOPIC_ARN"], Subject=subject, Message=body)
            except Exception as error:
                failures.append(error)
            else:
                sent.append(message)
        return sent, failures

    def start_snapshots(self) -> dict[str, int]:
        """Start the snapshot of each replica in an invocation of its own."""
        client, name = self._client("lambda"), self.environment["AWS_LAMBDA_FUNCTION_NAME"]
        existing = list(replicas.find_all(self._tagging))
        # Not all at once: CodeCommit limits the requests of an account and region, also those of the pipelines.
        pause = min(_SECONDS_BETWEEN_SNAPSHOTS, _SECONDS_OF_STARTS / max(1, len(existing)))
        began = time.monotonic()
        for number, replica in enumerate(existing):
            time.sleep(max(0, began + number * pause - time.monotonic()))
            payload = json.dumps({"task": "snapshot", "replica": replica.arn}).encode()
            client.invoke(FunctionName=name, InvocationType="Event", Payload=payload)
        return {"replicas": len(existing)}

    def snapshot(self, arn: str, seconds: float) -> dict[str, object]:
        """Take one replica's snapshot, or as much of it as there is time for."""
        began = time.monotonic()
        replica = replicas.find(self._tagging, arn)
        if replica is None:
            return {"kind": "gone"}
        retention = Retention(
            timedelta(hours=int(self.environment["EVERY_HOURS"])),
            timedelta(hours=int(self.environment["KEEP_HOURS"])),
            timedelta(hours=int(self.environment["FULL_EVERY_HOURS"])),
            cast(Mode, self.environment["LOCK_MODE"]),
        )
        access, advertised = replicas.read_replica(self.session, self._codecommit, replica)
        if self._is_exchanged(replica, access):
            return {"kind": "exchanged"}
        left = seconds - (time.monotonic() - began)
        taken = Snapshots(self.vault, retention, self.clock, left).take(replica.name, access, advertised)
        if taken.kind != "busy":
            self._update(replica.name, lambda state: self._noted_vault(state, replica, taken))
        _log(replica=replica.name, snapshot_kind=taken.kind, refs=taken.refs, bytes=taken.bytes)
        return {"kind": taken.kind, "refs": taken.refs, "bytes": taken.bytes}

    def _is_exchanged(self, replica: Replica, access: Access) -> bool:
        """Whether another repository has the replica's name than at the last look, and notify people of it."""
        known, where = self.vault.states.read(replica.name)[0].repository, {"replica": replica.name}
        if known in ("", access.id):
            return False
        head = access.head or ""
        self._update(replica.name, lambda s: watch.note_repository(s, access.id, head, region=self._region, **where))
        return True

    def _noted_vault(self, state: State, replica: Replica, taken: SnapshotResult) -> tuple[State, list[Message]]:
        name, region = replica.name, self._region
        state, messages = watch.note_vault(
            state,
            replica=name,
            region=region,
            bucket=self.vault.store.bucket,
            lost=taken.lost,
            foreign=taken.foreign,
            new=taken.kind in ("full", "incremental"),
        )
        lost = lost_entries(taken.dropped, replica.archive_days, self.clock())
        return state, messages + ([archive_dropped(name, region, "in its last snapshot", lost)] if lost else [])


def _failures(checks: Iterable[Callable[[], object]]) -> list[str]:
    """Do parts of the hourly look; return why some failed, since the others are done all the same."""
    failures = []
    for check in checks:
        try:
            check()
        except Exception as error:
            _log(error=f"{type(error).__name__}: {error}")
            failures.append(str(error))
    return failures


def _log(**fields: object) -> None:
    """Print one line of JSON, which the dashboard's table reads."""
    print(json.dumps(fields), flush=True)
