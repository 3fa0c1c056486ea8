"""Who pushes to a replica, an IAM user or role: for which pipeline, and with what other rights."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3

from ..config.ci import REPLICA
from ..config.mirror import PIPELINE_TAG, RECORD_TAGS, SOURCE_TAG, Mirror
from ..errors import DeniedError, MirrorError, NotFoundError
from .session import aws_failures, client
from .stack import ReplicaOutputs

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_iam import IAMClient


_PENDING = "new-"


@dataclass(frozen=True)
class PipelineRecord:
    """Which pipeline pushes, and from which source: ids, which outlive changes of name and place.

    It is kept in tags of the user or role, so that who may change it is who may change what that may do.
    """

    project: str
    """The id of the Azure DevOps project."""
    definition: int | None
    """The id of the pipeline; None while it is being created."""
    source: str
    """The id of the source repository."""
    pending: str = ""
    """The mark of a pipeline that is being created, by which a command that was stopped then knows its own."""
    is_of_role: bool = field(default=False, compare=False)
    """Whether it was read from the tags of a role, which CI may write."""

    def tags(self, replica_arn: str) -> list[dict[str, str]]:
        """Return the record, as IAM takes tags, which say whose it is: a stack may name another mirror's user."""
        values = {
            PIPELINE_TAG: f"{self.project}/{self.definition or f'{_PENDING}{self.pending}'}",
            SOURCE_TAG: f"{self.source}/{replica_arn}",
        }
        return [{"Key": key, "Value": value} for key, value in values.items()]


def parse_record(tags: Iterable[Any], *, is_of_role: bool = False) -> tuple[PipelineRecord, str] | None:
    """Return the record that tags hold, and the ARN of its replica; None if they hold none, or one of another form."""
    values = {tag["Key"]: tag["Value"] for tag in tags}
    project, _, definition = values.get(PIPELINE_TAG, "").partition("/")
    source, _, replica_arn = values.get(SOURCE_TAG, "").partition("/")
    if not (project and source and replica_arn):
        return None
    if definition.startswith(_PENDING):
        record = PipelineRecord(project, None, source, definition.removeprefix(_PENDING), is_of_role)
    elif re.fullmatch("[0-9]{1,10}", definition):
        record = PipelineRecord(project, int(definition), source, is_of_role=is_of_role)
    else:
        return None
    return record, replica_arn


def read_record(iam: IAMClient, outputs: ReplicaOutputs) -> PipelineRecord | None:
    """Return the pipeline that a stack's user or role is for; None if nothing is recorded or neither exists.

    What the user's tags say goes first, since CI may tag roles.

    Raises:
        MirrorError: the record is of another replica, or a call failed.
    """
    for role, name in _writers(outputs):
        found = parse_record(_tags_of(iam, name, role=role), is_of_role=role)
        if found and found[1] != outputs.replica_arn:
            raise MirrorError(
                f"the {'role' if role else 'user'} {name!r}, which the stack of {outputs.replica_arn} names, is "
                f"recorded as that of {found[1]}: look for who changed the stack's outputs, and deploy it again."
            )
        if found:
            return found[0]
    return None


def _tags_of(iam: IAMClient, name: str, *, role: bool) -> Sequence[Any]:
    """Return the tags of a role or a user; none if it does not exist."""
    try:
        with aws_failures(f"read the tags of {name}"):
            return (iam.list_role_tags(RoleName=name) if role else iam.list_user_tags(UserName=name))["Tags"]
    except NotFoundError:
        return ()


def write_record(iam: IAMClient, outputs: ReplicaOutputs, record: PipelineRecord) -> None:
    """Record the pipeline in the tags of a stack's user, of its role, or of both while it has both.

    Raises:
        MirrorError: a call failed.
    """
    tags: Any = record.tags(outputs.replica_arn)
    for role, name in _writers(outputs):
        with aws_failures(f"tag {name}"):
            if role:
                iam.tag_role(RoleName=name, Tags=tags)
            else:
                iam.tag_user(UserName=name, Tags=tags)


def announce(iam: IAMClient, outputs: ReplicaOutputs, record: PipelineRecord | None, project: str, source: str) -> str:
    """Record that a pipeline is being created, and return the mark that it gets.

    Args:
        iam: a client for IAM.
        outputs: the stack's.
        record: what is recorded now.
        project: the id of the Azure DevOps project.
        source: the id of the source repository.

    Raises:
        MirrorError: a call failed.
    """
    if record and record.pending and (record.project, record.source) == (project, source):
        return record.pending
    mark = f"codecommit-mirror-{secrets.token_hex(8)}"
    write_record(iam, outputs, PipelineRecord(project, None, source, mark))
    return mark


def drifted_resources(cloudformation: CloudFormationClient, stack_name: str) -> list[str]:
    """Return the logical ids of resources that CloudFormation found to differ from the template, beside the record.

    CloudFormation reports tags that are not the template's as drift where the template has tags:
    https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/955

    Raises:
        MirrorError: the call failed.
    """
    with aws_failures(f"read the drift of the stack {stack_name}"):
        # One page has a hundred, and a mirror's stack has about ten resources.
        drifts = cloudformation.describe_stack_resource_drifts(
            StackName=stack_name, StackResourceDriftStatusFilters=["MODIFIED", "DELETED"]
        )["StackResourceDrifts"]
    return [drift["LogicalResourceId"] for drift in drifts if not _differs_by_record_only(drift)]


def _differs_by_record_only(drift: Any) -> bool:
    if drift["StackResourceDriftStatus"] != "MODIFIED":
        return False
    expected, actual = (_without_record(json.loads(drift[key])) for key in ("ExpectedProperties", "ActualProperties"))
    return expected == actual


def _without_record(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return properties with the tags, which may be a list or an object, as an object without the record."""
    tags = properties.get("Tags") or {}
    values = tags if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}
    kept = {key: value for key, value in values.items() if key not in RECORD_TAGS}
    return {**properties, "Tags": kept}


def _writers(outputs: ReplicaOutputs) -> list[tuple[bool, str]]:
    """Return the names of a stack's user and role, and whether each is a role: it comes last, since CI may tag it."""
    role = (outputs.push_role_arn or "").rpartition("/")[2]
    return [(kind, name) for kind, name in ((False, outputs.push_user_name), (True, role)) if name]


def restore(iam: IAMClient, mirror: Mirror, outputs: ReplicaOutputs, boundary: str | None) -> bool:
    """Create the stack's user again if it does not exist, with its tags, policy and permissions boundary.

    Its Git credentials were deleted with it, and are issued anew later.

    Args:
        iam: a client for IAM.
        mirror: the mirror.
        outputs: the stack's.
        boundary: the ARN of the user's permissions boundary, if the stack gives it one.

    Returns:
        Whether the user did not exist.

    Raises:
        MirrorError: a call failed.
    """
    user = outputs.user_of(mirror)
    if not _is_missing(iam, user):
        return False
    tags = {**mirror.tags, "managed-by": "codecommit-mirror", REPLICA: outputs.replica_arn}
    policy = str(outputs.push_policy_arn)
    is_group = mirror.policy_on == "group"
    with aws_failures(f"recreate the user {user}"):
        wrong = [] if _only_pushes(iam, policy, outputs) else [f"policy {policy}"]
        wrong += [f"group {user!r}"] if is_group and _rights_of_group(iam, user, outputs) else []
        if wrong:
            raise MirrorError(
                f"the {wrong[0]}, which the stack {mirror.stack_name!r} names, does more than let a pipeline push to "
                "the replica, so no user gets it: deploy the stack again, and look for who changed its outputs."
            )
        bounded: Any = {"PermissionsBoundary": boundary} if boundary else {}
        iam.create_user(UserName=user, Tags=[{"Key": key, "Value": value} for key, value in tags.items()], **bounded)
        if is_group:
            iam.add_user_to_group(UserName=user, GroupName=user)
        else:
            iam.attach_user_policy(UserName=user, PolicyArn=policy)
    return True


def foreign_rights(iam: IAMClient, mirror: Mirror, outputs: ReplicaOutputs) -> list[str]:
    """Return what the mirror's user or role has beside the stack's own policy: policies, groups, keys, a password.

    Raises:
        NotFoundError: it does not exist.
        MirrorError: a call failed.
    """
    if outputs.push_user_name is None:
        role = str(outputs.push_role_arn).rpartition("/")[2]
        with aws_failures(f"read the policies of the role {role}"):
            attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
            inline = iam.list_role_policies(RoleName=role)["PolicyNames"]
        return _foreign_policies(attached, inline, _own_policy(iam, attached, outputs))
    user = outputs.push_user_name
    with aws_failures(f"read the policies and keys of the user {user}"):
        attached = iam.list_attached_user_policies(UserName=user)["AttachedPolicies"]
        inline = iam.list_user_policies(UserName=user)["PolicyNames"]
        rights = _foreign_policies(attached, inline, _own_policy(iam, attached, outputs))
        own_group = [user] if mirror.policy_on == "group" and not mirror.is_deployed_elsewhere else []
        groups = [group["GroupName"] for group in iam.list_groups_for_user(UserName=user)["Groups"]]
        rights += [f"the group {name}" for name in groups if name not in own_group]
        rights += [right for name in groups if name in own_group for right in _rights_of_group(iam, name, outputs)]
        rights += [f"the access key {key['AccessKeyId']}" for key in _access_keys(iam, user)]
        keys = iam.list_ssh_public_keys(UserName=user).get("SSHPublicKeys", [])
        rights += [f"the SSH key {key['SSHPublicKeyId']}" for key in keys]
        if _has_console_password(iam, user):
            rights.append("a console password")
    return rights


def other_rights(iam: IAMClient, mirror: Mirror, outputs: ReplicaOutputs) -> str | None:
    """Return that who pushes to a replica may do more than that; None if that is not so.

    A stack's outputs name that user or role, or the tags of a replica of another CDK app; without this, whoever may
    change those could name anybody, whose Git credentials the pipeline would get.

    Raises:
        MirrorError: these credentials may not look.
    """
    rights = foreign_rights(iam, mirror, outputs)
    if not rights:
        return None
    who = outputs.push_user_name or str(outputs.push_role_arn).rpartition("/")[2]
    named = f"the tags of {mirror.name}" if mirror.is_deployed_elsewhere else f"the outputs of {mirror.stack_name!r}"
    return (
        f"the {mirror.replica_auth} {who!r}, whom {named} name, also has {', '.join(rights)}; who pushes to a replica "
        "may do nothing else: correct what names it, or take that away."
    )


def _has_console_password(iam: IAMClient, user: str) -> bool:
    try:
        with aws_failures(f"look for a console password of the user {user}"):
            iam.get_login_profile(UserName=user)
    except NotFoundError:
        return False
    return True


def _access_keys(iam: IAMClient, user: str) -> list[Any]:
    return list(iam.list_access_keys(UserName=user)["AccessKeyMetadata"])


def _own_policy(iam: IAMClient, attached: Sequence[Any], outputs: ReplicaOutputs) -> str | None:
    """Return the ARN of the policy that only allows pushing to the replica, whatever it is called."""
    arns: list[str] = [policy["PolicyArn"] for policy in attached]
    return next((arn for arn in arns if _only_pushes(iam, arn, outputs)), None)


def _rights_of_group(iam: IAMClient, group: str, outputs: ReplicaOutputs) -> list[str]:
    """Return what a group of the mirror's own allows beside pushing to the replica."""
    attached = iam.list_attached_group_policies(GroupName=group)["AttachedPolicies"]
    inline = iam.list_group_policies(GroupName=group)["PolicyNames"]
    return _foreign_policies(attached, inline, _own_policy(iam, attached, outputs))


def _only_pushes(iam: IAMClient, arn: str, outputs: ReplicaOutputs) -> bool:
    """Whether a policy allows pushing to the replica, and nothing else: a stack's outputs may name any other."""
    pushing = {"Effect": "Allow", "Action": "codecommit:GitPush", "Resource": outputs.replica_arn}
    version = iam.get_policy(PolicyArn=arn)["Policy"].get("DefaultVersionId", "")
    document: Any = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"].get("Document", {})
    return document.get("Statement") in (pushing, [pushing])


def _foreign_policies(attached: Sequence[Any], inline: Sequence[str], own: str | None) -> list[str]:
    foreign = [policy["PolicyName"] for policy in attached if policy["PolicyArn"] != own]
    return [*(f"the policy {name}" for name in foreign), *(f"the inline policy {name}" for name in inline)]


def _is_missing(iam: IAMClient, user: str) -> bool:
    """Whether the user is known not to exist; these credentials may not be allowed to look."""
    try:
        with aws_failures(f"look for the user {user}"):
            iam.get_user(UserName=user)
    except NotFoundError:
        return True
    except DeniedError:
        return False
    return False


def taken_names(mirror: Mirror, aws: boto3.Session, account: str) -> list[str]:
    """Return what IAM has already of a mirror that is not deployed, one sentence each.

    Raises:
        MirrorError: a call failed.
    """
    iam = client(aws, "iam")
    partition = aws.get_partition_for_region(str(aws.region_name))
    policy_arn = f"arn:{partition}:iam::{account}:policy/{mirror.policy_name}"
    taken = []
    if mirror.replica_auth == "role":
        if _exists(lambda: iam.get_role(RoleName=mirror.role_name)):
            taken.append(f"there is already an IAM role {mirror.role_name!r}; give the mirror another role_name.")
    elif _exists(lambda: iam.get_user(UserName=mirror.user_name)):
        taken.append(f"there is already an IAM user {mirror.user_name!r}; give the mirror another user_name.")
    if _exists(lambda: iam.get_policy(PolicyArn=policy_arn)):
        taken.append(f"there is already an IAM policy {mirror.policy_name!r}; give the mirror another policy_name.")
    return taken


def _exists(get: Callable[[], object]) -> bool:
    """Whether something exists that these credentials may see."""
    with suppress(NotFoundError, DeniedError), aws_failures("look for resources with the mirror's names"):
        return bool(get())
    return False
