"""The vault's stack: who may change what, and that all of it outlives the stack."""

import json

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.config.guard import Guard
from codecommit_mirror.stacks import VaultStack

from .test_stacks import CONTEXT, PACKS, findings, logical_id, of_type

GUARD = Guard(email="ops@example.com")


def stack(guard=GUARD, **context):
    return VaultStack(cdk.App(context={**CONTEXT, **context}, analytics_reporting=False), guard=guard)


def template(guard=GUARD, **context):
    return Template.from_stack(stack(guard, **context)).to_json()


def bucket_policy(document):
    """Return the denials of the bucket's policy, by their names."""
    statements = of_type(document, "AWS::S3::BucketPolicy")["Properties"]["PolicyDocument"]["Statement"]
    assert {(s["Effect"], json.dumps(s["Principal"])) for s in statements} == {("Deny", '{"AWS": "*"}')}
    return {s["Sid"]: s for s in statements if "Sid" in s}


def unless(statement):
    """Return the principal that a denial leaves out."""
    assert list(statement["Condition"]) == ["ArnNotEquals"]
    return statement["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]


def test_all_of_it_stays_when_the_stack_goes():
    document = template()
    kinds = {resource["Type"]: resource["DeletionPolicy"] for resource in document["Resources"].values()}
    assert kinds == dict.fromkeys(
        [
            "AWS::IAM::Role",
            "AWS::S3::Bucket",
            "AWS::S3::BucketPolicy",
            "AWS::KMS::Key",
            "AWS::KMS::Alias",
            "AWS::IAM::ManagedPolicy",
        ],
        "RetainExceptOnCreate",
    )
    assert stack().termination_protection


def test_the_role_has_a_fixed_name_and_adds_to_one_bucket():
    document = template()
    role = of_type(document, "AWS::IAM::Role")["Properties"]
    assert role["RoleName"] == {"Fn::Join": ["", ["codecommit-mirror-guard-", {"Ref": "AWS::Region"}]]}
    bucket = {"Fn::GetAtt": [logical_id(document, "AWS::S3::Bucket"), "Arn"]}

    def objects(*prefixes):
        return [{"Fn::Join": ["", [bucket, f"/{prefix}/*"]]} for prefix in prefixes]

    statements = of_type(document, "AWS::IAM::ManagedPolicy")["Properties"]["PolicyDocument"]["Statement"]
    assert statements == [
        {
            "Effect": "Allow",
            "Action": [
                "s3:GetBucketObjectLockConfiguration",
                "s3:GetBucketPolicy",
                "s3:GetEncryptionConfiguration",
                "s3:GetLifecycleConfiguration",
                "s3:GetReplicationConfiguration",
                "s3:ListBucket",
                "s3:ListBucketVersions",
            ],
            "Resource": bucket,
        },
        {
            "Effect": "Allow",
            "Action": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"],
            "Resource": objects("keys", "snapshots", "state"),
        },
        {
            "Effect": "Allow",
            "Action": ["s3:GetObjectRetention", "s3:PutObjectRetention", "s3:PutObjectVersionTagging"],
            "Resource": objects("keys", "snapshots"),
        },
        {
            "Effect": "Allow",
            "Action": ["kms:GetKeyPolicy", "kms:GetPublicKey", "kms:Sign"],
            "Resource": {"Fn::GetAtt": [logical_id(document, "AWS::KMS::Key"), "Arn"]},
        },
    ]


def test_each_change_of_the_bucket_is_denied_to_everybody_but_one():
    document = template()
    policy = bucket_policy(document)
    guard = {"Fn::GetAtt": [logical_id(document, "AWS::IAM::Role"), "Arn"]}
    who = {sid: unless(statement) for sid, statement in policy.items() if sid.startswith("Only") and "Key" not in sid}
    deployer = who["OnlyItsDeployerChangesIt"]
    assert "role/cdk-hnb659fds-cfn-exec-role-" in json.dumps(deployer)
    assert who == {
        "OnlyTheGuardWrites": guard,
        "OnlyTheGuardLocksAndTags": guard,
        "OnlyItsDeployerDeletes": deployer,
        "OnlyItsDeployerChangesIt": deployer,
    }
    assert "Condition" not in policy["NobodyHolds"]
    assert "Condition" not in policy["NobodyWritesElsewhere"]
    elsewhere, own = (policy[sid] for sid in ("NobodyWritesElsewhere", "OnlyTheGuardWrites"))
    assert sorted(map(json.dumps, elsewhere["NotResource"])) == sorted(map(json.dumps, own["Resource"]))
    encryption = policy["OnlyWithTheKeyOfS3"]["Condition"]
    key = "s3:x-amz-server-side-encryption"
    assert encryption == {"StringNotEquals": {key: "AES256"}, "Null": {key: "false"}}


@pytest.mark.parametrize(("snapshots", "days"), [("on", 431), ({"keep": "10d", "full_every": "36h"}, 13), ("off", 431)])
def test_no_lock_is_longer_than_a_snapshot_is_kept(snapshots, days):
    guard = Guard.model_validate({"email": "ops@example.com", "snapshots": snapshots})
    limit = bucket_policy(template(guard))["NoLockOutlastsTheSnapshots"]["Condition"]
    assert limit == {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": str(days)}}


def test_another_bootstrap_or_another_role_may_be_the_deployer():
    def deployer(document):
        return unless(bucket_policy(document)["OnlyItsDeployerChangesIt"])

    own = {"@aws-cdk/core:bootstrapQualifier": "vaults"}
    assert "role/cdk-vaults-cfn-exec-role-" in json.dumps(deployer(template(**own)))
    arn = "arn:aws:iam::123456789012:role/Deployer"
    assert deployer(template(GUARD.model_copy(update={"deployed_by": arn}))) == arn


def test_the_bucket_locks_and_is_private():
    properties = of_type(template(), "AWS::S3::Bucket")["Properties"]
    assert properties["ObjectLockEnabled"] is True
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert "ObjectLockConfiguration" not in properties


def test_only_what_the_guard_released_expires():
    rules = of_type(template(), "AWS::S3::Bucket")["Properties"]["LifecycleConfiguration"]["Rules"]
    removing = [r for r in rules if "ExpirationInDays" in r or "NoncurrentVersionExpiration" in r]
    assert [(r["Id"], r.get("TagFilters"), r.get("Prefix")) for r in removing] == [
        ("expired-snapshots", [{"Key": "codecommit-mirror:expired", "Value": "true"}], None),
        ("earlier-states", None, "state/"),
    ]


def test_nobody_but_the_guard_may_be_allowed_to_sign():
    document = template()
    key = of_type(document, "AWS::KMS::Key")["Properties"]
    assert (key["KeySpec"], key["KeyUsage"]) == ("RSA_3072", "SIGN_VERIFY")
    guard = {"Fn::GetAtt": [logical_id(document, "AWS::IAM::Role"), "Arn"]}
    administration, signs, nobody_else = key["KeyPolicy"]["Statement"]
    assert not {"kms:Sign", "kms:CreateGrant", "kms:*"} & set(administration["Action"])
    assert not any("*" in action for action in administration["Action"])
    assert signs["Principal"] == {"AWS": guard}
    assert (nobody_else["Effect"], set(nobody_else["Action"])) == ("Deny", {"kms:Sign", "kms:CreateGrant"})
    assert unless(nobody_else) == guard


@PACKS
def test_cdk_nag_is_clean_or_acknowledged(pack):
    assert findings(stack(), pack) == []


def test_no_account_region_or_partition_is_written_into_the_resources():
    assert "arn:aws:" not in json.dumps(template()["Resources"])
