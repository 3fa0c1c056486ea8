"""The pipeline's IAM user, recreated when somebody deleted it: CloudFormation does not notice that."""

from __future__ import annotations

from typing import Any

from ..config.mirror import Mirror
from .stack import Denied, Missing, ReplicaOutputs, aws_failures


def restore(iam: Any, mirror: Mirror, outputs: ReplicaOutputs) -> bool:
    """Create the stack's user again if it is gone, with the tags and the policy that the stack gave it.

    Its Git credentials went with it, and are issued anew.

    Returns:
        Whether it was gone.

    Raises:
        MirrorError: a call failed.
    """
    user = outputs.push_user_name
    if not _is_gone(iam, user):
        return False
    tags = [{"Key": key, "Value": value} for key, value in {**mirror.tags, "managed-by": "codecommit-mirror"}.items()]
    with aws_failures(f"recreate the user {user}"):
        iam.create_user(UserName=user, Tags=tags)
        if mirror.policy_on == "group":
            iam.add_user_to_group(UserName=user, GroupName=user)
        else:
            iam.attach_user_policy(UserName=user, PolicyArn=outputs.push_policy_arn)
    return True


def _is_gone(iam: Any, user: str) -> bool:
    """Whether the user is known to be gone: whoever runs this may lack the permission to look."""
    try:
        with aws_failures(f"look for the user {user}"):
            iam.get_user(UserName=user)
    except Missing:
        return True
    except Denied:
        pass
    return False
