"""Who may write to the replica: one user or one role, one policy, one action, one repository."""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.identity import EarlierSignIn
from ..config.mirror import Mirror
from .federated_role import FederatedRole
from .identity_stack import provider_arn_of
from .nag_suppressions import acknowledge


class PushAccess(Construct):
    """A policy that allows nothing but pushing to one repository, and whom it is for.

    Args:
        repository_arn: the only repository that may be pushed to.
        mirror: the mirror, which names the policy, and the user or the role.
        earlier: what the pipeline signed in with before it changed, and still needs.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, repository_arn: str, mirror: Mirror, earlier: EarlierSignIn | None
    ) -> None:
        super().__init__(scope, construct_id)
        policy = iam.ManagedPolicy(
            self,
            "Policy",
            managed_policy_name=mirror.policy_name,
            description="Push to the replica, and nothing else.",
            statements=[iam.PolicyStatement(actions=["codecommit:GitPush"], resources=[repository_arn])],
        )
        self.policy_arn = policy.managed_policy_arn
        has_role = mirror.replica_auth == "role"
        self.user = self._user(mirror, policy) if not has_role or (earlier and earlier.user) else None
        self.subjects = tuple(
            dict.fromkeys(([mirror.token_subject] if has_role else []) + self._earlier(mirror, earlier))
        )
        """Whose tokens the role trusts; empty if there is none."""
        self.role = self._role(mirror, policy) if self.subjects else None

    @staticmethod
    def _earlier(mirror: Mirror, earlier: EarlierSignIn | None) -> list[str]:
        """Return whose tokens the role trusted before, if mirrors.yaml still says who signs them."""
        return list(earlier.subjects) if earlier and mirror.identity.issuer_url else []

    def _user(self, mirror: Mirror, policy: iam.ManagedPolicy) -> iam.User:
        """Return a user that has no access key and no console password.

        Its HTTPS Git credentials are issued outside CloudFormation, which has no resource type for them.
        """
        if mirror.policy_on == "group":
            group = iam.Group(self, "Group", group_name=mirror.user_name, managed_policies=[policy])
            return iam.User(self, "User", user_name=mirror.user_name, groups=[group])
        user = iam.User(self, "User", user_name=mirror.user_name, managed_policies=[policy])
        acknowledge(
            user,
            dict.fromkeys(
                ("IAMUserNoPolicies", "IAMUserGroupMembership"),
                "One user for one replica: a group of one adds nothing to review (policy_on: group makes one).",
            ),
        )
        return user

    def _role(self, mirror: Mirror, policy: iam.ManagedPolicy) -> iam.Role:
        """Return a role that trusts the tokens of the mirror's own pipeline only."""
        identity, issuer = mirror.identity, str(mirror.identity.issuer_url)
        return FederatedRole(
            self,
            "Pipeline",
            name=mirror.role_name,
            description="Pushes to the replica, and does nothing else.",
            provider_arn=identity.provider_arn or provider_arn_of(Stack.of(self), issuer),
            issuer=issuer,
            audience=identity.audience,
            subjects=self.subjects,
            policy=policy,
        ).role
