"""A replica that no run confirms, and repositories that are none of the guard's."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from codecommit_mirror.guard.handler import Guard
from localcloud import sample

pytestmark = pytest.mark.long("guard")


def about_staleness(guarded, rig, expected=0):
    """Return the subjects of e-mails about staleness, without those about missing snapshots."""
    subjects = [mail["subject"] for mail in guarded.mails(rig.name, expected)]
    return [subject for subject in subjects if "backed up" not in subject]


def test_a_replica_that_no_run_confirms_is_told_once(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    clock = [datetime.now(UTC)]
    guard = Guard(guarded.guard_environment(), guarded.as_guard(), lambda: clock[0])
    for hours in (1, 47, 49, 60):
        clock[0] = datetime.now(UTC) + timedelta(hours=hours)
        guard.check()
        assert len(about_staleness(guarded, rig, int(hours > 48))) == (hours > 48)
    assert about_staleness(guarded, rig)[0] == f"Replica {rig.name} is stale"
    time.sleep(1)
    rig.run()
    assert about_staleness(guarded, rig, 2)[1:] == [f"Replica {rig.name} is up to date again"]


def test_a_repository_that_is_no_replica_is_left_alone(guarded, cloud):
    cloud.client("codecommit").create_repository(repositoryName="not-a-replica")
    answer = guarded.invoke(task="snapshot", replica=guarded.arn("not-a-replica"))
    assert answer == {"kind": "gone"}
