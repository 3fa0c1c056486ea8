"""Repositories' tags, where other services of AWS read them: the tagging API, and IAM conditions on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ministack.core import iam_actions, responses
from ministack.services import tagging

from .api import CodeCommit

_PREFIX = "arn:aws:codecommit:"


def install(service: CodeCommit) -> None:
    """Let GetResources list repositories, and ``aws:ResourceTag`` and the ARN limit calls on one of them."""

    def collect() -> Iterator[tuple[str, list[dict[str, str]]]]:
        here = (responses.get_account_id(), responses.get_region())
        for repository in service.all():
            if (repository.account, repository.region) == here and repository.tags:
                yield repository.arn, [{"Key": key, "Value": value} for key, value in repository.tags.items()]

    tagging._COLLECTORS["codecommit"] = tagging._RESOURCE_TAG_COLLECTORS["codecommit"] = collect
    _match_the_type()
    _name_the_resource()


def _match_the_type() -> None:
    matches: Callable[[str, list[str]], bool] = tagging._matches_type_filters

    def matches_type(arn: str, filters: list[str]) -> bool:
        if filters and arn.startswith(_PREFIX):
            return "codecommit" in filters or "codecommit:repository" in filters
        return matches(arn, filters)

    tagging._matches_type_filters = matches_type


def _name_the_resource() -> None:
    extract: Callable[..., str] = iam_actions.extract_resource_arn

    def extract_arn(
        service: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query: dict[str, Any],
        region: str,
        account: str,
    ) -> str:
        if service == "codecommit":
            call = json.loads(body or b"{}")
            if arn := call.get("resourceArn"):
                return str(arn)
            name = call.get("repositoryName")
            return f"{_PREFIX}{region}:{account}:{name}" if name else "*"
        return extract(service, method, path, headers, body, query, region, account)

    iam_actions.extract_resource_arn = extract_arn
