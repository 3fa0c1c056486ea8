"""Rounds of read, plan and push, until both sides are equal or it is clear why they are not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import tempfile
import time
import urllib.parse
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable, Mapping, Sequence

from .archive import remove_expired
from .confirmation import confirm, is_ours, ref_listing
from .failures import MirrorFailure, RetryableError
from .plan import (
    Plan,
    by_original_name,
    is_other,
    mass_deletion,
    original_name,
    outside,
    plan_refs,
    select,
    slash_positions,
    unmirrorable,
)
from .refs import CARRIED_PREFIX, OWN_PREFIX, Advertisement, Command, Refs, ReplicaRefs, SourceRefs
from .report import Outcome, agent_command, report
from .settings import Endpoint, Settings, password_replica, read_settings
from .text import count, list_refs, sanitize, say
from .transfer import Transfer
from .wire.idle import open_ahead
from .wire.protocol import common_objects, read_refs
from .wire.retries import MAX_ROUNDS, retry_delay
from .wire.transport import Traffic, read_body, send

MAX_COMPARED = 200
MAX_PAGES = 1000
MAX_FULL_FAILURES = 2
"""After so many failures the plain URL is asked, in case only the other one fails."""


def mirror(settings: Settings, folder: str, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Make the replica equal to the source.

    A run consists of rounds: read both sides, plan, push, read the replica again. If a round loses a race or its
    connection, another round starts from what the replica has by then, so that nothing is overwritten by mistake.

    ``folder`` is an empty folder for plain git, in case it is needed; ``sleep`` waits between rounds.
    """
    started = time.monotonic()
    run = _Run(settings, folder, sleep)
    outcome = run.finish(run.repeat_rounds())
    outcome.seconds = time.monotonic() - started
    return outcome


@dataclass
class _Round:
    """What a round read, and what it pushed."""

    source: Advertisement
    wanted: SourceRefs
    """The source's refs to mirror."""
    pushed: Sequence[Command]
    refused: Mapping[str, str]
    after: Advertisement
    """The replica, read again."""


class _Run:
    """The state of a run across its rounds."""

    def __init__(self, settings: Settings, folder: str, sleep: Callable[[float], None]) -> None:
        self._settings = settings
        self._sleep = sleep
        self._traffic = Traffic()
        self._transfer = Transfer(settings, folder, self._traffic)
        self._outcome = Outcome()
        self._refusals: dict[str, str] = {}
        """Refs that the replica refused for good, each with the reason."""
        self._unconfirmed: set[str] = set()
        """Refs for which the replica reported a change that it then did not list."""
        self._counted: set[Command] = set()
        self._failures = 0
        """How often the source could not be read."""

    def repeat_rounds(self) -> _Round:
        """Make rounds until one leaves nothing to retry, and return it."""
        problem, number, accepted = "", 0, 0
        while number < MAX_ROUNDS:
            if problem:
                say(f"Trying again: {problem}.")
            try:
                done = self._round(is_first=not problem, is_last=number == MAX_ROUNDS - 1)
            except RetryableError as error:
                problem = str(error)
                # While a round makes progress, the next one has all its tries.
                number = number + 1 if len(self._transfer.done) == accepted else 1
                accepted = len(self._transfer.done)
                if number < MAX_ROUNDS:
                    self._sleep(retry_delay(error, number - 1))
                continue
            moved = self._settle(done)
            if not moved:
                return done
            accepted = len(self._transfer.done)
            number += 1
            problem = f"{list_refs(moved)} changed on the replica in the meantime, or did not change as reported"
        raise MirrorFailure(f"gave up after {MAX_ROUNDS} tries: {problem}; what was pushed is safe, so run again.")

    def _round(self, *, is_first: bool, is_last: bool) -> _Round:
        transfer = self._transfer
        open_ahead(self._settings.source.url)
        # The replica first: a ref that appears at the source in between is then new, and never taken for a deletion.
        replica = read_refs(self._settings.replica, "git-receive-pack")
        try:
            endpoint, source = read_source(self._settings.source, self._traffic, self._failures)
        except RetryableError:
            self._failures += 1
            raise
        settings = replace(self._settings, source=endpoint)
        wanted = select(source.refs, settings.namespaces)
        present = by_original_name(ReplicaRefs(replica.refs), settings.namespaces)
        _check_identity(settings, retry=not is_last)
        if is_first:
            say(
                f"Source {settings.source.url} has {count(wanted, 'ref')}, "
                f"replica {settings.replica.url} has {len(present):,}."
            )
        needs_attention = self._outcome.needs_attention
        needs_attention.clear()
        needs_attention.update(self._check_source(settings, source.refs, wanted, present, retry=not is_last))
        stop = None if transfer.done else foreign_history(settings, source, replica.refs, present)
        if stop:
            raise MirrorFailure(f"nothing was changed: {stop}")
        needs_attention.update(unmirrorable(source.refs, settings.namespaces))
        if not settings.existing:
            needs_attention.update(outside(replica.refs, settings.namespaces))
        blocking_tag = OWN_PREFIX.rstrip("/")
        if blocking_tag in replica.refs:
            needs_attention[blocking_tag] = (
                "this tag on the replica blocks the engine's own refs, which have names below it; delete the tag there"
            )
        given_up = {*self._refusals, *needs_attention}
        refs, refused_names = ReplicaRefs(replica.refs), transfer.refused_names
        _, plan = plan_refs(source, refs, settings.namespaces, refused_names, given_up)
        transfer.begin(endpoint, source, replica, wanted)
        pushed, refused = self._push(plan, replica)
        after = read_refs(settings.replica, "git-receive-pack") if plan else replica
        return _Round(source, wanted, pushed, {**refused, **transfer.archive.skipped}, after)

    def _check_source(
        self, settings: Settings, refs: Refs, wanted: SourceRefs, present: SourceRefs, *, retry: bool
    ) -> dict[str, str]:
        """Stop before any push if the source looks wrong; return the refs that it hides, each with the remedy."""
        if refs and not wanted:
            raise MirrorFailure(
                f"none of the source's {count(refs, 'ref')} is below {' or '.join(settings.namespaces)}; "
                "correct refs: in mirrors.yaml and render the pipeline again."
            )
        hidden = hidden_refs(settings, refs, present, retry=retry)
        stop = mass_deletion(wanted, present, hidden, settings.allow_deletions)
        if stop:
            raise MirrorFailure(f"nothing was changed: {stop}")
        return hidden

    def _push(self, plan: Plan, replica: Advertisement) -> tuple[list[Command], dict[str, str]]:
        """Push what was planned; return the commands that were pushed, and the refused refs."""
        pushed: list[Command] = []
        refused: dict[str, str] = {}
        for number, commands in enumerate(plan, 1):
            say(f"Pushing {count(commands, 'ref')} to the replica ({number} of {len(plan)}).")
            done: Sequence[Command] = commands
            if is_other(commands[0].ref):
                done, batch_refused = self._transfer.carry_others(commands)
            else:
                batch_refused = self._transfer.carry(commands)
            pushed += done
            refused.update(batch_refused)
            self._check_first_branch(done, batch_refused, replica.refs)
            accepted = [c for c in done if c.ref not in batch_refused and c.ref not in self._transfer.archive.skipped]
            self._transfer.done += accepted
            # The next pack can build on what was pushed.
            replica.refs.update({command.ref: command.new for command in accepted if command.new})
        return pushed, refused

    def _check_first_branch(self, done: Sequence[Command], refused: Mapping[str, str], replica: Refs) -> None:
        """Stop if the replica refused its first branch: the next one would become the default branch."""
        if any(name.startswith("refs/heads/") for name in replica):
            return
        branches = [c.ref for c in done if c.new and c.ref.startswith("refs/heads/")]
        by_replica = [ref for ref in branches if ref in refused and ref not in self._transfer.broken]
        if not by_replica or len(by_replica) < len(branches):
            return
        ref, reason = by_replica[0], refused[by_replica[0]]
        if ref in read_refs(self._settings.replica, "git-receive-pack").refs:
            raise RetryableError("another run was faster")
        raise MirrorFailure(
            f"the replica refused {sanitize(ref)} ({sanitize(reason)}); nothing else was pushed, since CodeCommit "
            "makes the first branch that it receives the default one."
        )

    def _settle(self, done: _Round) -> list[str]:
        """Judge each pushed ref by what the replica lists now; return the refs that need another round.

        The server's answer does not count: an update that it reported but does not list is tried once more.
        """
        self._counted.update(done.pushed)
        self._count(done.pushed, done.after.refs)
        moved: list[str] = []
        for ref, old, new in done.pushed:
            current = done.after.refs.get(ref)
            if current == new:
                continue
            if current != old:
                moved.append(ref)
            elif ref in done.refused:
                self._refusals[ref] = done.refused[ref]
            elif ref in self._unconfirmed:
                self._refusals[ref] = "the replica reported the change but did not make it"
            else:
                self._unconfirmed.add(ref)
                moved.append(ref)
        return moved

    def _count(self, commands: Iterable[Command], after: Refs) -> None:
        changed = [command for command in commands if after.get(command.ref) == command.new]
        self._outcome.deleted += sum(new is None for _, _, new in changed)
        self._outcome.created += sum(new is not None and old is None for _, old, new in changed)
        self._outcome.updated += sum(new is not None and old is not None for _, old, new in changed)

    def finish(self, last: _Round) -> Outcome:
        """Clean up the archive, compare both sides, confirm the run, and return its outcome."""
        settings, transfer, outcome, after = self._settings, self._transfer, self._outcome, last.after
        self._count(set(transfer.done) - self._counted, after.refs)
        outcome.archived = dict(transfer.archive.kept)
        outcome.expired = remove_expired(settings, after, self._traffic)
        outcome.carried = sum(name.startswith(CARRIED_PREFIX) for name in after.refs)
        outcome.lfs = bool(transfer.lfs_pointers) or (bool(transfer.done) and _uses_lfs(settings, last.source.head))
        present = by_original_name(ReplicaRefs(after.refs), settings.namespaces)
        self._judge(last.wanted, present)
        if not outcome.broken:
            outcome.confirmed = confirm(settings, after, self._traffic, self._sleep)
        outcome.bytes_from_source = self._traffic.from_source
        outcome.bytes_to_replica = self._traffic.to_replica
        return outcome

    def _judge(self, source: SourceRefs, replica: SourceRefs) -> None:
        """Sort the refs, by the source's names, into equal ones, those that need attention, and broken ones.

        Only one branch can be the replica's default branch, which a person must change before it can be deleted.
        """
        refusals = {original_name(ref): why for ref, why in self._refusals.items()}
        skipped = {original_name(ref) for ref in self._transfer.archive.skipped}
        gone = {name for name in refusals if name not in source} - skipped
        branches = {name for name in gone if name.startswith("refs/heads/")}
        folders = {name[:end] for name in gone for end in slash_positions(name)}
        outcome = self._outcome
        for name in sorted({*source, *replica}):
            if name in outcome.needs_attention:
                continue
            if source.get(name) == replica.get(name):
                outcome.equal += 1
            elif branches == {name}:
                outcome.needs_attention[name] = (
                    f"was deleted at the source, but the replica refused to delete it ({refusals[name]}); if it is the "
                    "default branch there, make another one the default with 'aws codecommit update-default-branch "
                    "--repository-name REPLICA --default-branch-name BRANCH' and run again"
                )
            elif name in source and (name in folders or any(name[:end] in gone for end in slash_positions(name))):
                outcome.needs_attention[name] = "is blocked by a branch that could not be deleted; see that branch"
            else:
                outcome.broken[name] = refusals.get(name) or "differs, and no reason was given; run again"


def _check_identity(settings: Settings, *, retry: bool) -> None:
    """Stop if another repository has the source's name now, according to Azure's REST API (Repositories - Get).

    Raises RetryableError if the API may be available in a moment and ``retry`` says to wait for that.
    """
    if not settings.source_id:
        return
    try:
        answer = _ask_rest_api(settings, "", "")
        actual = str(answer[0]["id"]) if answer else settings.source_id
    except (MirrorFailure, RetryableError, ValueError, LookupError, TypeError) as error:
        if retry and isinstance(error, RetryableError):
            raise
        say("The source's id cannot be read, and is not compared.")
        return
    if actual != settings.source_id:
        raise MirrorFailure(
            f"nothing was changed: {settings.source} has the id {sanitize(actual)}, but this pipeline mirrors the "
            f"repository with the id {sanitize(settings.source_id)}; if the replica is to follow the other one, run "
            "'codecommit-mirror up NAME --change-source'."
        )


def read_source(source: Endpoint, traffic: Traffic | None = None, failures: int = 0) -> tuple[Endpoint, Advertisement]:
    """Read the source's refs, and return them with the endpoint that shows them.

    With *limited refs* the plain URL of Azure Repos hides most branches from a user, and ``/_git/_full/`` shows all
    that the user may read. A server without that is asked as everybody asks it.

    Args:
        source: the source.
        traffic: counts what was read.
        failures: how often that has failed for reasons that may pass.
    """
    base, marker, name = source.url.partition("/_git/")
    if marker and "/" not in name and failures < MAX_FULL_FAILURES:
        full = replace(source, git_url=f"{base}/_git/_full/{name}")
        try:
            return full, read_refs(full, "git-upload-pack", traffic)
        except MirrorFailure:
            pass  # If the source itself is not there, the plain URL says so, too.
    return source, read_refs(source, "git-upload-pack", traffic)


def foreign_history(settings: Settings, source: Advertisement, replica: Refs, present: SourceRefs) -> str | None:
    """Return why a run must not replace what the replica has: no run brought it, and it is not the source's.

    A replica that a run has confirmed is the source's, and so is one with a branch's tip that the source has too. What
    a person lets a run replace has a mark, so that the word is about this and nothing else.
    """
    mark = hashlib.sha256(ref_listing(present)).hexdigest()[:12]
    if not present or is_ours(settings, replica) or settings.replace_history == mark:
        return None
    tips, sources = (
        [value for name, value in refs.items() if name.startswith("refs/heads/")] for refs in (present, source.refs)
    )
    haves = list(dict.fromkeys(tips))[:MAX_COMPARED]
    if set(tips) & set(sources):
        return None
    if haves and sources and common_objects(settings.source, source.capabilities, sources[0], haves, Traffic()):
        return None
    return (
        f"the replica has {count(present, 'ref')} ({list_refs(sorted(present))}) that the source's history does not "
        "have, and no run has ever confirmed this replica for it. Check the names of both. If the source is to replace "
        "what is there ('codecommit-mirror sync NAME --dry-run' shows what that means), run once with "
        f"'codecommit-mirror pipeline run NAME --replace-history {mark}'."
    )


def _uses_lfs(settings: Settings, default_branch: str | None) -> bool:
    """Whether the default branch's .gitattributes names Git LFS, according to Azure's REST API (Items - Get)."""
    if not default_branch:
        return False
    branch = urllib.parse.quote(default_branch[len("refs/heads/") :], safe="")
    version = f"versionDescriptor.versionType=branch&versionDescriptor.version={branch}"
    query = f"path=/.gitattributes&includeContent=true&%24format=json&{version}&"
    try:
        answer = _ask_rest_api(settings, "/items", query)
        return names_lfs(str(answer[0]["content"])) if answer else False
    except (MirrorFailure, RetryableError, ValueError, LookupError, TypeError):
        return False


def names_lfs(gitattributes: str) -> bool:
    """Whether a .gitattributes file puts files into Git LFS."""
    return bool(re.search(r"(?m)^[^#\n]*\sfilter=lfs(\s|$)", gitattributes))


def hidden_refs(settings: Settings, refs: Refs, replica: SourceRefs, *, retry: bool) -> dict[str, str]:
    """Return the refs that Azure Repos has and does not show over Git (*limited refs*), each with the remedy.

    Its REST API is asked if the plain URL was read, or if the replica has a ref that the source does not show.

    Args:
        settings: with the endpoint that was read.
        refs: what it showed.
        replica: the replica's mirrored refs, by the source's names.
        retry: whether to wait for an API that may be available in a moment, by RetryableError.
    """
    if settings.source.git_url and not replica.keys() - refs.keys():
        return {}
    listed = refs_by_rest_api(settings, retry=retry) or set()
    hidden = select(dict.fromkeys(listed - refs.keys(), ""), settings.namespaces)
    if hidden:
        # A ref that was made a moment ago is not hidden.
        now = read_refs(settings.source, "git-upload-pack").refs
        hidden = select(dict.fromkeys(hidden.keys() - now.keys(), ""), settings.namespaces)
    remedy = (
        "Azure DevOps has it, and does not show it to this user over Git (limited refs); let the user see every ref"
    )
    return dict.fromkeys(hidden, remedy)


def refs_by_rest_api(settings: Settings, *, retry: bool) -> set[str] | None:
    """Return the refs that Azure's REST API lists; None if it is not available (Refs - List).

    Raises RetryableError if the API may be available in a moment and ``retry`` says to wait for that.
    """
    names: set[str] = set()
    token = ""
    try:
        for _ in range(MAX_PAGES):
            page = f"&continuationToken={urllib.parse.quote(token)}" if token else ""
            answer = _ask_rest_api(settings, "/refs", f"%24top=1000{page}&")
            if answer is None:
                return None
            names.update(str(ref["name"]) for ref in answer[0]["value"])
            token = answer[1]
            if not token:
                return names
        return None
    except RetryableError:
        if retry:
            raise
        return None
    except (MirrorFailure, ValueError, LookupError, TypeError):
        return None


def _ask_rest_api(settings: Settings, path: str, query: str) -> tuple[Any, str] | None:
    """Return a document about the source and the token of its next page; None if the source is not in Azure Repos."""
    base, marker, repository = settings.source.url.partition("/_git/")
    if not marker:
        return None
    api = replace(settings.source, url=base, git_url="")
    response = send(api, "GET", f"/_apis/git/repositories/{repository}{path}?{query}api-version=6.0", {})
    return json.loads(read_body(api, response)), response.headers.get("x-ms-continuationtoken", "")


def main(replica: Callable[[Mapping[str, str]], Endpoint] = password_replica) -> int:
    """Run once; return the exit status: 0 unless a ref that should be equal is not."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    # The agent reads the summary after this program has ended, and clears its own temporary folder.
    keep = os.environ.get("AGENT_TEMPDIRECTORY")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # A canceled run cleans up too.
    with tempfile.TemporaryDirectory(prefix="mirror-", dir=keep) as folder:
        try:
            settings = read_settings(os.environ, replica)
            say(f"Mirror engine {settings.engine}")
            outcome = mirror(settings, folder)
        except MirrorFailure as failure:
            say(f"Mirror Failed: {failure}")
            agent_command("task.logissue", str(failure), type="error")
            agent_command("task.complete", "", result="Failed")
            return 1
        except Exception as error:
            agent_command(
                "task.logissue", f"the mirror engine crashed ({type(error).__name__}); see the log", type="error"
            )
            raise
        report(outcome, settings, keep or folder)
    return 1 if outcome.broken else 0
