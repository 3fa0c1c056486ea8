"""An organization: its repositories, its id, its agents, and how a service connection is protected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from ...config.discovery import DiscoveredRepository
from ...config.mirror import Mirror
from ...config.schedule import runs_a_day
from ...errors import AzureError
from .http import AzureHttp
from .token import AzureToken

_BRANCH_CONTROL = "86b05a0c-73e6-4f7d-b3cf-e38f3b39a75b"
"""The id of that check's task, the same everywhere."""
_MINUTES_A_RUN = 1
"""A run with nothing to do takes seconds; preparing its agent takes most of a minute."""
_FREE_MINUTES_A_MONTH = 1_800
"""Of the one free Microsoft-hosted job for private projects:
https://learn.microsoft.com/azure/devops/pipelines/licensing/concurrent-jobs"""
_MINUTES_A_DAY, _DAYS_A_MONTH = 24 * 60, 30

_WINDOWS = "Windows_NT"
"""What an agent on Windows says of itself: https://learn.microsoft.com/azure/devops/pipelines/process/demands"""


def list_repositories(
    server: str, organization: str, token: AzureToken, transport: httpx.BaseTransport | None = None
) -> list[DiscoveredRepository]:
    """Return every repository that the token's owner may see, wikis too, in one call (Repositories - List).

    Raises:
        AzureError: the service refuses, or cannot be reached.
    """
    http = AzureHttp(f"{server}/{quote(organization, safe='')}", token, transport=transport)
    listed = http.get("git/repositories", f"list the repositories of {organization!r}", includeHidden="true")
    return [_discovered(repository) for repository in listed["value"]]


def _discovered(repository: Mapping[str, Any]) -> DiscoveredRepository:
    branch = repository.get("defaultBranch")
    return DiscoveredRepository(
        str(repository["project"]["name"]),
        str(repository["name"]),
        str(branch).removeprefix("refs/heads/") if branch else None,
        bool(repository.get("isDisabled")),
    )


def read_organization_id(
    server: str, organization: str, token: AzureToken, transport: httpx.BaseTransport | None = None
) -> str:
    """Return the id of an organization, which is part of the issuer of its pipelines' tokens (connectionData).

    Raises:
        AzureError: the service refuses, or cannot be reached.
    """
    http = AzureHttp(f"{server}/{quote(organization, safe='')}", token, transport=transport)
    action = f"read the id of {organization!r}"
    return str(http.call("GET", "connectionData", action, version="7.1-preview")["instanceId"])


@dataclass(frozen=True)
class ServiceConnection:
    """Who may use a service connection."""

    name: str
    is_open: bool
    """Whether every pipeline of the project may."""
    branches: tuple[str, ...] | None
    """The full names of the branches that *Branch control* lets use it; None without that check."""


def read_connection(
    server: str, organization: str, project: str, name: str, token: AzureToken, transport: httpx.BaseTransport | None
) -> ServiceConnection | None:
    """Return how a service connection is protected; None if the token's owner does not see it.

    Endpoints - Get Service Endpoints By Names, Pipeline Permissions - Get, Check Configurations - List.

    Raises:
        AzureError: the service refuses, or cannot be reached.
    """
    place = f"{server}/{quote(organization, safe='')}/{quote(project, safe='')}"
    http = AzureHttp(place, token, transport=transport)
    action = f"read how the service connection {name!r} is protected"
    found = http.get("serviceendpoint/endpoints", action, endpointNames=name)["value"]
    if not found:
        return None
    identifier, preview = found[0]["id"], "7.1-preview.1"
    permissions = http.call("GET", f"pipelines/pipelinePermissions/endpoint/{identifier}", action, version=preview)
    query = {"resourceType": "endpoint", "resourceId": identifier, "$expand": "settings"}
    checks = http.call("GET", "pipelines/checks/configurations", action, query=query, version=preview)["value"]
    controls = [
        check["settings"]["inputs"]
        for check in checks
        if check.get("settings", {}).get("definitionRef", {}).get("id") == _BRANCH_CONTROL
    ]
    allowed = [branch.strip() for control in controls for branch in control.get("allowedBranches", "*").split(",")]
    is_open = bool((permissions.get("allPipelines") or {}).get("authorized"))
    return ServiceConnection(name, is_open, tuple(allowed) if controls else None)


@dataclass(frozen=True)
class FoundPool:
    """An agent pool, as a project sees it."""

    exists: bool | None
    """None if the token may not see it."""
    agents: tuple[Mapping[str, str], ...] = ()
    """The capabilities of each agent that is online and enabled."""


def read_pool(http: AzureHttp, name: str) -> FoundPool:
    """Return what a project sees of a pool (Queues - Get Agent Queues By Names, Agents - List).

    Args:
        http: the project's REST API.
        name: the pool's.

    Raises:
        AzureError: the service is not available.
    """
    action = f"look for the agent pool {name!r}"
    try:
        queues = http.get("distributedtask/queues", action, queueNames=name)["value"]
        if not queues:
            return FoundPool(False)
        path = f"{http.organization_apis}distributedtask/pools/{queues[0]['pool']['id']}/agents"
        agents = http.get(path, action, includeCapabilities="true")["value"]
    except AzureError as error:
        if error.status in (401, 403):
            return FoundPool(None)
        raise
    usable = (agent for agent in agents if agent.get("enabled") and agent.get("status") == "online")
    known = ({**(a.get("systemCapabilities") or {}), **(a.get("userCapabilities") or {})} for a in usable)
    return FoundPool(True, tuple(known))


def pool_problems(mirror: Mirror, found: FoundPool | None) -> list[str]:
    """Return why no agent of a mirror's pool can run its pipeline, one sentence each."""
    pool = mirror.azure.agent_pool
    if pool is None or found is None or found.exists is None:
        return []
    if not found.exists:
        return [
            f"the project {mirror.azure.project!r} has no agent pool {pool.name!r}; correct azure.pool, or add the "
            "pool under Project settings, Agent pools."
        ]
    able = [one for one in found.agents if all(_meets(one, demand) for demand in pool.demands)]
    if not able:
        demands = f" that meets {', '.join(pool.demands)}" if pool.demands else ""
        return [f"the agent pool {pool.name!r} has no agent online{demands}; start one, or correct azure.pool."]
    if all(one.get("Agent.OS") == _WINDOWS for one in able):
        return [
            f"the agents of the pool {pool.name!r} run Windows, and the mirror engine needs Linux or macOS; name "
            "another pool, or add the demand 'Agent.OS -equals Linux' for one that has both."
        ]
    return []


def _meets(capabilities: Mapping[str, str], demand: str) -> bool:
    name, _, value = demand.partition(" -equals ")
    return name in capabilities and value in ("", capabilities[name])


def schedule_note(mirrors: Sequence[Mirror]) -> str | None:
    """Return what to know if the schedules take more than the free parallel job has; Azure DevOps does not tell it."""
    runs = sum(runs_a_day(mirror.schedule) for mirror in mirrors)
    if runs * _MINUTES_A_RUN * _DAYS_A_MONTH <= _FREE_MINUTES_A_MONTH:
        return None
    jobs = runs * _MINUTES_A_RUN / _MINUTES_A_DAY
    return (
        f"the schedules make {runs:,.0f} runs a day, which at a minute each fill {jobs:.1f} parallel jobs, besides the "
        f"runs that pushes start; the free Microsoft-hosted job of an organization has {_FREE_MINUTES_A_MONTH:,} "
        "minutes a month: set a longer schedule, buy parallel jobs, or use agents of your own."
    )
