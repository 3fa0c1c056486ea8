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
    status: str = "notStarted"
    result: str | None = None
    queued: str = field(default_factory=now)
    started: str | None = None
    finished: str | None = None
    run: Run = field(default_factory=Run)
    plan_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Lease:
    """Keeps a run, and thereby its pipeline, from being deleted."""

    id: int
    definition_id: int
    build_id: int
    owner: str
    created: str = field(default_factory=now)
