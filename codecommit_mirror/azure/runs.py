"""A run of the pipeline: queue it, follow it to its end, and show the log of what failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline_templates.mirror_sync import shown

from ..errors import MirrorError
from .client import AzureDevOps, Build, Definition

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_WAITING_SECONDS = 60.0
_SUMMARY = "Mirror "

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """A run that came to its end."""

    build: Build
    summary: str | None
    """The engine's last word, when its log has one."""

    @property
    def succeeded(self) -> bool:
        """Whether everything was mirrored, or all but what only a person can mend."""
        return self.build.result in ("succeeded", "partiallySucceeded")


def run(azure: AzureDevOps, definition: Definition, branch: str, say: Say, *, timeout_minutes: float = 150) -> Finished:
    """Queue a run and follow it.

    Args:
        azure: the project.
        definition: the pipeline.
        branch: the branch whose YAML is run.
        say: told what goes on.
        timeout_minutes: how long to wait for the run's end.

    Raises:
        MirrorError: the run did not end in time; it goes on all the same.
    """
    build = azure.queue(definition, branch)
    say(f"queued run {build.id} on {branch!r}")
    return follow(azure, build, say, timeout_minutes=timeout_minutes)


def follow(azure: AzureDevOps, build: Build, say: Say, *, timeout_minutes: float) -> Finished:
    """Wait for a run's end, and tell of each step that starts."""
    began, pause, told, next_notice = time.monotonic(), _FIRST_PAUSE_SECONDS, set(), _WAITING_SECONDS
    while not build.done:
        waited = time.monotonic() - began
        if waited > timeout_minutes * 60:
            raise MirrorError(
                f"run {build.id} has not ended within {timeout_minutes:g} minutes ({_state(build)}); it goes on: look "
                "at it in Azure DevOps, and run again later."
            )
        if build.status == "notStarted" and waited > next_notice:
            next_notice += _WAITING_SECONDS
            say(f"run {build.id} waits for an agent, since {waited / 60:.0f} min")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        build = azure.build(build.id)
        for record in azure.timeline(build):
            if record.kind == "Task" and record.name not in told and record.state != "pending":
                told.add(record.name)
                say(f"step: {shown(record.name)}")
    return Finished(build, _summary(azure, build, say))


def _summary(azure: AzureDevOps, build: Build, say: Say) -> str | None:
    """Return the engine's last word; print the logs of steps that failed."""
    records = azure.timeline(build)
    summary = None
    for record in records:
        if record.kind != "Task" or record.log_id is None:
            continue
        lines = [_without_time(line) for line in azure.log(build, record.log_id).splitlines()]
        ends = [line for line in lines if line.startswith(_SUMMARY)]
        summary = shown(ends[-1]) if ends else summary
        if record.result in ("failed", "canceled"):
            say(f"log of the step {shown(record.name)!r}:")
            for line in lines:
                # What the agent obeyed is told by the lines around it.
                if not line.startswith("##vso["):
                    say(f"  {shown(line)}")
    if build.result not in ("succeeded", "partiallySucceeded"):
        # A run that came to no step says why on its job.
        for message in dict.fromkeys(m for r in records if r.kind != "Task" for m in r.errors):
            say(f"  {shown(message)}")
    return summary


def _without_time(line: str) -> str:
    """Return a line of a log without the time stamp that the service writes in front."""
    stamp, _, rest = line.partition(" ")
    return rest if stamp[:2].isdigit() and stamp.endswith("Z") else line


def _state(build: Build) -> str:
    return "it waits for an agent" if build.status == "notStarted" else "it is running"
