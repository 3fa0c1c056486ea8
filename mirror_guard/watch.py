"""Watch a replica: decide, from its state and what was read of it, which messages are due; pure functions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from .changes import Change, Verdict
from .confirmation import Confirmation
from .manifest import format_time, parse_time
from .messages import Message, changed, fresh_again, readable, stale, unchanged_again
from .store import State

PATIENCE = timedelta(hours=2)
"""How long a run may take to confirm a change whose author the event does not name."""


def note_change(
    state: State, change: Change, verdict: Verdict, *, replica: str, region: str, log_group: str, now: datetime
) -> tuple[State, Message | None]:
    """Return the state after a change, and the message that is due, if any."""
    if verdict is Verdict.BY_A_RUN:
        return state, None
    if verdict is Verdict.UNATTRIBUTED:
        if state.unattributed_since:
            return state, None
        return replace(state, unattributed_since=format_time(now), unattributed=f"{change.kind} {change.ref}"), None
    if state.changed_since:
        return state, None
    snapshot = readable(parse_time(state.snapshot_at)) if state.snapshot_at else None
    message = changed(replica, region, change, verdict, snapshot, log_group)
    return replace(state, changed_since=format_time(now)), message


def note_confirmation(state: State, object_id: str, confirmation: Confirmation | None, now: datetime) -> State:
    """Return the state with the confirming tag that the replica has now.

    A tag's own time is believed only if it lies before the moment at which the tag was first seen.
    """
    if object_id == state.confirmed_id:
        return state
    time = min(confirmation.time, now) if confirmation else now
    return replace(state, confirmed_id=object_id, confirmed_at=format_time(time))


def check(
    state: State, *, replica: str, region: str, stale_after: timedelta, log_group: str, now: datetime
) -> tuple[State, list[Message]]:
    """Return the state after an hourly look, and the messages that are due."""
    messages: list[Message] = []
    state = state if state.first_seen else replace(state, first_seen=format_time(now))
    confirmed = parse_time(state.confirmed_at) if state.confirmed_at else None
    shown = readable(confirmed) if confirmed else None
    if state.unattributed_since:
        since = parse_time(state.unattributed_since)
        if confirmed and confirmed >= since:
            state = replace(state, unattributed_since="", unattributed="")
        elif now - since >= PATIENCE:
            kind, _, ref = state.unattributed.partition(" ")
            unknown = Change(kind, ref, None, None, None, readable(since))
            state, message = note_change(
                replace(state, unattributed_since="", unattributed=""),
                unknown,
                Verdict.BY_SOMEBODY_ELSE,
                replica=replica,
                region=region,
                log_group=log_group,
                now=now,
            )
            messages += [message] if message else []
    if state.changed_since and confirmed and confirmed > parse_time(state.changed_since):
        since_text = readable(parse_time(state.changed_since))
        messages.append(unchanged_again(replica, region, since_text, str(shown)))
        state = replace(state, changed_since="")
    is_stale = now - (confirmed or parse_time(state.first_seen)) > stale_after
    if is_stale and not state.stale_since:
        messages.append(stale(replica, region, shown, stale_after))
        state = replace(state, stale_since=format_time(now))
    elif state.stale_since and not is_stale:
        messages.append(fresh_again(replica, region, str(shown)))
        state = replace(state, stale_since="")
    return state, messages
