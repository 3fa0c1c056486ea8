"""The section ``ci`` of ``mirrors.yaml``: which CI service provisions the mirrors, and how AWS recognises its jobs.

No AWS key is stored there: each job gets an OpenID Connect token from its own service, and AWS exchanges it for the
credentials of a role (AssumeRoleWithWebIdentity). A role trusts the token's issuer, audience and subject:

- https://docs.github.com/en/actions/reference/security/oidc
- https://github.com/aws/aws-toolkit-azure-devops (its AWS service connection with *Use OIDC*)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ..errors import ConfigurationError
from ..guard.names import REPLICA_TAG
from .fields import ACCOUNT, AZURE_NAME, BRANCH, REGION, matching
from .identity import (
    AUDIENCE,
    AZURE_AUDIENCE,
    GUID,
    IN_POLICIES,
    ISSUER,
    PROVIDER_ARN,
    SUBJECT,
    WHERE_THE_ID_IS,
    azure_issuer,
)
from .mirror import AgentPool
from .mirrors_file import MirrorsFile
from .validation_messages import sentences

Service = Literal["azure", "github"]

PREFIX = "codecommit-mirror"
PROVISIONED_FROM, REPLICA = "codecommit-mirror:provisioned-from", REPLICA_TAG
"""Tags of a stack: whose ``mirrors.yaml`` it comes from, and its name there."""
TEMPLATE = "codecommit-mirror:template"
"""The tag of a mirror's stack that says what its template is made of: the generation, and a digest of the settings."""
TEMPLATE_GENERATION = 1
"""Raised whenever the same settings make another template of a mirror, so that a plan for a fleet reads none."""
QUALIFIER_KEY, BOUNDARY_KEY = "codecommit-mirror:qualifier", "codecommit-mirror:boundary"
"""Context of mirrors that are deployed with a bootstrap and a permissions boundary of their own (docs/ci.md)."""
SOURCE_METADATA = "codecommit-mirror:source"
"""The key of a template's metadata with what mirrors.yaml says of the source."""

_NAME = matching(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", "a short name", "use up to 20 of a-z, 0-9 and -")
_GITHUB_REPOSITORY = matching(
    r"(?!.*\.git$)([A-Za-z0-9-]+/[\w.-]+|[A-Za-z0-9-]+@[0-9]+/[\w.-]+@[0-9]+)",
    "a GitHub repository",
    "write contoso/mirrors or, with GitHub's ids, contoso@123/mirrors@456",
)
_PEOPLE = matching(
    r"[^\x00-\x1f\"$]{1,500}",
    "a list of people and groups",
    "write e-mail addresses or [project]\\group, separated by commas",
)


@dataclass(frozen=True)
class Trust:
    """How AWS recognises the jobs of a CI service."""

    issuer: str
    audience: str
    diff: tuple[str, ...]
    """Subjects that may read."""
    deploy: tuple[str, ...]
    """Subjects that may deploy and delete."""


class Github(BaseModel):
    """GitHub Actions, in the repository that holds ``mirrors.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: Annotated[str, _GITHUB_REPOSITORY]
    """``owner/name``, or ``owner@id/name@id`` if it was created since 15 July 2026 or renamed."""

    @property
    def owner(self) -> str:
        """The repository, as the stacks' tag names it."""
        owner, _, name = self.repository.partition("/")
        return f"github.com/{owner.partition('@')[0]}/{name.partition('@')[0]}"

    def trust(self, branch: str) -> Trust:
        """Return how AWS recognises this repository's jobs."""
        repository = f"repo:{self.repository}"
        return Trust(
            "https://token.actions.githubusercontent.com",
            "sts.amazonaws.com",
            diff=(f"{repository}:pull_request",),
            # Not the environment of approvals: until it is protected, any branch may use it.
            deploy=(f"{repository}:ref:refs/heads/{branch}",),
        )


class AzurePipelines(BaseModel):
    """Azure Pipelines, in the repository that holds ``mirrors.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    organization: Annotated[str, AZURE_NAME, IN_POLICIES]
    """Whose repository holds ``mirrors.yaml``."""
    project: Annotated[str, AZURE_NAME, IN_POLICIES]
    """Its project."""
    repository: Annotated[str, AZURE_NAME, IN_POLICIES]
    """The repository that holds ``mirrors.yaml``."""
    organization_id: Annotated[str, GUID] | None = None
    """The organization's id, needed without ``issuer``: ``config identity --write`` reads and adds it. Default:
    none."""
    issuer: Annotated[str, ISSUER] | None = None
    """The issuer of the jobs' tokens, if it differs. Default: that of Azure DevOps."""
    audience: Annotated[str, AUDIENCE] = AZURE_AUDIENCE
    """The audience of the jobs' tokens, if it differs."""
    diff_subject: Annotated[str, SUBJECT] | None = None
    """The subject of the tokens of jobs that look, if it differs. Default:
    ``sc://ORGANIZATION/PROJECT/codecommit-mirror-diff``."""
    deploy_subject: Annotated[str, SUBJECT] | None = None
    """The subject of the tokens of jobs that deploy, if it differs. Default:
    ``sc://ORGANIZATION/PROJECT/codecommit-mirror-deploy``."""
    approvers: Annotated[str, _PEOPLE] | None = None
    """People and groups who approve the deletion of replicas, and are notified by e-mail. Default: anyone who may run
    the pipeline."""

    service_connection: (
        Annotated[
            str,
            matching(
                r"[^\x00-\x1f\x7f\"$]{1,256}",
                "the name of a service connection",
                "copy it from Project settings, Service connections",
            ),
        ]
        | None
    ) = None
    """The service connection as whose Entra identity CI works in Azure DevOps. Default: none, and CI leaves the Azure
    side to people."""
    service_connection_type: Literal["azureDevOps", "azureRM"] = "azureDevOps"
    """``azureRM`` for a connection of the kind *Azure Resource Manager*."""
    pool: AgentPool | None = None
    """The agents that run CI's jobs, if they are your own. Default: Microsoft's."""
    pull_request_pool: AgentPool | None = None
    """Required with ``pool``: the agents that run the jobs of pull requests, whose authors decide what these do.
    ``pool`` itself only if its agents take one job each."""

    @model_validator(mode="after")
    def _pull_requests_have_a_pool(self) -> AzurePipelines:
        if (self.pool is None) != (self.pull_request_pool is None):
            raise ValueError(
                "pool and pull_request_pool go together: what a pull request leaves on an agent can read what the "
                "jobs of other people have there; name agents for pull requests, or the same pool if its agents take "
                "one job each"
            )
        return self

    @model_validator(mode="after")
    def _issuer_is_known(self) -> AzurePipelines:
        if not (self.organization_id or self.issuer):
            raise ValueError(f"needs organization_id; {WHERE_THE_ID_IS}")
        return self

    @property
    def owner(self) -> str:
        # Tags accept no other characters.
        """The repository, as the stacks' tag names it."""
        place = f"dev.azure.com/{self.organization}/{self.project}/{self.repository}"
        return re.sub(r"[^\w\s.:/=+@-]", "-", place)

    def trust(self, diff_role: str, deploy_role: str) -> Trust:
        """Return how AWS recognises this repository's jobs."""
        connections = f"sc://{self.organization}/{self.project}"
        return Trust(
            self.issuer or azure_issuer(str(self.organization_id)),
            self.audience,
            diff=(self.diff_subject or f"{connections}/{diff_role}",),
            deploy=(self.deploy_subject or f"{connections}/{deploy_role}",),
        )


class Ci(BaseModel):
    """Who provisions the mirrors of one ``mirrors.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account: Annotated[str, ACCOUNT]
    """Where the roles are, and the mirrors that name no account of their own. Default: that under ``defaults``."""
    region: Annotated[str, REGION]
    """Where the roles' stack is, and the mirrors that name no region of their own. Default: that under
    ``defaults``."""
    branch: Annotated[str, BRANCH] = "main"
    """The branch that is deployed."""
    name: Annotated[str, _NAME] | None = None
    """Distinguishes this file's roles and mirrors from those of another file for the same account. Default: none."""
    github: Github | None = None
    azure: AzurePipelines | None = None
    provider_arn: Annotated[str, PROVIDER_ARN] | None = None
    """The account's existing identity provider for the issuer; IAM accepts each issuer once. Default: the stack
    creates one."""

    @model_validator(mode="after")
    def _one_service(self) -> Ci:
        if self.github is None and self.azure is None:
            raise ValueError("ci needs either github or azure; write github: {repository: contoso/mirrors}")
        if self.github and self.azure:
            raise ValueError("ci has both github and azure; keep the one that holds mirrors.yaml")
        return self

    @property
    def service(self) -> Service:
        """The CI service."""
        return "github" if self.github else "azure"

    @property
    def owner(self) -> str:
        """The repository that holds ``mirrors.yaml``: the value of the stacks' tag ``PROVISIONED_FROM``."""
        return self._place.owner[:200] + (f" {self.name}" if self.name else "")

    @property
    def trust(self) -> Trust:
        """The issuer of the jobs' tokens, and their subjects."""
        if self.github:
            return self.github.trust(self.branch)
        return cast(AzurePipelines, self.azure).trust(self.diff_role, self.deploy_role)

    @property
    def stack_name(self) -> str:
        """The stack with the roles, its construct id and its name."""
        return self._name_of("ci")

    @property
    def diff_role(self) -> str:
        """The read-only role; in Azure DevOps, also the name of its service connection."""
        return self._name_of("diff")

    @property
    def deploy_role(self) -> str:
        """The role that deploys and deletes; in Azure DevOps, also the name of its service connection."""
        return self._name_of("deploy")

    @property
    def teardown_environment(self) -> str:
        """The GitHub environment whose reviewers approve the deletion of replicas."""
        return self._name_of("teardown")

    def _name_of(self, role: str) -> str:
        return f"{PREFIX}-{role}-{self.name}" if self.name else f"{PREFIX}-{role}"

    @property
    def _place(self) -> Github | AzurePipelines:
        return cast(Github | AzurePipelines, self.github or self.azure)

    def role_arn(self, role: str) -> str:
        """Return the ARN of one of the two roles."""
        return f"arn:{_partition(self.region)}:iam::{self.account}:role/{role}"


def load_sections(file: MirrorsFile) -> tuple[Ci, ...]:
    """Return the sections ``ci``, one for each account; of a single one both default to those below ``defaults``.

    Raises:
        MirrorError: a section is wrong; one line for each mistake.
    """
    inherited = {key: file.defaults[key] for key in ("account", "region") if key in file.defaults}
    found: list[Ci] = []
    for section in file.ci:
        try:
            found.append(Ci.model_validate({**inherited, **section.values}))
        except ValidationError as error:
            lines = [f"{file.where(*section.at, *key)}: ci: {sentence}" for key, sentence in sentences(error, Ci)]
            raise ConfigurationError("\n".join(lines)) from None
        for other in found[:-1]:
            if other.account == found[-1].account:
                raise ConfigurationError(
                    f"{file.where(*section.at)}: ci: there are two sections for account {other.account}; one deploys "
                    "to all regions of an account, so keep one."
                )
            if other.name == found[-1].name:
                shared = f"the name {other.name!r}" if other.name else "no name"
                raise ConfigurationError(
                    f"{file.where(*section.at)}: ci: two sections have {shared}, which tells their service connections "
                    "and pipelines apart; give each a name of its own."
                )
    return tuple(found)


def _partition(region: str) -> str:
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(region.rsplit("-", 2)[0], "aws")
