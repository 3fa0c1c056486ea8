"""Plain git, the last resort: a bare repository, with the credentials in the environment only."""

from __future__ import annotations

import itertools
import os
import re
import ssl
import subprocess
import urllib.parse
from typing import Iterable, Iterator, Mapping, Sequence

from .failures import MirrorFailure, RetryableError, SourceRefused
from .refs import Command
from .settings import Endpoint, is_set
from .text import printable, sanitize, to_bytes
from .wire.connection import proxy_for

MAX_COMMAND_LINE_BYTES = 500_000
"""macOS allows 1 MiB for arguments and environment together, Linux 2 MiB."""
_CREDENTIAL_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$MIRROR_USERNAME" "$MIRROR_PASSWORD"; }; f'
)
_KEPT_VARIABLES = re.compile(
    "PATH|LD_LIBRARY_PATH|TMPDIR|TEMP|TMP|SYSTEMROOT|SSL_CERT_(FILE|DIR)|GIT_SSL_CA(INFO|PATH)"
)
"""What git gets of this program's environment: no secret, nothing that turns off TLS, and no HOME with a .netrc."""
_CERTIFICATES = ("SSL_CERT_FILE", "AGENT_CAINFO")


class Git:
    """Git in a bare repository of its own, which sees one side's credentials at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        version = re.search(rb"(\d+)\.(\d+)", self._run(["--version"]).stdout)
        if not version or (int(version.group(1)), int(version.group(2))) < (2, 31):
            raise MirrorFailure("git 2.31 or later is needed for this; use a newer agent image.")
        self._run(["init", "--quiet", "--bare", "--template=", folder])
        self._numbers = itertools.count()
        self._hang_ups = 0

    def fetch(self, source: Endpoint, refs: Sequence[str]) -> None:
        """Fetch refs under numbered names, because the source's names may be too long for a file.

        Raises SourceRefused if the source says why it cannot provide them, RetryableError otherwise.
        """
        if not refs:
            return
        refspecs = "".join(f"+{ref}:refs/mirror/{next(self._numbers)}\n" for ref in refs)
        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--stdin"]
        arguments = ["fetch", *options, source.git_url or source.url]
        result = self._run(arguments, source, to_bytes(refspecs), check=False)
        if result.returncode:
            words = f"git could not fetch: {_last_words(result.stderr)}"
            if re.search(b"remote: |remote error|not our ref|TF401035", result.stderr):
                raise SourceRefused(words)
            raise RetryableError(words)

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether an update from ``old`` to ``new`` drops nothing, judged by the fetched objects."""
        return self._run(["merge-base", "--is-ancestor", old, new], check=False).returncode == 0

    def increments(self, command: Command, known: Iterable[str], size: int) -> list[Command]:
        """Return commands that push a branch's history in pieces of so many commits, all but the last piece.

        They follow first parents, and leave out what does not build on the old tip: no piece drops anything.
        """
        if not command.new or not command.ref.startswith("refs/heads/"):
            return []
        if command.old and not self.is_ancestor(command.old, command.new):
            return []
        excluded = "\n".join(f"^{value}" for value in set(known)).encode()
        arguments = ["rev-list", "--reverse", "--first-parent", "--ignore-missing", "--stdin", command.new]
        commits = self._run(arguments, text=excluded).stdout.decode().split()
        if command.old:
            commits = list(itertools.dropwhile(lambda commit: not self.is_ancestor(str(command.old), commit), commits))
        steps, old = [], command.old
        for commit in commits[size - 1 : -1 : size]:
            steps.append(Command(command.ref, old, commit))
            old = commit
        return steps

    def push(self, replica: Endpoint, commands: Sequence[Command]) -> dict[str, str]:
        """Push each ref that still has its old value; return the refused refs with the reasons."""
        arguments = [argument for command in commands for argument in _push_arguments(command)]
        leases = [argument for argument in arguments if argument.startswith(b"--")]
        refspecs = [argument for argument in arguments if not argument.startswith(b"--")]
        result = self._run(
            ["push", "--porcelain", "--no-verify", *leases, replica.url, *refspecs], replica, check=False
        )
        refused: dict[str, str] = {}
        for line in result.stdout.decode("utf-8", "surrogateescape").split("\n"):
            flag, _, rest = line.partition("\t")
            if flag == "!":
                refs, _, reason = rest.partition("\t")
                refused[refs.partition(":")[2]] = sanitize(reason)
        if result.returncode and not refused:
            words = f"git could not push to the {replica.side}: {_last_words(result.stderr)}"
            # An abort without a reason looks like a connection that broke; the second one is taken for an abort.
            self._hang_ups += 1
            if self._hang_ups == 1 or re.search(b"returned error: (429|5[0-9][0-9])", result.stderr):
                raise RetryableError(words)
            return {command.ref: words for command in commands}
        self._hang_ups = 0
        return refused

    def _run(
        self, arguments: Sequence[object], endpoint: Endpoint | None = None, text: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        words = [word if isinstance(word, bytes) else os.fsencode(str(word)) for word in arguments]
        try:
            result = subprocess.run(
                [b"git", *words],
                cwd=self._folder,
                env=git_environment(os.environ, endpoint),
                input=text,
                capture_output=True,
            )
        except FileNotFoundError:
            raise MirrorFailure("git is needed but not installed on the agent; use an image that has it.") from None
        if check and result.returncode:
            raise MirrorFailure(f"git {words[0].decode()} failed ({_last_words(result.stderr)}); check the disk.")
        return result


def batches_by_command_line(commands: Sequence[Command]) -> Iterator[Sequence[Command]]:
    """Yield the commands in batches that fit on a command line."""
    batch: list[Command] = []
    size = 0
    for command in commands:
        length = sum(len(argument) + 1 for argument in _push_arguments(command))
        if batch and size + length > MAX_COMMAND_LINE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(command)
        size += length
    if batch:
        yield batch


def _push_arguments(command: Command) -> tuple[bytes, bytes]:
    lease = f"--force-with-lease={command.ref}:{command.old or ''}"
    refspec = f"{command.new or ''}:{command.ref}"
    return to_bytes(lease), to_bytes(refspec)


def git_environment(environment: Mapping[str, str], endpoint: Endpoint | None) -> dict[str, str]:
    """Return an environment for git: only what it needs, and one side's credential."""
    kept = {name: value for name, value in environment.items() if _KEPT_VARIABLES.fullmatch(name)}
    settings = [
        ("credential.helper", ""),
        ("gc.auto", "0"),
        ("http.followRedirects", "false"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", "300"),
        ("protocol.allow", "never"),
        ("protocol.http.allow", "always"),
        ("protocol.https.allow", "always"),
        ("protocol.version", "0"),
    ]
    if endpoint:
        proxy = proxy_for(urllib.parse.urlsplit(endpoint.url).hostname or "", environment)
        kept.update({"https_proxy": proxy} if proxy else {}, **_certificates(environment))
        endpoint = endpoint.now()
        settings.append(("credential.helper", _CREDENTIAL_HELPER))
        kept.update(MIRROR_USERNAME=endpoint.username, MIRROR_PASSWORD=endpoint.password)
    kept.update(
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_TERMINAL_PROMPT="0",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_CONFIG_COUNT=str(len(settings)),
        LC_ALL="C.UTF-8",
        # Git 3.0 announces others for new repositories.
        GIT_DEFAULT_HASH="sha1",
        GIT_DEFAULT_REF_FORMAT="files",
    )
    for index, (key, value) in enumerate(settings):
        kept[f"GIT_CONFIG_KEY_{index}"], kept[f"GIT_CONFIG_VALUE_{index}"] = key, value
    return kept


def _certificates(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which git trusts what this program trusts, which libcurl does not read itself."""
    files = [environment[name] for name in _CERTIFICATES if is_set(environment.get(name, ""))]
    if not files or "GIT_SSL_CAINFO" in environment:
        return {}
    system = ssl.get_default_verify_paths()
    folder = environment.get("SSL_CERT_DIR") or system.capath or system.openssl_capath
    return {"GIT_SSL_CAINFO": files[-1], "GIT_SSL_CAPATH": folder}


def _last_words(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return printable(b"; ".join(lines[-3:])) or "it gave no reason"
