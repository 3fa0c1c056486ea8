"""The confirming tag: what each run that does not fail says of the replica."""

import hashlib
import time
from datetime import datetime

import pytest

from codecommit_mirror.operations import verification
from localcloud import sample
from tests.program import program


def confirmed(rig):
    """Return the lines of the confirming tag's message, as plain git shows them."""
    text = sample.git(rig.replica, "for-each-ref", "--format=%(contents:body)", program.CONFIRMED_TAG)
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def test_each_run_says_anew_what_was_equal_also_when_there_is_nothing_to_push(rig):
    sample.fill(rig.source)
    tags = set()
    for _ in range(2):
        assert rig.run().result == "succeeded"
        tags.add(sample.refs(rig.replica)[program.CONFIRMED_TAG])
        context = rig.context()
        assert verification.compare(rig.mirror, rig.outputs["ReplicaUrl"], context.aws, context.token).different == []
        time.sleep(1)
    assert len(tags) == 2
    listing = sample.git(
        rig.source, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags", "refs/notes"
    )
    said = confirmed(rig)
    assert said["source"] == rig.mirror.azure.clone_url
    assert said["refs"] == str(len(listing.splitlines()))
    assert said["sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    assert abs(datetime.fromisoformat(said["time"]).timestamp() - time.time()) < 60
    sample.git(rig.replica, "fsck", "--full", "--strict")


def test_a_run_that_fails_confirms_nothing(rig):
    sample.fill(rig.source)
    assert rig.run(AZURE_GIT_PASSWORD="wrong").result == "failed"
    assert program.CONFIRMED_TAG not in sample.refs(rig.replica)


@pytest.mark.parametrize(
    "name",
    [program.CONFIRMED_TAG, f"{program.OWN_PREFIX}archive/x", f"{program.OWN_PREFIX}mine", f"refs/tags/{'ab' * 20}"],
)
def test_a_tag_that_the_replica_cannot_take_is_reported_and_the_rest_is_mirrored(rig, name):
    sample.fill(rig.source)
    tip = sample.git(rig.source, "rev-parse", "feature/0").strip()
    sample.git(rig.source, "update-ref", name, tip)
    run = rig.run()
    assert run.result == "succeededWithIssues", run.text
    ((kind, words),) = run.issues
    assert kind == "warning"
    assert words.startswith(f"{name}: ")
    assert words.endswith("rename the tag at the source")
    assert sample.refs(rig.replica).get(name) != tip
    sample.git(rig.source, "update-ref", "-d", name)
    rig.assert_equal()
