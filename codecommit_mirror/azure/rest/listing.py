"""What a project of Azure DevOps has, listed once for a command that works on many mirrors."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from ...errors import AzureError
from .http import AzureHttp
from .objects import Definition

Answer = TypeVar("Answer")

_NOT_FOUND = 404
_LATEST = ("latestBuild", "latestCompletedBuild")


class ListedDefinition(NamedTuple):
    """A pipeline, and its newest run as the service describes it; None if the list names none."""

    definition: Definition
    newest_run: Mapping[str, Any] | None


class Listing:
    """Lists a project's repositories, its pipelines and the folders of its repositories, each once, when first needed.

    Args:
        http: the project's REST API.
        project: its organization and name, for messages.
    """

    def __init__(self, http: AzureHttp, project: str) -> None:
        self._http, self._project = http, project
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._known: dict[Hashable, Any] = {}

    def forget(self) -> None:
        """List again what is needed from now on, since it may have changed."""
        with self._lock:
            self._known = {}

    def repositories(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the repositories by name, as it is written, and by id (Repositories - List, which has no pages)."""

        def read() -> dict[str, Mapping[str, Any]]:
            listed = self._http.get("git/repositories", f"list the repositories of {self._project}")["value"]
            by_name = {str(repository["name"]): repository for repository in listed}
            return {**by_name, **{str(repository["id"]): repository for repository in listed}}

        return self._once("repositories", read)

    def definitions(self) -> Mapping[int, ListedDefinition]:
        """Return the pipelines in full by id, with their newest runs (Definitions - List)."""

        def read() -> dict[int, ListedDefinition]:
            query = {"includeAllProperties": "true", "includeLatestBuilds": "true"}
            listed = self._http.pages("build/definitions", f"list the pipelines of {self._project}", **query)
            return {int(entry["id"]): _listed(entry) for entry in listed}

        return self._once("definitions", read)

    def folder(self, repository_id: str, branch: str, path: str) -> Mapping[str, str]:
        """Return the ids of a folder's files by path; nothing if there is no such branch or folder (Items - List).

        Args:
            repository_id: the repository's id.
            branch: the branch.
            path: the folder, without a slash in front; empty for the root.
        """

        def read() -> dict[str, str]:
            query = {
                "scopePath": f"/{path}",
                "recursionLevel": "OneLevel",
                "versionDescriptor.versionType": "branch",
                "versionDescriptor.version": branch,
            }
            action = f"list the folder '/{path}' on {branch!r}"
            try:
                items = self._http.get(f"git/repositories/{repository_id}/items", action, **query)["value"]
            except AzureError as error:
                if error.status == _NOT_FOUND:
                    return {}
                raise
            files = (item for item in items if not item.get("isFolder"))
            return {str(item["path"]).lstrip("/"): str(item["objectId"]) for item in files}

        return self._once((repository_id, branch, path), read)

    def _once(self, key: Hashable, read: Callable[[], Answer]) -> Answer:
        with self._lock:
            lock, known = self._locks.setdefault(key, threading.Lock()), self._known
        with lock:
            if key not in known:
                known[key] = read()
            return cast(Answer, known[key])


def blob_id(text: str) -> str:
    """Return the id by which git knows a file of this text, which is that of its object."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def _listed(entry: Mapping[str, Any]) -> ListedDefinition:
    body = {key: value for key, value in entry.items() if key not in _LATEST}
    return ListedDefinition(Definition(int(entry["id"]), body), entry.get("latestBuild"))
