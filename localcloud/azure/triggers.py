"""Which pushes and schedules start a pipeline, by its YAML.

https://learn.microsoft.com/azure/devops/pipelines/repos/azure-repos-git#ci-triggers and
https://learn.microsoft.com/azure/devops/pipelines/process/pipeline-triggers
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

_SKIP = ("[skip ci]", "[ci skip]", "[skip azurepipelines]", "[skip azpipelines]", "[skip azp]", "***no_ci***")


def skips_ci(message: str) -> bool:
    """Whether a commit's message asks for no run."""
    return any(mark in message.lower() for mark in _SKIP)


def starts(trigger: Any, ref: str) -> bool:
    """Whether a push to ``ref`` matches a ``trigger:`` (None stands for the implied one: every branch)."""
    kind, _, name = ref.removeprefix("refs/").partition("/")
    if trigger == "none" or kind not in ("heads", "tags"):
        return False
    if trigger is None:
        return kind == "heads"
    if isinstance(trigger, list):
        trigger = {"branches": {"include": trigger}}
    if kind == "heads" and "branches" not in trigger and "tags" in trigger:
        return False
    if kind == "tags" and "tags" not in trigger:
        return False
    return _selected(trigger.get("branches" if kind == "heads" else "tags") or {"include": ["*"]}, name)


def batches(trigger: Any) -> bool:
    """Whether pushes during a run are joined into one next run."""
    return isinstance(trigger, dict) and bool(trigger.get("batch"))


def scheduled_branches(definition: Mapping[str, Any], branches: Iterable[str]) -> list[str]:
    """Return those of the ``branches`` that one of the YAML's schedules includes."""
    schedules = definition.get("schedules") or []
    return [branch for branch in branches if any(_selected(s.get("branches") or {}, branch) for s in schedules)]


def _selected(filters: Any, name: str) -> bool:
    if isinstance(filters, list):
        filters = {"include": filters}
    included = any(fnmatchcase(name, pattern) for pattern in filters.get("include", []))
    return included and not any(fnmatchcase(name, pattern) for pattern in filters.get("exclude", []))
