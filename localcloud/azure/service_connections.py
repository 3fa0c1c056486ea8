"""Service connections, which store no key: a token is exchanged at each step.

Those of the AWS toolkit with *Use OIDC*, those of the kind *Azure DevOps*, and those of *Azure Resource Manager* with
workload identity federation. A person permits a pipeline to use one, and *Branch control* limits it to runs all of
whose linked repositories are at certain branches: it does not look at which pipeline or repository that is.

https://github.com/aws/aws-toolkit-azure-devops,
https://learn.microsoft.com/azure/devops/pipelines/library/add-devops-entra-service-connection and
https://learn.microsoft.com/azure/devops/pipelines/process/approvals#branch-control
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from ..oidc import Issuers

AUDIENCE = "api://AzureADTokenExchange"
_BRANCH_CONTROL = "86b05a0c-73e6-4f7d-b3cf-e38f3b39a75b"
"""Recorded in what people send to Check Configurations - Add."""
_NAMESPACE = uuid.UUID("5d2d60c9-3b43-4a1f-9d2c-4a3b5a8d3f10")

Project = tuple[str, str]
"""Organization and project."""


def organization_id(organization: str) -> str:
    """Return the id of an organization, as ``_apis/connectionData`` tells it."""
    return str(uuid.uuid5(_NAMESPACE, organization))


def issuer(organization: str) -> str:
    """Return the issuer of an organization's tokens."""
    return f"https://vstoken.dev.azure.com/{organization_id(organization)}"


AWS, AZURE_DEVOPS, AZURE_RM = "aws", "azureDevOps", "azureRM"
"""Kinds of connections; the last two as the task ``AzureCLI@3`` calls them."""


@dataclass(frozen=True)
class _Connection:
    kind: str
    principal: str
    """The ARN of the role, or the Entra identity."""
    branches: Sequence[str] | None
    """Full names of the branches whose runs may use it; None for all."""
    is_open: bool = False
    """Whether every pipeline may use it."""
    pipelines: set[int] = field(default_factory=set)
    """Ids of the pipelines that may use it."""


class ServiceConnections:
    """All of them, by project and name.

    Args:
        issuers: sign the tokens.
        aws: variables that point a script at AWS.
    """

    def __init__(self, issuers: Issuers, aws: Mapping[str, str]) -> None:
        self._issuers, self._aws = issuers, aws
        self._known: dict[tuple[Project, str], _Connection] = {}

    @property
    def machine(self) -> Mapping[str, str]:
        """Variables of the agent's machine.

        It is in a network of its own, whose endpoints' names tell no region, and keeps what CDK has unpacked, as one's
        own agent does; without that, each synthesis unpacks the whole library.
        """
        same = ("AWS_REGION", "JSII_RUNTIME_PACKAGE_CACHE_ROOT")
        return {"AWS_ENDPOINT_URL_STS": self._aws["AWS_ENDPOINT_URL"], **{name: self._aws[name] for name in same}}

    def sign_for_pipeline(self, organization: str, project: str, pipeline: str) -> str:
        """Return a token with a pipeline's own subject, for a job that names no service connection.

        Recorded: https://github.com/stackitcloud/terraform-provider-stackit/issues/1321.
        """
        return self._issuers.sign(issuer(organization), AUDIENCE, f"p://{organization}/{project}/{pipeline}")

    def add(
        self,
        project: Project,
        name: str,
        principal: str,
        branches: Sequence[str] | None,
        kind: str = AWS,
        *,
        is_open: bool = False,
    ) -> None:
        """Add a connection; ``branches`` limits it by a branch control check."""
        self._known[project, name] = _Connection(kind, principal, branches, is_open)

    def permit(self, project: Project, name: str, definition_id: int) -> None:
        """Permit a pipeline to use a connection."""
        self._known[project, name].pipelines.add(definition_id)

    def denial_reason(
        self, project: Project, name: str, kind: str, definition_id: int, refs: Sequence[str]
    ) -> str | None:
        """Return why a pipeline's run may not use a connection.

        Args:
            project: where the pipeline is.
            name: the connection's.
            kind: of which kind the task needs it.
            definition_id: the pipeline's.
            refs: those of all linked repositories.
        """
        found = self._known.get((project, name))
        if found is None or found.kind != kind:
            return f"The pipeline is not valid. The service connection {name} of type {kind} could not be found."
        if not found.is_open and definition_id not in found.pipelines:
            return f"This pipeline needs permission to use the service connection {name} before its run can go on."
        other = next((ref for ref in refs if found.branches is not None and ref not in found.branches), None)
        if other:
            return f"Branch control: {other} is not among the branches that may use the service connection {name}."
        return None

    def describe(self, project: Project, name: str) -> dict[str, Any] | None:
        """Return what the REST API says of a connection: its id, its pipelines, and its branch control check."""
        found = self._known.get((project, name))
        if found is None:
            return None
        check = {
            "id": 1,
            "type": {"name": "Task Check"},
            "settings": {
                "displayName": "Branch control",
                "definitionRef": {"id": _BRANCH_CONTROL, "name": "evaluatebranchProtection", "version": "0.0.1"},
                "inputs": {"allowedBranches": ", ".join(found.branches or ()), "ensureProtectionOfBranch": "true"},
            },
        }
        permitted = [{"id": number, "authorized": True} for number in sorted(found.pipelines)]
        return {
            "id": str(uuid.uuid5(_NAMESPACE, "/".join((*project, name)))),
            "open": found.is_open,
            "pipelines": permitted,
            "checks": [] if found.branches is None else [check],
        }

    def names(self, project: Project) -> list[str]:
        """Return the names of a project's connections."""
        return [name for where, name in self._known if where == project]

    def identity(self, project: Project, name: str) -> str:
        """Return the Entra identity of a connection."""
        return self._known[project, name].principal

    def aws_environment(self, project: Project, name: str, region: str, seconds: int) -> Mapping[str, str]:
        """Return the variables of a script that acts as the connection's role.

        Raises:
            RuntimeError: AWS gives no credentials for the token.
        """
        subject = f"sc://{project[0]}/{project[1]}/{name}"
        token = self._issuers.sign(issuer(project[0]), AUDIENCE, subject)
        sts = boto3.client(
            "sts", region, endpoint_url=self._aws["AWS_ENDPOINT_URL"], config=Config(signature_version=UNSIGNED)
        )
        try:
            given = sts.assume_role_with_web_identity(
                RoleArn=self._known[project, name].principal,
                RoleSessionName="aws-vsts-tools",
                WebIdentityToken=token,
                DurationSeconds=seconds,
            )["Credentials"]
        except ClientError as error:
            raise RuntimeError(str(error)) from None
        return {
            **self._aws,
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
        }
