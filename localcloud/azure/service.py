"""Azure DevOps as one service, and what a test may do to it that no API call does."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from ..git_http import Answer, GitHttpServer
from .pipelines import Pipelines
from .repos import Push, Repositories, Repository, azure_repos_host, project_id
from .rest import Weather, azure_rest_api
from .tokens import Token, Tokens


class AzureDevOps:
    """Repositories, pipelines and tokens behind one HTTP server.

    Args:
        root: where the repositories are, one folder each for organization, project and repository.
        tokens: scopes, by the token's secret.
        bearer: those tokens that the REST API takes as Bearer alone.
    """

    def __init__(self, root: Path, tokens: Mapping[str, Collection[str]], bearer: Collection[str]) -> None:
        known = Tokens()
        for secret, scopes in tokens.items():
            known.add(Token(secret, frozenset(scopes), secret in bearer))
        self._repositories = Repositories(root)
        self._pipelines = Pipelines(self._repositories, known, os.environ["PATH"])
        self._weather = Weather()
        host = azure_repos_host(self._repositories, known, self._pushed)
        self._server = GitHttpServer(host, azure_rest_api(self._repositories, self._pipelines, known, self._weather))
        self.url = self._server.url

    def _pushed(self, repository: Repository, push: Push) -> None:
        self._pipelines.pushed(repository, push)

    def fire_schedules(self) -> int:
        """Let the hour of every schedule come, and return how many runs that started."""
        return self._pipelines.fire_schedules()

    def protect_branch(self, organization: str, project: str, repository: str, branch: str) -> None:
        """Give a branch a policy that refuses pushes."""
        found = self._repositories.find(organization, project, repository)
        assert found
        found.protected.add(f"refs/heads/{branch}")
        found.git("config", "--add", "receive.hideRefs", f"refs/heads/{branch}")

    def set_project_setting(self, organization: str, project: str, name: str, value: bool) -> None:
        """Switch one of the project's general settings of pipelines."""
        self._pipelines.settings.setdefault(project_id(organization, project), {})[name] = value

    def set_agent_online(self, online: bool) -> None:
        """Empty the agent pool, or bring its agent back."""
        self._pipelines.set_agent_online(online)

    def answer_next(self, status: int, count: int, retry_after: str | None = None) -> None:
        """Give this status to the next REST calls, whatever they ask."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self._weather.coming += [Answer(status, "", headers)] * count
