"""How much of Azure Pipelines' parallel jobs the schedules of a fleet take."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.mirror import Mirror
from ..config.schedule import runs_a_day

_MINUTES_A_RUN = 1
"""A run with nothing to do takes seconds; preparing its agent takes most of a minute."""
_FREE_MINUTES_A_MONTH = 1_800
"""Of the one free Microsoft-hosted job for private projects:
https://learn.microsoft.com/azure/devops/pipelines/licensing/concurrent-jobs"""
_MINUTES_A_DAY, _DAYS_A_MONTH = 24 * 60, 30


def note(mirrors: Sequence[Mirror]) -> str | None:
    """Return what to know if the schedules take more than the free parallel job has; Azure DevOps does not tell it."""
    runs = sum(runs_a_day(mirror.schedule) for mirror in mirrors)
    if runs * _MINUTES_A_RUN * _DAYS_A_MONTH <= _FREE_MINUTES_A_MONTH:
        return None
    jobs = runs * _MINUTES_A_RUN / _MINUTES_A_DAY
    return (
        f"the schedules make {runs:,.0f} runs a day, which at a minute each fill {jobs:.1f} parallel jobs, besides the "
        f"runs that pushes start; the free Microsoft-hosted job of an organization has {_FREE_MINUTES_A_MONTH:,} "
        "minutes a month: set a longer schedule, buy parallel jobs, or use agents of your own."
    )
