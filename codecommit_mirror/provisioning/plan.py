"""What has to be deployed and deleted, so that the account has the mirrors of ``mirrors.yaml``: decided, not done.

What is deployed counts, not what changed since the last commit: a run that failed, or that never came, is made good by
the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..aws.stack import deletion_policy
from ..config.ci import PROVISIONED_FROM, REPLICA

_SETTLED = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")
_NOTHING_YET = "REVIEW_IN_PROGRESS"


@dataclass(frozen=True)
class WantedStack:
    """A mirror's stack, as the app synthesised it."""

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
    template: Mapping[str, Any] | None = field(default=None, repr=False)
    """None where nobody needs it."""

    @property
    def working(self) -> bool:
        """Whether CloudFormation is at work."""
        return self.status.endswith("_IN_PROGRESS") and self.status != _NOTHING_YET


@dataclass(frozen=True)
class Plan:
    """Names of mirrors; a mirror to be removed is in ``mirrors.yaml`` no more, and was provisioned from it."""

    create: tuple[str, ...] = ()
    update: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    """Of another account, which these credentials cannot provision."""
    moved: tuple[str, ...] = ()
    """Whose stack is still in another region, or has another name: two of one mirror would be in each other's way."""
    foreign: tuple[str, ...] = ()
    """Whose stack's name is taken, by another repository's mirror or by something else."""
    losing: tuple[str, ...] = ()
    """Whose repository CloudFormation would delete: the deployed stack owns it, and the new one only refers to it."""

    @property
    def deploy(self) -> tuple[str, ...]:
        return self.create + self.update


def plan(wanted: Sequence[WantedStack], deployed: Collection[DeployedStack], account: str, owner: str) -> Plan:
    """Compare what there is with what there should be.

    Args:
        wanted: every mirror's stack.
        deployed: what CloudFormation has; with templates for those that are wanted.
        account: the account of the credentials.
        owner: the repository that holds ``mirrors.yaml``; what it has not provisioned is never removed.
    """
    there = {(stack.region, stack.name): stack for stack in deployed}
    left = orphans(wanted, deployed, owner)
    groups: dict[str, list[str]] = {
        name: [] for name in ("create", "update", "unchanged", "elsewhere", "moved", "foreign", "losing")
    }
    for stack in wanted:
        found = there.get((stack.region, stack.stack_name))
        if stack.account != account:
            groups["elsewhere"].append(stack.mirror)
        elif stack.mirror in left:
            groups["moved"].append(stack.mirror)
        elif found is None or found.status == _NOTHING_YET:
            groups["create"].append(stack.mirror)
        elif not _ours(stack, found, owner):
            groups["foreign"].append(stack.mirror)
        elif deletion_policy(found.template or {}) == "Delete" and deletion_policy(stack.template) is None:
            groups["losing"].append(stack.mirror)
        else:
            groups["unchanged" if _same(stack, found) else "update"].append(stack.mirror)
    removed = sorted(left.keys() - {stack.mirror for stack in wanted})
    return Plan(**{name: tuple(sorted(names)) for name, names in groups.items()}, remove=tuple(removed))


def orphans(wanted: Sequence[WantedStack], deployed: Collection[DeployedStack], owner: str) -> dict[str, DeployedStack]:
    """Return the stacks that were provisioned from ``owner`` and are wanted no more, by their mirrors' names.

    The name may still be wanted, with a stack elsewhere.
    """
    places = {(stack.region, stack.stack_name) for stack in wanted}
    return {
        stack.tags.get(REPLICA, stack.name): stack
        for stack in deployed
        if stack.tags.get(PROVISIONED_FROM) == owner
        and (stack.region, stack.name) not in places
        and stack.status != "DELETE_COMPLETE"
    }


def _ours(wanted: WantedStack, found: DeployedStack, owner: str) -> bool:
    """Whether a stack is the mirror's, deployed from here or by a person before there was a CI."""
    return found.tags.get(REPLICA) == wanted.mirror and found.tags.get(PROVISIONED_FROM, owner) == owner


def _same(wanted: WantedStack, found: DeployedStack) -> bool:
    return found.status in _SETTLED and (wanted.template, wanted.tags, wanted.protected) == (
        found.template,
        found.tags,
        found.protected,
    )
