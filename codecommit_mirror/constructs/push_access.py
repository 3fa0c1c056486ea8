"""Who may write to the replica: a user or a role, one policy, one action, one repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.identity import AZURE_AUDIENCE
from .federated_role import FederatedRole
from .identity_provider import provider_arn_of
from .nag_suppressions import acknowledge


@dataclass(frozen=True)
class PipelineUser:
    """The user whose Git credentials a pipeline has; they are issued by ``codecommit-mirror up``."""

    name: str | None = None
    """Unique in the account. Default: a generated name."""
    in_group: bool = False
    """Whether the policy is attached to a group with this user only, for rules that forbid policies on users. ``up``
    connects such a user only where our own stack has it, since a group's rights are not seen from the user."""


@dataclass(frozen=True)
class PipelineRole:
    """The role that a pipeline acts as, with tokens of its own and no secret."""

    issuer: str
    """Who signs the tokens, ``https://...``; ``IdentityProvider.issuer`` is that of an organization."""
    audience: str = AZURE_AUDIENCE
    """Whom the tokens are for."""
    subjects: Sequence[str] = ()
    """Whose tokens it trusts, without wildcards. Default: those of the mirror's pipeline, by its source's URL."""
    provider: iam.IOidcProvider | None = None
    """The account's identity provider. Default: the one that the account has for this issuer, in whatever stack."""
    name: str | None = None
    """Unique in the account. Default: a generated name."""


class PushAccess(Construct):
    """A policy that allows nothing but pushing to one repository, and whom it is for.

    Attributes:
        policy: the policy.
        user: the user, or None.
        role: the role, or None.
        writers: both, as the tag of the replica names them.

    Args:
        repository_arn: the only repository that may be pushed to.
        policy_name: the policy's name, or None.
        user: the user who may push, if any.
        role: the role that may push, if any.
        subjects: whose tokens the role trusts.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        repository_arn: str,
        policy_name: str | None,
        user: PipelineUser | None,
        role: PipelineRole | None,
        subjects: Sequence[str],
    ) -> None:
        super().__init__(scope, construct_id)
        self.policy = iam.ManagedPolicy(
            self,
            "Policy",
            managed_policy_name=policy_name,
            description="Push to the replica, and nothing else.",
            statements=[iam.PolicyStatement(actions=["codecommit:GitPush"], resources=[repository_arn])],
        )
        self.user = self._user(user) if user else None
        self.role = self._role(role, subjects) if role else None
        named = [f"user/{user.name or self.user.user_name}"] if user and self.user else []
        named += [f"role/{role.name or self.role.role_name}"] if role and self.role else []
        # A tag of CodeCommit has no commas, and a name of IAM has no colons.
        self.writers = " ".join(named).replace(",", ":")

    def _user(self, user: PipelineUser) -> iam.User:
        """Return a user that has no access key and no console password.

        Its HTTPS Git credentials are issued outside CloudFormation, which has no resource type for them.
        """
        if user.in_group:
            group = iam.Group(self, "Group", group_name=user.name, managed_policies=[self.policy])
            return iam.User(self, "User", user_name=user.name, groups=[group])
        made = iam.User(self, "User", user_name=user.name, managed_policies=[self.policy])
        acknowledge(
            made,
            dict.fromkeys(
                ("IAMUserNoPolicies", "IAMUserGroupMembership"),
                "One user for one replica: a group of one adds nothing to review (policy_on: group makes one).",
            ),
        )
        return made

    def _role(self, role: PipelineRole, subjects: Sequence[str]) -> iam.Role:
        """Return a role that trusts the tokens of the mirror's own pipeline only."""
        given = role.provider.oidc_provider_arn if role.provider else None
        return FederatedRole(
            self,
            "Pipeline",
            name=role.name,
            description="Pushes to the replica, and does nothing else.",
            provider_arn=given or provider_arn_of(Stack.of(self), role.issuer),
            issuer=role.issuer,
            audience=role.audience,
            subjects=subjects,
            policy=self.policy,
        ).role
