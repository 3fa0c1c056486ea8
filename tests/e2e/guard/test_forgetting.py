"""Who deletes the guard's notes, or stops it from reading, is told of, and stops no other look; so is staleness."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from codecommit_mirror.backup.snapshots import read_snapshots
from codecommit_mirror.guard import handler
from codecommit_mirror.guard.handler import Guard
from codecommit_mirror.guard.replica import replicas
from localcloud import sample

from .test_attacks import operator, refused

pytestmark = pytest.mark.long("guard")


def forget(guarded, name):
    """Delete notes as the role that deploys the vault, which the bucket's policy lets delete what is not locked."""
    s3, key = guarded.session_as(guarded.deployer).client("s3"), f"state/{name}.json"
    for version in s3.list_object_versions(Bucket=guarded.bucket, Prefix=key)["Versions"]:
        s3.delete_object(Bucket=guarded.bucket, Key=key, VersionId=version["VersionId"])


def subjects(guarded):
    guarded.mails("nobody")
    return [mail["subject"] for mail in guarded.cloud.mail()]


def change_rule(guarded):
    return next(
        rule["Name"]
        for rule in guarded.cloud.client("events").list_rules()["Rules"]
        if rule["Name"].startswith("codecommit-mirror-guard") and "EventPattern" in rule
    )


def test_notes_that_are_gone(guarded, kept):
    codecommit = guarded.cloud.client("codecommit")
    tags = {"codecommit-mirror:writer": "user/mallory", "codecommit-mirror:archive-days": "0"}
    codecommit.tag_resource(resourceArn=guarded.arn(kept.name), tags=tags)
    forget(guarded, kept.name)
    guarded.invoke(task="check")
    assert [mail["subject"] for mail in guarded.mails(kept.name, 1)] == [f"Notes on replica {kept.name} are gone"]
    guarded.invoke(task="check")
    assert len(guarded.mails(kept.name)) == 1


def test_the_guards_notes_on_itself_that_are_gone(guarded, kept):
    events, rule, before = guarded.cloud.client("events"), change_rule(guarded), len(subjects(guarded))
    events.disable_rule(Name=rule)
    forget(guarded, "guard/itself")
    guarded.invoke(task="check")
    assert "The guard begins its watch" in subjects(guarded)[before:]
    events.enable_rule(Name=rule)
    guarded.invoke(task="check")
    assert subjects(guarded)[-1] == "The guard itself was changed"


def test_a_tag_that_is_no_number_stops_no_look(guarded, kept):
    name = f"aaa-{kept.name}"
    codecommit = operator(guarded.cloud, f"tag-{kept.name}").client("codecommit")
    tags = {"replica": "x", "writer": "user/x", "archive-days": "\N{SUPERSCRIPT TWO}"}
    codecommit.create_repository(
        repositoryName=name, tags={f"codecommit-mirror:{tag}": value for tag, value in tags.items()}
    )
    for task in ("check", "snapshots"):
        assert "errorMessage" not in guarded.invoke(task=task)
    codecommit.delete_repository(repositoryName=name)
    guarded.invoke(task="check")


def test_another_default_branch(guarded, kept):
    codecommit = operator(guarded.cloud, f"head-{kept.name}").client("codecommit")
    codecommit.update_default_branch(repositoryName=kept.name, defaultBranchName="feature/0")
    guarded.invoke(task="check")
    (mail,) = guarded.mails(kept.name, 1)
    assert mail["subject"] == f"Replica {kept.name} has another default branch"
    assert "to:    refs/heads/feature/0" in mail["body"]


def test_a_replica_that_cannot_be_read_is_told_and_stale_all_the_same(guarded, kept, monkeypatch):
    monkeypatch.setattr(handler, "_SHORT_LIST", 100)
    monkeypatch.setattr(handler, "_LONG_LIST", 200)
    monkeypatch.setattr(handler, "_MAX_UNREADABLE", 1000)
    for days in (0, 0, 3):
        clock = datetime.now(UTC) + timedelta(days=days)
        Guard(guarded.guard_environment(), guarded.as_guard(), lambda clock=clock: clock).check()
    told = [mail["subject"] for mail in guarded.mails(kept.name, 3)]
    assert told == [
        f"Replica {kept.name} cannot be read",
        f"Replica {kept.name} is stale",
        f"Replica {kept.name} is not backed up",
    ]
    monkeypatch.undo()
    guarded.invoke(task="check")
    assert f"Replica {kept.name} was read again" in [mail["subject"] for mail in guarded.mails(kept.name, 4)]


def test_long_lists_of_refs_are_read_one_after_the_other(guarded, kept, monkeypatch):
    monkeypatch.setattr(handler, "_SHORT_LIST", 100)
    Guard(guarded.guard_environment(), guarded.as_guard()).check()
    assert guarded.mails(kept.name) == []


def test_a_subscription_that_leaves_messages_out(guarded, kept):
    sns = guarded.cloud.client("sns")
    listed = sns.list_subscriptions_by_topic(TopicArn=guarded.topic)["Subscriptions"]
    (mine,) = [one["SubscriptionArn"] for one in listed if one["SubscriptionArn"].startswith("arn:")]
    rule = {"SubscriptionArn": mine, "AttributeName": "FilterPolicy"}
    sns.set_subscription_attributes(**rule, AttributeValue=json.dumps({"kind": ["none"]}))
    guarded.invoke(task="check")
    (metric,) = guarded.cloud.client("cloudwatch").get_metric_statistics(
        Namespace="codecommit-mirror",
        MetricName="Subscribers",
        StartTime=datetime.now(UTC) - timedelta(seconds=5),
        EndTime=datetime.now(UTC) + timedelta(seconds=5),
        Period=60,
        Statistics=["Minimum"],
    )["Datapoints"]
    assert metric["Minimum"] == 0
    sns.set_subscription_attributes(**rule, AttributeValue="{}")
    guarded.invoke(task="check")
    last = [mail for mail in guarded.cloud.mail() if mail["subject"] == "The guard itself was changed"][-1]
    assert "subscription of ops@example.com (email) was changed" in last["body"]


def test_the_topics_key_is_its_deployers(guarded):
    key = guarded.cloud.client("sns").get_topic_attributes(TopicArn=guarded.topic)["Attributes"]["KmsMasterKeyId"]
    kms = guarded.cloud.client("kms")
    refused("AccessDeniedException", kms.disable_key, KeyId=key)
    refused("AccessDeniedException", kms.schedule_key_deletion, KeyId=key, PendingWindowInDays=7)
    policy = kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    refused("AccessDeniedException", kms.put_key_policy, KeyId=key, PolicyName="default", Policy=policy)


def test_another_recipient_is_told(guarded, kept):
    sns, address = guarded.cloud.client("sns"), "mallory@example.com"
    sns.subscribe(TopicArn=guarded.topic, Protocol="email", Endpoint=address)
    guarded.cloud.aws.confirm_subscriptions(address)
    listed = sns.list_subscriptions_by_topic(TopicArn=guarded.topic)["Subscriptions"]
    (made,) = [one["SubscriptionArn"] for one in listed if one["Endpoint"] == address]
    guarded.invoke(task="check")
    last = [mail for mail in guarded.cloud.mail() if mail["subject"] == "The guard itself was changed"][-1]
    assert f"subscription of {address} (email) is new" in last["body"]
    sns.unsubscribe(SubscriptionArn=made)
    guarded.invoke(task="check")


def test_names_of_any_characters_leave_the_guard_alive(guarded, kept):
    main = sample.refs(kept.replica)["refs/heads/main"]
    sample.git(kept.replica, "pack-refs", "--all")
    packed = kept.replica / "packed-refs"
    lines = [line for line in packed.read_text().splitlines() if not line.startswith("#")]
    # Of 15 MB: just below what is read.
    lines += [f"{main} refs/heads/zz/{'z' * 240}\N{PILE OF POO}{number:06d}" for number in range(48_000)]
    packed.write_text("\n".join(["# pack-refs with: peeled fully-peeled ", *lines]) + "\n")
    assert "errorMessage" not in guarded.invoke(task="check")
    assert guarded.snapshot(kept.name)["refs"] > 48_000
    guarded.cloud.client("codecommit").delete_repository(repositoryName=kept.name)


@pytest.mark.parametrize("comes_back", [False, True], ids=["stays", "comes back"])
def test_another_repository_has_the_name_while_the_refs_are_read(guarded, rig, monkeypatch, comes_back):
    """It is no snapshot, and the next look or snapshot reads the replica again."""
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    guarded.snapshot(rig.name)
    codecommit = operator(guarded.cloud, f"swapper-{rig.name}").client("codecommit")
    other, aside = f"other-{rig.name}", f"aside-{rig.name}"
    tags = codecommit.list_tags_for_resource(resourceArn=guarded.arn(rig.name))["tags"]
    codecommit.create_repository(repositoryName=other, tags=tags)
    sample.git(guarded.cloud.replica_path(other), "fetch", "-q", str(rig.replica), "+refs/*:refs/*")
    tip = sample.commit(rig.source, "main", "the other one lacks it")
    rig.run()
    listed = replicas.read_patiently

    def swap(first, second, third):
        for old, new in ((first, second), (third, first)):
            codecommit.update_repository_name(oldName=old, newName=new)

    def exchanged(*arguments):
        monkeypatch.setattr(replicas, "read_patiently", listed)
        swap(rig.name, aside, other)
        try:
            return listed(*arguments)
        finally:
            if comes_back:
                swap(rig.name, other, aside)

    monkeypatch.setattr(replicas, "read_patiently", exchanged)
    here = Guard(guarded.guard_environment(), guarded.as_guard())
    taken = here.snapshot(guarded.arn(rig.name), 840)["kind"]
    assert taken == ("incremental" if comes_back else "exchanged")
    found = read_snapshots(guarded.session(), rig.name)
    assert (found.refs(found.at(None))["refs/heads/main"] == tip) is comes_back


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
