"""What a command works with: a mirror, and clients for both clouds that are made when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx

from ..aws import session
from ..azure.client import AzureDevOps
from ..azure.token import AzureToken, find_token
from ..azure.variables import AZURE_SECRETS
from ..config.mirror import Mirror

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

Ask = Callable[[str], str]
"""Asks a person for a secret."""


@dataclass
class MirrorContext:
    """A mirror and what is needed to work on it.

    Args:
        mirror: the mirror.
        environment: has the tokens and secrets.
        folder: the CDK project's folder.
        cdk_context: how the CDK app finds the mirror: ``-c key=value`` pairs.
        ask: asks a person for a secret; None if there is nobody to ask.
        azure_transport: an httpx transport for Azure DevOps, for tests.
    """

    mirror: Mirror
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    cdk_context: tuple[str, ...] = ()
    ask: Ask | None = None
    azure_transport: httpx.BaseTransport | None = None

    @cached_property
    def source_secrets(self) -> dict[str, str]:
        """The source's Git credentials, by variable name: from the environment, and as a person enters them."""
        return {name: self.environment[name] for name in AZURE_SECRETS if self.environment.get(name)}

    @cached_property
    def aws(self) -> boto3.Session:
        """A session in the mirror's account and region."""
        return session.session(self.mirror)

    @cached_property
    def account(self) -> str:
        """The account of the AWS credentials."""
        return session.account_of(self.aws)

    @cached_property
    def iam(self) -> IAMClient:
        """A client for IAM."""
        return session.client(self.aws, "iam")

    @cached_property
    def token(self) -> AzureToken:
        """The token for Azure DevOps."""
        return find_token(self.environment)

    @cached_property
    def azure(self) -> AzureDevOps:
        """A client for the mirror's Azure DevOps project."""
        return AzureDevOps(self.mirror.azure, self.token, transport=self.azure_transport)
