"""Read a mirror's state in Azure DevOps: its repositories, its YAML file, its pipeline, its pull request."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import engine_api
from ..config.mirror import Mirror, SharedEngine
from ..errors import MirrorError
from .files import ENGINE_SUBJECT, FilePlace, read_place
from .pipeline import render, render_engine, written_for
from .rest.client import AzureDevOps
from .rest.objects import BranchPolicy, Definition, ProjectSettings, Repository
from .rest.organization import FoundPool
from .variables import AWS_ROLE, HELD_CREDENTIAL, variable_value

_ENGINE_PROPOSAL = "codecommit-mirror/engine"


@dataclass(frozen=True)
class EngineState:
    """The engine that mirrors share, as Azure DevOps has it."""

    azure: AzureDevOps = field(repr=False)
    """Its project."""
    place: FilePlace
    policies: tuple[BranchPolicy, ...] | None
    """Its branch's policies that keep a push away; None if the token may not see them."""

    @property
    def is_reviewed(self) -> bool | None:
        """Whether somebody else has to approve each change of it; None if that is not known."""
        return None if self.policies is None else any(policy.asks_others for policy in self.policies)


def read_engine(azure: AzureDevOps, shared: SharedEngine) -> EngineState:
    """Return what there is of the engine that mirrors share.

    Args:
        azure: the project of its repository.
        shared: where it is.

    Raises:
        MirrorError: the repository does not exist, or the token is refused.
    """
    repository = azure.repository(shared.repository_name)
    if shared.repository_id not in (None, repository.id):
        raise MirrorError(
            f"the repository {shared.repository!r} has the id {repository.id}, but engine.repository_id is "
            f"{shared.repository_id}: it is another repository; correct the section engine."
        )
    place = read_place(
        azure, repository, shared.branch, shared.path, _ENGINE_PROPOSAL, ENGINE_SUBJECT, expected=render_engine()
    )
    if not place.has_branch:
        raise MirrorError(f"{shared.repository!r} has no branch {shared.branch!r}; push one first, or correct engine.")
    return EngineState(azure, place, azure.blocking_policies(repository, shared.branch))


@dataclass(frozen=True)
class AzureState:
    """A mirror's state in Azure DevOps."""

    source: Repository
    yaml: FilePlace
    """In the source, or in a repository for pipelines, as mirrors.yaml says."""
    former_yaml: FilePlace | None
    """Where the pipeline still runs another file than that one, if the repository exists."""
    lfs: bool
    """Whether the source's default branch keeps files in Git LFS."""
    definition: Definition | None
    """The mirror's pipeline."""
    foreign_definitions: tuple[Definition, ...]
    """Other pipelines with the mirror's pipeline name, or that run a file at its path, if the mirror has none."""
    leftovers: tuple[Definition, ...] = field(default=(), kw_only=True)
    """Pipelines with the mark of one that was being created; many can read that, so none of them is the mirror's."""
    settings: ProjectSettings
    """The project's."""
    pool: FoundPool | None = field(default=None, kw_only=True)
    """The mirror's own agent pool, if it has one."""
    engine: EngineState | None = field(default=None, kw_only=True)
    """The engine that the mirror shares with others, if it does."""
    is_protected: bool = field(default=False, kw_only=True)
    """Whether policies keep a push of the YAML away, if it is to be changed."""

    @property
    def variables(self) -> dict[str, dict[str, object]]:
        """The pipeline's variables; empty if there is no pipeline."""
        return self.definition.variables if self.definition else {}


@dataclass(frozen=True)
class Remains:
    """What a mirror that is to be taken down has in Azure DevOps; its source may be gone."""

    definition: Definition | None
    places: tuple[FilePlace, ...]
    """Where its YAML is or may be: where mirrors.yaml says, and where the pipeline runs another file."""
    source_id: str | None = None
    """The id of the repository that has the source's name now; None if there is none, or it is not visible."""

    @property
    def variables(self) -> dict[str, dict[str, object]]:
        """The pipeline's variables; empty if there is no pipeline."""
        return self.definition.variables if self.definition else {}


def runs_file_at(definition: Definition, place: FilePlace) -> bool:
    """Whether a pipeline runs the file at a place."""
    return (definition.repository_id, definition.yaml_path) == (place.repository.id, place.path)


def pull_request_branch(mirror: Mirror) -> str:
    """Return the branch that this project's pull requests come from."""
    return f"codecommit-mirror/{mirror.stack_name}"


def read_state(
    mirror: Mirror, azure: AzureDevOps, recorded: int | None = None, pending: str = "", *, trusts_file: bool = True
) -> tuple[Mirror, AzureState]:
    """Return the mirror with its default branches resolved, and its state in Azure DevOps.

    Args:
        mirror: the mirror.
        azure: its project.
        recorded: the id of the mirror's pipeline, if it is recorded.
        pending: the mark of a pipeline that was being created.
        trusts_file: whether the YAML, and variables that anyone may write, show which pipeline is the mirror's if none
            is recorded; not where it is given a secret.

    Raises:
        MirrorError: a repository does not exist, or the token is refused.
    """
    source = azure.repository(mirror.azure.repository)
    own = mirror.azure.pipelines_repository
    yaml_repository = azure.repository(own) if own else source
    mirror = _with_id(resolve_default_branches(mirror, source, yaml_repository), source)
    place = _read_own_place(mirror, azure, yaml_repository, expected=(wanted := render(mirror)))
    definition, foreign = _find_definition(mirror, azure, place, recorded, trusts_file=trusts_file)
    leftovers = tuple(other for other in foreign if pending and other.body.get("description") == pending)
    foreign = tuple(other for other in foreign if other not in leftovers)
    policies = azure.blocking_policies(place.repository, place.branch) if place.text != wanted else None
    return mirror, AzureState(
        source=source,
        yaml=place,
        former_yaml=_read_former_place(mirror, azure, place, definition),
        lfs=uses_lfs(azure, source),
        definition=definition,
        foreign_definitions=foreign,
        leftovers=leftovers,
        settings=azure.settings,
        pool=azure.agent_pool(mirror.azure.agent_pool.name) if mirror.azure.agent_pool else None,
        is_protected=bool(policies),
    )


def read_remains(mirror: Mirror, azure: AzureDevOps, recorded: int | None = None) -> Remains | None:
    """Return what a mirror has in Azure DevOps, even if its source was deleted.

    Args:
        mirror: the mirror.
        azure: its project.
        recorded: the id of the mirror's pipeline, if it is recorded.

    Returns:
        None if neither the repository with the YAML nor a recorded pipeline exists.

    Raises:
        MirrorError: the token is refused.
    """
    yaml_repository = azure.find_repository(_yaml_repository_name(mirror))
    has_own = mirror.azure.pipelines_repository is not None
    source = azure.find_repository(mirror.azure.repository) if has_own else yaml_repository
    source_id = source.id if source else None
    if yaml_repository is None:
        definition = azure.find_definition(recorded) if recorded else None
        if definition:
            _check_recorded(mirror, definition, None)
        former = _read_former_place(mirror, azure, None, definition)
        return Remains(definition, (former,) if former else (), source_id) if definition else None
    resolved = resolve_default_branches(mirror, source, yaml_repository)
    place = _read_own_place(resolved, azure, yaml_repository)
    definition, _ = _find_definition(resolved, azure, place, recorded, trusts_file=True)
    former = _read_former_place(resolved, azure, place, definition)
    return Remains(definition, (place, former) if former else (place,), source_id)


def _read_own_place(
    mirror: Mirror, azure: AzureDevOps, repository: Repository, expected: str | None = None
) -> FilePlace:
    """Return the place of the mirror's YAML."""
    branch, path = mirror.azure.yaml_branch, mirror.pipeline_path
    return read_place(azure, repository, branch, path, pull_request_branch(mirror), expected=expected)


def _yaml_repository_name(mirror: Mirror) -> str:
    """Return the name of the repository that holds, or is to hold, the mirror's YAML."""
    return mirror.azure.pipelines_repository or mirror.azure.repository


def resolve_default_branches(mirror: Mirror, source: Repository | None, yaml_repository: Repository) -> Mirror:
    """Return the mirror with the repositories' own default branches, unless mirrors.yaml names others."""
    defaults = {
        "pipelines_branch": yaml_repository.default_branch,
        "default_branch": source.default_branch if source else None,
    }
    missing = {key: value for key, value in defaults.items() if value and key not in mirror.azure.model_fields_set}
    return mirror.model_copy(update={"azure": mirror.azure.model_copy(update=missing)})


def _with_id(mirror: Mirror, source: Repository) -> Mirror:
    """Return the mirror with its source's id.

    Raises:
        MirrorError: mirrors.yaml names another id.
    """
    if (named := mirror.azure.repository_id) and named != source.id:
        raise MirrorError(
            f"the repository {mirror.azure.repository!r} has the id {source.id}, but mirrors.yaml names {named}: it is "
            "another repository; correct azure.repository or azure.repository_id."
        )
    return mirror.model_copy(update={"azure": mirror.azure.model_copy(update={"repository_id": source.id})})


def uses_lfs(azure: AzureDevOps, source: Repository) -> bool:
    """Whether the .gitattributes of a repository's default branch names Git LFS."""
    # Most repositories have none, which a list of their files shows.
    text = azure.file(source, source.default_branch, ".gitattributes", "") if source.default_branch else None
    return text is not None and engine_api.names_lfs(text)


def _read_former_place(
    mirror: Mirror, azure: AzureDevOps, place: FilePlace | None, definition: Definition | None
) -> FilePlace | None:
    """Return where a pipeline runs another file than the one at a place, if that repository still exists."""
    if definition is None or (place and runs_file_at(definition, place)):
        return None
    repository = azure.find_repository(definition.repository_id)
    if repository is None:
        return None
    return read_place(azure, repository, definition.branch, definition.yaml_path, pull_request_branch(mirror))


def _find_definition(
    mirror: Mirror, azure: AzureDevOps, place: FilePlace, recorded: int | None, *, trusts_file: bool
) -> tuple[Definition | None, tuple[Definition, ...]]:
    """Return the mirror's pipeline, or those that are in the way of a new one."""
    if recorded and (definition := azure.find_definition(recorded)):
        _check_recorded(mirror, definition, place)
        return definition, ()
    texts = [text for text in (place.text, place.proposed_text) if text]
    file_is_ours = any(written_for(text) == mirror.name for text in texts)
    at_path = azure.definitions_of(place.repository, place.path)
    ours = [d for d in at_path if trusts_file and (file_is_ours or _is_marked_for(mirror, d))]
    # Of several, or of one that was disabled or has another name, the file does not show whose it is.
    if len(ours) == 1 and ours[0].is_enabled and ours[0].name == mirror.pipeline_name:
        return ours[0], ()
    similar = {definition.id: definition for definition in [*at_path, *azure.definitions_named(mirror.pipeline_name)]}
    return None, tuple(similar.values())


def _check_recorded(mirror: Mirror, definition: Definition, place: FilePlace | None) -> None:
    """Refuse a recorded pipeline that has nothing of the mirror's: whoever may tag its writer can record any other.

    Raises:
        MirrorError: it has neither the name nor the file of the mirror's pipeline.
    """
    if definition.name != mirror.pipeline_name and not (place and runs_file_at(definition, place)):
        raise MirrorError(
            f"the tags of {mirror.writer.replace('/', ' ')!r} record pipeline {definition.id}, {definition.name!r}, "
            f"which runs {definition.yaml_path!r} and has neither the name nor the file of this mirror's: if you "
            f"renamed it, call it {mirror.pipeline_name!r} again; if not, look for who changed the tags in "
            "CloudTrail, and remove the tag codecommit-mirror:pipeline."
        )


def _is_marked_for(mirror: Mirror, definition: Definition) -> bool:
    url = variable_value(definition.variables, "AWS_REPO_URL")
    ours = {HELD_CREDENTIAL, AWS_ROLE} & definition.variables.keys()
    return bool(ours) and url.endswith(f"/{mirror.name}")
