"""The vault: only what the guard's key has signed counts, whoever wrote what beside it, and it outlives the guard."""

import gzip
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from codecommit_mirror.backup.origin import from_snapshots
from codecommit_mirror.backup.restore import drill
from codecommit_mirror.backup.snapshots import problems, read_chain, read_snapshots
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.guard.vault.manifest import dump, format_time
from codecommit_mirror.guard.vault.public_key import PublicKey
from codecommit_mirror.guard.vault.signer import Signer
from codecommit_mirror.guard.vault.store import Store
from localcloud import sample

from ..conftest import create_stack
from .conftest import GUARD, RETENTION, SECTION

pytestmark = pytest.mark.long("guard")


def saved(guarded, rig, *messages):
    """Commit something, let a run mirror it, take a snapshot, and return what that was."""
    for message in messages:
        sample.commit(rig.source, "main", message)
    rig.run()
    return guarded.snapshot(rig.name)


def sound(guarded, rig):
    """Return the snapshots, with which nothing is wrong."""
    found = read_snapshots(guarded.session(), rig.name)
    assert list(problems(found, datetime.now(UTC))) == []
    return found


def put(guarded, key, body, **settings):
    return guarded.s3.put_object(Bucket=guarded.bucket, Key=key, Body=body, **settings)


@pytest.mark.usefixtures("without_policy")
def test_a_planted_manifest_is_no_base_costs_nothing_and_is_reported_once(guarded, rig):
    sample.fill(rig.source)
    assert saved(guarded, rig)["kind"] == "full"
    (last,) = sound(guarded, rig).complete
    tip = sample.commit(rig.source, "main", "only the planted manifest has this")
    sample.git(rig.source, "update-ref", "refs/heads/main", "main~1")
    data = json.loads(guarded.store.read(guarded.store.listing(rig.name).by_key[last.key][0]))
    planted = f"snapshots/{rig.name}/20990101T000000Z"
    forged = {**data, "key": f"{planted}.json", "time": "20990101T000000Z", "sequence": 9, "complete": True}
    forged |= {"changed": {"refs/heads/main": tip}, "locked_until": "21010101T000000Z"}
    put(guarded, f"{planted}.json", json.dumps(forged).encode())
    (signature,) = guarded.store.listing(rig.name).by_key[last.signature]
    put(guarded, f"{planted}.json.sig", guarded.store.read(signature))
    put(guarded, f"{planted}-00000000.bundle", b"nothing")
    guarded.s3.delete_object(Bucket=guarded.bucket, Key=last.key)
    assert saved(guarded, rig)["kind"] == "unchanged"
    assert saved(guarded, rig, "one more")["kind"] == "incremental"
    assert saved(guarded, rig, "another one")["kind"] == "incremental"
    found = sound(guarded, rig)
    assert found.unsigned == (f"{planted}.json",)
    assert [manifest.sequence for manifest in found.complete] == [1, 2, 3]
    longest = datetime.now(UTC) + timedelta(days=431)
    assert all(guarded.store.lock_of(v)[1] < longest for one in found.signed.values() for v in one.objects)
    guarded.mails(rig.name)
    (mail,) = (it for it in guarded.cloud.mail() if it["subject"] == f"Foreign objects in the snapshots of {rig.name}")
    assert f"{planted}.json.sig" in mail["body"]
    assert last.key in mail["body"]


NESTED = b"[" * 200_000
CUSTOMER_KEY = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}


@pytest.mark.usefixtures("without_policy")
@pytest.mark.parametrize(
    ("forge", "settings"),
    [
        (lambda fields: json.dumps({**fields, "signed_by": []}).encode(), {}),
        (lambda fields: NESTED, {}),
        (lambda fields: b"unreadable", {"StorageClass": "DEEP_ARCHIVE"}),
        (lambda fields: b"unreadable", CUSTOMER_KEY),
    ],
    ids=["strange", "nested", "archived", "encrypted"],
)
def test_what_cannot_be_read_stops_nothing_and_is_reported(guarded, rig, forge, settings):
    """A manifest, its signature, a public key and a state, put there while the bucket has no policy."""
    sample.fill(rig.source)
    saved(guarded, rig)
    (last,) = sound(guarded, rig).complete
    data = forge(json.loads(guarded.store.read(guarded.store.listing(rig.name).by_key[last.key][0])))
    planted = f"snapshots/{rig.name}/{format_time(datetime.now(UTC) + timedelta(hours=2))}-00000000.json"
    for key in (planted, f"{planted}.sig", f"state/{rig.name}.json", "keys/theirs.pem"):
        put(guarded, key, data if key == planted else data[:1000], **settings)
    assert saved(guarded, rig, "one more")["kind"] == "incremental"
    found = sound(guarded, rig)
    assert found.unsigned == (planted,)
    chain = read_chain(guarded.session(), rig.name)
    assert (chain.at(None).key, chain.unsigned) == (found.complete[-1].key, (planted,))
    # A drill of many says so, too.
    drilled = drill(from_snapshots(chain, None), datetime.now(UTC))
    assert (drilled.problem, len(drilled.left_out)) == (None, 1)
    assert f"the first is {planted}" in drilled.left_out[0]
    assert guarded.store.public_key(found.complete[-1].signed_by)
    guarded.mails(rig.name)
    mails = [it for it in guarded.cloud.mail() if it["subject"] == f"Foreign objects in the snapshots of {rig.name}"]
    assert any(f"{planted}.sig" in mail["body"] for mail in mails)
    guarded.s3.delete_object(Bucket=guarded.bucket, Key="keys/theirs.pem")


@pytest.mark.usefixtures("without_policy")
@pytest.mark.parametrize("kind", ["bundle", "refs.gz"])
def test_what_was_moved_to_an_archive_counts_as_lost(guarded, rig, monkeypatch, kind):
    sample.fill(rig.source)
    saved(guarded, rig)
    listing = Store.listing

    def moved(self, replica):
        found = listing(self, replica)
        return replace(
            found,
            versions=[
                replace(v, storage="DEEP_ARCHIVE") if v.key.endswith(kind) and v.key <= newest else v
                for v in found.versions
            ],
        )

    newest = max(key for key in guarded.keys(rig.name) if key.endswith(kind))
    monkeypatch.setattr(Store, "listing", moved)
    found = read_snapshots(guarded.session(), rig.name)
    assert (
        "it is in an archive: a restore reads it once" in dict(problems(found, datetime.now(UTC)))[found.at(None).key]
    )
    taken = guarded.take(rig.name)
    assert (taken.kind, taken.lost) == ("full", (newest,))
    sound(guarded, rig)


@pytest.mark.usefixtures("without_policy")
def test_the_last_snapshot_of_an_empty_replica_is_missed_too(guarded, rig, monkeypatch):
    sample.fill(rig.replica)
    assert guarded.snapshot(rig.name)["kind"] == "full"
    for name in sample.refs(rig.replica):
        sample.git(rig.replica, "update-ref", "-d", name)
    assert guarded.snapshot(rig.name)["kind"] == "incremental"
    found = sound(guarded, rig)
    assert dict(found.refs(found.at(None))) == {}
    listing = Store.listing
    monkeypatch.setattr(Store, "listing", lambda self, name: replace(listing(self, name), versions=[]))
    taken = guarded.take(rig.name)
    assert (taken.kind, taken.lost) == ("full", (found.at(None).key,))


@pytest.mark.usefixtures("without_policy")
@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"a" * 40 + b" refs/heads/other\n")],
    ids=["empty", "not gzip", "another list"],
)
def test_a_list_of_refs_that_is_not_what_was_signed_starts_a_new_chain(guarded, rig, monkeypatch, data):
    sample.fill(rig.source)
    saved(guarded, rig)
    (last,) = sound(guarded, rig).complete
    read = Store.try_to_read
    monkeypatch.setattr(
        Store, "try_to_read", lambda self, version: data if version.key == last.list_key else read(self, version)
    )
    with pytest.raises(MirrorError, match=r"damaged|cut short|SHA-256 differs"):
        from_snapshots(read_chain(guarded.session(), rig.name), None)
    assert last.key in dict(problems(read_snapshots(guarded.session(), rig.name), datetime.now(UTC)))
    taken = guarded.take(rig.name)
    assert (taken.kind, taken.lost) == ("full", (last.key,))
    sound(guarded, rig)


@pytest.mark.usefixtures("without_policy")
def test_a_planted_state_is_not_believed(guarded, rig):
    sample.fill(rig.source)
    saved(guarded, rig)
    key = f"state/{rig.name}.json"
    signed = guarded.s3.get_object(Bucket=guarded.bucket, Key=key)
    fields = json.loads(signed["Body"].read())
    forged = {**fields, "locked_until": "21010101T000000Z", "stale_since": "20260101T000000Z", "snapshot_at": ""}
    put(guarded, key, json.dumps(forged).encode(), Metadata=signed["Metadata"])
    state, _ = guarded.open_vault().states.read(rig.name)
    assert (state.locked_until, state.stale_since) == (fields["locked_until"], "")
    guarded.s3.delete_object(Bucket=guarded.bucket, Key=key)
    state, _ = guarded.open_vault().states.read(rig.name)
    assert state.snapshot_at == fields["snapshot_at"]
    other = f"state/{rig.name}-other.json"
    put(guarded, other, json.dumps(fields).encode(), Metadata=signed["Metadata"])
    assert guarded.open_vault().states.read(f"{rig.name}-other")[0].first_seen == ""


@pytest.mark.usefixtures("without_policy")
def test_a_default_key_that_somebody_deletes_takes_no_snapshot_with_it(guarded, rig):
    kms = guarded.cloud.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    deployer = guarded.session_as(guarded.deployer).client("s3")
    was = deployer.get_bucket_encryption(Bucket=guarded.bucket)["ServerSideEncryptionConfiguration"]
    now = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    deployer.put_bucket_encryption(Bucket=guarded.bucket, ServerSideEncryptionConfiguration={"Rules": [now]})
    sample.fill(rig.source)
    saved(guarded, rig)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    (manifest,) = sound(guarded, rig).complete
    assert b"".join(read_snapshots(guarded.session(), rig.name).read_bundle(manifest)).startswith(b"# v2 git bundle")
    deployer.put_bucket_encryption(Bucket=guarded.bucket, ServerSideEncryptionConfiguration=was)


def about_the_key(guarded, expected):
    found = []
    for _ in range(20):
        found = [mail["subject"] for mail in guarded.cloud.mail() if "signing key" in mail["subject"]]
        if len(found) >= expected:
            break
        guarded.mails("nobody")
    return found


def test_while_the_key_is_disabled_snapshots_go_on_and_people_hear_of_it(guarded, rig):
    sample.fill(rig.source)
    saved(guarded, rig)
    kms = guarded.cloud.client("kms")
    kms.disable_key(KeyId=guarded.key)
    try:
        assert saved(guarded, rig, "while it is disabled")["kind"] == "incremental"
        for _ in range(2):
            guarded.invoke(task="check")
        assert about_the_key(guarded, 1) == ["The guard's signing key is out of order"]
        assert len(guarded.keys(rig.name)) == 6
    finally:
        kms.enable_key(KeyId=guarded.key)
    guarded.invoke(task="check")
    assert about_the_key(guarded, 2)[1:] == ["The guard's signing key is in order again"]
    # The unsigned snapshot may have the name of the next second.
    time.sleep(2)
    assert saved(guarded, rig)["kind"] == "incremental"
    found = sound(guarded, rig)
    assert [manifest.sequence for manifest in found.complete] == [1, 2]
    assert found.refs(found.at(None))["refs/heads/main"] == sample.refs(rig.source)["refs/heads/main"]
    assert len(found.unsigned) == 1


def lose(guarded, manifest):
    """Delete a bundle whose lock can be bypassed, and put another one in its place."""
    (bundle,) = guarded.store.listing(manifest.replica).by_key[manifest.bundle]
    deployer = guarded.session_as(guarded.deployer).client("s3")
    where = {"Bucket": guarded.bucket, "Key": bundle.key, "VersionId": bundle.id}
    deployer.delete_object(**where, BypassGovernanceRetention=True)
    until = datetime.now(UTC) + timedelta(days=400)
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until, "ChecksumAlgorithm": "SHA256"}
    put(guarded, bundle.key, b"something else", **lock)


@pytest.mark.usefixtures("without_policy")
def test_what_is_missing_starts_a_new_chain_at_most_once_in_the_time_between_two_snapshots(guarded, rig):
    retention = replace(RETENTION, mode="GOVERNANCE")
    sample.fill(rig.source)
    rig.run()
    assert guarded.take(rig.name, retention=retention).kind == "full"
    (first,) = sound(guarded, rig).complete
    lose(guarded, first)
    taken = guarded.take(rig.name, retention=retention)
    assert (taken.kind, taken.lost) == ("full", (first.key,))
    second = sound(guarded, rig).complete[-1]
    assert (second.sequence, second.full) == (2, True)
    lose(guarded, second)
    assert guarded.take(rig.name, retention=retention).kind == "waiting"
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert guarded.take(rig.name, retention=retention, clock=lambda: tomorrow).kind == "full"


@pytest.mark.usefixtures("without_policy")
def test_a_replica_whose_tags_and_state_are_gone_is_told(guarded, rig):
    sample.fill(rig.source)
    saved(guarded, rig)
    key = f"state/{rig.name}.json"
    for version in guarded.s3.list_object_versions(Bucket=guarded.bucket, Prefix=key)["Versions"]:
        deployer = guarded.session_as(guarded.deployer).client("s3")
        deployer.delete_object(Bucket=guarded.bucket, Key=key, VersionId=version["VersionId"])
    codecommit = guarded.cloud.client("codecommit")
    tags = list(codecommit.list_tags_for_resource(resourceArn=guarded.arn(rig.name))["tags"])
    codecommit.untag_resource(resourceArn=guarded.arn(rig.name), tagKeys=tags)
    for _ in range(2):
        guarded.invoke(task="check")
    assert [mail["subject"] for mail in guarded.mails(rig.name, 1)] == [f"Replica {rig.name} is gone"]


def test_a_guard_that_was_destroyed_goes_on_with_its_chains(guarded, rig):
    sample.fill(rig.source)
    saved(guarded, rig)
    cloudformation = guarded.cloud.client("cloudformation")
    template = cloudformation.get_template(StackName=GUARD)["TemplateBody"]
    cloudformation.delete_stack(StackName=GUARD)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=GUARD, WaiterConfig={"Delay": 0.2})
    assert sound(guarded, rig).complete
    text = template if isinstance(template, str) else json.dumps(template)
    create_stack(guarded.cloud, GUARD, text, role=guarded.deployer)
    guarded.cloud.aws.confirm_subscriptions(SECTION.email)
    assert saved(guarded, rig)["kind"] == "unchanged"
    assert saved(guarded, rig, "one more")["kind"] == "incremental"
    sound(guarded, rig)


@pytest.mark.usefixtures("without_policy")
def test_an_earlier_vaults_snapshots_do_not_count_in_this_one(guarded, rig):
    sample.fill(rig.source)
    saved(guarded, rig)
    (last,) = sound(guarded, rig).complete
    kms = guarded.cloud.client("kms")
    key = kms.create_key(KeySpec="RSA_3072", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    earlier, ours = (PublicKey(kms.get_public_key(KeyId=one)["PublicKey"]) for one in (key, guarded.key))
    bundle = last.bundle.replace(last.time, "20260101T000000Z")
    changes = {"bucket": "earlier", "sequence": 400, "signed_by": earlier.fingerprint, "time": "20260101T000000Z"}
    manifest = replace(last, **changes, chain_started="20260101T000000Z", bundle=bundle)
    signature = Signer(kms, key).sign(dump(manifest))
    put(guarded, f"keys/{earlier.fingerprint}.pem", earlier.pem.encode())
    for name, body in ((manifest.key, dump(manifest)), (manifest.signature, signature), (bundle, b"")):
        put(guarded, name, body)
    pinned = (ours.fingerprint, earlier.fingerprint)
    found = read_snapshots(guarded.session(), rig.name, pinned=pinned)
    assert ([one.sequence for one in found.complete], found.unsigned) == ([1], (manifest.key,))
    with pytest.raises(MirrorError, match="has snapshots of several vaults"):
        read_snapshots(guarded.session(), rig.name, guarded.bucket, pinned)
