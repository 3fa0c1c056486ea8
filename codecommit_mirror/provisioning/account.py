"""The account made to have the mirrors of ``mirrors.yaml``: looked at, deployed, freed of those that are gone."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
from botocore import exceptions

from pipeline_templates import mirror_sync

from ..aws import cdk
from ..aws.stack import account_of, aws_failures, client, deployed_template
from ..config.ci import REPLICA, Ci
from ..errors import MirrorError
from . import assembly
from .plan import DeployedStack, Plan, WantedStack, orphans, plan

_AT_ONCE = 16
_CONCURRENCY = "10"
_DIFFS = 20
"""Differences that are shown in full; a summary page takes no more than a mebibyte."""
_NOISE = re.compile(r"^(current credentials could not be used to assume|Lookup role arn:).*\n", re.MULTILINE)
"""What the CDK CLI says of roles that it does without."""
_DELETION_SECONDS, _SETTLING_SECONDS, _POLL_SECONDS = 30 * 60, 30 * 60, 2


class Account:
    """What the credentials' account has, and should have.

    Args:
        aws: the credentials, in CI's region.
        ci: the section ``ci`` of ``mirrors.yaml``.
        mirrors: the names of all its mirrors.
        folder: the CDK project's.
        assembly_folder: where ``cdk synth`` wrote to.

    Raises:
        MirrorError: the credentials are another account's, or ``cdk synth`` worked on another list of mirrors.
    """

    def __init__(
        self, aws: boto3.Session, ci: Ci, mirrors: Collection[str], folder: Path, assembly_folder: Path
    ) -> None:
        self._ci, self._folder, self._assembly = ci, folder, assembly_folder
        self._account = account_of(aws)
        if self._account != ci.account:
            raise MirrorError(f"ci.account is {ci.account}, and the AWS credentials are for {self._account}.")
        self._wanted = assembly.read(assembly_folder)
        # What is missing there would be taken for gone.
        if {stack.mirror for stack in self._wanted} != set(mirrors):
            raise MirrorError(f"{assembly_folder} does not have the mirrors of mirrors.yaml; run 'cdk synth' for all.")
        self._needed = {ci.region, *(stack.region for stack in self._wanted if stack.account == self._account)}
        everywhere = aws.get_available_regions("cloudformation", aws.get_partition_for_region(ci.region))
        self._clients = {name: client(aws, "cloudformation", name) for name in {*self._needed, *everywhere}}

    def plan(self) -> Plan:
        """Compare what there is with what there should be."""
        return plan(self._wanted, self._deployed(self._wanted), self._account, self._ci.owner)

    def diff(self, mirrors: Sequence[str]) -> str:
        """Return what ``cdk diff`` says of the first mirrors; it reads templates and nothing else.

        Texts of a pull request are in it: nothing of them is a command to who runs the job.
        """
        if not mirrors:
            return ""
        said = self._cdk(["diff", *mirrors[:_DIFFS], "--method", "template", "--no-color"])
        rest = f"\n... and {len(mirrors) - _DIFFS:,} more mirrors" if len(mirrors) > _DIFFS else ""
        return "\n".join(mirror_sync.shown(line) for line in _NOISE.sub("", said).strip().split("\n")) + rest

    def deploy(self, mirrors: Sequence[str]) -> None:
        """Deploy mirrors, several at a time.

        Raises:
            MirrorError: one failed; the message has what the CLI said, and what is still to be done.
        """
        if not mirrors:
            return
        self._wait_until_settled(mirrors)
        command = ["deploy", *mirrors, "--require-approval", "never", "--concurrency", _CONCURRENCY]
        try:
            self._cdk(command)
        except MirrorError as error:
            left = [name for name in self.plan().deploy if name in mirrors]
            done = [name for name in mirrors if name not in left]
            raise MirrorError(
                f"{error}\ndeployed: {', '.join(done) or 'none'}; still to be deployed: {', '.join(left) or 'none'}."
            ) from None

    def remove(self, mirror: str) -> bool:
        """Delete the stack of a mirror that is in ``mirrors.yaml`` no more; return False when it is gone already.

        Raises:
            MirrorError: it is still wanted, was not provisioned from here, or cannot be deleted.
        """
        if any(stack.mirror == mirror for stack in self._wanted):
            raise MirrorError(f"{mirror} is in mirrors.yaml, and stays.")
        there = self._deployed(())
        found = orphans(self._wanted, there, self._ci.owner).get(mirror)
        if found is not None:
            self._delete(mirror, found)
        elif any(mirror in (stack.name, stack.tags.get(REPLICA)) for stack in there):
            raise MirrorError(f"the stack of {mirror} was not provisioned from {self._ci.owner}, and stays.")
        return found is not None

    def _wait_until_settled(self, mirrors: Sequence[str]) -> None:
        """Wait while CloudFormation still works on what another run, or a person, has begun."""
        places = {(stack.region, stack.stack_name) for stack in self._wanted if stack.mirror in mirrors}
        deadline = time.monotonic() + _SETTLING_SECONDS
        while any(
            stack.working and (region, stack.name) in places
            for region in {region for region, _ in places}
            for stack in self._stacks(region)
        ):
            if time.monotonic() > deadline:
                raise MirrorError("CloudFormation works on these stacks for too long; look at it, and run again.")
            time.sleep(_POLL_SECONDS)

    def _cdk(self, arguments: Sequence[str]) -> str:
        return cdk.run(self._folder, arguments, self._assembly)

    def _delete(self, mirror: str, stack: DeployedStack) -> None:
        cloudformation = self._clients[stack.region]
        if stack.protected:
            raise MirrorError(
                f"the stack {stack.name!r} has termination protection, and stays: put {mirror} back into mirrors.yaml "
                "with termination_protection: false, deploy it, and remove it again."
            )
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
                    f"the stack {stack.name!r} was not deleted ({reasons}); mend that, and run again."
                ) from None

    def _reasons(self, cloudformation: Any, stack_name: str) -> str:
        events = cloudformation.describe_stack_events(StackName=stack_name)["StackEvents"]
        failed = [e for e in events if e["ResourceStatus"] == "DELETE_FAILED" and e.get("ResourceStatusReason")]
        return failed[-1]["ResourceStatusReason"].rstrip(".") if failed else "it takes too long"

    def _deployed(self, with_templates: Sequence[WantedStack]) -> list[DeployedStack]:
        """Return the stacks of every region: the last mirror of one may have gone."""
        places = {(stack.region, stack.stack_name) for stack in with_templates}

        def complete(stack: DeployedStack) -> DeployedStack:
            if (stack.region, stack.name) not in places:
                return stack
            return replace(stack, template=deployed_template(self._clients[stack.region], stack.name))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = [stack for stacks in pool.map(self._stacks, sorted(self._clients)) for stack in stacks]
            return list(pool.map(complete, found))

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
            )
            for page in pages
            for stack in page["Stacks"]
        ]
