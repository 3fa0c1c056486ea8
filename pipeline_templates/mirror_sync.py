#!/usr/bin/env python3
"""Make a replica repository equal to its source, ref by ref.

    1. protocol   read the refs of both sides; the replica's with push permission alone
    2. plan       what to create, update and delete, as a pure function
    3. transfer   fetch the source with git, push in batches, each ref with the old value it must still have
    4. report     read the replica again, compare, and say what happened

Needs Python 3.8 or later, its standard library, and git 2.31 or later. Everything comes from the environment:

    AZURE_REPO_URL, AZURE_GIT_USERNAME, AZURE_GIT_PASSWORD    the source (or SYSTEM_ACCESSTOKEN, the run's own token)
    AWS_REPO_URL, AWS_GIT_USERNAME, AWS_GIT_PASSWORD          the replica
    MIRROR_REFS                                               what below refs/ is mirrored: "heads tags notes"

Passwords stay in the environment: git gets them from a credential helper that reads it. Ref names are bytes from
strangers: no shell sees them, and they are printed so that no build agent takes them for a command.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Dict, Iterator, Mapping, Sequence

MAXIMUM_REFS_A_PUSH = 2000
"""CodeCommit takes 4,000: https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html"""
MAXIMUM_BYTES_A_COMMAND_LINE = 500_000
"""macOS allows 1 MiB for arguments and environment together, Linux 2 MiB."""
MAXIMUM_BRANCH_NAME = 256
HTTP_TIMEOUT_SECONDS = 120

Refs = Dict[str, str]
"""Ref name to object id, in hexadecimal. Names that are not UTF-8 are kept with surrogate escapes."""


class MirrorFailure(Exception):
    """Why the mirror cannot go on, and what to do, in one sentence."""


# ---------------------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Endpoint:
    """One side of the mirror."""

    side: str
    url: str
    username: str
    password: str = field(repr=False)
    remedy: str
    """What to check when this side does not accept the credentials."""


@dataclass(frozen=True)
class Settings:
    source: Endpoint
    replica: Endpoint
    namespaces: tuple[str, ...]


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings, or raise MirrorFailure that names the variable to set."""
    token = environment.get("SYSTEM_ACCESSTOKEN", "")
    if _is_set(token):
        username, password = "azure-pipelines", token
        remedy = (
            "the job token of this pipeline was not accepted: in Project settings, Pipelines, Settings, check 'Limit "
            "job authorization scope' and give the project's Build Service the Read permission on the repository"
        )
    else:
        username, password = (_required(environment, f"AZURE_GIT_{name}") for name in ("USERNAME", "PASSWORD"))
        remedy = (
            "check the pipeline's variables AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD: the Git credentials or personal "
            "access token may be wrong or expired, and need the scope Code (read)"
        )
    source = Endpoint("source", repository_url("AZURE_REPO_URL", environment), username, password, remedy)
    replica = Endpoint(
        "replica",
        repository_url("AWS_REPO_URL", environment),
        _required(environment, "AWS_GIT_USERNAME"),
        _required(environment, "AWS_GIT_PASSWORD"),
        "check the pipeline's variables AWS_GIT_USERNAME and AWS_GIT_PASSWORD, that the credential is Active in IAM, "
        "and that the user's policy allows codecommit:GitPush on this repository",
    )
    namespaces = tuple(f"refs/{name}/" for name in environment.get("MIRROR_REFS", "heads tags notes").split())
    return Settings(source, replica, namespaces)


def repository_url(variable: str, environment: Mapping[str, str]) -> str:
    """Return the variable's URL with its scheme and without user and password."""
    given = _required(environment, variable)
    parts = urllib.parse.urlsplit(given if "://" in given else f"https://{given}")
    host = parts.netloc.rpartition("@")[2]
    if not host or not parts.path.strip("/"):
        raise MirrorFailure(f"{variable} is not the URL of a repository; copy the HTTPS clone URL.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise MirrorFailure(f"{variable} would send the password over {parts.scheme}, in the clear; use https://.")
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def _required(environment: Mapping[str, str], variable: str) -> str:
    value = environment.get(variable, "").strip()
    if not _is_set(value):
        raise MirrorFailure(
            f"the pipeline variable {variable} is not set; add it under Edit, Variables of the pipeline."
        )
    return value


def _is_set(value: str) -> bool:
    # Azure Pipelines leaves the macro of an unknown variable as it is.
    return bool(value) and not value.startswith("$" + "(")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


# ---------------------------------------------------------------------------------------------------------- protocol


@dataclass(frozen=True)
class Advertisement:
    """What a server says of its refs (gitprotocol-pack, "Reference Discovery")."""

    refs: Refs
    head: str | None
    """The branch that HEAD points at, where the server tells."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object, **keywords: object) -> None:
        return None


def read_refs(endpoint: Endpoint, service: str) -> Advertisement:
    """Ask a server for its refs over smart HTTP (gitprotocol-http).

    With ``git-receive-pack`` the permission to push is enough.
    """
    # repository_url() lets no scheme but https pass, and http for this machine.
    request = urllib.request.Request(  # noqa: S310
        f"{endpoint.url}/info/refs?service={service}"
    )
    basic = base64.b64encode(f"{endpoint.username}:{endpoint.password}".encode()).decode()
    request.add_unredirected_header("Authorization", f"Basic {basic}")
    request.add_unredirected_header("User-Agent", "git/codecommit-mirror")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=HTTP_TIMEOUT_SECONDS) as response:
            status, kind, body = response.status, response.headers.get_content_type(), response.read()
    except urllib.error.HTTPError as error:
        raise MirrorFailure(_refusal(endpoint, error.code)) from None
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise MirrorFailure(f"the {endpoint.side} {endpoint.url} cannot be reached ({reason}); run again.") from None
    if kind != f"application/x-{service}-advertisement":
        raise MirrorFailure(_refusal(endpoint, status))
    try:
        return parse_advertisement(body)
    except ValueError as error:
        raise MirrorFailure(f"the {endpoint.side} {endpoint.url} sent a malformed list of refs ({error}).") from None


def _refusal(endpoint: Endpoint, status: int) -> str:
    what = f"the {endpoint.side} {endpoint.url}"
    if status == 404:
        return f"{what} does not exist (404); check its URL, and that it was not renamed or deleted."
    if status in (401, 403) or status < 400:
        page = "a sign-in page" if status < 400 else str(status)
        return f"{what} refused access ({page}); {endpoint.remedy}."
    return f"{what} answered {status}; nothing is wrong with the settings, so run again later."


def parse_advertisement(body: bytes) -> Advertisement:
    """Read a reference advertisement of protocol v0 or v1; ValueError when it is malformed."""
    refs: Refs = {}
    capabilities: list[str] = []
    for line in packet_lines(body):
        line = line.rstrip(b"\n")
        if line.startswith((b"# service=", b"version ", b"shallow ")):
            continue
        if line.startswith(b"ERR "):
            raise ValueError(shown(line[4:].decode("utf-8", "surrogateescape")))
        line, separator, words = line.partition(b"\0")
        if separator:
            capabilities = words.decode("utf-8", "surrogateescape").split()
        object_id, space, name = line.decode("utf-8", "surrogateescape").partition(" ")
        if not space or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", object_id):
            raise ValueError(f"not a ref: {shown(line[:100].decode('utf-8', 'replace'))}")
        if name.startswith("refs/") and not name.endswith("^{}"):
            refs[name] = object_id
    symrefs = (word[len("symref=HEAD:") :] for word in capabilities if word.startswith("symref=HEAD:"))
    return Advertisement(refs, next(symrefs, None))


def packet_lines(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of pkt-lines (gitprotocol-common); flush packets are passed over."""
    position = 0
    while position < len(data):
        digits = data[position : position + 4]
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", digits):
            raise ValueError(f"no pkt-line at byte {position}")
        length = int(digits, 16)
        if length in (1, 2, 3) or position + length > len(data):
            raise ValueError(f"a pkt-line of length {length} at byte {position} of {len(data)}")
        if length > 4:
            yield data[position + 4 : position + length]
        position += length or 4


# -------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Command:
    """One ref's change: ``old`` is what the replica must still have; None is no such ref."""

    ref: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Plan:
    """Pushes to make, in this order, and refs that the replica cannot take, each with the reason."""

    pushes: tuple[tuple[Command, ...], ...]
    unmirrored: dict[str, str]

    @property
    def commands(self) -> list[Command]:
        return [command for push in self.pushes for command in push]


def select(refs: Refs, namespaces: Sequence[str]) -> Refs:
    """Return the refs that are mirrored."""
    return {name: value for name, value in refs.items() if name.startswith(tuple(namespaces))}


def make_plan(source: Refs, replica: Refs, default_branch: str | None = None) -> Plan:
    """Decide how the replica becomes equal to the source.

    A deletion goes first when its name is in the way of a new ref (``a`` and ``a/b`` cannot both be), else last and
    apart. On a replica without branches the default branch goes first and alone: CodeCommit makes the first branch
    that it gets the default one.
    """
    unmirrored = {name: why for name in source for why in [_why_not(name)] if why}
    wanted = {name: value for name, value in source.items() if name not in unmirrored}
    changes = [
        Command(name, replica.get(name), value) for name, value in sorted(wanted.items()) if replica.get(name) != value
    ]
    deletions = [Command(name, value, None) for name, value in sorted(replica.items()) if name not in wanted]
    created = [change.ref for change in changes if change.old is None]
    parents = {ref[:end] for ref in created for end in _slashes(ref)}
    in_the_way = {
        deletion.ref
        for deletion in deletions
        if deletion.ref in parents or any(deletion.ref[:end] in set(created) for end in _slashes(deletion.ref))
    }
    first: list[Command] = []
    if not any(name.startswith("refs/heads/") for name in replica):
        first = [change for change in changes if change.ref == default_branch]
    groups = (
        [deletion for deletion in deletions if deletion.ref in in_the_way],
        first,
        [change for change in changes if change not in first],
        [deletion for deletion in deletions if deletion.ref not in in_the_way],
    )
    return Plan(tuple(batch for group in groups for batch in _batches(group)), unmirrored)


def _slashes(ref: str) -> list[int]:
    return [position for position, character in enumerate(ref) if character == "/"]


def _why_not(name: str) -> str | None:
    branch = name[len("refs/heads/") :] if name.startswith("refs/heads/") else ""
    if re.fullmatch("[0-9a-fA-F]{40}", branch):
        return "CodeCommit takes no branch name of 40 hexadecimal digits; rename the branch at the source"
    if len(branch) > MAXIMUM_BRANCH_NAME:
        return (
            f"CodeCommit takes branch names of up to {MAXIMUM_BRANCH_NAME} characters; rename the branch at the source"
        )
    return None


def _batches(commands: Sequence[Command]) -> Iterator[tuple[Command, ...]]:
    batch: list[Command] = []
    size = 0
    for command in commands:
        length = sum(len(argument) for argument in _push_arguments(command))
        if batch and (len(batch) == MAXIMUM_REFS_A_PUSH or size + length > MAXIMUM_BYTES_A_COMMAND_LINE):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(command)
        size += length
    if batch:
        yield tuple(batch)


# ---------------------------------------------------------------------------------------------------------- transfer


class Git:
    """Runs git on a bare repository of its own, with one side's credentials in the environment."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        version = re.search(rb"(\d+)\.(\d+)", self._run(["--version"], None).stdout)
        if not version or (int(version.group(1)), int(version.group(2))) < (2, 31):
            raise MirrorFailure("git 2.31 or later is needed; use a newer agent image.")
        self._run(["init", "--quiet", "--bare", "--template=", folder], None)

    def fetch(self, source: Endpoint, namespaces: Sequence[str]) -> Refs:
        """Fetch every ref of the namespaces and return what was fetched."""
        refspecs = [f"+{namespace}*:{namespace}*" for namespace in namespaces]
        arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", source.url, *refspecs]
        result = self._run(arguments, source)
        if result.returncode:
            raise MirrorFailure(f"git could not fetch from the source: {_last_words(result.stderr)}; run again.")
        listing = self._run(["for-each-ref", "--format=%(objectname) %(refname)"], None).stdout
        lines = (line.partition(" ") for line in listing.decode("utf-8", "surrogateescape").splitlines())
        return {name: value for value, _, name in lines}

    def push(self, replica: Endpoint, commands: Sequence[Command]) -> dict[str, str]:
        """Push, each ref only if it still has its old value; return the refused refs with the reasons."""
        arguments = [argument for command in commands for argument in _push_arguments(command)]
        leases = [argument for argument in arguments if argument.startswith(b"--")]
        refspecs = [argument for argument in arguments if not argument.startswith(b"--")]
        result = self._run(["push", "--porcelain", "--no-verify", *leases, replica.url, *refspecs], replica)
        refused: dict[str, str] = {}
        for line in result.stdout.decode("utf-8", "surrogateescape").split("\n"):
            flag, _, rest = line.partition("\t")
            if flag == "!":
                refs, _, summary = rest.partition("\t")
                refused[refs.partition(":")[2]] = summary
        if result.returncode and not refused:
            reason = _last_words(result.stderr)
            refused = {command.ref: reason for command in commands}
        return refused

    def _run(self, arguments: Sequence[object], endpoint: Endpoint | None) -> subprocess.CompletedProcess[bytes]:
        words = [word if isinstance(word, bytes) else os.fsencode(str(word)) for word in arguments]
        try:
            return subprocess.run(
                [b"git", *words],
                cwd=self._folder,
                env=_git_environment(os.environ, endpoint),
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
        except FileNotFoundError:
            raise MirrorFailure("git is not installed on this agent; use an image that has it.") from None


def _push_arguments(command: Command) -> tuple[bytes, bytes]:
    lease = f"--force-with-lease={command.ref}:{command.old or ''}"
    refspec = f"{command.new or ''}:{command.ref}"
    return lease.encode("utf-8", "surrogateescape"), refspec.encode("utf-8", "surrogateescape")


_CREDENTIAL_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$MIRROR_USERNAME" "$MIRROR_PASSWORD"; }; f'
)
_SECRET_VARIABLES = (
    "AZURE_GIT_USERNAME",
    "AZURE_GIT_PASSWORD",
    "AWS_GIT_USERNAME",
    "AWS_GIT_PASSWORD",
    "SYSTEM_ACCESSTOKEN",
)


def _git_environment(environment: Mapping[str, str], endpoint: Endpoint | None) -> dict[str, str]:
    """Return git's environment: no setting of the machine's, no trace, and no credential but the one it needs."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _SECRET_VARIABLES and (not name.startswith("GIT_") or name.startswith("GIT_SSL_"))
    }
    settings = [
        ("credential.helper", ""),
        ("gc.auto", "0"),
        ("http.followRedirects", "false"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", "300"),
        ("protocol.allow", "never"),
        ("protocol.http.allow", "always"),
        ("protocol.https.allow", "always"),
    ]
    if endpoint:
        settings.append(("credential.helper", _CREDENTIAL_HELPER))
        kept.update(MIRROR_USERNAME=endpoint.username, MIRROR_PASSWORD=endpoint.password)
    kept.update(
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_TERMINAL_PROMPT="0",
        GIT_CONFIG_COUNT=str(len(settings)),
        LC_ALL="C.UTF-8",
    )
    for index, (key, value) in enumerate(settings):
        kept[f"GIT_CONFIG_KEY_{index}"], kept[f"GIT_CONFIG_VALUE_{index}"] = key, value
    return kept


def _last_words(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode("utf-8", "surrogateescape").splitlines() if line.strip()]
    return shown("; ".join(lines[-3:])[:600]) or "it gave no reason"


# ------------------------------------------------------------------------------------------------------------ mirror


@dataclass
class Outcome:
    """What a run did, and how the two sides stand."""

    equal: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    needs_a_person: dict[str, str] = field(default_factory=dict)
    """Refs that stay different until somebody acts, each with the reason and the remedy."""
    broken: dict[str, str] = field(default_factory=dict)
    """Refs that should be equal and are not, each with the reason."""

    @property
    def result(self) -> str:
        """``Succeeded``, ``SucceededWithIssues`` or ``Failed``, as Azure Pipelines names them."""
        return "Failed" if self.broken else "SucceededWithIssues" if self.needs_a_person else "Succeeded"


def mirror(settings: Settings, folder: str) -> Outcome:
    """Make the replica equal to the source. ``folder`` is an empty folder for the run's own use."""
    advertised = read_refs(settings.source, "git-upload-pack")
    source = select(advertised.refs, settings.namespaces)
    replica = select(read_refs(settings.replica, "git-receive-pack").refs, settings.namespaces)
    say(
        f"Source {settings.source.url} has {count(source, 'ref')}, replica {settings.replica.url} has {len(replica):,}."
    )
    if replica and not source:
        raise MirrorFailure(
            f"the source has no refs and the replica has {len(replica):,}; nothing was changed, since an empty source "
            "must not empty its replica. Check AZURE_REPO_URL; if the source is meant to be empty, delete the replica."
        )
    refused: dict[str, str] = {}
    plan = make_plan(source, replica, advertised.head)
    if plan.commands:
        git = Git(folder)
        if any(command.new for command in plan.commands):
            say("Fetching from the source.")
            source = select(git.fetch(settings.source, settings.namespaces), settings.namespaces)
            plan = make_plan(source, replica, advertised.head)
        for number, push in enumerate(plan.pushes, 1):
            say(f"Pushing {count(push, 'ref')} to the replica ({number} of {len(plan.pushes)}).")
            refused.update(git.push(settings.replica, push))
    after = (
        select(read_refs(settings.replica, "git-receive-pack").refs, settings.namespaces) if plan.commands else replica
    )
    return judge(source, replica, after, plan, refused)


def judge(source: Refs, before: Refs, after: Refs, plan: Plan, refused: Mapping[str, str]) -> Outcome:
    """Compare the two sides after the pushes; what the replica has counts, not what the server answered."""
    outcome = Outcome(needs_a_person=dict(plan.unmirrored))
    for name in sorted({*source, *after}):
        if source.get(name) == after.get(name):
            outcome.equal += 1
        elif name in plan.unmirrored:
            continue
        elif name not in source and _refuses_deletion_of_default(refused.get(name, "")):
            outcome.needs_a_person[name] = (
                "the replica's default branch, gone at the source, cannot be deleted by a push; make another branch "
                "the default with 'aws codecommit update-default-branch --repository-name REPLICA "
                "--default-branch-name BRANCH' and run again"
            )
        else:
            outcome.broken[name] = refused.get(name) or "it was changed on one side during the run; run again"
    for command in plan.commands:
        if after.get(command.ref) == command.new and command.ref not in outcome.broken:
            if command.new is None:
                outcome.deleted += 1
            elif command.old is None:
                outcome.created += 1
            else:
                outcome.updated += 1
    return outcome


def _refuses_deletion_of_default(reason: str) -> bool:
    return bool(re.search(r"delet\w*.*(current|default) branch|(current|default) branch.*delet", reason, re.IGNORECASE))


# ------------------------------------------------------------------------------------------------------------ report


def say(text: str) -> None:
    """Print one line."""
    print(text, flush=True)


def shown(text: str) -> str:
    """Return text from outside so that it can be printed: no control characters, nothing that an agent obeys."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub("#(?=#)", "# ", "".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def count(things: Sequence[object] | Mapping[str, str], noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def summary(outcome: Outcome, seconds: float) -> list[str]:
    """Return the report as lines of Markdown."""
    lines = [
        f"Mirror {outcome.result}: {outcome.equal:,} refs are equal; {outcome.created:,} created, "
        f"{outcome.updated:,} updated, {outcome.deleted:,} deleted in {seconds:.1f} s."
    ]
    for heading, refs in (("Needs a person", outcome.needs_a_person), ("Not mirrored", outcome.broken)):
        if refs:
            lines += ["", f"{heading}:"]
            lines += [
                f"- `{shown(ref).replace('`', chr(39))}`: {shown(reason)}" for ref, reason in sorted(refs.items())[:100]
            ]
            if len(refs) > 100:
                lines.append(f"- and {len(refs) - 100:,} more")
    return lines


def agent_command(name: str, message: str, **properties: str) -> None:
    """Give the build agent a logging command (Azure Pipelines, "Logging commands"), where there is one."""
    if os.environ.get("TF_BUILD"):
        escapes = [("%", "%AZP25"), ("\r", "%0D"), ("\n", "%0A"), (";", "%3B"), ("]", "%5D")]
        for character, escape in escapes:
            properties = {key: value.replace(character, escape) for key, value in properties.items()}
        for character, escape in escapes[:3]:
            message = message.replace(character, escape)
        fields = "".join(f"{key}={value};" for key, value in properties.items())
        print(f"##vso[{name} {fields}]{message}", flush=True)


def report(outcome: Outcome, settings: Settings, seconds: float, folder: str) -> None:
    lines = summary(outcome, seconds)
    for line in lines:
        say(line)
    path = os.path.join(folder, "Mirror.md")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join([*lines, "", f"Source: {settings.source.url}", f"Replica: {settings.replica.url}", ""]))
    agent_command("task.uploadsummary", path)
    for kind, refs in (("warning", outcome.needs_a_person), ("error", outcome.broken)):
        for ref, reason in sorted(refs.items())[:10]:
            agent_command("task.logissue", f"{shown(ref)}: {shown(reason)}", type=kind)
    if outcome.result != "Succeeded":
        agent_command("task.complete", "", result=outcome.result)


def main() -> int:
    """Run once; return the exit status: 0 unless the mirror is broken."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    started = time.monotonic()
    # The agent reads the summary after this program has ended; it clears its own temporary folder.
    keep = os.environ.get("AGENT_TEMPDIRECTORY")
    with tempfile.TemporaryDirectory(prefix="mirror-") as folder:
        try:
            settings = read_settings(os.environ)
            outcome = mirror(settings, folder)
        except MirrorFailure as failure:
            say(f"Mirror Failed: {failure}")
            agent_command("task.logissue", str(failure), type="error")
            agent_command("task.complete", "", result="Failed")
            return 1
        report(outcome, settings, time.monotonic() - started, keep or folder)
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
