"""Attacks on the replica, its archive and the snapshots: every commit that was ever confirmed is restored."""

import json
import time
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.exceptions import ClientError

from localcloud import sample

from ..engine.sides import NAMESPACES
from .test_watch import push

pytestmark = pytest.mark.long("guard")

OPERATOR = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:*", "codecommit:*", "lambda:*"], "Resource": "*"},
        {"Effect": "Deny", "Action": "iam:*", "Resource": "*"},
    ],
}


def operator(cloud, name):
    """Return a session of a person who may do everything with S3 but is no administrator."""
    iam = cloud.client("iam")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="operator", PolicyDocument=json.dumps(OPERATOR))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=cloud.region)


def refused(code, call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code


def confirmed_state(guarded, rig):
    """Let a run confirm the source, take a snapshot, and return the source's refs and the time."""
    assert rig.run().result == "succeeded"
    refs = sample.refs(rig.source, *NAMESPACES)
    guarded.snapshot(rig.name)
    now = datetime.now(UTC)
    # A snapshot of the same second would be as old.
    time.sleep(1.1)
    return refs, now.strftime("%Y-%m-%dT%H:%M:%SZ")


def three_points_in_time(guarded, rig):
    sample.fill(rig.source)
    states = [confirmed_state(guarded, rig)]
    sample.commit(rig.source, "main", "second")
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    sample.git(rig.source, "update-ref", "-d", "refs/tags/v0.0")
    states.append(confirmed_state(guarded, rig))
    sample.commit(rig.source, "main", "third, and the history rewritten", parent="main~4")
    sample.git(rig.source, "tag", "-f", "-a", "-m", "moved", "v2.0", "main")
    states.append(confirmed_state(guarded, rig))
    return states


def wipe(rig):
    """Overwrite and delete everything with the pipeline's password, the archive and the confirming tag too."""
    sample.commit(rig.source, "attack", "nothing but noise", parent="main~8")
    push(rig, "refs/heads/attack:refs/heads/main")
    names = [name for name in sample.refs(rig.replica) if name != "refs/heads/main"]
    push(rig, *(f":{name}" for name in names))
    sample.git(rig.source, "update-ref", "-d", "refs/heads/attack")
    assert list(sample.refs(rig.replica)) == ["refs/heads/main"]


def attack_the_bucket(guarded, session, name):
    """Try what somebody can do who owns S3 in this account."""
    s3, bucket = session.client("s3"), guarded.bucket
    versions = guarded.store.listing(name).versions
    manifest, bundle = ([v for v in versions if v.key.endswith(end)][-1] for end in (".json", ".bundle"))
    for version in (manifest, bundle):
        where = {"Bucket": bucket, "Key": version.key, "VersionId": version.id}
        refused("AccessDenied", s3.delete_object, **where)
        refused("AccessDenied", s3.delete_object, **where, BypassGovernanceRetention=True)
        for when in (datetime.now(UTC) + timedelta(days=1), datetime(2101, 1, 1, tzinfo=UTC)):
            for mode in ("COMPLIANCE", "GOVERNANCE"):
                lock = {"Mode": mode, "RetainUntilDate": when}
                refused(
                    "AccessDenied", s3.put_object_retention, **where, Retention=lock, BypassGovernanceRetention=True
                )
        refused("AccessDenied", s3.put_object_legal_hold, **where, LegalHold={"Status": "ON"})
        mine = {"SSEKMS": {"KMSKeyArn": f"arn:aws:kms:{guarded.cloud.region}:{guarded.cloud.account}:key/mine"}}
        refused("AccessDenied", s3.update_object_encryption, **where, ObjectEncryption=mine)
        expired = {"TagSet": [{"Key": "codecommit-mirror:expired", "Value": "true"}]}
        refused("AccessDenied", s3.put_object_tagging, **where, Tagging=expired)
    batch = {"Objects": [{"Key": version.key, "VersionId": version.id} for version in versions]}
    refused("AccessDenied", s3.delete_objects, Bucket=bucket, Delete=batch)
    for key in (manifest.key, f"snapshots/{name}/20990101T000000Z.json", f"state/{name}.json", "keys/x.pem", "lfs/x"):
        refused("AccessDenied", s3.put_object, Bucket=bucket, Key=key, Body=b"{}")
    state = {"Bucket": bucket, "Key": f"state/{name}.json"}
    refused("AccessDenied", s3.delete_object, **state)
    refused("AccessDenied", s3.update_object_encryption, **state, ObjectEncryption=mine)
    change_the_settings(s3, bucket)


def change_the_settings(s3, bucket):
    """Try to change what the bucket itself enforces."""
    refused("AccessDenied", s3.delete_bucket, Bucket=bucket)
    refused("AccessDenied", s3.delete_bucket_policy, Bucket=bucket)
    refused("AccessDenied", s3.put_bucket_policy, Bucket=bucket, Policy=json.dumps({"Statement": []}))
    suspended = {"Status": "Suspended"}
    refused("AccessDenied", s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=suspended)
    by_default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/mine"}}
    refused(
        "AccessDenied",
        s3.put_bucket_encryption,
        Bucket=bucket,
        ServerSideEncryptionConfiguration={"Rules": [by_default]},
    )
    rule = {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    refused(
        "AccessDenied",
        s3.put_bucket_lifecycle_configuration,
        Bucket=bucket,
        LifecycleConfiguration={"Rules": [rule]},
    )
    retention = {"Mode": "COMPLIANCE", "Days": 36500}
    refused(
        "AccessDenied",
        s3.put_object_lock_configuration,
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
    )


def hide_everything(guarded, name):
    """Without the bucket's policy new versions and delete markers hide the snapshots, but do not touch them."""
    versions = guarded.store.listing(name).versions
    manifest, bundle = ([v for v in versions if v.key.endswith(end)][-1] for end in (".json", ".bundle"))
    guarded.s3.put_object(Bucket=guarded.bucket, Key=manifest.key, Body=b'{"format": 1}')
    guarded.s3.put_object(Bucket=guarded.bucket, Key=bundle.key, Body=b"nothing")
    for version in versions:
        guarded.s3.delete_object(Bucket=guarded.bucket, Key=version.key)
    assert "Contents" not in guarded.s3.list_objects_v2(Bucket=guarded.bucket, Prefix=f"snapshots/{name}/")


@pytest.mark.usefixtures("without_policy")
def test_everything_is_restored_as_of_three_points_in_time(guarded, rig, command, tmp_path):
    states = three_points_in_time(guarded, rig)
    wipe(rig)
    # What is done to the archive is an e-mail of its own; a look tells of those entries that it is not about.
    mails = guarded.mails(rig.name, 2)
    looks = [mail for mail in mails if "were there at the last look" in mail["body"]]
    assert ["rotate" in mail["body"] for mail in mails if mail not in looks] == [True, True]
    hide_everything(guarded, rig.name)
    url = rig.mirror.azure.clone_url
    for number, (refs, at) in enumerate(states):
        folder = tmp_path / str(number)
        done = command("restore", rig.name, "--azure-repo-url", url, "--at", at, "--to", str(folder))
        assert done.returncode == 0, done.stderr
        assert sample.refs(folder) == refs
        sample.git(folder, "fsck", "--full", "--strict")
    drill = command("restore", rig.name, "--azure-repo-url", url, "--drill", "--json")
    assert json.loads(drill.stdout)["sound"] is True, drill.stderr


def test_a_later_snapshot_of_the_wiped_replica_hides_nothing(guarded, rig, command, tmp_path):
    sample.fill(rig.source)
    refs, at = confirmed_state(guarded, rig)
    wipe(rig)
    guarded.snapshot(rig.name)
    url = rig.mirror.azure.clone_url
    done = command("restore", rig.name, "--azure-repo-url", url, "--at", at, "--to", str(tmp_path / "then"))
    assert done.returncode == 0, done.stderr
    assert sample.refs(tmp_path / "then") == refs
    now = command("restore", rig.name, "--azure-repo-url", url, "--from", "snapshots", "--to", str(tmp_path / "now"))
    assert now.returncode == 0, now.stderr
    assert list(sample.refs(tmp_path / "now")) == ["refs/heads/main"]


def test_who_owns_s3_changes_nothing(guarded, rig):
    sample.fill(rig.source)
    confirmed_state(guarded, rig)
    before = guarded.store.listing(rig.name)
    attack_the_bucket(guarded, operator(guarded.cloud, f"operator-{rig.name}"), rig.name)
    assert guarded.store.listing(rig.name) == before


def test_no_administrator_signs_in_the_guards_place(guarded):
    kms = guarded.cloud.client("kms")
    message = {"Message": bytes(32), "MessageType": "DIGEST", "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"}
    refused("AccessDeniedException", kms.sign, KeyId=guarded.key, **message)
    refused(
        "AccessDeniedException", guarded.session_as(guarded.deployer).client("kms").sign, KeyId=guarded.key, **message
    )


def test_the_guards_own_role_can_neither_delete_nor_write_elsewhere(guarded):
    iam, role = guarded.cloud.client("iam"), f"codecommit-mirror-guard-{guarded.cloud.region}"
    attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    assert len(attached) == 2
    for policy in attached:
        version = iam.get_policy(PolicyArn=policy["PolicyArn"])["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId=version)["PolicyVersion"]["Document"]
        assert not any(word in json.dumps(document) for word in ("Delete", "Bypass", "GitPush", "PutBucket"))
    s3 = guarded.as_guard().client("s3")
    refused("AccessDenied", s3.put_object, Bucket=guarded.bucket, Key="lfs/x", Body=b"")
    with_another_key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/mine"}
    refused("AccessDenied", s3.put_object, Bucket=guarded.bucket, Key="snapshots/x", Body=b"", **with_another_key)
