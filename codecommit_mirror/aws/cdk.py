"""The CDK CLI: found, and run on this project's app while its CloudFormation events are passed on."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..errors import ConfigurationError, MirrorError
from ..progress import say
from .session import AS_THE_ENVIRONMENT_SAYS, SignIn, environment_for_cdk

_DEPLOY = ("--require-approval", "never", "--progress", "events", "--no-previous-parameters")
"""The parameter with the source's names takes those of the template, since ``up`` has compared the source's id."""
_DESTROY = ("--force",)
"""It has no option --progress, and prints events when it is not on a terminal."""
_FOR_OTHERS = re.compile(
    "AZURE_(DEVOPS|GIT|CLIENT|TENANT)_.*|AWS_GIT_.*|RESTORE_GIT_.*|SYSTEM_ACCESSTOKEN|ACTIONS_ID_TOKEN_.*|GH_TOKEN"
    # An option of the CLI, such as the app that it runs.
    "|CDK_.*"
)
_QUALIFIERS = ("codecommit-mirror:qualifier", "@aws-cdk/core:bootstrapQualifier")
"""The keys of cdk.json with the qualifier of the bootstrap that mirrors are deployed with; the first that is set."""
_DEFAULT_QUALIFIER = "hnb659fds"
"""Of a bootstrap stack without a qualifier: https://docs.aws.amazon.com/cdk/v2/guide/bootstrapping-customizing.html"""
_EVENT = re.compile(
    r"\s*(?P<stack>\S+) \|(?:\s*\d+(?:/\d+)? \|)?[^|]*\| (?P<status>[A-Z_]+)\s*\| (?P<resource_type>\S+)\s*\| "
    r"(?P<resource>\S+)(?: \(\w+\))?(?P<reason>.*)"
)
"""A line of the CLI's events: stack, count, time, status, type, construct path, (logical id), reason."""
_ENDED = re.compile(r"\s*✅\s+(?P<mirror>[^\s:]+)")
"""A line about a stack that was deployed, or needed no deployment, or was destroyed."""
_FAILED = re.compile(r"\s*❌\s+(?P<mirror>[^\s:]+)")
"""A line about a stack that failed, possibly the only line about it."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OLDEST_NODE = 22
"""https://nodejs.org/en/about/previous-releases; Node 20 still works, and is tested."""
_LAST_LINES = 15
"""How much of the CLI's output an error shows if no resource failed."""
Report = Callable[[str, str], None]
"""Receives a stack's name and a line about it."""


@dataclass(frozen=True)
class StackEvent:
    """One event of a CloudFormation stack."""

    stack: str
    status: str
    resource_type: str
    resource: str
    reason: str

    @property
    def failed(self) -> bool:
        """Whether CloudFormation could not do something."""
        return self.status.endswith("_FAILED")


def find_cli(folder: Path) -> str:
    """Return the path of the CDK CLI: the project's own, or else the one on the PATH.

    Raises:
        MirrorError: there is none.
    """
    path = shutil.which("cdk", path=folder / "node_modules" / ".bin") or shutil.which("cdk")
    if not path or shutil.which("node") is None:
        raise MirrorError("the CDK CLI or Node.js is not installed; install Node 22, then run 'npm ci' here.")
    return path


@cache
def _note_old_node() -> None:
    """Say once that the version of Node has ended, if it has."""
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)", found)
    if match and int(match[1]) < _OLDEST_NODE:
        say(f"note: Node {match[1]} has ended, and gets no security updates; install Node {_OLDEST_NODE} or later.")


def bootstrap_parameter(folder: Path) -> str:
    """Return the name of the SSM parameter that ``cdk bootstrap`` creates.

    Raises:
        MirrorError: the folder is not this project's.
    """
    if not (folder / "cdk.json").is_file():
        raise ConfigurationError(f"{folder} has no cdk.json; run this command in the project's folder.")
    # As the CLI reads them: the project's own goes first, and the user's last.
    context: dict[str, str] = {}
    for path in (Path.home() / ".cdk.json", folder / "cdk.context.json", folder / "cdk.json"):
        context |= _read_context(path)
    qualifier = next((context[key] for key in _QUALIFIERS if key in context), _DEFAULT_QUALIFIER)
    return f"/cdk-bootstrap/{qualifier}/version"


def _read_context(path: Path) -> dict[str, str]:
    """Return the context of a file of the CDK CLI; empty if there is no file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); correct it.") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON ({error}); correct it.") from None
    if path.name != "cdk.context.json" and isinstance(values, dict):
        values = values.get("context") or {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} has {values!r} where a mapping is expected; correct it.")
    return {str(key): str(value) for key, value in values.items() if value is not None}


def deploy(folder: Path, mirror: str, context: Sequence[str], sign_in: SignIn = AS_THE_ENVIRONMENT_SAYS) -> None:
    """Run ``cdk deploy`` for one mirror, passing on each event of its stack.

    Raises:
        MirrorError: it failed; the message has the reasons.
    """
    run(folder, ["deploy", mirror, *_DEPLOY, *context], report=lambda _, line: say(line), sign_in=sign_in)


def synthesize(folder: Path, context: Sequence[str], assembly: Path) -> None:
    """Run ``cdk synth`` for all mirrors.

    Raises:
        MirrorError: it failed.
    """
    run(folder, ["synth", "--quiet", *context], output=assembly)


def deploy_all(
    folder: Path,
    mirrors: Mapping[str, str],
    assembly: Path,
    report: Report,
    *,
    concurrency: int,
    sign_in: SignIn = AS_THE_ENVIRONMENT_SAYS,
) -> dict[str, str]:
    """Run ``cdk deploy`` for many mirrors; return the reasons of those that failed.

    The CLI begins no further stack once one has failed, so it is run again for those that it never started.

    Args:
        folder: the project's folder.
        mirrors: their stacks' names, by their own.
        assembly: the output of ``synthesize``.
        report: receives each event of a stack.
        concurrency: how many stacks are deployed at a time.
        sign_in: how their account is signed in to.
    """
    options = [*_DEPLOY, "--concurrency", str(concurrency)]
    return _run_for_all(folder, "deploy", mirrors, options, assembly, report, sign_in)


def destroy_all(
    folder: Path,
    mirrors: Mapping[str, str],
    assembly: Path,
    report: Report,
    *,
    concurrency: int,
    sign_in: SignIn = AS_THE_ENVIRONMENT_SAYS,
) -> dict[str, str]:
    """Run ``cdk destroy`` for many mirrors like :func:`deploy_all`; return the reasons of those that failed."""
    options = [*_DESTROY, "--concurrency", str(concurrency)]
    return _run_for_all(folder, "destroy", mirrors, options, assembly, report, sign_in)


def _run_for_all(
    folder: Path,
    command: str,
    mirrors: Mapping[str, str],
    options: Sequence[str],
    assembly: Path,
    report: Report,
    sign_in: SignIn,
) -> dict[str, str]:
    left, failures = dict(mirrors), dict[str, str]()
    while left:
        lines, status = _run(folder, [command, *left, *options], _where(assembly, None), report, sign_in)
        lines = [_COLOURS.sub("", line) for line in lines]
        ended, named = (
            {match["mirror"] for line in lines if (match := pattern.match(line))} for pattern in (_ENDED, _FAILED)
        )
        left = {mirror: stack for mirror, stack in left.items() if mirror not in ended}
        if not status:
            break
        events = [event for line in lines if (event := parse_event(line))]
        reasons = {mirror: _reasons([e for e in events if e.stack == stack]) for mirror, stack in left.items()}
        end = _failure([command], lines)
        failed = {mirror: "\n".join(why) or end for mirror, why in reasons.items() if why or mirror in named}
        if not failed:
            # What stopped the CLI concerns all that it never started.
            failed = dict.fromkeys(left, end)
        failures |= failed
        left = {mirror: stack for mirror, stack in left.items() if mirror not in failed}
    return failures


def run(
    folder: Path,
    arguments: Sequence[str],
    assembly: Path | None = None,
    report: Report | None = None,
    output: Path | None = None,
    sign_in: SignIn = AS_THE_ENVIRONMENT_SAYS,
) -> str:
    """Run the CLI in the project's folder and return its output.

    Args:
        folder: the project's folder.
        arguments: the command.
        assembly: the output of an earlier ``cdk synth``; without it the app is synthesised anew.
        report: receives a line for each event of a stack, with the seconds since the start.
        output: where to synthesise; without it in a folder of its own, so that several runs do not wait for each other.
        sign_in: how the account is signed in to.

    Raises:
        MirrorError: it failed; the message has the reasons of failed resources, or else the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="cdk-") as fresh:
        lines, status = _run(folder, arguments, _where(assembly, output or Path(fresh)), report, sign_in)
    if status:
        raise MirrorError(_failure(arguments, lines))
    return "\n".join(lines)


def _where(assembly: Path | None, output: Path | None) -> list[str]:
    return ["--output", str(output)] if assembly is None else ["--app", str(assembly.resolve())]


def _run(
    folder: Path, arguments: Sequence[str], where: Sequence[str], report: Report | None, sign_in: SignIn
) -> tuple[list[str], int]:
    """Return the lines of the CLI's output, and its exit status."""
    command = [find_cli(folder), *arguments, *where, "--no-notices"]
    _note_old_node()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    began = time.monotonic()
    lines: list[str] = []
    reported: set[StackEvent] = set()
    with (
        _interruption_explained(arguments[0]),
        subprocess.Popen(
            command,
            cwd=folder,
            env={**_environment(sign_in), "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        for line in process.stdout or ():
            lines.append(line.rstrip())
            event = parse_event(line)
            if report and event and event not in reported:
                reported |= {event, replace(event, status=f"{event.status.partition('_')[0]}_IN_PROGRESS")}
                line = f"{time.monotonic() - began:5.1f} s  {event.status}  {event.resource_type}  {event.resource}"
                report(event.stack, line)
    return lines, process.returncode


def _environment(sign_in: SignIn) -> dict[str, str]:
    """Return the environment without what only signs in elsewhere, and without options of the CDK CLI.

    The CLI and the app need AWS credentials, and the folder's cdk.json says what the app is.
    """
    # jsii prints eleven lines about a version of Node that has ended, at each call; this program prints one.
    quiet = {"JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1"}
    kept = {name: value for name, value in os.environ.items() if not _FOR_OTHERS.fullmatch(name)}
    given = {**quiet, **kept, **environment_for_cdk(sign_in)}
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def _interruption_explained(command: str) -> Iterator[None]:
    """Say what goes on without this program when it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        if command in ("deploy", "destroy"):
            say("CloudFormation goes on with what it has begun; the next run waits for it.")
        raise


def parse_event(line: str) -> StackEvent | None:
    """Return the event that a line of the CLI's output reports, None for any other line."""
    match = _EVENT.fullmatch(_COLOURS.sub("", line.rstrip()))
    return match and StackEvent(**{name: text.strip() for name, text in match.groupdict().items()})


def _failure(arguments: Sequence[str], lines: Sequence[str]) -> str:
    """Return the sentence for a failed command: the reasons of the resources, or else the end of the output."""
    command = shlex.join(["cdk", *arguments[:2]])
    reasons = _reasons([event for line in lines if (event := parse_event(line))])
    if reasons:
        return "\n".join([*reasons, f"{command} failed; running again is safe, and resumes from there."])
    end = [line for line in lines if line.strip()][-_LAST_LINES:]
    return "\n".join([f"{command} failed; running again is safe. The end of its output:", *end])


def _reasons(events: Sequence[StackEvent]) -> list[str]:
    """Return why resources failed, without those that were only canceled because of another one."""
    failed = [event for event in events if event.failed and not re.search("cancell?ed", event.reason, re.IGNORECASE)]
    causes = [event for event in failed if event.resource_type != "AWS::CloudFormation::Stack"] or failed
    return list(
        dict.fromkeys(f"{event.resource} ({event.resource_type}) is {event.status}: {event.reason}" for event in causes)
    )
