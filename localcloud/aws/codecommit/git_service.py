"""CodeCommit's Git service over smart HTTP, as it was recorded: what it advertises, takes and refuses.

AWS documents little of this. Each rule names where the real service was seen to behave so; docs/assumptions.md has the
whole list. The service reads and writes a bare repository with git's own plumbing, and knows nothing of who asks.
"""

from __future__ import annotations

import enum
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...git_http import Answer, Body, GitRequest, Serve
from ...isolated_git import isolated_environment
from . import pack_files

RECEIVE_PACK_CAPABILITIES = ("side-band-64k", "report-status", "delete-refs", "thin-pack")
"""Recorded in https://github.com/jelmer/dulwich/issues/671."""
UPLOAD_PACK_CAPABILITIES = (
    "multi_ack_detailed",
    "shallow",
    "side-band-64k",
    "thin-pack",
    "allow-tip-sha1-in-want",
    "allow-reachable-sha1-in-want",
)
"""Recorded in https://github.com/isomorphic-git/isomorphic-git/issues/199."""
_CONFIGURATION = """\
[uploadpack]
\tallowTipSHA1InWant = true
\tallowReachableSHA1InWant = true
[gc]
\tauto = 0
[core]
\tfsync = none
"""
"""What the last two promise; and nothing here outlives the machine."""
NO_DEFAULT_BRANCH = "refs/heads/codecommit/has/no/default/branch/yet"
"""What HEAD of a new repository points at; the first branch that is pushed takes its place."""
MAX_UPDATES = 4000
"""https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html"""
MAX_BRANCH_NAME = 256
"""Characters without ``refs/heads/`` (the same page)."""

NO_OBJECT = "0" * 40
"""Stands for no ref."""
_BAND_BYTES = 65_000
# https://git-scm.com/docs/git-check-ref-format
_REF_NAME = re.compile(r"refs(?:/(?!\.)(?:(?!\.\.|@\{|\.lock(?:/|$))[^\x00-\x20\x7f~^:?*\[\\/])+(?<!\.))+")


class OtherRefs(enum.Enum):
    """How the service takes a push of refs outside ``refs/heads/`` and ``refs/tags/``: not known, so each is tried."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """One by one: the other refs of the push are updated."""
    ABORTED = "aborted"
    """With the whole push, and without a reason: the strictest."""


@dataclass(frozen=True)
class Update:
    """One command of a push; an object id of zeros stands for no such ref."""

    old: str
    new: str
    ref: str

    @property
    def deletes(self) -> bool:
        """Whether the ref is to be deleted."""
        return self.new == NO_OBJECT


Listener = Callable[[Sequence[Update]], None]
Permission = Callable[[Update], bool]


@dataclass(frozen=True)
class HangUp:
    """A fault: the connection ends without an answer once so many bytes of a push have arrived."""

    after_bytes: int


@dataclass
class GitService:
    """The service for any repository.

    Attributes:
        other_refs: how refs outside branches and tags are taken.
        push_faults: what the next pushes meet in place of their answer, one each.
        max_updates: how many updates a push may have; a benchmark gives plain git more.
        bases_first: whether a pack is refused in which a delta comes before its base; not known, so both are tried.
    """

    other_refs: OtherRefs = OtherRefs.ABORTED
    push_faults: list[Answer | HangUp] = field(default_factory=list)
    max_updates: int = MAX_UPDATES
    bases_first: bool = False

    def break_pushes(self, count: int, after_bytes: int | None = None) -> None:
        """Throttle the next pushes (429), or end their connections once so many bytes have arrived."""
        fault = Answer(429, "Rate Exceeded") if after_bytes is None else HangUp(after_bytes)
        self.push_faults += [fault] * count

    def answer(
        self,
        repository: Path,
        request: GitRequest,
        made: Listener = lambda _: None,
        may: Permission = lambda _: True,
    ) -> Serve | Answer:
        """Answer a request that may be served.

        Args:
            repository: the bare repository.
            request: the request.
            made: hears of the updates that a push made.
            may: whether the caller may make an update; a push with one that it may not make is refused whole.
        """
        if request.advertisement:
            return _answer(f"{request.service}-advertisement", advertisement(repository, request.service))
        if request.service == "git-receive-pack":
            return self._receive(repository, request.body, made, may)
        # A first line is `want`, an object id, and the capabilities.
        named = (request.first_line or b"").decode("utf-8", "replace").split()[2:]
        if set(named) - set(UPLOAD_PACK_CAPABILITIES):
            return _answer("git-upload-pack-result", b"")
        return Serve(repository)

    def _receive(self, repository: Path, body: Body, made: Listener, may: Permission) -> Answer:
        if self.push_faults:
            return _suffer(self.push_faults.pop(0), body)
        updates, capabilities = read_updates(body)
        if not all(map(may, updates)):
            _drain(body)
            return Answer(403, "")
        report = self._report(repository, updates, capabilities, body, made)
        _drain(body)
        if report is None or "report-status" not in capabilities:
            # Recorded for a push that names `agent`: https://github.com/isomorphic-git/isomorphic-git/issues/310.
            return _answer("git-receive-pack-result", b"")
        return _answer("git-receive-pack-result", _banded(report) if "side-band-64k" in capabilities else report)

    def _report(
        self, repository: Path, updates: Sequence[Update], capabilities: Sequence[str], body: Body, made: Listener
    ) -> bytes | None:
        """Do what a push asks for, and return the report; None when the push is aborted."""
        others = {update.ref for update in updates if not update.ref.startswith(("refs/heads/", "refs/tags/"))}
        if set(capabilities) - set(RECEIVE_PACK_CAPABILITIES) or (others and self.other_refs is OtherRefs.ABORTED):
            return None
        if len(updates) > self.max_updates:
            # https://docs.aws.amazon.com/codecommit/latest/userguide/troubleshooting-gt.html
            return _render_report("Too many reference update commands", updates, {})
        bad_names = list(filter(None, map(_name_problem, updates)))
        if bad_names:
            return _render_report("ok", updates, {update.ref: bad_names[0] for update in updates})
        with tempfile.TemporaryDirectory(prefix="incoming-", dir=repository / "objects") as folder:
            quarantine = Path(folder)
            if any(not update.deletes for update in updates):
                problem = _unpack(repository, quarantine, body)
                if not problem and self.bases_first and _has_late_bases(repository, quarantine):
                    problem = "unresolved deltas"
                if problem:
                    return _render_report(problem, updates, dict.fromkeys((u.ref for u in updates), "unpacker error"))
            refused = _decide(repository, quarantine, updates)
            if self.other_refs is OtherRefs.REFUSED:
                refused |= dict.fromkeys(others, "references outside refs/heads and refs/tags are not supported")
            pack_files.migrate(quarantine, repository / "objects")
        refused |= _update(repository, [update for update in updates if update.ref not in refused])
        accepted = [update for update in updates if update.ref not in refused]
        _choose_default_branch(repository, accepted)
        made(accepted)
        return _render_report("ok", updates, refused)


def create_repository(path: Path) -> None:
    """Create an empty replica's Git data."""
    subprocess.run(["git", "init", "-q", "--bare", "--template=", "-b", "main", str(path)], check=True)
    with (path / "config").open("a") as stream:
        stream.write(_CONFIGURATION)
    (path / "HEAD").write_text(f"ref: {NO_DEFAULT_BRANCH}\n")


def advertisement(repository: Path, service: str) -> bytes:
    """Return a reference advertisement (gitprotocol-http, "Smart Server Response")."""
    listing = _git(repository, "for-each-ref", "--format=%(objectname) %(refname) %(*objectname)")
    lines: list[tuple[str, str]] = []
    for line in filter(None, listing.split("\n")):
        value, name, peeled = line.split(" ")
        lines.append((value, name))
        if peeled and service == "git-upload-pack":
            lines.append((peeled, f"{name}^{{}}"))
    capabilities: Sequence[str] = RECEIVE_PACK_CAPABILITIES
    if service == "git-upload-pack":
        capabilities = UPLOAD_PACK_CAPABILITIES
    # Recorded of upload-pack; of receive-pack it is what JGit does.
    head = dict((name, value) for value, name in lines).get(_head(repository))
    lines[:0] = [(head, "HEAD")] if head else []
    lines = lines or [(NO_OBJECT, "capabilities^{}")]
    first = f"\0{' '.join(capabilities)}"
    packets = [
        packet(f"{value} {name}{'' if index else first}\n".encode("utf-8", "surrogateescape"))
        for index, (value, name) in enumerate(lines)
    ]
    return packet(f"# service={service}\n".encode()) + b"0000" + b"".join(packets) + b"0000"


def packet(payload: bytes) -> bytes:
    """Wrap data in a pkt-line (gitprotocol-common)."""
    return b"%04x%s" % (len(payload) + 4, payload)


def read_updates(body: Body) -> tuple[list[Update], list[str]]:
    """Read a push up to its pack: the commands, and the capabilities that it names (gitprotocol-pack)."""
    updates: list[Update] = []
    capabilities: list[str] = []
    while (length := int(body.read(4) or b"0", 16)) > 4:
        line = body.read(length - 4)
        if not updates:
            capabilities = line.partition(b"\0")[2].decode("utf-8", "replace").split()
        old, new, ref = line.partition(b"\0")[0].rstrip(b"\n").decode("utf-8", "surrogateescape").split(" ", 2)
        updates.append(Update(old, new, ref))
    return updates, capabilities


def _name_problem(update: Update) -> str | None:
    """Return what the quotas page forbids of a name; the whole push is refused for it."""
    kind, _, name = update.ref.removeprefix("refs/").partition("/")
    if update.deletes or kind not in ("heads", "tags"):
        return None
    what = "branch" if kind == "heads" else "tag"
    if re.fullmatch("[0-9a-fA-F]{40}", name):
        return f"a {what} name of 40 hexadecimal digits is not allowed"
    if kind == "heads" and len(name) > MAX_BRANCH_NAME:
        return f"a branch name of {len(name)} characters; the maximum is {MAX_BRANCH_NAME}"
    if kind == "heads" and name == "@":
        return "a branch name that is the single character @ is not allowed"
    return None


def _unpack(repository: Path, quarantine: Path, body: Body) -> str | None:
    """Store a pack apart from the repository's own objects; return the report's reason when it cannot be."""
    (quarantine / "pack").mkdir()
    start = body.read(12)
    if start[:4] != b"PACK":
        return "the push has no pack"
    if int.from_bytes(start[8:12], "big") == 0:
        return None
    environment = {
        "GIT_OBJECT_DIRECTORY": str(quarantine),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(repository / "objects"),
    }
    indexer = subprocess.Popen(
        ["git", "-C", str(repository), "index-pack", "--stdin", "--fix-thin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=_environment(environment),
    )
    assert indexer.stdin
    assert indexer.stderr
    try:
        indexer.stdin.write(start)
        while data := body.read(1 << 18):
            indexer.stdin.write(data)
        indexer.stdin.close()
    except BrokenPipeError:
        pass  # Its words say why it gave up.
    except ConnectionError:
        indexer.kill()
        raise
    finally:
        words = indexer.stderr.read().decode(errors="replace")
        indexer.stderr.close()
        indexer.wait()
    if indexer.returncode:
        return "index-pack: " + " ".join(words.split())[:200]
    return pack_files.problem(quarantine / "pack")


def _has_late_bases(repository: Path, quarantine: Path) -> bool:
    """Whether a delta comes before its base, and the repository does not have that yet."""
    late = pack_files.late_bases(quarantine / "pack")
    asked = "".join(f"{name}\n" for name in sorted(late)).encode()
    command = ["git", "-C", str(repository), "cat-file", "--batch-check"]
    done = subprocess.run(command, input=asked, capture_output=True, env=_environment(), check=True)
    return b" missing\n" in done.stdout


def _decide(repository: Path, quarantine: Path, updates: Sequence[Update]) -> dict[str, str]:
    """Return the refs that are refused one by one, each with the reason."""
    before, head = _refs(repository), _head(repository)
    folders = {name[:end] for name in before for end in _slashes(name)}
    refused: dict[str, str] = {}
    for update in updates:
        if update.old != before.get(update.ref, NO_OBJECT):
            refused[update.ref] = "the reference has another value than the push says"
        elif update.deletes and update.ref == head:
            refused[update.ref] = "deletion of the current branch prohibited"
        elif not update.deletes and not _REF_NAME.fullmatch(update.ref):
            refused[update.ref] = "funny refname"
        elif not update.deletes and update.old == NO_OBJECT:
            if update.ref in folders or any(update.ref[:end] in before for end in _slashes(update.ref)):
                refused[update.ref] = "the name is in the way of another reference"
            else:
                folders.update(update.ref[:end] for end in _slashes(update.ref))
                before[update.ref] = NO_OBJECT
    new = {update.new for update in updates if not update.deletes and update.ref not in refused}
    if new and not _connected(repository, quarantine, new):
        missing = {value for value in new if not _connected(repository, quarantine, {value})}
        refused |= {update.ref: "missing necessary objects" for update in updates if update.new in missing}
    return refused


def _connected(repository: Path, quarantine: Path, tips: set[str]) -> bool:
    """Whether every object that is reachable from the tips is there."""
    environment = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": str(quarantine)}
    done = subprocess.run(
        ["git", "-C", str(repository), "rev-list", "--objects", "--quiet", "--stdin", "--not", "--all"],
        input="".join(f"{tip}\n" for tip in tips).encode(),
        capture_output=True,
        env=_environment(environment),
        check=False,
    )
    return done.returncode == 0


def _update(repository: Path, updates: Sequence[Update]) -> dict[str, str]:
    """Move refs, all at once, or one by one where that fails; return those that did not move."""
    if not updates or _update_at_once(repository, updates) is None:
        return {}
    answers = ((update, _update_at_once(repository, [update])) for update in updates)
    return {update.ref: problem for update, problem in answers if problem}


def _update_at_once(repository: Path, updates: Sequence[Update]) -> str | None:
    lines = "".join(
        f"delete {u.ref}\0{u.old}\0" if u.deletes else f"update {u.ref}\0{u.new}\0{u.old}\0" for u in updates
    )
    done = subprocess.run(
        ["git", "-C", str(repository), "update-ref", "-z", "--stdin"],
        input=lines.encode("utf-8", "surrogateescape"),
        capture_output=True,
        env=_environment(),
        check=False,
    )
    return " ".join(done.stderr.decode(errors="replace").split()) if done.returncode else None


def _choose_default_branch(repository: Path, updates: Sequence[Update]) -> None:
    """Make the first branch that a repository gets its default one."""
    if _head(repository) != NO_DEFAULT_BRANCH:
        return
    for update in updates:
        if update.ref.startswith("refs/heads/") and not update.deletes:
            _git(repository, "symbolic-ref", "HEAD", update.ref)
            return


def _render_report(unpack: str, updates: Sequence[Update], refused: dict[str, str]) -> bytes:
    """Return a report (gitprotocol-pack, "Report Status")."""
    lines = [f"unpack {unpack}\n"]
    if unpack == "ok" or refused:
        lines += [f"ng {u.ref} {refused[u.ref]}\n" if u.ref in refused else f"ok {u.ref}\n" for u in updates]
    return b"".join(packet(line.encode("utf-8", "surrogateescape")) for line in lines) + b"0000"


def _banded(report: bytes) -> bytes:
    parts = (report[start : start + _BAND_BYTES] for start in range(0, len(report), _BAND_BYTES))
    return b"".join(packet(b"\x01" + part) for part in parts) + b"0000"


def _suffer(fault: Answer | HangUp, body: Body) -> Answer:
    if isinstance(fault, HangUp):
        left = fault.after_bytes
        while left > 0 and (data := body.read(min(left, 1 << 18))):
            left -= len(data)
        raise ConnectionAbortedError("a fault that a test asked for")
    _drain(body)
    return fault


def _drain(body: Body) -> None:
    while body.read(1 << 18):
        pass


def _answer(kind: str, body: bytes) -> Answer:
    return Answer(200, body, {"Cache-Control": "no-cache"}, f"application/x-{kind}")


def _refs(repository: Path) -> dict[str, str]:
    listing = _git(repository, "for-each-ref", "--format=%(objectname) %(refname)")
    return {name: value for value, _, name in (line.partition(" ") for line in listing.split("\n") if line)}


def _head(repository: Path) -> str:
    return (repository / "HEAD").read_text().strip().removeprefix("ref: ")


def _slashes(ref: str) -> Iterator[int]:
    return (position for position, character in enumerate(ref) if character == "/")


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], capture_output=True, env=_environment(), check=True
    )
    return done.stdout.decode("utf-8", "surrogateescape")


def _environment(more: dict[str, str] | None = None) -> dict[str, str]:
    isolated = isolated_environment()
    return {**isolated, **(more or {})}
