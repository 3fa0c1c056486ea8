"""Who runs this program, and for which mirror: an AWS session and an Azure DevOps client, made when first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from ..aws import stack as aws
from ..azure import token as azure_token
from ..azure.client import AzureDevOps
from ..azure.connection import AZURE_SECRETS
from ..config.mirror import Mirror

Ask = Callable[[str], str]


@dataclass
class Operator:
    """What the commands that change something work with.

    Args:
        mirror: the mirror.
        environment: has the tokens.
        folder: the CDK project's.
        context: what tells the CDK app of the mirror: ``-c key=value`` pairs.
        ask: asks a person for a secret; None where nobody can be asked.
    """

    mirror: Mirror
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    context: tuple[str, ...] = ()
    ask: Ask | None = None

    @cached_property
    def source_secrets(self) -> dict[str, str]:
        """The source's Git credentials, by their variables' names: those of the environment, and what was asked for."""
        return {name: self.environment[name] for name in AZURE_SECRETS if self.environment.get(name)}

    @cached_property
    def aws(self) -> boto3.Session:
        return aws.session(self.mirror)

    @cached_property
    def account(self) -> str:
        return aws.account_of(self.aws)

    @cached_property
    def iam(self) -> Any:
        return aws.client(self.aws, "iam")

    @cached_property
    def token(self) -> azure_token.AzureToken:
        return azure_token.find_token(self.environment)

    @cached_property
    def azure(self) -> AzureDevOps:
        return AzureDevOps(self.mirror.azure, self.token)
