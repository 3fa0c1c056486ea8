"""What a run of CI did, or would do, as Markdown for the run's page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .plan import Plan

_LONGEST_DIFF = 500_000
"""GitHub takes a mebibyte for a step's summary."""


def of_plan(plan: Plan, diff: str) -> str:
    """Return what a pull request would change, with what ``cdk diff`` says of it."""
    shown = diff if len(diff) <= _LONGEST_DIFF else diff[:_LONGEST_DIFF] + "\n... and more"
    return "\n".join([_table(plan, "to create", "to update"), *(["", _fenced(shown)] if shown else []), ""])


def of_deployment(plan: Plan) -> str:
    """Return what was deployed."""
    return _table(plan, "created", "updated") + "\n"


def of_removal(removed: Sequence[str], asked: Sequence[str]) -> str:
    """Return what was deleted, what was not, and what a person has to do about the Azure side."""
    left = [name for name in asked if name not in removed]
    rows = [f"- `{name}`: deleted" for name in removed] + [f"- `{name}`: not deleted" for name in left]
    hint = "`codecommit-mirror pipeline disconnect NAME --azure-repo-url URL`"
    rest = ["", f"Where a pipeline of theirs is left in Azure DevOps: {hint} takes it away, with its YAML."]
    return "\n".join(["## Replicas", "", *rows, *rest, ""])


def lines(plan: Plan, created: str, updated: str) -> list[tuple[str, str]]:
    """Return what there is to say of a plan, and of which mirrors, or of how many."""
    groups = (
        (created, plan.create),
        (updated, plan.update),
        ("to remove, once approved", plan.remove),
        ("of another account, not touched", plan.elsewhere),
        ("moved, to be removed and added again", plan.moved),
        ("name taken by another stack, not touched", plan.foreign),
        ("not touched, since deploying would delete the repository", plan.losing),
    )
    told = [(what, ", ".join(names)) for what, names in groups if names]
    return [*told, ("unchanged", f"{len(plan.unchanged):,}")]


def _table(plan: Plan, created: str, updated: str) -> str:
    rows = [f"| {what} | {which} |" for what, which in lines(plan, created, updated)]
    return "\n".join(["## Mirrors", "", "| | |", "|---|---|", *rows])


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
