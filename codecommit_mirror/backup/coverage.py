"""Which mirrors the guard of mirrors.yaml does not watch: it is not deployed, or watches another region or account."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.guard import STACK_NAME, Guard
from ..errors import MirrorError, NotFoundError
from ..operations.context import MirrorContext
from .snapshots import find_bucket


def unguarded(guard: Guard | None, contexts: Sequence[MirrorContext]) -> dict[str, str]:
    """Return why mirrors are not guarded, by name; nothing if mirrors.yaml has no guard.

    CloudFormation is asked once for each region. A mirror whose account cannot be asked is left out.
    """
    if guard is None:
        return {}
    reasons: dict[str, str] = {}
    by_region: dict[str, str | None] = {}
    for context in contexts:
        try:
            region = str(context.aws.region_name)
            if guard.region and guard.region != region:
                reasons[context.mirror.name] = f"the guard watches {guard.region}, but the replica is in {region}"
                continue
            if region not in by_region:
                by_region[region] = _problem(context, region)
        except MirrorError:
            continue
        if problem := by_region[region]:
            reasons[context.mirror.name] = problem
    return reasons


def _problem(context: MirrorContext, region: str) -> str | None:
    try:
        find_bucket(context.aws)
    except NotFoundError:
        return f"the guard is not deployed in {region}; run 'cdk deploy {STACK_NAME}'"
    return None
