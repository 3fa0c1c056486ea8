"""Connect a mirror's pipeline in Azure DevOps, or disconnect it: planned from its state, then applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..actions import Action
from ..config.mirror import Mirror
from ..engine_api import VERSION
from ..errors import AzureError
from ..progress import say
from .definition import definition_body, variable_changes
from .files import ENGINE, FilePlace, PlannedFile
from .pipeline import render, written_by_newer, written_for
from .rest.client import AzureDevOps
from .rest.objects import Definition, Repository
from .rest.organization import pool_problems
from .state import AzureState, Remains, pull_request_branch, runs_file_at
from .variables import (
    AWS_ROLE,
    HELD_CREDENTIAL,
    held_credential,
    variable_value,
    wanted_variables,
)

_LEASES_PER_REQUEST = 100
_OURS = ("repository", "process", "queueStatus", "triggers", "variableGroups")
"""What a definition has beside variables that is ours to decide."""
LFS_NOTE = "the source uses Git LFS: its large files are not in the replica, only the pointers to them"


@dataclass(frozen=True)
class ConnectionPlan:
    """What is to be done, in this order: definition, authorization, validation of the YAML, commits, move."""

    body: dict[str, Any]
    """The definition as it should be, where the pipeline stays until its YAML has moved."""
    yaml: str
    commit: bool
    """Whether the YAML is to be committed."""
    leaves: FilePlace | None
    """Where the file is that the pipeline ran before, if it is to be removed after that."""
    moves: bool
    """Whether the pipeline runs another file once both are done, so that it is planned again."""
    actions: tuple[Action, ...]
    """Empty if there is nothing to do."""


@dataclass(frozen=True)
class Allowed:
    """What a person has allowed."""

    replace_pipeline: bool = False
    """Pipelines that are in the way may be disabled."""
    settable_variables: bool = False
    """The project may let anyone who queues a run set its variables."""


def wrong_replica(definition: Definition | None, region: str, account: str) -> str | None:
    """Return a sentence if a pipeline mirrors to another region or account than these."""
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


def find_problems(mirror: Mirror, state: AzureState, allowed: Allowed) -> list[str]:
    """Return what prevents the mirror from being connected, one sentence each."""
    return [
        *_repository_problems(mirror, state),
        *_file_problems(mirror, state),
        *_pipeline_problems(mirror, state, allowed),
        *pool_problems(mirror, state.pool),
    ]


def _repository_problems(mirror: Mirror, state: AzureState) -> list[str]:
    problems = []
    yaml_repository = state.yaml.repository
    if state.source.default_branch is None:
        problems.append(f"the repository {state.source.name!r} has no commit yet; push one first.")
    if yaml_repository is not state.source and yaml_repository.default_branch is None:
        problems.append(f"the repository {yaml_repository.name!r} has no commit yet; push one first.")
    elif not state.yaml.has_branch and yaml_repository.default_branch:
        key = "azure.pipelines_branch" if mirror.azure.pipelines_repository else "azure.default_branch"
        problems.append(
            f"{yaml_repository.name!r} has no branch {state.yaml.branch!r}; correct {key} (its default branch is "
            f"{yaml_repository.default_branch!r})."
        )
    return problems


def _file_problems(mirror: Mirror, state: AzureState) -> list[str]:
    problems, place = [], state.yaml
    files = (place, *([state.engine.place] if state.engine else []))
    for file in files:
        if file.text is not None and (why := written_by_newer(file.text)):
            problems.append(
                f"{file} {why}, which a newer codecommit-mirror wrote, and this is {VERSION}; install that version."
            )
    if state.engine and state.engine.place.text and not state.engine.place.has_file_of(ENGINE):
        problems.append(f"{state.engine.place} was not written by codecommit-mirror; set engine.path to another path.")
    if place.text is not None and (owner := written_for(place.text)) != mirror.name:
        whose = f"belongs to the mirror {owner!r}" if owner else "was not written by codecommit-mirror"
        problems.append(f"{place} {whose} and will not be overwritten; set azure.pipeline_path to another path.")
    problems += [
        f"the branch {file.proposal!r} of {file.repository.name!r} has commits by someone else; delete or rename it."
        for file in files
        if file.proposed_tip and not file.proposed_by_us
    ]
    return problems


def author(definition: Definition) -> str:
    """Return who last saved a definition."""
    identity = definition.body.get("authoredBy") or {}
    return str(identity.get("displayName") or "an unknown person")


def _pipeline_problems(mirror: Mirror, state: AzureState, allowed: Allowed) -> list[str]:
    problems = []
    if state.definition is None:
        problems += [
            f"there is already a pipeline {other.name!r}, which runs {other.yaml_path!r}, was last saved by "
            f"{author(other)}, and is not recorded as this mirror's; its creator can always change it, so it gets no "
            f"secret: delete it, or run 'codecommit-mirror up {mirror.name} --replace-pipeline', which disables it and "
            "creates another one."
            for other in state.foreign_definitions
            if not allowed.replace_pipeline
        ]
    if not state.settings.limits_variables and not allowed.settable_variables:
        is_seen = state.settings.limits_variables is not None
        how = "is off" if is_seen else "cannot be seen, since the token lacks the scope Project and team (read)"
        remedy = "turn it on (Project settings, Pipelines, Settings)" if is_seen else "add that scope to the token"
        problems.append(
            f"the project setting 'Limit variables that can be set at queue time' {how}: where it is off, anyone who "
            "may queue a run sets the environment of whatever holds the passwords or the role; "
            f"{remedy}, or accept it with --accept-settable-variables."
        )
    is_protected = state.settings.protects_repositories and mirror.source_auth == "job-token"
    if is_protected and not mirror.azure.pipelines_repository:
        problems.append(
            "the project setting 'Protect access to repositories in YAML pipelines' keeps the job token from reading "
            "a repository that the pipeline does not check out; turn it off (Project settings, Pipelines, Settings), "
            "keep the YAML in an azure.pipelines_repository, or use source_auth: pat."
        )
    return problems


def notes(mirror: Mirror, state: AzureState) -> list[str]:
    """Return what a user should know although it prevents nothing."""
    result = [LFS_NOTE] if state.lfs else []
    if state.settings.limits_variables is None and mirror.source_auth == "job-token":
        result.append(
            "the project's settings were not checked, since the token lacks the scope Project and team (read): "
            "'Protect access to repositories in YAML pipelines' must be off."
        )
    stored = [v.name for v in wanted_variables(mirror, "") if v.secret and v.name not in state.variables]
    if stored and not mirror.azure.pipelines_repository:
        result.append(
            f"anyone who may push a branch to {mirror.azure.repository!r} can change the YAML there, and so read the "
            "passwords that the pipeline stores: keep the YAML in an azure.pipelines_repository, or store none with "
            "source_auth: job-token and replica_auth: role."
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
    changes = variable_changes(mirror, state, wanted_variables(mirror, replica_url, role_arn), secrets)
    existing = state.definition
    actions = [] if existing else _creation_actions(mirror, state)
    # The record of the held credential is internal.
    actions += [_variable_action(name, change, state) for name, change in changes.items() if name != HELD_CREDENTIAL]
    place, former = state.yaml, state.former_yaml
    proposed = pull_request and place.pull_request is not None and place.proposed_text == yaml
    commit = place.text != yaml and not proposed
    if commit:
        actions.append(_yaml_action(mirror, place, yaml, pull_request))
    is_elsewhere = existing is not None and not runs_file_at(existing, place)
    # Until a pull request is merged, the pipeline goes on where it is.
    moves = is_elsewhere and (place.text == yaml or not pull_request)
    removal_is_proposed = pull_request and former and former.pull_request and former.proposed_text is None
    leaves = former if moves and former and former.has_file_of(mirror.name) and not removal_is_proposed else None
    if leaves:
        actions.append(_yaml_action(mirror, leaves, None, pull_request))
    if moves and existing:
        before = str(former) if former else "a repository that is gone"
        actions.append(Action("update", f"location of the YAML of the pipeline {existing.name!r}", before, str(place)))
    waits = is_elsewhere and (commit or leaves is not None or not moves)
    body = definition_body(mirror, state, changes, stays=waits)
    if existing and (changed := [key for key in _OURS if body.get(key) != existing.body.get(key)]) and not moves:
        actions.insert(0, Action("update", f"{', '.join(changed)} of the pipeline {existing.name!r}"))
    return ConnectionPlan(body, yaml, commit, leaves, moves and waits, tuple(actions))


def _creation_actions(mirror: Mirror, state: AzureState) -> list[Action]:
    """Return what it takes to create the pipeline, where others may be in the way."""
    removed = [
        Action("delete", f"pipeline {other.name!r}, which has the mark of one that was being created")
        for other in state.leftovers
    ]
    disabled = [
        Action("update", f"pipeline {other.name!r}, which gets another name", "enabled", "disabled")
        for other in state.foreign_definitions
    ]
    created = [Action("create", f"pipeline {mirror.pipeline_name!r} in {mirror.azure.project!r}")]
    created += [
        Action("create", f"permission for the pipeline to use {repository.name!r}") for repository in used(state)
    ]
    return [*removed, *disabled, *created]


def used(state: AzureState) -> list[Repository]:
    """Return the repositories that a pipeline uses beside that of its YAML."""
    own = state.yaml.repository
    engine = [state.engine.place.repository] if state.engine else []
    return list({other.id: other for other in (state.source, *engine) if other.id != own.id}.values())


def _yaml_action(mirror: Mirror, place: FilePlace, text: str | None, pull_request: bool) -> Action:
    """Return what is done to a file; None removes it."""
    way = f" by a pull request from {pull_request_branch(mirror)!r}" if pull_request else ""
    before, after = (None if yaml is None else f"{len(yaml.encode()):,} bytes" for yaml in (place.text, text))
    if after is None:
        return Action("delete", f"YAML {place}{way}", before)
    return Action("update" if before else "create", f"YAML {place}{way}", before, after)


def _variable_action(name: str, change: Mapping[str, Any] | None, state: AzureState) -> Action:
    current = state.variables.get(name)
    secret = bool((change or current or {}).get("isSecret"))
    before = str(current.get("value")) if current and not current.get("isSecret") and not secret else None
    subject = f"{'secret ' if secret else ''}variable {name}"
    if change is None:
        return Action("delete", subject, before)
    return Action("update" if current else "create", subject, before, None if secret else str(change["value"]))


def define(azure: AzureDevOps, state: AzureState, plan: ConnectionPlan, announce: Callable[[], str]) -> Definition:
    """Create or update the pipeline as planned, and let the service check the YAML that is to be committed.

    Args:
        azure: the project.
        state: its state.
        plan: what to do.
        announce: records that a pipeline is being created, and returns its mark.

    Raises:
        MirrorError: the service refuses; what was done stays, and running again resumes from there.
    """
    definition = state.definition
    if definition is None:
        for other in state.leftovers:
            azure.delete_definition(other)
            say(f"deleted the pipeline {other.name!r}, which had the mark of one that was being created")
        for other in state.foreign_definitions:
            name = f"{other.name}-replaced-{other.id}"
            azure.update_definition(other, {**other.body, "name": name, "queueStatus": "disabled"})
            say(f"disabled the pipeline {other.name!r}, which is now called {name!r}")
        definition = azure.create_definition({**plan.body, "description": announce()})
        say(f"created the pipeline {definition.name!r}")
    elif plan.body != definition.body:
        definition = azure.update_definition(definition, plan.body)
        say(f"updated the pipeline {definition.name!r}")
    for repository in used(state):
        azure.authorize_repository(definition, repository, state.yaml.repository.project_id)
    if plan.commit:
        try:
            azure.validate(definition, plan.yaml, definition.branch)
        except AzureError:
            if state.definition is None:
                azure.delete_definition(definition)
            raise
    return definition


def run_branch(mirror: Mirror, state: AzureState) -> str:
    """Return the branch to run the pipeline on: the one with the YAML, or that of an open pull request."""
    if state.former_yaml:
        return state.former_yaml.branch
    if state.yaml.text is None and state.yaml.proposed_text is not None:
        return pull_request_branch(mirror)
    return state.yaml.branch


def disconnect(mirror: Mirror, azure: AzureDevOps, remains: Remains, *, pull_request: bool) -> list[PlannedFile]:
    """Delete the pipeline with the leases that retain its runs, and what brings its YAML in.

    Returns:
        The files that are still to be removed.
    """
    definition = remains.definition
    if definition:
        leases = azure.leases(definition)
        for start in range(0, len(leases), _LEASES_PER_REQUEST):
            azure.delete_leases(leases[start : start + _LEASES_PER_REQUEST])
        azure.delete_definition(definition)
        say(f"deleted the pipeline {definition.name!r}, its runs and its variables")
    for repository_places in _by_repository(remains.places):
        ours = any(place.has_file_of(mirror.name) for place in repository_places)
        _withdraw_proposal(mirror, azure, repository_places[0], leave=ours and pull_request)
    for place in remains.places:
        if place.text is not None and not place.has_file_of(mirror.name):
            say(f"left {place} alone, because it does not belong to this mirror")
    files = [
        PlannedFile(azure, mirror.name, place, None, pull_request)
        for place in remains.places
        if place.has_file_of(mirror.name)
    ]
    if not (definition or files or any(place.proposed_tip for place in remains.places)):
        say("nothing to disconnect: the pipeline is already gone")
    return files


def _by_repository(places: Sequence[FilePlace]) -> list[list[FilePlace]]:
    groups: dict[str, list[FilePlace]] = {}
    for place in places:
        groups.setdefault(place.repository.id, []).append(place)
    return list(groups.values())


def _withdraw_proposal(mirror: Mirror, azure: AzureDevOps, place: FilePlace, *, leave: bool) -> None:
    """Abandon what brings the YAML in, unless it is to bring it out."""
    branch = pull_request_branch(mirror)
    if not place.proposed_tip:
        return
    if not place.proposed_by_us:
        say(f"left the branch {branch!r} alone, because it has commits by someone else")
    elif not leave:
        if place.pull_request:
            azure.abandon_pull_request(place.repository, place.pull_request)
        azure.set_branch(place.repository, branch, old=place.proposed_tip, new=None)
        say(f"deleted the branch {branch!r}")
