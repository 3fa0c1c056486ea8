"""The record of a run, and what a run needs from the service."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

RESULTS = ["succeeded", "succeededWithIssues", "failed", "canceled"]
"""From the best to the worst."""
GOOD_RESULTS = RESULTS[:2]


@dataclass(frozen=True)
class Variable:
    """A pipeline variable as it is set in the pipeline's page."""

    value: str
    secret: bool = False


@dataclass
class Step:
    """A step of a run, while it is running and afterwards."""

    name: str
    state: str = "inProgress"
    result: str | None = None
    log: list[str] = field(default_factory=list)


@dataclass
class Run:
    """A run; its result is one of ``RESULTS``."""

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

    def lower_result(self, result: str) -> None:
        """Set the result, unless the run already has a worse one."""
        self.result = max(self.result, result, key=RESULTS.index)

    def write(self, step: Step, line: str) -> None:
        """Add a line to the logs of the run and of a step."""
        self.log.append(line)
        step.log.append(line)

    @property
    def text(self) -> str:
        """The whole log."""
        return "\n".join(self.log)


class Service(Protocol):
    """What the service does for a run, apart from providing its variables."""

    def checkout(self, folder: Path) -> None:
        """Put the repository of the YAML, as of the run's commit, into an empty folder."""

    def denial_reason(self, kind: str, connection: str) -> str | None:
        """Return why a service connection of a kind is not there, or its checks keep this run from using it."""

    def aws_environment(self, connection: str, region: str, seconds: int) -> Mapping[str, str]:
        """Return the variables with which a script acts as a service connection's role.

        Raises:
            RuntimeError: AWS gives no credentials.
        """

    def entra_token(self, connection: str) -> str:
        """Return an access token of a service connection's Entra identity for Azure DevOps."""

    def approved(self, instructions: str, minutes: float) -> bool:
        """Wait for a person's decision."""
