"""Find everything that would stop a mirror from coming up, before anything is changed; reported together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..aws import cdk, git_credentials, quotas
from ..aws.repository import missing_repository, not_found_elsewhere
from ..aws.session import aws_failures, client
from ..aws.stack_plan import generation_of
from ..azure import connection
from ..azure.rest.organization import ServiceConnection, read_connection
from ..azure.state import AzureState
from ..azure.variables import AZURE_SECRETS, has_replica_secrets, held_credential, missing_source_secrets
from ..config.ci import TEMPLATE_GENERATION, AzurePipelines, Ci
from ..config.identity import IDENTITY_STACK_NAME
from ..config.mirror import Mirror
from ..engine_api import VERSION
from ..errors import AzureError, DeniedError, MirrorError, NotFoundError
from ..progress import say
from . import verification
from .batches import Policy
from .context import MirrorContext
from .state import MirrorState

_LIMITED = "'Limit variables that can be set at queue time'"


def account_problems(context: MirrorContext) -> list[str]:
    """Return what stops every deployment to a mirror's account and region, one sentence each."""
    parameter, ssm = cdk.bootstrap_parameter(context.folder), client(context.aws, "ssm")
    # The caller may not be allowed to look, because cdk works through roles of its own.
    with suppress(DeniedError), aws_failures("look for the CDK bootstrap"):
        try:
            ssm.get_parameter(Name=parameter)
        except ssm.exceptions.ParameterNotFound:
            target = f"aws://{context.account}/{context.aws.region_name}"
            return [f"the account is not bootstrapped for CDK; run: cdk bootstrap {target}"]
    return []


def quota_problems(context: MirrorContext, templates: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the quotas that new stacks in a mirror's account and region would exceed together, one sentence each."""
    needs = quotas.needs_of(templates)
    return quotas.problems(needs, quotas.read_quotas(context.aws, needs))


def check_ci(context: MirrorContext, section: Ci, *, is_needed: bool) -> None:
    """Refuse to work as a CI whose service connections others may use: a pull request, or any pipeline of its project.

    Args:
        context: one of the mirrors'.
        section: the section ``ci`` of mirrors.yaml.
        is_needed: whether CI works on the Azure side of a mirror; if not, it may have no token, and no way there.

    Raises:
        MirrorError: a connection is open; it says which, and what to change.
    """
    place = section.azure
    if place is None:
        return
    try:
        problems = _open_doors(context, section, place)
    except MirrorError as error:
        if is_needed:
            raise
        say(f"note: CI's own project was not looked at, where {_LIMITED} must be on: {error}")
        return
    if problems:
        raise MirrorError("\n".join(problems))


def _open_doors(context: MirrorContext, section: Ci, place: AzurePipelines) -> list[str]:
    """Return what lets others act as CI, one sentence each."""
    server, token = context.mirror.azure.server, context.token
    problems = _settable_variables(context, place.organization, place.project)
    for name in filter(None, (place.service_connection, section.deploy_role)):
        try:
            found = read_connection(server, place.organization, place.project, name, token, context.azure_transport)
        except AzureError as error:
            if error.status not in (401, 403, 404):
                raise
            found = None
        if found is None:
            say(f"note: CI may not see who may use the service connection {name!r}; make its identity a Reader of it")
        else:
            problems += connection_problems(found, section.branch)
    return problems


def _settable_variables(context: MirrorContext, organization: str, project: str) -> list[str]:
    """Return that whoever may queue CI's pipeline sets the environment of its jobs."""
    azure = context.mirror.azure.model_copy(update={"organization": organization, "project": project})
    limits = context.clients.azure(azure, context.token, context.azure_transport).settings.limits_variables
    if limits is None:
        say(f"note: CI may not see whether {_LIMITED} is on in {project!r}, where it must be on")
    if limits is not False:
        return []
    return [
        f"{_LIMITED} is off in the project {project!r}, so that whoever may queue a run there sets what CI's jobs run; "
        "switch it on under Project settings, Pipelines, Settings."
    ]


def connection_problems(found: ServiceConnection, branch: str) -> list[str]:
    """Return who beside the branch of mirrors.yaml may use a service connection of CI, one sentence each."""
    others = [one for one in found.branches or () if one != f"refs/heads/{branch}"]
    page = "Project settings, Service connections"
    if found.is_open:
        return [
            f"every pipeline of the project may use the service connection {found.name!r}, which is CI's; under "
            f"{page}, Security, restrict it to the pipeline of mirrors.yaml."
        ]
    if found.branches is None or others:
        what = f"lets {', '.join(others)} use it" if others else "is missing"
        return [
            f"Branch control of the service connection {found.name!r} {what}: a pull request could act as CI; under "
            f"{page}, Approvals and checks, let only refs/heads/{branch} use it."
        ]
    return []


def mirror_problems(state: MirrorState, policy: Policy, *, is_job: bool = False) -> list[str]:
    """Return what stops one mirror, one sentence each.

    Args:
        state: what both clouds have of it.
        policy: what a person has allowed.
        is_job: whether the token is a job's own, which may not see the project's settings, and gives no pipeline a
            secret.
    """
    other = None if policy.change_source else state.other_source
    # Without outputs the record of the pipeline cannot be read; it is, before the pipeline is given anything.
    is_unknown = state.stack is not None and state.outputs is None
    allowed = replace(
        policy.allowed,
        replace_pipeline=policy.allowed.replace_pipeline or is_unknown,
        settable_variables=policy.allowed.settable_variables or is_job,
    )
    return [
        *([other] if other else []),
        *_elsewhere_problems(state),
        *_version_problems(state),
        *_repository_problems(state),
        *state.taken_names,
        *_record_problems(state),
        *(connection.find_problems(state.mirror, state.azure, allowed) if state.azure else []),
        *(_credential_problems(state, state.azure) if state.azure else []),
    ]


def _elsewhere_problems(state: MirrorState) -> list[str]:
    """Return that another CDK app has not deployed the mirror yet, if it should have."""
    is_missing = state.mirror.is_deployed_elsewhere and state.stack is None and state.azure is not None
    return [not_found_elsewhere(state.mirror, state.region)] if is_missing else []


def _version_problems(state: MirrorState) -> list[str]:
    """Return that a newer release deployed the stack, which this one would take back."""
    generation = generation_of(state.stack.tags) if state.stack else 0
    if generation <= TEMPLATE_GENERATION:
        return []
    return [
        f"the stack of {state.mirror.name} has generation {generation} of the template, which a newer version of "
        f"codecommit-mirror deployed, and this is {VERSION}; install that version."
    ]


def provider_problems(context: MirrorContext) -> list[str]:
    """Return that the account has no identity provider for the role of the pipeline, if it is known to have none."""
    mirror, iam = context.mirror, context.iam
    if mirror.replica_auth == "user":
        return []
    issuer = str(mirror.identity.issuer_url)
    partition = context.aws.get_partition_for_region(str(context.aws.region_name))
    arn = f"arn:{partition}:iam::{context.account}:oidc-provider/{issuer.removeprefix('https://')}"
    with suppress(DeniedError):
        try:
            with aws_failures("look for the identity provider"):
                iam.get_open_id_connect_provider(OpenIDConnectProviderArn=mirror.identity.provider_arn or arn)
        except NotFoundError:
            return [f"the account has no identity provider for {issuer}; run: cdk deploy '{IDENTITY_STACK_NAME}*'"]
    return []


def secrets_problems(context: MirrorContext, state: MirrorState) -> list[str]:
    """Return that the source does not accept credentials that are to be stored, after trying them."""
    given = context.source_secrets
    missing = missing_source_secrets(state.mirror, state.azure.definition) if state.azure else []
    if len(given) < len(AZURE_SECRETS) or not missing:
        return []
    try:
        verification.check_source_credentials(state.mirror, given, context.named_server)
    except MirrorError as error:
        return [str(error)]
    return []


def missing_secrets(names: Sequence[str]) -> str:
    """Return the sentence for Git credentials of the source that were not given."""
    return (
        f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} not set; export {' and '.join(AZURE_SECRETS)} (in "
        "Repos: Clone, Generate Git Credentials), or use source_auth: job-token, which needs none."
    )


def _repository_problems(state: MirrorState) -> list[str]:
    # An interrupted deployment leaves a stack without outputs; the next deployment resumes it.
    if not state.may_read_repository or (state.stack and not state.stack.outputs):
        return []
    problem = repository_problem(state.mirror, state.stack is not None, state.owned, state.clone_url is not None)
    return [problem] if problem else []


def repository_problem(mirror: Mirror, deployed: bool, owned: str | None, exists: bool) -> str | None:
    """Return why a deployment would fail on the replica's repository, or lose it, with the remedy.

    Args:
        mirror: the mirror.
        deployed: whether its stack exists.
        owned: the deletion policy of the stack's repository; None if it owns none.
        exists: whether CodeCommit has a repository of that name.
    """
    if mirror.is_deployed_elsewhere:
        return None
    if mirror.existing and owned == "Delete":
        return (
            f"the deployed stack owns the repository {mirror.name!r}, and with existing: true CloudFormation would "
            f"delete it; replace existing: true with on_destroy: retain, run 'cdk deploy {mirror.name}', then set "
            "existing: true again."
        )
    if not exists and (mirror.existing or owned):
        return missing_repository(mirror)
    if exists and not mirror.existing and not owned:
        if deployed:
            return (
                f"the deployed stack only refers to the repository {mirror.name!r}, and CloudFormation cannot take it "
                "over; keep existing: true, or delete the repository so that the stack creates a new one."
            )
        return (
            f"there is a CodeCommit repository {mirror.name!r} that belongs to no stack of this mirror (an earlier one "
            "may have kept it with on_destroy: retain); set existing: true to use it as the replica, delete it, or "
            "give the mirror another name."
        )
    return None


def _record_problems(state: MirrorState) -> list[str]:
    record, azure = state.record, state.azure
    if record is None or azure is None or record.project == azure.source.project_id:
        return []
    return [
        f"the pipeline of {state.mirror.name} is in the project with the id {record.project}, but "
        f"{state.mirror.azure.project!r} has the id {azure.source.project_id}, and pipelines do not move between "
        "projects; change azure.project back to the earlier one, or run 'codecommit-mirror down' with that one first."
    ]


def _credential_problems(state: MirrorState, azure: AzureState) -> list[str]:
    """Return why a credential cannot be issued, or that the pipeline mirrors to another region or account."""
    mirror = state.mirror
    if state.stack is None:
        wrong = connection.wrong_replica(azure.definition, state.region, state.account)
        return [wrong] if wrong else []
    if mirror.replica_auth == "role" or state.credentials is None:
        return []
    user = state.stack.user_name(mirror)
    problems = []
    if user != mirror.user_name and state.credentials:
        problems.append(
            f"mirrors.yaml names the user {mirror.user_name!r}, but {user!r} still has Git credentials, which keep "
            f"CloudFormation from deleting it; run 'codecommit-mirror credentials revoke {mirror.name} --all', "
            "then run this again: the pipeline gets a new one."
        )
    variables = azure.variables
    if not has_replica_secrets(variables) and not held_credential(variables).issuing:
        try:
            git_credentials.ensure_credential_slot(state.credentials, user, mirror.name)
        except MirrorError as error:
            problems.append(str(error))
    return problems
