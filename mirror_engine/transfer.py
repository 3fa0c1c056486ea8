"""Carry commands and their objects to the replica: the pack relay, what it falls back to, and plain git last."""

from __future__ import annotations

import itertools
import time
import zlib
from typing import Iterable, Iterator, NamedTuple, Sequence

from .archive import push_in_parts, to_archive
from .git import Git, batches_by_command_line
from .model import (
    CARRIED_PREFIX,
    Advertisement,
    Command,
    MirrorFailure,
    Pack,
    PackRefused,
    Refs,
    RetryableError,
    Settings,
    SourceRefused,
    TooLarge,
    count,
    sanitize,
    say,
)
from .packs import EMPTY_PACK, is_ancestor, object_count, read_pack, verify_checksum
from .plan import batches, by_original_name, carried_name, halves, original_name, useful_haves
from .protocol import offered, push, read_refs, request_pack
from .transport import AGENT, Traffic

BUFFER_BYTES = 16 * 1024 * 1024
"""A pack up to this size is parsed before it is pushed; a larger one is streamed without being parsed."""
MAX_OBJECTS_PER_PUSH = 1_000_000
"""A larger pack is pushed in increments of history."""
MAX_HALVINGS = 64
"""How often a run splits refused pushes to find the bad refs."""


class Form(NamedTuple):
    """What a pack may assume to be on the replica."""

    name: str
    thin: bool
    haves: bool


FORMS = (
    Form("a thin pack with what the replica lacks", thin=True, haves=True),
    Form("a self-contained pack with what the replica lacks", thin=False, haves=True),
    Form("a self-contained pack with everything", thin=False, haves=False),
)
"""From the cheapest to the simplest; plain git comes last."""


class Transfer:
    """Carries commands and their objects to the replica, after archiving the tips that they would drop.

    If a server refuses a form of pack, the rest of the run uses a simpler form.
    """

    def __init__(self, settings: Settings, folder: str, traffic: Traffic) -> None:
        self.archived: Refs = {}
        """Archive entries that this run created."""
        self.skipped: dict[str, str] = {}
        """Refs left alone because their old tips could not be archived, each with the reason."""
        self.refused_names: set[str] = set()
        """Names that the replica does not accept, so that it carries the refs under other names."""
        self.broken: set[str] = set()
        """Refs that the source lists but cannot provide."""
        self.done: list[Command] = []
        """Commands that the replica accepted, including those of rounds that failed."""
        self.lfs_pointers = 0
        self.traffic = traffic
        self._settings = settings
        self._folder = folder
        self._forms = list(FORMS)
        self._git: Git | None = None
        self._source_provided_a_pack = False
        self._large = False
        self._broken_pushes = 0
        self._broken_other_pushes = 0
        self._broken_packs = 0
        self._isolating = False
        """Whether requests are split to find the refs at which the source keeps breaking the connection."""
        self._archive_was_too_large = False
        self._halvings_left = MAX_HALVINGS
        self._source = self._replica = Advertisement({})
        self._source_refs: Refs = {}
        self._wanted: Refs = {}
        self._replica_refs: Refs = {}
        self._before: Refs = {}

    def begin(self, source: Advertisement, replica: Advertisement, mirrored: Refs, wanted: Refs) -> None:
        """Start a round with what was read; ``wanted`` has the source's ``mirrored`` refs by the replica's names."""
        self._source, self._replica = source, replica
        self._source_refs, self._wanted, self._replica_refs = mirrored, wanted, dict(replica.refs)
        self._isolating = False
        present = by_original_name(replica.refs, self._settings.namespaces)
        self._before = {name: value for name, value in present.items() if not name.startswith("refs/heads/")}

    def carry(self, commands: Sequence[Command]) -> dict[str, str]:
        """Push the commands; return the refused refs with the reasons.

        If either side refuses the push as a whole, its halves are tried, so that one bad ref does not stop the others.
        """
        try:
            refused = self._carry_falling_back(commands)
        except SourceRefused as refusal:
            refused = self._not_provided(commands, refusal)
        pushed = [command for command in commands if command.ref not in self.skipped]
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
        broken_packs = self._broken_packs
        try:
            refused = self._carry_once(commands)
        except (PackRefused, RetryableError) as refusal:
            if self._broken_packs > broken_packs:
                raise  # It was the source, and says nothing about the replica.
            # The first failure may be chance: a broken connection, or an abort for refs that the replica has accepted.
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
        forms = list(self._forms)
        while True:
            try:
                return self._carry_once(commands)
            except PackRefused as refusal:
                try:
                    self._fall_back(str(refusal))
                except MirrorFailure as failure:
                    self._forms = forms
                    return {command.ref: f"{refusal}, and {failure}" for command in commands}
            except SourceRefused as refusal:
                # After a pack in this form, the cause is a damaged ref and not the form.
                if self._source_provided_a_pack or not self._works_in_a_simpler_form(commands, refusal):
                    self._forms = forms
                    raise

    def _carry_once(self, commands: Sequence[Command]) -> dict[str, str]:
        """Push in the current form, or with plain git if the replica does not report or calls the push too large."""
        git = self._git
        if git is None and "report-status" not in self._replica.capabilities:
            git = self._use_git("the replica does not offer to report the result of a push")
        if git is None:
            try:
                return self._relay(commands)
            except TooLarge as refusal:
                self._large = True
                git = self._use_git(str(refusal), "plain git, in increments of history")
        return self._by_git(git, commands)

    def _fall_back(self, reason: str) -> None:
        forms = self._forms[1:]
        if not forms:
            self._use_git(reason)
            return
        say(f"Falling back to {forms[0].name}: {reason}.")
        self._forms = forms

    def _use_git(self, reason: str, what: str = "plain git") -> Git:
        say(f"Falling back to {what}: {reason}.")
        git = Git(self._folder)
        self._git = git
        return git

    def _works_in_a_simpler_form(self, commands: Sequence[Command], refusal: SourceRefused) -> bool:
        """Go to the next form of pack for a source that has provided none; to plain git only if that can fetch."""
        if self._git:
            return False
        following = self._forms[1:]
        if following:
            say(f"Trying {following[0].name}: the source refused ({refusal}).")
            self._forms = following
            return True
        try:
            git = Git(self._folder)
            git.fetch(self._settings.source, self._names_at_source(commands))
        except (SourceRefused, RetryableError, MirrorFailure):
            return False
        say(f"Falling back to plain git: the source refuses every form of pack ({refusal}).")
        self._git = git
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
            start, rest, objects = self._request(commands, wants)
            self.traffic.objects = objects
            if objects > MAX_OBJECTS_PER_PUSH:
                raise TooLarge(f"the pack has {objects:,} objects")
            if rest is None:
                pack = start
                fast_forwards = self._inspect(commands, start)
            else:
                pack = itertools.chain([start], rest)
        commands = self._archive_or_skip(commands, fast_forwards)
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

    def _request(self, commands: Sequence[Command], wants: Sequence[str]) -> tuple[bytes, Iterator[bytes] | None, int]:
        """Request a pack; return its start, its rest (None if the start is all of it), and its number of objects."""
        form = self._forms[0]
        capabilities = offered(self._source.capabilities, "side-band-64k", "no-progress")
        capabilities += offered(self._source.capabilities, "multi_ack_detailed", "multi_ack")[:1]
        if "side-band-64k" not in capabilities:
            raise SourceRefused("the source does not offer side-band-64k")
        if form.thin and "no-thin" not in self._replica.capabilities:
            capabilities += offered(self._source.capabilities, "thin-pack")
        if "ofs-delta" in self._replica.capabilities:
            capabilities += offered(self._source.capabilities, "ofs-delta")
        capabilities += offered(self._source.capabilities, AGENT)
        haves = useful_haves(commands, self._replica.refs, self._before, self._source.head) if form.haves else []
        pack = self._pack_from_source(capabilities, wants, haves)
        start = bytearray()
        for part in pack:
            start += part
            if len(start) > BUFFER_BYTES:
                return bytes(start), pack, object_count(start)
        return bytes(start), None, object_count(start)

    def _pack_from_source(
        self, capabilities: Sequence[str], wants: Sequence[str], haves: Sequence[str]
    ) -> Iterator[bytes]:
        """Yield a pack; raise RetryableError if the source changed, SourceRefused if it cannot provide its refs."""
        try:
            yield from verify_checksum(request_pack(self._settings.source, capabilities, wants, haves, self.traffic))
            self._source_provided_a_pack = True
            self._broken_packs = 0
        except SourceRefused as refusal:
            if "not our ref" in str(refusal):
                now = read_refs(self._settings.source, "git-upload-pack", self.traffic).refs
                asked = set(wants)
                if any(now.get(name) != value for name, value in self._source_refs.items() if value in asked):
                    raise RetryableError("the source's refs changed while they were being read") from None
            raise
        except RetryableError as error:
            if error.status == 429:
                raise
            self._broken_packs += 1
            self._isolating = self._isolating or self._broken_packs > 2
            if self._isolating:
                raise SourceRefused(f"{error}, repeatedly") from None
            raise

    def _inspect(self, commands: Sequence[Command], pack: bytes) -> list[str]:
        """Count the LFS pointers in a pack, and return the refs whose update it shows to be a fast-forward."""
        try:
            contents = read_pack(pack)
        except (zlib.error, IndexError):
            return []
        self.lfs_pointers += contents.lfs_pointers
        updates = [command for command in commands if command.old and command.new]
        return [c.ref for c in updates if is_ancestor(c.old or "", c.new or "", contents.parents)]

    def _archive_or_skip(self, commands: Sequence[Command], fast_forwards: Iterable[str]) -> Sequence[Command]:
        """Archive the tips that the commands would drop; return the commands whose old tips are safe."""
        if not self._settings.archive_days:
            return commands
        entries = to_archive(commands, fast_forwards, self._wanted, self._replica_refs, time.time())
        if not entries:
            return commands
        say(f"Archiving {count(entries, 'tip')} before overwriting or deleting.")
        reasons: dict[str, str] = {}
        for batch in batches(list(entries.values())):
            try:
                reasons.update(push_in_parts(self._settings.replica, self._replica.capabilities, batch, self.traffic))
            except PackRefused as refusal:
                reasons.update({entry.ref: str(refusal) for entry in batch})
            except TooLarge as refusal:
                if not self._archive_was_too_large:
                    self._archive_was_too_large = True
                    raise RetryableError(str(refusal)) from None
                reasons.update({entry.ref: str(refusal) for entry in batch})
        archived_now = read_refs(self._settings.replica, "git-receive-pack").refs
        for ref, entry in entries.items():
            if entry.new and archived_now.get(entry.ref) == entry.new:
                self.skipped.pop(ref, None)
                self.archived[entry.ref] = self._replica_refs[entry.ref] = entry.new
            else:
                self.skipped[ref] = (
                    f"its old tip could not be kept in the archive ({reasons.get(entry.ref, 'no reason given')}), so "
                    "it was not changed; set archive_days: 0 in mirrors.yaml to continue without the archive"
                )
        return [command for command in commands if command.ref not in self.skipped]

    def _by_git(self, git: Git, commands: Sequence[Command]) -> dict[str, str]:
        git.fetch(self._settings.source, self._names_at_source(commands))
        self._source_provided_a_pack = True
        updates = [c for c in commands if c.old and c.new and c.ref.startswith("refs/heads/")]
        fast_forwards = [c.ref for c in updates if git.is_ancestor(c.old or "", c.new or "")]
        commands = self._archive_or_skip(commands, fast_forwards)
        refused: dict[str, str] = {}
        if self._large:
            attempts = [self._push_increments(git, command) for command in commands]
            refused = {ref: why for _, refusals in attempts for ref, why in refusals.items()}
            commands = [command for command, _ in attempts if command.ref not in refused]
        for batch in batches_by_command_line(commands):
            refused.update(git.push(self._settings.replica, batch))
        return refused

    def _push_increments(self, git: Git, command: Command) -> tuple[Command, dict[str, str]]:
        """Push a branch's history piece by piece; return the command for the last piece, and the refused refs."""
        steps = git.increments(command, self._replica.refs.values())
        for number, step in enumerate(steps, 1):
            say(f"Pushing {sanitize(command.ref)} in increments of history ({number} of {len(steps) + 1}).")
            refused = git.push(self._settings.replica, [step])
            if refused:
                return command, refused
            self._replica.refs[command.ref] = step.new or ""
        return (command._replace(old=steps[-1].new) if steps else command), {}
