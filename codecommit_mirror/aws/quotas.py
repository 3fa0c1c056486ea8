"""What an account's quotas leave for new mirrors.

Counts and quotas of IAM come from GetAccountSummary, the others from Service Quotas where these credentials may ask,
or else they are the documented defaults of 2026.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import boto3
from botocore import exceptions

from ..errors import DeniedError
from .session import aws_failures, client
from .stack import list_stacks

IAM_KINDS = {"Users": "IAM users", "Groups": "IAM groups", "Policies": "IAM policies", "Roles": "IAM roles"}
STACKS, REPOSITORIES = "CloudFormation stacks in this region", "CodeCommit repositories in this region"
_CODES = {STACKS: ("cloudformation", "L-0485CB21", 2000), REPOSITORIES: ("codecommit", "L-81790602", 5000)}
"""Service, code and default: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html,
https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html"""
_BY_TYPE = {
    "AWS::IAM::User": "IAM users",
    "AWS::IAM::Group": "IAM groups",
    "AWS::IAM::ManagedPolicy": "IAM policies",
    "AWS::IAM::Role": "IAM roles",
    "AWS::CodeCommit::Repository": REPOSITORIES,
}


@dataclass(frozen=True)
class Quota:
    """How many there are of something, and how many there may be."""

    used: int
    allowed: int


def needs_of(templates: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return how many of each thing new stacks need."""
    needs: Counter[str] = Counter()
    for template in templates:
        types = (resource["Type"] for resource in template.get("Resources", {}).values())
        needs.update((STACKS, *(_BY_TYPE[kind] for kind in types if kind in _BY_TYPE)))
    return needs


def problems(needs: Mapping[str, int], quotas: Mapping[str, Quota]) -> list[str]:
    """Return a sentence for each quota that is too small, with what to do."""
    return [
        f"{needs[kind]:,} more {kind} are needed, but the account has {quota.used:,} and its quota allows "
        f"{quota.allowed:,}; raise the quota under Service Quotas first."
        for kind, quota in quotas.items()
        if needs.get(kind, 0) and quota.used + needs[kind] > quota.allowed
    ]


def read_quotas(aws: boto3.Session, needs: Mapping[str, int]) -> dict[str, Quota]:
    """Return the quotas of what is needed, as far as these credentials may read how much is used.

    Raises:
        MirrorError: a call failed.
    """
    quotas: dict[str, Quota] = {}
    if any(needs.get(kind) for kind in IAM_KINDS.values()):
        with suppress(DeniedError), aws_failures("read the account's IAM quotas"):
            summary: Any = client(aws, "iam").get_account_summary()["SummaryMap"]
            quotas |= {
                kind: Quota(summary[key], summary[f"{key}Quota"])
                for key, kind in IAM_KINDS.items()
                if {key, f"{key}Quota"} <= summary.keys()
            }
    counters: dict[str, Callable[[], int]] = {
        STACKS: lambda: len(list_stacks(aws)),
        REPOSITORIES: lambda: _count_repositories(aws),
    }
    for kind, count in counters.items():
        if needs.get(kind):
            with suppress(DeniedError):
                quotas[kind] = Quota(count(), _quota(aws, kind))
    return quotas


def _count_repositories(aws: boto3.Session) -> int:
    with aws_failures("list the CodeCommit repositories"):
        pages = client(aws, "codecommit").get_paginator("list_repositories").paginate()
        return sum(len(page["repositories"]) for page in pages)


def _quota(aws: boto3.Session, kind: str) -> int:
    service, code, default = _CODES[kind]
    try:
        answer = aws.client("service-quotas").get_service_quota(ServiceCode=service, QuotaCode=code)
        return int(answer["Quota"]["Value"])
    except (exceptions.BotoCoreError, exceptions.ClientError, KeyError):
        return default
