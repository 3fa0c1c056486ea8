"""A replica that another CDK app deploys: found by its tags at both ends, connected, and left alone."""

import json

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk.assertions import Template
from click.testing import CliRunner

from codecommit_mirror.cli import cli
from codecommit_mirror.constructs import PipelineUser, Replica
from localcloud import sample

from ..conftest import azure_environment
from ..embedded_cloud.aws.stacks import Stack

MIRROR = """\
mirrors:
  parcels:
    azure: {{organization: contoso, project: Shop, repository: parcels, server: "{server}"}}
    deployed: elsewhere
    policy_on: group  # which has no effect here: it would excuse a group of the user's name
"""


class Theirs:
    """Another app's stack with a replica, and a person of theirs who may connect it and nothing else."""

    def __init__(self, cloud, folder, monkeypatch) -> None:
        self.cloud, self.folder = cloud, folder
        self.stack = Stack(cloud.client("cloudformation"))
        (folder / "mirrors.yaml").write_text(MIRROR.format(server=cloud.azure_url))
        monkeypatch.chdir(folder)
        for name, value in azure_environment(cloud).items():
            monkeypatch.setenv(name, value)
        self._monkeypatch = monkeypatch

    def deploy(self):
        scope = cdk.Stack(cdk.App(analytics_reporting=False), "theirs")
        replica = Replica(scope, "Orders", repository_name="parcels", user=PipelineUser("pushes-parcels"))
        replica.repository.apply_removal_policy(cdk.RemovalPolicy.DESTROY)
        replica.grant_connect(iam.User(scope, "Platform", user_name="platform"))
        document = Template.from_stack(scope).to_json()
        document.pop("Parameters"), document.pop("Rules")
        assert self.stack.create(json.dumps(document)) == "CREATE_COMPLETE", self.stack.reasons()
        key = self.cloud.client("iam").create_access_key(UserName="platform")["AccessKey"]
        self._monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        self._monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    def delete(self):
        users = self.cloud.client("iam")
        for key in users.list_access_keys(UserName="platform")["AccessKeyMetadata"]:
            users.delete_access_key(UserName="platform", AccessKeyId=key["AccessKeyId"])
        assert self.stack.delete() == "DELETE_COMPLETE", self.stack.reasons()

    def run(self, *arguments, succeeds=True):
        result = CliRunner().invoke(cli, arguments)
        assert (result.exit_code == 0) is succeeds, (result.output, result.exception)
        return f"{result.output}{result.exception or ''}"

    def tag(self, **tags):
        codecommit = self.cloud.client("codecommit")
        arn = codecommit.get_repository(repositoryName="parcels")["repositoryMetadata"]["Arn"]
        named = {f"codecommit-mirror:{key.replace('_', '-')}": value for key, value in tags.items()}
        codecommit.tag_resource(resourceArn=arn, tags=named)


@pytest.fixture(scope="module")
def source(cloud):
    sample.fill(cloud.create_azure_repository("contoso", "Shop", "parcels"))


@pytest.fixture
def theirs(cloud, source, tmp_path, monkeypatch):
    return Theirs(cloud, tmp_path, monkeypatch)


def test_who_may_connect_it_brings_it_up_and_down_and_deploys_nothing(theirs):
    assert "deploy the app that has its Replica first" in theirs.run("up", "parcels", "--yes", succeeds=False)
    theirs.deploy()
    stacks = theirs.cloud.client("cloudformation").describe_stacks()["Stacks"]
    assert "stack" not in [line.split()[2] for line in theirs.run("plan", "parcels").splitlines() if " plan: " in line]
    assert "parcels is up: 16 refs are equal on both sides." in theirs.run("up", "parcels", "--yes")
    assert "parcels is up: nothing to do, " in theirs.run("up", "parcels", "--yes")
    # What mirrors.yaml says of itself is no proof that it was so.
    assert "named for the first time" in theirs.run("plan", "--all")
    status = json.loads(theirs.run("status", "--json"))["mirrors"][0]
    stack = next(check for check in status["checks"] if check["name"] == "stack")
    assert (stack["verdict"], stack["message"]) == ("ok", "another CDK app has it")
    theirs.run("rotate", "parcels", "--yes")
    theirs.run("verify", "parcels")
    restored = theirs.run("restore", "parcels", "--from", "replica", "--to", "copy", "--yes")
    assert "Restored the replica parcels" in restored
    assert "its Git credentials go" in theirs.run("down", "parcels", "--dry-run")
    theirs.run("down", "parcels", "--yes")
    listed = theirs.cloud.client("iam").list_service_specific_credentials(UserName="pushes-parcels")
    assert listed["ServiceSpecificCredentials"] == []
    assert len(theirs.cloud.client("cloudformation").describe_stacks()["Stacks"]) == len(stacks)
    # It can be connected again, and its own app takes it away.
    assert "parcels is up: 16 refs" in theirs.run("up", "parcels", "--yes")
    theirs.run("down", "parcels", "--yes")
    theirs.delete()


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"writer": "user/somebody-else"}, "whose tag codecommit-mirror:replica does not name arn:aws:codecommit:"),
        ({"writer": "user/somebody-else"}, "whom the tags of parcels name, also has the policy AWSCodeCommitPowerUser"),
        (
            {"writer": "user/somebody-else"},
            "whom the tags of parcels name, also has the group somebody-else; who pushes",
        ),
        ({"writer": "user/nobody"}, "name the user 'nobody', which does not exist; deploy the app that has both"),
        ({"writer": "role/pushes"}, "mirrors.yaml says replica_auth: user, but to parcels pushes role/pushes"),
        ({"archive_days": "7"}, "keeps its archive for 7 days, but mirrors.yaml says archive_days: 90"),
    ],
)
def test_nobody_elses_credentials_are_issued(theirs, tags, says):
    users = theirs.cloud.client("iam")
    users.create_user(UserName="somebody-else", Tags=[{"Key": "codecommit-mirror:replica", "Value": "parcels"}])
    if says.startswith("whom"):
        arn = f"arn:aws:codecommit:{theirs.cloud.region}:{theirs.cloud.account}:parcels"
        users.tag_user(UserName="somebody-else", Tags=[{"Key": "codecommit-mirror:replica", "Value": arn}])
        policy = "arn:aws:iam::aws:policy/AWSCodeCommitPowerUser"
        if "the group" in says:
            users.create_group(GroupName="somebody-else")
            users.attach_group_policy(GroupName="somebody-else", PolicyArn=policy)
            users.add_user_to_group(GroupName="somebody-else", UserName="somebody-else")
        else:
            users.attach_user_policy(UserName="somebody-else", PolicyArn=policy)
    theirs.deploy()
    theirs.tag(**tags)
    try:
        for name, value in theirs.cloud.environment().items():
            theirs._monkeypatch.setenv(name, value)
        assert says in theirs.run("up", "parcels", "--yes", succeeds=False)
        listed = users.list_service_specific_credentials(UserName="somebody-else")["ServiceSpecificCredentials"]
        assert listed == []
    finally:
        theirs.delete()
        for attached in users.list_attached_user_policies(UserName="somebody-else")["AttachedPolicies"]:
            users.detach_user_policy(UserName="somebody-else", PolicyArn=attached["PolicyArn"])
        for group in users.list_groups_for_user(UserName="somebody-else")["Groups"]:
            users.remove_user_from_group(GroupName=group["GroupName"], UserName="somebody-else")
            users.detach_group_policy(GroupName=group["GroupName"], PolicyArn=policy)
            users.delete_group(GroupName=group["GroupName"])
        users.delete_user(UserName="somebody-else")
