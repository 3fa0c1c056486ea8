"""What would stop a mirror from coming up, found before anything is changed, and told all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import boto3

from ..aws import cdk
from ..aws import git_credentials as credentials
from ..aws.stack import (
    Denied,
    Missing,
    aws_failures,
    client,
    deployed_deletion_policy,
    find_clone_url,
    find_stack,
    repository_is_gone,
)
from ..azure import connection, held_credential
from ..azure.connection import Connection
from ..config.mirror import Mirror
from ..errors import MirrorError
from .context import Operator

_QUOTAS = (("Users", "UsersQuota", "IAM users"), ("Policies", "PoliciesQuota", "IAM policies"))


def find_problems(operator: Operator) -> list[str]:
    """Return every problem, one sentence each."""
    found: list[str] = []
    for check in (_tools, _project, _account, _source):
        try:
            found.extend(check(operator))
        except MirrorError as error:
            found.append(str(error))
    # What one check needs and another reports is told once.
    return list(dict.fromkeys(found))


def _tools(operator: Operator) -> Iterator[str]:
    cdk.find_cli(operator.folder)
    yield from ()


def _project(operator: Operator) -> Iterator[str]:
    parameter, ssm = cdk.bootstrap_parameter(operator.folder), client(operator.aws, "ssm")
    # Whoever deploys may lack the permissions of these looks, since cdk works through roles of its own.
    with suppress(Denied), aws_failures("look for the CDK bootstrap"):
        try:
            ssm.get_parameter(Name=parameter)
        except ssm.exceptions.ParameterNotFound:
            target = f"aws://{operator.account}/{operator.aws.region_name}"
            yield f"the account is not bootstrapped for CDK; run: cdk bootstrap {target}"


def _account(operator: Operator) -> Iterator[str]:
    mirror, aws = operator.mirror, operator.aws
    stack = find_stack(aws, mirror)
    # A stack without outputs is one that an interrupted deployment left; the next one goes on from there.
    if stack is None or stack.outputs:
        with suppress(Denied):
            owned = deployed_deletion_policy(aws, mirror) if stack else None
            exists = find_clone_url(aws, mirror.name) is not None
            problem = repository_problem(mirror, stack is not None, owned, exists)
            yield from [problem] if problem else []
    if stack is None:
        yield from _clashes(mirror, aws, operator.account)
        yield from _full(aws)


def repository_problem(mirror: Mirror, deployed: bool, owned: str | None, exists: bool) -> str | None:
    """Return why a deployment would fail on the replica's repository, or lose it, with the remedy.

    Args:
        mirror: the mirror.
        deployed: whether its stack is there.
        owned: the deletion policy of the stack's repository; None when it owns none.
        exists: whether CodeCommit has a repository of that name.
    """
    if mirror.existing and owned == "Delete":
        return (
            f"the deployed stack owns the repository {mirror.name!r}, and with existing: true CloudFormation would "
            f"delete it; replace existing: true with on_destroy: retain, run 'cdk deploy {mirror.name}', then set "
            "existing: true again."
        )
    if not exists and (mirror.existing or owned):
        return repository_is_gone(mirror)
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


def _clashes(mirror: Mirror, aws: boto3.Session, account: str) -> Iterator[str]:
    iam = client(aws, "iam")
    partition = aws.get_partition_for_region(str(aws.region_name))
    policy_arn = f"arn:{partition}:iam::{account}:policy/{mirror.policy_name}"
    if _there(lambda: iam.get_user(UserName=mirror.user_name)):
        yield f"there is an IAM user {mirror.user_name!r} already; give the mirror another user_name."
    if _there(lambda: iam.get_policy(PolicyArn=policy_arn)):
        yield f"there is an IAM policy {mirror.policy_name!r} already; give the mirror another policy_name."


def _there(look: Callable[[], Any]) -> bool:
    with suppress(Missing, Denied), aws_failures("look for what has the mirror's names"):
        return bool(look())
    return False


def _full(aws: boto3.Session) -> Iterator[str]:
    summary: dict[str, int] = {}
    with suppress(Denied), aws_failures("read the account's IAM quotas"):
        summary = client(aws, "iam").get_account_summary()["SummaryMap"]
    for used, quota, what in _QUOTAS:
        if quota in summary and summary.get(used, 0) >= summary[quota]:
            yield f"the account has {summary[used]:,} {what}, as many as its quota allows; raise the quota."


def _source(operator: Operator) -> Iterator[str]:
    mirror, source, home = connection.at_home(operator.mirror, operator.azure)
    there = connection.read(mirror, operator.azure, source, home)
    yield from connection.problems(mirror, there)
    yield from _credential(operator, there)
    if mirror.source_auth == "job-token":
        return
    given = operator.source_secrets
    missing = [name for name in connection.missing_secrets(mirror, there.definition) if name not in given]
    if missing and operator.ask is None:
        yield connection.not_set(f"{' and '.join(missing)} {'are' if missing[1:] else 'is'}")
    elif len(given) == len(connection.AZURE_SECRETS):
        connection.try_source(mirror, *(given[name] for name in connection.AZURE_SECRETS))


def _credential(operator: Operator, there: Connection) -> Iterator[str]:
    """Find out whether the pipeline's credential can be issued, or the pipeline mirrors to elsewhere."""
    mirror, stack = operator.mirror, find_stack(operator.aws, operator.mirror)
    if stack is None:
        wrong = connection.elsewhere(there, str(operator.aws.region_name), operator.account)
        yield from [wrong] if wrong else []
        return
    variables = there.definition.variables if there.definition else {}
    if held_credential.has_secrets(variables) or held_credential.of_variables(variables).issuing:
        return
    user = stack.outputs.get("PushUserName", mirror.user_name)
    with suppress(Missing):
        credentials.check_room(credentials.list_credentials(operator.iam, user), user, mirror.name)
