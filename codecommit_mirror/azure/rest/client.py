"""A typed client for the operations of Azure DevOps' REST API 7.1 that a mirror needs.

https://learn.microsoft.com/rest/api/azure/devops/
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from ...config.mirror import AzureRepository
from ...errors import AzureError, MirrorError
from .http import AzureHttp
from .listing import Listing, blob_id
from .objects import (
    NO_OBJECT,
    BranchPolicy,
    Build,
    Definition,
    FileChange,
    ProjectSettings,
    PullRequest,
    PushedRef,
    Record,
    Repository,
)
from .organization import read_pool
from .token import AzureToken

Answer = TypeVar("Answer")

_NOT_FOUND = 404


def _unless_missing(read: Callable[[], Answer]) -> Answer | None:
    try:
        return read()
    except AzureError as error:
        if error.status == _NOT_FOUND:
            return None
        raise


class AzureDevOps:
    """One project of one organization.

    Args:
        azure: the project; each call names a repository in it.
        token: the token to sign in with.
        sleep: waits before another try.
        transport: an httpx transport, for tests.
        lists: whether so many mirrors are looked at that what there is of them is listed together.
    """

    def __init__(
        self,
        azure: AzureRepository,
        token: AzureToken,
        sleep: Callable[[float], None] | None = None,
        transport: httpx.BaseTransport | None = None,
        *,
        lists: bool = False,
    ) -> None:
        base = f"{azure.server}/{quote(azure.organization, safe='')}/{quote(azure.project, safe='')}"
        self._http = AzureHttp(base, token, **({"sleep": sleep} if sleep else {}), transport=transport)
        self.project = f"{azure.organization}/{azure.project}"
        self.agent_pool = functools.cache(functools.partial(read_pool, self._http))
        self.blocking_policies = functools.cache(self._blocking_policies)
        self._listing = Listing(self._http, self.project) if lists else None

    def forget_lists(self) -> None:
        """Read what was listed again where it is needed, since it may have changed."""
        if self._listing:
            self._listing.forget()

    # -- repositories

    def repository(self, name: str) -> Repository:
        """Return a repository by its name or id.

        Raises:
            AzureError: there is none (status 404), with the nearest name; or the service refuses.
            MirrorError: it is disabled.
        """
        try:
            return self._repository(name)
        except AzureError as error:
            listed = self._listed_repositories() if error.status == _NOT_FOUND else {}
            near = next(iter(get_close_matches(name.lower(), listed, 1)), None)
            if near is None:
                raise
            if listed[near].get("isDisabled") and near == name.lower():
                why = f"the repository {name!r} of {self.project} is disabled; enable it under Project settings."
                raise MirrorError(why) from None
            why = f"{str(error).rstrip('.')}; did you mean {listed[near]['name']!r}?"
            raise AzureError(why, _NOT_FOUND, error.type_key) from None

    def find_repository(self, name: str) -> Repository | None:
        """Return a repository by its name or id, or None if there is none."""
        return _unless_missing(lambda: self._repository(name))

    def _repository(self, name: str) -> Repository:
        listed = self._listing.repositories() if self._listing else {}
        # Which names are equal but for their letters' case is for the service to say.
        answer = listed.get(name)
        if answer is None or answer.get("isDisabled"):
            action = f"find the repository {name!r} in {self.project}"
            answer = self._http.get(f"git/repositories/{quote(name, safe='')}", action)
        branch = (answer.get("defaultBranch") or "").removeprefix("refs/heads/") or None
        return Repository(answer["id"], answer["name"], answer["project"]["id"], branch)

    def _listed_repositories(self) -> dict[str, dict[str, Any]]:
        """Return the project's repositories by their names in small letters; nothing if they cannot be listed."""
        with suppress(AzureError):
            listed = self._http.get("git/repositories", f"list the repositories of {self.project}")["value"]
            return {str(repository["name"]).lower(): repository for repository in listed}
        return {}

    def create_repository(self, name: str) -> None:
        """Create an empty repository (Repositories - Create)."""
        self._http.call("POST", "git/repositories", f"create the repository {name!r}", body={"name": name})

    def tip(self, repository: Repository, branch: str) -> str | None:
        """Return the id of a branch's newest commit, or None if there is no such branch."""
        path = f"git/repositories/{repository.id}/refs"
        for ref in self._http.pages(path, f"read the branch {branch!r}", filter=f"heads/{branch}"):
            if ref["name"] == f"refs/heads/{branch}":
                return str(ref["objectId"])
        return None

    def file(self, repository: Repository, branch: str, path: str, expected: str | None = None) -> str | None:
        """Return a file's text on a branch, or None if the branch or the file does not exist, or it is a folder.

        Args:
            repository: the repository.
            branch: the branch.
            path: the path.
            expected: the text that the file should have, which is not read if a list shows that it does; nor is a file
                that is not there.
        """
        if self._listing and expected is not None:
            found = self._listing.folder(repository.id, branch, path.rpartition("/")[0]).get(path)
            if found is None or found == blob_id(expected):
                return None if found is None else expected
        query = {
            "path": f"/{path}",
            "includeContent": "true",
            "$format": "json",
            "versionDescriptor.versionType": "branch",
            "versionDescriptor.version": branch,
        }
        try:
            item = self._http.call(
                "GET", f"git/repositories/{repository.id}/items", f"read {path!r} on {branch!r}", query=query
            )
        except AzureError as error:
            if error.status == 404:
                return None
            raise
        content = item.get("content")
        return None if content is None else str(content)

    def commit_comment(self, repository: Repository, commit: str) -> str:
        """Return the comment of a commit (Commits - Get)."""
        path = f"git/repositories/{repository.id}/commits/{commit}"
        return str(self._http.get(path, f"read the commit {commit}")["comment"])

    def commit_files(
        self, repository: Repository, branch: str, tip: str, changes: Sequence[FileChange], comment: str
    ) -> None:
        """Make one commit on top of a branch's tip (Pushes - Create).

        Raises:
            AzureError: the branch moved in the meantime (status 409), or its policies refuse a push (status 403).
        """
        body = {
            "refUpdates": [{"name": f"refs/heads/{branch}", "oldObjectId": tip}],
            "commits": [{"comment": comment, "changes": [_change(change) for change in changes]}],
        }
        action = f"commit {', '.join(repr(change.path) for change in changes[:3])} to {branch!r}"
        self._http.call("POST", f"git/repositories/{repository.id}/pushes", action, body=body)

    def set_branch(self, repository: Repository, branch: str, *, old: str | None, new: str | None) -> None:
        """Create a branch, or delete it (Refs - Update Refs)."""
        update = {
            "name": f"refs/heads/{branch}",
            "oldObjectId": old or NO_OBJECT,
            "newObjectId": new or NO_OBJECT,
        }
        action = f"{'create' if new else 'delete'} the branch {branch!r}"
        (result,) = self._http.call("POST", f"git/repositories/{repository.id}/refs", action, body=[update])["value"]
        if not result["success"]:
            raise AzureError(f"cannot {action}: Azure Repos answered {result['updateStatus']}; run again.", 409)

    def pull_request(self, repository: Repository, source_branch: str, target_branch: str) -> PullRequest | None:
        """Return the active pull request from one branch into another of the same repository, and of no fork."""
        path = f"git/repositories/{repository.id}/pullrequests"
        query = {
            "searchCriteria.sourceRepositoryId": repository.id,
            "searchCriteria.sourceRefName": f"refs/heads/{source_branch}",
            "searchCriteria.targetRefName": f"refs/heads/{target_branch}",
            "searchCriteria.status": "active",
        }
        listed = self._http.get(path, "list the pull requests", **query)["value"]
        return next((PullRequest(one["pullRequestId"]) for one in listed if one.get("forkSource") is None), None)

    def open_pull_request(
        self, repository: Repository, source_branch: str, target_branch: str, title: str, description: str
    ) -> PullRequest:
        """Open a pull request (Pull Requests - Create)."""
        body = {
            "sourceRefName": f"refs/heads/{source_branch}",
            "targetRefName": f"refs/heads/{target_branch}",
            "title": title,
            "description": description,
        }
        path = f"git/repositories/{repository.id}/pullrequests"
        return PullRequest(self._http.call("POST", path, "open a pull request", body=body)["pullRequestId"])

    def abandon_pull_request(self, repository: Repository, pull_request: PullRequest) -> None:
        """Close a pull request without merging it."""
        path = f"git/repositories/{repository.id}/pullrequests/{pull_request.id}"
        self._http.call("PATCH", path, f"abandon pull request {pull_request.id}", body={"status": "abandoned"})

    def _blocking_policies(self, repository: Repository, branch: str) -> tuple[BranchPolicy, ...] | None:
        """Return a branch's policies that keep a push away (Policy Configurations - Get).

        Returns:
            None if the token may not see them.
        """
        query = {"repositoryId": repository.id, "refName": f"refs/heads/{branch}"}
        try:
            found = self._http.get("git/policy/configurations", f"read the policies of {branch!r}", **query)["value"]
        except AzureError as error:
            if error.status in (401, 403, _NOT_FOUND):
                return None
            raise
        blocking = (policy for policy in found if policy["isEnabled"] and policy["isBlocking"])
        return tuple(BranchPolicy(str(policy["type"]["id"]), policy.get("settings") or {}) for policy in blocking)

    def pushed_refs(self, repository: Repository) -> Iterator[PushedRef]:
        """Yield the ref changes of all pushes, the newest push first (Pushes - List)."""
        start = 0
        query = {"searchCriteria.includeRefUpdates": "true", "$top": 100}
        while True:
            path = f"git/repositories/{repository.id}/pushes"
            page = self._http.get(path, "list the pushes", **query, **{"$skip": start})["value"]
            for push in page:
                date = datetime.fromisoformat(push["date"])
                yield from (PushedRef(u["name"], u["newObjectId"], date) for u in push.get("refUpdates", []))
            start += len(page)
            if len(page) < 100:
                return

    # -- pipeline definitions

    def definitions_named(self, name: str) -> list[Definition]:
        """Return the definitions of a name, in full, whatever folders they are in."""
        if self._listing:
            known = self._listing.definitions().values()
            return [listed.definition for listed in known if listed.definition.name.lower() == name.lower()]
        return self.find_definitions(name=name)

    def find_definitions(self, **query: str) -> list[Definition]:
        """Return the definitions that match what List takes, in full (Definitions - List, then Get)."""
        listed = list(self._http.pages("build/definitions", "list the pipelines", **query))
        return [self.definition(entry["id"]) for entry in listed]

    def definitions_of(self, repository: Repository, path: str) -> list[Definition]:
        """Return the definitions that run the YAML file at a path of a repository."""
        if self._listing:
            known = (listed.definition for listed in self._listing.definitions().values())
            return [d for d in known if (d.repository_id, d.yaml_path) == (repository.id, path)]
        query = {"repositoryId": repository.id, "repositoryType": "TfsGit", "includeAllProperties": "true"}
        listed = self._http.pages("build/definitions", f"list the pipelines of {repository.name!r}", **query)
        definitions = [Definition(entry["id"], entry) for entry in listed]
        return [self.definition(d.id) for d in definitions if (d.repository_id, d.yaml_path) == (repository.id, path)]

    def definition(self, definition_id: int) -> Definition:
        """Return a definition."""
        path = f"build/definitions/{definition_id}"
        return Definition(definition_id, self._http.get(path, f"read pipeline {definition_id}"))

    def find_definition(self, definition_id: int) -> Definition | None:
        """Return a definition of the project, or None if it has none of this id."""
        if self._listing and (listed := self._listing.definitions().get(definition_id)):
            return listed.definition
        return _unless_missing(lambda: self.definition(definition_id))

    def create_definition(self, body: dict[str, Any]) -> Definition:
        """Create a definition."""
        created = self._http.call("POST", "build/definitions", f"create the pipeline {body['name']!r}", body=body)
        return Definition(created["id"], created)

    def update_definition(self, definition: Definition, body: dict[str, Any]) -> Definition:
        """Replace a definition that still has the revision of ``body``; secrets that are null keep their values."""
        action = f"update the pipeline {definition.name!r}"
        updated = self._http.call("PUT", f"build/definitions/{definition.id}", action, body=body)
        return Definition(updated["id"], updated)

    def delete_definition(self, definition: Definition) -> None:
        """Delete a definition with its runs; one that no longer exists is fine."""
        action = f"delete the pipeline {definition.name!r}"
        try:
            self._http.call("DELETE", f"build/definitions/{definition.id}", action)
        except AzureError as error:
            if error.status != 404:
                raise

    def leases(self, definition: Definition) -> list[int]:
        """Return the ids of the retention leases on a definition's runs."""
        action = f"list the retention leases of {definition.name!r}"
        leases = self._http.get("build/retention/leases", action, definitionId=definition.id)["value"]
        return [lease["leaseId"] for lease in leases]

    def delete_leases(self, ids: Sequence[int]) -> None:
        """Delete retention leases."""
        joined = ",".join(str(identifier) for identifier in ids)
        self._http.call("DELETE", "build/retention/leases", "delete retention leases", query={"ids": joined})

    def authorize_repository(self, definition: Definition, repository: Repository, project_id: str) -> None:
        """Let a pipeline use a repository that is not its own (Resources - Authorize Definition Resources).

        One of another project takes Pipeline Permissions - Update, for which a personal access token needs a scope of
        its own: https://github.com/microsoft/terraform-provider-azuredevops/issues/973

        Args:
            definition: the pipeline.
            repository: the repository.
            project_id: the id of the pipeline's project.

        Raises:
            AzureError: the service refuses.
        """
        if repository.project_id != project_id:
            self._permit(definition, repository)
            return
        resource = {
            "type": "repository",
            "id": f"{repository.project_id}.{repository.id}",
            "name": repository.name,
            "authorized": True,
        }
        action = f"let the pipeline {definition.name!r} use the repository {repository.name!r}"
        path = f"build/definitions/{definition.id}/resources"
        self._http.call("PATCH", path, action, body=[resource], version="7.1-preview.1")

    def _permit(self, definition: Definition, repository: Repository) -> None:
        action = f"let the pipeline {definition.name!r} use the repository {repository.name!r} of another project"
        path = f"pipelines/pipelinePermissions/repository/{repository.project_id}.{repository.id}"
        preview = "7.1-preview.1"
        known = self._http.call("GET", path, action, version=preview)["pipelines"]
        if any(pipeline["id"] == definition.id and pipeline["authorized"] for pipeline in known):
            return
        body = {"pipelines": [{"id": definition.id, "authorized": True}]}
        try:
            self._http.call("PATCH", path, action, body=body, version=preview)
        except AzureError as error:
            if error.status not in (401, 403):
                raise
            raise AzureError(
                f"{error} The token needs the scope Pipeline Resources (use and manage); or start the pipeline once, "
                "and permit the repository on the run's page.",
                error.status,
            ) from None

    def validate(self, definition: Definition, yaml: str, branch: str) -> None:
        """Validate YAML on the server without running it (Preview).

        Raises:
            AzureError: it is not valid (status 400), with the service's own message.
        """
        body = {
            "previewRun": True,
            "yamlOverride": yaml,
            "resources": {"repositories": {"self": {"refName": f"refs/heads/{branch}"}}},
        }
        # Azure DevOps Server 2020 has no Preview, and runs nothing for this either.
        operation = "runs" if self._http.is_older_than("7.0") else "preview"
        path = f"pipelines/{definition.id}/{operation}"
        self._http.call("POST", path, f"use the YAML of {definition.name!r}", body=body)

    @cached_property
    def settings(self) -> ProjectSettings:
        """What the project's settings say about pipelines, read once (General Settings - Get)."""
        try:
            settings = self._http.get("build/generalsettings", "read the project's settings")
        except AzureError as error:
            if error.status in (401, 403):
                return ProjectSettings()
            raise
        return ProjectSettings(
            bool(settings.get("enforceReferencedRepoScopedToken")), bool(settings.get("enforceSettableVar"))
        )

    # -- runs

    def queue(self, definition: Definition, branch: str, parameters: Mapping[str, str] | None = None) -> Build:
        """Queue a run on a branch (Builds - Queue; with parameters Runs - Run Pipeline, which every server has).

        Args:
            definition: the pipeline.
            branch: the branch whose YAML is run.
            parameters: values of runtime parameters.
        """
        action = f"run the pipeline {definition.name!r} on {branch!r}"
        ref = f"refs/heads/{branch}"
        if parameters:
            body = {"resources": {"repositories": {"self": {"refName": ref}}}, "templateParameters": dict(parameters)}
            started = self._http.call("POST", f"pipelines/{definition.id}/runs", action, body=body)
            return self.build(started["id"])
        body = {"definition": {"id": definition.id}, "sourceBranch": ref}
        return _build(self._http.call("POST", "build/builds", action, body=body))

    def build(self, build_id: int) -> Build:
        """Return a run."""
        return _build(self._http.get(f"build/builds/{build_id}", f"read run {build_id}"))

    def newest_build(self, definition: Definition) -> Build | None:
        """Return a definition's newest run; None if it has none."""
        listed = self._listing.definitions().get(definition.id) if self._listing else None
        if listed and listed.newest_run:
            return _build(listed.newest_run)
        return next(self.builds(definition, top=1), None)

    def builds(self, definition: Definition, *, status: str | None = None, top: int | None = None) -> Iterator[Build]:
        """Yield a definition's runs, the newest first.

        Args:
            definition: the pipeline.
            status: only those of a status.
            top: how many the service lists at a time.
        """
        query = {"definitions": definition.id, "queryOrder": "queueTimeDescending", "statusFilter": status}
        query |= {"$top": top} if top else {}
        listed = self._http.pages("build/builds", f"list the runs of {definition.name!r}", **query)
        return (_build(entry) for entry in listed)

    def timeline(self, build: Build) -> list[Record]:
        """Return a run's records so far, in order."""
        answer = self._http.get(f"build/builds/{build.id}/timeline", f"read the steps of run {build.id}")
        records = [
            Record(
                entry["type"],
                entry["name"],
                entry["state"],
                entry.get("result"),
                (entry.get("log") or {}).get("id"),
                entry.get("order") or 0,
                tuple(i["message"] for i in entry.get("issues") or () if i["type"] == "error"),
            )
            for entry in (answer or {}).get("records", [])
        ]
        return sorted(records, key=lambda record: record.order)

    def log(self, build: Build, log_id: int) -> str:
        """Return the log of one step of a run."""
        return self._http.text(f"build/builds/{build.id}/logs/{log_id}", f"read a log of run {build.id}")


def _change(change: FileChange) -> dict[str, Any]:
    kind = "delete" if change.text is None else "edit" if change.exists else "add"
    content = {} if change.text is None else {"newContent": {"content": change.text, "contentType": "rawText"}}
    return {"changeType": kind, "item": {"path": f"/{change.path}"}, **content}


def _build(answer: Mapping[str, Any]) -> Build:
    finished = answer.get("finishTime")
    return Build(
        id=answer["id"],
        status=answer["status"],
        result=answer.get("result"),
        reason=answer.get("reason", ""),
        branch=answer.get("sourceBranch", "").removeprefix("refs/heads/"),
        queued=datetime.fromisoformat(answer["queueTime"]),
        finished=datetime.fromisoformat(finished) if finished else None,
    )
