"""What the REST API's operations on agent pools show: which a project may use, and their agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..pipelines import Pipelines
from ..repos import ServiceError
from .operation import Call, Route

_SCOPE = "vso.agentpools"


class PoolOperations:
    """Agent pools, of which each project may use all, with one agent each."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines

    def routes(self) -> Sequence[Route]:
        """Return the operations with their scopes."""
        agents = "distributedtask/pools/{poolId}/agents"
        return (
            Route("GET", "distributedtask/queues", _SCOPE, self.queues, released_in=7),
            Route("GET", agents, _SCOPE, self.agents, in_project=False),
        )

    def queues(self, call: Call) -> Any:
        """Queues - Get Agent Queues By Names."""
        wanted = call.query["queueNames"].split(",")
        return [
            {"id": number, "name": name, "pool": {"id": number, "name": name}}
            for number, name in enumerate(self._pipelines.jobs.pools, 1)
            if name in wanted
        ]

    def agents(self, call: Call) -> Any:
        """Agents - List."""
        pools = list(self._pipelines.jobs.pools.values())
        number = int(call.parts["poolId"])
        if not 0 < number <= len(pools):
            raise ServiceError(404, f"There is no agent pool {number}.")
        online = "online" if self._pipelines.agent_online else "offline"
        capabilities = pools[number - 1].capabilities
        return [{"id": 1, "name": "agent", "enabled": True, "status": online, "systemCapabilities": capabilities}]
