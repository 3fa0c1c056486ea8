"""What a mirror's pipeline is in Azure DevOps: its definition and variables, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.mirror import Mirror
from .state import AzureState, runs_file_at
from .variables import (
    HELD_CREDENTIAL,
    OF_ROLE,
    OF_USER,
    HeldCredential,
    PipelineVariable,
    plain_variable,
    secret_variable,
)


def variable_changes(
    mirror: Mirror, state: AzureState, variables: Sequence[PipelineVariable], secrets: Mapping[str, str]
) -> dict[str, Mapping[str, Any] | None]:
    """Return the variables that must change; None removes one, as everything that is not ours.

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
    kept = {*wanted, *OF_USER, *OF_ROLE}
    changes |= {name: None for name in existing if name not in kept}
    if HELD_CREDENTIAL not in existing and mirror.replica_auth == "user":
        changes[HELD_CREDENTIAL] = plain_variable(HeldCredential().to_json())
    return changes


def definition_body(
    mirror: Mirror, state: AzureState, changes: Mapping[str, Mapping[str, Any] | None], *, stays: bool
) -> dict[str, Any]:
    """Return the definition as it should be, and enabled: no variables, triggers and variable groups but ours.

    Args:
        mirror: the mirror.
        state: its state in Azure DevOps.
        changes: of its variables.
        stays: whether the pipeline still runs the file that it ran before.
    """
    pool = mirror.azure.agent_pool.name if mirror.azure.agent_pool else "Azure Pipelines"
    base: Mapping[str, Any] = (state.definition.body if state.definition else None) or {
        "name": mirror.pipeline_name,
        "path": "\\",
        "type": "build",
        "quality": "definition",
        "process": {"type": 2, "yamlFilename": mirror.pipeline_path},
        # Where jobs run that name no pool; each of ours names one.
        "queue": {"name": pool, "pool": {"name": pool}},
        "triggers": [],
    }
    from_yaml = {"triggerType": "continuousIntegration", "settingsSourceType": 2}
    triggers = [t for t in base.get("triggers") or [] if from_yaml.items() <= t.items()][:1] or [from_yaml]
    repository, process = dict(base.get("repository") or {}), dict(base["process"])
    if not stays:
        repository |= {
            "id": state.yaml.repository.id,
            "name": state.yaml.repository.name,
            "type": "TfsGit",
            "defaultBranch": f"refs/heads/{state.yaml.branch}",
        }
        if state.definition and not runs_file_at(state.definition, state.yaml):
            process["yamlFilename"] = state.yaml.path
    variables = {name: value for name, value in (base.get("variables") or {}).items() if name not in changes}
    variables.update({name: dict(value) for name, value in changes.items() if value is not None})
    ours: dict[str, Any] = {
        "queueStatus": "enabled",
        "repository": repository,
        "process": process,
        "triggers": triggers,
        "variables": variables,
    }
    if base.get("variableGroups"):
        ours["variableGroups"] = []
    return {**base, **ours}
