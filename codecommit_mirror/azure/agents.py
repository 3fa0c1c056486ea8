"""The agents that run pipelines: pools of an organization's own, and how much of Microsoft's the schedules take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config.mirror import Mirror
from ..config.schedule import runs_a_day
from ..errors import AzureError
from .http import AzureHttp

_MINUTES_A_RUN = 1
"""A run with nothing to do takes seconds; preparing its agent takes most of a minute."""
_FREE_MINUTES_A_MONTH = 1_800
"""Of the one free Microsoft-hosted job for private projects:
https://learn.microsoft.com/azure/devops/pipelines/licensing/concurrent-jobs"""
_MINUTES_A_DAY, _DAYS_A_MONTH = 24 * 60, 30

_WINDOWS = "Windows_NT"
"""What an agent on Windows says of itself: https://learn.microsoft.com/azure/devops/pipelines/process/demands"""


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


def note(mirrors: Sequence[Mirror]) -> str | None:
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
