"""What the REST API's operations on pipelines and runs do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ..definitions import Build, Definition, Lease
from ..pipelines import Pipelines
from ..repos import ServiceError, now
from ..tokens import JOB
from .operation import Call, Route, Text

_ON_BY_DEFAULT = ("enforceSettableVar",)
_SETTINGS = ("enforceJobAuthScope", "enforceReferencedRepoScopedToken", "enforceSettableVar")


class PipelineOperations:
    """Definitions, runs, logs, leases and settings."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines

    def routes(self) -> Sequence[Route]:
        """Return the operations with their scopes."""
        see, run = "vso.build", "vso.build_execute"
        definition = "build/definitions/{definitionId}"
        return (
            Route("GET", "build/definitions", see, self.definitions),
            Route("POST", "build/definitions", run, self.create_definition),
            Route("GET", definition, see, lambda call: self._definition(call).shown()),
            Route("PUT", definition, run, self.update_definition),
            Route("DELETE", definition, run, lambda call: self._pipelines.delete(self._definition(call))),
            Route("PATCH", f"{definition}/resources", run, self.authorize, is_preview=True),
            Route("POST", "pipelines/{pipelineId}/preview", see, self.preview, since=7),
            Route("POST", "pipelines/{pipelineId}/runs", run, self.run_pipeline, released_in=7),
            Route("GET", "build/builds", see, self.builds),
            Route("POST", "build/builds", run, self.queue),
            Route("GET", "build/builds/{buildId}", see, lambda call: self._shown(self._build(call))),
            Route("PATCH", "build/builds/{buildId}", run, self.update_build),
            Route("GET", "build/builds/{buildId}/timeline", see, self.timeline),
            Route("GET", "build/builds/{buildId}/logs", see, self.logs),
            Route("GET", "build/builds/{buildId}/logs/{logId}", see, self.log),
            Route("GET", "build/retention/leases", see, self.leases, released_in=7),
            Route("POST", "build/retention/leases", run, self.add_leases, released_in=7),
            Route("DELETE", "build/retention/leases", run, self.delete_leases, released_in=7),
            Route("GET", "build/generalsettings", "vso.project", self.settings, released_in=7),
            Route("POST", "distributedtask/hubs/{hub}/plans/{planId}/jobs/{jobId}/oidctoken", JOB, self.identity_token),
        )

    def identity_token(self, call: Call) -> Any:
        """Oidctoken - Create: a token that names the pipeline whose job asks."""
        build = self._pipelines.run_of_plan(call.parts["planId"])
        if build is None or call.token.plan_id != call.parts["planId"] or "serviceConnectionId" in call.query:
            raise ServiceError(403, "This job may not have that token.")
        definition = build.definition
        name = str(definition.body["name"])
        token = self._pipelines.connections.sign_for_pipeline(definition.organization, definition.project, name)
        return {"oidcToken": token}

    def definitions(self, call: Call) -> Any:
        """Definitions - List."""
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
            raise ServiceError(400, "repositoryId goes with repositoryType.")
        shown = [d.shown() for d in found]
        if call.query.get("includeAllProperties") != "true":
            keys = ("id", "name", "path", "revision", "type", "queueStatus")
            shown = [{key: value for key, value in one.items() if key in keys} for one in shown]
        if call.query.get("includeLatestBuilds") == "true":
            latest = self._latest_builds(call)
            shown = [{**one, **latest.get(one["id"], {})} for one in shown]
        return shown

    def _latest_builds(self, call: Call) -> dict[int, dict[str, Any]]:
        """Return what the list says of the newest runs, by the id of the definition; nothing of one without runs."""
        latest: dict[int, dict[str, Any]] = {}
        for build in sorted(self._pipelines.builds_in_project(call.organization, call.project), key=lambda b: b.queued):
            known = latest.setdefault(build.definition.id, {})
            known["latestBuild"] = self._shown(build)
            if build.finished:
                known["latestCompletedBuild"] = known["latestBuild"]
        return latest

    def create_definition(self, call: Call) -> Any:
        """Definitions - Create."""
        return self._pipelines.create(call.organization, call.project, call.body).shown()

    def update_definition(self, call: Call) -> Any:
        """Definitions - Update."""
        return self._pipelines.update(self._definition(call), call.body).shown()

    def authorize(self, call: Call) -> Any:
        """Resources - Authorize Definition Resources."""
        definition = self._definition(call)
        for resource in call.body:
            project, _, repository = resource["id"].partition(".")
            own = self._pipelines.project_id(call.organization, call.project)
            if resource["type"] != "repository" or project != own:
                raise ServiceError(400, "The embedded service only authorizes repositories of the project.")
            self._pipelines.authorize(definition, repository, resource["authorized"])
        return call.body

    def preview(self, call: Call) -> Any:
        """Preview - Preview."""
        definition = self._pipelines.find(call.organization, call.project, int(call.parts["pipelineId"]))
        if call.body.get("previewRun") is not True:
            raise ServiceError(400, "previewRun must be true.")
        ref = call.body.get("resources", {}).get("repositories", {}).get("self", {}).get("refName")
        text = call.body.get("yamlOverride")
        if text is None:
            text = self._pipelines.yaml(definition, ref or definition.body["repository"]["defaultBranch"])[1]
        self._pipelines.validate(definition, text, call.body.get("templateParameters"))
        return {"finalYaml": text}

    def builds(self, call: Call) -> Any:
        """Builds - List."""
        found = self._pipelines.builds_in_project(call.organization, call.project)
        if "definitions" in call.query:
            wanted = {int(identifier) for identifier in call.query["definitions"].split(",")}
            found = [b for b in found if b.definition.id in wanted]
        if "statusFilter" in call.query:
            found = [b for b in found if b.status in call.query["statusFilter"].split(",")]
        return [self._shown(b) for b in sorted(found, key=lambda b: b.queued, reverse=True)]

    def queue(self, call: Call) -> Any:
        """Builds - Queue."""
        definition = self._pipelines.find(call.organization, call.project, int(call.body["definition"]["id"]))
        variables = json.loads(call.body.get("parameters") or "{}")
        parameters = call.body.get("templateParameters")
        queued = self._pipelines.queue(definition, call.body.get("sourceBranch"), "manual", parameters, variables)
        return self._shown(queued)

    def run_pipeline(self, call: Call) -> Any:
        """Runs - Run Pipeline."""
        if call.body.get("previewRun"):
            return self.preview(call)
        definition = self._pipelines.find(call.organization, call.project, int(call.parts["pipelineId"]))
        ref = call.body.get("resources", {}).get("repositories", {}).get("self", {}).get("refName")
        variables = {name: str(given["value"]) for name, given in call.body.get("variables", {}).items()}
        parameters = call.body.get("templateParameters")
        build = self._pipelines.queue(definition, ref, "manual", parameters, variables)
        return {"id": build.id, "name": str(build.id), "state": "unknown", "createdDate": build.queued}

    def update_build(self, call: Call) -> Any:
        """Builds - Update Build."""
        build = self._build(call)
        if set(call.body) - {"id"} != {"status"} or str(call.body["status"]).lower() != "cancelling":
            raise ServiceError(400, "The embedded service only cancels builds.")
        self._pipelines.cancel(build)
        return self._shown(build)

    def logs(self, call: Call) -> Any:
        """Builds - Get Build Logs."""
        build = self._build(call)
        counts = [len(build.run.log), *(len(step.log) for step in list(build.run.steps))] if build.started else []
        return [{"id": number, "type": "Container", "lineCount": count} for number, count in enumerate(counts, 1)]

    def timeline(self, call: Call) -> Any:
        """Timeline - Get."""
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
        """Builds - Get Build Log."""
        build, number = self._build(call), int(call.parts["logId"])
        if number == 1:
            return Text("\n".join(build.run.log))
        if not 2 <= number < 2 + len(build.run.steps):
            raise ServiceError(404, f"The log {number} was not found.")
        lines = build.run.steps[number - 2].log
        return Text("".join(f"{now()} {line}\n" for line in lines[int(call.query.get("startLine", 0)) :]))

    def leases(self, call: Call) -> Any:
        """Leases - Get Retention Leases By Definition."""
        wanted = int(call.query["definitionId"])
        return [_lease(lease) for lease in list(self._pipelines.leases.values()) if lease.definition_id == wanted]

    def add_leases(self, call: Call) -> Any:
        """Leases - Add."""
        made = []
        for lease in call.body:
            build = self._pipelines.builds.get(lease["runId"])
            if build is None or build.definition.id != lease["definitionId"]:
                raise ServiceError(404, "The requested run was not found.", "BuildNotFoundException")
            made.append(self._pipelines.retain(build, lease["ownerId"]))
        return [_lease(lease) for lease in made]

    def delete_leases(self, call: Call) -> Any:
        """Leases - Delete."""
        for identifier in call.query["ids"].split(","):
            self._pipelines.leases.pop(int(identifier), None)

    def settings(self, call: Call) -> Any:
        """General Settings - Get."""
        project = self._pipelines.project_id(call.organization, call.project)
        known = self._pipelines.settings.get(project, {})
        return {name: known.get(name, name in _ON_BY_DEFAULT) for name in _SETTINGS}

    def _definition(self, call: Call) -> Definition:
        return self._pipelines.find(call.organization, call.project, int(call.parts["definitionId"]))

    def _build(self, call: Call) -> Build:
        found = self._pipelines.builds.get(int(call.parts["buildId"]))
        if not found:
            raise ServiceError(
                404, f"The requested build {call.parts['buildId']} could not be found.", "BuildNotFoundException"
            )
        return found

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
