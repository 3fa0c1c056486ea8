"""The policy that ``ci policy`` prints deploys mirrors and nothing else, on a CloudFormation that acts as a role."""

import copy
import json
import uuid

import aws_cdk as cdk
import boto3
import pytest
from aws_cdk.assertions import Template
from botocore.exceptions import ClientError
from click.testing import CliRunner

from codecommit_mirror.aws.execution_policy import BOUNDARY
from codecommit_mirror.cli import cli
from codecommit_mirror.config.ci import BOUNDARY_KEY
from codecommit_mirror.config.guard import Guard
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.stacks import GuardStack, ReplicaStack, VaultStack
from localcloud import LocalCloud

from ..conftest import BOOTSTRAP_TEMPLATE, create_stack
from ..embedded_cloud.aws.conftest import trust
from ..embedded_cloud.aws.stacks import Stack

ORGANIZATION_ID = "89abcdef-0123-4567-89ab-cdef01234567"
NOT_MET = {
    # Reads of, and changes to, what no template here has; the version of ``cdk bootstrap`` is read for its rule.
    "codecommit:ListTagsForResource",
    "codecommit:TagResource",
    "codecommit:UntagResource",
    "iam:DeletePolicyVersion",
    "iam:DeleteUserPolicy",
    "iam:GetPolicyVersion",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListAttachedUserPolicies",
    "iam:ListGroupsForUser",
    "iam:ListRolePolicies",
    "iam:ListUserPolicies",
    "iam:PutRolePermissionsBoundary",
    "iam:PutUserPermissionsBoundary",
    "iam:PutUserPolicy",
    "iam:UpdateRole",
    "lambda:UntagResource",
    "logs:ListTagsForResource",
    "logs:UntagResource",
    "ssm:GetParameters",
}


def printed(*arguments, account="111122223333"):
    done = CliRunner().invoke(cli, ["ci", "policy", account, *arguments])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.fixture(scope="module")
def cloud():
    """A cloud with the boundary, and an identity provider for mirrors with a role."""
    with LocalCloud() as running:
        iam = running.client("iam")
        iam.create_policy(PolicyName=BOUNDARY, PolicyDocument=json.dumps(printed("--boundary")))
        issuer = f"https://vstoken.dev.azure.com/{ORGANIZATION_ID}"
        iam.create_open_id_connect_provider(Url=issuer, ClientIDList=["api://AzureADTokenExchange"])
        yield running


def template(stack):
    document = Template.from_stack(stack).to_json()
    document.pop("Parameters", None)
    document.pop("Rules", None)
    return json.dumps(document)


def app():
    return cdk.App(context={BOUNDARY_KEY: BOUNDARY}, analytics_reporting=False)


@pytest.fixture(scope="module")
def templates():
    """The templates of mirrors of each kind, whose users and roles have the boundary."""
    kinds = {
        "user": {},
        "role": {"replica_auth": "role", "identity": {"organization_id": ORGANIZATION_ID}},
    }
    mirror = single_mirror("NAME", "https://dev.azure.com/o/p/_git/NAME")
    data = mirror.model_dump(exclude_unset=True)
    return {
        kind: template(ReplicaStack(app(), mirror=type(mirror).model_validate({**data, **settings})))
        for kind, settings in kinds.items()
    }


def role_with(cloud, policy):
    """Return a role for CloudFormation with the policy."""
    iam, name = cloud.client("iam"), f"cfn-exec-{uuid.uuid4().hex[:8]}"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("cloudformation.amazonaws.com"))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="execution", PolicyDocument=json.dumps(policy))
    return arn


def changed(text):
    """Return a template in which each resource is another one, as with a new version of this project."""
    document = json.loads(text)
    for resource in document["Resources"].values():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::CodeCommit::Repository":
                properties["RepositoryDescription"] = "Changed"
            case "AWS::IAM::Role":
                properties["AssumeRolePolicyDocument"]["Statement"][0]["Sid"] = "Changed"
            case "AWS::Lambda::Function":
                properties["Timeout"] = properties.get("Timeout", 3) + 1
                properties["Code"] = {"ZipFile": properties["Code"]["ZipFile"] + "\n# Changed"}
            case "AWS::Logs::LogGroup":
                properties["RetentionInDays"] = 1
            case "AWS::IAM::User":
                properties["Tags"] = [{"Key": "changed", "Value": "yes"}]
    return json.dumps(document)


def journey(cloud, text, role):
    """Deploy a mirror, change it and delete it; return what became of each, and why."""
    name = f"M{uuid.uuid4().hex[:8]}"
    stack, text = Stack(cloud.client("cloudformation"), name), text.replace("NAME", name)
    done = [stack.create(text, RoleARN=role)]
    if done == ["CREATE_COMPLETE"]:
        done.append(stack.update(changed(text), RoleARN=role))
    if done[-1] == "UPDATE_COMPLETE":
        done.append(stack.delete())
    return done, [] if done[-1] == "DELETE_COMPLETE" else stack.reasons()


@pytest.mark.parametrize("kind", ["user", "role"])
def test_it_deploys_changes_and_deletes_mirrors(cloud, templates, kind):
    done, reasons = journey(cloud, templates[kind], role_with(cloud, printed()))
    assert done == ["CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"], reasons


def actions():
    return sorted({action for statement in printed()["Statement"] for action in statement["Action"]})


def without(action):
    policy = copy.deepcopy(printed())
    for statement in policy["Statement"]:
        statement["Action"] = [a for a in statement["Action"] if a != action]
    policy["Statement"] = [statement for statement in policy["Statement"] if statement["Action"]]
    return policy


@pytest.mark.parametrize("action", [action for action in actions() if action not in NOT_MET])
def test_one_permission_less_and_a_deployment_fails(cloud, templates, action):
    role, reasons = role_with(cloud, without(action)), []
    for text in templates.values():
        reasons += journey(cloud, text, role)[1]
        if any(action in reason for reason in reasons):
            return
    pytest.fail(f"{action} is not missed: {reasons}")


def test_it_deploys_neither_the_vault_nor_the_guard(cloud):
    own, guard = app(), Guard(email="ops@example.com")
    vault = VaultStack(own, guard=guard)
    text = template(GuardStack(own, guard=guard, vault=vault))
    document = json.loads(text)
    (function,) = (r for r in document["Resources"].values() if r["Type"] == "AWS::Lambda::Function")
    function["Properties"]["Code"] = {"ZipFile": "def handler(event, context): pass"}
    for refused in (template(vault), json.dumps(document)):
        stack = Stack(cloud.client("cloudformation"))
        assert stack.create(refused, RoleARN=role_with(cloud, printed())) == "ROLLBACK_COMPLETE"


@pytest.mark.parametrize(
    "resource",
    [
        {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": "azure-devops-pipeline-admin",
                "AssumeRolePolicyDocument": json.loads(trust("lambda.amazonaws.com")),
                "ManagedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"],
            },
        },
        {"Type": "AWS::IAM::User", "Properties": {"UserName": "mallory"}},
        {"Type": "AWS::IAM::User", "Properties": {"UserName": "azure-devops-pipeline-x"}},
        {"Type": "AWS::S3::Bucket", "Properties": {}},
        {
            "Type": "AWS::IAM::Group",
            "Properties": {
                "GroupName": "azure-devops-pipeline-x",
                "ManagedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"],
            },
        },
        {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "ManagedPolicyName": "CodeCommitAnythingGitPush",
                "Groups": ["developers"],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
                },
            },
        },
    ],
    ids=[
        "a role without the boundary",
        "another user",
        "a user without the boundary",
        "a bucket",
        "a group",
        "a foreign group",
    ],
)
def test_it_creates_nothing_that_could_do_more(cloud, resource):
    stack = Stack(cloud.client("cloudformation"))
    text = json.dumps({"Resources": {"Thing": resource}})
    assert stack.create(text, RoleARN=role_with(cloud, printed())) == "ROLLBACK_COMPLETE"
    assert any("is not authorized to perform" in reason for reason in stack.reasons()), stack.reasons()


@pytest.mark.parametrize("key", ["codecommit-mirror:pipeline", "codecommit-mirror:source", "CodeCommit-Mirror:Source"])
def test_it_writes_no_record_of_a_pipeline(cloud, templates, key):
    """IAM compares the keys of tags without regard to case."""
    name = f"T{uuid.uuid4().hex[:8]}"
    stack, text = Stack(cloud.client("cloudformation"), name), templates["user"].replace("NAME", name)
    assert stack.create(text) == "CREATE_COMPLETE"
    document = json.loads(text)
    (user,) = (r for r in document["Resources"].values() if r["Type"] == "AWS::IAM::User")
    user["Properties"]["Tags"] = [{"Key": key, "Value": "theirs/7"}]
    assert stack.update(json.dumps(document), RoleARN=role_with(cloud, printed())) == "UPDATE_ROLLBACK_COMPLETE"
    assert any("iam:TagUser" in reason for reason in stack.reasons())


def test_it_widens_no_policy_that_is_there(cloud):
    mirror = single_mirror("NAME", "https://dev.azure.com/o/p/_git/NAME")
    name = f"P{uuid.uuid4().hex[:8]}"
    # As a person deploys a mirror, without the boundary.
    text = template(ReplicaStack(cdk.App(analytics_reporting=False), mirror=mirror)).replace("NAME", name)
    stack, document = Stack(cloud.client("cloudformation"), name), json.loads(text)
    assert stack.create(text) == "CREATE_COMPLETE"
    (policy,) = (r for r in document["Resources"].values() if r["Type"] == "AWS::IAM::ManagedPolicy")
    policy["Properties"]["PolicyDocument"]["Statement"] = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    assert stack.update(json.dumps(document), RoleARN=role_with(cloud, printed())) == "UPDATE_ROLLBACK_COMPLETE"
    assert any("iam:CreatePolicyVersion" in reason for reason in stack.reasons())


@pytest.fixture(scope="module")
def deploy_role(cloud):
    """A client for CloudFormation as CI's deploying job has it: with the deploy role of a bootstrap of its own."""
    iam, account = cloud.client("iam"), cloud.account
    execution = iam.create_policy(PolicyName="codecommit-mirror-execution", PolicyDocument=json.dumps(printed()))
    create_stack(
        cloud,
        "ccmirror-toolkit",
        BOOTSTRAP_TEMPLATE.read_text(),
        Qualifier="ccmirror",
        CloudFormationExecutionPolicies=execution["Policy"]["Arn"],
    )
    name = f"cdk-ccmirror-deploy-role-{account}-{cloud.region}"
    iam.put_role_policy(
        RoleName=name, PolicyName="codecommit-mirror", PolicyDocument=json.dumps(printed("--deploy", account=account))
    )
    keys = cloud.client("sts").assume_role(RoleArn=f"arn:aws:iam::{account}:role/{name}", RoleSessionName="aws-cdk")
    return boto3.Session(
        keys["Credentials"]["AccessKeyId"],
        keys["Credentials"]["SecretAccessKey"],
        keys["Credentials"]["SessionToken"],
        region_name=cloud.region,
    ).client("cloudformation", endpoint_url=cloud.environment()["AWS_ENDPOINT_URL"])


def test_who_merges_uses_no_other_role_than_that_of_the_bootstrap(cloud, deploy_role, templates):
    account, name = cloud.account, f"D{uuid.uuid4().hex[:8]}"
    execution = f"arn:aws:iam::{account}:role/cdk-ccmirror-cfn-exec-role-{account}-{cloud.region}"
    mine = Stack(deploy_role, name)
    assert mine.create(templates["user"].replace("NAME", name), RoleARN=execution) == "CREATE_COMPLETE"
    # A stack that an administrator's role has deployed: CloudFormation would go on with that role.
    bucket = json.dumps({"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}})
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    admin = role_with(cloud, {"Version": "2012-10-17", "Statement": [everything]})
    for stack_name in (f"a-person-s-{name}", "codecommit-mirror-vault"):
        assert Stack(cloud.client("cloudformation"), stack_name).create(bucket, RoleARN=admin) == "CREATE_COMPLETE"
        where = {"StackName": stack_name, "TemplateBody": bucket, "Capabilities": ["CAPABILITY_NAMED_IAM"]}
        calls = [
            (deploy_role.update_stack, where),
            (deploy_role.update_stack, {**where, "RoleARN": admin}),
            (deploy_role.create_change_set, {**where, "ChangeSetName": "mine"}),
            (deploy_role.delete_stack, {"StackName": stack_name}),
        ]
        for call, arguments in calls:
            with pytest.raises(ClientError, match="AccessDenied"):
                call(**arguments)
    with pytest.raises(ClientError, match="AccessDenied"):
        deploy_role.update_termination_protection(StackName="codecommit-mirror-ci", EnableTerminationProtection=False)
    assert mine.delete(RoleARN=execution) == "DELETE_COMPLETE"


def test_an_administrators_policy_within_the_boundary_is_worth_nothing(cloud):
    iam, name = cloud.client("iam"), "azure-devops-pipeline-within"
    resource = {
        "Type": "AWS::IAM::User",
        "Properties": {
            "UserName": name,
            "ManagedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"],
            "PermissionsBoundary": f"arn:aws:iam::{cloud.account}:policy/{BOUNDARY}",
        },
    }
    stack = Stack(cloud.client("cloudformation"))
    text = json.dumps({"Resources": {"Thing": resource}})
    assert stack.create(text, RoleARN=role_with(cloud, printed())) == "CREATE_COMPLETE"
    arn = iam.get_user(UserName=name)["User"]["Arn"]
    asked = ["codecommit:GitPush", "codecommit:DeleteRepository", "s3:PutObject", "iam:CreateUser"]
    repository = [f"arn:aws:codecommit:eu-west-1:{cloud.account}:any"]
    results = iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=asked, ResourceArns=repository)[
        "EvaluationResults"
    ]
    assert [result["EvalDecision"] for result in results] == ["allowed", *["implicitDeny"] * 3]


def test_an_account_is_twelve_digits():
    with pytest.raises(MirrorError, match="'shop' is not the id of an AWS account; write its twelve digits"):
        CliRunner().invoke(cli, ["ci", "policy", "shop"], catch_exceptions=False)


def test_a_qualifier_is_no_pattern():
    with pytest.raises(MirrorError, match=r"'\*' is not a bootstrap's qualifier; write up to ten letters and digits"):
        CliRunner().invoke(
            cli, ["ci", "policy", "111122223333", "--deploy", "--qualifier", "*"], catch_exceptions=False
        )
