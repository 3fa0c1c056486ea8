"""Find everything that would stop a mirror from coming up, before anything is changed; reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import boto3

from ..aws import cdk, git_credentials, quotas
from ..aws.session import DeniedError, NotFoundError, aws_failures, client
from ..aws.stack import deployed_deletion_policy, find_clone_url, find_stack, missing_repository
from ..azure import connection
from ..azure.state import AzureState, read_state
from ..azure.variables import AZURE_SECRETS, has_replica_secrets, held_credential, missing_source_secrets
from ..config.identity import IDENTITY_STACK_NAME
from ..config.mirror import Mirror
from ..errors import MirrorError
from . import verification
from .connect import missing_secrets
from .context import MirrorContext


def find_problems(context: MirrorContext) -> list[str]:
    """Return every problem, one sentence each."""
    # Several checks can meet the same problem.
    quotas_of_new = find_quota_problems([context] if is_new(context) else [])
    return list(dict.fromkeys([*find_account_problems(context), *quotas_of_new, *find_mirror_problems(context)]))


def find_account_problems(context: MirrorContext) -> list[str]:
    """Return what stops every mirror of a mirror's account and region, one sentence each."""
    return _found_by((_check_tools, _check_bootstrap), context)


def find_quota_problems(contexts: Sequence[MirrorContext]) -> list[str]:
    """Return the quotas that new mirrors of one account and region would exceed together, one sentence each."""
    needs = quotas.needs_of(context.mirror for context in contexts)
    if not needs:
        return []
    return _found_by((lambda one: quotas.problems(needs, quotas.read_quotas(one.aws, needs)),), contexts[0])


def is_new(context: MirrorContext) -> bool:
    """Whether the mirror has no stack yet, as far as these credentials can tell."""
    try:
        return context.find_stack() is None
    except MirrorError:
        return False  # It is somebody else's, or cannot be read, which the mirror's own checks report.


def find_mirror_problems(context: MirrorContext) -> list[str]:
    """Return what stops one mirror, one sentence each."""
    return _found_by((_check_account, _check_source), context)


def _found_by(checks: Iterable[Callable[[MirrorContext], list[str]]], context: MirrorContext) -> list[str]:
    problems: list[str] = []
    for check in checks:
        try:
            problems.extend(check(context))
        except MirrorError as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def _check_tools(context: MirrorContext) -> list[str]:
    cdk.find_cli(context.folder)
    return []


def _check_bootstrap(context: MirrorContext) -> list[str]:
    parameter, ssm = cdk.bootstrap_parameter(context.folder), client(context.aws, "ssm")
    # The caller may not be allowed to look, because cdk works through roles of its own.
    with suppress(DeniedError), aws_failures("look for the CDK bootstrap"):
        try:
            ssm.get_parameter(Name=parameter)
        except ssm.exceptions.ParameterNotFound:
            target = f"aws://{context.account}/{context.aws.region_name}"
            return [f"the account is not bootstrapped for CDK; run: cdk bootstrap {target}"]
    return []


def _check_account(context: MirrorContext) -> list[str]:
    mirror, aws = context.mirror, context.aws
    problems: list[str] = []
    stack = find_stack(aws, mirror)
    # An interrupted deployment leaves a stack without outputs; the next deployment resumes it.
    if stack is None or stack.outputs:
        with suppress(DeniedError):
            owned = deployed_deletion_policy(aws, mirror) if stack else None
            exists = find_clone_url(aws, mirror.name) is not None
            problem = repository_problem(mirror, stack is not None, owned, exists)
            problems += [problem] if problem else []
    if stack is None:
        problems += _name_problems(mirror, aws, context.account)
    return problems + _provider_problems(mirror, aws, context.account)


def _provider_problems(mirror: Mirror, aws: boto3.Session, account: str) -> list[str]:
    """Return that the account has no identity provider for the role of the pipeline, if it is known to have none."""
    if mirror.replica_auth == "user":
        return []
    iam, issuer = client(aws, "iam"), str(mirror.identity.issuer_url)
    partition = aws.get_partition_for_region(str(aws.region_name))
    arn = f"arn:{partition}:iam::{account}:oidc-provider/{issuer.removeprefix('https://')}"
    with suppress(DeniedError):
        try:
            with aws_failures("look for the identity provider"):
                iam.get_open_id_connect_provider(OpenIDConnectProviderArn=mirror.identity.provider_arn or arn)
        except NotFoundError:
            return [f"the account has no identity provider for {issuer}; run: cdk deploy {IDENTITY_STACK_NAME}"]
    return []


def repository_problem(mirror: Mirror, deployed: bool, owned: str | None, exists: bool) -> str | None:
    """Return why a deployment would fail on the replica's repository, or lose it, with the remedy.

    Args:
        mirror: the mirror.
        deployed: whether its stack exists.
        owned: the deletion policy of the stack's repository; None if it owns none.
        exists: whether CodeCommit has a repository of that name.
    """
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


def _name_problems(mirror: Mirror, aws: boto3.Session, account: str) -> list[str]:
    iam = client(aws, "iam")
    partition = aws.get_partition_for_region(str(aws.region_name))
    policy_arn = f"arn:{partition}:iam::{account}:policy/{mirror.policy_name}"
    problems = []
    if mirror.replica_auth == "role":
        if _exists(lambda: iam.get_role(RoleName=mirror.role_name)):
            problems.append(f"there is already an IAM role {mirror.role_name!r}; give the mirror another role_name.")
    elif _exists(lambda: iam.get_user(UserName=mirror.user_name)):
        problems.append(f"there is already an IAM user {mirror.user_name!r}; give the mirror another user_name.")
    if _exists(lambda: iam.get_policy(PolicyArn=policy_arn)):
        problems.append(f"there is already an IAM policy {mirror.policy_name!r}; give the mirror another policy_name.")
    return problems


def _exists(get: Callable[[], object]) -> bool:
    """Whether something exists that these credentials may see."""
    with suppress(NotFoundError, DeniedError), aws_failures("look for resources with the mirror's names"):
        return bool(get())
    return False


def _check_source(context: MirrorContext) -> list[str]:
    mirror, state = read_state(context.mirror, context.azure)
    problems = connection.find_problems(mirror, state)
    problems += _credential_problems(context, state)
    if mirror.source_auth == "job-token":
        return problems
    given = context.source_secrets
    missing = [name for name in missing_source_secrets(mirror, state.definition) if name not in given]
    if missing and context.ask is None:
        problems.append(missing_secrets(missing))
    elif len(given) == len(AZURE_SECRETS):
        problems += _source_problems(mirror, [given[name] for name in AZURE_SECRETS])
    return problems


def _source_problems(mirror: Mirror, credentials: Iterable[str]) -> list[str]:
    try:
        verification.check_source_credentials(mirror, *credentials)
    except MirrorError as error:
        return [str(error)]
    return []


def _credential_problems(context: MirrorContext, state: AzureState) -> list[str]:
    """Return why a credential cannot be issued, or that the pipeline mirrors to another region or account."""
    mirror, stack = context.mirror, find_stack(context.aws, context.mirror)
    if stack is None:
        wrong = connection.wrong_replica(state, str(context.aws.region_name), context.account)
        return [wrong] if wrong else []
    if mirror.replica_auth == "role":
        return []
    variables = state.variables
    if has_replica_secrets(variables) or held_credential(variables).issuing:
        return []
    user = stack.user_name(mirror)
    try:
        existing = git_credentials.list_credentials(context.iam, user)
        git_credentials.ensure_credential_slot(existing, user, mirror.name)
    except NotFoundError:
        return []
    except MirrorError as error:
        return [str(error)]
    return []
