"""Azure Pipelines: definitions with their variables, runs in a queue, and one agent that takes them in turn."""

from __future__ import annotations

import copy
import itertools
import re
import threading
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

import yaml

from . import triggers
from .agent.definition import own_pool, read_definition, repository_resources, stages
from .agent.unsupported import UnsupportedPipeline
from .definitions import Build, Definition, Lease
from .jobs import Jobs, RunsIn
from .repos import Push, RefUpdate, Repositories, Repository, ServiceError, now
from .service_connections import ServiceConnections
from .tokens import Tokens

_RESULTS = {"succeeded": "succeeded", "succeededWithIssues": "partiallySucceeded", "failed": "failed"}
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NAME_FORBIDS = set('"/:<>\\|?@*')


class Pipelines:
    """All definitions and runs, and the agent's thread."""

    def __init__(
        self, repositories: Repositories, tokens: Tokens, connections: ServiceConnections, agent_path: str
    ) -> None:
        self._repositories, self.connections = repositories, connections
        self.jobs = Jobs(tokens, connections, agent_path)
        self.definitions: dict[int, Definition] = {}
        self.builds: dict[int, Build] = {}
        self.leases: dict[int, Lease] = {}
        self.settings: dict[str, dict[str, bool]] = {}
        """General settings that differ from their defaults, by project id."""
        self.validated: list[tuple[str, str, int]] = []
        """Branch policies *Build validation*: repository id, full name of the branch, definition id."""
        self.questions: dict[int, str] = {}
        """The instructions of each run that is waiting for a person's approval."""
        self._decisions: dict[int, bool] = {}
        self.agent_online = True
        self._ids = itertools.count(1)
        self._changed = threading.Condition()
        self.add_parallel_jobs(1)

    def add_parallel_jobs(self, count: int) -> None:
        """Let so many more runs be done at a time."""
        for _ in range(count):
            threading.Thread(target=self._work, name="agent", daemon=True).start()

    def run_of_plan(self, plan_id: str) -> Build | None:
        """Return the run that has a plan, while it runs."""
        return next((b for b in list(self.builds.values()) if b.plan_id == plan_id and b.status == "inProgress"), None)

    def project_id(self, organization: str, project: str) -> str:
        """Return a project's id."""
        return self._repositories.project_id(organization, project)

    def rename_project(self, organization: str, project: str, name: str) -> None:
        """Give a project another name; its pipelines stay in it."""
        self._repositories.rename_project(organization, project, name)
        for definition in self.in_project(organization, project):
            definition.project = name

    # -- definitions

    def find(self, organization: str, project: str, definition_id: int) -> Definition:
        """Return a definition of a project."""
        found = self.definitions.get(definition_id)
        if not found or (found.organization.lower(), found.project.lower()) != (organization.lower(), project.lower()):
            raise ServiceError(
                404,
                f"The requested pipeline {definition_id} could not be found.",
                "DefinitionNotFoundException",
            )
        return found

    def in_project(self, organization: str, project: str) -> list[Definition]:
        """Return a project's definitions."""
        return [d for d in list(self.definitions.values()) if (d.organization, d.project) == (organization, project)]

    def create(self, organization: str, project: str, body: dict[str, Any]) -> Definition:
        """Create a definition (Definitions - Create)."""
        body = self._checked(organization, project, body, None)
        with self._changed:
            created = Definition(next(self._ids), organization, project, body)
            self.definitions[created.id] = created
        return created

    def update(self, definition: Definition, body: dict[str, Any]) -> Definition:
        """Replace a definition that has the body's revision (Definitions - Update)."""
        if body.get("id") != definition.id:
            raise ServiceError(400, f"The definition id in the body is {body.get('id')}, not {definition.id}.")
        with self._changed:
            if body.get("revision") != definition.revision:
                raise ServiceError(
                    409,
                    f"You are trying to save revision {body.get('revision')} of the pipeline, but its revision is "
                    f"{definition.revision}. Get the newest revision and apply your changes again.",
                    "DefinitionRevisionConflictException",
                )
            definition.body = self._checked(definition.organization, definition.project, body, definition)
            definition.revision += 1
        return definition

    def delete(self, definition: Definition) -> None:
        """Delete a definition without leases, and its runs (Definitions - Delete)."""
        with self._changed:
            if any(lease.definition_id == definition.id for lease in list(self.leases.values())):
                raise ServiceError(
                    400,
                    "One or more builds associated with the requested pipeline(s) are retained by a release. The "
                    "pipeline(s) and builds will not be deleted.",
                    "CannotDeleteDefinitionWithRetainedBuildsException",
                )
            del self.definitions[definition.id]
            for build in [b for b in list(self.builds.values()) if b.definition is definition]:
                del self.builds[build.id]

    def _checked(
        self, organization: str, project: str, body: dict[str, Any], existing: Definition | None
    ) -> dict[str, Any]:
        body = copy.deepcopy(body)
        name = str(body.get("name") or "")
        if not name or _NAME_FORBIDS & set(name) or len(name) > 260:
            raise ServiceError(400, f"{name!r} is not a name of a pipeline.", "InvalidDefinitionException")
        folder = body.setdefault("path", "\\")
        for other in self.in_project(organization, project):
            if other is not existing and (other.body["name"].lower(), other.body["path"]) == (name.lower(), folder):
                raise ServiceError(
                    409,
                    f"A pipeline definition with name {name} already exists in folder {folder}.",
                    "DefinitionExistsException",
                )
        self._check_source(organization, project, body)
        stored = existing.body.get("variables", {}) if existing else {}
        for key, variable in (body.setdefault("variables", {}) or {}).items():
            if set(variable) - {"value", "isSecret", "allowOverride"}:
                raise ServiceError(400, f"The variable {key} has unknown keys.")
            if variable.get("value") is None:
                kept = variable.get("isSecret") and stored.get(key, {}).get("isSecret")
                variable["value"] = stored[key]["value"] if kept else ""
        for key in ("id", "revision", "type", "quality", "_links", "url", "uri", "createdDate", "comment"):
            body.pop(key, None)
        return body

    def _check_source(self, organization: str, project: str, body: dict[str, Any]) -> None:
        """Refuse a definition that is not a YAML pipeline of a repository of the project."""
        process, repository = body.get("process") or {}, body.get("repository") or {}
        if process.get("type") != 2 or not process.get("yamlFilename"):
            raise ServiceError(400, "The process of a YAML pipeline has type 2 and a yamlFilename.")
        if repository.get("type") != "TfsGit" or not self._repositories.find(
            organization, project, str(repository.get("id"))
        ):
            raise ServiceError(400, "The repository of the pipeline was not found.", "InvalidDefinitionException")
        if not str(repository.get("defaultBranch")).startswith("refs/heads/"):
            raise ServiceError(400, "The repository's defaultBranch is the full name of a ref, like refs/heads/main.")

    # -- YAML

    def yaml(self, definition: Definition, ref: str) -> tuple[str, str]:
        """Return the commit at a ref, and the pipeline's YAML there."""
        repository = self._repository(definition)
        commit = repository.refs().get(ref)
        if commit is None:
            raise ServiceError(400, f"Could not find a valid branch or tag {ref}.", "PipelineValidationException")
        path = definition.yaml_path
        text = repository.file(commit, path)
        if text is None:
            raise ServiceError(
                400,
                f"File {path} not found in repository {repository.name} branch {ref} version {commit}.",
                "PipelineValidationException",
            )
        return commit, text

    def validate(
        self, definition: Definition, text: str, parameters: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the YAML as data, or refuse it as the service does."""
        try:
            data = read_definition(text, parameters, partial(self._template, definition))
            if (pool := own_pool(data)) and pool[0] not in self.jobs.pools:
                raise UnsupportedPipeline(
                    f"Job mirror: Could not find a pool with name {pool[0]}. The pool does not exist or has not been "
                    "authorized for use. For authorization details, refer to https://aka.ms/yamlauthz."
                )
            for resource in repository_resources(data):
                self._resource(definition, resource)
        except UnsupportedPipeline as error:
            raise ServiceError(
                400, f"{definition.yaml_path} (Line: 1, Col: 1): {error}", "PipelineValidationException"
            ) from None
        return data

    def _template(self, definition: Definition, path: str, resource: Mapping[str, Any]) -> str:
        """Return the text of a template, at the commit that its repository's ref has now."""
        repository = self._resource(definition, resource)
        ref = str(resource.get("ref", "refs/heads/main"))
        commit = repository.git("rev-parse", f"{ref}^{{commit}}").strip()
        text = repository.file(commit, path)
        if text is None:
            raise UnsupportedPipeline(
                f"File /{path} not found in repository {repository.name} branch {ref} version {commit}."
            )
        return text

    def _resource(self, definition: Definition, resource: Mapping[str, Any]) -> Repository:
        if resource.get("type") != "git":
            raise UnsupportedPipeline(f"a repository resource of type {resource.get('type')}")
        project, _, name = str(resource["name"]).rpartition("/")
        found = self._repositories.find(definition.organization, project or definition.project, name)
        if found is None:
            raise UnsupportedPipeline(
                f"The pipeline is not valid. The repository {resource['name']} was not found or is not authorized"
            )
        ref = str(resource.get("ref", "refs/heads/main"))
        if ref not in found.refs() and not (re.fullmatch("[0-9a-f]{40}", ref) and found.has_commit(ref)):
            raise UnsupportedPipeline(f"{resource['name']} has no {ref}")
        return found

    def _repository(self, definition: Definition) -> Repository:
        identifier = str(definition.body["repository"]["id"])
        found = self._repositories.find(definition.organization, definition.project, identifier)
        if found is None:
            # The definition of a repository that was deleted stays: azure-devops-cli-extension#696.
            raise ServiceError(
                404, f"TF401019: The Git repository with name or identifier {identifier} does not exist."
            )
        return found

    def _has_repository(self, definition: Definition) -> bool:
        identifier = str(definition.body["repository"]["id"])
        return self._repositories.find(definition.organization, definition.project, identifier) is not None

    # -- runs

    def builds_in_project(self, organization: str, project: str) -> list[Build]:
        """Return the runs of every pipeline of a project."""
        own = {definition.id for definition in self.in_project(organization, project)}
        return [build for build in list(self.builds.values()) if build.definition.id in own]

    def cancel(self, build: Build) -> None:
        """End a run; one that still waits never starts."""
        with self._changed:
            if build.status == "notStarted":
                build.status, build.result, build.finished = "completed", "canceled", now()
            elif build.status == "inProgress":
                build.status = "cancelling"
                build.run.cancel()
            self._changed.notify_all()

    def queue(
        self,
        definition: Definition,
        ref: str | None,
        reason: str = "manual",
        parameters: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Build:
        """Queue a run by hand or by schedule; the YAML must be there and valid.

        Args:
            definition: the pipeline.
            ref: the full name of a branch.
            reason: who starts it.
            parameters: values of runtime parameters.
            variables: values for this run, which *Limit variables that can be set at queue time* limits.
        """
        ref = ref or str(definition.body["repository"]["defaultBranch"])
        commit, text = self.yaml(definition, ref)
        self.validate(definition, text, parameters)
        if definition.body.get("queueStatus") == "disabled":
            raise ServiceError(400, "The pipeline is disabled.", "DefinitionDisabledException")
        self._check_settable(definition, variables or {})
        return self._add(definition, ref, commit, reason, text, parameters=parameters, variables=variables)

    def _check_settable(self, definition: Definition, variables: Mapping[str, str]) -> None:
        """Refuse variables that are not settable at queue time.

        https://learn.microsoft.com/azure/devops/pipelines/security/inputs
        """
        settings = self.settings.get(self.project_id(definition.organization, definition.project), {})
        if not settings.get("enforceSettableVar", True):
            return
        own = definition.body.get("variables", {})
        refused = [name for name in variables if not own.get(name, {}).get("allowOverride")]
        if refused:
            raise ServiceError(
                400,
                f"You can't set the following variables ({', '.join(refused)}). If you want to be able to set these "
                "variables, then edit the pipeline and select Settable at queue time on the variables tab of the "
                "pipeline editor.",
                "PipelineValidationException",
            )

    def pushed(self, repository: Repository, push: Push) -> None:
        """Start what a push starts."""
        skips = cache(lambda commit: triggers.skips_ci(repository.message(commit)))
        for definition in list(self.definitions.values()):
            if definition.body.get("queueStatus", "enabled") != "enabled":
                continue
            if definition.organization != repository.organization or not self._has_repository(definition):
                continue
            for update in push.updates:
                if set(update.new) != {"0"} and not skips(update.new):
                    self._push_starts(definition, repository, update)

    def _push_starts(self, definition: Definition, repository: Repository, update: RefUpdate) -> None:
        own = self._repository(definition)
        ref = update.name if own is repository else str(own.default_branch)
        try:
            commit, text = self.yaml(definition, ref)
        except ServiceError:
            return
        try:
            data = self.validate(definition, text)
        except ServiceError as error:
            self._add(definition, ref, commit, "individualCI", None, str(error))
            return
        if own is repository:
            if triggers.starts(data.get("trigger"), update.name):
                batched = triggers.batches(data.get("trigger"))
                self._add(definition, ref, commit, "batchedCI" if batched else "individualCI", text)
            return
        for resource in repository_resources(data):
            watched = "trigger" in resource and triggers.starts(resource["trigger"], update.name)
            if watched and self._resource(definition, resource) is repository:
                self._add(definition, ref, commit, "resourceTrigger", text)

    def pull_request_opened(self, repository: Repository, number: int, source: str, target: str) -> None:
        """Run what the target branch's policy asks for, on the merge of both branches."""
        ref = f"refs/pull/{number}/merge"
        repository.merge(source, target, ref)
        for repository_id, branch, definition_id in self.validated:
            if (repository_id, branch) == (repository.id, target):
                self.queue(self.definitions[definition_id], ref, "pullRequest")

    def decide(self, build_id: int, approved: bool) -> None:
        """Answer what waits for a person."""
        with self._changed:
            self._decisions[build_id] = approved
            self._changed.notify_all()

    def ask(self, build: Build, instructions: str, minutes: float) -> bool:
        """Wait for a person; nobody's answer is a no."""
        with self._changed:
            self.questions[build.id] = instructions
            self._changed.wait_for(lambda: build.id in self._decisions, minutes * 60)
            del self.questions[build.id]
            return self._decisions.pop(build.id, False)

    def fire_schedules(self) -> int:
        """Trigger every schedule once; return how many runs that started."""
        started = 0
        for definition in filter(self._has_repository, list(self.definitions.values())):
            repository = self._repository(definition)
            for ref in [name for name in repository.refs() if name.startswith("refs/heads/")]:
                try:
                    data = self.validate(definition, self.yaml(definition, ref)[1])
                except ServiceError:
                    continue
                if triggers.scheduled_branches(data, [ref.removeprefix("refs/heads/")]):
                    self.queue(definition, ref, "schedule")
                    started += 1
        return started

    def retain(self, build: Build, owner: str) -> Lease:
        """Add a retention lease to a run."""
        with self._changed:
            lease = Lease(next(self._ids), build.definition.id, build.id, owner)
            self.leases[lease.id] = lease
        return lease

    def has_repository(self, organization: str, resource: str) -> bool:
        """Whether a resource, ``project id.repository id``, is a repository of an organization."""
        project, _, repository = resource.partition(".")
        name = self._repositories.find_project(organization, project)
        return name is not None and self._repositories.find(organization, name, repository) is not None

    def authorize(self, definition: Definition, repository_id: str, authorized: bool) -> None:
        """Let a definition use a repository, or no longer."""
        with self._changed:
            if authorized:
                definition.authorized.add(repository_id)
            else:
                definition.authorized.discard(repository_id)
            self._changed.notify_all()

    def set_agent_online(self, online: bool) -> None:
        """Empty the agent pool, or bring its agent back."""
        with self._changed:
            self.agent_online = online
            self._changed.notify_all()

    def protects_repositories(self, definition: Definition) -> bool:
        """Whether *Protect access to repositories in YAML pipelines* is on."""
        project = self.project_id(definition.organization, definition.project)
        return self.settings.get(project, {}).get("enforceReferencedRepoScopedToken", False)

    def _add(
        self,
        definition: Definition,
        ref: str,
        commit: str,
        reason: str,
        text: str | None,
        problem: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Build:
        with self._changed:
            waiting = (b for b in list(self.builds.values()) if b.definition is definition and b.status == "notStarted")
            if reason == "batchedCI" and (same := next((b for b in waiting if b.ref == ref), None)):
                same.version, same.text = commit, text
                self._compile(same)
                return same
            build = Build(next(self._ids), definition, ref, commit, reason, text, problem)
            build.parameters, build.variables = dict(parameters or {}), dict(variables or {})
            self._compile(build)
            self.builds[build.id] = build
            self._changed.notify_all()
        return build

    def _compile(self, build: Build) -> None:
        """Fill in the template that a run's YAML extends, and note which repositories it needs to be permitted."""
        if build.text is None or "\nresources:" not in build.text:
            return
        data = read_definition(build.text, build.parameters, partial(self._template, build.definition))
        if "\nextends:" in build.text:
            build.text, build.parameters = yaml.dump(data, Dumper=_DUMPER), {}
        used = (self._resource(build.definition, resource) for resource in repository_resources(data))
        build.resources = {repository.id: repository.project for repository in used}

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (build := next(self._ready(), None)):
                    self._changed.wait()
                build.status, build.started = "inProgress", now()
            if build.text is None:
                build.run.result = "failed"
                build.run.log.append(f"##[error]{build.problem}")
            else:
                try:
                    self._execute(build, build.text)
                except Exception as error:
                    build.run.result = "failed"
                    build.run.log.append(f"##[error]the agent broke: {error!r}")
            with self._changed:
                build.finished = now()
                build.result = _RESULTS.get(build.run.result, "canceled")
                if build.id in self.builds:
                    # The newest runs of a pipeline are kept by the project's retention policy.
                    self.retain(build, f"Branch:{build.ref}")
                build.status = "completed"
                self._changed.notify_all()

    def _ready(self) -> Iterator[Build]:
        for build in list(self.builds.values()):
            if self.agent_online and build.status == "notStarted" and not self._unauthorized(build):
                yield build

    def _unauthorized(self, build: Build) -> bool:
        """Whether a run waits for a person, since it may not use a repository.

        Those of other projects always need a permission
        (https://github.com/microsoft/terraform-provider-azuredevops/issues/973).
        """
        definition = build.definition
        is_strict = build.text is not None and self.protects_repositories(definition)
        needed = {id_ for id_, project in build.resources.items() if is_strict or project != definition.project}
        return not needed <= definition.authorized

    def _execute(self, build: Build, text: str) -> None:
        definition = build.definition
        repository, project = self._repository(definition), self.project_id(definition.organization, definition.project)
        readable = self._readable(build, text, repository) if self.protects_repositories(definition) else None
        self.jobs.run(
            build,
            text,
            RunsIn(project, repository, readable, lambda words, minutes: self.ask(build, words, minutes)),
        )

    def _readable(self, build: Build, text: str, repository: Repository) -> frozenset[str]:
        """Return the ids of the repositories that a run's YAML checks out or uses."""
        data = read_definition(text, build.parameters)
        jobs = [job for stage in stages(data) for job in stage["jobs"]]
        used = {alias for job in jobs for alias in (job.get("uses") or {}).get("repositories", [])}
        resources = [r for r in repository_resources(data) if r["repository"] in used]
        own = [repository.id] if any({"checkout": "self"} in job["steps"] for job in jobs) else []
        return frozenset([*own, *(self._resource(build.definition, resource).id for resource in resources)])
