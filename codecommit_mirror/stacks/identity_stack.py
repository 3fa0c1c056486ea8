"""The stack of an account's identity provider for Azure Pipelines."""

from __future__ import annotations

from aws_cdk import CfnOutput, Environment, Stack, Tags
from constructs import Construct

from ..config.identity import IDENTITY_STACK_NAME
from ..config.identity import IdentityProvider as Settings
from ..constructs import IdentityProvider


class IdentityStack(Stack):
    """One identity provider for the roles of mirrors and of CI.

    Output: ``ProviderArn``.

    Args:
        provider: issuer, audiences and account.
        suffix: what its id in the app ends with, where the app has several.
    """

    def __init__(self, scope: Construct, *, provider: Settings, suffix: str = "") -> None:
        super().__init__(
            scope,
            f"{IDENTITY_STACK_NAME}{suffix}",
            stack_name=IDENTITY_STACK_NAME,
            description="Identity provider for Azure Pipelines, which the roles of codecommit-mirror trust",
            env=Environment(account=provider.account, region=provider.region),
        )
        own = IdentityProvider(self, "Azure", issuer=provider.issuer, audiences=provider.audiences).provider
        Tags.of(self).add("managed-by", "codecommit-mirror")
        CfnOutput(self, "ProviderArn", value=own.oidc_provider_arn, description="ARN of the identity provider")
