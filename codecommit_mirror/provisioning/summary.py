"""What a CI run did, or would do, as Markdown for its page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .account import Deployment
from .plan import Plan

_MAX_DIFF = 500_000
"""Characters; GitHub accepts a mebibyte for a step's summary."""


def of_plan(plan: Plan, diff: str, problems: Sequence[str] = (), note: str | None = None) -> str:
    """Return what a pull request would change, which quotas forbid it, a note, and the output of ``cdk diff``."""
    shown = diff if len(diff) <= _MAX_DIFF else diff[:_MAX_DIFF] + "\n... and more"
    warnings = ["", *(f"- **{problem}**" for problem in problems)] if problems else []
    warnings += ["", f"Note: {note}"] if note else []
    fenced = ["", _fenced(shown)] if shown else []
    return "\n".join([_table(plan, "to create", "to update"), *warnings, *fenced, ""])


def of_deployment(plan: Plan, deployment: Deployment) -> str:
    """Return what was deployed, what failed with the reasons, and what is left."""
    failed = [f"- `{name}` failed: {' '.join(reason.split())}" for name, reason in deployment.failed.items()]
    left = [f"- left for the next run: {', '.join(deployment.left)}"] if deployment.left else []
    lines = ["", *failed, *left] if failed or left else []
    return "\n".join([_table(plan, "created", "updated"), *lines, ""])


def rows(plan: Plan, created: str, updated: str) -> list[tuple[str, str]]:
    """Return the plan as (label, mirrors) rows."""
    groups = (
        (created, plan.create),
        (updated, plan.update),
        ("of these, only tags or termination protection change", plan.only_settings),
        ("to remove after approval", plan.remove),
        ("in another account, left alone", plan.elsewhere),
        ("moved, to be removed and added again", plan.moved),
        ("name taken by another stack, left alone", plan.foreign),
        ("left alone, since deploying would delete the repository", plan.losing),
        ("left alone, to be changed by `codecommit-mirror up`", plan.changing),
    )
    filled = [(label, ", ".join(names)) for label, names in groups if names]
    return [*filled, ("unchanged", f"{len(plan.unchanged):,}")]


def _table(plan: Plan, created: str, updated: str) -> str:
    lines = [f"| {label} | {mirrors} |" for label, mirrors in rows(plan, created, updated)]
    return "\n".join(["## Mirrors", "", "| | |", "|---|---|", *lines])


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
