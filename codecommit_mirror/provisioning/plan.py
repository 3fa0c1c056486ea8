"""Decide which stacks to deploy and which to delete, so that an account has the mirrors of ``mirrors.yaml``.

The plan compares with what is deployed, not with the last commit, so that a run makes up for a failed one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..aws.stack import COMPLETE, NOT_CREATED_YET, deletion_policy, has_operation_in_progress
from ..config.ci import PROVISIONED_FROM, REPLICA, TEMPLATE


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
    template: Mapping[str, Any] | None = field(default=None, repr=False)
    """Only read where CloudFormation might delete a repository."""
    outputs: frozenset[str] = frozenset()
    """The names of its outputs."""

    @property
    def has_operation_in_progress(self) -> bool:
        """Whether CloudFormation is working on it."""
        return has_operation_in_progress(self.status)


@dataclass(frozen=True)
class Plan:
    """Names of mirrors; those to be removed were provisioned from ``mirrors.yaml``, and are no longer in it."""

    create: tuple[str, ...] = ()
    update: tuple[str, ...] = ()
    only_settings: tuple[str, ...] = ()
    """Those of ``update`` whose template is unchanged: only tags or termination protection change."""
    unchanged: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    """Mirrors of another account, which these credentials cannot provision."""
    moved: tuple[str, ...] = ()
    """Mirrors whose stack is still in another region or has another name; two stacks of one mirror would conflict."""
    foreign: tuple[str, ...] = ()
    """Mirrors whose stack name is taken, by another repository's mirror or by something else."""
    losing: tuple[str, ...] = ()
    """Mirrors whose repository CloudFormation would delete: the deployed stack owns it, the new one only refers."""

    changing: tuple[str, ...] = ()
    """Mirrors whose pipeline is to act as a role in place of a user, or the other way round, which needs both."""

    @property
    def deploy(self) -> tuple[str, ...]:
        """The mirrors to deploy."""
        return self.create + self.update


def plan(wanted: Sequence[WantedStack], deployed: Collection[DeployedStack], account: str, owner: str) -> Plan:
    """Compare what is deployed with what is wanted.

    Args:
        wanted: every mirror's stack.
        deployed: all stacks of the account; with the templates of those that ``might_lose`` names.
        account: the account of the credentials.
        owner: the repository that holds ``mirrors.yaml``; stacks that it has not provisioned are never removed.
    """
    existing = {(stack.region, stack.name): stack for stack in deployed}
    orphaned = orphans(wanted, deployed, owner)
    groups: dict[str, list[str]] = {field.name: [] for field in fields(Plan) if field.name != "remove"}
    for stack in wanted:
        found = existing.get((stack.region, stack.stack_name))
        if stack.account != account:
            groups["elsewhere"].append(stack.mirror)
        elif stack.mirror in orphaned:
            groups["moved"].append(stack.mirror)
        elif found is None or found.status == NOT_CREATED_YET:
            groups["create"].append(stack.mirror)
        elif not _ours(stack, found, owner):
            groups["foreign"].append(stack.mirror)
        elif _is_unchanged(stack, found):
            groups["unchanged"].append(stack.mirror)
        elif deletion_policy(found.template or {}) == "Delete" and deletion_policy(stack.template) is None:
            groups["losing"].append(stack.mirror)
        elif _replaces_writer(stack, found):
            groups["changing"].append(stack.mirror)
        else:
            groups["update"].append(stack.mirror)
            if _has_same_template(stack, found) and found.status in COMPLETE:
                groups["only_settings"].append(stack.mirror)
    removed = sorted(orphaned.keys() - {stack.mirror for stack in wanted})
    return Plan(**{name: tuple(sorted(names)) for name, names in groups.items()}, remove=tuple(removed))


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


def _ours(wanted: WantedStack, found: DeployedStack, owner: str) -> bool:
    """Whether a stack is the mirror's, deployed from here or by a person before CI was set up."""
    return found.tags.get(REPLICA) == wanted.mirror and found.tags.get(PROVISIONED_FROM, owner) == owner


def might_lose(wanted: WantedStack, found: DeployedStack) -> bool:
    """Whether CloudFormation might delete a repository that the template no longer has."""
    return deletion_policy(wanted.template) is None and not _has_same_template(wanted, found)


def _replaces_writer(wanted: WantedStack, found: DeployedStack) -> bool:
    """Whether the deployment would take away what the pipeline signs in with, before the pipeline has the new one."""
    writers = {"PushUserName", "PushRoleArn"}
    return bool(writers & found.outputs - set(wanted.template.get("Outputs", {})))


def _has_same_template(wanted: WantedStack, found: DeployedStack) -> bool:
    return wanted.tags.get(TEMPLATE) == found.tags.get(TEMPLATE)


def _is_unchanged(wanted: WantedStack, found: DeployedStack) -> bool:
    """Whether nothing is to be deployed; one of the tags is the template's digest."""
    return found.status in COMPLETE and (wanted.tags, wanted.protected) == (found.tags, found.protected)
