"""Tampering and staleness, under each plausible shape of CodeCommit's events."""

import subprocess
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from codecommit_mirror.guard.handler import Guard
from localcloud import sample

pytestmark = pytest.mark.long("guard")


@pytest.fixture
def guarded(shaped):
    return shaped


def push(rig, *refspecs, user=None):
    """Push to the replica from the replica's own folder, with the pipeline's credential or another user's."""
    credential = user or rig.credential
    name, password = (quote(credential[key], safe="") for key in ("ServiceUserName", "ServicePassword"))
    url = rig.outputs["ReplicaUrl"].replace("://", f"://{name}:{password}@")
    subprocess.run(["git", "-C", str(rig.source), "push", "-q", "-f", url, *refspecs], check=True, capture_output=True)


def notice(guarded, rig, ref):
    """Wait until the guard has heard of a change; if it names no author, let three hours pass, and return True."""
    for _ in range(80):
        state = guarded.open_vault().states.read(rig.name)[0]
        if state.changed_since or ref in state.unattributed:
            break
        time.sleep(0.25)
    if state.changed_since:
        return False
    later = datetime.now(UTC) + timedelta(hours=3)
    Guard(guarded.guard_environment(), guarded.as_guard(), lambda: later).check()
    return True


def somebody(cloud, rig):
    """Return the Git credential of a user who may push everywhere."""
    iam, name = cloud.client("iam"), f"mallory-{rig.name}"
    iam.create_user(UserName=name)
    iam.attach_user_policy(UserName=name, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    issued = iam.create_service_specific_credential(UserName=name, ServiceName="codecommit.amazonaws.com")
    return issued["ServiceSpecificCredential"]


def test_a_days_work_is_not_told(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    sample.commit(rig.source, "main", "a commit")
    sample.commit(rig.source, "on-top", "a branch that has all of main", parent="main")
    sample.commit(rig.source, "feature/1", "rewritten", parent="main~3")
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    sample.git(rig.source, "update-ref", "-d", "refs/tags/v0.0")
    sample.git(rig.source, "tag", "-f", "-a", "-m", "moved", "v2.0", "main~1")
    sample.git(rig.source, "update-ref", "refs/notes/commits", sample.refs(rig.source)["refs/heads/main"])
    rig.run()
    assert guarded.mails(rig.name) == []
    assert guarded.invoke(task="check")["replicas"] >= 1
    assert guarded.mails(rig.name) == []
    state = guarded.open_vault().states.read(rig.name)[0]
    assert (state.changed_since, state.stale_since) == ("", "")


def test_a_wipe_with_the_pipelines_password_is_told_once_and_when_it_is_over(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    guarded.snapshot(rig.name)
    before = len(guarded.mails(rig.name))
    branches = [name for name in sample.refs(rig.source, "refs/heads/") if name != "refs/heads/main"]
    push(rig, *(f":{name}" for name in branches))
    hours_passed = notice(guarded, rig, "refs/heads/feature/")
    assert before == 0
    (mail,) = guarded.mails(rig.name, 1)
    assert mail["to"] == "ops@example.com"
    assert mail["subject"] == f"Replica {rig.name} was changed, but not by its mirror"
    assert "deleted refs/heads/feature/" in mail["body"]
    assert f"restore {rig.name} --from snapshots" in mail["body"]
    rig.run()
    rig.assert_equal()
    guarded.invoke(task="check")
    if hours_passed:
        return  # No run confirms the replica after that time.
    assert [one["subject"] for one in guarded.mails(rig.name, 2)[1:]] == [f"Replica {rig.name} is confirmed again"]


def test_a_change_by_somebody_else_is_told(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    other = somebody(guarded.cloud, rig)
    push(rig, "refs/heads/main~2:refs/heads/main", user=other)
    mails = guarded.mails(rig.name, 1)
    assert len(mails) == 1
    assert "updated refs/heads/main" in mails[0]["body"]


def test_a_creation_by_nobody_known_is_told_unless_a_run_confirms_the_replica(rig, guarded):
    sample.fill(rig.source)
    rig.run()
    # Events are timed in seconds: what the first run created in its last second is confirmed by the next run.
    time.sleep(1.1)
    sample.commit(rig.source, "main", "a commit")
    rig.run()
    other = somebody(guarded.cloud, rig)
    # So is a creation in the second of the last confirmation.
    time.sleep(1.1)
    push(rig, "refs/heads/main:refs/heads/strange", user=other)
    notice(guarded, rig, "refs/heads/strange")
    mails = guarded.mails(rig.name, 1)
    assert len(mails) == 1
    assert "created refs/heads/strange" in mails[0]["body"]
    assert "mallory" in mails[0]["body"] or "does not name the caller" in mails[0]["body"]


def test_who_makes_herself_the_writer_is_told(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    arn, codecommit = guarded.arn(rig.name), guarded.cloud.client("codecommit")
    codecommit.tag_resource(resourceArn=arn, tags={"codecommit-mirror:writer": f"user/mallory-{rig.name}"})
    guarded.invoke(task="check")
    (mail,) = guarded.mails(rig.name, 1)
    assert mail["subject"] == f"Tags of replica {rig.name} were changed"
    assert f"to:    writer user/mallory-{rig.name}, archive kept 90 days" in mail["body"]
