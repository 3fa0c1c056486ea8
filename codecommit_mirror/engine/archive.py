"""The archive on the replica: the tips that runs dropped.

A push has one entry, ``archive/<UTC time>/<hash>``: a commit of our own with an empty tree, whose parents are the
dropped tips and whose message names their refs. It stands beside every branch and below none, so that no tool that
reads a clone's tags takes it for a version. A tip that may be a tag object has an entry of its own.
"""

from __future__ import annotations

import itertools
import re
import time
from typing import Collection, Iterable, Iterator, Mapping, NamedTuple, Sequence

from .failures import MirrorFailure, PackRefused, RetryableError, TooLarge
from .plan import halves, original_name, pushes_within_limit
from .refs import ARCHIVE_PREFIX, Advertisement, Command, Refs, ReplicaRefs
from .settings import Endpoint, Settings
from .text import count, say, to_bytes
from .wire.packs import COMMIT, EMPTY_PACK, NOBODY, TREE, object_id, pack_of
from .wire.protocol import push, read_refs
from .wire.transport import Traffic

ARCHIVE_TIME = "%Y%m%dT%H%M%SZ"
MAX_TIPS = 60
"""How many tips one commit keeps: its parents; git has no limit, and other programs stumble over hundreds."""
MAX_ENTRY_BYTES = 130_000
"""More than the bytes of such a commit: a part's names, and one name of a ref as long as a pkt-line."""
_PART_BYTES = 60_000
ENTRY_FORMAT = 1
"""Of an entry's message: docs/formats.md."""


def dropped_tips(commands: Iterable[Command], safe: Collection[str]) -> dict[str, str]:
    """Return the tips that a push would drop, by ref.

    That another ref has a tip too does not count: another run may drop that one at the same moment, because this one
    has it.

    Args:
        commands: what is about to be pushed.
        safe: refs whose update is a fast-forward.
    """
    return {ref: old for ref, old, _ in commands if old and ref not in safe}


class Entries(NamedTuple):
    """The archive entries that a push needs."""

    names: dict[str, str]
    """The entry that keeps each dropped ref's tip."""
    values: Refs
    """What each entry is to point at."""
    commits: list[bytes]
    """The chain of commits of the common entry, which points at the last one."""

    def missing(self, replica: Refs) -> list[Command]:
        """Return the commands that create the entries which the replica does not have yet."""
        return [Command(name, None, value) for name, value in self.values.items() if name not in replica]


def plan_entries(dropped: Mapping[str, str], replica: ReplicaRefs, now: float) -> Entries:
    """Decide which entries keep some tips.

    An entry that is less than a day old serves again, so that a deletion which is always refused does not fill the
    archive. The tip of a branch is a commit; whether that of a tag is one cannot be seen by who may only push.

    Args:
        dropped: tips by ref.
        replica: all refs on the replica.
        now: seconds since the epoch.
    """
    branches = {value for name, value in replica.items() if name.startswith("refs/heads/")}
    together = [(value, original_name(ref)) for ref, value in sorted(dropped.items()) if value in branches]
    commits = archive_commits(together)
    common = object_id(COMMIT, commits[-1]) if commits else ""
    young = time.strftime(ARCHIVE_TIME, time.gmtime(now - 86400))
    entries = list(archive_entries(replica))
    known = {(place, replica[name]): name for name, stamp, place in entries if stamp >= young}
    stamps = {stamp for _, stamp, _ in entries}
    later = (time.strftime(ARCHIVE_TIME, time.gmtime(now + seconds)) for seconds in itertools.count())
    stamp = next(stamp for stamp in later if stamp not in stamps)
    names: dict[str, str] = {}
    values: Refs = {}
    for ref, tip in dropped.items():
        place, value = (common[:16], common) if tip in branches else (original_name(ref)[len("refs/") :], tip)
        names[ref] = known.get((place, value)) or f"{ARCHIVE_PREFIX}{stamp}/{place}"
        values[names[ref]] = value
    return Entries(names, values, commits)


def archive_commits(tips: Sequence[tuple[str, str]]) -> list[bytes]:
    """Return a chain of commits that keeps tips, each with the name of its ref; the same tips give the same commits."""
    commits: list[bytes] = []
    for part in _parts(tips):
        earlier = [object_id(COMMIT, commits[-1])] if commits else []
        parents = "".join(f"parent {value}\n" for value in dict.fromkeys([*earlier, *(value for value, _ in part)]))
        lines = [*(f"earlier {value}\n" for value in earlier), *(f"{value} {ref}\n" for value, ref in part)]
        commits.append(
            to_bytes(
                f"tree {object_id(TREE, b'')}\n{parents}author {NOBODY} 0 +0000\ncommitter {NOBODY} 0 +0000\n\n"
                f"What a run dropped\n\nformat: {ENTRY_FORMAT}\n{''.join(lines)}"
            )
        )
    return commits


def _parts(tips: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    """Yield tips as the commits keep them: few enough, and with names that are short enough together."""
    start, size = 0, 0
    for end, (_, ref) in enumerate(tips):
        if end > start and (end - start == MAX_TIPS or size + len(to_bytes(ref)) > _PART_BYTES - 100 * MAX_TIPS):
            yield tips[start:end]
            start, size = end, 0
        size += len(to_bytes(ref))
    if tips:
        yield tips[start:]


def expired(replica: Refs, archive_days: int, now: float) -> list[Command]:
    """Return the deletions of archive entries that are older than ``archive_days``.

    For one day an entry also serves later drops of the same tips, so each is kept one day longer.
    """
    limit = time.strftime(ARCHIVE_TIME, time.gmtime(max(0, now - (archive_days + 1) * 86400)))
    return [Command(name, replica[name], None) for name, stamp, _ in archive_entries(replica) if stamp < limit]


def archive_entries(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each archive entry's name, its time, and what follows: a hash, or a ref's name without ``refs/``."""
    for name in sorted(names):
        match = re.match(ARCHIVE_PREFIX + "([0-9]{8}T[0-9]{6}Z)/(.+)", name, re.DOTALL)
        if match:
            yield name, match.group(1), match.group(2)


def push_in_parts(
    replica: Endpoint, capabilities: Sequence[str], commands: Sequence[Command], pack: bytes, traffic: Traffic
) -> dict[str, str]:
    """Push commands, halving a push that is too large; return the refused refs with reasons."""
    try:
        return push(replica, capabilities, commands, pack, traffic)
    except TooLarge:
        if len(commands) == 1:
            raise
    first, second = (push_in_parts(replica, capabilities, part, pack, traffic) for part in halves(commands))
    return {**first, **second}


class Archive:
    """Keeps the tips that a run would drop, before they are dropped."""

    def __init__(self, settings: Settings, traffic: Traffic) -> None:
        self.kept: Refs = {}
        """Tips that this run has put into the archive, by ref."""
        self.skipped: dict[str, str] = {}
        """Refs left alone because their old tips could not be archived, each with the reason."""
        self._settings, self._traffic = settings, traffic
        self._tried: set[str] = set()
        """Refs whose entries have failed once, for a reason that may pass."""
        self._capabilities: tuple[str, ...] = ()
        self._refs = ReplicaRefs({})

    def begin(self, replica: Advertisement) -> None:
        """Start a round with what the replica lists."""
        self._capabilities, self._refs = replica.capabilities, ReplicaRefs(dict(replica.refs))

    def keep(self, commands: Sequence[Command], fast_forwards: Iterable[str]) -> Sequence[Command]:
        """Archive the tips that the commands would drop; return the commands whose old tips are safe."""
        dropped = dropped_tips(commands, set(fast_forwards)) if self._settings.archive_days else {}
        dropped = {ref: tip for ref, tip in dropped.items() if self.kept.get(ref) != tip}
        entries = plan_entries(dropped, self._refs, time.time())
        missing = entries.missing(self._refs)
        reasons: dict[str, str] = {}
        listed = self._refs
        if missing:
            say(f"Archiving {count(dropped, 'tip')} before overwriting or deleting.")
            reasons = self._push(missing, entries.commits)
            listed = ReplicaRefs(read_refs(self._settings.replica, "git-receive-pack").refs)
            self._check(entries, reasons, listed)
        for ref, tip in dropped.items():
            name = entries.names[ref]
            if listed.get(name) == entries.values[name]:
                self.skipped.pop(ref, None)
                self.kept[ref] = tip
                self._refs[name] = entries.values[name]
            else:
                self.skipped[ref] = (
                    f"its old tip could not be kept in the archive ({reasons.get(name, 'no reason given')}), so it was "
                    "not changed; set archive_days: 0 in mirrors.yaml to continue without the archive"
                )
        return [command for command in commands if command.ref not in self.skipped]

    def _check(self, entries: Entries, reasons: Mapping[str, str], listed: Refs) -> None:
        """Give what was reported and is not listed, and what was too large, a second try, as every push has."""
        lacking = {name for name in entries.values if name not in listed and name not in reasons}
        again = {ref for ref, name in entries.names.items() if name in lacking} - self._tried
        self._tried |= again
        if again:
            raise RetryableError("an entry of the archive was reported, but is not there")

    def _push(self, missing: Sequence[Command], commits: Sequence[bytes]) -> dict[str, str]:
        """Create entries; return those that were refused, with the reasons."""
        common = object_id(COMMIT, commits[-1]) if commits else ""
        chain = pack_of([(TREE, b""), *((COMMIT, commit) for commit in commits)])
        pushes: list[tuple[Sequence[Command], bytes]] = [((c,), chain) for c in missing if c.new == common]
        alone = [c for c in missing if c.new != common]
        pushes += [(batch, EMPTY_PACK) for batch in pushes_within_limit(alone)]
        replica = self._settings.replica
        reasons: dict[str, str] = {}
        for batch, pack in pushes:
            try:
                reasons.update(push_in_parts(replica, self._capabilities, batch, pack, self._traffic))
            except PackRefused as refusal:
                reasons.update({entry.ref: str(refusal) for entry in batch})
            except TooLarge as refusal:
                new = {entry.ref for entry in batch} - self._tried
                self._tried |= new
                if new:
                    raise RetryableError(str(refusal)) from None
                reasons.update({entry.ref: str(refusal) for entry in batch})
        return reasons


def remove_expired(settings: Settings, replica: Advertisement, traffic: Traffic) -> int:
    """Delete archive entries that have expired, and return how many; a failure waits for the next run."""
    commands = expired(replica.refs, settings.archive_days, time.time()) if settings.archive_days else []
    removed = 0
    for batch in pushes_within_limit(commands):
        try:
            refused = push_in_parts(settings.replica, replica.capabilities, batch, b"", traffic)
            removed += len(batch) - len(refused)
            if refused:
                entries = count(refused, "expired archive entry", "expired archive entries")
                say(f"{entries} could not be deleted: {min(refused.values())}.")
        except (MirrorFailure, RetryableError, PackRefused, TooLarge) as error:
            say(f"Expired archive entries are kept until the next run: {error}.")
    return removed
