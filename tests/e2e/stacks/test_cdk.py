"""The real CDK CLI on the embedded cloud: deploy, deploy again, diff, destroy; and synthesis with nothing at all."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import aws_cdk
import boto3
import pytest
from aws_cdk.assertions import Template
from botocore.exceptions import WaiterError
from click.testing import CliRunner

from codecommit_mirror.aws.repository import find_clone_url
from codecommit_mirror.aws.session import client
from codecommit_mirror.aws.stack import deletion_policy, read_template
from codecommit_mirror.cli import cli
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.operations.preflight import repository_problem
from codecommit_mirror.stacks import ReplicaStack
from demo.journey import inventory
from localcloud import LocalCloud, sample

from ..conftest import ROOT, create_stack

pytestmark = pytest.mark.long

MIRROR = single_mirror("bare", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
CDK = ROOT / "node_modules" / ".bin" / "cdk"
MIRRORS = """\
defaults:
  azure: {organization: contoso, project: Shop}
mirrors:
  my.repo_1:
    azure: {repository: MyRepo}
  protected:
    azure: {repository: Other}
    on_destroy: retain
    termination_protection: true
"""


@pytest.fixture(autouse=True)
def _this_modules_account(account, _this_cloud_and_no_other, monkeypatch):
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def account():
    """A cloud of this module's own, bootstrapped."""
    with LocalCloud() as cloud:
        done = cdk(cloud, cloud.root, "bootstrap", f"aws://{cloud.account}/{cloud.region}")
        assert done.returncode == 0, done.stdout
        yield cloud


def cdk(cloud, folder, *arguments, mirrors=MIRRORS, **environment):
    """Run the CDK CLI on this project's app, with the mirrors file of a folder."""
    config = Path(folder) / "mirrors.yaml"
    config.write_text(mirrors)
    return run_cli(
        cloud, *arguments, "-c", f"config={config}", "--output", str(Path(folder) / "cdk.out"), **environment
    )


@pytest.fixture(scope="module")
def assembled(account, tmp_path_factory):
    """Run the CDK CLI on what the app has synthesised once for each mirrors file."""

    @cache
    def assembly(mirrors):
        folder = tmp_path_factory.mktemp("assembly")
        done = cdk(account, folder, "synth", "--quiet", mirrors=mirrors)
        assert done.returncode == 0, done.stdout
        return folder / "cdk.out"

    return lambda *arguments, mirrors=MIRRORS: run_cli(account, *arguments, "--app", str(assembly(mirrors)))


def run_cli(cloud, *arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [CDK, *arguments],
        cwd=ROOT,
        env={**clean, "PATH": path, **(cloud.environment() if cloud else {}), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # where the CLI writes to depends on CI being set
        text=True,
        check=False,
    )


def test_deploy_twice_diff_and_destroy(account, tmp_path):
    first = cdk(account, tmp_path, "deploy", "my.repo_1", "--require-approval", "never")
    assert first.returncode == 0, first.stdout
    (stack,) = account.client("cloudformation").describe_stacks(StackName="my-repo-1")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert sorted(outputs) == ["PushPolicyArn", "PushUserName", "ReplicaArn", "ReplicaUrl"]
    assert outputs["ReplicaArn"] == "arn:aws:codecommit:eu-west-1:111122223333:my.repo_1"
    assert outputs["ReplicaUrl"].endswith("/v1/repos/my.repo_1")

    second = cdk(account, tmp_path, "deploy", "my.repo_1", "--require-approval", "never")
    assert second.returncode == 0
    assert "(no changes)" in second.stdout
    diff = cdk(account, tmp_path, "diff", "my.repo_1", "--fail")
    assert diff.returncode == 0, diff.stdout
    assert "There were no differences" in diff.stdout
    assert cdk(account, tmp_path, "destroy", "my.repo_1", "--force").returncode == 0


def issue(account, user):
    """Issue a Git credential and return its id."""
    issued = account.client("iam").create_service_specific_credential(
        UserName=user, ServiceName="codecommit.amazonaws.com"
    )
    return issued["ServiceSpecificCredential"]["ServiceSpecificCredentialId"]


def test_plain_destroy_works_with_two_live_credentials_and_leaves_nothing(account, assembled):
    before = inventory(account)
    assert assembled("deploy", "my.repo_1", "--require-approval", "never").returncode == 0
    for _ in range(2):
        issue(account, "azure-devops-pipeline-my.repo_1")
    destroyed = assembled("destroy", "my.repo_1", "--force")
    assert destroyed.returncode == 0, destroyed.stdout
    assert inventory(account) == before
    assert not account.replica_path("my.repo_1").exists()


def test_without_the_cleanup_iam_would_refuse_and_cloudformation_stop(account):
    """The embedded cloud does as IAM and CloudFormation do: what the custom resource is there for."""
    document = Template.from_stack(ReplicaStack(aws_cdk.App(), mirror=MIRROR)).to_json()
    resources = document["Resources"]
    for name in [name for name, r in resources.items() if r["Type"] == "Custom::GitCredentials"]:
        del resources[name]
    cloudformation = account.client("cloudformation")
    template = json.dumps({"Resources": resources, "Outputs": document["Outputs"]})
    create_stack(account, "bare", template)
    issued = issue(account, MIRROR.user_name)
    cloudformation.delete_stack(StackName="bare")
    with pytest.raises(WaiterError, match="DELETE_FAILED"):
        cloudformation.get_waiter("stack_delete_complete").wait(StackName="bare", WaiterConfig={"Delay": 0.2})
    reasons = [
        e.get("ResourceStatusReason", "") for e in cloudformation.describe_stack_events(StackName="bare")["StackEvents"]
    ]
    assert any("DeleteConflict" in reason for reason in reasons)
    assert account.replica_path(MIRROR.name).is_dir()
    account.client("iam").delete_service_specific_credential(
        UserName=MIRROR.user_name, ServiceSpecificCredentialId=issued
    )
    cloudformation.delete_stack(StackName="bare")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="bare", WaiterConfig={"Delay": 0.2})


def test_a_user_that_is_gone_already_does_not_stop_destroy(account, assembled):
    assert assembled("deploy", "my.repo_1", "--require-approval", "never").returncode == 0
    iam, user = account.client("iam"), "azure-devops-pipeline-my.repo_1"
    for policy in iam.list_attached_user_policies(UserName=user)["AttachedPolicies"]:
        iam.detach_user_policy(UserName=user, PolicyArn=policy["PolicyArn"])
    iam.delete_user(UserName=user)
    destroyed = assembled("destroy", "my.repo_1", "--force")
    assert destroyed.returncode == 0, destroyed.stdout


def test_a_cleanup_that_fails_says_why(account, assembled):
    assert assembled("deploy", "my.repo_1", "--require-approval", "never").returncode == 0
    iam = account.client("iam")
    (role,) = [r["RoleName"] for r in iam.list_roles()["Roles"] if "ReplicaCleanup" in r["RoleName"]]
    policy = iam.get_role_policy(RoleName=role, PolicyName="Cleanup")["PolicyDocument"]
    iam.delete_role_policy(RoleName=role, PolicyName="Cleanup")
    refused = assembled("destroy", "my.repo_1", "--force")
    assert refused.returncode == 1
    assert "cannot remove the Git credentials of azure-devops-pipeline-my.repo_1" in refused.stdout
    iam.put_role_policy(RoleName=role, PolicyName="Cleanup", PolicyDocument=json.dumps(policy))
    assert assembled("destroy", "my.repo_1", "--force").returncode == 0


def test_termination_protection_refuses_and_a_kept_replica_is_used_again(account, assembled):
    assert assembled("deploy", "protected", "--require-approval", "never").returncode == 0
    refused = assembled("destroy", "protected", "--force")
    assert refused.returncode == 1
    assert "TerminationProtection is enabled" in refused.stdout
    cloudformation = account.client("cloudformation")
    cloudformation.update_termination_protection(StackName="protected", EnableTerminationProtection=False)
    replica = account.replica_path("protected")
    sample.fill(replica)
    before = sample.refs(replica)
    assert assembled("destroy", "protected", "--force").returncode == 0
    assert sample.refs(replica) == before

    # A new stack refers to what the old one kept, and never deletes it.
    again = MIRRORS.replace("on_destroy: retain\n    termination_protection: true", "existing: true")
    created = assembled("deploy", "protected", "--require-approval", "never", mirrors=again)
    assert created.returncode == 0, created.stdout
    assert assembled("destroy", "protected", "--force", mirrors=again).returncode == 0
    assert sample.refs(replica) == before
    account.client("codecommit").delete_repository(repositoryName="protected")


def test_plain_cdk_lets_no_other_file_take_a_replica_over(account, assembled):
    def deploy(repository, *options):
        mirrors = f"mirrors:\n  taken:\n    azure: {{organization: o, project: p, repository: {repository}}}\n"
        return assembled("deploy", "taken", "--require-approval", "never", *options, mirrors=mirrors)

    cloudformation = account.client("cloudformation")
    assert deploy("ours").returncode == 0
    before = cloudformation.get_template(StackName="taken")["TemplateBody"]
    refused = deploy("theirs")
    assert refused.returncode == 1
    assert "The replica taken follows another source than o/p/theirs" in refused.stdout
    assert cloudformation.get_template(StackName="taken")["TemplateBody"] == before
    assert deploy("ours").returncode == 0
    # A person who says so, and 'up', which has compared the ids.
    assert deploy("theirs", "--parameters", "taken:Source=o/p/theirs").returncode == 0
    assert deploy("ours", "--no-previous-parameters").returncode == 0
    assert assembled("destroy", "taken", "--force").returncode == 0


def test_a_deployed_mirror_moves_from_owned_to_existing_and_loses_nothing_on_the_way_back(account, assembled):
    """CloudFormation cannot take a repository over: the way back fails before anything is lost, and says why."""

    def deploy(text):
        mirrors = f"defaults:\n  azure: {{organization: o, project: p}}\nmirrors:\n  moving:\n    {text}\n"
        options = ("--require-approval", "never")
        return assembled("deploy", "moving", *options, mirrors=mirrors)

    def problem(text):
        mirror = single_mirror("moving", "https://dev.azure.com/o/p/_git/r").model_copy(update=text)
        aws = boto3.Session(region_name=account.region)
        owned = deletion_policy(read_template(client(aws, "cloudformation"), mirror.stack_name))
        return repository_problem(mirror, True, owned, find_clone_url(aws, mirror.name) is not None)

    assert deploy("azure: {repository: r}").returncode == 0
    replica = account.replica_path("moving")
    sample.fill(replica)
    before = sample.refs(replica)
    assert "with existing: true CloudFormation would delete it" in problem({"existing": True})
    assert deploy("azure: {repository: r}\n    on_destroy: retain").returncode == 0
    assert problem({"existing": True}) is None
    moved = deploy("azure: {repository: r}\n    existing: true")
    assert moved.returncode == 0, moved.stdout
    assert sample.refs(replica) == before
    assert "only refers to the repository 'moving'" in problem({"on_destroy": "retain"})
    back = deploy("azure: {repository: r}\n    on_destroy: retain")
    assert back.returncode == 1
    assert "already exists" in back.stdout
    (stack,) = account.client("cloudformation").describe_stacks(StackName="moving")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert sample.refs(replica) == before
    # Whoever wants one that the stack owns deletes the repository first.
    account.client("codecommit").delete_repository(repositoryName="moving")
    assert problem({}) is None
    owned = deploy("azure: {repository: r}")
    assert owned.returncode == 0, owned.stdout
    assert replica.is_dir()


NOTHING = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def offline(tmp_path, *arguments):
    """Run the CLI without credentials, and with a proxy that refuses every connection."""
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "CDK_HOME": str(tmp_path)}
    return cdk(None, tmp_path, *arguments, **NOTHING, **closed)


def policy_for_ci(account, *options):
    done = CliRunner().invoke(cli, ["ci", "policy", account.account, *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_policies_for_ci_let_cdk_deploy_try_again_and_destroy(account, tmp_path):
    """As docs/ci.md says, with the real bootstrap; CI's job may do nothing but assume that bootstrap's roles."""
    iam, roles = account.client("iam"), f"arn:aws:iam::{account.account}:role/cdk-ccmirror-*"
    made = iam.create_policy(PolicyName="codecommit-mirror-execution", PolicyDocument=policy_for_ci(account))
    boundary = "codecommit-mirror-boundary"
    iam.create_policy(PolicyName=boundary, PolicyDocument=policy_for_ci(account, "--boundary"))
    new = ("--qualifier", "ccmirror", "--toolkit-stack-name", "ccmirror-toolkit")
    execution = ("--cloudformation-execution-policies", made["Policy"]["Arn"])
    done = cdk(account, tmp_path, "bootstrap", f"aws://{account.account}/{account.region}", *new, *execution)
    assert done.returncode == 0, done.stdout
    iam.put_role_policy(
        RoleName=f"cdk-ccmirror-deploy-role-{account.account}-{account.region}",
        PolicyName="codecommit-mirror",
        PolicyDocument=policy_for_ci(account, "--deploy"),
    )
    assume = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": roles}
    iam.create_user(UserName="ci-job")
    document = json.dumps({"Version": "2012-10-17", "Statement": [assume]})
    iam.put_user_policy(UserName="ci-job", PolicyName="assume", PolicyDocument=document)
    key = iam.create_access_key(UserName="ci-job")["AccessKey"]
    job = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    context = ("-c", "codecommit-mirror:qualifier=ccmirror", "-c", f"codecommit-mirror:boundary={boundary}")

    def as_job(*arguments):
        done = cdk(account, tmp_path, *arguments, *context, **job)
        return done.returncode, done.stdout

    # What is in the way makes the creation fail; once it is gone, CDK deletes what is left, and creates it again.
    iam.create_user(UserName="azure-devops-pipeline-my.repo_1")
    assert as_job("deploy", "my.repo_1", "--require-approval", "never")[0] == 1
    iam.delete_user(UserName="azure-devops-pipeline-my.repo_1")
    assert as_job("deploy", "my.repo_1", "--require-approval", "never")[0] == 0
    code, said = as_job("deploy", "my.repo_1", "--require-approval", "never", "--method", "change-set", "--force")
    assert code == 0, said
    code, said = as_job("destroy", "my.repo_1", "--force")
    assert code == 0, said


def test_synth_needs_no_credentials_and_no_network(tmp_path):
    done = offline(tmp_path, "synth", "--quiet")
    assert done.returncode == 0, done.stdout
    names = sorted(path.name for path in (tmp_path / "cdk.out").glob("*.template.json"))
    assert len(names) == 2


def test_one_mirror_alone_is_synthesised(tmp_path):
    done = offline(tmp_path, "synth", "--quiet", "-c", "mirror=protected")
    assert done.returncode == 0, done.stdout
    assert [path.name for path in (tmp_path / "cdk.out").glob("*.template.json")] == ["protected.template.json"]


def test_a_mirror_can_be_given_without_a_file(tmp_path):
    url = "https://dev.azure.com/contoso/Shop/_git/MyRepo"
    done = offline(tmp_path, "synth", "--quiet", "-c", "replica=New", "-c", f"azure_repo_url={url}")
    assert done.returncode == 0, done.stdout
    document = json.loads((tmp_path / "cdk.out" / "New.template.json").read_text())
    (repository,) = (r for r in document["Resources"].values() if r["Type"] == "AWS::CodeCommit::Repository")
    assert url in repository["Properties"]["RepositoryDescription"]


def test_a_mistake_is_a_sentence_and_no_traceback(tmp_path):
    done = offline(tmp_path, "synth", "--quiet", "-c", "mirror=nobody")
    assert done.returncode == 1
    assert "there is no mirror 'nobody'; the file has my.repo_1, protected." in done.stdout
    assert "Traceback" not in done.stdout
