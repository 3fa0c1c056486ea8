"""The constructs in somebody else's app: the same rights with no feature flags, and with all of them."""

import functools
import json
import tarfile
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_codecommit as codecommit
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk.assertions import Match, Template

from codecommit_mirror.constructs import (
    CiRoles,
    Guard,
    IdentityProvider,
    PipelineRole,
    PipelineUser,
    Replica,
    SnapshotTimes,
    Vault,
)
from codecommit_mirror.errors import MirrorError

from ..stacks.test_stacks import PACKS, findings

SOURCE = "https://dev.azure.com/contoso/Shop/_git/orders"
ISSUER = "https://vstoken.dev.azure.com/89abcdef-0123-4567-89ab-cdef01234567"


@functools.cache
def recommended_flags():
    """Return all feature flags of the CDK, as it recommends them."""
    (archive,) = (Path(cdk.__file__).parent / "_jsii").glob("*.jsii.tgz")
    with tarfile.open(archive) as files:
        recommended = files.extractfile("package/recommended-feature-flags.json")
        assert recommended is not None
        return json.load(recommended)


FLAGS = pytest.mark.parametrize("flags", [dict, recommended_flags], ids=["no flags", "all flags"])


def stack(flags=dict):
    return cdk.Stack(cdk.App(context=flags(), analytics_reporting=False), "Theirs")


def of_type(document, kind):
    return [resource["Properties"] for resource in document["Resources"].values() if resource["Type"] == kind]


def everything(flags=dict):
    """Return a stack with one of each construct."""
    scope = stack(flags)
    azure = IdentityProvider(scope, "Azure", issuer=ISSUER)
    Replica(scope, "Orders", repository_name="orders", source_url=SOURCE)
    role = PipelineRole(azure.issuer, provider=azure.provider)
    Replica(scope, "Invoices", repository_name="invoices", source_url=SOURCE, role=role)
    vault = Vault(scope, "Vault")
    Guard(scope, "Guard", vault=vault, email="ops@example.com")
    CiRoles(
        scope,
        "Ci",
        owner="github.com/contoso/mirrors",
        issuer="https://token.actions.githubusercontent.com",
        audience="sts.amazonaws.com",
        diff_subjects=["repo:contoso/mirrors:pull_request"],
        deploy_subjects=["repo:contoso/mirrors:ref:refs/heads/main"],
        reads_snapshots=True,
    )
    return scope


def rights(document):
    """Return every action that any policy names, however its statements are merged."""
    found = set()

    def walk(value):
        if isinstance(value, dict):
            for statement in value.get("Statement", []) if isinstance(value.get("Statement"), list) else []:
                actions = statement["Action"]
                found.update(
                    (statement["Effect"], action) for action in ([actions] if isinstance(actions, str) else actions)
                )
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(document["Resources"])
    return found


def test_feature_flags_change_nobodys_rights():
    without, with_all = (Template.from_stack(everything(flags)).to_json() for flags in (dict, recommended_flags))
    assert rights(without) == rights(with_all)
    kinds = [sorted(r["Type"] for r in document["Resources"].values()) for document in (without, with_all)]
    assert kinds[0] == kinds[1]


@PACKS
def test_cdk_nag_is_clean_or_acknowledged(pack):
    assert findings(everything(recommended_flags), pack) == []


@FLAGS
def test_a_replica_needs_a_name_only_and_has_no_names_of_its_own(flags):
    scope = stack(flags)
    replica = Replica(scope, "Orders", repository_name="orders")
    document = Template.from_stack(scope).to_json()
    (user,) = of_type(document, "AWS::IAM::User")
    (policy,) = of_type(document, "AWS::IAM::ManagedPolicy")
    assert "UserName" not in user
    assert "ManagedPolicyName" not in policy
    assert [policy["PolicyDocument"]["Statement"][0][key] for key in ("Action", "Effect")] == [
        "codecommit:GitPush",
        "Allow",
    ]
    assert [r["DeletionPolicy"] for r in document["Resources"].values() if "CodeCommit" in r["Type"]] == ["Retain"]
    assert isinstance(replica.repository, codecommit.Repository)
    assert isinstance(replica.policy, iam.ManagedPolicy)
    assert isinstance(replica.user, iam.User)
    assert replica.role is None


@FLAGS
def test_both_ends_say_to_whom_they_belong(flags):
    scope = stack(flags)
    Replica(scope, "Orders", repository_name="orders", user=PipelineUser("pusher,1"), archive_days=7)
    cdk.Tags.of(scope).add("codecommit-mirror:replica", "what a stack says of itself")
    document = Template.from_stack(scope).to_json()
    (repository,), (user,) = of_type(document, "AWS::CodeCommit::Repository"), of_type(document, "AWS::IAM::User")
    assert {tag["Key"]: tag["Value"] for tag in repository["Tags"]} == {
        "codecommit-mirror:replica": "orders",
        "codecommit-mirror:writer": "user/pusher:1",
        "codecommit-mirror:archive-days": "7",
        "managed-by": "codecommit-mirror",
    }
    of_user = {tag["Key"]: tag["Value"] for tag in user["Tags"]}
    assert of_user.pop("managed-by") == "codecommit-mirror"
    assert of_user.popitem()[1]["Fn::Join"][1][-1] == ":orders"


@FLAGS
def test_a_generated_name_of_the_writer_makes_no_circle(flags):
    scope = stack(flags)
    Replica(scope, "Orders", repository_name="orders", source_url=SOURCE, role=PipelineRole(ISSUER))
    document = Template.from_stack(scope).to_json()
    (repository,) = of_type(document, "AWS::CodeCommit::Repository")
    (role,) = [key for key, r in document["Resources"].items() if r["Type"] == "AWS::IAM::Role"]
    writer = next(tag["Value"] for tag in repository["Tags"] if tag["Key"] == "codecommit-mirror:writer")
    assert writer == {"Fn::Join": ["", ["role/", {"Ref": role}]]}


@FLAGS
def test_a_role_trusts_the_mirrors_own_pipeline(flags):
    scope = stack(flags)
    replica = Replica(scope, "Orders", repository_name="orders", source_url=SOURCE, role=PipelineRole(ISSUER))
    assert replica.token_subjects == ("p://contoso/Shop/codecommit-mirror-orders",)
    (role,) = of_type(Template.from_stack(scope).to_json(), "AWS::IAM::Role")
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    host = ISSUER.removeprefix("https://")
    assert statement["Condition"]["StringEquals"][f"{host}:sub"] == list(replica.token_subjects)
    assert replica.user is None


def test_an_existing_repository_is_not_created():
    scope = stack()
    own = codecommit.Repository(scope, "Own", repository_name="orders")
    replica = Replica(scope, "Orders", repository_name="orders", repository=own)
    assert replica.repository is own
    (repository,) = of_type(Template.from_stack(scope).to_json(), "AWS::CodeCommit::Repository")
    assert "codecommit-mirror:replica" in {tag["Key"] for tag in repository["Tags"]}


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"repository_name": "no/slash"}, "is not a CodeCommit repository name"),
        ({"repository_name": cdk.Aws.REGION}, "write the name itself"),
        ({"repository_name": "orders", "role": PipelineRole(ISSUER)}, "has no subjects; give source_url"),
        (
            {"repository_name": "orders", "role": PipelineRole(ISSUER), "source_url": "https://example.com"},
            "is not an Azure Repos clone URL",
        ),
    ],
)
def test_a_mistake_is_one_sentence(properties, says):
    with pytest.raises(MirrorError, match=says):
        Replica(stack(), "Orders", **properties)


@FLAGS
def test_who_is_granted_may_pull_or_read_and_nothing_else(flags):
    scope = stack(flags)
    reader = iam.Role(scope, "Reader", assumed_by=iam.AccountRootPrincipal())
    Replica(scope, "Orders", repository_name="orders").grant_pull(reader)
    Vault(scope, "Vault").grant_read(reader)
    found = Template.from_stack(scope).find_resources("AWS::IAM::Policy")
    (policy,) = (p["Properties"] for key, p in found.items() if key.startswith("Reader"))
    actions = [s["Action"] for s in policy["PolicyDocument"]["Statement"]]
    assert sorted(a for each in actions for a in (each if isinstance(each, list) else [each])) == [
        "codecommit:GitPull",
        "kms:GetPublicKey",
        "s3:GetObjectRetention",
        "s3:GetObjectVersion",
        "s3:ListBucketVersions",
    ]


@FLAGS
def test_a_guard_takes_their_topic_and_their_times(flags):
    scope = stack(flags)
    topic = sns.Topic(scope, "Alarms")
    times = SnapshotTimes(every=cdk.Duration.hours(6), keep=cdk.Duration.days(30), governance=True)
    guard = Guard(scope, "Guard", vault=Vault(scope, "Vault"), topic=topic, snapshots=times, function_name="theirs")
    assert guard.topic is topic
    template = Template.from_stack(scope)
    variables = {"EVERY_HOURS": "6", "KEEP_HOURS": "720", "LOCK_MODE": "GOVERNANCE", "STACKS": "Theirs"}
    template.has_resource_properties(
        "AWS::Lambda::Function",
        {"FunctionName": "theirs", "Environment": {"Variables": Match.object_like(variables)}},
    )
    # By which the guard finds its own alarms, in a stack of any name.
    alarms = template.find_resources("AWS::CloudWatch::Alarm").values()
    names = sorted(alarm["Properties"]["AlarmName"] for alarm in alarms)
    assert names == ["theirs-Failures", "theirs-Silence", "theirs-Stopped", "theirs-Unheard"]


def test_a_guard_needs_somebody_to_tell():
    scope = stack()
    vault = Vault(scope, "Vault")
    with pytest.raises(MirrorError, match="either email or topic"):
        Guard(scope, "Guard", vault=vault)


def test_a_guard_locks_for_no_longer_than_its_vault_allows():
    scope = stack()
    vault = Vault(scope, "Vault", longest=cdk.Duration.days(30))
    with pytest.raises(MirrorError, match="give the vault a longer 'longest'"):
        Guard(scope, "Guard", vault=vault, email="ops@example.com")
