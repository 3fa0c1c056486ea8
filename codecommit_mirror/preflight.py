"""What would stop a mirror from coming up, found before anything is changed, and told all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3

from . import cdk, connection
from .aws import Denied, Missing, aws_failures, client, find_stack, replica_exists, session
from .azure_devops import AzureDevOps
from .config import Mirror
from .errors import MirrorError

_QUOTAS = (("Users", "UsersQuota", "IAM users"), ("Policies", "PoliciesQuota", "IAM policies"))


def find_problems(
    mirror: Mirror, folder: Path, connect: Callable[[], AzureDevOps], *, secrets_at_hand: bool
) -> list[str]:
    """Return every problem, one sentence each.

    Args:
        mirror: the mirror.
        folder: the project's.
        connect: returns the Azure DevOps client, or raises for want of a token.
        secrets_at_hand: whether the source's Git credentials are given, or can be asked for.
    """
    found: list[str] = []
    checks = (_tools(folder), _aws(mirror, folder), _azure(mirror, connect, secrets_at_hand))
    for check in checks:
        try:
            found.extend(check)
        except MirrorError as error:
            found.append(str(error))
    return found


def _tools(folder: Path) -> Iterator[str]:
    cdk.find_cli(folder)
    yield from ()


def _aws(mirror: Mirror, folder: Path) -> Iterator[str]:
    parameter = cdk.bootstrap_parameter(folder)
    aws = session(mirror)
    with aws_failures("ask AWS whose credentials these are"):
        account = client(aws, "sts").get_caller_identity()["Account"]
    ssm = client(aws, "ssm")
    # Whoever deploys may lack the permissions of these looks, since cdk works through roles of its own.
    with suppress(Denied), aws_failures("look for the CDK bootstrap"):
        try:
            ssm.get_parameter(Name=parameter)
        except ssm.exceptions.ParameterNotFound:
            yield f"the account is not bootstrapped for CDK; run: cdk bootstrap aws://{account}/{aws.region_name}"
    stack = find_stack(aws, mirror)
    if stack is None:
        yield from _clashes(mirror, aws, account)
        yield from _full(aws)


def _clashes(mirror: Mirror, aws: boto3.Session, account: str) -> Iterator[str]:
    iam = client(aws, "iam")
    partition = aws.get_partition_for_region(str(aws.region_name))
    policy_arn = f"arn:{partition}:iam::{account}:policy/{mirror.policy_name}"
    if _there(lambda: replica_exists(aws, mirror.name)):
        yield (
            f"there is a CodeCommit repository {mirror.name!r} that belongs to no stack of this mirror (an earlier one "
            "may have kept it with on_destroy: retain); delete it, or give the mirror another name."
        )
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


def _azure(mirror: Mirror, connect: Callable[[], AzureDevOps], secrets_at_hand: bool) -> Iterator[str]:
    azure = connect()
    mirror, source, home = connection.at_home(mirror, azure)
    there = connection.read(mirror, azure, source, home)
    yield from connection.problems(mirror, there)
    missing = connection.missing_secrets(mirror, there.definition)
    if missing and not secrets_at_hand:
        yield (
            f"{' and '.join(missing)} of the source are not set; export them, or use source_auth: job-token, which "
            "needs none."
        )
