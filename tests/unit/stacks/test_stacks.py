"""The stack: exactly what it creates, in any partition, account and region."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import Validations
from aws_cdk.assertions import Template
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks

from codecommit_mirror.config.ci import TEMPLATE, TEMPLATE_GENERATION
from codecommit_mirror.config.identity import EarlierSignIn, Identity
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.constructs import push_access
from codecommit_mirror.feature_flags import FEATURE_FLAGS
from codecommit_mirror.stacks import ReplicaStack

ARN = {
    "Fn::Join": [
        "",
        [
            "arn:",
            {"Ref": "AWS::Partition"},
            ":codecommit:",
            {"Ref": "AWS::Region"},
            ":",
            {"Ref": "AWS::AccountId"},
            ":MyRepoReplica",
        ],
    ]
}
SNAPSHOT = Path(__file__).parent / "snapshots" / "MyRepoReplica.template.json"
CONTEXT = dict(FEATURE_FLAGS)
GENERATIONS = {1: "2eebf5ebe7c97d13ce75bfa04f5d45fc15c59bf320ffb4105727c8ea18f2bd8f"}
"""SHA-256 of the recorded template, by its generation."""
URL = "https://dev.azure.com/contoso/Shop/_git/MyRepo"
ORGANIZATION_ID = "89abcdef-0123-4567-89ab-cdef01234567"
ROLE = {"replica_auth": "role", "identity": Identity(organization_id=ORGANIZATION_ID)}


def synthesised(name="MyRepoReplica", *, earlier=None, engine=None, **changes):
    app = cdk.App(context=CONTEXT, analytics_reporting=False)
    mirror = single_mirror(name, URL).model_copy(update=changes)
    return ReplicaStack(app, mirror=mirror.with_engine(engine), earlier=earlier)


def template(**changes):
    return Template.from_stack(synthesised(**changes)).to_json()


def of_type(document, kind, prefix=""):
    return document["Resources"][logical_id(document, kind, prefix)]


def logical_id(document, kind, prefix=""):
    """Return the only resource of a type, among those whose logical id starts with the prefix."""
    resources = document["Resources"].items()
    (name,) = (name for name, r in resources if r["Type"] == kind and name.startswith(prefix))
    return name


def test_the_template_is_the_recorded_one():
    """Set UPDATE_SNAPSHOTS=1 to record it anew, and read the difference before committing it."""
    document = json.dumps(template(), indent=1, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(document)
    assert document == SNAPSHOT.read_text()
    # Raise TEMPLATE_GENERATION when this changes, or deployed stacks stay as they are.
    assert hashlib.sha256(document.encode()).hexdigest() == GENERATIONS[TEMPLATE_GENERATION]


def test_a_stack_says_what_its_template_is_made_of():
    def tag(**changes):
        return synthesised(**changes).tags.tag_values()[TEMPLATE]

    assert tag().startswith(f"{TEMPLATE_GENERATION}-")
    assert tag() == tag() == tag(schedule="1 2 * * *", refs=("heads",))
    assert len({tag(), tag(existing=True), tag(archive_days=1), tag(tags={"a": "b"}), tag(name="Other")}) == 5


def test_there_are_these_resources_and_nothing_else():
    kinds = sorted(resource["Type"] for resource in template()["Resources"].values())
    assert kinds == [
        "AWS::CodeCommit::Repository",
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::Role",
        "AWS::IAM::User",
        "AWS::Lambda::Function",
        "AWS::Logs::LogGroup",
        "Custom::GitCredentials",
    ]
    assert "Parameters" not in template() or list(template()["Parameters"]) == ["Source", "BootstrapVersion"]


def test_the_cleanup_may_remove_the_users_credentials_and_nothing_else():
    document = template()
    role = of_type(document, "AWS::IAM::Role")["Properties"]
    user, log = logical_id(document, "AWS::IAM::User"), logical_id(document, "AWS::Logs::LogGroup")
    (policy,) = role["Policies"]
    assert policy["PolicyDocument"]["Statement"] == [
        {
            "Effect": "Allow",
            "Action": [
                "iam:DeleteServiceSpecificCredential",
                "iam:ListServiceSpecificCredentials",
                "iam:UpdateServiceSpecificCredential",
            ],
            "Resource": {"Fn::GetAtt": [user, "Arn"]},
        },
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": {"Fn::GetAtt": [log, "Arn"]},
        },
    ]
    assert "ManagedPolicyArns" not in role


def test_the_cleanup_goes_before_the_user_and_does_not_hang():
    document = template()
    custom = of_type(document, "Custom::GitCredentials")["Properties"]
    assert custom["UserName"] == {"Ref": logical_id(document, "AWS::IAM::User")}
    assert custom["ServiceTimeout"] == "300"
    function = of_type(document, "AWS::Lambda::Function")["Properties"]
    assert "ZipFile" in function["Code"]
    assert len(function["Code"]["ZipFile"]) < 4096
    assert function["LoggingConfig"]["LogGroup"] == {"Ref": logical_id(document, "AWS::Logs::LogGroup")}
    assert of_type(document, "AWS::Logs::LogGroup")["DeletionPolicy"] == "Delete"


def test_the_policy_allows_git_push_on_the_replica_and_nothing_else():
    document = template()
    assert of_type(document, "AWS::IAM::ManagedPolicy")["Properties"]["PolicyDocument"] == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "codecommit:GitPush",
                "Resource": ARN,
            }
        ],
    }


def test_the_user_has_the_policy_and_no_way_in():
    document = template()
    assert of_type(document, "AWS::IAM::User")["Properties"] == {
        "UserName": "azure-devops-pipeline-MyRepoReplica",
        "ManagedPolicyArns": [{"Ref": logical_id(document, "AWS::IAM::ManagedPolicy")}],
        "Tags": [
            {"Key": "codecommit-mirror:replica", "Value": ARN},
            {"Key": "managed-by", "Value": "codecommit-mirror"},
        ],
    }
    assert "AWS::IAM::AccessKey" not in json.dumps(document)


def test_a_role_is_all_that_there_is_in_place_of_the_user():
    document = template(**ROLE)
    kinds = sorted(resource["Type"] for resource in document["Resources"].values())
    assert kinds == ["AWS::CodeCommit::Repository", "AWS::IAM::ManagedPolicy", "AWS::IAM::Role"]
    role = of_type(document, "AWS::IAM::Role")["Properties"]
    policy = logical_id(document, "AWS::IAM::ManagedPolicy")
    provider = f"vstoken.dev.azure.com/{ORGANIZATION_ID}"
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    account = {"Ref": "AWS::AccountId"}
    assert statement == {
        "Effect": "Allow",
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {
            "Federated": {
                "Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, ":iam::", account, f":oidc-provider/{provider}"]]
            }
        },
        "Condition": {
            "StringEquals": {
                f"{provider}:aud": "api://AzureADTokenExchange",
                f"{provider}:sub": ["p://contoso/Shop/codecommit-mirror-MyRepoReplica"],
            }
        },
    }
    assert (role["RoleName"], role["ManagedPolicyArns"]) == (
        "azure-devops-pipeline-MyRepoReplica",
        [{"Ref": policy}],
    )
    assert role["MaxSessionDuration"] == 3600
    assert "Policies" not in role
    assert document["Outputs"]["PushRoleArn"]["Value"] == {
        "Fn::GetAtt": [logical_id(document, "AWS::IAM::Role"), "Arn"]
    }
    assert "PushUserName" not in document["Outputs"]
    tags = of_type(document, "AWS::CodeCommit::Repository")["Properties"]["Tags"]
    assert {"Key": "codecommit-mirror:writer", "Value": "role/azure-devops-pipeline-MyRepoReplica"} in tags


def test_while_the_pipeline_changes_there_are_both_and_the_same_policy():
    before, between, after = template(), template(earlier=EarlierSignIn(user=True), **ROLE), template(**ROLE)
    for document in (before, after):
        for name, resource in document["Resources"].items():
            if resource["Type"] != "AWS::CodeCommit::Repository":
                assert between["Resources"][name] == resource
    assert {"PushUserName", "PushRoleArn"} <= between["Outputs"].keys()
    tags = of_type(between, "AWS::CodeCommit::Repository")["Properties"]["Tags"]
    name = "azure-devops-pipeline-MyRepoReplica"
    assert {"Key": "codecommit-mirror:writer", "Value": f"user/{name} role/{name}"} in tags


def test_issuer_audience_subject_and_provider_can_be_given():
    arn = "arn:aws:iam::111122223333:oidc-provider/tokens.example.com"
    identity = Identity(issuer="https://tokens.example.com", audience="sts", subject="mine", provider_arn=arn)
    document = template(replica_auth="role", identity=identity)
    (statement,) = of_type(document, "AWS::IAM::Role")["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Federated": arn}
    conditions = {"tokens.example.com:aud": "sts", "tokens.example.com:sub": ["mine"]}
    assert statement["Condition"] == {"StringEquals": conditions}


def test_the_replica_says_what_it_is():
    properties = of_type(template(), "AWS::CodeCommit::Repository")["Properties"]
    assert properties["RepositoryName"] == "MyRepoReplica"
    assert properties["RepositoryDescription"].startswith(f"Read-only replica of {URL}. Do not push here")


def test_the_guard_knows_the_replica_and_its_writer_by_tags():
    repository = of_type(template(), "AWS::CodeCommit::Repository")
    assert {tag["Key"]: tag["Value"] for tag in repository["Properties"]["Tags"]} == {
        "managed-by": "codecommit-mirror",
        "codecommit-mirror:replica": "MyRepoReplica",
        "codecommit-mirror:writer": "user/azure-devops-pipeline-MyRepoReplica",
        "codecommit-mirror:archive-days": "90",
    }
    comma = of_type(template(user_name="a,b", archive_days=0), "AWS::CodeCommit::Repository")["Properties"]["Tags"]
    assert {"Key": "codecommit-mirror:writer", "Value": "user/a:b"} in comma
    assert {"Key": "codecommit-mirror:archive-days", "Value": "0"} in comma


def test_the_outputs_are_those_that_the_cli_reads():
    document = template()
    replica = logical_id(document, "AWS::CodeCommit::Repository")
    assert {name: output["Value"] for name, output in document["Outputs"].items()} == {
        "ReplicaUrl": {"Fn::GetAtt": [replica, "CloneUrlHttp"]},
        "ReplicaArn": {"Fn::GetAtt": [replica, "Arn"]},
        "PushUserName": {"Ref": logical_id(document, "AWS::IAM::User")},
        "PushPolicyArn": {"Ref": logical_id(document, "AWS::IAM::ManagedPolicy")},
    }


@pytest.mark.parametrize(("on_destroy", "policy"), [("delete", "Delete"), ("retain", "Retain")])
def test_the_deletion_policy_is_explicit(on_destroy, policy):
    replica = of_type(template(on_destroy=on_destroy), "AWS::CodeCommit::Repository")
    assert (replica["DeletionPolicy"], replica["UpdateReplacePolicy"]) == (policy, policy)


def test_termination_protection_tags_and_names_are_as_configured():
    stack = synthesised(termination_protection=True, tags={"team": "platform"}, user_name="u", policy_name="p")
    document = Template.from_stack(stack).to_json()
    assert stack.termination_protection is True
    assert {"Key": "team", "Value": "platform"} in of_type(document, "AWS::CodeCommit::Repository")["Properties"][
        "Tags"
    ]
    assert of_type(document, "AWS::IAM::User")["Properties"]["UserName"] == "u"
    assert of_type(document, "AWS::IAM::ManagedPolicy")["Properties"]["ManagedPolicyName"] == "p"


@pytest.mark.parametrize("region", [None, "eu-west-1", "cn-north-1", "us-gov-west-1"])
def test_no_account_region_or_partition_is_written_into_the_resources(region):
    resources = json.dumps(template(region=region)["Resources"])
    assert "arn:aws" not in resources
    assert "amazonaws" not in resources.replace("lambda.amazonaws.com", "").replace("codecommit.amazonaws.com", "")


def test_a_stack_is_environment_agnostic_unless_told():
    assert synthesised().environment == "aws://unknown-account/unknown-region"
    assert synthesised(account="123456789012", region="eu-west-1").environment == "aws://123456789012/eu-west-1"


@pytest.mark.parametrize("name", ["my.repo_1", "1st", "a" * 100])
def test_every_replica_name_is_a_construct_id_and_gives_a_stack(name):
    stack = synthesised(name)
    assert stack.node.id == name
    assert stack.artifact_id


def findings(stack, pack):
    """Return the findings of a pack that are neither clean nor acknowledged, as rule and path."""
    app = stack.node.root
    Validations.of(app).add_plugins(pack(app))
    with contextlib.suppress(RuntimeError):
        app.synth()
    report = json.loads((Path(app.outdir) / "validation-report.json").read_text())
    violations = [violation for plugin in report["pluginReports"] for violation in plugin["violations"]]
    return [(v["ruleName"], place["constructPath"]) for v in violations for place in v["violatingConstructs"]]


PACKS = pytest.mark.parametrize("pack", [AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks])


@PACKS
@pytest.mark.parametrize("changes", [{}, {"policy_on": "group"}, ROLE], ids=["plain", "group", "role"])
def test_cdk_nag_is_clean_or_acknowledged(pack, changes):
    assert findings(synthesised(**changes), pack) == []


@PACKS
def test_cdk_nag_would_find_a_wildcard_and_a_user_with_a_policy(pack):
    stack = synthesised()
    cdk.aws_iam.User(stack, "Other").add_to_policy(
        cdk.aws_iam.PolicyStatement(actions=["codecommit:*"], resources=["*"])
    )
    assert any("MyRepoReplica/Other" in path for _, path in findings(stack, pack))


def test_a_policy_on_a_group_needs_nothing_acknowledged_for_it(monkeypatch):
    monkeypatch.setattr(push_access, "acknowledge", lambda *arguments: pytest.fail("acknowledged"))
    assert findings(synthesised(policy_on="group"), NIST80053R5Checks) == []


def test_a_permissions_boundary_comes_through_cdks_own_context_key():
    context = {**CONTEXT, "@aws-cdk/core:permissionsBoundary": {"name": "developers"}}
    app = cdk.App(context=context, analytics_reporting=False)
    document = Template.from_stack(ReplicaStack(app, mirror=single_mirror("M", URL))).to_json()
    for kind in ("AWS::IAM::User", "AWS::IAM::Role"):
        assert json.dumps(of_type(document, kind)["Properties"]["PermissionsBoundary"]).endswith(
            ':policy/developers"]]}'
        )


def test_stacks_are_tagged_for_who_looks_for_what_was_provisioned():
    stack = ReplicaStack(
        cdk.App(context=CONTEXT, analytics_reporting=False),
        mirror=single_mirror("my.repo_1", URL).model_copy(update={"tags": {"team": "platform", "managed-by": "us"}}),
        provisioned_from="github.com/contoso/mirrors",
    )
    tags = stack.tags.tag_values()
    tags.pop(TEMPLATE)
    assert tags == {
        "managed-by": "codecommit-mirror",
        "team": "platform",
        "codecommit-mirror:replica": "my.repo_1",
        "codecommit-mirror:provisioned-from": "github.com/contoso/mirrors",
    }
    assert "codecommit-mirror:provisioned-from" not in synthesised().tags.tag_values()


@pytest.mark.parametrize("name", ["MyRepoReplica", "my.repo_1"])
def test_logical_ids_that_cloudformation_can_neither_import_nor_refactor_never_change(name):
    """Another id would be another resource: CloudFormation would delete the repository."""
    resources = Template.from_stack(synthesised(name)).to_json()["Resources"]
    pinned = {
        "ReplicaRepository24451859": "AWS::CodeCommit::Repository",
        "ReplicaCleanupCredentials1D441AA0": "Custom::GitCredentials",
    }
    assert {name: resources.get(name, {}).get("Type") for name in pinned} == pinned


def test_an_existing_repository_is_only_referred_to():
    document = template(existing=True)
    assert not [r for r in document["Resources"].values() if r["Type"] == "AWS::CodeCommit::Repository"]
    url = document["Outputs"]["ReplicaUrl"]["Value"]["Fn::Join"][1]
    assert url[0] == "https://git-codecommit."
    assert url[-1] == "/v1/repos/MyRepoReplica"
    (statement,) = document["Resources"][logical_id(document, "AWS::IAM::ManagedPolicy")]["Properties"][
        "PolicyDocument"
    ]["Statement"]
    assert statement["Action"] == "codecommit:GitPush"
    assert statement["Resource"]["Fn::Join"][1][-1] == ":MyRepoReplica"
    assert sorted(document["Outputs"]) == ["PushPolicyArn", "PushUserName", "ReplicaArn", "ReplicaUrl"]
