"""Runs of a pipeline: queue one, follow it to its end, and show the logs of failed steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..engine_api import sanitize
from ..errors import MirrorError
from ..progress import say
from .rest.client import AzureDevOps
from .rest.objects import GOOD_RESULTS, WITH_ISSUES, Build, Definition

_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.2, 5.0
_NOTICE_SECONDS = 60.0
_MAX_RUNS = 50
"""How many of a pipeline's runs are looked at: what one request gets at least."""
_SUMMARY, _ATTENTION = "Mirror ", "Needs attention:"
"""What the engine's report of a run begins with, and what heads the refs that differ until a person acts."""


@dataclass(frozen=True)
class RunResult:
    """A completed run."""

    build: Build
    summary: str | None
    """The engine's summary line, if its log has one."""

    @property
    def succeeded(self) -> bool:
        """Whether everything was mirrored, except for refs that need a person's attention."""
        return self.build.result in GOOD_RESULTS


def recent(azure: AzureDevOps, definition: Definition) -> list[Build]:
    """Return a pipeline's newest runs, as many as show whether it works: one, if that one succeeded."""
    newest = azure.newest_build(definition)
    if newest is None or newest.result in GOOD_RESULTS:
        return [newest] if newest else []
    return list(itertools.islice(azure.builds(definition), _MAX_RUNS))


def run(
    azure: AzureDevOps,
    definition: Definition,
    branch: str,
    *,
    parameters: Mapping[str, str] | None = None,
    timeout_minutes: float = 150,
) -> RunResult:
    """Queue a run and follow it.

    Args:
        azure: the project.
        definition: the pipeline.
        branch: the branch whose YAML to run.
        parameters: values of runtime parameters.
        timeout_minutes: how long to wait for the run to end.

    Raises:
        MirrorError: the run did not end in time; it continues nevertheless.
    """
    build = azure.queue(definition, branch, parameters)
    say(f"queued run {build.id} on {branch!r}")
    return follow(azure, build, timeout_minutes=timeout_minutes)


def follow(azure: AzureDevOps, build: Build, *, timeout_minutes: float) -> RunResult:
    """Wait for a run to end, and report each step that starts."""
    began, pause, next_notice = time.monotonic(), _FIRST_PAUSE_SECONDS, _NOTICE_SECONDS
    reported: set[str] = set()
    while not build.done:
        waited = time.monotonic() - began
        if waited > timeout_minutes * 60:
            raise MirrorError(
                f"run {build.id} has not ended within {timeout_minutes:g} minutes ({_state(build)}); it continues: "
                "look at it in Azure DevOps, and run this again later."
            )
        if build.status == "notStarted" and waited > next_notice:
            next_notice += _NOTICE_SECONDS
            say(f"run {build.id} has been waiting for an agent for {waited / 60:.0f} min")
        time.sleep(pause)
        pause = min(pause * 1.5, _MAX_PAUSE_SECONDS)
        build = azure.build(build.id)
        for record in azure.timeline(build):
            if record.kind == "Task" and record.name not in reported and record.state != "pending":
                reported.add(record.name)
                say(f"step: {sanitize(record.name)}")
    return RunResult(build, _summary(azure, build))


def _summary(azure: AzureDevOps, build: Build) -> str | None:
    """Return the engine's summary line; print the logs of failed steps."""
    records = azure.timeline(build)
    summary = None
    for record in records:
        if record.kind != "Task" or record.log_id is None:
            continue
        lines = [_without_time(line) for line in azure.log(build, record.log_id).splitlines()]
        ends = [number for number, line in enumerate(lines) if line.startswith(_SUMMARY)]
        if ends:
            summary = sanitize(lines[ends[-1]])
            if build.result == WITH_ISSUES:
                _say_what_needs_attention(lines[ends[-1] + 1 :])
        if record.result in ("failed", "canceled"):
            say(f"log of the step {sanitize(record.name)!r}:")
            for line in lines:
                # Logging commands repeat what the lines around them say.
                if not line.startswith("##vso["):
                    say(f"  {sanitize(line)}")
    if build.result not in GOOD_RESULTS:
        # If no step ran, the reason is on the job.
        for message in dict.fromkeys(m for r in records if r.kind != "Task" for m in r.errors):
            say(f"  {sanitize(message)}")
    return summary


def _say_what_needs_attention(report: Sequence[str]) -> None:
    """Print which refs differ until a person acts, and why, from the lines that follow the engine's summary."""
    if _ATTENTION not in report:
        return
    listed = itertools.takewhile(lambda line: line.startswith("- "), report[report.index(_ATTENTION) + 1 :])
    say("needs attention:")
    for line in listed:
        say(f"  {sanitize(line)}")


def _without_time(line: str) -> str:
    """Return a line of a log without the timestamp that the service puts first."""
    stamp, _, rest = line.partition(" ")
    return rest if stamp[:2].isdigit() and stamp.endswith("Z") else line


def _state(build: Build) -> str:
    return "it is waiting for an agent" if build.status == "notStarted" else "it is running"
