"""Who has the pipeline's Git password adds refs of the engine's own kind: runs undo it, and no restore shows it."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from localcloud import sample

from .test_watch import push

pytestmark = pytest.mark.long("guard")
OWN = "refs/tags/codecommit-mirror"


@pytest.fixture
def watched(kept):
    """The replica, and a branch ``attack`` at the source that no run has seen."""
    sample.commit(kept.source, "attack", "a back door", parent="main~8")
    return kept


def attack(rig, *refspecs):
    push(rig, *refspecs)
    sample.git(rig.source, "update-ref", "-d", "refs/heads/attack")


def test_no_restore_shows_another_commit_under_an_id(guarded, watched, command, tmp_path):
    main = sample.refs(watched.source)["refs/heads/main"]
    planted = f"{OWN}/refs/replace/{main}"
    attack(watched, f"refs/heads/attack:{planted}")
    guarded.snapshot(watched.name)
    url, folder = watched.mirror.azure.clone_url, tmp_path / "restored"
    for origin in ("snapshots", "replica"):
        target = folder / origin
        done = command("restore", watched.name, "--azure-repo-url", url, "--from", origin, "--to", str(target))
        assert done.returncode == 0, done.stderr
        assert "back door" not in sample.git(target, "log", "-1", "--format=%s", "main")
        assert not sample.refs(target, "refs/replace/")
    watched.run()
    assert planted not in sample.refs(watched.replica)


def test_a_branch_below_the_engines_own_refs_hides_no_branch(guarded, watched, command):
    main = sample.refs(watched.source)["refs/heads/main"]
    attack(watched, "refs/heads/attack:refs/heads/main", f"{main}:{OWN}/refs/heads/main", f"{main}:{OWN}/anything")
    token = {"AZURE_DEVOPS_EXT_PAT": guarded.cloud.operator_token}
    done = command("verify", watched.name, "--azure-repo-url", watched.mirror.azure.clone_url, **token)
    assert done.returncode == 3
    assert "refs/heads/main" in done.stdout + done.stderr
    watched.run()
    watched.assert_equal()
    assert not {f"{OWN}/refs/heads/main", f"{OWN}/anything"} & sample.refs(watched.replica).keys()


@pytest.mark.parametrize("hours", [-23, -2, 2])
def test_an_archive_entry_of_another_time(guarded, watched, hours):
    stamp = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y%m%dT%H%M%SZ")
    attack(watched, f"refs/heads/attack:{OWN}/archive/{stamp}/heads/main")
    (mail,) = guarded.mails(watched.name, 1)
    assert f"created {OWN}/archive/{stamp}/heads/main" in mail["body"]


def test_the_confirming_tag_is_not_deleted_unheard(guarded, watched):
    attack(watched, f":{OWN}/confirmed")
    (mail,) = guarded.mails(watched.name, 1)
    assert f"deleted {OWN}/confirmed" in mail["body"]


def test_with_one_day_of_archive_its_entries_stay_for_that_day(guarded, watched):
    codecommit = guarded.cloud.client("codecommit")
    codecommit.tag_resource(resourceArn=guarded.arn(watched.name), tags={"codecommit-mirror:archive-days": "1"})
    guarded.invoke(task="check")
    before = len(guarded.mails(watched.name))
    entry = f"{OWN}/archive/{datetime.now(UTC) - timedelta(minutes=59):%Y%m%dT%H%M%SZ}/heads/main"
    push(watched, f"refs/heads/main:{entry}")
    time.sleep(1)
    attack(watched, f":{entry}")
    assert len(guarded.mails(watched.name, before + 1)) == before + 1
