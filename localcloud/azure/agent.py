"""An agent that runs one pipeline's YAML as Azure Pipelines does, and refuses what it does not know.

What it keeps of the service: macros are replaced in scripts and ``env:`` before any shell sees them, and unknown ones
stay; variables become upper-cased environment variables, secret ones only where ``env:`` maps them; secrets' exact
values are masked in the log; ``bash:`` and ``script:`` are not strict by themselves; work folders are fresh; logging
commands are obeyed wherever they stand in a line; a job past its timeout is canceled.
(https://learn.microsoft.com/azure/devops/pipelines/process/variables and .../scripts/logging-commands)
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Variable:
    """A pipeline variable as it is set in the pipeline's page."""

    value: str
    secret: bool = False


@dataclass
class Step:
    """One step of a run, while it goes on and afterwards."""

    name: str
    state: str = "inProgress"
    result: str | None = None
    log: list[str] = field(default_factory=list)


@dataclass
class Run:
    """One run: its result is ``succeeded``, ``succeededWithIssues``, ``failed`` or ``canceled``."""

    result: str = "succeeded"
    log: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    unmasked: list[str] = field(default_factory=list, repr=False)
    """What the steps wrote before their secrets were masked, which the service never keeps; for tests of leaks."""
    left_behind: list[str] = field(default_factory=list)
    """Files that a step left outside the folder that the agent clears, by name."""
    issues: list[tuple[str, str]] = field(default_factory=list)
    """Type (``error`` or ``warning``) and message of each logged issue."""
    summaries: list[str] = field(default_factory=list)
    """The Markdown of the run's summary page."""

    @property
    def text(self) -> str:
        """The whole log."""
        return "\n".join(self.log)


class UnsupportedPipeline(Exception):
    """The YAML has something that this agent does not run; the service might, or might refuse it."""


_PIPELINE_KEYS = {"trigger", "pr", "schedules", "resources", "jobs"}
_RESOURCE_KEYS = {"repository", "type", "name", "ref", "trigger"}
_JOB_KEYS = {"job", "displayName", "timeoutInMinutes", "pool", "uses", "steps"}
_STEP_KEYS = {"bash", "script", "displayName", "env"}
_MACRO = re.compile(r"\$\(([A-Za-z0-9_. -]+)\)")
_COMMAND = re.compile(r"##vso\[([\w.]+)([^\]]*)\](.*)", re.IGNORECASE)
_RANK = ["succeeded", "succeededWithIssues", "failed", "canceled"]
_DEFAULT_TIMEOUT_MINUTES = 60


def read_definition(text: str) -> dict[str, Any]:
    """Return a pipeline's YAML as data.

    Raises:
        UnsupportedPipeline: it is not YAML, or has a key, a step or an expression that this agent does not know.
    """
    if match := re.search(r"\$\{\{|\$\[", text):
        raise UnsupportedPipeline(f"expressions are not evaluated: {match.group()}")
    try:
        definition: dict[str, Any] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UnsupportedPipeline(f"it is not YAML: {error}") from None
    _only(definition, _PIPELINE_KEYS, "pipeline")
    for resource in repository_resources(definition):
        _only(resource, _RESOURCE_KEYS, "repository resource")
    if not definition.get("jobs"):
        raise UnsupportedPipeline("it has no jobs")
    for job in definition["jobs"]:
        _only(job, _JOB_KEYS, "job")
        if job.get("pool") != {"vmImage": "ubuntu-24.04"}:
            raise UnsupportedPipeline(f"no such pool: {job.get('pool')}")
        for step in job["steps"]:
            if step != {"checkout": "none"}:
                _only(step, _STEP_KEYS, "step")
    return definition


def repository_resources(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of ``resources.repositories``."""
    resources = definition.get("resources") or {}
    _only(resources, {"repositories"}, "resources")
    return list(resources.get("repositories", []))


def run_pipeline(
    text: str,
    variables: Mapping[str, Variable],
    *,
    job_token: str,
    path: str | None = None,
    branch: str = "main",
    run: Run | None = None,
) -> Run:
    """Run every job of a pipeline, one after the other.

    Args:
        text: the YAML.
        variables: what is set in the pipeline's page.
        job_token: the value of ``System.AccessToken``, a secret.
        path: the agent machine's ``PATH`` (default: this process's).
        branch: the branch that the run is for.
        run: the record to fill, for who looks on from another thread.

    Raises:
        UnsupportedPipeline: as :func:`read_definition`.
    """
    definition = read_definition(text)
    known = {
        "System.AccessToken": Variable(job_token, secret=True),
        "Build.SourceBranch": Variable(f"refs/heads/{branch}"),
        "Build.SourceBranchName": Variable(branch.rpartition("/")[2]),
        "Build.BuildId": Variable("1"),
        **variables,
    }
    run = run or Run()
    for job in definition["jobs"]:
        _run_job(run, job, known, path or os.environ["PATH"])
        if run.result in ("failed", "canceled"):
            break
    return run


def _run_job(run: Run, job: Mapping[str, Any], variables: Mapping[str, Variable], path: str) -> None:
    work = Path(tempfile.mkdtemp(prefix="agent-"))
    folders = {"Agent.TempDirectory": "_temp", "System.DefaultWorkingDirectory": "1/s", "Agent.HomeDirectory": "home"}
    for folder in (*folders.values(), "tmp"):
        (work / folder).mkdir(parents=True)
    known = {**variables, **{name: Variable(str(work / folder)) for name, folder in folders.items()}}
    deadline = threading.Event()
    minutes = float(job.get("timeoutInMinutes", _DEFAULT_TIMEOUT_MINUTES))
    try:
        for step in job["steps"]:
            if step == {"checkout": "none"}:
                continue
            _run_step(run, step, known, path, work, minutes, deadline)
            if run.result in ("failed", "canceled"):
                break
    finally:
        run.left_behind += [path.name for folder in ("tmp", "home") for path in (work / folder).iterdir()]
        shutil.rmtree(work)


def _run_step(
    run: Run,
    step: Mapping[str, Any],
    variables: Mapping[str, Variable],
    path: str,
    work: Path,
    minutes: float,
    deadline: threading.Event,
) -> None:
    record = Step(str(step.get("displayName", "Bash")))
    run.steps.append(record)
    script = work / "_temp" / f"{uuid.uuid4()}.sh"
    script.write_text(_expand(step["bash"] if "bash" in step else step["script"], variables))
    environment = {
        "PATH": path,
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "LANG": "C.UTF-8",
        "TF_BUILD": "True",
        **{_environment_name(name): v.value for name, v in variables.items() if not v.secret},
        **{name: _expand(str(value), variables) for name, value in step.get("env", {}).items()},
    }
    masks = sorted({v.value for v in variables.values() if v.secret and v.value}, key=len, reverse=True)
    process = subprocess.Popen(
        ["bash", "--noprofile", "--norc", str(script)],
        cwd=work / "1/s",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def cancel() -> None:
        deadline.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(minutes * 60, cancel)
    timer.start()
    assert process.stdout
    for raw in process.stdout:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        run.unmasked.append(line)
        if command := _COMMAND.search(line):
            _obey(run, command)
        for mask in masks:
            line = line.replace(mask, "***")
        run.log.append(line)
        record.log.append(line)
    status = process.wait()
    timer.cancel()
    if deadline.is_set():
        _worsen(run, "canceled")
    elif status:
        last = f"##[error]Bash exited with code '{status}'."
        run.log.append(last)
        record.log.append(last)
        _worsen(run, "failed")
    record.state, record.result = "completed", run.result


def _obey(run: Run, command: re.Match[str]) -> None:
    name, fields, message = command.groups()
    properties = dict(part.strip().split("=", 1) for part in fields.split(";") if "=" in part)
    if name == "task.logissue":
        run.issues.append(
            (properties["type"], message.replace("%0D", "\r").replace("%0A", "\n").replace("%AZP25", "%"))
        )
    elif name == "task.complete":
        result = properties["result"]
        _worsen(run, result[0].lower() + result[1:])
    elif name == "task.uploadsummary":
        run.summaries.append(Path(message).read_text())
    else:
        raise UnsupportedPipeline(f"no such logging command: {name}")


def _worsen(run: Run, result: str) -> None:
    run.result = max(run.result, result, key=_RANK.index)


def _expand(text: str, variables: Mapping[str, Variable]) -> str:
    by_name = {name.lower(): variable.value for name, variable in variables.items()}
    return _MACRO.sub(lambda match: by_name.get(match.group(1).lower(), match.group()), text)


def _environment_name(name: str) -> str:
    return name.upper().replace(".", "_").replace(" ", "_")


def _only(mapping: object, known: set[str], what: str) -> None:
    if not isinstance(mapping, dict):
        raise UnsupportedPipeline(f"a {what} that is not a mapping: {mapping!r}")
    if unknown := mapping.keys() - known:
        raise UnsupportedPipeline(f"unknown key of a {what}: {sorted(unknown)[0]}")
