"""Who may write to the replica: one user, one policy, one action, one repository."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from constructs import Construct

from .nag_suppressions import acknowledge


class PushAccess(Construct):
    """An IAM user that can do nothing but push to one repository.

    It has no access key and no console password; its HTTPS Git credentials are issued outside CloudFormation,
    which has no resource type for them.

    Args:
        repository_arn: the only repository that the user may push to.
        policy_name: the managed policy's name, unique in the account.
        user_name: the user's name, unique in the account.
        policy_on_group: attach the policy to a group of the user's name, with that one member, in place of the user.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        repository_arn: str,
        policy_name: str,
        user_name: str,
        policy_on_group: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        policy = iam.ManagedPolicy(
            self,
            "Policy",
            managed_policy_name=policy_name,
            description="Push to the replica, and nothing else.",
            statements=[iam.PolicyStatement(actions=["codecommit:GitPush"], resources=[repository_arn])],
        )
        if policy_on_group:
            group = iam.Group(self, "Group", group_name=user_name, managed_policies=[policy])
            self.user = iam.User(self, "User", user_name=user_name, groups=[group])
        else:
            self.user = iam.User(self, "User", user_name=user_name, managed_policies=[policy])
            acknowledge(
                self.user,
                dict.fromkeys(
                    ("IAMUserNoPolicies", "IAMUserGroupMembership"),
                    "One user for one replica: a group of one adds nothing to review (policy_on: group makes one).",
                ),
            )
        self.policy_arn = policy.managed_policy_arn
