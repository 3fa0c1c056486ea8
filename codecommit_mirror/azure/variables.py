"""The variables of a mirror's pipeline: which it needs, how they are set, and which credential they hold.

Secret variables cannot be read back. So the plain variable ``AWS_GIT_CREDENTIAL`` records, as JSON, the id of the Git
credential that the pipeline holds, which is not a secret, and what is about to happen to the credential. If a command
is killed, the next one can finish its work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..config.mirror import Mirror
from ..errors import AzureError, ConcurrentRunError, MirrorError
from .rest.client import AzureDevOps
from .rest.objects import Definition

HELD_CREDENTIAL = "AWS_GIT_CREDENTIAL"
AWS_GIT_USERNAME, AWS_GIT_PASSWORD = "AWS_GIT_USERNAME", "AWS_GIT_PASSWORD"
AWS_ROLE = "AWS_ROLE_ARN"
OF_USER, OF_ROLE = (AWS_GIT_USERNAME, AWS_GIT_PASSWORD, HELD_CREDENTIAL), (AWS_ROLE,)
"""What a pipeline needs to act as a user, or as a role."""
AZURE_SECRETS = ("AZURE_GIT_USERNAME", "AZURE_GIT_PASSWORD")
_TRIES = 5


@dataclass(frozen=True)
class PipelineVariable:
    """A variable of the pipeline, with the blog post's name."""

    name: str
    secret: bool
    value: str | None
    """None for a secret variable, whose value is not known here."""
    source: str
    """Where the value comes from."""


def wanted_variables(mirror: Mirror, replica_url: str, role_arn: str | None = None) -> tuple[PipelineVariable, ...]:
    """Return the variables that the pipeline needs.

    They are the blog post's six, without the source's two if the run's own token reads the source, and with one for the
    role in place of the replica's two if the pipeline acts as a role.

    Args:
        mirror: the mirror.
        replica_url: the stack output ``ReplicaUrl``.
        role_arn: the stack output ``PushRoleArn``, if there is one.
    """
    azure = "Azure Repos: Clone, Generate Git Credentials"
    aws = "codecommit-mirror credentials issue"
    source = [PipelineVariable("AZURE_REPO_URL", False, mirror.azure.clone_url, "mirrors.yaml")]
    if mirror.source_auth == "pat":
        source += [PipelineVariable(name, True, None, azure) for name in AZURE_SECRETS]
    replica = [PipelineVariable("AWS_REPO_URL", False, replica_url.removeprefix("https://"), "stack output ReplicaUrl")]
    if mirror.replica_auth == "role":
        replica.append(PipelineVariable(AWS_ROLE, False, role_arn, "stack output PushRoleArn"))
    else:
        replica += [PipelineVariable(name, True, None, aws) for name in (AWS_GIT_USERNAME, AWS_GIT_PASSWORD)]
    return (*source, *replica)


def missing_source_secrets(mirror: Mirror, definition: Definition | None) -> list[str]:
    """Return the source's secret variables that the pipeline does not have yet."""
    if mirror.source_auth == "job-token":
        return []
    existing = definition.variables if definition else {}
    return [name for name in AZURE_SECRETS if name not in existing]


def has_replica_secrets(variables: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a pipeline has both secret variables of the replica."""
    return all(name in variables for name in (AWS_GIT_USERNAME, AWS_GIT_PASSWORD))


def plain_variable(value: str) -> dict[str, Any]:
    """Return a variable that anyone may read, as the REST API takes it."""
    return {"value": value}


def secret_variable(value: str) -> dict[str, Any]:
    """Return a secret variable, as the REST API takes it."""
    return {"value": value, "isSecret": True}


def variable_value(variables: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Return the value of a plain variable, empty if there is none."""
    return str((variables.get(name) or {}).get("value") or "")


@dataclass(frozen=True)
class Issuing:
    """A new credential that is about to be issued."""

    since: datetime
    existing: frozenset[str]
    """The ids of the user's credentials before that."""


@dataclass(frozen=True)
class HeldCredential:
    """The credential that a pipeline holds, as its variable ``AWS_GIT_CREDENTIAL`` records it."""

    id: str | None = None
    issuing: Issuing | None = None
    replaces: str | None = None
    """The credential that this one replaced, and that is still to be deleted."""
    account: str | None = None
    """The AWS account that issued it."""

    def to_json(self) -> str:
        """Return the variable's value."""
        fields: dict[str, Any] = {"id": self.id, "account": self.account, "replaces": self.replaces}
        if self.issuing:
            fields["issuing"] = {
                "since": self.issuing.since.astimezone(UTC).isoformat(),
                "existing": sorted(self.issuing.existing),
            }
        return json.dumps({name: value for name, value in fields.items() if value is not None})


def parse_held_credential(text: str) -> HeldCredential:
    """Parse a value of ``AWS_GIT_CREDENTIAL``; a value of any other form says nothing."""
    try:
        fields = json.loads(text)
        issuing = fields.get("issuing")
        return HeldCredential(
            id=_optional_text(fields, "id"),
            issuing=issuing
            and Issuing(
                _parse_time(issuing["since"]), frozenset(str(credential_id) for credential_id in issuing["existing"])
            ),
            replaces=_optional_text(fields, "replaces"),
            account=_optional_text(fields, "account"),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return HeldCredential()


def _optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value.isalnum() else None


def _parse_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return time


def held_credential(variables: Mapping[str, Mapping[str, Any]]) -> HeldCredential:
    """Return which credential a pipeline's variables record."""
    return parse_held_credential(variable_value(variables, HELD_CREDENTIAL))


def check_unchanged(definition: Definition, held: HeldCredential) -> None:
    """Raise ConcurrentRunError if a pipeline no longer records this credential."""
    if held_credential(definition.variables) != held:
        raise ConcurrentRunError(
            f"another 'up' or 'rotate' is working on {definition.name!r}; run again when it has finished."
        )


def update_variables(
    azure: AzureDevOps,
    definition: Definition,
    changes: Mapping[str, Mapping[str, Any] | None],
    only_if: HeldCredential | None = None,
) -> Definition:
    """Set variables of a pipeline, remove those that are None, and keep all others.

    If something else changes the definition at the same time, it is read again and the changes are made again.

    Args:
        azure: the project.
        definition: the pipeline.
        changes: values by name.
        only_if: the credential that the pipeline must still record.

    Raises:
        ConcurrentRunError: the pipeline records another credential.
        MirrorError: the service refuses.
    """
    for _ in range(_TRIES):
        definition = azure.definition(definition.id)
        note = changes.get(HELD_CREDENTIAL)
        if only_if is not None:
            if note == definition.variables.get(HELD_CREDENTIAL):
                return definition  # Done by an earlier request whose answer was lost.
            check_unchanged(definition, only_if)
        variables = {name: value for name, value in definition.variables.items() if name not in changes}
        variables.update({name: dict(value) for name, value in changes.items() if value is not None})
        if variables == definition.variables:
            return definition
        try:
            return azure.update_definition(definition, {**definition.body, "variables": variables})
        except AzureError as error:
            if error.status != 409:
                raise
    raise MirrorError(f"the pipeline {definition.name!r} is being changed by something else; run again later.")
