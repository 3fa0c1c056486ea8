"""What the REST API's Git operations do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from ..pipelines import Pipelines
from ..repos import NO_OBJECT, Push, RefUpdate, Repositories, Repository, ServiceError, name_problem, now
from .operation import Call, Route

_MINIMUM_REVIEWERS = "fa4e907d-c16b-4a4c-9dfa-4906e5d171dd"
"""The id of that policy's type, the same everywhere: https://github.com/microsoft/terraform-provider-azuredevops,
``policy/branch/resource_branchpolicy_min_reviewers.go``."""


class GitOperations:
    """Repositories, refs, files, pushes and pull requests."""

    def __init__(self, repositories: Repositories, pipelines: Pipelines) -> None:
        self._repositories, self._pipelines = repositories, pipelines

    def routes(self) -> Sequence[Route]:
        """Return the operations with their scopes."""
        read, write, manage = "vso.code", "vso.code_write", "vso.code_manage"
        repository = "git/repositories/{repositoryId}"
        return (
            Route("GET", "git/repositories", read, self.repositories),
            Route("GET", "git/repositories", read, self.repositories, in_project=False),
            Route("POST", "git/repositories", manage, self.create_repository),
            Route("DELETE", repository, manage, self.delete_repository),
            Route("PATCH", repository, manage, self.update_repository),
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
            Route("GET", "git/policy/configurations", read, self.policies, released_in=7),
        )

    def create_repository(self, call: Call) -> Any:
        """Repositories - Create."""
        name = call.body["name"]
        if problem := name_problem(name):
            raise ServiceError(400, f"TF400898: {problem}", "InvalidArgumentValueException")
        if self._repositories.find(call.organization, call.project, name):
            raise ServiceError(409, f"TF400948: A Git repository with the name {name} already exists.")
        return self._describe(self._repositories.create(call.organization, call.project, name))

    def repositories(self, call: Call) -> Any:
        """Repositories - List, which has no pages.

        Recorded: 20,000 in one answer, https://github.com/sourcegraph/sourcegraph-public-snapshot/issues/46809 (2023).
        """
        projects = [call.project] if call.project else self._repositories.projects(call.organization)
        found = [
            self._describe(repository)
            for project in projects
            for repository in self._repositories.in_project(call.organization, project)
        ]
        return {"count": len(found), "value": found}

    def update_repository(self, call: Call) -> Any:
        """Repositories - Update."""
        repository, branch = self._listed(call), call.body.get("defaultBranch")
        known = set(call.body) <= {"defaultBranch", "isDisabled"} and (not branch or branch in repository.refs())
        if not known:
            raise ServiceError(400, "The embedded service only changes the default branch, and disables.")
        repository.disabled = call.body.get("isDisabled", repository.disabled)
        if branch:
            repository.git("symbolic-ref", "HEAD", branch)
        return self._describe(repository)

    def delete_repository(self, call: Call) -> Any:
        """Repositories - Delete."""
        self._repositories.delete(self._listed(call))

    def repository(self, call: Call) -> Any:
        """Repositories - Get."""
        return self._describe(self._repository(call))

    def _describe(self, found: Repository) -> dict[str, Any]:
        path = quote(f"{found.organization}/{found.project}/_git/{found.name}")
        shown = {
            "id": found.id,
            "name": found.name,
            "project": {"id": found.project_id, "name": found.project},
            "remoteUrl": f"{self._pipelines.jobs.url}/{path}",
            "isDisabled": found.disabled,
            "size": 0,
        }
        return {**shown, **({"defaultBranch": found.default_branch} if found.default_branch else {})}

    def refs(self, call: Call) -> Any:
        """Refs - List."""
        prefix = "refs/" + call.query.get("filter", "")
        return [
            {"name": name, "objectId": value}
            for name, value in self._repository(call).refs().items()
            if name.startswith(prefix)
        ]

    def update_refs(self, call: Call) -> Any:
        """Refs - Update Refs."""
        repository = self._repository(call)
        updates = [RefUpdate(u["name"], u["oldObjectId"], u["newObjectId"]) for u in call.body]
        # The service answers 200 and says of each ref what became of it (Refs - Update Refs).
        status: dict[str, str] = {}
        for update in updates:
            try:
                self._pipelines.pushed(repository, repository.update_refs([update]))
                status[update.name] = "succeeded"
            except ServiceError as refusal:
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
        """Items - Get, and Items - List of a folder's own files and folders."""
        repository = self._repository(call)
        commit, branch = self._resolved(call, repository)
        if "scopePath" in call.query:
            return self._folder(call, repository, commit, branch)
        path = call.query["path"]
        text = repository.file(commit, path)
        if text is None:
            raise _no_item(path, repository, commit, branch)
        shown = {"commitId": commit, "gitObjectType": "blob", "path": path}
        return {**shown, **({"content": text} if call.query.get("includeContent") == "true" else {})}

    @staticmethod
    def _folder(call: Call, repository: Repository, commit: str, branch: str) -> Any:
        """Return a folder and what is in it, which has no pages."""
        path = call.query["scopePath"]
        if call.query.get("recursionLevel") != "OneLevel":
            raise ServiceError(400, "The embedded service only lists one level of a folder.")
        found = repository.folder(commit, path)
        if found is None:
            raise _no_item(path, repository, commit, branch)
        shown = [
            {
                "objectId": identifier,
                "gitObjectType": kind,
                "commitId": commit,
                "path": name,
                **({"isFolder": True} if kind == "tree" else {}),
            }
            for name, (kind, identifier) in found.items()
        ]
        return {"count": len(shown), "value": shown}

    @staticmethod
    def _resolved(call: Call, repository: Repository) -> tuple[str, str]:
        """Return the commit that a call is about, and its branch."""
        if call.query.get("versionDescriptor.versionType", "branch") != "branch":
            raise ServiceError(400, "The embedded service only reads files of branches.")
        branch = call.query.get("versionDescriptor.version") or str(repository.default_branch).removeprefix(
            "refs/heads/"
        )
        commit = repository.refs().get(f"refs/heads/{branch}")
        if commit is None:
            raise ServiceError(
                404,
                f"TF401175: The version descriptor <Branch: {branch} > could not be resolved to a version in the "
                f"repository {repository.name}.",
                "GitUnresolvableToCommitException",
            )
        return commit, branch

    def commit(self, call: Call) -> Any:
        """Commits - Get."""
        repository, commit = self._repository(call), call.parts["commitId"]
        return {"commitId": commit, "comment": repository.message(commit)}

    def commits(self, call: Call) -> Any:
        """Commits - Get Commits."""
        repository = self._repository(call)
        version = call.query.get("searchCriteria.itemVersion.version")
        ref = f"refs/heads/{version}" if version else repository.default_branch
        if ref is None or ref not in repository.refs():
            return []
        return [{"commitId": commit, "comment": repository.message(commit)} for commit in repository.history(ref)]

    def branches(self, call: Call) -> Any:
        """Stats - List."""
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
        """Pushes - List."""
        since = call.query.get("searchCriteria.fromDate", "")
        with_updates = call.query.get("searchCriteria.includeRefUpdates") == "true"
        return [
            self._push(push, with_updates) for push in reversed(self._repository(call).pushes) if push.date >= since
        ]

    def one_push(self, call: Call) -> Any:
        """Pushes - Get."""
        for push in self._repository(call).pushes:
            if str(push.id) == call.parts["pushId"]:
                return self._push(push, call.query.get("includeRefUpdates", "").lower() == "true")
        raise ServiceError(
            404, f"TF401205: The push {call.parts['pushId']} does not exist.", "GitPushNotFoundException"
        )

    def push(self, call: Call) -> Any:
        """Pushes - Create."""
        repository = self._repository(call)
        (update,), (commit,) = call.body["refUpdates"], call.body["commits"]
        parent = None if update["oldObjectId"] == NO_OBJECT else update["oldObjectId"]
        changes: dict[str, str | None] = {}
        for change in commit["changes"]:
            path = change["item"]["path"]
            present = parent is not None and repository.file(parent, path) is not None
            if present == (change["changeType"] == "add"):
                raise ServiceError(
                    400, f"TF401035: The object '{path}' is {'' if present else 'not '}there.", "GitItemException"
                )
            if change["changeType"] != "delete" and change["newContent"]["contentType"] != "rawText":
                raise ServiceError(400, "The embedded service only accepts rawText.")
            changes[path] = None if change["changeType"] == "delete" else change["newContent"]["content"]
        with repository.lock:
            repository.check_policy(update["name"])
            new = repository.commit(parent, changes, commit["comment"])
            made = repository.update_refs([RefUpdate(update["name"], update["oldObjectId"], new)])
        self._pipelines.pushed(repository, made)
        return {**self._push(made, True), "commits": [{"commitId": new, "comment": commit["comment"]}]}

    def pull_requests(self, call: Call) -> Any:
        """Pull Requests - Get Pull Requests."""
        repository, query = self._repository(call), call.query
        if query.get("searchCriteria.sourceRepositoryId", repository.id) != repository.id:
            # There are no forks here.
            return []
        source, target = query.get("searchCriteria.sourceRefName"), query.get("searchCriteria.targetRefName")
        status = query.get("searchCriteria.status", "active")
        return [
            p
            for p in repository.pull_requests
            if source in (None, p["sourceRefName"])
            and target in (None, p["targetRefName"])
            and status in ("all", p["status"])
        ]

    def create_pull_request(self, call: Call) -> Any:
        """Pull Requests - Create."""
        repository, body = self._repository(call), call.body
        refs = repository.refs()
        if body["sourceRefName"] not in refs or body["targetRefName"] not in refs:
            raise ServiceError(400, "TF401398: The pull request cannot be activated because a branch no longer exists.")
        names = (body["sourceRefName"], body["targetRefName"])
        if any(
            p["status"] == "active" and (p["sourceRefName"], p["targetRefName"]) == names
            for p in repository.pull_requests
        ):
            raise ServiceError(409, "TF401179: An active pull request for the source and target branch already exists.")
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
        """Pull Requests - Update."""
        for found in self._repository(call).pull_requests:
            if str(found["pullRequestId"]) == call.parts["pullRequestId"]:
                if set(call.body) != {"status"} or call.body["status"] != "abandoned":
                    raise ServiceError(400, "The embedded service can only abandon pull requests.")
                found["status"] = "abandoned"
                return found
        raise ServiceError(
            404, "TF401180: The requested pull request was not found.", "GitPullRequestNotFoundException"
        )

    def policies(self, call: Call) -> Any:
        """Policy Configurations - Get: those of one branch."""
        repository = self._repositories.find(call.organization, call.project, call.query["repositoryId"])
        branch = call.query["refName"]
        if repository is None or branch not in repository.protected:
            return []
        scope = {"repositoryId": repository.id, "refName": branch, "matchKind": "Exact"}
        return [
            {
                "id": 1,
                "isEnabled": True,
                "isBlocking": True,
                "isDeleted": False,
                "type": {"id": _MINIMUM_REVIEWERS, "displayName": "Minimum number of reviewers"},
                "settings": {
                    "minimumApproverCount": 1,
                    "creatorVoteCounts": False,
                    "blockLastPusherVote": True,
                    "resetOnSourcePush": True,
                    "scope": [scope],
                },
            }
        ]

    def _repository(self, call: Call) -> Repository:
        """Return a repository to look at or to work with; one that is disabled is listed, and can be enabled again.

        Recorded: https://github.com/microsoft/terraform-provider-azuredevops/pull/1180
        """
        return self._find(call, lambda found: not found.disabled)

    def _listed(self, call: Call) -> Repository:
        return self._find(call, lambda _: True)

    def _find(self, call: Call, usable: Callable[[Repository], bool]) -> Repository:
        name = call.parts["repositoryId"]
        found = self._repositories.find(call.organization, call.project, name)
        if not found or not usable(found):
            raise ServiceError(
                404,
                f"TF401019: The Git repository with name or identifier {name} does not exist or you do not have "
                "permissions for the operation you are attempting.",
                "GitRepositoryNotFoundException",
            )
        return found

    def _push(self, push: Push, with_updates: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {"pushId": push.id, "date": push.date}
        if with_updates:
            shown["refUpdates"] = [{"name": u.name, "oldObjectId": u.old, "newObjectId": u.new} for u in push.updates]
        return shown


def _no_item(path: str, repository: Repository, commit: str, branch: str) -> ServiceError:
    return ServiceError(
        404,
        f"TF401174: The item '{path}' could not be found in the repository '{repository.name}' at the version "
        f"specified by '<Branch: {branch} >' (resolved to commit '{commit}').",
        "GitItemNotFoundException",
    )
