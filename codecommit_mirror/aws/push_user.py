"""The pipeline's IAM user: what it may do beside pushing, and how it is created again if it was deleted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config.mirror import Mirror
from ..errors import DeniedError, NotFoundError
from .session import aws_failures
from .stack import ReplicaOutputs

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient


def restore(iam: IAMClient, mirror: Mirror, outputs: ReplicaOutputs) -> bool:
    """Create the stack's user again if it does not exist, with the mirror's tags and the stack's policy.

    Its Git credentials were deleted with it, and are issued anew later.

    Returns:
        Whether the user did not exist.

    Raises:
        MirrorError: a call failed.
    """
    user = outputs.user_of(mirror)
    if not _is_missing(iam, user):
        return False
    tags = {**mirror.tags, "managed-by": "codecommit-mirror"}
    with aws_failures(f"recreate the user {user}"):
        iam.create_user(UserName=user, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
        if mirror.policy_on == "group":
            iam.add_user_to_group(UserName=user, GroupName=user)
        else:
            iam.attach_user_policy(UserName=user, PolicyArn=outputs.push_policy_arn)
    return True


def foreign_rights(iam: IAMClient, mirror: Mirror, outputs: ReplicaOutputs) -> list[str]:
    """Return what the mirror's user or role has beside the stack's own policy: policies, access keys, groups, SSH keys.

    Raises:
        NotFoundError: it does not exist.
        MirrorError: a call failed.
    """
    if outputs.push_user_name is None:
        role = str(outputs.push_role_arn).rpartition("/")[2]
        with aws_failures(f"read the policies of the role {role}"):
            attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
            inline = iam.list_role_policies(RoleName=role)["PolicyNames"]
        return _foreign_policies(attached, inline, outputs)
    user = outputs.push_user_name
    with aws_failures(f"read the policies and keys of the user {user}"):
        found = _foreign_policies(
            iam.list_attached_user_policies(UserName=user)["AttachedPolicies"],
            iam.list_user_policies(UserName=user)["PolicyNames"],
            outputs,
        )
        own_group = [user] if mirror.policy_on == "group" else []
        groups = [group["GroupName"] for group in iam.list_groups_for_user(UserName=user)["Groups"]]
        found += [f"the group {name}" for name in groups if name not in own_group]
        found += [f"the access key {key['AccessKeyId']}" for key in _access_keys(iam, user)]
        keys = iam.list_ssh_public_keys(UserName=user).get("SSHPublicKeys", [])
        found += [f"the SSH key {key['SSHPublicKeyId']}" for key in keys]
    return found


def _access_keys(iam: IAMClient, user: str) -> list[Any]:
    return list(iam.list_access_keys(UserName=user)["AccessKeyMetadata"])


def _foreign_policies(attached: Sequence[Any], inline: Sequence[str], outputs: ReplicaOutputs) -> list[str]:
    foreign = [policy["PolicyName"] for policy in attached if policy["PolicyArn"] != outputs.push_policy_arn]
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
