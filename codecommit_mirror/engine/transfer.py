"""Carry commands and their objects to the replica: the pack relay, what it falls back to, and plain git last."""

from __future__ import annotations

import itertools
import re
import zlib
from typing import Iterator, NamedTuple, Sequence

from .archive import Archive
from .failures import MirrorFailure, PackRefused, RetryableError, SourceRefused, TooLarge
from .git import Git, batches_by_command_line
from .plan import by_original_name, carried_name, halves, original_name, useful_haves
from .refs import CARRIED_PREFIX, Advertisement, Command, Pack, Refs, ReplicaRefs, SourceRefs
from .settings import Endpoint, Settings
from .text import count, sanitize, say
from .wire.packs import (
    EMPTY_PACK,
    fetch_commits,
    fetch_pack,
    is_ancestor,
    object_count,
    read_pack,
)
from .wire.protocol import push, read_refs
from .wire.transport import Traffic

BUFFER_BYTES = 16 * 1024 * 1024
"""A pack up to this size is parsed before it is pushed; of a larger one, which is streamed, only so much is."""
MAX_OBJECTS_PER_PUSH = 1_000_000
"""A larger pack is pushed in increments of history."""
COMMITS_PER_INCREMENT = 2000
"""How much history one push of a large branch brings."""
PROOF_BYTES = 4 * 1024 * 1024
"""How much is read of the commits between two tips: some 16,000 of them, beside a pack that is in memory already."""
MAX_PROOFS = 10
"""How many updates a run looks at more closely, to see whether they are fast-forwards; more are archived."""
MAX_HALVINGS = 64
"""How often a run splits refused pushes to find the bad refs."""


class Rung(NamedTuple):
    """One way to carry a push."""

    name: str
    thin: bool = False
    haves: bool = False
    """Whether the pack may build on what the replica has."""
    by_git: bool = False
    in_increments: bool = False


LADDER = (
    Rung("a thin pack with what the replica lacks", thin=True, haves=True),
    Rung("a self-contained pack with what the replica lacks", haves=True),
    Rung("a self-contained pack with everything"),
    Rung("plain git", by_git=True),
    Rung("plain git, in increments of history", by_git=True, in_increments=True),
)
"""From the cheapest to the simplest. A run never goes up again:

    obstacle                                    from a pack to      from plain git to
    either side refuses this form of pack       the next rung       -
    the replica does not report its result      plain git           -
    the push is too large                       increments          -
"""
PLAIN_GIT, INCREMENTS = LADDER[3:]


class PackSource:
    """Asks the source for packs, and tells a damaged ref from a broken connection."""

    def __init__(self, settings: Settings, traffic: Traffic) -> None:
        self.has_provided = False
        """Whether this run got a pack in the present form, so that the next refusal is a damaged ref's."""
        self.breaks = 0
        """How many packs in a row broke off."""
        self.endpoint, self._traffic = settings.source, traffic
        self._isolating = False
        """Whether requests are split to find the refs at which the source keeps breaking the connection."""
        self._source = Advertisement({})
        self._refs = SourceRefs({})

    def begin(self, endpoint: Endpoint, source: Advertisement, wanted: SourceRefs) -> None:
        """Start a round with what the source lists at an endpoint, and with those of its refs that are mirrored."""
        self.endpoint, self._source, self._refs, self._isolating = endpoint, source, wanted, False

    def request(
        self, rung: Rung, replica: Advertisement, wants: Sequence[str], haves: Sequence[str]
    ) -> tuple[bytes, Iterator[bytes] | None]:
        """Request a pack; return its start, and its rest (None if the start is all of it)."""
        thin = rung.thin and "no-thin" not in replica.capabilities
        pack = self._stream(wants, haves, thin=thin, ofs_delta="ofs-delta" in replica.capabilities)
        start = bytearray()
        for part in pack:
            start += part
            if len(start) > BUFFER_BYTES:
                return bytes(start), pack
        return bytes(start), None

    def commits(self, want: str, have: str) -> bytearray:
        """Return the start of a pack with the commits between two tips; nothing if the source does not provide it."""
        try:
            offers = self._source.capabilities
            return fetch_commits(self.endpoint, offers, want, have, self._traffic, PROOF_BYTES)
        except (SourceRefused, RetryableError, MirrorFailure):
            # Then nothing is shown, and the tip is archived.
            return bytearray()

    def explain(self, refusal: SourceRefused, asked: set[str]) -> Exception:
        """Return RetryableError if what was asked for has changed since it was read, and the refusal otherwise."""
        # As git and Azure Repos say it of an object that no ref has any longer.
        if not re.search("not our ref|TF401035", str(refusal)):
            return refusal
        now = read_refs(self.endpoint, "git-upload-pack", self._traffic).refs
        if any(now.get(name) != value for name, value in self._refs.items() if value in asked):
            return RetryableError("the source's refs changed while they were being read")
        return refusal

    def _stream(self, wants: Sequence[str], haves: Sequence[str], *, thin: bool, ofs_delta: bool) -> Iterator[bytes]:
        """Yield a pack; raise RetryableError if the source changed, SourceRefused if it cannot provide its refs."""
        try:
            offers = self._source.capabilities
            yield from fetch_pack(self.endpoint, offers, wants, haves, self._traffic, thin=thin, ofs_delta=ofs_delta)
            self.has_provided, self.breaks = True, 0
        except SourceRefused as refusal:
            raise self.explain(refusal, set(wants)) from None
        except RetryableError as error:
            if error.status == 429:
                raise
            self.breaks += 1
            self._isolating = self._isolating or self.breaks > 2
            if self._isolating:
                raise SourceRefused(f"{error}, repeatedly") from None
            raise


class Transfer:
    """Carries commands and their objects to the replica, after archiving the tips that they would drop.

    If a server refuses a form of pack, the rest of the run uses a simpler form.
    """

    def __init__(self, settings: Settings, folder: str, traffic: Traffic) -> None:
        self.archive = Archive(settings, traffic)
        self.refused_names: set[str] = set()
        """Names that the replica does not accept, so that it carries the refs under other names."""
        self.broken: set[str] = set()
        """Refs that the source lists but cannot provide."""
        self.done: list[Command] = []
        """Commands that the replica accepted, including those of rounds that failed."""
        self.lfs_pointers = 0
        self.traffic = traffic
        self._settings, self._folder = settings, folder
        self._packs = PackSource(settings, traffic)
        self._rung = LADDER[0]
        self._git: Git | None = None
        self._broken_pushes = 0
        self._broken_other_pushes = 0
        self._halvings_left = MAX_HALVINGS
        self._proofs_left = MAX_PROOFS
        self._head: str | None = None
        self._replica = Advertisement({})
        self._before: Refs = {}

    def begin(self, endpoint: Endpoint, source: Advertisement, replica: Advertisement, wanted: SourceRefs) -> None:
        """Start a round with what both sides list, and with the source's refs that are mirrored."""
        self._head, self._replica = source.head, replica
        self._packs.begin(endpoint, source, wanted)
        self.archive.begin(replica)
        present = by_original_name(ReplicaRefs(replica.refs), self._settings.namespaces)
        self._before = {name: value for name, value in present.items() if not name.startswith("refs/heads/")}

    def carry(self, commands: Sequence[Command]) -> dict[str, str]:
        """Push the commands; return the refused refs with the reasons.

        If either side refuses the push as a whole, its halves are tried, so that one bad ref does not stop the others.
        """
        try:
            refused = self._carry_falling_back(commands)
        except SourceRefused as refusal:
            refused = self._not_provided(commands, refusal)
        pushed = [command for command in commands if command.ref not in self.archive.skipped]
        if len(refused) == len(pushed) and self._may_halve(pushed):
            self.broken.difference_update(refused)
            parts = (self.carry(part) for part in halves(pushed))
            return {ref: why for part in parts for ref, why in part.items()}
        return refused

    def carry_others(self, commands: Sequence[Command]) -> tuple[list[Command], dict[str, str]]:
        """Push refs outside branches and tags; return the commands that were pushed, and the refused refs.

        Refs that the replica refuses are pushed below ``CARRIED_PREFIX``, so that nothing is lost. It is asked only
        once, with the form of pack that it accepted for branches and tags.
        """
        breaks = self._packs.breaks
        try:
            refused = self._carry_once(commands)
        except (PackRefused, RetryableError) as refusal:
            if self._packs.breaks > breaks:
                raise  # The source failed, not the replica.
            # The first failure may be transient: a broken connection, or an abort for refs that were accepted.
            self._broken_other_pushes += 1
            known = isinstance(refusal, PackRefused) and not any(command.old for command in commands)
            if self._broken_other_pushes < 2 and not known:
                raise RetryableError(str(refusal), getattr(refusal, "wait_seconds", 0)) from None
            if getattr(refusal, "status", 0) == 429:
                raise
            refused = {command.ref: str(refusal) for command in commands}
        except SourceRefused as refusal:
            if not self._may_halve(commands):
                return list(commands), self._not_provided(commands, refusal)
            first, second = (self.carry_others(part) for part in halves(commands))
            return first[0] + second[0], {**first[1], **second[1]}
        remaining = {command.ref: command for command in commands if command.ref in refused and command.new}
        if not remaining:
            return list(commands), refused
        self.refused_names.update(remaining)
        say(f"The replica accepts {count(remaining, 'ref')} outside branches and tags only below {CARRIED_PREFIX}.")
        carried = [
            Command(carried_name(ref), self._replica.refs.get(carried_name(ref)), command.new)
            for ref, command in remaining.items()
        ]
        kept = [command for command in commands if command.ref not in remaining]
        refused = {ref: why for ref, why in refused.items() if ref not in remaining}
        return kept + carried, {**refused, **self.carry(carried)}

    def _may_halve(self, commands: Sequence[Command]) -> bool:
        if len(commands) < 2 or not self._halvings_left:
            return False
        self._halvings_left -= 1
        return True

    def _not_provided(self, commands: Sequence[Command], refusal: SourceRefused) -> dict[str, str]:
        refused = {command.ref: f"the source cannot provide this ref: {refusal}" for command in commands}
        self.broken.update(refused)
        return refused

    def _carry_falling_back(self, commands: Sequence[Command]) -> dict[str, str]:
        started_on = self._rung
        while True:
            try:
                return self._carry_once(commands)
            except PackRefused as refusal:
                try:
                    self._step_down(self._next_rung(), str(refusal))
                except MirrorFailure as failure:
                    self._rung = started_on
                    return {command.ref: f"{refusal}, and {failure}" for command in commands}
            except SourceRefused as refusal:
                # After a pack in this form, the cause is a damaged ref and not the form.
                if self._packs.has_provided or not self._works_on_the_next_rung(commands, refusal):
                    if not self._rung.by_git:
                        self._rung = started_on
                    raise

    def _carry_once(self, commands: Sequence[Command]) -> dict[str, str]:
        """Push on the present rung, or with plain git if the replica does not report or calls the push too large."""
        if not self._rung.by_git and "report-status" not in self._replica.capabilities:
            self._step_down(PLAIN_GIT, "the replica does not offer to report the result of a push")
        if not self._rung.by_git:
            try:
                return self._relay(commands)
            except TooLarge as refusal:
                self._step_down(INCREMENTS, str(refusal))
        return self._by_git(commands)

    def _next_rung(self) -> Rung:
        return LADDER[LADDER.index(self._rung) + 1]

    def _step_down(self, rung: Rung, reason: str) -> None:
        say(f"Falling back to {rung.name}: {reason}.")
        if rung.by_git:
            self._git = Git(self._folder)
        self._rung = rung

    def _works_on_the_next_rung(self, commands: Sequence[Command], refusal: SourceRefused) -> bool:
        """Go down for a source that has provided no pack; to plain git only if that can fetch."""
        if self._rung.by_git:
            return False
        rung = self._next_rung()
        if not rung.by_git:
            say(f"Trying {rung.name}: the source refused ({refusal}).")
            self._rung = rung
            return True
        try:
            git = Git(self._folder)
            git.fetch(self._packs.endpoint, self._names_at_source(commands))
        except (SourceRefused, RetryableError, MirrorFailure):
            return False
        say(f"Falling back to plain git: the source refuses every form of pack ({refusal}).")
        self._git, self._rung = git, rung
        return True

    def _names_at_source(self, commands: Sequence[Command]) -> list[str]:
        return [original_name(command.ref) for command in commands if command.new]

    def _relay(self, commands: Sequence[Command]) -> dict[str, str]:
        """Stream one pack from the source to the replica; return the refused refs with the reasons."""
        if "delete-refs" not in self._replica.capabilities and any(command.new is None for command in commands):
            return {command.ref: "the replica does not support deleting refs" for command in commands}
        present = set(self._replica.refs.values())
        wants = sorted({command.new for command in commands if command.new} - present)
        pack: Pack = EMPTY_PACK
        fast_forwards: list[str] = []
        if wants:
            refs = ReplicaRefs(self._replica.refs)
            haves = useful_haves(commands, refs, self._before, self._head) if self._rung.haves else []
            start, rest = self._packs.request(self._rung, self._replica, wants, haves)
            self.traffic.objects = objects = object_count(start)
            if objects > MAX_OBJECTS_PER_PUSH:
                raise TooLarge(f"the pack has {objects:,} objects")
            pack = start if rest is None else itertools.chain([start], rest)
            fast_forwards = self._fast_forwards(commands, start)
        commands = self.archive.keep(commands, fast_forwards)
        if not commands:
            return {}
        try:
            refused = push(self._settings.replica, self._replica.capabilities, commands, pack, self.traffic)
            self._broken_pushes = 0
            return refused
        except RetryableError as error:
            if error.status in (408, 504) or (not isinstance(pack, bytes) and error.status != 429):
                self._broken_pushes += 1
                if self._broken_pushes > 1:
                    raise TooLarge(f"{error}, for the second time") from None
            raise

    def _fast_forwards(self, commands: Sequence[Command], pack: bytes) -> list[str]:
        """Return the refs whose update is shown to be a fast-forward, by the pack or by the commits alone.

        A pack may have commits as deltas of what only the replica has, or be larger than what is parsed of it.
        """
        updates = [command for command in commands if command.old and command.new]
        shown = self._inspect(updates, pack)
        # Without an archive, nothing depends on it.
        unproved = [c for c in updates if c.ref not in shown and not c.ref.startswith("refs/tags/")]
        for command in unproved[: self._proofs_left] if self._settings.archive_days else ():
            self._proofs_left -= 1
            shown |= self._inspect([command], self._packs.commits(command.new or "", command.old or ""))
        return sorted(shown)

    def _inspect(self, updates: Sequence[Command], pack: bytes | bytearray) -> set[str]:
        """Count the LFS pointers in a pack, and return the refs whose update it shows to be a fast-forward."""
        try:
            contents = read_pack(pack)
        except (zlib.error, IndexError, RetryableError):
            # The replica refuses what is malformed.
            return set()
        self.lfs_pointers += contents.lfs_pointers
        return {c.ref for c in updates if is_ancestor(c.old or "", c.new or "", contents.parents)}

    def _by_git(self, commands: Sequence[Command]) -> dict[str, str]:
        git = self._git or Git(self._folder)
        try:
            git.fetch(self._packs.endpoint, self._names_at_source(commands))
        except SourceRefused as refusal:
            raise self._packs.explain(refusal, {command.new for command in commands if command.new}) from None
        self._packs.has_provided = True
        updates = [c for c in commands if c.old and c.new and c.ref.startswith("refs/heads/")]
        fast_forwards = [c.ref for c in updates if git.is_ancestor(c.old or "", c.new or "")]
        commands = self.archive.keep(commands, fast_forwards)
        refused: dict[str, str] = {}
        if self._rung.in_increments:
            attempts = [self._push_increments(git, command) for command in commands]
            refused = {ref: why for _, refusals in attempts for ref, why in refusals.items()}
            commands = [command for command, _ in attempts if command.ref not in refused]
        for batch in batches_by_command_line(commands):
            refused.update(git.push(self._settings.replica, batch))
        return refused

    def _push_increments(self, git: Git, command: Command) -> tuple[Command, dict[str, str]]:
        """Push a branch's history piece by piece; return the command for the last piece, and the refused refs."""
        steps = git.increments(command, self._replica.refs.values(), COMMITS_PER_INCREMENT)
        for number, step in enumerate(steps, 1):
            say(f"Pushing {sanitize(command.ref)} in increments of history ({number} of {len(steps) + 1}).")
            refused = git.push(self._settings.replica, [step])
            if refused:
                return command, refused
            self._replica.refs[command.ref] = step.new or ""
        return (command._replace(old=steps[-1].new) if steps else command), {}
