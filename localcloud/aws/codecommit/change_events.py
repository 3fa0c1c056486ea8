"""What CodeCommit tells EventBridge about pushes.

Recorded in accounts: callerUserArn and the full name of a branch or tag
(https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html shows the rest). Not recorded: events
for refs outside branches and tags, deletions of tags, and which id an annotated tag has; so each plausible shape can be
chosen.
"""

from __future__ import annotations

import enum
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ministack.core import responses
from ministack.services import eventbridge

from .api import Repository
from .git_service import NO_OBJECT, Update

_OTHER = "refs outside branches and tags"


class EventShape(enum.Enum):
    """How events look where nobody recorded one."""

    RECORDED = "recorded"
    """With the caller; none for refs outside branches and tags; a tag's id is that of its own object."""
    ANONYMOUS = "anonymous"
    """As the documentation's examples: without the caller, and a deletion without the old id."""
    PEELED = "peeled"
    """With the caller; an annotated tag's id is that of its commit; other refs are reported as branches."""


def peel(repository: Path, updates: Sequence[Update]) -> dict[str, str]:
    """Return the commit of each annotated tag that the updates name, by the tag's id."""
    ids = {value for update in updates for value in (update.old, update.new) if value != NO_OBJECT}
    done = subprocess.run(
        ["git", "-C", str(repository), "cat-file", "--batch-check=%(objectname)"],
        input="".join(f"{value}^{{}}\n" for value in sorted(ids)).encode(),
        capture_output=True,
        check=False,
    )
    commits = [line.split()[0] for line in done.stdout.decode().splitlines()]
    return dict(zip(sorted(ids), commits, strict=False))


def details(
    repository: Repository, update: Update, caller: str, shape: EventShape, peeled: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the detail of an update's event; None if there is none."""
    kind = {"heads": "branch", "tags": "tag"}.get(update.ref.split("/")[1])
    if kind is None and shape is EventShape.RECORDED:
        return None
    verb = "Deleted" if update.deletes else "Created" if update.old == NO_OBJECT else "Updated"
    ids = {"oldCommitId": update.old, "commitId": update.new}
    if shape is EventShape.ANONYMOUS and update.deletes:
        ids.pop("oldCommitId")
    if shape is EventShape.PEELED:
        ids = {name: peeled.get(value, value) for name, value in ids.items()}
    return {
        "event": f"reference{verb}",
        "repositoryName": repository.name,
        "repositoryId": repository.id,
        "referenceType": kind or "branch",
        "referenceName": update.ref.split("/", 2)[-1],
        "referenceFullName": update.ref,
        **{name: value for name, value in ids.items() if value != NO_OBJECT},
        **({} if shape is EventShape.ANONYMOUS else {"callerUserArn": caller}),
    }


def publish(repository: Repository, updates: Sequence[Update], caller: str, shape: EventShape) -> None:
    """Publish one event for each update."""
    peeled = peel(repository.path, updates) if shape is EventShape.PEELED else {}
    entries = [
        {
            "Source": "aws.codecommit",
            "DetailType": "CodeCommit Repository State Change",
            "Resources": [repository.arn],
            "Detail": json.dumps(detail),
        }
        for update in updates
        if (detail := details(repository, update, caller, shape, peeled))
    ]
    with responses.request_scope(repository.account, repository.region):
        for start in range(0, len(entries), 10):
            eventbridge._put_events({"Entries": entries[start : start + 10]}, allow_aws_source=True)
