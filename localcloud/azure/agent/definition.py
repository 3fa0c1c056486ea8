"""A pipeline's YAML as data: what the embedded agent runs, and a refusal for everything else.

https://learn.microsoft.com/azure/devops/pipelines/yaml-schema
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml


class UnsupportedPipeline(Exception):
    """The YAML has something that the agent does not run; the service might, or might refuse it."""


_PIPELINE_KEYS = {"trigger", "pr", "schedules", "resources", "lockBehavior", "variables", "stages", "jobs"}
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


def read_definition(text: str) -> dict[str, Any]:
    """Return a pipeline's YAML as data.

    Raises:
        UnsupportedPipeline: it is not YAML, or has a key, a step or an expression that the agent does not know.
    """
    if "${{" in text:
        raise UnsupportedPipeline("expressions are not evaluated: ${{")
    try:
        definition: dict[str, Any] = yaml.load(text, Loader=_LOADER)  # noqa: S506
    except yaml.YAMLError as error:
        raise UnsupportedPipeline(f"it is not YAML: {error}") from None
    _only(definition, _PIPELINE_KEYS, "pipeline")
    for resource in repository_resources(definition):
        _only(resource, _RESOURCE_KEYS, "repository resource")
    for stage in stages(definition):
        _only(stage, _STAGE_KEYS, "stage")
        for job in stage["jobs"]:
            _check_job(job)
    for place, value in _texts(definition):
        if "$[" in value and "variables" not in place:
            raise UnsupportedPipeline(f"expressions are not evaluated in {'.'.join(place)}: $[")
    return definition


def stages(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages; jobs without any are one stage of their own."""
    if ("stages" in definition) == ("jobs" in definition):
        raise UnsupportedPipeline("it has no jobs" if "jobs" not in definition else "it has both stages and jobs")
    found = definition["stages"] if "stages" in definition else [{"stage": "__default", "jobs": definition["jobs"]}]
    if not found or not all(stage.get("jobs") for stage in found):
        raise UnsupportedPipeline("it has no jobs")
    return list(found)


def repository_resources(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of ``resources.repositories``."""
    resources = definition.get("resources") or {}
    _only(resources, {"repositories"}, "resources")
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
    _only(job, _JOB_KEYS, "job")
    if job.get("pool") not in (_HOSTED, _SERVER):
        raise UnsupportedPipeline(f"no such pool: {job.get('pool')}")
    for step in job["steps"]:
        if step in ({"checkout": "none"}, {"checkout": "self"}):
            continue
        _only(step, _STEP_KEYS, "step")
        task = step.get("task")
        if task is None:
            continue
        if task not in _TASKS:
            raise UnsupportedPipeline(f"no such task: {task}")
        _only(step.get("inputs", {}), _TASKS[task], f"{task} step's inputs")
        if (task == "ManualValidation@1") != (job["pool"] == _SERVER):
            raise UnsupportedPipeline(f"{task} does not run in the pool {job['pool']}")


def _only(mapping: object, known: set[str], what: str) -> None:
    if not isinstance(mapping, dict):
        raise UnsupportedPipeline(f"a {what} that is not a mapping: {mapping!r}")
    if unknown := mapping.keys() - known:
        raise UnsupportedPipeline(f"unknown key of a {what}: {sorted(unknown)[0]}")


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
