"""What the guard of mirrors.yaml covers: which mirrors it does not watch, and whom its messages reach."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import boto3

from ..aws.session import SignIn, aws_failures, client, sign_in_of
from ..config.guard import STACK_NAME, stack_suffix
from ..config.load import Configuration
from ..errors import MirrorError, NotFoundError
from ..operations.context import MirrorContext
from .snapshots import stack_output


@dataclass(frozen=True)
class Unguarded:
    """Why the guard does not watch a mirror."""

    reason: str
    remedy: str | None = None
    """The command that changes it, if there is one."""


@dataclass(frozen=True)
class Subscriptions:
    """Who gets the guard's messages."""

    confirmed: int
    pending: int
    """Those whose recipients have not followed the link in SNS's e-mail yet."""


def read_subscriptions(aws: boto3.Session) -> Subscriptions:
    """Return how many subscriptions the guard's topic has (ListSubscriptionsByTopic).

    Raises:
        NotFoundError: there is no guard in this account and region.
        MirrorError: a call failed.
    """
    topic = stack_output(aws, STACK_NAME, "TopicArn")
    with aws_failures(f"list the subscriptions of {topic}"):
        pages = client(aws, "sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
        arns = [subscription["SubscriptionArn"] for page in pages for subscription in page["Subscriptions"]]
    confirmed = sum(arn.startswith("arn:") for arn in arns)
    return Subscriptions(confirmed, len(arns) - confirmed)


def subscriptions_of(contexts: Sequence[MirrorContext]) -> dict[str, Subscriptions]:
    """Return who gets the guard's messages about mirrors, by name, asked for once in each account and region.

    A mirror whose region has no guard, or cannot be asked, is left out.
    """
    by_place: dict[tuple[SignIn, str], Subscriptions | None] = {}
    by_mirror: dict[str, Subscriptions] = {}
    for context in contexts:
        with suppress(MirrorError):
            place = (sign_in_of(context.mirror), str(context.aws.region_name))
            if place not in by_place:
                by_place[place] = None  # If it cannot be read, it is not asked for again.
                by_place[place] = read_subscriptions(context.aws)
            if subscriptions := by_place[place]:
                by_mirror[context.mirror.name] = subscriptions
    return by_mirror


def unguarded(configuration: Configuration, contexts: Sequence[MirrorContext]) -> dict[str, Unguarded]:
    """Return why mirrors are not guarded, by name; nothing if mirrors.yaml has no guard.

    CloudFormation is asked once for each account and region. A mirror whose account cannot be asked is left out.
    """
    if not configuration.guards:
        return {}
    reasons: dict[str, Unguarded] = {}
    by_place: dict[tuple[SignIn, str], Unguarded | None] = {}
    for context in contexts:
        try:
            region = str(context.aws.region_name)
            guard = configuration.guard_of(context.mirror)
            if guard is None or (guard.region and guard.region != region):
                watched = guard.region if guard else "other accounts or regions"
                why = f"the guard watches {watched}, but the replica is in {region}"
                reasons[context.mirror.name] = Unguarded(why)
                continue
            place = (sign_in_of(context.mirror), region)
            if place not in by_place:
                by_place[place] = _problem(context, region, stack_suffix(guard, configuration.guards))
        except MirrorError:
            continue
        if problem := by_place[place]:
            reasons[context.mirror.name] = problem
    return reasons


def _problem(context: MirrorContext, region: str, suffix: str) -> Unguarded | None:
    try:
        stack_output(context.aws, STACK_NAME, "TopicArn")
    except NotFoundError:
        return Unguarded(f"the guard is not deployed in {region}", f"cdk deploy {STACK_NAME}{suffix}")
    return None
