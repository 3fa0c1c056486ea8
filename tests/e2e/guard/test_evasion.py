"""Ways around the guard: whoever takes one of them is told of, and spoils no snapshot."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from codecommit_mirror import engine_api
from codecommit_mirror.backup.snapshots import problems, read_snapshots
from codecommit_mirror.engine.archive import MAX_ENTRY_BYTES
from codecommit_mirror.engine.confirmation import confirmation, source_commit
from codecommit_mirror.engine.plan import by_original_name
from codecommit_mirror.engine.refs import ReplicaRefs
from codecommit_mirror.engine.wire.packs import COMMIT, TAG, TREE, object_id, pack_of
from codecommit_mirror.guard import handler
from codecommit_mirror.guard.handler import Guard
from codecommit_mirror.guard.messages import Message
from codecommit_mirror.guard.replica import history
from codecommit_mirror.guard.snapshot import Snapshots
from codecommit_mirror.guard.vault.state import States
from localcloud import sample

from .test_attacks import operator, refused
from .test_watch import push, somebody

pytestmark = pytest.mark.long("guard")


def guard_here(guarded):
    """A guard in this process, which has looked up no tags yet."""
    handler._FOUND.clear()
    return Guard(guarded.guard_environment(), guarded.as_guard())


def change_by_mallory(guarded, rig):
    mallory = f"arn:aws:iam::{guarded.cloud.account}:user/mallory"
    detail = {"event": "referenceUpdated", "referenceFullName": "refs/heads/main", "callerUserArn": mallory}
    return {
        "resources": [guarded.arn(rig.name)],
        "time": datetime.now(UTC).isoformat(),
        "detail": {**detail, "oldCommitId": "1" * 40, "commitId": "2" * 40},
    }


def test_a_push_while_the_tags_are_away(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    codecommit = operator(guarded.cloud, f"tagger-{rig.name}").client("codecommit")
    tags = codecommit.list_tags_for_resource(resourceArn=guarded.arn(rig.name))["tags"]
    codecommit.untag_resource(resourceArn=guarded.arn(rig.name), tagKeys=list(tags))
    assert guard_here(guarded).handle_change(change_by_mallory(guarded, rig)) == "BY_SOMEBODY_ELSE"
    codecommit.tag_resource(resourceArn=guarded.arn(rig.name), tags=tags)
    (mail,) = guarded.mails(rig.name, 1)
    assert "user/mallory" in mail["body"]


def test_a_repository_of_the_same_name_with_a_stolen_confirmation(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    guarded.snapshot(rig.name)
    confirmed = sample.refs(rig.replica)["refs/tags/codecommit-mirror/confirmed"]
    sample.git(rig.source, "fetch", "-q", str(rig.replica), f"{confirmed}:refs/stolen/confirmed")
    codecommit = operator(guarded.cloud, f"creator-{rig.name}").client("codecommit")
    tags = codecommit.list_tags_for_resource(resourceArn=guarded.arn(rig.name))["tags"]
    codecommit.delete_repository(repositoryName=rig.name)
    codecommit.create_repository(repositoryName=rig.name)
    stolen = "refs/stolen/confirmed:refs/tags/codecommit-mirror/confirmed"
    push(rig, "refs/heads/main~2:refs/heads/main", stolen, user=somebody(guarded.cloud, rig))
    codecommit.tag_resource(resourceArn=guarded.arn(rig.name), tags=tags)
    guarded.invoke(task="check")
    assert f"Replica {rig.name} is another repository" in {mail["subject"] for mail in guarded.mails(rig.name, 1)}


def test_the_archive_goes_under_the_cover_of_entries_of_the_attackers_own(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    entry = f"refs/tags/codecommit-mirror/archive/{stamp}/heads/main"
    cover = f"refs/tags/codecommit-mirror/archive/{stamp}/{entry.removeprefix('refs/')}"
    sample.commit(rig.source, "attack", "noise", parent="main~8")
    push(rig, f"refs/heads/main:{entry}")
    push(rig, "refs/heads/attack:refs/heads/main", f"refs/heads/attack:{cover}")
    push(rig, f":{entry}")
    # The branch is told of as well, unless the function looked before the entry was gone.
    for _ in range(10):
        mails = guarded.mails(rig.name, 1)
        if any(f"deleted {entry}" in mail["body"] for mail in mails):
            break
    assert any(f"deleted {entry}" in mail["body"] for mail in mails)
    assert all("rotate" in mail["body"] for mail in mails)


def test_whoever_tags_a_repository_does_not_lock_it_unheard(guarded, rig):
    guarded.invoke(task="check")
    name = f"bulk-{rig.name}"
    codecommit = operator(guarded.cloud, f"bulk-{rig.name}").client("codecommit")
    tags = {"codecommit-mirror:replica": "x", "codecommit-mirror:writer": "user/x"}
    codecommit.create_repository(repositoryName=name, tags=tags)
    guarded.invoke(task="check")
    guarded.mails(rig.name)
    bodies = [mail["body"] for mail in guarded.cloud.mail() if mail["subject"] == "The guard keeps more replicas"]
    assert f"\n  {name}\n" in bodies[-1]
    codecommit.delete_repository(repositoryName=name)
    guarded.invoke(task="check")


def test_a_machine_that_has_just_booted_hears_of_changes(guarded, rig, monkeypatch):
    rig.run()
    guard = guard_here(guarded)
    monkeypatch.setattr(handler.time, "monotonic", lambda: 5.0)
    assert guard.handle_change(change_by_mallory(guarded, rig)) == "BY_SOMEBODY_ELSE"


def test_one_replica_whose_state_cannot_be_read_stops_no_other_look(guarded, rig, monkeypatch):
    rig.run()
    update, looked = States.update, []

    def broken(self, name, *arguments):
        if name == "gone":
            raise RuntimeError("no such key")
        return update(self, name, *arguments)

    monkeypatch.setattr(States, "update", broken)
    monkeypatch.setattr(States, "names", lambda _: {"gone"})
    monkeypatch.setattr(Guard, "_look", lambda _, replica, **__: looked.append(replica.name))
    with pytest.raises(handler.ReplicasFailedError, match="1 looks failed"):
        guard_here(guarded).check()
    assert rig.name in looked


def test_two_snapshots_at_once_have_one_number_each(guarded, rig, monkeypatch):
    sample.fill(rig.source)
    rig.run()
    guarded.snapshot(rig.name)
    sample.commit(rig.source, "main", "more")
    rig.run()
    write, others = Snapshots._write, []

    def late(self, *arguments):
        monkeypatch.setattr(Snapshots, "_write", write)
        others.append(guarded.snapshot(rig.name))
        return write(self, *arguments)

    monkeypatch.setattr(Snapshots, "_write", late)
    time.sleep(1.1)
    assert guarded.take(rig.name).kind == "incremental"
    assert [other["kind"] for other in others] == ["busy"]
    sample.commit(rig.source, "main", "still more")
    rig.run()
    time.sleep(1.1)
    guarded.snapshot(rig.name)
    found = read_snapshots(guarded.session(), rig.name)
    assert [manifest.sequence for manifest in found.complete] == [1, 2, 3]
    assert list(problems(found, datetime.now(UTC))) == []


@pytest.mark.usefixtures("without_policy")
def test_the_snapshots_of_a_chain_that_ends_stay_locked(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    guarded.take(rig.name)
    (first,) = read_snapshots(guarded.session(), rig.name).complete
    sample.commit(rig.source, "main", "after a long time")
    rig.run()
    later = datetime.now(UTC) + timedelta(days=300)
    assert guarded.take(rig.name, clock=lambda: later).kind == "full"
    until = read_snapshots(guarded.session(), rig.name).locked_until(first)
    assert until - later > timedelta(days=399)


def test_nobody_ends_the_guards_uploads(guarded, rig):
    key = f"snapshots/{rig.name}/x.bundle"
    where = {"Bucket": guarded.bucket, "Key": key}
    upload = guarded.as_guard().client("s3").create_multipart_upload(**where, ServerSideEncryption="AES256")
    s3 = operator(guarded.cloud, f"abort-{rig.name}").client("s3")
    refused("AccessDenied", s3.abort_multipart_upload, **where, UploadId=upload["UploadId"])


def test_no_other_buckets_objects_are_replicated_into_the_vault(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    guarded.snapshot(rig.name)
    iam, s3, origin = guarded.cloud.client("iam"), guarded.s3, f"origin-{rig.name}"
    trust = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName=origin, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.attach_role_policy(RoleName=origin, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    where = {"LocationConstraint": guarded.cloud.region}
    s3.create_bucket(Bucket=origin, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=where)
    rule = {
        "ID": "into the vault",
        "Status": "Enabled",
        "Priority": 1,
        "Filter": {"Prefix": ""},
        "DeleteMarkerReplication": {"Status": "Disabled"},
        "Destination": {"Bucket": f"arn:aws:s3:::{guarded.bucket}"},
    }
    s3.put_bucket_replication(Bucket=origin, ReplicationConfiguration={"Role": role, "Rules": [rule]})
    s3.put_object(Bucket=origin, Key=f"state/{rig.name}.json", Body=b"{}")
    for _ in range(40):
        status = s3.head_object(Bucket=origin, Key=f"state/{rig.name}.json").get("ReplicationStatus")
        if status == "FAILED":
            break
        time.sleep(0.25)
    assert status == "FAILED"
    assert guarded.open_vault().states.is_signed(rig.name)


def rule_of_changes(guarded):
    """Return a client for EventBridge, and the name of the rule that tells of changes."""
    events = guarded.cloud.client("events")
    rules = [rule["Name"] for rule in events.list_rules()["Rules"] if "EventPattern" in rule]
    (name,) = [name for name in rules if name.startswith("codecommit-mirror-guard")]
    return events, name


@pytest.fixture
def deaf(guarded):
    """Let somebody disable the rule that tells of changes, for as long as the test lasts; return how to enable it."""
    events, name = rule_of_changes(guarded)
    events.disable_rule(Name=name)
    yield lambda: events.enable_rule(Name=name)
    events.enable_rule(Name=name)


def test_a_push_while_the_rule_is_disabled(guarded, rig, deaf):
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    push(rig, "refs/heads/main~2:refs/heads/main")
    deaf()
    guarded.invoke(task="check")
    assert guarded.mails(rig.name) == []
    later = datetime.now(UTC) + timedelta(hours=3)
    Guard(guarded.guard_environment(), guarded.as_guard(), lambda: later).check()
    (mail,) = guarded.mails(rig.name, 1)
    assert "differs from what the last run confirmed" in mail["body"]


def test_the_archive_goes_while_the_rule_is_disabled(guarded, rig, deaf):
    sample.fill(rig.source)
    rig.run()
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    rig.run()
    guarded.snapshot(rig.name)
    (entry,) = sample.refs(rig.replica, "refs/tags/codecommit-mirror/archive/")
    push(rig, f":{entry}")
    deaf()
    guarded.snapshot(rig.name)
    (mail,) = guarded.mails(rig.name, 1)
    assert mail["subject"] == f"The archive of replica {rig.name} was changed"
    assert entry in mail["body"]
    guarded.snapshot(rig.name)
    assert len(guarded.mails(rig.name)) == 1


def test_an_overwrite_with_more_than_the_guard_reads(guarded, rig, monkeypatch):
    sample.fill(rig.source)
    rig.run()
    before = sample.refs(rig.source)["refs/heads/main"]
    sample.commit(rig.source, "attack", "noise", parent="main~8")
    push(rig, "refs/heads/attack:refs/heads/main")
    after = sample.refs(rig.source)["refs/heads/attack"]
    event = change_by_mallory(guarded, rig)
    event["detail"] |= {
        "oldCommitId": before,
        "commitId": after,
        "callerUserArn": f"arn:aws:iam::{guarded.cloud.account}:user/{rig.user}",
    }
    monkeypatch.setattr(history, "MAX_INSPECTED_BYTES", 20)
    assert guard_here(guarded).handle_change(event) == "UNPROVED"
    assert "perhaps not by its mirror" in " ".join(mail["subject"] for mail in guarded.mails(rig.name, 2))


def forged_confirmation(rig):
    """Write a confirming tag about what the replica has now, as a run writes one; return its name at the source."""
    refs = sample.refs(rig.replica)
    settings = engine_api.Settings(
        *(engine_api.make_endpoint(side, "https://x", "", "", "") for side in ("source", "replica"))
    )
    mirrored = by_original_name(ReplicaRefs(refs), ("refs/",))
    tag = confirmation(settings, mirrored, datetime.now(UTC).timestamp())
    pack = pack_of([(TREE, b""), (COMMIT, source_commit("https://x")), (TAG, tag)])
    sample.git(rig.source, "unpack-objects", "-q", stdin=pack)
    sample.git(rig.source, "update-ref", "refs/stolen/forged", object_id(TAG, tag))
    return "refs/stolen/forged"


def test_a_forged_confirmation_while_the_rule_is_disabled(guarded, rig, deaf):
    sample.fill(rig.source)
    rig.run()
    guarded.mails(rig.name)
    guarded.invoke(task="check")
    mallory = somebody(guarded.cloud, rig)
    push(rig, "refs/heads/main~2:refs/heads/main", user=mallory)
    push(rig, f"{forged_confirmation(rig)}:refs/tags/codecommit-mirror/confirmed", user=mallory)
    deaf()
    for hours in (0, 3):
        later = datetime.now(UTC) + timedelta(hours=hours)
        Guard(guarded.guard_environment(), guarded.as_guard(), lambda later=later: later).check()
    (mail,) = guarded.mails(rig.name, 1)
    assert "reported by no event" in mail["body"]


def test_the_archive_goes_between_two_looks_while_the_rule_is_disabled(guarded, rig, request):
    sample.fill(rig.source)
    rig.run()
    guarded.snapshot(rig.name)
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    rig.run()
    guarded.mails(rig.name)
    guarded.invoke(task="check")
    (entry,) = sample.refs(rig.replica, "refs/tags/codecommit-mirror/archive/")
    deaf = request.getfixturevalue("deaf")
    push(rig, f":{entry}")
    deaf()
    guarded.invoke(task="check")
    (mail,) = guarded.mails(rig.name, 1)
    assert entry in mail["body"]


def test_a_second_change_before_the_confirmation_is_no_all_clear(guarded, rig, request):
    sample.fill(rig.source)
    rig.run()
    other = somebody(guarded.cloud, rig)
    push(rig, "refs/heads/main~2:refs/heads/main", user=other)
    assert len(guarded.mails(rig.name, 1)) == 1
    # The queue brings the event of the confirmation after the second push, and that of the push later still.
    request.getfixturevalue("deaf")
    time.sleep(1.1)
    rig.run()
    push(rig, "refs/heads/main~3:refs/heads/main", user=other)
    event = change_by_mallory(guarded, rig)
    event["detail"] |= {
        "referenceFullName": "refs/tags/codecommit-mirror/confirmed",
        "callerUserArn": f"arn:aws:iam::{guarded.cloud.account}:user/{rig.user}",
    }
    assert guard_here(guarded).handle_change(event) == "BY_A_RUN"
    subjects = [mail["subject"] for mail in guarded.mails(rig.name)]
    assert subjects == [f"Replica {rig.name} was changed, but not by its mirror"]


def event_of(guarded, rig, ref, new, **fields):
    """An event that says that the mirror's own user changed a ref, as whoever may change a rule can forge it."""
    caller = f"arn:aws:iam::{guarded.cloud.account}:user/{rig.user}"
    detail = {"event": "referenceUpdated", "referenceFullName": ref, "oldCommitId": "1" * 40, "commitId": new}
    return {
        "resources": [guarded.arn(rig.name)],
        "time": datetime.now(UTC).isoformat(),
        "detail": {**detail, "callerUserArn": caller},
        **fields,
    }


@pytest.mark.parametrize("time_of_event", ["2990-01-01T00:00:00Z", "2990-01-01T00:00:00", "never"])
def test_an_event_from_the_future_does_not_blind_the_guard(guarded, rig, time_of_event):
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    forged = event_of(guarded, rig, "refs/heads/x", "2" * 40, time=time_of_event)
    del forged["detail"]["callerUserArn"]
    guard_here(guarded).handle_change(forged)
    state = guarded.open_vault().states.read(rig.name)[0]
    assert state.unattributed_since <= datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def test_an_event_of_another_tag_makes_no_confirmation_heard(guarded, rig, deaf):
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    before = guarded.open_vault().states.read(rig.name)[0].confirmed_id
    push(rig, f"{forged_confirmation(rig)}:refs/tags/codecommit-mirror/confirmed", user=somebody(guarded.cloud, rig))
    forged = event_of(guarded, rig, "refs/tags/codecommit-mirror/confirmed", "2" * 40)
    guard_here(guarded).handle_change(forged)
    assert guarded.open_vault().states.read(rig.name)[0].confirmed_id == before


def test_a_push_to_the_replica_under_another_name(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    codecommit = operator(guarded.cloud, f"renamer-{rig.name}").client("codecommit")
    arn, aside = guarded.arn(rig.name), f"aside-{rig.name}"
    tags = codecommit.list_tags_for_resource(resourceArn=arn)["tags"]
    identifier = codecommit.get_repository(repositoryName=rig.name)["repositoryMetadata"]["repositoryId"]
    codecommit.untag_resource(resourceArn=arn, tagKeys=list(tags))
    codecommit.update_repository_name(oldName=rig.name, newName=aside)
    change = change_by_mallory(guarded, rig)
    change["resources"], change["detail"]["repositoryId"] = [guarded.arn(aside)], identifier
    handler._IDS[:] = [{}, float("-inf")]
    assert guard_here(guarded).handle_change(change) == "BY_SOMEBODY_ELSE"
    codecommit.update_repository_name(oldName=aside, newName=rig.name)
    codecommit.tag_resource(resourceArn=arn, tags=tags)
    (mail,) = guarded.mails(rig.name, 1)
    assert "user/mallory" in mail["body"]


def test_another_repository_under_the_replicas_name_is_no_snapshot(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    guarded.snapshot(rig.name)
    codecommit = operator(guarded.cloud, f"swapper-{rig.name}").client("codecommit")
    arn, aside = guarded.arn(rig.name), f"aside-{rig.name}"
    tags = codecommit.list_tags_for_resource(resourceArn=arn)["tags"]
    codecommit.update_repository_name(oldName=rig.name, newName=aside)
    codecommit.create_repository(repositoryName=rig.name, tags=tags)
    push(rig, "refs/heads/main~2:refs/heads/main", user=somebody(guarded.cloud, rig))
    assert guarded.snapshot(rig.name)["kind"] == "exchanged"
    codecommit.delete_repository(repositoryName=rig.name)
    codecommit.update_repository_name(oldName=aside, newName=rig.name)
    subjects = {mail["subject"] for mail in guarded.mails(rig.name, 1)}
    assert f"Replica {rig.name} is another repository" in subjects


def after_a_harmless_change(guarded, rig):
    """Return an archive entry, and somebody whose first change was told, so that the next ones are only logged."""
    sample.fill(rig.source)
    rig.run()
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    rig.run()
    guarded.invoke(task="check")
    (entry,) = sample.refs(rig.replica, "refs/tags/codecommit-mirror/archive/")
    other = somebody(guarded.cloud, rig)
    push(rig, "refs/heads/main:refs/heads/just-a-test", user=other)
    guarded.mails(rig.name, 1)
    return entry, other


def test_a_harmless_change_does_not_hide_what_is_done_to_the_archive(guarded, rig):
    entry, other = after_a_harmless_change(guarded, rig)
    push(rig, f":{entry}", user=other)
    mails = guarded.mails(rig.name, 2)
    assert any(f"deleted {entry}" in mail["body"] for mail in mails)


def test_the_archive_goes_unheard_after_a_harmless_change(guarded, rig):
    entry, other = after_a_harmless_change(guarded, rig)
    events, name = rule_of_changes(guarded)
    events.disable_rule(Name=name)
    push(rig, f":{entry}", user=other)
    events.enable_rule(Name=name)
    guarded.invoke(task="check")
    assert any(entry in mail["body"] for mail in guarded.mails(rig.name, 2))


def test_a_message_that_cannot_be_sent_holds_up_no_other(guarded, rig, monkeypatch):
    """Once in a state, it would be tried first for ever, and the next ones would never go out."""
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    guard = guard_here(guarded)
    monkeypatch.setattr("codecommit_mirror.guard.messages._MAX_SUBJECT", 100_000)
    unsendable = change_by_mallory(guarded, rig)
    monkeypatch.setattr("codecommit_mirror.guard.watch.changed", lambda replica, *_, **__: Message("x" * 200, replica))
    with pytest.raises(ClientError, match="Subject"):
        guard.handle_change(unsendable)
    monkeypatch.undo()
    monkeypatch.setattr(guard, "clock", lambda: datetime.now(UTC) + timedelta(hours=1))
    other = change_by_mallory(guarded, rig)
    other["detail"]["callerUserArn"] = other["detail"]["callerUserArn"].replace("mallory", "eve")
    with pytest.raises(ClientError, match="Subject"):
        guard.handle_change(other)
    (mail,) = guarded.mails(rig.name, 1)
    guard.vault.states.update(rig.name, lambda state: replace(state, outbox=()))
    assert "user/eve" in mail["body"]


def test_an_entry_that_no_run_writes_keeps_nothing_and_little_memory(rig):
    """It would fill the function's memory with the tips that it claims."""
    tree, parent = object_id(TREE, b""), sample.git(rig.source, "hash-object", "-w", "--stdin", stdin=b"x").strip()
    head = f"tree {tree}\nparent {parent}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n"
    long = (head + "".join(f"{parent} refs/{number}\n" for number in range(20_000))).encode()
    wide = (head.replace(f"parent {parent}\n", f"parent {parent}\n" * 100)).encode()
    name = object_id(COMMIT, long)
    assert len(long) > MAX_ENTRY_BYTES
    assert history._tips(name, {}) == {}
    many = (f"tree {tree}\n" + "".join(f"parent {number:040x}\n" for number in range(100))).encode()
    claims = "".join(f"{number:040x} refs/heads/{number}\n" for number in range(100)).encode()
    assert history._tips("e", {"e": many + b"\n" + claims}) == {}
    assert history._tips("e", {"e": wide}) == {}
