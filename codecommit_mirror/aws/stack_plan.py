"""Stacks as they are wanted and as they are deployed, and what follows from comparing them.

What is wanted is compared with what is deployed, not with the last commit, so that a run makes up for a failed one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config.azure_url import AZURE_DEVOPS_SERVICES
from ..config.ci import PROVISIONED_FROM, REPLICA, SOURCE_METADATA, TEMPLATE
from ..config.mirror import Mirror, source_metadata
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
    still = {(stack.region, stack.stack_name) for stack in wanted}
    return {
        stack.tags.get(REPLICA, stack.name): stack
        for stack in deployed
        if stack.tags.get(PROVISIONED_FROM) == owner
        and (stack.region, stack.name) not in still
        and stack.status != "DELETE_COMPLETE"
    }


def generation_of(tags: Mapping[str, str]) -> int:
    """Return the generation of the template that a stack was deployed with; 0 if its tags do not say it."""
    number = tags.get(TEMPLATE, "").partition("-")[0]
    return int(number) if number.isdigit() else 0


def is_unchanged(wanted: WantedStack, status: str, tags: Mapping[str, str], *, protected: bool) -> bool:
    """Whether nothing is to be deployed; one of the tags is a digest of what makes the template."""
    return status in COMPLETE and (wanted.tags, wanted.protected) == (tags, protected)


def places(mirror: str, template: Mapping[str, Any], account: str, region: str) -> frozenset[tuple[str, str]]:
    """Return where a mirror's stack lets commits, tokens and rights go: kinds and names."""
    source = template.get("Metadata", {}).get(SOURCE_METADATA, {})
    azure, engine = source.get("azure", {}), source.get("engine")
    organization = azure.get("organization")
    resources = template.get("Resources", {}).values()
    kinds = {resource["Type"] for resource in resources}
    trusted = [
        statement["Principal"]["Federated"]
        for resource in resources
        if resource["Type"] == "AWS::IAM::Role"
        for statement in resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        if "Federated" in statement["Principal"]
    ]
    writers = [
        resource["Properties"][key]
        for resource in resources
        for kind, key in (("AWS::IAM::Role", "RoleName"), ("AWS::IAM::User", "UserName"))
        if resource["Type"] == kind and key in resource["Properties"]
    ]
    found = [
        ("account", f"{account} in {region}"),
        ("server", None if azure.get("server") == AZURE_DEVOPS_SERVICES else azure.get("server")),
        ("organization", organization),
        # Whoever may change pipelines there reads what they store.
        ("project", azure and f"{organization}/{azure.get('project')}"),
        # Whoever may push there, and whoever has the agents, reads what a run has.
        ("engine", engine and f"{engine['path']} on {engine['branch']} of {organization}/{engine['repository']}"),
        ("repository for pipelines", _in_project(azure, "pipelines_repository")),
        ("agent pool", azure.get("pool") and f"{organization}: {azure['pool']['name']}"),
        *(("identity provider", arn) for arn in trusted if isinstance(arn, str)),
        *(("user or role", name) for name in writers if isinstance(name, str)),
        ("existing repository", None if "AWS::CodeCommit::Repository" in kinds else mirror),
    ]
    return frozenset((kind, str(value)) for kind, value in found if value)


def places_of(mirror: Mirror, account: str, region: str) -> frozenset[tuple[str, str]]:
    """Return the ``places`` of a mirror whose stack another CDK app has, as far as mirrors.yaml says it."""
    return places(mirror.name, {"Metadata": {SOURCE_METADATA: source_metadata(mirror)}}, account, region)


def _in_project(azure: Mapping[str, Any], key: str) -> str | None:
    return f"{azure.get('organization')}/{azure.get('project')}/{azure[key]}" if azure.get(key) else None


def newly_named(
    wanted: Mapping[str, frozenset[tuple[str, str]]], deployed: Iterable[frozenset[tuple[str, str]]]
) -> dict[tuple[str, str], list[str]]:
    """Return what no deployed stack names, each with the mirrors that name it.

    Args:
        wanted: the ``places`` of each mirror's stack as it would be, by the mirror's name.
        deployed: those of the stacks as they are.
    """
    known = frozenset[tuple[str, str]]().union(*deployed)
    new: dict[tuple[str, str], list[str]] = {}
    for mirror, named in wanted.items():
        for place in sorted(named - known):
            new.setdefault(place, []).append(mirror)
    return dict(sorted(new.items()))
