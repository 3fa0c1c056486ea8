"""Azure DevOps' REST API 7.1, as far as a mirror needs it: routes, scopes, errors, paging, throttling.

Each route has the scope and the version that the published OpenAPI documents name; the tests compare them.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

from ...git_http import Answer, Api, ApiRequest
from ..pipelines import Pipelines
from ..refusals import SIGN_IN_PAGE, credential_refusal, refused_credential
from ..repos import Repositories, ServiceError
from ..service_connections import organization_id
from ..tokens import Token, Tokens
from . import locations
from .connection_operations import ConnectionOperations
from .git_operations import GitOperations
from .operation import Call, Route, Text
from .pipeline_operations import PipelineOperations
from .pool_operations import PoolOperations

_PAGE = 100
_MAX_PAGE_SIZE = 1000
_SETTINGS = ("enforceJobAuthScope", "enforceReferencedRepoScopedToken", "enforceSettableVar")


@dataclass
class ApiState:
    """What a test may change about the whole API."""

    responses: list[Answer] = field(default_factory=list)
    """What is answered before anything else: throttling, outages."""
    newest: str = "7.1"
    """The newest version; that of an older Azure DevOps Server is lower."""


def all_routes(repositories: Repositories, pipelines: Pipelines) -> Sequence[Route]:
    """Return every operation of the embedded API."""
    return (
        *GitOperations(repositories, pipelines).routes(),
        *PipelineOperations(pipelines).routes(),
        *ConnectionOperations(pipelines).routes(),
        *PoolOperations(pipelines).routes(),
    )


def azure_rest_api(repositories: Repositories, pipelines: Pipelines, tokens: Tokens, state: ApiState) -> Api:
    """Return what answers REST calls."""
    routes = all_routes(repositories, pipelines)

    def api(request: ApiRequest) -> Answer:
        if state.responses:
            return state.responses.pop(0)
        if request.token is None:
            return Answer(302, "", {"Location": "https://spsprodweu1.vssps.visualstudio.com/_signin"})
        if refusal := credential_refusal(tokens, request.token, unquote(request.path.strip("/").partition("/")[0])):
            return refusal
        token = tokens.find(request.token)
        if token is None or token.bearer_only != (request.scheme == "bearer"):
            return SIGN_IN_PAGE
        if description := _describe_service(request, pipelines.jobs.url):
            return description
        there = (r for r in routes if r.method == request.method and str(r.since) <= state.newest)
        matches = ((route, route.match(request.path)) for route in there)
        route, parts = next(((route, parts) for route, parts in matches if parts), (None, None))
        if route is None or parts is None:
            return _error(ServiceError(404, "The requested resource does not exist.", "VssException"))
        if name := repositories.find_project(parts["organization"], parts["project"]):
            parts["project"] = quote(name)
        # A token without the scope gets no explanation.
        rights = tokens.rights(token, parts["organization"], parts["project"])
        if not token.allows(route.scope, rights):
            return refused_credential()
        return _call(route, parts, request, token, state.newest)

    return lambda request: _identified(api(request))


def _describe_service(request: ApiRequest, url: str) -> Answer | None:
    """Return the list of resources or of areas, which published clients ask for first; or the organization's id."""
    if named := re.fullmatch(r"/([^/]+)/_apis/connectionData", request.path, re.IGNORECASE):
        if "-preview" not in request.query.get("api-version", ""):
            return _error(ServiceError(400, "No api-version of connectionData.", "VssInvalidPreviewVersionException"))
        return _rendered({"instanceId": organization_id(unquote(named[1]))}, {}, "")
    found = re.fullmatch(r"/([^/]+)/_apis(/ResourceAreas)?", request.path, re.IGNORECASE)
    if found and request.method == "OPTIONS" and not found[2]:
        return _rendered(locations.resource_locations(), {}, "")
    if found and request.method == "GET" and found[2]:
        return _rendered(locations.resource_areas(url, found[1]), {}, "")
    return None


def _call(route: Route, parts: dict[str, str], request: ApiRequest, token: Token, newest: str) -> Answer:
    organization, project = parts.pop("organization"), parts.pop("project")
    try:
        route.check_version(request.query.get("api-version") or _version_in(request.accept), newest)
        body = json.loads(request.body) if request.body else None
        answer = route.handle(Call(organization, project, parts, request.query, body, token))
    except ServiceError as error:
        return _error(error)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        return _error(ServiceError(400, f"The request is not of this operation's form: {error!r}"))
    return _rendered(answer, request.query, request.accept)


def _identified(answer: Answer) -> Answer:
    """Return an answer with the id of its request, by which the service's support finds it.

    Recorded: https://github.com/microsoft/vscode-vsce/issues/1115
    """
    return replace(answer, headers={**answer.headers, "ActivityId": str(uuid.uuid4())})


def _version_in(accept: str) -> str:
    """Return the version that an Accept header asks for, as published clients send it."""
    found = re.search(r";\s*api-version=([^;,\s]+)", accept)
    return found[1] if found else ""


def _rendered(found: Any, query: Mapping[str, str], accept: str) -> Answer:
    if isinstance(found, Text):
        if "text/plain" in accept:
            return Answer(200, found.text)
        found = found.text.splitlines()
    if found is None:
        return Answer(204, "")
    headers = {}
    if isinstance(found, list):
        start, size = int(query.get("continuationToken", 0)), int(query.get("$top", _PAGE))
        start += int(query.get("$skip", 0))
        end = start + min(size, _MAX_PAGE_SIZE)
        if end < len(found):
            headers["x-ms-continuationtoken"] = str(end)
        found = {"count": len(found[start:end]), "value": found[start:end]}
    return Answer(200, json.dumps(found), headers, "application/json; charset=utf-8")


def _error(error: ServiceError) -> Answer:
    body = {"$id": "1", "innerException": None, "message": str(error), "typeKey": error.type_key, "errorCode": 0}
    return Answer(error.status, json.dumps(body), content_type="application/json; charset=utf-8")
