"""Run the stages, jobs and steps of a pipeline."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import expressions
from .definition import expression, read_definition, service_connections, stages
from .logging_commands import run_logging_command
from .process import run_script
from .run import GOOD_RESULTS, RESULTS, Run, Service, Step, Variable
from .task_inputs import azure_cli_script, expand, sign_out, step_environment, task_script
from .unsupported import UnsupportedPipeline

_DEFAULT_TIMEOUT_MINUTES = 60


def run_pipeline(
    text: str,
    variables: Mapping[str, Variable],
    *,
    job_token: str,
    path: str | None = None,
    branch: str = "main",
    run: Run | None = None,
    service: Service | None = None,
    machine: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Run:
    """Run every stage and job of a pipeline, one after another.

    Args:
        text: the YAML.
        variables: those that are set on the pipeline's page.
        job_token: the value of ``System.AccessToken``, a secret.
        path: the agent machine's ``PATH`` (default: this process's).
        branch: the branch that the run is for, or the full name of another ref.
        run: the record to fill, which other threads may read.
        service: for steps that need it: ``checkout: self`` and tasks.
        machine: environment variables of the agent's machine, beside ``PATH``.
        parameters: values of runtime parameters other than their defaults.

    Raises:
        UnsupportedPipeline: as :func:`read_definition`.
    """
    definition = read_definition(text, parameters)
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
    one = _Execution(run or Run(), {**(machine or {}), "PATH": path or os.environ["PATH"]}, service)
    one.run_stages(stages(definition), known)
    return one.run


@dataclass
class _Execution:
    """A run in progress."""

    run: Run
    machine: Mapping[str, str]
    service: Service | None
    outputs: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    """By stage, job, and ``step.variable``."""

    def run_stages(self, todo: Sequence[Mapping[str, Any]], known: Mapping[str, Variable]) -> None:
        every: dict[str, set[str]] = {}
        for stage in todo:
            name, depends = stage["stage"], _dependencies(stage, list(every)[-1:])
            # Indirect dependencies count, too: https://learn.microsoft.com/azure/devops/pipelines/process/conditions
            every[name] = set(depends).union(*(every[other] for other in depends))
            found = {other: self._dependency(other) for other in depends}
            context = {"variables": _values(known), "dependencies": found}
            if not self._condition_holds(stage, [self.run.stages[other] for other in every[name]], context):
                self.run.stages[name] = "skipped"
                continue
            refused = [why for c in service_connections(stage) if (why := self._service().denial_reason(*c))]
            if refused:
                self.run.log.append(f"##[error]{refused[0]}")
                self.run.stages[name] = "failed"
                self.run.lower_result("failed")
                continue
            self.run.stages[name] = self._run_jobs(name, stage["jobs"], known)

    def _dependency(self, stage: str) -> dict[str, Any]:
        """What a later stage sees of a stage."""
        result = self.run.stages[stage]
        of_jobs = self.outputs.get(stage, {}).items()
        outputs = {f"{job}.{key}": value for job, outputs in of_jobs for key, value in outputs.items()}
        return {"result": result[0].upper() + result[1:], "outputs": outputs}

    def _condition_holds(self, what: Mapping[str, Any], before: Sequence[str], context: Mapping[str, Any]) -> bool:
        canceled = self.run.canceled.is_set()
        succeeded = not canceled and all(result in GOOD_RESULTS for result in before)
        status = {"succeeded": succeeded, "canceled": canceled}
        try:
            return bool(expressions.evaluate(str(what.get("condition", "succeeded()")), context, status))
        except expressions.UnknownExpression as error:
            raise UnsupportedPipeline(f"an expression that this agent does not evaluate: {error}") from None

    def _run_jobs(self, stage: str, jobs: Sequence[Mapping[str, Any]], known: Mapping[str, Variable]) -> str:
        results: dict[str, str] = {}
        mine = self.outputs.setdefault(stage, {})
        for job in jobs:
            name, depends = job["job"], _dependencies(job, [])
            context = {
                "variables": _values(known),
                "dependencies": {other: {"outputs": mine.get(other, {})} for other in depends},
                "stageDependencies": {s: {j: {"outputs": o} for j, o in of.items()} for s, of in self.outputs.items()},
            }
            if not self._condition_holds(job, [results[other] for other in depends], context):
                results[name] = "skipped"
                continue
            of_job = {}
            for key, value in job.get("variables", {}).items():
                text = expression(str(value))
                of_job[key] = Variable(str(value if text is None else expressions.evaluate(text, context, {})))
            before, self.run.result = self.run.result, "succeeded"
            mine[name] = {}
            self._run_job(job, {**known, **of_job}, mine[name])
            results[name], self.run.result = self.run.result, max(before, self.run.result, key=RESULTS.index)
        ran = [result for result in results.values() if result != "skipped"]
        return max(ran, key=RESULTS.index) if ran else "skipped"

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
                    self._run_step(step, known, work, minutes, outputs)
                if self.run.result in ("failed", "canceled"):
                    break
        finally:
            self.run.left_behind += [path.name for folder in ("tmp", "home") for path in (work / folder).iterdir()]
            shutil.rmtree(work)

    def _ask(self, step: Mapping[str, Any], variables: Mapping[str, Variable], minutes: float) -> None:
        record = Step(str(step.get("displayName", "ManualValidation")))
        self.run.steps.append(record)
        instructions = expand(step["inputs"].get("instructions", ""), variables)
        if not self._service().approved(instructions, float(step.get("timeoutInMinutes", minutes))):
            self.run.write(record, "##[error]The manual validation was rejected.")
            self.run.lower_result("failed")
        record.state, record.result = "completed", self.run.result

    def _run_step(
        self,
        step: Mapping[str, Any],
        variables: dict[str, Variable],
        work: Path,
        minutes: float,
        outputs: dict[str, str],
    ) -> None:
        record = Step(str(step.get("displayName", "Bash")))
        self.run.steps.append(record)
        environment = step_environment(step, variables, work, self.machine)
        try:
            if step.get("task") == "AzureCLI@3":
                text, signed_in = azure_cli_script(step, variables, work, environment["PATH"], self._service())
                environment.update(signed_in)
            elif "task" in step:
                text, role = task_script(step, variables, self._service())
                environment.update(role)
            else:
                text = expand(step["bash"] if "bash" in step else step["script"], variables)
        except RuntimeError as error:
            self.run.write(record, f"##[error]Failed to assume role with OIDC: {error}")
            self.run.lower_result("failed")
        else:
            on_line = self._line_handler(record, step.get("name"), variables, outputs)
            status = run_script(text, environment, work, minutes, self.run, on_line)
            if status is None:
                self.run.lower_result("canceled")
            elif status:
                self.run.write(record, f"##[error]Bash exited with code '{status}'.")
                self.run.lower_result("failed")
        if step.get("task") == "AzureCLI@3":
            sign_out(work)
        record.state, record.result = "completed", self.run.result

    def _line_handler(
        self, record: Step, name: str | None, variables: dict[str, Variable], outputs: dict[str, str]
    ) -> Callable[[str], None]:
        """Return what happens to each line of a step: its logging command runs, and its secrets are masked."""

        def on_line(line: str) -> None:
            self.run.unmasked.append(line)
            run_logging_command(line, self.run, name, outputs, variables)
            for mask in sorted({v.value for v in variables.values() if v.secret and v.value}, key=len, reverse=True):
                line = line.replace(mask, "***")
            self.run.write(record, line)

        return on_line

    def _service(self) -> Service:
        if self.service is None:
            raise UnsupportedPipeline("this step needs the service, which this run does not have")
        return self.service


def _dependencies(what: Mapping[str, Any], default: list[str]) -> list[str]:
    given = what.get("dependsOn", default)
    return [given] if isinstance(given, str) else list(given)


def _values(variables: Mapping[str, Variable]) -> dict[str, str]:
    return {name: variable.value for name, variable in variables.items()}
