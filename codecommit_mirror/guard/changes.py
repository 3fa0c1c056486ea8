"""Changes of a replica's refs, as CodeCommit reports them: which of them no run of the mirror makes.

https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html. An event may lack its caller, and the
shape of events for refs outside branches and tags is not documented: what an event lacks is looked up on the replica.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from ..engine.archive import archive_entries
from ..engine.plan import original_name
from ..engine.refs import ARCHIVE_PREFIX, CONFIRMED_TAG, SOURCE_TAG
from ..engine.text import to_bytes
from .names import EVENT_KINDS
from .replica.git_access import Advertised
from .replica.replicas import Replica
from .vault.manifest import format_time, parse_time
from .vault.ref_list import RefList

_MAX_FOLLOWERS = 5
_MAX_ENTRIES = 50
"""How many archive entries are looked at for one event."""
_MAX_TEXT, _MAX_TIME = 4096, 64
"""Characters of an event's names and of its time: git's names of refs are shorter."""
_FIRST_YEAR = 2000
_SKEW = timedelta(hours=1)
"""How far the clock of an agent may be from that of CodeCommit's events."""


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
        """When it was; None if the event does not say it in ISO 8601, with its zone."""
        try:
            moment = datetime.fromisoformat(self.time)
        except ValueError:
            return None
        return moment if moment.tzinfo and moment.year >= _FIRST_YEAR else None

    def not_after(self, now: datetime) -> Change:
        """Return the change, made now if the event claims a later time."""
        return replace(self, time=now.isoformat()) if self.moment and self.moment > now else self

    @property
    def is_of_archive(self) -> bool:
        """Whether it is a change of an archive entry."""
        return self.ref.startswith(ARCHIVE_PREFIX)


class Verdict(Enum):
    """What a change means."""

    BY_A_RUN = "made by a run of the mirror."
    BY_SOMEBODY_ELSE = "made by a principal other than the mirror's user or role."
    DESTRUCTIVE = "made with the pipeline's credential, but not by a run: a run archives every tip before dropping it."
    UNPROVED = "made with the pipeline's credential, and brings so much that nothing shows what it keeps."
    UNATTRIBUTED = "made by an unknown caller."
    UNHEARD = "reported by no event: the guard found it by comparing. A run that failed leaves such a difference, too."


def from_event(event: Mapping[str, Any]) -> Change | None:
    """Return the change that an event reports; None if it does not report one of a ref."""
    detail = event.get("detail") or {}
    if detail.get("event") not in EVENT_KINDS:
        return None
    kind = str(detail["event"]).removeprefix("reference").lower()
    commit = _object_id(detail.get("commitId"))
    caller = detail.get("callerUserArn")
    return Change(
        kind,
        str(detail.get("referenceFullName") or _full_name(detail))[:_MAX_TEXT],
        (_object_id(detail.get("oldCommitId")) or (commit if kind == "deleted" else None)),
        commit if kind != "deleted" else None,
        str(caller)[:_MAX_TEXT] if caller else None,
        str(event.get("time", ""))[:_MAX_TIME],
    )


def _object_id(value: object) -> str | None:
    """Return an object's id; None for anything else, since whoever may invoke the function writes events."""
    return value if isinstance(value, str) and re.fullmatch("[0-9a-f]{40}", value) else None


def _full_name(detail: Mapping[str, Any]) -> str:
    name, kind = str(detail.get("referenceName", "")), detail.get("referenceType")
    if name.startswith("refs/"):
        return name
    return f"refs/{'tags' if kind == 'tag' else 'heads'}/{name}" if name else "an unnamed ref"


def judge(
    change: Change,
    replica: Replica,
    read: Callable[[], Advertised],
    is_kept: Callable[[str, str], bool | None],
    tips_of: Callable[[str], Mapping[str, str]],
    now: datetime,
) -> Verdict:
    """Decide what a change means.

    Args:
        change: the change.
        replica: the replica, which knows its own writer.
        read: lists the replica's refs; only called if the answer depends on them.
        is_kept: whether one commit is in the history of another one; None if that would take too much to find out.
        tips_of: the tips that the archive entry with an id keeps, by ref.
        now: the time.
    """
    if change.caller and not replica.is_writer(change.caller):
        return Verdict.BY_SOMEBODY_ELSE
    drops = _drops_commits(change, replica, read, is_kept, tips_of, now)
    if drops is None:
        return Verdict.UNPROVED
    if drops:
        return Verdict.DESTRUCTIVE if change.caller else Verdict.BY_SOMEBODY_ELSE
    return Verdict.BY_A_RUN if change.caller else Verdict.UNATTRIBUTED


def _drops_commits(
    change: Change,
    replica: Replica,
    read: Callable[[], Advertised],
    is_kept: Callable[[str, str], bool | None],
    tips_of: Callable[[str], Mapping[str, str]],
    now: datetime,
) -> bool | None:
    """Whether a change took the last ref that kept a commit, or prepares that, as no run does; None if unknown."""
    if change.ref in (CONFIRMED_TAG, SOURCE_TAG):
        return change.kind == "deleted"
    entry = next(archive_entries([change.ref]), None)
    if entry:
        return _spoils_archive(change, entry[1], timedelta(days=replica.archive_days), now)
    if not replica.archive_days or change.kind == "created":
        return False
    advertised = read()
    entries = advertised.refs.below(ARCHIVE_PREFIX)
    recent = _recent_entries(entries, change.moment or now)
    archived = _archived(entries, recent, tips_of)
    name = original_name(change.ref)
    if change.old is None:
        # Nothing shows what was there, but a run archives whatever it drops.
        return change.kind == "deleted" and not any(ref == name for ref, _ in archived)
    keeping = _keeping(advertised.refs)
    if change.old in keeping.values() or _is_peeled(change, advertised.peeled, recent):
        return False
    if change.kind == "deleted":
        return not any(value == change.old for _, value in archived)
    # Most updates are fast-forwards, for which nothing has to be read but the new tip's history.
    current = change.new if change.new in keeping.values() else keeping.get(change.ref)
    answers = [is_kept(change.old, current)] if current else []
    if True in answers:
        return False
    kept = list(archived)
    if any(value == change.old for _, value in kept):
        return False
    later = dict.fromkeys(value for ref, value in kept if ref == name and value != current)
    answers += [is_kept(change.old, tip) for tip in [*later][:_MAX_FOLLOWERS] if current != change.new]
    if True in answers:
        return False
    return None if None in answers else True


def _is_peeled(change: Change, peeled: RefList, recent: Iterable[tuple[str, str]]) -> bool:
    """Whether what was there is a tag's commit, which an event may name in place of the tag, and the tag is kept."""
    if not change.ref.startswith("refs/tags/"):
        return False
    return change.old in _keeping(peeled).values() or any(peeled.get(entry) == change.old for entry, _ in recent)


def _keeping(refs: RefList) -> RefList:
    """Return the refs that keep commits: branches and tags, of which events tell, without those that runs take away.

    Runs move the confirming tag and the source's, and delete archive entries, whose time may be over in a moment.
    """
    told, taken = ("refs/heads/", "refs/tags/"), (ARCHIVE_PREFIX, CONFIRMED_TAG, SOURCE_TAG)
    return RefList.from_pairs(
        (value.encode(), to_bytes(name))
        for name, value in refs.items()
        if name.startswith(told) and not name.startswith(taken)
    )


def _spoils_archive(change: Change, stamp: str, kept_for: timedelta, now: datetime) -> bool:
    """Whether no run makes a change of an archive entry, with this time in its name.

    A run deletes entries a day after their time is over, changes none, and dates new ones by its own clock.
    """
    try:
        age = (change.moment or now) - parse_time(stamp)
    except ValueError:
        return True
    if change.kind == "created":
        return abs(age) > _SKEW
    return change.kind == "updated" or age <= kept_for + timedelta(days=1) - _SKEW


def _recent_entries(refs: RefList, moment: datetime) -> list[tuple[str, str]]:
    """Return the archive entries nearest to an event, each with what follows its time.

    A run archives what it drops just before it drops it, or at most a day before if the replica refused once.
    """

    def ages() -> Iterator[tuple[timedelta, str, str]]:
        for name, stamp, place in archive_entries(refs):
            with suppress(ValueError):
                if (age := moment - parse_time(stamp)) <= timedelta(days=1):
                    yield abs(age), name, place

    return [(name, place) for _, name, place in heapq.nsmallest(_MAX_ENTRIES, ages())]


def _archived(
    refs: RefList, entries: Iterable[tuple[str, str]], tips_of: Callable[[str], Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """Yield refs with the tips that archive entries keep of them."""
    for name, place in entries:
        yield from [(f"refs/{place}", refs[name])] if "/" in place else tips_of(refs[name]).items()


def lost_entries(names: Iterable[str], archive_days: int, now: datetime) -> list[str]:
    """Return those among a replica's lost refs that are archive entries which no run deletes yet.

    Args:
        names: refs that were there, and that the replica has no longer, or not with the same id.
        archive_days: how long an entry is kept; 0 if there is no archive.
        now: the time.
    """
    begin = format_time(now - timedelta(days=archive_days + 1) + _SKEW)
    entries = archive_entries(names) if archive_days else ()
    return [name for name, stamp, _ in entries if stamp > begin]
