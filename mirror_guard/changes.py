"""Changes of a replica's refs, as CodeCommit reports them: which of them no run of the mirror makes.

https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html. An event may lack its caller, and the
shape of events for refs outside branches and tags is not documented: what an event lacks is looked up on the replica.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from mirror_engine.archive import archive_entries
from mirror_engine.plan import original_name
from mirror_engine.refs import CONFIRMED_TAG, Refs

from .names import EVENT_KINDS
from .replicas import Replica
from .vault.manifest import format_time, parse_time


@dataclass(frozen=True)
class Change:
    """One ref's change."""

    kind: str
    """``created``, ``updated`` or ``deleted``."""
    ref: str
    old: str | None
    """None if the ref did not exist, or the event does not say."""
    new: str | None
    caller: str | None
    """Who did it; None if the event does not say."""
    time: str

    @property
    def moment(self) -> datetime | None:
        """When it was; None if the event does not say it in ISO 8601."""
        try:
            return datetime.fromisoformat(self.time)
        except ValueError:
            return None


class Verdict(Enum):
    """What a change means."""

    BY_A_RUN = "made by a run of the mirror."
    BY_SOMEBODY_ELSE = "made by a principal other than the mirror's user or role."
    DESTRUCTIVE = "made with the pipeline's credential, but not by a run: a run archives every tip before dropping it."
    UNATTRIBUTED = "made by an unknown caller."


def from_event(event: Mapping[str, Any]) -> Change | None:
    """Return the change that an event reports; None if it does not report one of a ref."""
    detail = event.get("detail") or {}
    if detail.get("event") not in EVENT_KINDS:
        return None
    kind = str(detail["event"]).removeprefix("reference").lower()
    ref = detail.get("referenceFullName") or _full_name(detail)
    return Change(
        kind,
        ref,
        (detail.get("oldCommitId") or (detail.get("commitId") if kind == "deleted" else None)),
        detail.get("commitId") if kind != "deleted" else None,
        detail.get("callerUserArn"),
        str(event.get("time", "")),
    )


def _full_name(detail: Mapping[str, Any]) -> str:
    name, kind = str(detail.get("referenceName", "")), detail.get("referenceType")
    if name.startswith("refs/"):
        return name
    return f"refs/{'tags' if kind == 'tag' else 'heads'}/{name}" if name else "an unnamed ref"


def judge(
    change: Change,
    replica: Replica,
    read_refs: Callable[[], Refs],
    is_kept: Callable[[str, str], bool | None],
    now: datetime,
) -> Verdict:
    """Decide what a change means.

    Args:
        change: the change.
        replica: the replica, which knows its own writer.
        read_refs: reads the replica's refs; only called if the answer depends on them.
        is_kept: whether one commit is in the history of another one; None if that would take too much to find out.
        now: the time.
    """
    if change.caller and not replica.is_writer(change.caller):
        return Verdict.BY_SOMEBODY_ELSE
    drops = _drops_commits(change, replica, read_refs, is_kept, now)
    if drops:
        return Verdict.DESTRUCTIVE if change.caller else Verdict.BY_SOMEBODY_ELSE
    return Verdict.UNATTRIBUTED if drops is None or not change.caller else Verdict.BY_A_RUN


def _drops_commits(
    change: Change,
    replica: Replica,
    read_refs: Callable[[], Refs],
    is_kept: Callable[[str, str], bool | None],
    now: datetime,
) -> bool | None:
    """Whether a change took the last ref that kept a commit, or prepares that, as no run does; None if unknown.

    A run deletes archive entries when they expire, and dates new ones by its own clock.
    """
    if change.ref == CONFIRMED_TAG:
        return False
    entry = next(archive_entries({change.ref: ""}), None)
    if entry:
        try:
            age = (change.moment or now) - parse_time(entry[1])
        except ValueError:
            return True
        if change.kind == "created":
            return abs(age) > timedelta(days=1)
        # A run deletes an entry when its time is over, and changes none.
        return age <= timedelta(days=replica.archive_days)
    if not replica.archive_days:
        return False
    if change.kind == "created" or change.old is None:
        # Without the old id nothing shows what was there; a run that confirms the replica accounts for it.
        return False
    refs = read_refs()
    if change.old in refs.values():
        return False
    if change.ref.startswith("refs/tags/") and _was_archived(change, refs):
        # A run that confirms the replica accounts for it; anybody can name an entry after a tag.
        return None
    if change.kind == "deleted" or change.new is None:
        return True
    kept = is_kept(change.old, change.new)
    return None if kept is None else not kept


def _was_archived(change: Change, refs: Refs) -> bool:
    """Whether a run archived the tag in the day before the event, which may name its commit in place of its own id."""
    time, name = change.moment, original_name(change.ref)
    if time is None:
        return False
    since = format_time(time - timedelta(days=1))
    return any(ref == name and stamp >= since for _, stamp, ref in archive_entries(refs))
