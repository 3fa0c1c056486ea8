"""Which repositories of an organization become mirrors, and under which names; pure decisions, and the file's edit."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..errors import ConfigurationError
from .fields import is_azure_name
from .guard import STACK_NAME, VAULT_STACK_NAME
from .mirror import REPLICA_NAME, Mirror, derive_stack_name

_TAKEN = ("cdktoolkit", STACK_NAME, VAULT_STACK_NAME)
"""Names of stacks that are no mirror's."""
_MAX_NAME = 100
_WIKI = ".wiki"
State = Literal["new", "mirrored", "disabled", "empty", "wiki", "excluded", "unsupported"]


@dataclass(frozen=True)
class DiscoveredRepository:
    """A repository of the organization."""

    project: str
    name: str
    default_branch: str | None
    disabled: bool


@dataclass(frozen=True)
class Candidate:
    """A repository, and what becomes of it."""

    repository: DiscoveredRepository
    state: State
    name: str | None
    """The mirror's name; None if it is not to be mirrored."""
    note: str = ""


def choose(
    repositories: Iterable[DiscoveredRepository],
    mirrors: Sequence[Mirror],
    names: Iterable[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    wikis: bool = False,
) -> list[Candidate]:
    """Decide what becomes of each repository, in the order of projects and names.

    Args:
        repositories: all that the organization has.
        mirrors: those of mirrors.yaml whose sources are in the organization.
        names: the names of all mirrors of mirrors.yaml.
        include: globs of ``PROJECT/REPOSITORY`` or of repositories; all by default.
        exclude: globs of those to leave out.
        wikis: whether wikis are mirrored too.
    """
    mirrored = {(mirror.azure.project.lower(), mirror.azure.repository.lower()): mirror.name for mirror in mirrors}
    stacks = {derive_stack_name(name).lower() for name in names}
    result: list[Candidate] = []
    for repository in sorted(
        repositories, key=lambda repository: (repository.project.lower(), repository.name.lower())
    ):
        place = (repository.project.lower(), repository.name.lower())
        state = _state(repository, mirrored, include, exclude, wikis)
        if state == "unsupported":
            result.append(Candidate(repository, state, None, "mirrors.yaml does not take a name with such characters"))
            continue
        if state != "new":
            result.append(Candidate(repository, state, mirrored.get(place)))
            continue
        name, note = name_of(repository, stacks)
        stacks.add(derive_stack_name(name).lower())
        result.append(Candidate(repository, state, name, note))
    return result


def _state(
    repository: DiscoveredRepository,
    mirrored: Iterable[tuple[str, str]],
    include: Sequence[str],
    exclude: Sequence[str],
    wikis: bool,
) -> State:
    if (repository.project.lower(), repository.name.lower()) in mirrored:
        return "mirrored"
    if (include and not _matches(repository, include)) or _matches(repository, exclude):
        return "excluded"
    if repository.disabled:
        return "disabled"
    if repository.name.endswith(_WIKI) and not wikis:
        return "wiki"
    if not all(map(is_azure_name, (repository.project, repository.name))):
        return "unsupported"
    return "new" if repository.default_branch else "empty"


def _matches(repository: DiscoveredRepository, globs: Sequence[str]) -> bool:
    names = (repository.name, f"{repository.project}/{repository.name}")
    return any(fnmatch.fnmatch(name.lower(), glob.lower()) for glob in globs for name in names)


def name_of(repository: DiscoveredRepository, stacks: Container[str]) -> tuple[str, str]:
    """Return a name for a repository's mirror, and a note if it is not simply the repository's own.

    What CodeCommit does not accept becomes a hyphen. A name whose stack's is taken gets the project in front, and then
    a hash of both.

    Args:
        repository: the repository.
        stacks: the names of all mirrors' stacks, in lower case.
    """
    plain = _acceptable(repository.name)
    for name in (plain, _acceptable(f"{repository.project}-{repository.name}")):
        if derive_stack_name(name).lower() not in stacks:
            note = "" if name == repository.name else f"named after {repository.name!r}"
            return name, note if name == plain else f"{plain!r} is taken"
    digest = hashlib.sha256(f"{repository.project}/{repository.name}".encode()).hexdigest()[:8]
    return f"{plain[: _MAX_NAME - 9]}-{digest}", f"{plain!r} is taken"


def _acceptable(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("-").rstrip("-")
    name = re.sub(r"(\.git)+$", "", name, flags=re.IGNORECASE)
    if len(name) > _MAX_NAME:
        name = f"{name[: _MAX_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if not REPLICA_NAME.fullmatch(name) or name.lower() in _TAKEN:
        name = f"repository-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def add(path: Path, candidates: Sequence[Candidate], organization: str, server: str | None) -> str:
    """Return the text of mirrors.yaml with an entry for each candidate; comments and order stay.

    Args:
        path: the file, which may not exist.
        candidates: those to add.
        organization: theirs, written where the file's defaults do not say it.
        server: their server, likewise; None for Azure DevOps Services.

    Raises:
        MirrorError: the file is not YAML, or has no mapping where entries go.
    """
    yaml, document = _open(path)
    defaults = (document.get("defaults") or {}).get("azure") or {}
    if document.get("mirrors") is None:
        document["mirrors"] = {}
    for candidate in candidates:
        wanted = {
            **({"server": server} if server else {}),
            "organization": organization,
            "project": candidate.repository.project,
        }
        azure = {key: value for key, value in wanted.items() if defaults.get(key) != value}
        document["mirrors"][candidate.name] = {"azure": {**azure, "repository": candidate.repository.name}}
    return _dumped(yaml, document)


def set_organization_id(path: Path, organization: str, identifier: str) -> str:
    """Return the text of mirrors.yaml with an organization's id: in its ``ci.azure``, if that is there, or in defaults.

    Raises:
        MirrorError: the file is not YAML.
    """
    yaml, document = _open(path)
    sections = document.get("ci") or []
    with_azure = [
        _mapping(one, "azure", path)
        for one in (sections if isinstance(sections, list) else [sections])
        if isinstance(one, dict) and "azure" in one
    ]
    own = [azure for azure in with_azure if azure.get("organization", organization) == organization]
    for azure in own:
        azure["organization_id"] = identifier
    if own:
        return _dumped(yaml, document)
    if document.get("defaults") is None:
        document["defaults"] = {}
    document["defaults"].setdefault("identity", {})
    _mapping(document["defaults"], "identity", path)["organization_id"] = identifier
    return _dumped(yaml, document)


def _mapping(parent: Any, key: str, path: Path) -> Any:
    if not isinstance(parent[key], dict):
        raise ConfigurationError(f"{path}: {key} is {parent[key]!r}, which is not a mapping; indent its keys below it.")
    return parent[key]


def _open(path: Path) -> tuple[YAML, Any]:
    """Return what reads and writes a file with its comments and its order, and the file."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    try:
        document: Any = yaml.load(path.read_text(encoding="utf-8")) if path.exists() else None
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(
            f"{path} cannot be added to ({' '.join(str(error).split())[:200]}); correct it first."
        ) from None
    return yaml, document if document is not None else {}


def _dumped(yaml: YAML, document: Any) -> str:
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
