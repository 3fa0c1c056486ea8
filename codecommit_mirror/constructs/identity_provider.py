"""An account's identity provider for Azure Pipelines, which the roles of CI and of mirrors trust."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.identity import AZURE_AUDIENCE


def provider_arn_of(stack: Stack, issuer: str) -> str:
    """Return the ARN that the account's provider for an issuer has, in whatever stack it is."""
    return f"arn:{stack.partition}:iam::{stack.account}:oidc-provider/{issuer.removeprefix('https://')}"


class IdentityProvider(Construct):
    """One identity provider; IAM accepts each issuer once in an account.

    Attributes:
        issuer: who signs the tokens.
        provider: the provider.

    Args:
        issuer: the address that the tokens name; that of an organization is
            ``https://vstoken.dev.azure.com/ORGANIZATION_ID``.
        audiences: whom the tokens are for.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, issuer: str, audiences: Sequence[str] = (AZURE_AUDIENCE,)
    ) -> None:
        super().__init__(scope, construct_id)
        self.issuer = issuer
        self.provider = iam.OidcProviderNative(self, "Provider", url=issuer, client_ids=list(audiences))
