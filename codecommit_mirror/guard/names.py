"""Names that the guard shares with the stacks: tags, and the kinds of events."""

from __future__ import annotations

REPLICA_TAG = "codecommit-mirror:replica"
"""A repository's: the mirror's name."""
WRITER_TAG = "codecommit-mirror:writer"
"""A repository's: who writes to the replica, as ``user/NAME``; a comma, which no tag holds, is written as a colon."""
ARCHIVE_DAYS_TAG = "codecommit-mirror:archive-days"
"""A repository's: how long the pipeline keeps tips that it drops; 0 for no archive."""
EXPIRED_TAG = "codecommit-mirror:expired"
"""An object's that no snapshot needs any longer; a life-cycle rule removes it once its lock has ended."""
NAMESPACE, SUBSCRIBERS, LOOKS = "codecommit-mirror", "Subscribers", "Looks"
"""The metrics of how many people hear of the guard's messages, and of its hourly looks at every replica."""
EVENT_KINDS = ("referenceCreated", "referenceUpdated", "referenceDeleted")
"""https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html"""
