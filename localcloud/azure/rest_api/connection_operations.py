"""What the REST API's operations on service connections show: which there are, and who may use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from ..pipelines import Pipelines
from ..repos import ServiceError
from .operation import Call, Route


class ConnectionOperations:
    """Service connections, their pipelines and their checks."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines

    def routes(self) -> Sequence[Route]:
        """Return the operations with their scopes."""
        permissions = "pipelines/pipelinePermissions/{resourceType}/{resourceId}"
        return (
            Route("GET", "serviceendpoint/endpoints", "vso.serviceendpoint", self.endpoints, released_in=7),
            Route("GET", permissions, "vso.build", self.permissions, is_preview=True),
            Route("PATCH", permissions, "vso.pipelineresources_manage", self.permit, is_preview=True),
            Route("GET", "pipelines/checks/configurations", "vso.build", self.checks, is_preview=True),
        )

    def _of_project(self, call: Call) -> Mapping[str, Mapping[str, Any]]:
        """Return what is known of each connection, by its name."""
        project, connections = (call.organization, unquote(call.project)), self._pipelines.connections
        described = {name: connections.describe(project, name) for name in connections.names(project)}
        return {name: shown for name, shown in described.items() if shown}

    def _find(self, call: Call, identifier: str | None) -> Mapping[str, Any]:
        found = next((shown for shown in self._of_project(call).values() if shown["id"] == identifier), None)
        if found is None:
            raise ServiceError(404, f"There is no service connection {identifier}.")
        return found

    def endpoints(self, call: Call) -> Any:
        """Endpoints - Get Service Endpoints By Names."""
        wanted = call.query["endpointNames"].split(",")
        return [{"id": shown["id"], "name": name} for name, shown in self._of_project(call).items() if name in wanted]

    def permissions(self, call: Call) -> Any:
        """Pipeline Permissions - Get."""
        if call.parts["resourceType"] == "repository":
            return self._repository_permissions(call, call.parts["resourceId"])
        found = self._find(call, call.parts["resourceId"])
        everybody = {"allPipelines": {"authorized": True}} if found["open"] else {}
        return {"resource": {"type": "endpoint", "id": found["id"]}, "pipelines": found["pipelines"], **everybody}

    def permit(self, call: Call) -> Any:
        """Pipeline Permissions - Update Pipeline Permissions For Resource, of a repository of any project."""
        kind, identifier = call.parts["resourceType"], call.parts["resourceId"]
        if kind != "repository":
            raise ServiceError(400, "The embedded service only permits pipelines to use repositories.")
        self._repository_permissions(call, identifier)
        for pipeline in call.body["pipelines"]:
            definition = self._pipelines.find(call.organization, call.project, pipeline["id"])
            self._pipelines.authorize(definition, identifier.partition(".")[2], pipeline["authorized"])
        return self._repository_permissions(call, identifier)

    def _repository_permissions(self, call: Call, identifier: str) -> Any:
        """Return who may use a repository of any project, named by the ids of both."""
        if not self._pipelines.has_repository(call.organization, identifier):
            raise ServiceError(404, f"The resource {identifier} of the type repository was not found.")
        definitions = self._pipelines.in_project(call.organization, unquote(call.project))
        permitted = [d.id for d in definitions if identifier.partition(".")[2] in d.authorized]
        shown = [{"id": number, "authorized": True} for number in permitted]
        return {"resource": {"type": "repository", "id": identifier}, "pipelines": shown}

    def checks(self, call: Call) -> Any:
        """Check Configurations - List."""
        checks = self._find(call, call.query.get("resourceId"))["checks"]
        shown = call.query.get("$expand") == "settings"
        return [check if shown else {key: check[key] for key in ("id", "type")} for check in checks]
