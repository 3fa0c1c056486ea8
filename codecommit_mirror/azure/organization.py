"""An organization: its repositories, its id, and how a service connection is protected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from ..config.discovery import DiscoveredRepository
from .http import AzureHttp
from .token import AzureToken

_BRANCH_CONTROL = "86b05a0c-73e6-4f7d-b3cf-e38f3b39a75b"
"""The id of that check's task, the same everywhere."""


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
