"""The guard behind a queue that delivers events twice, late and out of order, as EventBridge and Lambda may."""

import time

import pytest

from codecommit_mirror.backup.coverage import Subscriptions, subscriptions_of
from localcloud import sample

from .test_watch import push

pytestmark = pytest.mark.long("guard")
LONGEST_SECONDS = 3


@pytest.fixture(params=["twice", "late", "shuffled"])
def delivering(guarded, request):
    """The guard, with events that come as the queue delivers them."""
    guarded.cloud.aws.deliver_events(request.param)
    yield guarded
    guarded.cloud.aws.deliver_events("once")


def test_a_days_work_is_not_told_and_a_wipe_is_told_once(delivering, rig):
    sample.fill(rig.source)
    rig.run()
    delivering.snapshot(rig.name)
    sample.commit(rig.source, "main", "a commit")
    rig.run()
    time.sleep(LONGEST_SECONDS)
    assert delivering.mails(rig.name) == []
    branches = [name for name in sample.refs(rig.source, "refs/heads/") if name != "refs/heads/main"]
    push(rig, *(f":{name}" for name in branches))
    time.sleep(LONGEST_SECONDS)
    (mail,) = delivering.mails(rig.name, expected=1)
    assert "changed" in mail["subject"]


def test_whom_the_messages_reach_is_read_from_the_topic(guarded, rig):
    before = subscriptions_of([rig.context()])[rig.name]
    assert before.confirmed == 1
    guarded.cloud.client("sns").subscribe(TopicArn=guarded.topic, Protocol="email", Endpoint="new@example.com")
    assert subscriptions_of([rig.context(), rig.context()]) == {rig.name: Subscriptions(1, before.pending + 1)}
