"""Read a mirror's state in Azure DevOps: its repositories, its YAML file, its pipeline, its pull request."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import engine
from ..config.mirror import Mirror
from ..errors import AzureError
from .client import AzureDevOps, Definition, PullRequest, Repository
from .pipeline import written_for
from .variables import AWS_ROLE, HELD_CREDENTIAL, variable_value

COMMIT_SUBJECT = "the pipeline that mirrors to CodeCommit"
"""What the comment of every commit of this project says."""


@dataclass(frozen=True)
class AzureState:
    """A mirror's state in Azure DevOps."""

    source: Repository
    yaml_repository: Repository
    """The repository that holds the YAML: the source, or a repository for pipelines."""
    branch: str
    """The branch that holds the YAML."""
    tip: str | None
    """That branch's newest commit; None if there is no such branch."""
    text: str | None
    """The YAML file on that branch."""
    lfs: bool
    """Whether the source's default branch keeps files in Git LFS."""
    pull_request: PullRequest | None
    """The open pull request that brings the YAML in or out."""
    proposed_tip: str | None
    """The newest commit of the branch that such pull requests come from."""
    proposed_text: str | None
    """The YAML file on that branch."""
    proposed_by_us: bool
    """Whether that branch's newest commit was made by this project, so that the branch may be deleted."""
    definition: Definition | None
    """The mirror's pipeline."""
    foreign_definitions: tuple[Definition, ...]
    """Other pipelines with the mirror's pipeline name, or that run a file at its path."""
    protected: bool | None
    """Whether the project protects access to repositories; None if that is unknown or irrelevant."""

    @property
    def variables(self) -> dict[str, dict[str, object]]:
        """The pipeline's variables; empty if there is no pipeline."""
        return self.definition.variables if self.definition else {}

    def file_is_ours(self, mirror: Mirror) -> bool:
        """Whether the YAML file was rendered for this mirror."""
        return self.text is not None and written_for(self.text) == mirror.name


def pull_request_branch(mirror: Mirror) -> str:
    """Return the branch that this project's pull requests come from."""
    return f"codecommit-mirror/{mirror.stack_name}"


def read_state(mirror: Mirror, azure: AzureDevOps) -> tuple[Mirror, AzureState]:
    """Return the mirror with its default branches resolved, and its state in Azure DevOps.

    Raises:
        MirrorError: a repository does not exist, or the token is refused.
    """
    source = azure.repository(mirror.azure.repository)
    yaml_repository = find_yaml_repository(mirror, azure) if mirror.azure.pipelines_repository else source
    mirror = resolve_default_branches(mirror, source, yaml_repository)
    state = _read(mirror, azure, source, yaml_repository)
    return mirror, replace(state, lfs=uses_lfs(azure, source))


def read_state_without_source(mirror: Mirror, azure: AzureDevOps) -> AzureState | None:
    """Return the state for taking a mirror down, even if its source was deleted.

    Returns:
        None if the repository with the YAML does not exist.

    Raises:
        MirrorError: the token is refused.
    """
    try:
        yaml_repository = find_yaml_repository(mirror, azure)
    except AzureError as error:
        if error.status != 404:
            raise
        return None
    source = None if mirror.azure.pipelines_repository else yaml_repository
    resolved = resolve_default_branches(mirror, source, yaml_repository)
    return _read(resolved, azure, source or yaml_repository, yaml_repository)


def find_yaml_repository(mirror: Mirror, azure: AzureDevOps) -> Repository:
    """Return the repository that holds, or is to hold, the mirror's YAML."""
    return azure.repository(mirror.azure.pipelines_repository or mirror.azure.repository)


def resolve_default_branches(mirror: Mirror, source: Repository | None, yaml_repository: Repository) -> Mirror:
    """Return the mirror with the repositories' own default branches, unless mirrors.yaml names others."""
    found = {
        "pipelines_branch": yaml_repository.default_branch,
        "default_branch": source.default_branch if source else None,
    }
    known = {key: value for key, value in found.items() if value and key not in mirror.azure.model_fields_set}
    return mirror.model_copy(update={"azure": mirror.azure.model_copy(update=known)})


def uses_lfs(azure: AzureDevOps, source: Repository) -> bool:
    """Whether the .gitattributes of a repository's default branch names Git LFS."""
    text = azure.file(source, source.default_branch, ".gitattributes") if source.default_branch else None
    return text is not None and engine.names_lfs(text)


def _read(mirror: Mirror, azure: AzureDevOps, source: Repository, yaml_repository: Repository) -> AzureState:
    branch, path = mirror.azure.yaml_branch, mirror.pipeline_path
    proposed = pull_request_branch(mirror)
    proposed_tip = azure.tip(yaml_repository, proposed)
    tip = azure.tip(yaml_repository, branch)
    text = azure.file(yaml_repository, branch, path) if tip else None
    proposed_text = azure.file(yaml_repository, proposed, path) if proposed_tip else None
    file_is_ours = any(one and written_for(one) == mirror.name for one in (text, proposed_text))
    at_path = azure.definitions_of(yaml_repository, path)
    ours = [d for d in at_path if file_is_ours or _is_marked_for(mirror, d)]
    similar = {d.id: d for d in azure.find_definitions(at_path, name=mirror.pipeline_name)}
    return AzureState(
        source=source,
        yaml_repository=yaml_repository,
        branch=branch,
        tip=tip,
        text=text,
        lfs=False,
        pull_request=azure.pull_request(yaml_repository, proposed) if proposed_tip else None,
        proposed_tip=proposed_tip,
        proposed_text=proposed_text,
        proposed_by_us=proposed_tip is not None
        and (proposed_tip == tip or COMMIT_SUBJECT in azure.commit_comment(yaml_repository, proposed_tip)),
        definition=min(ours, key=lambda d: d.id) if ours else None,
        foreign_definitions=tuple(d for d in similar.values() if d not in ours),
        protected=azure.protects_repositories() if mirror.source_auth == "job-token" else None,
    )


def _is_marked_for(mirror: Mirror, definition: Definition) -> bool:
    url = variable_value(definition.variables, "AWS_REPO_URL")
    ours = {HELD_CREDENTIAL, AWS_ROLE} & definition.variables.keys()
    return bool(ours) and url.endswith(f"/{mirror.name}")
