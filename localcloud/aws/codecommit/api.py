"""CodeCommit's control plane: the API calls on repositories.

Limits and messages follow the CodeCommit API reference (2015-04-13) and its quotas page.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ministack.core import iam_actions, responses, router

from . import git_service

TARGET_PREFIX = "CodeCommit_20150413"

_NAME = re.compile(r"(?!.*\.git$)[\w.-]{1,100}", re.ASCII)
MAX_REPOSITORIES = 5000
"""In an account and region: https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html"""


class ServiceError(Exception):
    """An answer of the service that is not a success."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Repository:
    """One repository's record; its Git data is at ``path``."""

    account: str
    region: str
    name: str
    path: Path
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)

    @property
    def arn(self) -> str:
        """The repository's ARN."""
        return f"arn:aws:codecommit:{self.region}:{self.account}:{self.name}"

    def branches(self) -> dict[str, str]:
        """Return each branch's name and commit id."""
        listing = _git(self.path, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/")
        lines = (line.split(" ", 1) for line in listing.split("\n") if line)
        return {name.removeprefix("refs/heads/"): commit for commit, name in lines}

    def default_branch(self) -> str | None:
        """Return the default branch: CodeCommit's is the first one pushed, until it is changed."""
        head = _git(self.path, "symbolic-ref", "HEAD").strip().removeprefix("refs/heads/")
        return head if head in self.branches() else None


class CodeCommit:
    """All repositories of the embedded cloud, by account, region and name.

    Args:
        root: where the bare repositories are kept.
        git_url: base URL of the Git endpoint; the region's host name is put behind it.
    """

    def __init__(self, root: Path, git_url: Callable[[], str]) -> None:
        self._root, self._git_url = root, git_url
        self._repositories: dict[tuple[str, str, str], Repository] = {}

    def find(self, account: str, region: str, name: str) -> Repository | None:
        """Return a repository, or None."""
        return self._repositories.get((account, region, name))

    def all(self) -> list[Repository]:
        """Return the repositories of every account and region."""
        return list(self._repositories.values())

    def clone_url(self, repository: Repository) -> str:
        """Return a repository's HTTPS clone URL."""
        return f"{self._git_url()}/git-codecommit.{repository.region}.amazonaws.com/v1/repos/{repository.name}"

    def create(self, name: str, description: str = "", tags: dict[str, str] | None = None) -> Repository:
        """Create a repository in the request's account and region (CreateRepository)."""
        if not _NAME.fullmatch(name):
            raise ServiceError("InvalidRepositoryNameException", f"Repository name {name} is not valid")
        if len(description) > 1000:
            raise ServiceError(
                "InvalidRepositoryDescriptionException", "The description is longer than 1000 characters"
            )
        key = (responses.get_account_id(), responses.get_region(), name)
        if key in self._repositories:
            raise ServiceError("RepositoryNameExistsException", f"Repository named {name} already exists")
        if sum((r.account, r.region) == key[:2] for r in self.all()) >= MAX_REPOSITORIES:
            raise ServiceError("RepositoryLimitExceededException", "A repository resource limit was exceeded.")
        path = repository_path(self._root, *key)
        git_service.create_repository(path)
        self._repositories[key] = Repository(*key, path, description, dict(tags or {}))
        return self._repositories[key]

    def get(self, name: str) -> Repository:
        """Return a repository of the request's account and region (GetRepository)."""
        repository = self.find(responses.get_account_id(), responses.get_region(), name)
        if repository is None:
            raise ServiceError("RepositoryDoesNotExistException", f"{name} does not exist")
        return repository

    def delete(self, name: str) -> str | None:
        """Delete a repository and return its id; None when there was none, as the service answers."""
        key = (responses.get_account_id(), responses.get_region(), name)
        repository = self._repositories.pop(key, None)
        if repository is None:
            return None
        shutil.rmtree(repository.path)
        return repository.id

    async def handle_request(
        self, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        """Answer one API call (ministack's handler signature)."""
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        try:
            operation = _OPERATIONS.get(action)
            if operation is None:
                raise ServiceError(
                    "UnknownOperationException", f"{action} is not an operation of the embedded CodeCommit"
                )
            status, answer = 200, operation(self, json.loads(body or b"{}"))
        except ServiceError as error:
            status, answer = 400, {"__type": error.code, "message": str(error)}
        return status, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(answer).encode()

    def rename(self, repository: Repository, name: str) -> None:
        """Give a repository another name."""
        where = (repository.account, repository.region)
        if (*where, name) in self._repositories:
            raise ServiceError("RepositoryNameExistsException", f"Repository named {name} already exists")
        path = repository_path(self._root, *where, name)
        repository.path.rename(path)
        del self._repositories[(*where, repository.name)]
        repository.name, repository.path, repository.modified = name, path, time.time()
        self._repositories[(*where, name)] = repository

    def metadata(self, repository: Repository) -> dict[str, Any]:
        """Return what the API reports about a repository (RepositoryMetadata)."""
        answer = {
            "accountId": repository.account,
            "repositoryId": repository.id,
            "repositoryName": repository.name,
            "repositoryDescription": repository.description,
            "lastModifiedDate": repository.modified,
            "creationDate": repository.created,
            "cloneUrlHttp": self.clone_url(repository),
            "cloneUrlSsh": f"ssh://git-codecommit.{repository.region}.amazonaws.com/v1/repos/{repository.name}",
            "Arn": repository.arn,
        }
        if default := repository.default_branch():
            answer["defaultBranch"] = default
        return answer


def _by_arn(service: CodeCommit, arn: str) -> Repository:
    for repository in service.all():
        if repository.arn == arn:
            return repository
    raise ServiceError("InvalidResourceArnException", f"{arn} names no repository")


def _update_description(service: CodeCommit, call: dict[str, Any]) -> dict[str, Any]:
    repository = service.get(call["repositoryName"])
    repository.description, repository.modified = call.get("repositoryDescription", ""), time.time()
    return {}


def _update_default_branch(service: CodeCommit, call: dict[str, Any]) -> dict[str, Any]:
    repository, branch = service.get(call["repositoryName"]), call["defaultBranchName"]
    if branch not in repository.branches():
        raise ServiceError("BranchDoesNotExistException", f"Branch {branch} does not exist")
    _git(repository.path, "symbolic-ref", "HEAD", f"refs/heads/{branch}")
    return {}


def _get_branch(service: CodeCommit, call: dict[str, Any]) -> dict[str, Any]:
    branch = call["branchName"]
    commit = service.get(call["repositoryName"]).branches().get(branch)
    if commit is None:
        raise ServiceError("BranchDoesNotExistException", f"Branch {branch} does not exist")
    return {"branch": {"branchName": branch, "commitId": commit}}


def _untag(service: CodeCommit, call: dict[str, Any]) -> dict[str, Any]:
    tags = _by_arn(service, call["resourceArn"]).tags
    for key in call["tagKeys"]:
        tags.pop(key, None)
    return {}


def _list(service: CodeCommit, call: dict[str, Any]) -> dict[str, Any]:
    here = (responses.get_account_id(), responses.get_region())
    return {
        "repositories": [
            {"repositoryName": r.name, "repositoryId": r.id} for r in service.all() if (r.account, r.region) == here
        ]
    }


def _update_name(service: CodeCommit, call: dict[str, Any]) -> dict[str, Any]:
    """Rename a repository: its id and tags stay, and its ARN and clone URL are others (UpdateRepositoryName)."""
    service.rename(service.get(call["oldName"]), call["newName"])
    return {}


_OPERATIONS: dict[str, Callable[[CodeCommit, dict[str, Any]], dict[str, Any]]] = {
    "CreateRepository": lambda service, call: {
        "repositoryMetadata": service.metadata(
            service.create(call["repositoryName"], call.get("repositoryDescription", ""), call.get("tags"))
        )
    },
    "GetRepository": lambda service, call: {
        "repositoryMetadata": service.metadata(service.get(call["repositoryName"]))
    },
    "DeleteRepository": lambda service, call: {
        key: value for key, value in [("repositoryId", service.delete(call["repositoryName"]))] if value
    },
    "ListRepositories": _list,
    "UpdateRepositoryDescription": _update_description,
    "UpdateRepositoryName": _update_name,
    "UpdateDefaultBranch": _update_default_branch,
    "ListBranches": lambda service, call: {"branches": list(service.get(call["repositoryName"]).branches())},
    "GetBranch": _get_branch,
    "TagResource": lambda service, call: _by_arn(service, call["resourceArn"]).tags.update(call["tags"]) or {},
    "UntagResource": _untag,
    "ListTagsForResource": lambda service, call: {"tags": _by_arn(service, call["resourceArn"]).tags},
}


def repository_path(root: Path, account: str, region: str, name: str) -> Path:
    """Return where a repository's bare Git data is."""
    return root / account / region / f"{name}.git"


def install(service: CodeCommit) -> None:
    """Make ministack route CodeCommit's calls to ``service``."""
    from ministack import app

    app.SERVICE_HANDLERS["codecommit"] = service.handle_request
    router.SERVICE_PATTERNS["codecommit"] = {"target_prefixes": [TARGET_PREFIX], "host_patterns": [r"codecommit\."]}
    iam_actions.SERVICE_TO_IAM_NAMESPACE["codecommit"] = "codecommit"


def _git(path: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(path), *arguments], check=True, capture_output=True)
    return run.stdout.decode(errors="surrogateescape")
