"""Azure DevOps as one service, and what a test may do to it that no API call does."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from ..git_http import Answer, GitHttpServer
from ..oidc import Issuers
from .definitions import AgentPool
from .git.endpoint import azure_repos_host
from .git.lfs import azure_lfs_host
from .git.receive_pack import Limits, TooLargeIs
from .pipelines import Pipelines
from .repos import Push, Repositories, Repository
from .rest_api.api import ApiState, azure_rest_api
from .service_connections import ServiceConnections
from .tokens import BUILD_SERVICE, CONTRIBUTOR, Token, Tokens


class AzureDevOps:
    """Repositories, pipelines and tokens behind one HTTP server.

    Args:
        root: where the repositories are, one folder each for organization, project and repository.
        tokens: scopes, by the token's secret.
        bearer: the tokens that the REST API only accepts as Bearer.
        issuers: sign the tokens of service connections.
        aws: variables that point a script at AWS.
    """

    def __init__(
        self,
        root: Path,
        tokens: Mapping[str, Collection[str]],
        bearer: Collection[str],
        jobs: Collection[str],
        issuers: Issuers,
        aws: Mapping[str, str],
    ) -> None:
        known = Tokens()
        for secret, scopes in tokens.items():
            identity = BUILD_SERVICE if secret in jobs else None
            known.add(Token(secret, frozenset(scopes), secret in bearer, identity=identity))
        self._tokens = known
        self._repositories = Repositories(root)
        self._pipelines = Pipelines(self._repositories, known, ServiceConnections(issuers, aws), os.environ["PATH"])
        self._api = ApiState()
        self._limits = Limits()
        host = azure_repos_host(self._repositories, known, self._limits, self._pushed)
        api = azure_rest_api(self._repositories, self._pipelines, known, self._api)
        self._server = GitHttpServer(host, api, azure_lfs_host(self._repositories, known))
        self.url = self._pipelines.jobs.url = self._server.url

    @property
    def requests(self) -> dict[str, int]:
        """How many requests of each kind there were; for benchmarks."""
        return self._server.requests

    def _pushed(self, repository: Repository, push: Push) -> None:
        self._pipelines.pushed(repository, push)

    def fire_schedules(self) -> int:
        """Trigger every schedule once, and return how many runs that started."""
        return self._pipelines.fire_schedules()

    def protect_branch(self, organization: str, project: str, repository: str, branch: str) -> None:
        """Give a branch a policy that refuses pushes."""
        found = self._repositories.find(organization, project, repository)
        assert found
        found.protected.add(f"refs/heads/{branch}")

    def disable_repository(self, organization: str, project: str, repository: str, disabled: bool) -> None:
        """Disable a repository, or enable it again."""
        found = self._repositories.find(organization, project, repository)
        assert found
        found.disabled = disabled

    def limit_refs(self, organization: str, project: str, repository: str, shown: list[str] | None) -> None:
        """Show fetches under the plain URL only these refs, or all of them for None."""
        found = self._repositories.find(organization, project, repository)
        assert found
        found.shown = None if shown is None else frozenset(shown)

    def limit_pushes(self, megabytes: int, too_large_is: str) -> None:
        """Refuse larger pushes, in the form that ``TooLargeIs`` names."""
        self._limits.megabytes, self._limits.too_large_is = megabytes, TooLargeIs(too_large_is)

    def add_token(self, secret: str, scopes: list[str], identity: str | None) -> None:
        """Give out another personal access token, or an Entra identity's access token."""
        self._tokens.add(Token(secret, frozenset(scopes), identity is not None, identity=identity))

    def expire_token(self, secret: str) -> None:
        """Let a token expire."""
        found = self._tokens.find(secret)
        assert found
        self._tokens.revoke(found)

    def fail_conditional_access(self, fails: bool) -> None:
        """Let a conditional access policy stop everybody, or nobody any more."""
        self._tokens.conditional_access_fails = fails

    def rename_repository(self, organization: str, project: str, repository: str, name: str) -> None:
        """Give a repository another name; its id stays."""
        found = self._repositories.find(organization, project, repository)
        assert found
        self._repositories.rename(found, name)

    def rename_project(self, organization: str, project: str, name: str) -> None:
        """Give a project another name; its id, its repositories and its pipelines stay."""
        self._pipelines.rename_project(organization, project, name)

    def set_project_setting(self, organization: str, project: str, name: str, value: bool) -> None:
        """Switch one of the project's general settings of pipelines."""
        self._pipelines.settings.setdefault(self._pipelines.project_id(organization, project), {})[name] = value

    def add_service_connection(
        self,
        organization: str,
        project: str,
        name: str,
        principal: str,
        branches: list[str] | None,
        kind: str,
        is_open: bool,
    ) -> None:
        """Add a service connection, and a branch control check for full names of branches."""
        self._pipelines.connections.add((organization, project), name, principal, branches, kind, is_open=is_open)

    def permit_pipeline(self, organization: str, project: str, connection: str, definition_id: int) -> None:
        """Permit a pipeline to use a service connection, as a person does at its first run."""
        self._pipelines.connections.permit((organization, project), connection, definition_id)

    def validate_pull_requests(
        self, organization: str, project: str, repository: str, branch: str, definition_id: int
    ) -> None:
        """Give a branch the policy that a pipeline validates pull requests to it."""
        found = self._repositories.find(organization, project, repository)
        assert found
        self._pipelines.validated.append((found.id, f"refs/heads/{branch}", definition_id))

    def questions(self) -> dict[int, str]:
        """Return what waits for a person: instructions, by run."""
        return dict(self._pipelines.questions)

    def decide(self, build_id: int, approved: bool) -> None:
        """Approve or reject what waits for a person."""
        self._pipelines.decide(build_id, approved)

    def run_log(self, build_id: int) -> dict[str, object]:
        """Return what is known of a run beside the REST API's answers.

        Results of stages and summaries, which its pages show; and what the steps wrote before secrets were masked.
        """
        run = self._pipelines.builds[build_id].run
        return {"stages": run.stages, "summaries": run.summaries, "unmasked": run.unmasked}

    def slow_down(self, milliseconds: float) -> None:
        """Let every round trip to the service take so long."""
        self._server.delay_seconds = milliseconds / 1000

    def add_parallel_jobs(self, count: int) -> None:
        """Let so many more runs be done at a time."""
        self._pipelines.add_parallel_jobs(count)

    def permit_identity(self, identity: str, organization: str, project: str, rights: list[str] | None) -> None:
        """Give an identity rights in a project, by default what CI needs in a project of mirrors."""
        self._tokens.permit(identity, organization, project, CONTRIBUTOR if rights is None else frozenset(rights))

    def add_agent_pool(
        self, name: str, capabilities: dict[str, str], machine: dict[str, str], secrets: dict[str, str]
    ) -> None:
        """Add an agent pool of the organization's own, with one agent."""
        self._pipelines.jobs.pools[name] = AgentPool(capabilities, machine, secrets)

    def set_agent_online(self, online: bool) -> None:
        """Empty the agent pool, or bring its agent back."""
        self._pipelines.set_agent_online(online)

    def set_api_version(self, newest: str) -> None:
        """Have no newer version of the REST API, as an older Azure DevOps Server."""
        self._api.newest = newest

    def answer_next(self, status: int, count: int, retry_after: str | None = None) -> None:
        """Give this status to the next REST calls, whatever they ask."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self._api.responses += [Answer(status, "", headers)] * count
