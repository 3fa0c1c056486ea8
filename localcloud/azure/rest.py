"""Azure DevOps' REST API 7.1, as far as a mirror needs it: routes, scopes, errors, paging, throttling.

Each route has the scope and the version that the published OpenAPI documents name; the tests compare them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ..git_http import Answer, Api, ApiRequest
from . import locations
from .pipelines import Build, Definition, Lease, Pipelines
from .repos import (
    NO_OBJECT,
    SIGN_IN_PAGE,
    Push,
    RefUpdate,
    Refused,
    Repositories,
    Repository,
    name_problem,
    now,
    project_id,
)
from .tokens import Tokens

_PAGE = 100
_LONGEST_PAGE = 1000
_SETTINGS = ("enforceJobAuthScope", "enforceReferencedRepoScopedToken", "enforceSettableVar")


@dataclass
class Weather:
    """Answers that the service is to give before it answers anything else: throttling, outages."""

    coming: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """One authorised call, its path taken apart."""

    organization: str
    project: str
    parts: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Text:
    """An answer that is no JSON."""

    text: str


@dataclass(frozen=True)
class Route:
    """One operation."""

    method: str
    template: str
    """The path below ``_apis/``."""
    scope: str
    handle: Callable[[Call], Any]
    version: str = "7.1"
    in_project: bool = True
    """Whether the path names a project."""

    def match(self, path: str) -> dict[str, str] | None:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template)
        project = "(?P<project>[^/]+)/" if self.in_project else "(?P<project>)"
        found = re.fullmatch(rf"/(?P<organization>[^/]+)/{project}_apis/{pattern}", path, re.IGNORECASE)
        return found.groupdict() if found else None

    def takes(self, version: str) -> bool:
        """Whether this version of the resource can be asked for: a released one also as 7.0, and as any preview."""
        known = r"7\.[01]" if self.version == "7.1" else re.escape(self.version)
        return bool(re.fullmatch(rf"{known}(-preview(\.[0-9]+)?)?", version))


def azure_rest_api(repositories: Repositories, pipelines: Pipelines, tokens: Tokens, weather: Weather) -> Api:
    """Return what answers REST calls."""
    routes = Handlers(repositories, pipelines).routes()

    def api(request: ApiRequest) -> Answer:
        if weather.coming:
            return weather.coming.pop(0)
        if request.token is None:
            return Answer(302, "", {"Location": "https://spsprodweu1.vssps.visualstudio.com/_signin"})
        token = tokens.find(request.token)
        if token is None or token.bearer_only != (request.scheme == "bearer"):
            return SIGN_IN_PAGE
        if found := re.fullmatch(r"/([^/]+)/_apis(/ResourceAreas)?", request.path, re.IGNORECASE):
            if request.method == "OPTIONS" and not found[2]:
                return _rendered(locations.resource_locations(), {}, "")
            if request.method == "GET" and found[2]:
                return _rendered(locations.resource_areas(pipelines.url, found[1]), {}, "")
        found_routes = ((route, route.match(request.path)) for route in routes if route.method == request.method)
        route, parts = next(((route, parts) for route, parts in found_routes if parts), (None, None))
        if route is None or parts is None:
            return _error(Refused(404, "The requested resource does not exist.", "VssException"))
        if not token.allows(route.scope):
            # A token without the scope is told nothing but this.
            return Answer(401, "")
        given = request.query.get("api-version") or _version_in(request.accept)
        if not route.takes(given):
            return _error(
                Refused(400, f"No api-version {given!r} of this resource.", "VssVersionNotSpecifiedException")
            )
        organization, project = parts.pop("organization"), parts.pop("project")
        try:
            body = json.loads(request.body) if request.body else None
            answer = route.handle(Call(organization, project, parts, request.query, body))
        except Refused as error:
            return _error(error)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            return _error(Refused(400, f"The request is not of this operation's form: {error!r}"))
        return _rendered(answer, request.query, request.accept)

    return api


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
        end = start + min(size, _LONGEST_PAGE)
        if end < len(found):
            headers["x-ms-continuationtoken"] = str(end)
        found = {"count": len(found[start:end]), "value": found[start:end]}
    return Answer(200, json.dumps(found), headers, "application/json; charset=utf-8")


def _error(error: Refused) -> Answer:
    body = {"$id": "1", "innerException": None, "message": str(error), "typeKey": error.type_key, "errorCode": 0}
    return Answer(error.status, json.dumps(body), content_type="application/json; charset=utf-8")


class Handlers:
    """What each operation does."""

    def __init__(self, repositories: Repositories, pipelines: Pipelines) -> None:
        self._repositories, self._pipelines = repositories, pipelines

    def routes(self) -> Sequence[Route]:
        read, write, see, run = "vso.code", "vso.code_write", "vso.build", "vso.build_execute"
        repository, definition = "git/repositories/{repositoryId}", "build/definitions/{definitionId}"
        return (
            Route("GET", "git/repositories", read, self.repositories),
            Route("GET", "git/repositories", read, self.repositories, in_project=False),
            Route("POST", "git/repositories", "vso.code_manage", self.create_repository),
            Route("DELETE", repository, "vso.code_manage", self.delete_repository),
            Route("PATCH", repository, "vso.code_manage", self.update_repository),
            Route("GET", repository, read, self.repository),
            Route("GET", f"{repository}/refs", read, self.refs),
            Route("POST", f"{repository}/refs", write, self.update_refs),
            Route("GET", f"{repository}/items", read, self.item),
            Route("GET", f"{repository}/stats/branches", read, self.branches),
            Route("GET", f"{repository}/commits", read, self.commits),
            Route("GET", f"{repository}/commits/{{commitId}}", read, self.commit),
            Route("GET", f"{repository}/pushes", read, self.pushes),
            Route("GET", f"{repository}/pushes/{{pushId}}", read, self.one_push),
            Route("POST", f"{repository}/pushes", write, self.push),
            Route("GET", f"{repository}/pullrequests", read, self.pull_requests),
            Route("POST", f"{repository}/pullrequests", write, self.create_pull_request),
            Route("PATCH", f"{repository}/pullrequests/{{pullRequestId}}", write, self.update_pull_request),
            Route("GET", "build/definitions", see, self.definitions),
            Route("POST", "build/definitions", run, self.create_definition),
            Route("GET", definition, see, lambda call: self._definition(call).shown()),
            Route("PUT", definition, run, self.update_definition),
            Route("DELETE", definition, run, lambda call: self._pipelines.delete(self._definition(call))),
            Route("PATCH", f"{definition}/resources", run, self.authorize, version="7.1-preview.1"),
            Route("POST", "pipelines/{pipelineId}/preview", see, self.preview),
            Route("GET", "build/builds", see, self.builds),
            Route("POST", "build/builds", run, self.queue),
            Route("GET", "build/builds/{buildId}", see, lambda call: self._shown(self._build(call))),
            Route("PATCH", "build/builds/{buildId}", run, self.update_build),
            Route("GET", "build/builds/{buildId}/timeline", see, self.timeline),
            Route("GET", "build/builds/{buildId}/logs", see, self.logs),
            Route("GET", "build/builds/{buildId}/logs/{logId}", see, self.log),
            Route("GET", "build/retention/leases", see, self.leases),
            Route("POST", "build/retention/leases", run, self.add_leases),
            Route("DELETE", "build/retention/leases", run, self.delete_leases),
            Route("GET", "build/generalsettings", "vso.project", self.settings),
        )

    # -- git

    def create_repository(self, call: Call) -> Any:
        name = call.body["name"]
        if problem := name_problem(name):
            raise Refused(400, f"TF400898: {problem}", "InvalidArgumentValueException")
        if self._repositories.find(call.organization, call.project, name):
            raise Refused(409, f"TF400948: A Git repository with the name {name} already exists.")
        return self._shown_repository(self._repositories.create(call.organization, call.project, name))

    def repositories(self, call: Call) -> Any:
        projects = [call.project] if call.project else self._repositories.projects(call.organization)
        return [
            self._shown_repository(found)
            for project in projects
            for found in self._repositories.in_project(call.organization, project)
        ]

    def update_repository(self, call: Call) -> Any:
        repository, branch = self._repository(call), call.body["defaultBranch"]
        if set(call.body) != {"defaultBranch"} or branch not in repository.refs():
            raise Refused(400, "The embedded service changes the default branch alone, to one that there is.")
        repository.git("symbolic-ref", "HEAD", branch)
        return self.repository(call)

    def delete_repository(self, call: Call) -> Any:
        self._repositories.delete(self._repository(call))

    def repository(self, call: Call) -> Any:
        return self._shown_repository(self._repository(call))

    def _shown_repository(self, found: Repository) -> dict[str, Any]:
        path = quote(f"{found.organization}/{found.project}/_git/{found.name}")
        shown = {
            "id": found.id,
            "name": found.name,
            "project": {"id": found.project_id, "name": found.project},
            "remoteUrl": f"{self._pipelines.url}/{path}",
            "isDisabled": False,
            "size": 0,
        }
        return {**shown, **({"defaultBranch": found.default_branch} if found.default_branch else {})}

    def refs(self, call: Call) -> Any:
        prefix = "refs/" + call.query.get("filter", "")
        return [
            {"name": name, "objectId": value}
            for name, value in self._repository(call).refs().items()
            if name.startswith(prefix)
        ]

    def update_refs(self, call: Call) -> Any:
        repository = self._repository(call)
        updates = [RefUpdate(u["name"], u["oldObjectId"], u["newObjectId"]) for u in call.body]
        # The service answers 200 and says of each ref what became of it (Refs - Update Refs).
        status: dict[str, str] = {}
        for update in updates:
            try:
                self._pipelines.pushed(repository, repository.update_refs([update]))
                status[update.name] = "succeeded"
            except Refused as refusal:
                status[update.name] = "staleOldObjectId" if refusal.status == 409 else "rejectedByPolicy"
        return [
            {
                "name": u.name,
                "oldObjectId": u.old,
                "newObjectId": u.new,
                "success": status[u.name] == "succeeded",
                "updateStatus": status[u.name],
            }
            for u in updates
        ]

    def item(self, call: Call) -> Any:
        repository, path = self._repository(call), call.query["path"]
        if call.query.get("versionDescriptor.versionType", "branch") != "branch":
            raise Refused(400, "The embedded service reads files of branches alone.")
        branch = call.query.get("versionDescriptor.version") or str(repository.default_branch).removeprefix(
            "refs/heads/"
        )
        commit = repository.refs().get(f"refs/heads/{branch}")
        if commit is None:
            raise Refused(
                404,
                f"TF401175: The version descriptor <Branch: {branch} > could not be resolved to a version in the "
                f"repository {repository.name}.",
                "GitUnresolvableToCommitException",
            )
        text = repository.file(commit, path)
        if text is None:
            raise Refused(
                404,
                f"TF401174: The item '{path}' could not be found in the repository '{repository.name}' at the version "
                f"specified by '<Branch: {branch} >' (resolved to commit '{commit}').",
                "GitItemNotFoundException",
            )
        shown = {"commitId": commit, "gitObjectType": "blob", "path": path}
        return {**shown, **({"content": text} if call.query.get("includeContent") == "true" else {})}

    def commit(self, call: Call) -> Any:
        repository, commit = self._repository(call), call.parts["commitId"]
        return {"commitId": commit, "comment": repository.message(commit)}

    def commits(self, call: Call) -> Any:
        repository = self._repository(call)
        version = call.query.get("searchCriteria.itemVersion.version")
        ref = f"refs/heads/{version}" if version else repository.default_branch
        if ref is None or ref not in repository.refs():
            return []
        return [{"commitId": commit, "comment": repository.message(commit)} for commit in repository.history(ref)]

    def branches(self, call: Call) -> Any:
        repository = self._repository(call)
        base = repository.default_branch
        return [
            {
                "name": name.removeprefix("refs/heads/"),
                "commit": {"commitId": value},
                "isBaseVersion": name == base,
                **dict(zip(("behindCount", "aheadCount"), repository.distance(str(base), name), strict=True)),
            }
            for name, value in repository.refs().items()
            if name.startswith("refs/heads/")
        ]

    def pushes(self, call: Call) -> Any:
        since = call.query.get("searchCriteria.fromDate", "")
        with_updates = call.query.get("searchCriteria.includeRefUpdates") == "true"
        return [
            self._push(push, with_updates) for push in reversed(self._repository(call).pushes) if push.date >= since
        ]

    def one_push(self, call: Call) -> Any:
        for push in self._repository(call).pushes:
            if str(push.id) == call.parts["pushId"]:
                return self._push(push, call.query.get("includeRefUpdates", "").lower() == "true")
        raise Refused(404, f"TF401205: The push {call.parts['pushId']} does not exist.", "GitPushNotFoundException")

    def push(self, call: Call) -> Any:
        repository = self._repository(call)
        (update,), (commit,) = call.body["refUpdates"], call.body["commits"]
        parent = None if update["oldObjectId"] == NO_OBJECT else update["oldObjectId"]
        changes: dict[str, str | None] = {}
        for change in commit["changes"]:
            path = change["item"]["path"]
            present = parent is not None and repository.file(parent, path) is not None
            if present == (change["changeType"] == "add"):
                raise Refused(
                    400, f"TF401035: The object '{path}' is {'' if present else 'not '}there.", "GitItemException"
                )
            if change["changeType"] != "delete" and change["newContent"]["contentType"] != "rawText":
                raise Refused(400, "The embedded service takes rawText alone.")
            changes[path] = None if change["changeType"] == "delete" else change["newContent"]["content"]
        with repository.lock:
            repository.check_policy(update["name"])
            new = repository.commit(parent, changes, commit["comment"])
            made = repository.update_refs([RefUpdate(update["name"], update["oldObjectId"], new)])
        self._pipelines.pushed(repository, made)
        return {**self._push(made, True), "commits": [{"commitId": new, "comment": commit["comment"]}]}

    def pull_requests(self, call: Call) -> Any:
        query, found = call.query, self._repository(call).pull_requests
        source, status = query.get("searchCriteria.sourceRefName"), query.get("searchCriteria.status", "active")
        return [p for p in found if source in (None, p["sourceRefName"]) and status in ("all", p["status"])]

    def create_pull_request(self, call: Call) -> Any:
        repository, body = self._repository(call), call.body
        refs = repository.refs()
        if body["sourceRefName"] not in refs or body["targetRefName"] not in refs:
            raise Refused(400, "TF401398: The pull request cannot be activated because a branch no longer exists.")
        if any(
            p["status"] == "active" and p["sourceRefName"] == body["sourceRefName"] for p in repository.pull_requests
        ):
            raise Refused(409, "TF401179: An active pull request for the source and target branch already exists.")
        made = {
            "pullRequestId": len(repository.pull_requests) + 1,
            "status": "active",
            "creationDate": now(),
            **{key: body[key] for key in ("title", "description", "sourceRefName", "targetRefName")},
        }
        repository.pull_requests.append(made)
        self._pipelines.pull_request_opened(
            repository, int(str(made["pullRequestId"])), body["sourceRefName"], body["targetRefName"]
        )
        return made

    def update_pull_request(self, call: Call) -> Any:
        for found in self._repository(call).pull_requests:
            if str(found["pullRequestId"]) == call.parts["pullRequestId"]:
                if set(call.body) != {"status"} or call.body["status"] != "abandoned":
                    raise Refused(400, "The embedded service abandons pull requests alone.")
                found["status"] = "abandoned"
                return found
        raise Refused(404, "TF401180: The requested pull request was not found.", "GitPullRequestNotFoundException")

    # -- pipelines

    def definitions(self, call: Call) -> Any:
        wanted: dict[str, Callable[[Definition], Any]] = {
            "name": lambda d: d.body["name"].lower(),
            "repositoryId": lambda d: d.body["repository"]["id"],
            "yamlFilename": lambda d: d.yaml_path.lstrip("/"),
        }
        found = self._pipelines.in_project(call.organization, call.project)
        for key, value_of in wanted.items():
            if key in call.query:
                asked = call.query[key].lstrip("/")
                found = [d for d in found if value_of(d) == (asked.lower() if key == "name" else asked)]
        if "repositoryId" in call.query and call.query.get("repositoryType") != "TfsGit":
            raise Refused(400, "repositoryId goes with repositoryType.")
        if call.query.get("includeAllProperties") == "true":
            return [d.shown() for d in found]
        keys = ("id", "name", "path", "revision", "type", "queueStatus")
        return [{key: value for key, value in d.shown().items() if key in keys} for d in found]

    def create_definition(self, call: Call) -> Any:
        return self._pipelines.create(call.organization, call.project, call.body).shown()

    def update_definition(self, call: Call) -> Any:
        return self._pipelines.update(self._definition(call), call.body).shown()

    def authorize(self, call: Call) -> Any:
        definition = self._definition(call)
        for resource in call.body:
            project, _, repository = resource["id"].partition(".")
            if resource["type"] != "repository" or project != project_id(call.organization, call.project):
                raise Refused(400, "The embedded service authorizes repositories of the project alone.")
            self._pipelines.authorize(definition, repository, resource["authorized"])
        return call.body

    def preview(self, call: Call) -> Any:
        definition = self._pipelines.find(call.organization, call.project, int(call.parts["pipelineId"]))
        if call.body.get("previewRun") is not True:
            raise Refused(400, "previewRun must be true.")
        ref = call.body.get("resources", {}).get("repositories", {}).get("self", {}).get("refName")
        text = call.body.get("yamlOverride")
        if text is None:
            text = self._pipelines.yaml(definition, ref or definition.body["repository"]["defaultBranch"])[1]
        self._pipelines.validate(definition, text)
        return {"finalYaml": text}

    def builds(self, call: Call) -> Any:
        found = self._pipelines.builds_in_project(call.organization, call.project)
        if "definitions" in call.query:
            wanted = {int(identifier) for identifier in call.query["definitions"].split(",")}
            found = [b for b in found if b.definition.id in wanted]
        if "statusFilter" in call.query:
            found = [b for b in found if b.status in call.query["statusFilter"].split(",")]
        return [self._shown(b) for b in sorted(found, key=lambda b: b.queued, reverse=True)]

    def queue(self, call: Call) -> Any:
        definition = self._pipelines.find(call.organization, call.project, int(call.body["definition"]["id"]))
        return self._shown(self._pipelines.queue(definition, call.body.get("sourceBranch")))

    def update_build(self, call: Call) -> Any:
        build = self._build(call)
        if set(call.body) - {"id"} != {"status"} or str(call.body["status"]).lower() != "cancelling":
            raise Refused(400, "The embedded service only cancels builds.")
        self._pipelines.cancel(build)
        return self._shown(build)

    def logs(self, call: Call) -> Any:
        build = self._build(call)
        counts = [len(build.run.log), *(len(step.log) for step in list(build.run.steps))] if build.started else []
        return [{"id": number, "type": "Container", "lineCount": count} for number, count in enumerate(counts, 1)]

    def timeline(self, call: Call) -> Any:
        build = self._build(call)
        records: list[dict[str, Any]] = []
        if build.started:
            job = {"id": f"job-{build.id}", "type": "Job", "name": "Mirror to CodeCommit", "order": 1, "parentId": None}
            state = "completed" if build.finished else "inProgress"
            records.append({**job, "state": state, "result": _job_result(build), "log": {"id": 1}})
            if build.text is None:
                records[0]["issues"] = [{"type": "error", "message": build.problem}]
        for number, step in enumerate(list(build.run.steps), 2):
            task = {"id": f"task-{build.id}-{number}", "type": "Task", "name": step.name, "parentId": f"job-{build.id}"}
            issues = [{"type": kind, "message": text} for kind, text in build.run.issues]
            record = {**task, "order": number, "state": step.state, "result": step.result, "log": {"id": number}}
            records.append({**record, "issues": issues})
        return {"id": f"timeline-{build.id}", "records": records}

    def log(self, call: Call) -> Any:
        build, number = self._build(call), int(call.parts["logId"])
        if number == 1:
            return Text("\n".join(build.run.log))
        if not 2 <= number < 2 + len(build.run.steps):
            raise Refused(404, f"The log {number} was not found.")
        lines = build.run.steps[number - 2].log
        return Text("".join(f"{now()} {line}\n" for line in lines[int(call.query.get("startLine", 0)) :]))

    def leases(self, call: Call) -> Any:
        wanted = int(call.query["definitionId"])
        return [_lease(lease) for lease in self._pipelines.leases.values() if lease.definition_id == wanted]

    def add_leases(self, call: Call) -> Any:
        made = []
        for lease in call.body:
            build = self._pipelines.builds.get(lease["runId"])
            if build is None or build.definition.id != lease["definitionId"]:
                raise Refused(404, "The requested run was not found.", "BuildNotFoundException")
            made.append(self._pipelines.retain(build, lease["ownerId"]))
        return [_lease(lease) for lease in made]

    def delete_leases(self, call: Call) -> Any:
        for identifier in call.query["ids"].split(","):
            self._pipelines.leases.pop(int(identifier), None)

    def settings(self, call: Call) -> Any:
        project = project_id(call.organization, call.project)
        return {name: self._pipelines.settings.get(project, {}).get(name, False) for name in _SETTINGS}

    # -- shapes

    def _repository(self, call: Call) -> Repository:
        name = call.parts["repositoryId"]
        found = self._repositories.find(call.organization, call.project, name)
        if not found:
            raise Refused(
                404,
                f"TF401019: The Git repository with name or identifier {name} does not exist or you do not have "
                "permissions for the operation you are attempting.",
                "GitRepositoryNotFoundException",
            )
        return found

    def _definition(self, call: Call) -> Definition:
        return self._pipelines.find(call.organization, call.project, int(call.parts["definitionId"]))

    def _build(self, call: Call) -> Build:
        found = self._pipelines.builds.get(int(call.parts["buildId"]))
        if not found:
            raise Refused(
                404, f"The requested build {call.parts['buildId']} could not be found.", "BuildNotFoundException"
            )
        return found

    def _push(self, push: Push, with_updates: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {"pushId": push.id, "date": push.date}
        if with_updates:
            shown["refUpdates"] = [{"name": u.name, "oldObjectId": u.old, "newObjectId": u.new} for u in push.updates]
        return shown

    def _shown(self, build: Build) -> dict[str, Any]:
        shown = {
            "id": build.id,
            "buildNumber": str(build.id),
            "status": build.status,
            "result": build.result,
            "reason": build.reason,
            "sourceBranch": build.ref,
            "sourceVersion": build.version,
            "queueTime": build.queued,
            "startTime": build.started,
            "finishTime": build.finished,
            "definition": {"id": build.definition.id, "name": build.definition.body["name"]},
        }
        return {key: value for key, value in shown.items() if value is not None}


def _job_result(build: Build) -> str | None:
    return build.run.result if build.finished else None


def _lease(lease: Lease) -> dict[str, Any]:
    return {
        "leaseId": lease.id,
        "definitionId": lease.definition_id,
        "runId": lease.build_id,
        "ownerId": lease.owner,
        "createdOn": lease.created,
        "protectPipeline": True,
    }
