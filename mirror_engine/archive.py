"""The archive on the replica: the tips that runs dropped."""

from __future__ import annotations

import itertools
import re
import time
from typing import Iterable, Iterator, Sequence

from .failures import MirrorFailure, PackRefused, RetryableError, TooLarge
from .plan import halves, original_name, pushes_within_limit
from .refs import ARCHIVE_PREFIX, Advertisement, Command, Refs, ReplicaRefs
from .settings import Endpoint, Settings
from .text import count, say
from .wire.packs import EMPTY_PACK
from .wire.protocol import push, read_refs
from .wire.transport import Traffic

ARCHIVE_TIME = "%Y%m%dT%H%M%SZ"


def to_archive(
    commands: Iterable[Command], safe: Iterable[str], replica: ReplicaRefs, now: float
) -> dict[str, Command]:
    """Return the commands that keep the tips which a push would drop, by the dropped ref's name.

    An entry's name is ``refs/tags/codecommit-mirror/archive/<UTC time>/<the source's name without refs/>``. A tip
    needs none while an entry for the same ref has it which is less than a day old (so that a deletion that is always
    refused does not fill the archive). That another ref has it too does not count: another run may drop that one at the
    same moment, because this one has the tip.

    Args:
        commands: what is about to be pushed.
        safe: refs whose update is a fast-forward.
        replica: all refs on the replica.
        now: seconds since the epoch.
    """
    young = time.strftime(ARCHIVE_TIME, time.gmtime(now - 86400))
    entries = list(archive_entries(replica))
    kept = {(ref, replica[name]) for name, stamp, ref in entries if stamp >= young}
    stamps, safe = {stamp for _, stamp, _ in entries}, set(safe)
    later = (time.strftime(ARCHIVE_TIME, time.gmtime(now + seconds)) for seconds in itertools.count())
    stamp = next(stamp for stamp in later if stamp not in stamps)
    return {
        ref: Command(f"{ARCHIVE_PREFIX}{stamp}/{original_name(ref)[len('refs/') :]}", None, old)
        for ref, old, _ in commands
        if old and ref not in safe and (original_name(ref), old) not in kept
    }


def expired(replica: Refs, archive_days: int, now: float) -> list[Command]:
    """Return the deletions of archive entries that are older than ``archive_days``.

    For one day an entry also covers later drops of the same tip, so each is kept one day longer.
    """
    limit = time.strftime(ARCHIVE_TIME, time.gmtime(max(0, now - (archive_days + 1) * 86400)))
    return [Command(name, replica[name], None) for name, stamp, _ in archive_entries(replica) if stamp < limit]


def archive_entries(replica: Refs) -> Iterator[tuple[str, str, str]]:
    """Yield each archive entry's name, its time, and the ref whose tip it keeps."""
    for name in sorted(replica):
        match = re.match(ARCHIVE_PREFIX + "([0-9]{8}T[0-9]{6}Z)/(.+)", name, re.DOTALL)
        if match:
            yield name, match.group(1), f"refs/{match.group(2)}"


def push_in_parts(
    replica: Endpoint, capabilities: Sequence[str], commands: Sequence[Command], traffic: Traffic
) -> dict[str, str]:
    """Push commands that need no objects, halving a push that is too large; return the refused refs with reasons."""
    pack = EMPTY_PACK if any(command.new for command in commands) else b""
    try:
        return push(replica, capabilities, commands, pack, traffic)
    except TooLarge:
        if len(commands) == 1:
            raise
    first, second = (push_in_parts(replica, capabilities, part, traffic) for part in halves(commands))
    return {**first, **second}


class Archive:
    """Keeps the tips that a run would drop, before they are dropped."""

    def __init__(self, settings: Settings, traffic: Traffic) -> None:
        self.created: Refs = {}
        """Entries that this run created."""
        self.skipped: dict[str, str] = {}
        """Refs left alone because their old tips could not be archived, each with the reason."""
        self._settings, self._traffic = settings, traffic
        self._was_too_large = False
        self._capabilities: tuple[str, ...] = ()
        self._refs = ReplicaRefs({})

    def begin(self, replica: Advertisement) -> None:
        """Start a round with what the replica lists."""
        self._capabilities, self._refs = replica.capabilities, ReplicaRefs(dict(replica.refs))

    def keep(self, commands: Sequence[Command], fast_forwards: Iterable[str]) -> Sequence[Command]:
        """Archive the tips that the commands would drop; return the commands whose old tips are safe."""
        if not self._settings.archive_days:
            return commands
        entries = to_archive(commands, fast_forwards, self._refs, time.time())
        if not entries:
            return commands
        say(f"Archiving {count(entries, 'tip')} before overwriting or deleting.")
        reasons: dict[str, str] = {}
        for batch in pushes_within_limit(list(entries.values())):
            try:
                reasons.update(push_in_parts(self._settings.replica, self._capabilities, batch, self._traffic))
            except PackRefused as refusal:
                reasons.update({entry.ref: str(refusal) for entry in batch})
            except TooLarge as refusal:
                if not self._was_too_large:
                    self._was_too_large = True
                    raise RetryableError(str(refusal)) from None
                reasons.update({entry.ref: str(refusal) for entry in batch})
        archived_now = read_refs(self._settings.replica, "git-receive-pack").refs
        for ref, entry in entries.items():
            if entry.new and archived_now.get(entry.ref) == entry.new:
                self.skipped.pop(ref, None)
                self.created[entry.ref] = self._refs[entry.ref] = entry.new
            else:
                self.skipped[ref] = (
                    f"its old tip could not be kept in the archive ({reasons.get(entry.ref, 'no reason given')}), so "
                    "it was not changed; set archive_days: 0 in mirrors.yaml to continue without the archive"
                )
        return [command for command in commands if command.ref not in self.skipped]


def remove_expired(settings: Settings, replica: Advertisement, traffic: Traffic) -> int:
    """Delete archive entries that have expired, and return how many; a failure waits for the next run."""
    commands = expired(replica.refs, settings.archive_days, time.time()) if settings.archive_days else []
    removed = 0
    for batch in pushes_within_limit(commands):
        try:
            refused = push_in_parts(settings.replica, replica.capabilities, batch, traffic)
            removed += len(batch) - len(refused)
            if refused:
                entries = count(refused, "expired archive entry", "expired archive entries")
                say(f"{entries} could not be deleted: {min(refused.values())}.")
        except (MirrorFailure, RetryableError, PackRefused, TooLarge) as error:
            say(f"Expired archive entries are kept until the next run: {error}.")
    return removed
