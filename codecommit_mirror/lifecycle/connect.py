"""Connect a mirror's pipeline, and deliver its Git credential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..aws.stack import read_outputs
from ..azure import connection
from ..azure.state import AzureState, read_state
from ..azure.variables import AZURE_SECRETS, missing_source_secrets
from ..errors import MirrorError
from ..progress import Say
from . import credential_delivery, verification
from .context import MirrorContext
from .credential_delivery import CredentialTarget


class Connected(NamedTuple):
    """A mirror's pipeline after ``connect``."""

    state: AzureState
    changed: bool
    """Whether anything was done, apart from storing the source's credentials, which have been tried, once more."""


def connect(
    context: MirrorContext,
    replica_url: str,
    say: Say,
    *,
    role_arn: str | None = None,
    pull_request: bool = False,
    dry_run: bool = False,
) -> Connected:
    """Report the plan for connecting the pipeline, carry it out, and return the result.

    Raises:
        MirrorError: something prevents it, one sentence for each reason.
    """
    mirror, state = read_state(context.mirror, context.azure)
    problems = connection.find_problems(mirror, state)
    if problems:
        raise MirrorError("\n".join(problems))
    for note in connection.notes(mirror, state):
        say(note)
    secrets = source_secrets(context, missing_source_secrets(mirror, state.definition))
    plan = connection.plan(mirror, state, replica_url, secrets, pull_request=pull_request, role_arn=role_arn)
    for action in plan.actions:
        say(f"plan: {action}")
    if not plan.actions:
        say("nothing to do: the pipeline is connected")
    if dry_run:
        return Connected(state, changed=False)
    connection.apply(mirror, context.azure, state, plan, pull_request=pull_request, say=say)
    if not plan.actions and state.definition and plan.body == state.definition.body:
        return Connected(state, changed=False)
    return Connected(read_state(context.mirror, context.azure)[1], changed=not plan.only_secrets)


def ensure_pipeline_credential(context: MirrorContext, say: Say) -> bool:
    """Make sure that the pipeline holds a Git credential for the replica, unless it acts as a role.

    Returns whether it got a new one.

    Raises:
        MirrorError: the mirror has no stack or no pipeline, or a call failed.
    """
    mirror = context.mirror
    if mirror.replica_auth == "role":
        say(f"none is stored: the role trusts the tokens of {mirror.token_subject}")
        return False
    return credential_delivery.ensure_credential(credential_target(context), say)


def credential_target(context: MirrorContext) -> CredentialTarget:
    """Return the mirror's pipeline and user.

    Raises:
        MirrorError: the mirror has no stack or no pipeline.
    """
    outputs = read_outputs(context.aws, context.mirror)
    definition = read_state(context.mirror, context.azure)[1].definition
    if definition is None:
        raise MirrorError(not_connected(context))
    return CredentialTarget(
        azure=context.azure,
        definition=definition,
        iam=context.iam,
        user=outputs.user_of(context.mirror),
        account=outputs.replica_arn.split(":")[4],
        replica_url=outputs.replica_url,
        mirror=context.mirror.name,
    )


def source_secrets(context: MirrorContext, missing: Sequence[str]) -> dict[str, str]:
    """Return the source's Git credentials, from the environment or from a person, after trying them.

    Raises:
        MirrorError: there is nobody to ask, or the source does not accept them.
    """
    if context.mirror.source_auth == "job-token":
        return {}
    given = context.source_secrets
    if not given and not missing:
        return {}
    for name in AZURE_SECRETS:
        if name in given:
            continue
        if context.ask is None:
            raise MirrorError(missing_secrets([name]))
        given[name] = context.ask(name)
    verification.check_source_credentials(context.mirror, given[AZURE_SECRETS[0]], given[AZURE_SECRETS[1]])
    return given


def missing_secrets(names: Sequence[str]) -> str:
    """Return the sentence for Git credentials of the source that were not given."""
    return (
        f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} not set; export {' and '.join(AZURE_SECRETS)} (in "
        "Repos: Clone, Generate Git Credentials), or use source_auth: job-token, which needs none."
    )


def not_connected(context: MirrorContext) -> str:
    """Return the sentence for a mirror without a pipeline."""
    name = context.mirror.name
    return f"the mirror {name!r} has no pipeline yet; run 'codecommit-mirror up {name}'."
