"""Reconcile an account with mirrors.yaml: plan, deploy, remove."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore import exceptions

from ..aws import cdk, quotas
from ..aws.session import account_of, aws_failures, client, session_in
from ..aws.stack import SETTLING_MINUTES, UnsettledError, read_template, wait_until_settled
from ..config.ci import REPLICA, Ci
from ..config.mirror import Mirror
from ..engine import sanitize
from ..errors import MirrorError
from ..fleet.up import CONCURRENCY
from ..progress import Say
from . import assembly
from .pipelines import source_of
from .plan import DeployedStack, Plan, might_lose, orphans, plan

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

_MAX_WORKERS = 16
_BATCH = 50
"""How many stacks one run of the CDK CLI deploys: some minutes of a job."""
_MAX_DIFFS = 20
"""How many mirrors a diff shows; a summary page accepts at most a mebibyte."""
_NOISE = re.compile(r"^(current credentials could not be used to assume|Lookup role arn:).*\n", re.MULTILINE)
"""Lines of the CDK CLI about roles that it does not need."""
_DELETION_SECONDS, _POLL_SECONDS = 15 * 60, 2


@dataclass(frozen=True)
class Deployment:
    """How a deployment of several mirrors ended."""

    failed: Mapping[str, str]
    """The reasons of those that failed."""
    left: tuple[str, ...]
    """Those that there was no time for."""


class Account:
    """An account that is to have the mirrors of ``mirrors.yaml``.

    Args:
        aws: the credentials, in CI's region.
        ci: the section ``ci`` of ``mirrors.yaml``.
        mirrors: the names of all its mirrors.
        folder: the CDK project's folder.
        assembly_folder: the output of ``cdk synth``.
        say: prints a line.

    Raises:
        MirrorError: the credentials belong to another account, ``cdk synth`` ran for another list of mirrors, or the
            stacks cannot be listed.
    """

    def __init__(
        self, aws: boto3.Session, ci: Ci, mirrors: Collection[str], folder: Path, assembly_folder: Path, say: Say
    ) -> None:
        self._ci, self._folder, self._assembly, self._say = ci, folder, assembly_folder, say
        self._account = account_of(aws)
        if self._account != ci.account:
            raise MirrorError(f"ci.account is {ci.account}, but the AWS credentials are for {self._account}.")
        self._wanted = assembly.read(assembly_folder)
        # A mirror that is missing there would be taken for one to remove.
        if {stack.mirror for stack in self._wanted} != set(mirrors):
            raise MirrorError(
                f"{assembly_folder} does not have the mirrors of mirrors.yaml; run 'cdk synth' for all of them."
            )
        self._needed = {ci.region, *(stack.region for stack in self._wanted if stack.account == self._account)}
        everywhere = aws.get_available_regions("cloudformation", aws.get_partition_for_region(ci.region))
        self._clients = {name: client(aws, "cloudformation", name) for name in {*self._needed, *everywhere}}
        self._deployed = self._list()

    def plan(self) -> Plan:
        """Compare what is deployed with what is wanted."""
        wanted = {(stack.region, stack.stack_name): stack for stack in self._wanted}

        def complete(stack: DeployedStack) -> DeployedStack:
            one = wanted.get((stack.region, stack.name))
            if one is None or not might_lose(one, stack):
                return stack
            return replace(stack, template=read_template(self._clients[stack.region], stack.name))

        return plan(self._wanted, [complete(stack) for stack in self._deployed], self._account, self._ci.owner)

    def quota_problems(self, found: Plan) -> list[str]:
        """Return the quotas that the mirrors to be created would exceed, region by region."""
        problems: list[str] = []
        for region in sorted({stack.region for stack in self._wanted if stack.mirror in found.create}):
            here = [s.template for s in self._wanted if s.mirror in found.create and s.region == region]
            needs = quotas.needs_of_templates(here)
            problems += quotas.problems(needs, quotas.read_quotas(session_in(region), needs))
        return list(dict.fromkeys(problems))

    def diff(self, mirrors: Sequence[str]) -> str:
        """Return the output of ``cdk diff`` for the first mirrors, which only reads templates.

        It contains text of a pull request, which must not become a logging command.
        """
        if not mirrors:
            return ""
        command = ["diff", *mirrors[:_MAX_DIFFS], "--method", "template", "--no-color"]
        output = cdk.run(self._folder, command, self._assembly)
        rest = f"\n... and {len(mirrors) - _MAX_DIFFS:,} more mirrors" if len(mirrors) > _MAX_DIFFS else ""
        return "\n".join(sanitize(line) for line in _NOISE.sub("", output).strip().split("\n")) + rest

    def deploy(self, mirrors: Sequence[str], *, minutes: float) -> Deployment:
        """Deploy mirrors in batches, several stacks at a time; one that fails does not stop the others.

        Those that CloudFormation is still working on, for another run or a person, come last, each once it has settled.

        Args:
            mirrors: their names.
            minutes: after how long no further batch is begun.
        """
        deadline = time.monotonic() + minutes * 60
        busy = self._in_progress(mirrors)
        failed, left = dict[str, str](), [name for name in mirrors if name not in busy]
        while left and time.monotonic() < deadline:
            failed |= self._deploy(left[:_BATCH])
            left = left[_BATCH:]
        while busy and time.monotonic() < deadline:
            patience = min(SETTLING_MINUTES, (deadline - time.monotonic()) / 60)
            try:
                wait_until_settled(partial(self._all_in_progress, busy), self._say, patience)
            except UnsettledError as error:
                if patience < SETTLING_MINUTES:
                    break
                return Deployment({**failed, **dict.fromkeys(busy, str(error))}, tuple(left))
            settled = busy.keys() - self._in_progress(busy).keys()
            failed |= self._deploy(sorted(settled))
            busy = {name: stack for name, stack in busy.items() if name not in settled}
        return Deployment(failed, (*left, *busy))

    def _deploy(self, mirrors: Sequence[str]) -> dict[str, str]:
        stacks = {stack.mirror: stack.stack_name for stack in self._wanted if stack.mirror in mirrors}
        return cdk.deploy_all(
            self._folder,
            {mirror: stacks[mirror] for mirror in mirrors},
            self._assembly,
            lambda stack, line: self._say(f"{stack}: {line}"),
            concurrency=CONCURRENCY,
        )

    def source_of(self, mirror: str) -> Mirror | None:
        """Return a mirror that is no longer in ``mirrors.yaml``, as far as its deployed template knows it.

        Raises:
            MirrorError: the stack is protected, or its template cannot be read.
        """
        stack = orphans(self._wanted, self._deployed, self._ci.owner).get(mirror)
        if stack:
            # Before anything of the mirror is deleted.
            _refuse_protected(mirror, stack)
        return source_of(mirror, read_template(self._clients[stack.region], stack.name)) if stack else None

    def remove(self, mirror: str) -> bool:
        """Delete the stack of a mirror that is no longer in ``mirrors.yaml``; return False if it is already gone.

        Raises:
            MirrorError: it is still wanted, was not provisioned from here, or cannot be deleted.
        """
        if problem := self.removal_problem(mirror):
            raise MirrorError(problem)
        stack = orphans(self._wanted, self._deployed, self._ci.owner).get(mirror)
        if stack is not None:
            self._delete(mirror, stack)
        elif any(mirror in (other.name, other.tags.get(REPLICA)) for other in self._deployed):
            raise MirrorError(f"the stack of {mirror} was not provisioned from {self._ci.owner}; it is not deleted.")
        return stack is not None

    def removal_problem(self, mirror: str) -> str | None:
        """Return why a mirror is certainly not to be removed: it is still in ``mirrors.yaml``."""
        if all(stack.mirror != mirror for stack in self._wanted):
            return None
        return f"{mirror} is still in mirrors.yaml, so its stack is not deleted; remove its entry first."

    def _in_progress(self, mirrors: Collection[str]) -> dict[str, DeployedStack]:
        """Return the stacks that CloudFormation is working on, by mirror."""
        wanted = {(stack.region, stack.stack_name): stack.mirror for stack in self._wanted if stack.mirror in mirrors}
        found = (stack for region in {region for region, _ in wanted} for stack in self._stacks(region))
        return {
            wanted[stack.region, stack.name]: stack
            for stack in found
            if stack.has_operation_in_progress and (stack.region, stack.name) in wanted
        }

    def _all_in_progress(self, mirrors: Collection[str]) -> dict[str, str]:
        """Return the statuses of stacks, by name, as long as CloudFormation is working on every one of them."""
        found = self._in_progress(mirrors)
        return {stack.name: stack.status for stack in found.values()} if len(found) == len(mirrors) else {}

    def _delete(self, mirror: str, stack: DeployedStack) -> None:
        cloudformation = self._clients[stack.region]
        _refuse_protected(mirror, stack)
        with aws_failures(f"delete the stack {stack.name}"):
            cloudformation.delete_stack(StackName=stack.name)
            try:
                cloudformation.get_waiter("stack_delete_complete").wait(
                    StackName=stack.name,
                    WaiterConfig={"Delay": _POLL_SECONDS, "MaxAttempts": _DELETION_SECONDS // _POLL_SECONDS},
                )
            except exceptions.WaiterError:
                reasons = self._reasons(cloudformation, stack.name)
                raise MirrorError(
                    f"the stack {stack.name!r} was not deleted ({reasons}); correct that, and run again."
                ) from None

    def _reasons(self, cloudformation: CloudFormationClient, stack_name: str) -> str:
        events = cloudformation.describe_stack_events(StackName=stack_name)["StackEvents"]
        failed = [e for e in events if e["ResourceStatus"] == "DELETE_FAILED" and e.get("ResourceStatusReason")]
        return failed[-1]["ResourceStatusReason"].rstrip(".") if failed else "it took too long"

    def _list(self) -> list[DeployedStack]:
        """Return the stacks of every region, including regions whose last mirror was removed."""
        with ThreadPoolExecutor(_MAX_WORKERS) as pool:
            return [stack for stacks in pool.map(self._stacks, sorted(self._clients)) for stack in stacks]

    def _stacks(self, region: str) -> list[DeployedStack]:
        try:
            with aws_failures(f"list the stacks in {region}"):
                pages = list(self._clients[region].get_paginator("describe_stacks").paginate())
        except MirrorError:
            if region in self._needed:
                raise
            return []  # A region that the account has not enabled, or that its organization forbids.
        return [
            DeployedStack(
                name=stack["StackName"],
                region=region,
                status=stack["StackStatus"],
                tags={tag["Key"]: tag["Value"] for tag in stack.get("Tags", [])},
                protected=bool(stack.get("EnableTerminationProtection")),
                outputs=frozenset(output["OutputKey"] for output in stack.get("Outputs", [])),
            )
            for page in pages
            for stack in page["Stacks"]
        ]


def _refuse_protected(mirror: str, stack: DeployedStack) -> None:
    if stack.protected:
        raise MirrorError(
            f"the stack {stack.name!r} has termination protection and is not deleted: put {mirror} back into "
            "mirrors.yaml with termination_protection: false, deploy it, and remove it again."
        )
