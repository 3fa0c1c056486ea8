"""A role for jobs of a CI service, which show a token of OpenID Connect in place of a key."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_iam as iam
from constructs import Construct


class FederatedRole(Construct):
    """A role with one policy, which tokens of exactly these subjects may assume.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-idp_oidc.html

    Args:
        name: the role's name, unique in the account; None for a generated one.
        description: what it is for.
        provider_arn: the identity provider of the account.
        issuer: the provider's address, ``https://...``.
        audience: whom the tokens are for.
        subjects: whose tokens; no wildcards.
        policy: what the role may do.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str | None,
        description: str,
        provider_arn: str,
        issuer: str,
        audience: str,
        subjects: Sequence[str],
        policy: iam.IManagedPolicy,
    ) -> None:
        super().__init__(scope, construct_id)
        host = issuer.removeprefix("https://")
        conditions = {"StringEquals": {f"{host}:aud": audience, f"{host}:sub": list(subjects)}}
        self.role = iam.Role(
            self,
            "Role",
            role_name=name,
            description=description,
            assumed_by=iam.WebIdentityPrincipal(provider_arn, conditions),
            max_session_duration=Duration.hours(1),
            managed_policies=[policy],
        )
