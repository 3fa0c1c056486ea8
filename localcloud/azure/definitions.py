"""Definitions of pipelines, their runs, and the leases that keep runs."""

from __future__ import annotations

import copy
import uuid
from dataclasses import dataclass, field
from typing import Any

from .agent.run import Run
from .repos import now


@dataclass
class Definition:
    """One pipeline definition; the body is what the REST API takes and gives, with the secrets' values."""

    id: int
    organization: str
    project: str
    body: dict[str, Any]
    revision: int = 1
    authorized: set[str] = field(default_factory=set)
    """Ids of the repositories, other than its own, that it may use."""

    @property
    def yaml_path(self) -> str:
        """The path of its YAML file."""
        return str(self.body["process"]["yamlFilename"])

    def shown(self) -> dict[str, Any]:
        """Return the body as it is read: secret values are null."""
        body = copy.deepcopy(self.body)
        for variable in body.get("variables", {}).values():
            if variable.get("isSecret"):
                variable["value"] = None
        return {**body, "id": self.id, "revision": self.revision, "type": "build", "quality": "definition"}


@dataclass
class Build:
    """One run, from the queue to its result."""

    id: int
    definition: Definition
    ref: str
    version: str
    reason: str
    text: str | None
    problem: str | None = None
    """Why it fails before any step."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Values of runtime parameters that are not their defaults."""
    variables: dict[str, str] = field(default_factory=dict)
    """Variables that were set when it was queued."""
    resources: dict[str, str] = field(default_factory=dict)
    """The projects of the repositories that its YAML names, by the repositories' ids."""
    status: str = "notStarted"
    result: str | None = None
    queued: str = field(default_factory=now)
    started: str | None = None
    finished: str | None = None
    run: Run = field(default_factory=Run)
    plan_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class AgentPool:
    """An agent pool of the organization's own.

    https://learn.microsoft.com/azure/devops/pipelines/agents/agents#capabilities
    """

    capabilities: dict[str, str]
    """Of its one agent."""
    machine: dict[str, str]
    """Environment variables of the agent's machine, and those that the agent sets for its jobs."""
    secrets: dict[str, str]
    """Secret variables that the agent gives its jobs, by name."""

    def meets(self, demand: str) -> bool:
        """Whether the agent meets a demand, ``capability`` or ``capability -equals value``."""
        name, _, value = demand.partition(" -equals ")
        return name in self.capabilities and value in ("", self.capabilities[name])


@dataclass
class Lease:
    """Keeps a run, and thereby its pipeline, from being deleted."""

    id: int
    definition_id: int
    build_id: int
    owner: str
    created: str = field(default_factory=now)
