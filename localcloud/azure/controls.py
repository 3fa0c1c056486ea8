"""What a test can do to the embedded Azure DevOps that no API call does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class AzureControls:
    """The handle on Azure DevOps in the cloud's process; each method has the same name there.

    Args:
        call: calls a method of ``localcloud.azure.service.AzureDevOps`` in that process.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def fire_schedules(self) -> int:
        """Trigger every schedule once, and return how many runs that started."""
        return int(self._call("fire_schedules"))

    def protect_branch(self, organization: str, project: str, repository: str, branch: str) -> None:
        """Give a branch a policy that refuses pushes."""
        self._call("protect_branch", organization, project, repository, branch)

    def disable_repository(self, organization: str, project: str, repository: str, disabled: bool = True) -> None:
        """Disable a repository, or enable it again."""
        self._call("disable_repository", organization, project, repository, disabled)

    def limit_refs(self, organization: str, project: str, repository: str, shown: list[str] | None) -> None:
        """Show fetches under the plain URL only these refs, or all of them for None."""
        self._call("limit_refs", organization, project, repository, shown)

    def limit_pushes(self, megabytes: int, too_large_is: str = "each-ref") -> None:
        """Refuse larger pushes; the report refuses ``each-ref`` or ``the-pack``."""
        self._call("limit_pushes", megabytes, too_large_is)

    def add_token(self, secret: str, scopes: list[str], identity: str | None = None) -> None:
        """Give out another personal access token, or an Entra identity's access token."""
        self._call("add_token", secret, scopes, identity)

    def expire_token(self, secret: str) -> None:
        """Let a token expire."""
        self._call("expire_token", secret)

    def fail_conditional_access(self, fails: bool = True) -> None:
        """Let a conditional access policy stop everybody, or nobody any more."""
        self._call("fail_conditional_access", fails)

    def rename_repository(self, organization: str, project: str, repository: str, name: str) -> None:
        """Give a repository another name; its id stays."""
        self._call("rename_repository", organization, project, repository, name)

    def rename_project(self, organization: str, project: str, name: str) -> None:
        """Give a project another name; its id, its repositories and its pipelines stay."""
        self._call("rename_project", organization, project, name)

    def set_project_setting(self, organization: str, project: str, name: str, value: bool) -> None:
        """Change one of a project's general settings for pipelines."""
        self._call("set_project_setting", organization, project, name, value)

    def add_service_connection(
        self,
        organization: str,
        project: str,
        name: str,
        principal: str,
        branches: list[str] | None,
        kind: str = "aws",
        *,
        is_open: bool = False,
    ) -> None:
        """Add a service connection, and a branch control check for full branch names.

        Args:
            organization: the organization.
            project: the project.
            name: the connection's name.
            principal: the ARN of a role, for AWS with *Use OIDC*; else an Entra identity.
            branches: None for no check.
            kind: ``aws``, ``azureDevOps`` or ``azureRM``.
            is_open: whether every pipeline may use it.
        """
        self._call("add_service_connection", organization, project, name, principal, branches, kind, is_open)

    def permit_pipeline(self, organization: str, project: str, connection: str, definition_id: int) -> None:
        """Permit a pipeline to use a service connection, as a person does at its first run."""
        self._call("permit_pipeline", organization, project, connection, definition_id)

    def validate_pull_requests(
        self, organization: str, project: str, repository: str, branch: str, definition_id: int
    ) -> None:
        """Give a branch the policy that a pipeline validates pull requests to it."""
        self._call("validate_pull_requests", organization, project, repository, branch, definition_id)

    def questions(self) -> dict[int, str]:
        """Return the instructions of each run that is waiting for a person's approval."""
        return {int(run): text for run, text in self._call("questions").items()}

    def decide(self, build_id: int, approved: bool) -> None:
        """Approve or reject what a run is waiting for."""
        self._call("decide", build_id, approved)

    def run_log(self, build_id: int) -> dict[str, Any]:
        """Return a run's stage results, its summaries, and its output before secrets were masked."""
        log: dict[str, Any] = self._call("run_log", build_id)
        return log

    def slow_down(self, milliseconds: float) -> None:
        """Let every round trip take so long; a new connection takes two more."""
        self._call("slow_down", milliseconds)

    def add_parallel_jobs(self, count: int) -> None:
        """Let so many more runs be done at a time; at first it is one."""
        self._call("add_parallel_jobs", count)

    def permit_identity(self, identity: str, organization: str, project: str, rights: list[str] | None = None) -> None:
        """Give an Entra identity, or the build service, rights in a project, as scopes.

        By default what CI needs in a project of mirrors (docs/ci.md).
        """
        self._call("permit_identity", identity, organization, project, rights)

    def add_agent_pool(
        self,
        name: str,
        *,
        capabilities: dict[str, str] | None = None,
        machine: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
    ) -> None:
        """Add an agent pool of the organization's own, with one agent.

        Args:
            name: the pool's name.
            capabilities: the agent's; by default it is one on Linux.
            machine: environment variables of its machine, and those that the agent sets for its jobs.
            secrets: secret variables that the agent gives its jobs, such as ``Agent.ProxyPassword``.
        """
        known = {"Agent.OS": "Linux"} if capabilities is None else capabilities
        self._call("add_agent_pool", name, known, machine or {}, secrets or {})

    def set_agent_online(self, online: bool) -> None:
        """Empty the agent pool, or bring its agent back."""
        self._call("set_agent_online", online)

    def set_api_version(self, newest: str) -> None:
        """Have no newer version of the REST API than 6.0 or 7.0, as an older Azure DevOps Server, or 7.1 again."""
        self._call("set_api_version", newest)

    def answer_next(self, status: int, count: int, retry_after: str | None = None) -> None:
        """Answer the next REST calls with this status, whatever they ask."""
        self._call("answer_next", status, count, retry_after)
