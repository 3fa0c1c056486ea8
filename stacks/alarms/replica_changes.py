"""What CodeCommit tells EventBridge of the replica.

https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aws_cdk import aws_events as events


@dataclass(frozen=True)
class WatchedReplica:
    """A replica, and the only user whose changes are as they should be."""

    repository_arn: str
    name: str
    user_arn: str

    def changes(self, kinds: Sequence[str], **detail: Any) -> events.EventPattern:
        """Return the pattern of changes of refs.

        Args:
            kinds: ``referenceCreated``, ``referenceUpdated``, ``referenceDeleted``.
            detail: what else the event's detail must hold.
        """
        wanted: Mapping[str, Any] = {"event": list(kinds), **detail}
        return events.EventPattern(
            source=["aws.codecommit"],
            detail_type=["CodeCommit Repository State Change"],
            resources=[self.repository_arn],
            detail=wanted,
        )
