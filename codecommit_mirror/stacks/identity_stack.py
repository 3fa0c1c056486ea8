"""The account's identity provider for Azure Pipelines, which the roles of CI and of mirrors trust."""

from __future__ import annotations

from aws_cdk import CfnOutput, Environment, Stack, Tags
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.identity import IDENTITY_STACK_NAME, IdentityProvider


def provider_arn_of(stack: Stack, issuer: str) -> str:
    """Return the ARN that the account's provider for an issuer has, in whatever stack it is."""
    return f"arn:{stack.partition}:iam::{stack.account}:oidc-provider/{issuer.removeprefix('https://')}"


class IdentityStack(Stack):
    """One identity provider; IAM accepts each issuer once in an account.

    Output: ``ProviderArn``.

    Args:
        provider: issuer, audiences and account.
    """

    def __init__(self, scope: Construct, *, provider: IdentityProvider) -> None:
        super().__init__(
            scope,
            IDENTITY_STACK_NAME,
            stack_name=IDENTITY_STACK_NAME,
            description="Identity provider for Azure Pipelines, which the roles of codecommit-mirror trust",
            env=Environment(account=provider.account, region=provider.region),
        )
        native = iam.OidcProviderNative(self, "Provider", url=provider.issuer, client_ids=list(provider.audiences))
        Tags.of(self).add("managed-by", "codecommit-mirror")
        CfnOutput(self, "ProviderArn", value=native.oidc_provider_arn, description="ARN of the identity provider")
