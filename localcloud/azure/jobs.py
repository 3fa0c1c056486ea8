"""The jobs of a run: their agent, their token and variables, and what the service does for their steps."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .agent.definition import own_pool, read_definition, repository_resources
from .agent.execution import run_pipeline
from .agent.run import Variable
from .agent.unsupported import UnsupportedPipeline
from .definitions import AgentPool, Build
from .repos import Repository
from .service_connections import ServiceConnections
from .tokens import Tokens


@dataclass(frozen=True)
class RunsIn:
    """Where a run is at home."""

    project_id: str
    repository: Repository
    """The repository of its YAML."""
    readable: frozenset[str] | None
    """Ids of the only repositories that its job token may read; None for all."""
    ask: Callable[[str, float], bool]
    """Asks a person, with instructions, for so many minutes."""


class Jobs:
    """Runs the jobs of runs.

    Args:
        tokens: issue the jobs' tokens.
        connections: the service connections.
        agent_path: the ``PATH`` of the agents' machines.
    """

    def __init__(self, tokens: Tokens, connections: ServiceConnections, agent_path: str) -> None:
        self._tokens, self._connections, self._agent_path = tokens, connections, agent_path
        self.url = ""
        """The service's own address."""
        self.pools: dict[str, AgentPool] = {}
        """The organizations' own agent pools, by name."""

    def run(self, build: Build, text: str, home: RunsIn) -> None:
        """Run all jobs of a run, one after another.

        Args:
            build: the run, whose record is filled.
            text: its YAML.
            home: where it is at home.
        """
        token = self._tokens.issue_to_job(home.readable, build.plan_id)
        try:
            machine, secrets = self._machine(build, text)
            run_pipeline(
                text,
                {**self._variables(build, home), **secrets},
                job_token=token.secret,
                path=self._agent_path,
                branch=build.ref,
                run=build.run,
                service=_ServiceOfRun(self._tokens, self._connections, build, home),
                machine=machine,
                parameters=build.parameters,
            )
        except UnsupportedPipeline as error:
            build.run.result = "failed"
            build.run.log.append(f"##[error]{error}")
        finally:
            self._tokens.revoke(token)

    def _machine(self, build: Build, text: str) -> tuple[dict[str, str], dict[str, Variable]]:
        """Return the environment of the agent's machine, and the secret variables that the agent adds."""
        machine = dict(self._connections.machine)
        wanted = own_pool(read_definition(text, build.parameters))
        if not wanted:
            return machine, {}
        name, demands = wanted
        pool = self.pools[name]
        if unmet := [demand for demand in demands if not pool.meets(demand)]:
            raise UnsupportedPipeline(f"No agent found in pool {name} which satisfies the demand {unmet[0]}.")
        return {**machine, **pool.machine}, {key: Variable(value, secret=True) for key, value in pool.secrets.items()}

    def _variables(self, build: Build, home: RunsIn) -> dict[str, Variable]:
        definition, repository = build.definition, home.repository
        own = definition.body["variables"].items()
        address = "/".join((self.url, repository.organization, repository.project, "_git", repository.name))
        service = f"{self.url}/{definition.organization}/{home.project_id}"
        asks_at = f"{service}/_apis/distributedtask/hubs/build/plans/{build.plan_id}/jobs/{uuid.uuid4()}/oidctoken"
        return {
            **{name: Variable(str(v["value"]), bool(v.get("isSecret"))) for name, v in own},
            **{name: Variable(value) for name, value in build.variables.items()},
            "System.OidcRequestUri": Variable(asks_at),
            "Build.BuildId": Variable(str(build.id)),
            "Build.Repository.Uri": Variable(address),
            "Build.SourceVersion": Variable(build.version),
            "Build.Reason": Variable(build.reason[0].upper() + build.reason[1:]),
        }


@dataclass(frozen=True)
class _ServiceOfRun:
    """What the service does for one run's steps."""

    tokens: Tokens
    connections: ServiceConnections
    build: Build
    home: RunsIn

    def checkout(self, folder: Path) -> None:
        self.home.repository.checkout(self.build.version, folder)

    def denial_reason(self, kind: str, connection: str) -> str | None:
        resources = repository_resources(read_definition(self.build.text or "{}", self.build.parameters))
        refs = [self.build.ref, *(str(resource.get("ref", "refs/heads/main")) for resource in resources)]
        return self.connections.denial_reason(self._project, connection, kind, self.build.definition.id, refs)

    def entra_token(self, connection: str) -> str:
        return self.tokens.issue_to_identity(self.connections.identity(self._project, connection)).secret

    def aws_environment(self, connection: str, region: str, seconds: int) -> Mapping[str, str]:
        return self.connections.aws_environment(self._project, connection, region, seconds)

    def approved(self, instructions: str, minutes: float) -> bool:
        return self.home.ask(instructions, minutes)

    @property
    def _project(self) -> tuple[str, str]:
        return self.build.definition.organization, self.build.definition.project
