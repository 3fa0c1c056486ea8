"""A mirror's CloudFormation stack and its CodeCommit repository, as AWS reports them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import boto3
from botocore import exceptions
from ruamel.yaml import YAML

from ..config.ci import REPLICA
from ..config.mirror import Mirror
from ..errors import MirrorError, NotFoundError, UnsettledError
from ..progress import say
from .repository import find_clone_url, find_tagged, is_clone_url, missing_repository, not_found_elsewhere
from .session import aws_failures, client

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

DEPLOYED_ELSEWHERE = "DEPLOYED_ELSEWHERE"
"""Stands for the status of a stack that another CDK app deploys, under a name that is its own affair."""
COMPLETE = (
    DEPLOYED_ELSEWHERE,
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
)
"""Statuses of a stack that has what its template says, or what it had before a failed update."""
NOT_CREATED_YET = "REVIEW_IN_PROGRESS"
"""The status of a stack that only has a change set that has not been executed."""
SETTLING_MINUTES = 30
"""How long an operation of another run may take."""
_CLEANUP_TYPE = "Custom::GitCredentials"
"""What deletes a user's Git credentials when its stack goes (stacks/credential_cleanup.py)."""
_POLL_SECONDS = 2
_DELETION_SECONDS = 15 * 60


@dataclass(frozen=True)
class ReplicaOutputs:
    """The outputs of a ``ReplicaStack``."""

    replica_url: str
    replica_arn: str
    push_user_name: str | None
    """None if the pipeline acts as a role."""
    push_policy_arn: str | None
    """None if another CDK app deploys it."""
    push_role_arn: str | None = None
    """None if the pipeline acts as a user."""
    push_role_subjects: tuple[str, ...] = ()
    """The pipelines whose tokens the role trusts."""

    @property
    def writer(self) -> str:
        """Who pushes, as ``user/NAME`` or ``role/NAME``; the user while there are both."""
        return f"user/{self.push_user_name}" if self.push_user_name else str(self.push_role_arn).rpartition(":")[2]

    @property
    def has_both_writers(self) -> bool:
        """Whether the stack has a user and a role, while the pipeline changes from one to the other."""
        return self.push_user_name is not None and self.push_role_arn is not None

    @property
    def is_migrating(self) -> bool:
        """Whether the pipeline may still sign in as it did before."""
        return self.has_both_writers or len(self.push_role_subjects) > 1

    def user_of(self, mirror: Mirror) -> str:
        """Return the name of the IAM user.

        Raises:
            MirrorError: there is none.
        """
        if self.push_user_name is None:
            raise MirrorError(
                f"the pipeline of {mirror.name} acts as the role {self.push_role_arn}, so there is no user and "
                "there are no Git credentials."
            )
        return self.push_user_name


@dataclass(frozen=True)
class ReplicaStackState:
    """A mirror's stack, as CloudFormation describes it."""

    status: str
    protected: bool
    """Whether termination protection is on."""
    outputs: ReplicaOutputs | None
    """None for a stack without all of its outputs, which an interrupted deployment can leave."""
    tags: Mapping[str, str] = field(default_factory=dict)
    drift: tuple[str, datetime | None] = ("NOT_CHECKED", None)
    """What CloudFormation found when it last looked for drift, and when."""
    arn: str = ""
    """Its own, which CloudFormation gives it; empty if another CDK app deploys it."""

    @property
    def is_complete(self) -> bool:
        """Whether the stack has what its template says, or what it had before a failed update."""
        return self.status in COMPLETE

    @property
    def is_elsewhere(self) -> bool:
        """Whether another CDK app deploys it."""
        return self.status == DEPLOYED_ELSEWHERE

    def belongs_to(self, mirror: Mirror) -> bool:
        """Whether it is the mirror's stack and not another stack of that name; True while that is not known yet."""
        early = self.status == NOT_CREATED_YET or self.status.startswith("IMPORT_")
        arn = self.outputs.replica_arn if self.outputs else ""
        replica = self.tags.get(REPLICA) or arn.rpartition(":")[2]
        return replica == mirror.name or (early and not replica)

    def wrong_replica(self, mirror: Mirror) -> str | None:
        """Return what its outputs name in place of the mirror's replica, or of a role, in its own account and region.

        Whoever may deploy decides what the outputs say.
        """
        if self.outputs is None or self.is_elsewhere:
            return None
        _, partition, _, region, account = self.arn.split(":")[:5]
        if self.outputs.replica_arn != f"arn:{partition}:codecommit:{region}:{account}:{mirror.name}":
            return self.outputs.replica_arn
        role = self.outputs.push_role_arn
        if role and not role.startswith(f"arn:{partition}:iam::{account}:role/"):
            return role
        return None if is_clone_url(self.outputs.replica_url, region, mirror.name) else self.outputs.replica_url

    def user_name(self, mirror: Mirror) -> str:
        """Return the name of the stack's IAM user, or the configured name if the stack has none."""
        return (self.outputs and self.outputs.push_user_name) or mirror.user_name


def has_operation_in_progress(status: str) -> bool:
    """Whether CloudFormation is working on a stack of this status."""
    return status.endswith("_IN_PROGRESS") and status != NOT_CREATED_YET


def wait_until_settled(in_progress: Callable[[], Mapping[str, str]], minutes: float = SETTLING_MINUTES) -> None:
    """Wait while CloudFormation finishes what an interrupted run, or a person, has begun.

    Args:
        in_progress: returns the status of each stack that has an operation in progress, by the stack's name.
        minutes: how long to wait.

    Raises:
        UnsettledError: the operations take longer.
        MirrorError: a call failed.
    """
    reported, deadline = False, time.monotonic() + minutes * 60
    while stacks := in_progress():
        name, status = next(iter(stacks.items()))
        if not reported:
            say(f"CloudFormation is still working on the stack {name} ({status}); waiting for it")
            reported = True
        if time.monotonic() > deadline:
            raise UnsettledError(
                f"the stack {name!r} is still {status} after {minutes:.0f} min; look at it in the CloudFormation "
                "console, and run again."
            )
        time.sleep(_POLL_SECONDS)


def find_stack(aws: boto3.Session, mirror: Mirror) -> ReplicaStackState | None:
    """Return the mirror's stack (DescribeStacks), or None if this account and region has none.

    What stands for the stack of a mirror that another CDK app deploys is found by its tags.

    Raises:
        MirrorError: there is another stack of that name, or the call failed.
    """
    if mirror.is_deployed_elsewhere:
        return _find_elsewhere(aws, mirror)
    with aws_failures(f"read the stack {mirror.stack_name}"):
        try:
            stack = client(aws, "cloudformation").describe_stacks(StackName=mirror.stack_name)["Stacks"][0]
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            return None
    return of_mirror(aws, mirror, _parse(stack))


def _find_elsewhere(aws: boto3.Session, mirror: Mirror) -> ReplicaStackState | None:
    found = find_tagged(aws, mirror)
    if found is None:
        return None
    outputs = ReplicaOutputs(found.clone_url, found.arn, found.user_name, None, found.role_arn)
    return ReplicaStackState(DEPLOYED_ELSEWHERE, False, outputs, found.tags)


def list_stacks(aws: boto3.Session) -> dict[str, ReplicaStackState]:
    """Return all stacks of the session's region by name, in one call for each hundred or so (DescribeStacks).

    Raises:
        MirrorError: the call failed.
    """
    with aws_failures(f"list the stacks in {aws.region_name}"):
        pages = client(aws, "cloudformation").get_paginator("describe_stacks").paginate()
        return {stack["StackName"]: _parse(stack) for page in pages for stack in page["Stacks"]}


def _parse(stack: StackTypeDef) -> ReplicaStackState:
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    tags = {tag["Key"]: tag["Value"] for tag in stack.get("Tags", [])}
    drift: Mapping[str, Any] = stack.get("DriftInformation", {})
    return ReplicaStackState(
        stack["StackStatus"],
        bool(stack.get("EnableTerminationProtection")),
        _parse_outputs(outputs),
        tags,
        (str(drift.get("StackDriftStatus", "NOT_CHECKED")), drift.get("LastCheckTimestamp")),
        stack["StackId"],
    )


def of_mirror(aws: boto3.Session, mirror: Mirror, state: ReplicaStackState) -> ReplicaStackState:
    """Return a stack with the mirror's stack name.

    Raises:
        MirrorError: it belongs to something else, or names another replica.
    """
    if not state.belongs_to(mirror):
        raise MirrorError(
            f"the stack {mirror.stack_name!r} in region {aws.region_name} does not belong to the mirror "
            f"{mirror.name!r} and is left alone; give the mirror another name."
        )
    if wrong := state.wrong_replica(mirror):
        raise MirrorError(
            f"the outputs of the stack {mirror.stack_name!r} in region {aws.region_name} name {wrong}, which does not "
            f"belong to {mirror.name!r} there: look for who changed them, and run 'cdk deploy {mirror.name}'."
        )
    return state


def _parse_outputs(outputs: Mapping[str, str]) -> ReplicaOutputs | None:
    user, role = outputs.get("PushUserName"), outputs.get("PushRoleArn")
    try:
        policy, subjects = outputs["PushPolicyArn"], tuple(outputs.get("PushRoleSubjects", "").splitlines())
        parsed = ReplicaOutputs(outputs["ReplicaUrl"], outputs["ReplicaArn"], user, policy, role, subjects)
    except KeyError:
        return None
    return parsed if user or role else None


def read_outputs(aws: boto3.Session, mirror: Mirror) -> ReplicaOutputs:
    """Read the stack's outputs.

    Raises:
        NotFoundError: this account and region has no such stack, or its repository does not exist.
        MirrorError: the stack has no outputs or belongs to something else, or the call failed.
    """
    location = f"region {aws.region_name}"
    stack = find_stack(aws, mirror)
    if stack is None and mirror.is_deployed_elsewhere:
        raise NotFoundError(not_found_elsewhere(mirror, str(aws.region_name)))
    if stack is None:
        raise NotFoundError(
            f"stack {mirror.stack_name!r} is not in {location} of this account; run 'codecommit-mirror up "
            f"{mirror.name}' or 'cdk deploy {mirror.name}', or correct the region or the AWS profile."
        )
    if stack.outputs is None:
        raise MirrorError(
            f"stack {mirror.stack_name!r} in {location} is {stack.status} and lacks outputs; run 'cdk deploy "
            f"{mirror.name}'."
        )
    if not mirror.existing:
        return stack.outputs
    url = find_clone_url(aws, mirror.name)
    if url is None:
        raise NotFoundError(missing_repository(mirror))
    return replace(stack.outputs, replica_url=url)


def read_template(cloudformation: CloudFormationClient, stack_name: str) -> Mapping[str, Any]:
    """Return the template that a stack was deployed with.

    Raises:
        MirrorError: the call failed.
    """
    with aws_failures(f"read the template of the stack {stack_name}"):
        template: Any = cloudformation.get_template(StackName=stack_name)["TemplateBody"]
    document: Mapping[str, Any] = YAML(typ="safe", pure=True).load(template) if isinstance(template, str) else template
    return document


def delete_without_cleanup(cloudformation: CloudFormationClient, stack_name: str) -> bool:
    """Delete a stack that was left because the function that deletes its user's credentials is gone, or failed.

    The user must have no credentials any more.

    Returns:
        Whether that function was what failed, so that the stack is gone now.

    Raises:
        MirrorError: it was not deleted; it says why.
    """
    with aws_failures(f"read the resources of the stack {stack_name}"):
        resources = cloudformation.describe_stack_resources(StackName=stack_name)["StackResources"]
    # What comes after it counts as failed, too, because its own deletion was cancelled.
    failed = [
        resource["LogicalResourceId"]
        for resource in resources
        if (resource["ResourceType"], resource["ResourceStatus"]) == (_CLEANUP_TYPE, "DELETE_FAILED")
    ]
    if failed:
        delete_stack(cloudformation, stack_name, retain=failed)
    return bool(failed)


def delete_stack(cloudformation: CloudFormationClient, stack_name: str, *, retain: Sequence[str] = ()) -> None:
    """Delete a stack, and wait until it is gone.

    Args:
        cloudformation: the client.
        stack_name: the stack's name.
        retain: logical ids of resources that could not be deleted, and are left.

    Raises:
        MirrorError: it was not deleted; it says why.
    """
    with aws_failures(f"delete the stack {stack_name}"):
        cloudformation.delete_stack(StackName=stack_name, RetainResources=list(retain))
        try:
            cloudformation.get_waiter("stack_delete_complete").wait(
                StackName=stack_name,
                WaiterConfig={"Delay": _POLL_SECONDS, "MaxAttempts": _DELETION_SECONDS // _POLL_SECONDS},
            )
        except exceptions.WaiterError:
            reasons = _failure_reason(cloudformation, stack_name)
            raise MirrorError(
                f"the stack {stack_name!r} was not deleted ({reasons}); correct that, and run again."
            ) from None


def _failure_reason(cloudformation: CloudFormationClient, stack_name: str) -> str:
    events = cloudformation.describe_stack_events(StackName=stack_name)["StackEvents"]
    failed = [e for e in events if e["ResourceStatus"] == "DELETE_FAILED" and e.get("ResourceStatusReason")]
    return failed[-1]["ResourceStatusReason"].rstrip(".") if failed else "it took too long"


def deletion_policy(template: Mapping[str, Any]) -> str | None:
    """Return the deletion policy of a template's repository, ``Delete`` or ``Retain``; None if it owns none."""
    repositories = [r for r in template.get("Resources", {}).values() if r.get("Type") == "AWS::CodeCommit::Repository"]
    return next((str(repository.get("DeletionPolicy", "Delete")) for repository in repositories), None)


def permissions_boundary(template: Mapping[str, Any], partition: str, account: str) -> str | None:
    """Return the ARN of the permissions boundary of a template's user; None if it has none.

    Args:
        template: the stack's.
        partition: of the account.
        account: its id.

    Raises:
        MirrorError: the boundary is not an ARN of the account's own.
    """
    users = [r for r in template.get("Resources", {}).values() if r.get("Type") == "AWS::IAM::User"]
    boundary: Any = users[0].get("Properties", {}).get("PermissionsBoundary") if users else None
    if boundary is None:
        return None
    known = {"AWS::Partition": partition, "AWS::AccountId": account}
    parts = boundary["Fn::Join"][1] if isinstance(boundary, dict) and "Fn::Join" in boundary else [boundary]
    try:
        return "".join(part if isinstance(part, str) else known[part["Ref"]] for part in parts)
    except (KeyError, TypeError):
        raise MirrorError(
            "the stack's user has a permissions boundary that is not known here; create the user again by hand, with "
            "that boundary, then run this again."
        ) from None
