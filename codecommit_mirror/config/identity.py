"""How AWS recognises jobs of Azure Pipelines by their OpenID Connect tokens: the issuer, and what a token says.

Claims of a job's own token, as recorded: https://github.com/stackitcloud/terraform-provider-stackit/issues/1321
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from ..errors import ConfigurationError
from .fields import matching

AZURE_AUDIENCE = "api://AzureADTokenExchange"
WHERE_THE_ID_IS = "'codecommit-mirror config identity --write' reads and writes it"

GUID = matching(
    # Not the examples of the documentation, nor zeros.
    r"(?!01234567-89ab-cdef-|0{8}-)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "the id of an organization",
    WHERE_THE_ID_IS,
)
IN_POLICIES = matching(
    r"[\x20-\xff]*", "a name that an IAM policy accepts", "use one without letters beyond \u00ff (IAM's own limit)"
)
AUDIENCE = matching(r"(?!.*\$\{)[^*?\s]{1,255}", "the audience of a token", "copy it from the log of a run")
SUBJECT = matching(
    r"(?!.*\$\{)[^*?\x00-\x1f]+", "the subject of a token", "copy it, without wildcards, from the log of a run"
)
ISSUER = matching(r"https://[a-z0-9.-]+(/[\w./-]*[\w-])?", "the issuer of a token", "copy it from the log of a run")
PROVIDER_ARN = matching(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/\S+", "the ARN of an identity provider", "copy it from IAM"
)


def azure_issuer(organization_id: str) -> str:
    """Return the issuer of an organization's tokens."""
    return f"https://vstoken.dev.azure.com/{organization_id}"


class Identity(BaseModel):
    """Whose tokens the role of a mirror trusts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    organization_id: Annotated[str, GUID] | None = None
    """Required with ``replica_auth: role``, unless there is an ``issuer``: ``config identity --write`` reads it from
    Azure DevOps and adds it. Default: that of ``ci.azure``, for the same organization."""
    issuer: Annotated[str, ISSUER] | None = None
    """The issuer of the pipeline's tokens, if it differs. Default: that of Azure DevOps."""
    audience: Annotated[str, AUDIENCE] = AZURE_AUDIENCE
    """The audience of the pipeline's tokens, if it differs."""
    subject: Annotated[str, SUBJECT, IN_POLICIES] | None = None
    """The subject of the pipeline's tokens, if it differs. Default:
    ``p://ORGANIZATION/PROJECT/codecommit-mirror-NAME``."""
    provider_arn: Annotated[str, PROVIDER_ARN] | None = None
    """The account's existing identity provider for Azure Pipelines. Default: that of the stack
    ``codecommit-mirror-identity``."""

    @property
    def issuer_url(self) -> str | None:
        """The issuer's address; None if neither it nor the organization's id is given."""
        return self.issuer or (azure_issuer(self.organization_id) if self.organization_id else None)


@dataclass(frozen=True)
class EarlierSignIn:
    """What a pipeline signed in with before it changed, and needs until a run has succeeded without it."""

    user: bool = False
    """Whether it was a user."""
    subjects: tuple[str, ...] = ()
    """Whose tokens the role trusted."""


def auth_migration_context(migrations: Mapping[str, EarlierSignIn]) -> str:
    """Return the CDK context ``auth_migration``, by which the app keeps what mirrors signed in with before."""
    return json.dumps({name: asdict(earlier) for name, earlier in migrations.items()})


def parse_auth_migration(context: object) -> dict[str, EarlierSignIn]:
    """Return what mirrors signed in with before, by the mirrors' names, from the CDK context ``auth_migration``.

    Raises:
        MirrorError: it has another form.
    """
    try:
        document = json.loads(str(context or "{}"))
        return {
            name: EarlierSignIn(bool(earlier["user"]), tuple(earlier["subjects"])) for name, earlier in document.items()
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ConfigurationError(
            f"the context auth_migration is {context!r}, which only 'codecommit-mirror up' gives; leave it out."
        ) from None


IDENTITY_STACK_NAME = "codecommit-mirror-identity"
"""The construct id and the name of the provider's stack."""


@dataclass(frozen=True)
class IdentityProvider:
    """An account's identity provider for Azure Pipelines."""

    issuer: str
    audiences: tuple[str, ...]
    account: str | None
    region: str | None
    """Where its stack is; IAM itself has no regions."""
