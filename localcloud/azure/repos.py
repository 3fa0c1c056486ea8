"""Azure Repos: bare Git repositories, and what was pushed to them."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..isolated_git import isolated_environment

NO_OBJECT = "0" * 40
_NAMESPACE = uuid.UUID("5d2d60c9-3b43-4a1f-9d2c-4a3b5a8d3f10")


@dataclass(frozen=True)
class RefUpdate:
    """One ref's change in a push."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Push:
    """What one push did."""

    id: int
    date: str
    updates: tuple[RefUpdate, ...]


class ServiceError(Exception):
    """The service refuses; the message is its own."""

    def __init__(self, status: int, message: str, type_key: str = "InvalidOperationException") -> None:
        super().__init__(message)
        self.status, self.type_key = status, type_key


@dataclass
class Repository:
    """One repository."""

    path: Path
    organization: str
    project: str
    name: str
    id: str
    project_id: str
    pushes: list[Push] = field(default_factory=list)
    protected: set[str] = field(default_factory=set)
    """Branches whose policies refuse a push."""
    disabled: bool = False
    """Whether nobody can fetch from it or push to it; it can still be listed, renamed and deleted."""
    shown: frozenset[str] | None = None
    """The refs that fetches see under the plain URL (*limited refs*); None for all of them."""
    pull_requests: list[dict[str, object]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _files: dict[tuple[str, str], str | None] = field(default_factory=dict, init=False, repr=False)
    """Each push looks at the YAML of every pipeline of the organization."""

    @property
    def default_branch(self) -> str | None:
        """The full name of the branch that HEAD points at, once it has a commit."""
        head = self.git("symbolic-ref", "HEAD").strip()
        return head if head in self.refs() else None

    def refs(self) -> dict[str, str]:
        """Return object ids by ref name."""
        listing = self.git("for-each-ref", "--format=%(objectname) %(refname)")
        return {name: value for value, _, name in (line.partition(" ") for line in listing.split("\n") if line)}

    def file(self, commit: str, path: str) -> str | None:
        """Return a file's text at the commit with an id."""
        name = path.lstrip("/")
        if (commit, name) not in self._files:
            is_there = name and self.git("ls-tree", commit, "--", name)
            self._files[commit, name] = self.git("cat-file", "blob", f"{commit}:{name}") if is_there else None
        return self._files[commit, name]

    def folder(self, commit: str, path: str) -> dict[str, tuple[str, str]] | None:
        """Return the kinds and ids of a folder and of what is in it, by path; None if there is no such folder."""
        name = path.strip("/")
        try:
            own = self.git("rev-parse", "--verify", "--quiet", f"{commit}:{name}").strip()
            listed = self.git("ls-tree", "-z", f"{commit}:{name}")
        except RuntimeError:
            return None
        found = {f"/{name}": ("tree", own)}
        for line in filter(None, listed.split("\0")):
            (_, kind, identifier), entry = line.partition("\t")[0].split(), line.partition("\t")[2]
            found["/" + f"{name}/{entry}".lstrip("/")] = (kind, identifier)
        return found

    def has_commit(self, identifier: str) -> bool:
        """Whether there is a commit with this id."""
        try:
            return self.git("cat-file", "-t", identifier).strip() == "commit"
        except RuntimeError:
            return False

    def message(self, commit: str) -> str:
        """Return a commit's message."""
        return self.git("log", "-1", "--format=%B", commit)

    def history(self, ref: str) -> list[str]:
        """Return the commits that a ref reaches, the newest first."""
        return self.git("rev-list", ref).split()

    def distance(self, base: str, ref: str) -> tuple[int, int]:
        """Return how many commits a ref is behind a base, and ahead of it."""
        behind, ahead = self.git("rev-list", "--left-right", "--count", f"{base}...{ref}").split()
        return int(behind), int(ahead)

    def commit(self, parent: str | None, changes: Mapping[str, str | None], comment: str) -> str:
        """Make a commit that writes files, or removes those whose text is None, and return its id."""
        index = self.path / f"index-{uuid.uuid4()}"
        environment = {"GIT_INDEX_FILE": str(index)}
        try:
            if parent:
                self.git("read-tree", parent, environment=environment)
            for path, text in changes.items():
                if text is None:
                    self.git("rm", "-q", "--cached", "--", path.lstrip("/"), environment=environment)
                    continue
                blob = self.git("hash-object", "-w", "--stdin", stdin=text).strip()
                entry = f"100644,{blob},{path.lstrip('/')}"
                self.git("update-index", "--add", "--cacheinfo", entry, environment=environment)
            tree = self.git("write-tree", environment=environment).strip()
        finally:
            index.unlink(missing_ok=True)
        return self.git("commit-tree", tree, *(("-p", parent) if parent else ()), "-m", comment).strip()

    def merge(self, source: str, target: str, ref: str) -> None:
        """Make ``ref`` the merge of two branches, as the service does for a pull request.

        Raises:
            ServiceError: they conflict.
        """
        try:
            tree = self.git("merge-tree", "--write-tree", target, source).strip()
        except RuntimeError:
            raise ServiceError(409, f"{source} cannot be merged into {target} without conflicts.") from None
        self.git("update-ref", ref, self.git("commit-tree", tree, "-p", target, "-p", source, "-m", "Merge").strip())

    def checkout(self, commit: str, folder: Path) -> None:
        """Fetch into an empty folder, and check out one commit, on no branch."""
        self.git("init", "-q", str(folder))
        for command in (["fetch", "-q", "--depth=1", self.path.as_uri(), commit], ["checkout", "-q", "FETCH_HEAD"]):
            subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)

    def update_refs(self, updates: Sequence[RefUpdate]) -> Push:
        """Move refs as one push does, each from the value that it must have.

        Raises:
            ServiceError: a ref moved meanwhile, or a branch's policy refuses a push.
        """
        with self.lock:
            before = self.refs()
            for update in updates:
                if before.get(update.name, NO_OBJECT) != update.old:
                    raise ServiceError(
                        409,
                        f"TF401028: The reference '{update.name}' has already been updated by another client, so you "
                        "cannot update it. Please try again.",
                        "GitReferenceStaleException",
                    )
                self.check_policy(update.name)
            for update in updates:
                self.git("update-ref", update.name, update.new, update.old)
            return self.record(updates)

    def check_policy(self, ref: str) -> None:
        """Refuse a push to a branch that a policy protects."""
        if ref in self.protected:
            raise ServiceError(
                403,
                "TF402455: Pushes to this branch are not permitted; you must use a pull request to update this branch.",
                "GitPushRejectedByPolicyException",
            )

    def record(self, updates: Sequence[RefUpdate]) -> Push:
        """Record a push."""
        push = Push(len(self.pushes) + 1, now(), tuple(updates))
        self.pushes.append(push)
        return push

    def git(self, *arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Run git in the repository and return its output."""
        who = {f"GIT_{w}_{k}": v for w in ("AUTHOR", "COMMITTER") for k, v in (("NAME", "Ada"), ("EMAIL", "a@b.c"))}
        done = subprocess.run(
            ["git", "--literal-pathspecs", "-C", str(self.path), *arguments],
            input=None if stdin is None else stdin.encode(),
            capture_output=True,
            env={**isolated_environment(), **who, **(environment or {})},
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"git {arguments[0]}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode("utf-8", "replace")


class Repositories:
    """All repositories, by organization, project, and name or id."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, Repository] = {}
        self._ids: dict[tuple[str, ...], str] = {}
        """Ids of projects and repositories that are not the first ones of their names, by today's names."""

    def find(self, organization: str, project: str, name_or_id: str) -> Repository | None:
        """Return the repository; names are compared without case, as the service does."""
        with_id = self.in_project(organization, project)
        wanted = name_or_id.lower()
        return next((r for r in with_id if wanted in (r.name.lower(), r.id)), None)

    def create(self, organization: str, project: str, name: str) -> Repository:
        """Create an empty repository."""
        path = repository_path(self._root, organization, project, name)
        create_repository(path)
        return self._at(path, organization, project, name)

    def rename(self, repository: Repository, name: str) -> None:
        """Give a repository another name; its id stays, and nothing answers to the old name."""
        path = repository_path(self._root, repository.organization, repository.project, name)
        self._known.pop(repository.path)
        self._ids[repository.organization, repository.project, name] = repository.id
        self._vacate(repository.organization, repository.project, repository.name)
        repository.path.rename(path)
        repository.path, repository.name = path, name
        self._known[path] = repository

    def rename_project(self, organization: str, project: str, name: str) -> None:
        """Give a project another name; the ids of the project and of its repositories stay."""
        for repository in self.in_project(organization, project):
            self._known.pop(repository.path)
            self._ids[organization, name, repository.name] = repository.id
            self._vacate(organization, project, repository.name)
            repository.path, repository.project = self._root / organization / name / repository.path.name, name
            self._known[repository.path] = repository
        self._ids[organization, name] = self.project_id(organization, project)
        self._vacate(organization, project)
        (self._root / organization / project).rename(self._root / organization / name)

    def project_id(self, organization: str, project: str) -> str:
        """Return a project's id."""
        return self._id(organization, project)

    def find_project(self, organization: str, identifier: str) -> str | None:
        """Return the name of the project with an id."""
        names = self.projects(organization)
        return next((name for name in names if self.project_id(organization, name) == identifier), None)

    def _id(self, *names: str) -> str:
        """Return an id, which is derived from the first names."""
        return self._ids.get(names) or str(uuid.uuid5(_NAMESPACE, "/".join(names)))

    def _vacate(self, *names: str) -> None:
        """Give whatever gets these names next an id of its own."""
        self._ids[names] = str(uuid.uuid4())

    def _at(self, path: Path, organization: str, project: str, name: str) -> Repository:
        identifier = self._id(organization, project, name)
        return Repository(path, organization, project, name, identifier, self.project_id(organization, project))

    def delete(self, repository: Repository) -> None:
        """Delete a repository; the service would keep it in a recycle bin."""
        self._known.pop(repository.path, None)
        self._vacate(repository.organization, repository.project, repository.name)
        shutil.rmtree(repository.path)

    def projects(self, organization: str) -> list[str]:
        """Return the names of the projects that have a repository."""
        folder = self._root / organization
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def in_project(self, organization: str, project: str) -> list[Repository]:
        """Return the project's repositories."""
        try:
            folder = repository_path(self._root, organization, project, "x").parent
        except ValueError:
            return []
        if not folder.is_dir():
            return []
        return [
            self._known.setdefault(path, self._at(path, organization, project, path.name.removesuffix(".git")))
            for path in sorted(folder.iterdir())
        ]


def repository_path(root: Path, organization: str, project: str, repository: str) -> Path:
    """Return where a repository's bare Git data is.

    Raises:
        ValueError: a name would leave the folder.
    """
    for name in (organization, project, repository):
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"{name!r} is not a name")
    return root / organization / project / f"{repository}.git"


def create_repository(path: Path) -> None:
    """Create an empty source repository."""
    subprocess.run(["git", "init", "-q", "--bare", "--template=", "-b", "main", str(path)], check=True)
    with (path / "config").open("a") as stream:
        # Pushes are taken, and nothing here outlives the machine.
        stream.write("[http]\n\treceivepack = true\n[core]\n\tfsync = none\n")


_RESERVED = {"aux", "con", "defaultcollection", "nul", "prn", "server", "signalr", "web"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(1, 11)
}


def name_problem(name: str) -> str | None:
    """Return why the service takes no repository of this name.

    https://learn.microsoft.com/azure/devops/organizations/settings/naming-restrictions
    """
    if not 1 <= len(name) <= 64:
        return "The repository name must have 1 to 64 characters."
    if re.search(r"[\x00-\x1f\\/:*?\"<>|;#${},+=\[\]]", name):
        return f"The repository name {name} contains a character that is not allowed."
    if name.startswith(("_", ".")) or name.endswith(".") or name != name.strip():
        return f"The repository name {name} must not begin with _ or ., end with ., or have a space at either end."
    if name.lower() in _RESERVED:
        return f"The repository name {name} is reserved by the system."
    return None


def now() -> str:
    """Return the time as the REST API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
