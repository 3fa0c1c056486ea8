"""A pipeline's YAML as data: what the embedded agent runs, and a refusal for everything else.

https://learn.microsoft.com/azure/devops/pipelines/yaml-schema
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from .templates import ReadTemplate, expand, extend, parameter_values
from .unsupported import UnsupportedPipeline, check_keys

_PIPELINE_KEYS = {
    "trigger",
    "pr",
    "schedules",
    "resources",
    "lockBehavior",
    "variables",
    "parameters",
    "stages",
    "jobs",
    "extends",
}
_RESOURCE_KEYS = {"repository", "type", "name", "ref", "trigger"}
_STAGE_KEYS = {"stage", "displayName", "dependsOn", "condition", "jobs"}
_JOB_KEYS = {
    "job",
    "displayName",
    "dependsOn",
    "condition",
    "timeoutInMinutes",
    "pool",
    "uses",
    "variables",
    "steps",
}
_STEP_KEYS = {"bash", "script", "task", "inputs", "name", "displayName", "env", "timeoutInMinutes"}
_TASKS = {
    "AWSShellScript@1": {"awsCredentials", "regionName", "scriptType", "inlineScript"},
    "AzureCLI@3": {
        "connectionType",
        "azureDevOpsServiceConnection",
        "azureSubscription",
        "scriptType",
        "scriptLocation",
        "inlineScript",
    },
    "ManualValidation@1": {"notifyUsers", "approvers", "instructions", "allowApproversToApproveTheirOwnRuns"},
}
# A pipeline carries its engine as text, which the loader in Python reads for a tenth of a second.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HOSTED, _SERVER = {"vmImage": "ubuntu-24.04"}, "server"


def read_definition(
    text: str, given: Mapping[str, Any] | None = None, read_template: ReadTemplate | None = None
) -> dict[str, Any]:
    """Return a pipeline's YAML as data, with its runtime parameters and the template that it extends filled in.

    Args:
        text: the YAML.
        given: the values of parameters that are not to have their defaults.
        read_template: reads the file of a template; without it a pipeline extends none.

    Raises:
        UnsupportedPipeline: it is not YAML, has a key, a step or an expression that the agent does not know, or has no
            such parameter.
    """
    definition: dict[str, Any] = _load(text)
    check_keys(definition, _PIPELINE_KEYS, "pipeline")
    definition = expand(definition, parameter_values(definition.pop("parameters", []), given or {}))
    resources = repository_resources(definition)
    for resource in resources:
        check_keys(resource, _RESOURCE_KEYS, "repository resource")
    if "extends" in definition:
        if found := definition.keys() & {"jobs", "stages"}:
            raise UnsupportedPipeline(f"it has both extends and {min(found)}")
        definition |= extend(definition.pop("extends"), resources, _load, read_template, len(text.encode()))
    for stage in stages(definition):
        check_keys(stage, _STAGE_KEYS, "stage")
        for job in stage["jobs"]:
            _check_job(job)
    for place, value in _texts(definition):
        if "$[" in value and "variables" not in place:
            raise UnsupportedPipeline(f"expressions are not evaluated in {'.'.join(place)}: $[")
    return definition


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_LOADER)  # noqa: S506
    except yaml.YAMLError as error:
        raise UnsupportedPipeline(f"it is not YAML: {error}") from None


def stages(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages; jobs without any are one stage of their own."""
    if ("stages" in definition) == ("jobs" in definition):
        raise UnsupportedPipeline("it has no jobs" if "jobs" not in definition else "it has both stages and jobs")
    found = definition["stages"] if "stages" in definition else [{"stage": "__default", "jobs": definition["jobs"]}]
    if not found or not all(stage.get("jobs") for stage in found):
        raise UnsupportedPipeline("it has no jobs")
    return list(found)


def own_pool(definition: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """Return the name and the demands of the agent pool that the first job wants; None for Microsoft's agents."""
    wanted = stages(definition)[0]["jobs"][0].get("pool")
    if not isinstance(wanted, dict) or "name" not in wanted:
        return None
    demands = wanted.get("demands", [])
    return wanted["name"], [demands] if isinstance(demands, str) else list(demands)


def repository_resources(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of ``resources.repositories``."""
    resources = definition.get("resources") or {}
    check_keys(resources, {"repositories"}, "resources")
    return list(resources.get("repositories", []))


def service_connections(stage: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the kinds and names of the service connections that a stage uses."""
    steps = [step for job in stage["jobs"] for step in job["steps"]]
    return {used for step in steps if (used := service_connection(step))}


def service_connection(step: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the kind and the name of the service connection that a step uses, if it uses one."""
    inputs = step.get("inputs", {})
    if step.get("task") == "AWSShellScript@1":
        return "aws", inputs["awsCredentials"]
    if step.get("task") == "AzureCLI@3":
        kind = inputs.get("connectionType", "azureRM")
        return kind, inputs["azureDevOpsServiceConnection" if kind == "azureDevOps" else "azureSubscription"]
    return None


def _check_job(job: Mapping[str, Any]) -> None:
    check_keys(job, _JOB_KEYS, "job")
    pool = job.get("pool")
    if pool not in (_HOSTED, _SERVER):
        check_keys(pool, {"name", "demands"}, "pool")
    for step in job["steps"]:
        if step in ({"checkout": "none"}, {"checkout": "self"}):
            continue
        check_keys(step, _STEP_KEYS, "step")
        task = step.get("task")
        if task is None:
            continue
        if task not in _TASKS:
            raise UnsupportedPipeline(f"no such task: {task}")
        check_keys(step.get("inputs", {}), _TASKS[task], f"{task} step's inputs")
        if (task == "ManualValidation@1") != (job["pool"] == _SERVER):
            raise UnsupportedPipeline(f"{task} does not run in the pool {job['pool']}")


def _texts(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield place, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _texts(child, (*place, str(key)))


def expression(value: str) -> str | None:
    """Return what a runtime expression, ``$[ ... ]``, encloses; None for any other text."""
    match = re.fullmatch(r"\$\[(.*)\]", value.strip(), re.DOTALL)
    return match[1] if match else None
