"""Watch a replica: decide, from its state and what was read of it, which messages are due; pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from .changes import Change, Verdict, lost_entries
from .deployment import Deployment, differences
from .messages import (
    Message,
    another_head,
    archive_crowded,
    archive_dropped,
    begins,
    changed,
    created_again,
    foreign_objects,
    forgotten,
    fresh_again,
    gone,
    guard_changed,
    kept,
    key_signs_again,
    key_unusable,
    mended,
    read_again,
    readable,
    saved_again,
    stale,
    tags_changed,
    unchanged_again,
    unreadable,
    unsaved,
)
from .replica.confirmation import Confirmation
from .vault.manifest import format_time, parse_time
from .vault.state import State
from .vault.store import Version

SKEW = timedelta(minutes=5)
"""How far the clock of a build agent may be behind that of CodeCommit's events."""
_KEY = "signing key"
_MAX_STRANGERS = 10
"""How many of those who change a replica before a run confirms it are told, each once."""
PATIENCE = timedelta(hours=2)
"""How long a run may take to confirm a change whose author the event does not name, or that no event tells of."""
MAX_ENTRIES = 20_000
"""How many archive entries are remembered from one look to the next; a snapshot has all of them."""
_OF_ARCHIVE = "archive: "
_UNREADABLE_LOOKS = 2
"""After how many looks in a row that cannot read a replica people are notified: a service may be down for a while."""
_UNHEARD = "differs from what the last run confirmed"


def note_change(
    state: State, change: Change, verdict: Verdict, *, replica: str, region: str, log_group: str, now: datetime
) -> tuple[State, Message | None]:
    """Return the state after a change, and the message that is due, if any."""
    if verdict is Verdict.BY_A_RUN:
        return state, None
    if verdict is Verdict.UNATTRIBUTED:
        # The latest one counts: what a run confirms accounts for all before it.
        since = format_time(change.moment or now)
        if since <= state.unattributed_since:
            return state, None
        first = state.unattributed_first or since
        subject = f"{change.kind} {change.ref}"
        return replace(state, unattributed_since=since, unattributed_first=first, unattributed=subject), None
    # A harmless change must not hide what the same person does to the archive after it.
    kind = _OF_ARCHIVE if change.is_of_archive else ""
    who = f"{kind}{verdict.name} {change.caller or 'nobody known'}"
    told = [other for other in state.changed_by if other.startswith(_OF_ARCHIVE) == change.is_of_archive]
    if who in told or len(told) >= _MAX_STRANGERS:
        return state, None
    snapshot = readable(parse_time(state.snapshot_at)) if state.snapshot_at else None
    is_last = len(told) == _MAX_STRANGERS - 1
    message = changed(replica, region, change, verdict, snapshot, log_group, is_last=is_last)
    since = state.changed_since or format_time(now)
    # The look does not tell again of the entry that this message is about.
    archive = tuple(name for name in state.archive if name != change.ref)
    return replace(state, archive=archive, changed_since=since, changed_by=(*state.changed_by, who)), message


def note_tags(state: State, tags: str, *, replica: str, region: str) -> tuple[State, list[Message]]:
    """Return the state after a look at a replica's tags, and the message that is due if they say something else.

    Args:
        state: the replica's.
        tags: who writes to it, and how long its archive is kept.
        replica: its name.
        region: its region.
    """
    if state.writer == tags:
        return state, []
    messages = [tags_changed(replica, region, state.writer, tags)] if state.writer else []
    return replace(state, writer=tags), messages


def note_repository(
    state: State, identifier: str, head: str, *, replica: str, region: str
) -> tuple[State, list[Message]]:
    """Return the state after a look at a replica's repository, and the messages that are due.

    Args:
        state: the replica's.
        identifier: the repository's id.
        head: its default branch, which no run changes.
        replica: its name.
        region: its region.
    """
    messages = [created_again(replica, region)] if state.repository not in ("", identifier) else []
    messages += [another_head(replica, region, state.head, head)] if state.head not in ("", head) else []
    return replace(state, repository=identifier, head=head), messages


def note_replicas(
    state: State, names: Sequence[str], ids: Mapping[str, str], *, region: str
) -> tuple[State, list[Message]]:
    """Return the guard's own state after a look at which replicas there are, and the message about new ones.

    Args:
        state: the guard's own.
        names: the replicas' names.
        ids: their names by the ids of their repositories, which outlive another name.
        region: their region.
    """
    new = [name for name in names if name not in state.replicas]
    return replace(state, replicas=tuple(names), ids=dict(ids)), [kept(region, new)] if new else []


def note_deployment(state: State, found: Deployment, *, region: str) -> tuple[State, list[Message]]:
    """Return the guard's own state after a look at what it consists of, and the message that is due if it changed."""
    if not state.parts:
        return replace(state, parts=dict(found.parts)), [begins(region, found.deployed)]
    changed_parts = differences(state.parts, found.parts)
    messages = [guard_changed(region, changed_parts, found.deployed)] if changed_parts else []
    return replace(state, parts=dict(found.parts)), messages


def note_confirmation(state: State, object_id: str, confirmation: Confirmation | None, now: datetime) -> State:
    """Return the state with the confirming tag that the replica has now; one that is no run's confirms nothing.

    A tag's own time is believed only if it lies before the moment at which the tag was first seen.
    """
    if object_id == state.confirmed_id:
        return state
    if confirmation is None:
        return disbelieve(state, object_id)
    time = format_time(min(confirmation.time, now))
    return replace(state, confirmed_id=object_id, confirmed_sha256=confirmation.sha256, confirmed_at=time)


def note_unheard(state: State, now: datetime) -> State:
    """Return the state with a confirming tag of which no event has told: it confirms nothing until one does."""
    return state if state.unattributed_since else _unheard(state, now)


def _unheard(state: State, now: datetime) -> State:
    since = format_time(now)
    return replace(state, unattributed_since=since, unattributed_first=since, unattributed=_UNHEARD)


def note_archive(
    state: State, entries: Mapping[str, str], *, archive_days: int, replica: str, region: str, now: datetime
) -> tuple[State, list[Message]]:
    """Return the state with the newest archive entries, and the message that is due if some went before their time.

    Args:
        state: the replica's.
        entries: the refs that it has where entries are, sorted by name.
        archive_days: how long one is kept.
        replica: its name.
        region: its region.
        now: the time.
    """
    lost = lost_entries((name for name in state.archive if name not in entries), archive_days, now)
    messages = [archive_dropped(replica, region, "at the last look", lost)] if lost else []
    # One more is remembered than that, so that it shows that people were told.
    if len(entries) > MAX_ENTRIES >= len(state.archive):
        messages.append(archive_crowded(replica, region, len(entries), MAX_ENTRIES))
    newest = islice(entries, max(0, len(entries) - MAX_ENTRIES - 1), None)
    return replace(state, archive=tuple(newest)), messages


def check(
    state: State,
    *,
    refs_sha256: str | None,
    problem: str = "",
    was_known: bool = False,
    replica: str,
    region: str,
    stale_after: timedelta,
    saved_every: timedelta | None,
    log_group: str,
    now: datetime,
) -> tuple[State, list[Message]]:
    """Return the state after a look, and the messages that are due.

    Args:
        state: what the guard remembers, with the confirming tag that the replica has now.
        refs_sha256: the ``digest`` of the replica's refs; None if they could not be read.
        problem: why not.
        was_known: whether the guard kept the replica at an earlier look, as its notes on itself say.
        replica: its name.
        region: its region.
        stale_after: how long there may be no confirmation.
        saved_every: how often a snapshot is taken; None if none is.
        log_group: where changes are logged.
        now: the time.
    """
    messages = [forgotten(replica, region)] if was_known and not state.first_seen else []
    state = state if state.first_seen else replace(state, first_seen=format_time(now))
    state, due = _check_reading(state, problem if refs_sha256 is None else None, replica, region)
    messages += due
    confirmed = parse_time(state.confirmed_at) if state.confirmed_at else None
    state, message = _check_changes(state, confirmed, refs_sha256, replica, region, log_group, now)
    messages += [message] if message else []
    shown = readable(confirmed) if confirmed else None
    is_restored = refs_sha256 is None or state.confirmed_sha256 == refs_sha256
    if state.changed_since and confirmed and confirmed > parse_time(state.changed_since) and is_restored:
        since_text = readable(parse_time(state.changed_since))
        messages.append(unchanged_again(replica, region, since_text, str(shown)))
        state = replace(state, changed_since="", changed_by=())
    state, due = _check_staleness(state, confirmed, replica, region, stale_after, now)
    messages += due
    if saved_every:
        state, due = _check_snapshots(state, replica, region, saved_every, now)
        messages += due
    return replace(state, gone_since=""), messages


def _check_changes(
    state: State,
    confirmed: datetime | None,
    refs_sha256: str | None,
    replica: str,
    region: str,
    log_group: str,
    now: datetime,
) -> tuple[State, Message | None]:
    """Judge a change that no event attributes to anybody, and a difference of which no event told."""
    is_accounted_for = refs_sha256 is None or state.confirmed_sha256 in ("", refs_sha256) or state.changed_since
    if not is_accounted_for and not state.unattributed_since:
        state = _unheard(state, now)
    if not state.unattributed_since:
        return state, None
    since = parse_time(state.unattributed_since)
    if confirmed and _accounts_for(state, confirmed, since, refs_sha256):
        return replace(state, unattributed_since="", unattributed_first="", unattributed=""), None
    # Later changes do not put off the message; a run accounts for those before it.
    first = parse_time(state.unattributed_first)
    if now - max(first, confirmed or first) < PATIENCE:
        return state, None
    return _note_unattributed(state, since, replica, region, log_group, now)


def _check_reading(state: State, problem: str | None, replica: str, region: str) -> tuple[State, list[Message]]:
    if problem is None:
        messages = [read_again(replica, region)] if state.unreadable >= _UNREADABLE_LOOKS else []
        return replace(state, unreadable=0), messages
    looks = min(state.unreadable + 1, _UNREADABLE_LOOKS)
    is_due = state.unreadable < looks == _UNREADABLE_LOOKS
    return replace(state, unreadable=looks), [unreadable(replica, region, problem)] if is_due else []


def _check_staleness(
    state: State, confirmed: datetime | None, replica: str, region: str, stale_after: timedelta, now: datetime
) -> tuple[State, list[Message]]:
    shown = readable(confirmed) if confirmed else None
    is_stale = now - (confirmed or parse_time(state.first_seen)) > stale_after
    if is_stale and not state.stale_since:
        return replace(state, stale_since=format_time(now)), [stale(replica, region, shown, stale_after)]
    if state.stale_since and not is_stale:
        return replace(state, stale_since=""), [fresh_again(replica, region, str(shown))]
    return state, []


def _check_snapshots(
    state: State, replica: str, region: str, saved_every: timedelta, now: datetime
) -> tuple[State, list[Message]]:
    saved = parse_time(state.snapshot_at) if state.snapshot_at else None
    is_unsaved = now - (saved or parse_time(state.first_seen)) > 2 * saved_every + timedelta(hours=1)
    if is_unsaved and not state.unsaved_since:
        message = unsaved(replica, region, readable(saved) if saved else None)
        return replace(state, unsaved_since=format_time(now)), [message]
    if state.unsaved_since and not is_unsaved and saved:
        return replace(state, unsaved_since=""), [saved_again(replica, region, readable(saved))]
    return state, []


def note_absence(state: State, *, replica: str, region: str, now: datetime) -> tuple[State, Message | None]:
    """Return the state of a replica that is no longer found, and the message that is due, if any."""
    if state.gone_since:
        return state, None
    until = readable(parse_time(state.locked_until)) if state.locked_until else None
    return replace(state, gone_since=format_time(now)), gone(replica, region, until)


def note_vault(
    state: State, *, replica: str, region: str, bucket: str, lost: Sequence[str], foreign: Sequence[Version], new: bool
) -> tuple[State, list[Message]]:
    """Return the state after a look at a replica's objects in the vault, and the messages that are due.

    Args:
        state: the replica's.
        replica: its name.
        region: its region.
        bucket: the vault.
        lost: objects that the last snapshot needs, and that are gone or not locked.
        foreign: new versions that no signature of the guard's is about.
        new: whether a new chain was started for what is lost.
    """
    messages = [mended(replica, region, bucket, lost)] if lost and new else []
    text = "".join(f"{version.key} {version.id}\n" for version in foreign)
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() if foreign else ""
    if sha256 and sha256 != state.foreign:
        messages.append(foreign_objects(replica, region, bucket, [version.key for version in foreign]))
    return replace(state, foreign=sha256), messages


def note_key(
    state: State, problem: str | None, *, is_signed: bool, key: str, region: str, now: datetime
) -> tuple[State, list[Message]]:
    """Return the guard's own state after a look at its signing key, and the messages that are due.

    Args:
        state: the guard's.
        problem: why the key does not sign; None if it does.
        is_signed: whether the state is; if not, the key did not sign when it was written.
        key: its ARN.
        region: its region.
        now: the time.
    """
    known = dict(state.known)
    if problem and _KEY not in known:
        return replace(state, known={**known, _KEY: format_time(now)}), [key_unusable(key, region, problem)]
    if not problem and (known.pop(_KEY, "") or not is_signed):
        return replace(state, known=known), [key_signs_again(key, region)]
    return state, []


def disbelieve(state: State, object_id: str) -> State:
    """Return the state with a confirming tag that was not written by the mirror: it confirms nothing."""
    return replace(state, confirmed_id=object_id, confirmed_sha256="")


def _accounts_for(state: State, confirmed: datetime, since: datetime, refs_sha256: str | None) -> bool:
    """Whether a run confirmed the replica after a change or, allowing for clock skew, confirmed what it has now."""
    return confirmed > since or (confirmed + SKEW >= since and state.confirmed_sha256 == refs_sha256)


def _note_unattributed(
    state: State, since: datetime, replica: str, region: str, log_group: str, now: datetime
) -> tuple[State, Message | None]:
    kind, _, ref = state.unattributed.partition(" ")
    change = Change(kind, ref, None, None, None, readable(since))
    verdict = Verdict.UNHEARD if state.unattributed == _UNHEARD else Verdict.BY_SOMEBODY_ELSE
    state = replace(state, unattributed_since="", unattributed_first="", unattributed="")
    return note_change(state, change, verdict, replica=replica, region=region, log_group=log_group, now=now)
