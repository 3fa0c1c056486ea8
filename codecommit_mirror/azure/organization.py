"""The repositories of a whole organization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from ..config.discovery import DiscoveredRepository
from .http import AzureHttp
from .token import AzureToken


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
