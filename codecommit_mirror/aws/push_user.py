"""The pipeline's IAM user, recreated if somebody deleted it, which CloudFormation does not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.mirror import Mirror
from .session import DeniedError, NotFoundError, aws_failures
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
