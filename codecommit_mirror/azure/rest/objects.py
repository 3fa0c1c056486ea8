"""What Azure DevOps has, as typed values: repositories, pipelines, runs, and changes of files and refs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

NO_OBJECT = "0" * 40
"""Stands for no object, where a ref is created or deleted."""


@dataclass(frozen=True)
class Repository:
    """A Git repository (Repositories - Get)."""

    id: str
    name: str
    project_id: str
    default_branch: str | None
    """Without ``refs/heads/``; None while the repository has no commit."""


_MINIMUM_REVIEWERS = "fa4e907d-c16b-4a4c-9dfa-4906e5d171dd"
"""The type of the policy *Minimum number of reviewers*, the same everywhere, as are its settings:
https://github.com/microsoft/terraform-provider-azuredevops, ``policy/branch``."""


@dataclass(frozen=True)
class BranchPolicy:
    """A policy of a branch that is enabled and keeps a push away (Policy Configurations - Get)."""

    type_id: str
    settings: Mapping[str, Any]

    @property
    def asks_others(self) -> bool:
        """Whether somebody else has to approve each change as it is: not its author, nor who pushed to it last."""
        votes_end = self.settings.get("resetOnSourcePush") or self.settings.get("requireVoteOnLastIteration")
        return (
            self.type_id == _MINIMUM_REVIEWERS
            and self.settings.get("minimumApproverCount", 0) > 0
            and not self.settings.get("creatorVoteCounts")
            and bool(self.settings.get("blockLastPusherVote") and votes_end)
        )


@dataclass(frozen=True)
class PullRequest:
    """A pull request (Pull Requests - Get)."""

    id: int


@dataclass(frozen=True)
class Definition:
    """A pipeline definition (Definitions - Get)."""

    id: int
    body: dict[str, Any] = field(repr=False)
    """The whole definition, as an update must send it; the values of secret variables are null."""

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.body["name"])

    @property
    def yaml_path(self) -> str:
        """The path of its YAML file, without a slash in front."""
        return str(self.body.get("process", {}).get("yamlFilename", "")).lstrip("/")

    @property
    def repository_id(self) -> str:
        """The id of the repository that holds its YAML file."""
        return str(self.body.get("repository", {}).get("id", ""))

    @property
    def branch(self) -> str:
        """The branch whose YAML its runs take where they name no other."""
        return str(self.body.get("repository", {}).get("defaultBranch", "")).removeprefix("refs/heads/")

    @property
    def is_enabled(self) -> bool:
        """Whether it can run."""
        return str(self.body.get("queueStatus", "enabled")) == "enabled"

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """Its variables, by name; secret ones have no value."""
        return dict(self.body.get("variables") or {})


@dataclass(frozen=True)
class ProjectSettings:
    """Settings of a project's pipelines; None if the token may not read them."""

    protects_repositories: bool | None = None
    """*Protect access to repositories in YAML pipelines*."""
    limits_variables: bool | None = None
    """*Limit variables that can be set at queue time*."""


WITH_ISSUES = "partiallySucceeded"
"""What Azure DevOps calls a run that succeeded with issues: refs that need a person (``Outcome.needs_attention``)."""
GOOD_RESULTS = ("succeeded", WITH_ISSUES)


@dataclass(frozen=True)
class Build:
    """A run (Builds - Get)."""

    id: int
    status: str
    result: str | None
    reason: str
    branch: str
    queued: datetime
    finished: datetime | None

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.status == "completed"


@dataclass(frozen=True)
class Record:
    """One stage, job or step of a run (Timeline - Get)."""

    kind: str
    name: str
    state: str
    result: str | None
    log_id: int | None
    order: int
    errors: tuple[str, ...]


@dataclass(frozen=True)
class FileChange:
    """A file's new text in a commit; None removes it."""

    path: str
    text: str | None = field(repr=False)
    exists: bool
    """Whether the branch has the file already."""


@dataclass(frozen=True)
class PushedRef:
    """One ref's change in a push (Pushes - List)."""

    name: str
    new: str
    date: datetime
