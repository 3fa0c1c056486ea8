"""Connect a mirror's pipeline in Azure DevOps, or disconnect it: planned from its state, then applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..actions import Action
from ..config.mirror import Mirror
from ..errors import AzureError, MirrorError
from ..progress import say
from .client import AzureDevOps, Definition, FileChange
from .pipeline import render, written_for
from .state import COMMIT_SUBJECT, AzureState, pull_request_branch
from .variables import (
    AWS_ROLE,
    AZURE_SECRETS,
    HELD_CREDENTIAL,
    HeldCredential,
    PipelineVariable,
    held_credential,
    plain_variable,
    secret_variable,
    variable_value,
    wanted_variables,
)

_SKIP_CI = "[skip ci]"
"""Keeps the commit from starting a run: the variables may not be set yet."""
_NO_PUSH = "TF402455"
"""Azure's message number for a push that a branch policy refuses."""
_LEASES_PER_REQUEST = 100
_TRIES = 5
_CONFLICT = 409
LFS_NOTE = "the source uses Git LFS: its large files are not in the replica, only the pointers to them"


@dataclass(frozen=True)
class ConnectionPlan:
    """What is to be done, in this order: definition, authorization, validation of the YAML, commit."""

    body: dict[str, Any]
    """The definition as it should be."""
    yaml: str
    commit: bool
    """Whether the YAML is to be committed."""
    actions: tuple[Action, ...]
    """Empty if there is nothing to do."""


def wrong_replica(state: AzureState, region: str, account: str) -> str | None:
    """Return a sentence if the pipeline mirrors to another region or account than these."""
    definition = state.definition
    if definition is None:
        return None
    url = variable_value(definition.variables, "AWS_REPO_URL")
    if "git-codecommit" in url and f".{region}." not in url:
        return (
            f"the pipeline {definition.name!r} mirrors to {url}, which is not in region {region}; set region: in "
            "mirrors.yaml, or AWS_REGION."
        )
    role = variable_value(definition.variables, AWS_ROLE).split(":")
    recorded = held_credential(definition.variables).account or (role[4] if len(role) > 5 else None)
    if recorded and recorded != account:
        return (
            f"the pipeline {definition.name!r} mirrors to account {recorded}, but the AWS credentials are for "
            f"{account}; use an AWS profile for the mirror's account."
        )
    return None


def find_problems(mirror: Mirror, state: AzureState) -> list[str]:
    """Return what prevents the mirror from being connected, one sentence each."""
    return [
        *_repository_problems(mirror, state),
        *_file_problems(mirror, state),
        *_pipeline_problems(mirror, state),
    ]


def _repository_problems(mirror: Mirror, state: AzureState) -> list[str]:
    problems = []
    yaml_repository = state.yaml_repository
    if state.source.default_branch is None:
        problems.append(f"the repository {state.source.name!r} has no commit yet; push one first.")
    if yaml_repository is not state.source and yaml_repository.default_branch is None:
        problems.append(f"the repository {yaml_repository.name!r} has no commit yet; push one first.")
    elif state.tip is None and yaml_repository.default_branch:
        key = "azure.pipelines_branch" if mirror.azure.pipelines_repository else "azure.default_branch"
        problems.append(
            f"{yaml_repository.name!r} has no branch {state.branch!r}; correct {key} (its default branch is "
            f"{yaml_repository.default_branch!r})."
        )
    return problems


def _file_problems(mirror: Mirror, state: AzureState) -> list[str]:
    problems = []
    if state.text is not None and (owner := written_for(state.text)) != mirror.name:
        whose = f"belongs to the mirror {owner!r}" if owner else "was not written by codecommit-mirror"
        problems.append(
            f"{mirror.pipeline_path!r} on {state.branch!r} of {state.yaml_repository.name!r} {whose} and is not "
            "overwritten; set azure.pipeline_path to another path."
        )
    if state.proposed_tip and not state.proposed_by_us:
        problems.append(
            f"the branch {pull_request_branch(mirror)!r} of {state.yaml_repository.name!r} has somebody else's "
            "commits; delete or rename it."
        )
    return problems


def _pipeline_problems(mirror: Mirror, state: AzureState) -> list[str]:
    problems = []
    if state.definition is None:
        problems += [
            f"there is already a pipeline {other.name!r}, which runs {other.yaml_path!r}; rename or delete it, or set "
            "azure.pipeline_path to another path."
            for other in state.foreign_definitions
        ]
    if state.protected and not mirror.azure.pipelines_repository:
        problems.append(
            "the project setting 'Protect access to repositories in YAML pipelines' keeps the job token from reading "
            "a repository that the pipeline does not check out; turn it off (Project settings, Pipelines, Settings), "
            "keep the YAML in an azure.pipelines_repository, or use source_auth: pat."
        )
    return problems


def notes(mirror: Mirror, state: AzureState) -> list[str]:
    """Return what a user should know although it prevents nothing."""
    result = [LFS_NOTE] if state.lfs else []
    if mirror.source_auth == "job-token" and state.protected is None:
        result.append(
            "the project setting 'Protect access to repositories in YAML pipelines' was not checked, since the token "
            "lacks the scope Project and team (read); that setting can keep the job token from reading the source."
        )
    return result


def plan(
    mirror: Mirror,
    state: AzureState,
    replica_url: str,
    secrets: Mapping[str, str],
    *,
    pull_request: bool,
    role_arn: str | None = None,
) -> ConnectionPlan:
    """Decide how to connect the mirror.

    Args:
        mirror: the mirror.
        state: its state in Azure DevOps.
        replica_url: the stack output ``ReplicaUrl``.
        secrets: values of secret variables to set; all others are kept.
        pull_request: whether a pull request brings the YAML in.
        role_arn: the stack output ``PushRoleArn``, if there is one.
    """
    yaml = render(mirror)
    changes = _variable_changes(mirror, state, wanted_variables(mirror, replica_url, role_arn), secrets)
    existing = state.definition.body if state.definition else None
    body = _definition_body(mirror, state, changes)
    actions = []
    if existing is None:
        actions.append(Action("create", f"pipeline {mirror.pipeline_name!r} in {mirror.azure.project!r}"))
        if state.yaml_repository is not state.source:
            actions.append(Action("create", f"permission of the pipeline to use {state.source.name!r}"))
    elif changed := [key for key in ("repository", "queueStatus", "triggers") if body.get(key) != existing.get(key)]:
        actions.append(Action("update", f"{', '.join(changed)} of the pipeline {existing['name']!r}"))
    # The record of the held credential is internal.
    actions += [_variable_action(name, change, state) for name, change in changes.items() if name != HELD_CREDENTIAL]
    commit = state.text != yaml and not (pull_request and state.pull_request and state.proposed_text == yaml)
    if commit:
        way = f" by a pull request from {pull_request_branch(mirror)!r}" if pull_request else ""
        where = f"{mirror.pipeline_path!r} on {state.branch!r} of {state.yaml_repository.name!r}{way}"
        size = f"{len(yaml.encode()):,} bytes"
        before = None if state.text is None else f"{len(state.text.encode()):,} bytes"
        actions.append(Action("update" if before else "create", f"YAML {where}", before, size))
    return ConnectionPlan(body, yaml, commit, tuple(actions))


def _variable_action(name: str, change: Mapping[str, Any] | None, state: AzureState) -> Action:
    current = state.variables.get(name)
    secret = bool((change or current or {}).get("isSecret"))
    before = str(current.get("value")) if current and not current.get("isSecret") and not secret else None
    what = f"{'secret ' if secret else ''}variable {name}"
    if change is None:
        return Action("delete", what, before)
    return Action("update" if current else "create", what, before, None if secret else str(change["value"]))


def _variable_changes(
    mirror: Mirror, state: AzureState, variables: Sequence[PipelineVariable], secrets: Mapping[str, str]
) -> dict[str, Mapping[str, Any] | None]:
    """Return the variables that must change; None removes one.

    What a pipeline needs to act as a user stays while it changes to a role, and the other way round.
    """
    existing = state.variables
    changes: dict[str, Mapping[str, Any] | None] = {}
    wanted = {variable.name: variable for variable in variables}
    for name, variable in wanted.items():
        current = existing.get(name)
        if not variable.secret:
            if current is None or current.get("isSecret") or current.get("value") != variable.value:
                changes[name] = plain_variable(str(variable.value))
        elif name in secrets:
            changes[name] = secret_variable(secrets[name])
        elif current is not None and not current.get("isSecret"):
            # It was entered as a plain variable.
            changes[name] = secret_variable(str(current.get("value") or ""))
    for name in AZURE_SECRETS:
        if name in existing and name not in wanted:
            changes[name] = None
    if HELD_CREDENTIAL not in existing and mirror.replica_auth == "user":
        changes[HELD_CREDENTIAL] = plain_variable(HeldCredential().to_json())
    return changes


def _definition_body(
    mirror: Mirror, state: AzureState, changes: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Any]:
    """Return the definition as it should be, and enabled; whatever else was set on an existing one is kept."""
    base: Mapping[str, Any] = (state.definition.body if state.definition else None) or {
        "name": mirror.pipeline_name,
        "path": "\\",
        "type": "build",
        "quality": "definition",
        "process": {"type": 2, "yamlFilename": mirror.pipeline_path},
        # Where jobs run that name no pool; each of ours names one.
        "queue": {"name": "Azure Pipelines", "pool": {"name": "Azure Pipelines"}},
        "triggers": [],
    }
    from_yaml = {"triggerType": "continuousIntegration", "settingsSourceType": 2}
    triggers = list(base.get("triggers") or [])
    if not any(from_yaml.items() <= trigger.items() for trigger in triggers):
        triggers = [t for t in triggers if t.get("triggerType") != "continuousIntegration"] + [from_yaml]
    repository = {
        **(base.get("repository") or {}),
        "id": state.yaml_repository.id,
        "name": state.yaml_repository.name,
        "type": "TfsGit",
        "defaultBranch": f"refs/heads/{state.branch}",
    }
    variables = {name: value for name, value in (base.get("variables") or {}).items() if name not in changes}
    variables.update({name: dict(value) for name, value in changes.items() if value is not None})
    return {**base, "queueStatus": "enabled", "repository": repository, "triggers": triggers, "variables": variables}


def define(azure: AzureDevOps, state: AzureState, plan: ConnectionPlan) -> Definition:
    """Create or update the pipeline as planned, and let the service check the YAML that is to be committed.

    Raises:
        MirrorError: the service refuses; what was done stays, and running again resumes from there.
    """
    definition = state.definition
    if definition is None:
        definition = azure.create_definition(plan.body)
        say(f"created the pipeline {definition.name!r}")
    elif plan.body != definition.body:
        definition = azure.update_definition(definition, plan.body)
        say(f"updated the pipeline {definition.name!r}")
    if state.yaml_repository is not state.source:
        azure.authorize_repository(definition, state.source)
    if plan.commit:
        try:
            azure.validate(definition, plan.yaml, state.branch)
        except AzureError:
            if state.definition is None:
                azure.delete_definition(definition)
            raise
    return definition


def yaml_change(mirror: Mirror, state: AzureState, text: str | None) -> FileChange:
    """Return the change that gives the branch of the YAML this text, or removes the file."""
    return FileChange(mirror.pipeline_path, text, state.text is not None)


@dataclass(frozen=True)
class YamlFile:
    """A mirror's YAML that is to be committed."""

    azure: AzureDevOps
    mirror: Mirror
    state: AzureState
    change: FileChange


def by_branch(files: Mapping[str, YamlFile]) -> dict[str, dict[str, YamlFile]]:
    """Return the files of each branch by mirror, each group by the name of its first mirror."""
    groups: dict[tuple[str, str, str], dict[str, YamlFile]] = {}
    for name, file in files.items():
        place = (file.azure.project, file.state.yaml_repository.id, file.state.branch)
        groups.setdefault(place, {})[name] = file
    return {next(iter(group)): group for group in groups.values()}


def commit_group(files: Sequence[YamlFile]) -> None:
    """Make one commit of all files of one branch; if the branch moves meanwhile, it is read again.

    Raises:
        MirrorError: policies forbid a push, or the branch moves all the time.
    """
    azure, state = files[0].azure, files[0].state
    changes = [file.change for file in files]
    for _ in range(_TRIES):
        try:
            _commit_yaml(azure, state, changes)
        except AzureError as error:
            if error.status != _CONFLICT:
                raise
            tip = azure.tip(state.yaml_repository, state.branch)
            texts = [azure.file(state.yaml_repository, state.branch, change.path) for change in changes]
            _check_owners(files, texts)
            state = replace(state, tip=tip)
            changes = [replace(c, exists=text is not None) for c, text in zip(changes, texts, strict=True)]
            continue
        return
    raise MirrorError(f"the branch {state.branch!r} is being changed by something else; run this again later.")


def _check_owners(files: Sequence[YamlFile], texts: Sequence[str | None]) -> None:
    """Refuse to overwrite what came to the mirrors' paths since they were read."""
    for file, text in zip(files, texts, strict=True):
        if text is not None and written_for(text) != file.mirror.name:
            raise MirrorError(f"{file.change.path!r} was changed by something else meanwhile; run this again.")


def _commit_yaml(azure: AzureDevOps, state: AzureState, changes: Sequence[FileChange]) -> None:
    repository, branch = state.yaml_repository, state.branch
    try:
        azure.commit_files(repository, branch, str(state.tip), changes, f"{_comment(changes)} {_SKIP_CI}")
    except AzureError as error:
        if _NO_PUSH not in str(error):
            raise
        raise MirrorError(
            f"policies of the branch {branch!r} of {repository.name!r} forbid a push; run again with "
            "--pull-request, or keep the YAML in an azure.pipelines_repository."
        ) from None
    for change in changes:
        done = "removed" if change.text is None else "updated" if change.exists else "added"
        say(f"{done} {change.path!r} on {branch!r} of {repository.name!r}")


def _comment(changes: Sequence[FileChange]) -> str:
    removed = all(change.text is None for change in changes)
    verb = "Remove" if removed else "Update" if any(change.exists for change in changes) else "Add"
    return f"{verb} {COMMIT_SUBJECT}"


def run_branch(mirror: Mirror, state: AzureState) -> str:
    """Return the branch to run the pipeline on: the one with the YAML, or that of an open pull request."""
    if state.text is None and state.proposed_text is not None:
        return pull_request_branch(mirror)
    return state.branch


def disconnect(mirror: Mirror, azure: AzureDevOps, state: AzureState, *, pull_request: bool) -> FileChange | None:
    """Delete the pipeline with the leases that retain its runs, and what brings its YAML in.

    Returns:
        The removal of the YAML that is still to be committed, if any.
    """
    if state.definition:
        leases = azure.leases(state.definition)
        for start in range(0, len(leases), _LEASES_PER_REQUEST):
            azure.delete_leases(leases[start : start + _LEASES_PER_REQUEST])
        azure.delete_definition(state.definition)
        say(f"deleted the pipeline {state.definition.name!r}, its runs and its variables")
    ours = state.file_is_ours(mirror)
    if state.proposed_tip and not state.proposed_by_us:
        say(f"left the branch {pull_request_branch(mirror)!r} alone, because it has somebody else's commits")
    elif state.proposed_tip and not (ours and pull_request):
        if state.pull_request:
            azure.abandon_pull_request(state.yaml_repository, state.pull_request)
        azure.set_branch(state.yaml_repository, pull_request_branch(mirror), old=state.proposed_tip, new=None)
        say(f"deleted the branch {pull_request_branch(mirror)!r}")
    if ours:
        return yaml_change(mirror, state, None)
    if state.text is not None:
        say(f"left {mirror.pipeline_path!r} alone, because it does not belong to this mirror")
    if not (state.definition or state.proposed_tip):
        say("nothing to disconnect: the pipeline is already gone")
    return None


def propose_yaml(mirror: Mirror, azure: AzureDevOps, state: AzureState, change: FileChange) -> None:
    """Commit to the branch of a pull request, and open one unless it is open already."""
    repository, branch, base = state.yaml_repository, pull_request_branch(mirror), str(state.tip)
    comment = _comment([change])
    tip, exists = state.proposed_tip, state.proposed_text is not None
    if tip and not state.pull_request:
        # Left by a pull request that was merged, or by a command that was killed before it opened one.
        azure.set_branch(repository, branch, old=tip, new=None)
        tip = None
    if tip is None:
        azure.set_branch(repository, branch, old=None, new=base)
        tip, exists = base, state.text is not None
    if tip == base or state.proposed_text != change.text:
        proposed = FileChange(change.path, change.text, exists)
        azure.commit_files(repository, branch, tip, [proposed], f"{comment} {_SKIP_CI}")
    opened = state.pull_request or azure.open_pull_request(
        repository, branch, state.branch, comment, "Created by codecommit-mirror; it contains no secret."
    )
    say(f"pull request {opened.id} into {state.branch!r} of {repository.name!r} is waiting to be merged")
