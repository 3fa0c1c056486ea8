"""An agent that runs a pipeline's YAML as Azure Pipelines does, and refuses what it does not know.

What it keeps of the service: macros are replaced in scripts and ``env:`` before any shell sees them, and unknown ones
stay; variables become upper-cased environment variables, secret ones only where ``env:`` maps them; secrets' exact
values are masked in the log; ``bash:`` and ``script:`` are not strict by themselves; work folders are fresh for each
job; logging commands are obeyed wherever they stand in a line; a job past its timeout is canceled; a stage that uses a
service connection starts only when the connection's checks allow it.
(https://learn.microsoft.com/azure/devops/pipelines/process/variables and .../scripts/logging-commands)
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from . import expressions
from .definition import UnsupportedPipeline, expression, read_definition, service_connections, stages


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
    stages: dict[str, str] = field(default_factory=dict)
    """The result of each stage, ``skipped`` among them."""
    canceled: threading.Event = field(default_factory=threading.Event, repr=False)
    kill: Callable[[], None] = field(default=lambda: None, repr=False)
    """Ends the step that is running."""

    def cancel(self) -> None:
        """End the run: the step that is running, and all that would follow."""
        self.canceled.set()
        self.kill()

    @property
    def text(self) -> str:
        """The whole log."""
        return "\n".join(self.log)


class Service(Protocol):
    """What the service does for a run beside giving it its variables."""

    def checkout(self, folder: Path) -> None:
        """Put the repository of the YAML, as of the run's commit, into an empty folder."""

    def why_not(self, connection: str) -> str | None:
        """Return why a service connection's checks keep this run from using it."""

    def aws_environment(self, connection: str, region: str, seconds: int) -> Mapping[str, str]:
        """Return the variables with which a script acts as a service connection's role.

        Raises:
            RuntimeError: AWS gives no credentials.
        """

    def approved(self, instructions: str, minutes: float) -> bool:
        """Wait for a person's decision."""


_MACRO = re.compile(r"\$\(([A-Za-z0-9_. -]+)\)")
_COMMAND = re.compile(r"##vso\[([\w.]+)([^\]]*)\](.*)", re.IGNORECASE)
_RANK = ["succeeded", "succeededWithIssues", "failed", "canceled"]
_GOOD = _RANK[:2]
_DEFAULT_TIMEOUT_MINUTES = 60
_DEFAULT_ROLE_SECONDS = "900"
"""Of the AWS toolkit's tasks, unless the variable ``aws.rolecredential.maxduration`` says more."""


def run_pipeline(
    text: str,
    variables: Mapping[str, Variable],
    *,
    job_token: str,
    path: str | None = None,
    branch: str = "main",
    run: Run | None = None,
    service: Service | None = None,
) -> Run:
    """Run every stage and job of a pipeline, one after the other.

    Args:
        text: the YAML.
        variables: what is set in the pipeline's page.
        job_token: the value of ``System.AccessToken``, a secret.
        path: the agent machine's ``PATH`` (default: this process's).
        branch: the branch that the run is for, or the full name of another ref.
        run: the record to fill, for who looks on from another thread.
        service: where steps need it: ``checkout: self`` and tasks.

    Raises:
        UnsupportedPipeline: as :func:`read_definition`.
    """
    definition = read_definition(text)
    ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
    known = {
        "System.AccessToken": Variable(job_token, secret=True),
        "Build.SourceBranch": Variable(ref),
        "Build.SourceBranchName": Variable(ref.rpartition("/")[2]),
        "Build.BuildId": Variable("1"),
        "Build.Reason": Variable("Manual"),
        **{name: Variable(str(value)) for name, value in definition.get("variables", {}).items()},
        **variables,
    }
    one = _Execution(run or Run(), path or os.environ["PATH"], service)
    one.run_stages(stages(definition), known)
    return one.run


@dataclass
class _Execution:
    """One run, on its way."""

    run: Run
    path: str
    service: Service | None
    outputs: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    """By stage, job, and ``step.variable``."""

    def run_stages(self, todo: Sequence[Mapping[str, Any]], known: Mapping[str, Variable]) -> None:
        before: list[str] = []
        for stage in todo:
            name, depends = stage["stage"], _depends(stage, before[-1:])
            before.append(name)
            outputs = {
                other: {"outputs": {f"{job}.{key}": v for job, o in jobs.items() for key, v in o.items()}}
                for other, jobs in self.outputs.items()
            }
            context = {"variables": _values(known), "dependencies": {n: outputs.get(n, {}) for n in depends}}
            if not _met(stage, [self.run.stages[other] for other in depends], context):
                self.run.stages[name] = "skipped"
                continue
            refused = [why for c in service_connections(stage) if (why := self._service().why_not(c))]
            if refused:
                self.run.log.append(f"##[error]{refused[0]}")
                self.run.stages[name] = "failed"
                self._worsen("failed")
                continue
            self.run.stages[name] = self._run_jobs(name, stage["jobs"], known)

    def _run_jobs(self, stage: str, jobs: Sequence[Mapping[str, Any]], known: Mapping[str, Variable]) -> str:
        results: dict[str, str] = {}
        mine = self.outputs.setdefault(stage, {})
        for job in jobs:
            name, depends = job["job"], _depends(job, [])
            context = {
                "variables": _values(known),
                "dependencies": {other: {"outputs": mine.get(other, {})} for other in depends},
                "stageDependencies": {s: {j: {"outputs": o} for j, o in of.items()} for s, of in self.outputs.items()},
            }
            if not _met(job, [results[other] for other in depends], context):
                results[name] = "skipped"
                continue
            of_job = {}
            for key, value in job.get("variables", {}).items():
                text = expression(str(value))
                of_job[key] = Variable(str(value if text is None else expressions.evaluate(text, context, True)))
            before, self.run.result = self.run.result, "succeeded"
            mine[name] = {}
            self._run_job(job, {**known, **of_job}, mine[name])
            results[name], self.run.result = self.run.result, max(before, self.run.result, key=_RANK.index)
        ran = [result for result in results.values() if result != "skipped"]
        return max(ran, key=_RANK.index) if ran else "skipped"

    def _run_job(self, job: Mapping[str, Any], variables: Mapping[str, Variable], outputs: dict[str, str]) -> None:
        work = Path(tempfile.mkdtemp(prefix="agent-"))
        folders = {
            "Agent.TempDirectory": "_temp",
            "System.DefaultWorkingDirectory": "1/s",
            "Agent.HomeDirectory": "home",
        }
        for folder in (*folders.values(), "tmp"):
            (work / folder).mkdir(parents=True)
        known = {**variables, **{name: Variable(str(work / folder)) for name, folder in folders.items()}}
        deadline = threading.Event()
        minutes = float(job.get("timeoutInMinutes", _DEFAULT_TIMEOUT_MINUTES))
        try:
            for step in job["steps"]:
                if step == {"checkout": "none"}:
                    continue
                if step == {"checkout": "self"}:
                    self._service().checkout(work / "1/s")
                elif step.get("task") == "ManualValidation@1":
                    self._ask(step, known, minutes)
                else:
                    self._run_step(step, known, work, minutes, deadline, outputs)
                if self.run.result in ("failed", "canceled"):
                    break
        finally:
            self.run.left_behind += [path.name for folder in ("tmp", "home") for path in (work / folder).iterdir()]
            shutil.rmtree(work)

    def _ask(self, step: Mapping[str, Any], variables: Mapping[str, Variable], minutes: float) -> None:
        record = Step(str(step.get("displayName", "ManualValidation")))
        self.run.steps.append(record)
        instructions = _expand(step["inputs"].get("instructions", ""), variables)
        if not self._service().approved(instructions, float(step.get("timeoutInMinutes", minutes))):
            self._say(record, "##[error]The manual validation was rejected.")
            self._worsen("failed")
        record.state, record.result = "completed", self.run.result

    def _run_step(
        self,
        step: Mapping[str, Any],
        variables: Mapping[str, Variable],
        work: Path,
        minutes: float,
        deadline: threading.Event,
        outputs: dict[str, str],
    ) -> None:
        record = Step(str(step.get("displayName", "Bash")))
        self.run.steps.append(record)
        environment = {
            "PATH": self.path,
            "HOME": str(work / "home"),
            "TMPDIR": str(work / "tmp"),
            "LANG": "C.UTF-8",
            "TF_BUILD": "True",
            **{_environment_name(name): v.value for name, v in variables.items() if not v.secret},
            **{name: _expand(str(value), variables) for name, value in step.get("env", {}).items()},
        }
        if "task" in step:
            inputs = {name: _expand(str(value), variables) for name, value in step["inputs"].items()}
            if inputs.get("scriptType") != "inline":
                raise UnsupportedPipeline("AWSShellScript runs inline scripts alone")
            seconds = variables.get("aws.rolecredential.maxduration", Variable(_DEFAULT_ROLE_SECONDS)).value
            try:
                environment |= self._service().aws_environment(
                    inputs["awsCredentials"], inputs["regionName"], int(seconds)
                )
            except RuntimeError as error:
                self._say(record, f"##[error]Failed to assume role with OIDC: {error}")
                self._worsen("failed")
                record.state, record.result = "completed", self.run.result
                return
            text = inputs["inlineScript"]
        else:
            text = _expand(step["bash"] if "bash" in step else step["script"], variables)
        script = work / "_temp" / f"{uuid.uuid4()}.sh"
        script.write_text(text)
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

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        def time_out() -> None:
            deadline.set()
            kill()

        timer = threading.Timer(minutes * 60, time_out)
        timer.start()
        self.run.kill = kill
        if self.run.canceled.is_set():
            kill()
        assert process.stdout
        try:
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self.run.unmasked.append(line)
                if command := _COMMAND.search(line):
                    self._obey(command, step.get("name"), outputs)
                for mask in masks:
                    line = line.replace(mask, "***")
                self._say(record, line)
            status = process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
        if deadline.is_set() or self.run.canceled.is_set():
            self._worsen("canceled")
        elif status:
            self._say(record, f"##[error]Bash exited with code '{status}'.")
            self._worsen("failed")
        record.state, record.result = "completed", self.run.result

    def _obey(self, command: re.Match[str], step: str | None, outputs: dict[str, str]) -> None:
        name, fields, message = command.groups()
        properties = dict(part.strip().split("=", 1) for part in fields.split(";") if "=" in part)
        if name == "task.logissue":
            self.run.issues.append(
                (properties["type"], message.replace("%0D", "\r").replace("%0A", "\n").replace("%AZP25", "%"))
            )
        elif name == "task.complete":
            result = properties["result"]
            self._worsen(result[0].lower() + result[1:])
        elif name == "task.uploadsummary":
            self.run.summaries.append(Path(message).read_text())
        elif name == "task.setvariable" and properties.get("isOutput") == "true" and step:
            outputs[f"{step}.{properties['variable']}"] = message
        else:
            raise UnsupportedPipeline(f"no such logging command: {name}")

    def _say(self, record: Step, line: str) -> None:
        self.run.log.append(line)
        record.log.append(line)

    def _worsen(self, result: str) -> None:
        self.run.result = max(self.run.result, result, key=_RANK.index)

    def _service(self) -> Service:
        if self.service is None:
            raise UnsupportedPipeline("this step needs the service, which is not there")
        return self.service


def _depends(what: Mapping[str, Any], default: list[str]) -> list[str]:
    given = what.get("dependsOn", default)
    return [given] if isinstance(given, str) else list(given)


def _met(what: Mapping[str, Any], before: Sequence[str], context: Mapping[str, Any]) -> bool:
    succeeded = all(result in _GOOD for result in before)
    try:
        return bool(expressions.evaluate(str(what.get("condition", "succeeded()")), context, succeeded))
    except expressions.UnknownExpression as error:
        raise UnsupportedPipeline(f"an expression that is not evaluated here: {error}") from None


def _values(variables: Mapping[str, Variable]) -> dict[str, str]:
    return {name: variable.value for name, variable in variables.items()}


def _expand(text: str, variables: Mapping[str, Variable]) -> str:
    by_name = {name.lower(): variable.value for name, variable in variables.items()}
    return _MACRO.sub(lambda match: by_name.get(match.group(1).lower(), match.group()), text)


def _environment_name(name: str) -> str:
    return name.upper().replace(".", "_").replace(" ", "_")
