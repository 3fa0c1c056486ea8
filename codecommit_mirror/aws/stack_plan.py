"""Stacks as they are wanted and as they are deployed, and what follows from comparing them.

What is wanted is compared with what is deployed, not with the last commit, so that a run makes up for a failed one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config.ci import PROVISIONED_FROM, REPLICA
from .stack import COMPLETE, ReplicaOutputs


@dataclass(frozen=True)
class WantedStack:
    """A mirror's stack, as the CDK app synthesised it."""

    mirror: str
    stack_name: str
    account: str
    region: str
    template: Mapping[str, Any] = field(repr=False)
    tags: Mapping[str, str]
    protected: bool


@dataclass(frozen=True)
class DeployedStack:
    """A stack that CloudFormation has."""

    name: str
    region: str
    status: str
    tags: Mapping[str, str]
    protected: bool
    outputs: ReplicaOutputs | None = None


def orphans(wanted: Sequence[WantedStack], deployed: Collection[DeployedStack], owner: str) -> dict[str, DeployedStack]:
    """Return the stacks that were provisioned from ``owner`` and are no longer wanted, by their mirrors' names.

    A mirror of that name may still be wanted, with a stack elsewhere.
    """
    places = {(stack.region, stack.stack_name) for stack in wanted}
    return {
        stack.tags.get(REPLICA, stack.name): stack
        for stack in deployed
        if stack.tags.get(PROVISIONED_FROM) == owner
        and (stack.region, stack.name) not in places
        and stack.status != "DELETE_COMPLETE"
    }


def is_unchanged(wanted: WantedStack, status: str, tags: Mapping[str, str], *, protected: bool) -> bool:
    """Whether nothing is to be deployed; one of the tags is the template's digest."""
    return status in COMPLETE and (wanted.tags, wanted.protected) == (tags, protected)
