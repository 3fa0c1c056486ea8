"""Mirrors for journeys: with the real CDK CLI, without it, and one that is up already."""

import contextlib
import json
import tempfile
from hashlib import sha256
from pathlib import Path

import aws_cdk as aws
import pytest
from aws_cdk.assertions import Template
from botocore.exceptions import ClientError, WaiterError

from codecommit_mirror.aws import cdk
from codecommit_mirror.config.ci import REPLICA, TEMPLATE
from codecommit_mirror.config.identity import parse_auth_migration
from codecommit_mirror.operations.plan import CONNECT, CREDENTIAL
from codecommit_mirror.stacks import ReplicaStack
from localcloud import sample
from localcloud.azure.service_connections import AUDIENCE, issuer

from ..conftest import bring_up
from .journeys import Effects, Journey


@pytest.fixture
def trip(bootstrapped, tmp_path, monkeypatch, capfd):
    return Journey(bootstrapped, tmp_path, monkeypatch, capfd)


class WithoutCli:
    """boto3 gives templates to CloudFormation in place of the CDK CLI, which takes seconds."""

    def __init__(self, cloud, template) -> None:
        self.cloud, self.template = cloud, template
        """The template of a mirror, which may be changing how it signs in."""
        self.cloudformation = cloud.client("cloudformation")

    def install(self, monkeypatch) -> None:
        for function in ("synthesize", "deploy", "deploy_all", "destroy_all"):
            monkeypatch.setattr(cdk, function, getattr(self, function))

    def synthesize(self, folder, context, output):
        options = dict(one.split("=", 1) for one in context if "=" in one)
        name = options["mirror"]
        template = self.template(name, parse_auth_migration(options.get("auth_migration")).get(name))
        tags = {REPLICA: name, TEMPLATE: sha256(template.encode()).hexdigest()}
        output.mkdir(parents=True)
        (output / "template.json").write_text(template)
        properties = {"templateFile": "template.json", "tags": tags}
        stack = {
            "type": "aws:cloudformation:stack",
            "environment": f"aws://{self.cloud.account}/{self.cloud.region}",
            "properties": properties,
        }
        (output / "manifest.json").write_text(json.dumps({"artifacts": {name: stack}}))

    def deploy_all(self, folder, mirrors, assembly, report, *, concurrency, sign_in):
        for name in mirrors:
            self._deploy(name, assembly)
        return {}

    def deploy(self, folder, mirror, context, sign_in):
        with tempfile.TemporaryDirectory() as output:
            self.synthesize(folder, context, Path(output, "out"))
            self._deploy(mirror, Path(output, "out"))

    def _deploy(self, name, assembly):
        tags = json.loads((assembly / "manifest.json").read_text())["artifacts"][name]["properties"]["tags"]
        what = {
            "StackName": name,
            "TemplateBody": (assembly / "template.json").read_text(),
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }
        exists = self._exists(name)
        getattr(self.cloudformation, "update_stack" if exists else "create_stack")(**what)
        waiter = self.cloudformation.get_waiter("stack_update_complete" if exists else "stack_create_complete")
        waiter.wait(StackName=name, WaiterConfig={"Delay": 0.2})

    def _exists(self, name):
        try:
            return bool(self.cloudformation.describe_stacks(StackName=name)["Stacks"])
        except ClientError:
            return False

    def destroy_all(self, folder, mirrors, assembly, report, *, concurrency, sign_in):
        failures = {}
        for name in mirrors:
            self.cloudformation.delete_stack(StackName=name)
            waiter = self.cloudformation.get_waiter("stack_delete_complete")
            try:
                waiter.wait(StackName=name, WaiterConfig={"Delay": 0.2})
            except WaiterError as error:
                failures[name] = str(error)
        return failures


@pytest.fixture
def swift(bootstrapped, tmp_path, monkeypatch, capfd, stack_template):
    """The same, without the CDK CLI."""
    WithoutCli(bootstrapped, lambda name, earlier: stack_template.replace("NAME", name)).install(monkeypatch)
    return Journey(bootstrapped, tmp_path, monkeypatch, capfd)


@pytest.fixture
def templated(bootstrapped, tmp_path, monkeypatch, capfd):
    """A journey whose stacks are the real ones, but are given to CloudFormation without the CDK CLI."""

    def template(name, earlier):
        document = Template.from_stack(ReplicaStack(aws.App(), mirror=journey.mirror, earlier=earlier)).to_json()
        document.pop("Parameters", None), document.pop("Rules", None)
        return json.dumps(document)

    WithoutCli(bootstrapped, template).install(monkeypatch)
    journey = Journey(bootstrapped, tmp_path, monkeypatch, capfd)
    iam = bootstrapped.client("iam")
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_open_id_connect_provider(Url=issuer("contoso"), ClientIDList=[AUDIENCE])
    return journey


@pytest.fixture
def quick(rig, tmp_path, monkeypatch, capfd):
    """A mirror whose pipeline is connected and has never run, its stack deployed without the CDK CLI."""
    sample.fill(rig.source)
    iam = rig.cloud.client("iam")
    iam.delete_service_specific_credential(
        UserName=rig.user, ServiceSpecificCredentialId=rig.credential["ServiceSpecificCredentialId"]
    )
    made = Journey.__new__(Journey)
    made.cloud, made.name, made.capfd, made.source, made.said = rig.cloud, rig.name, capfd, rig.source, ""
    made.mirror, made.replica, made.config = rig.mirror, rig.replica, tmp_path / "none"
    WithoutCli(rig.cloud, lambda name, earlier: rig.template).install(monkeypatch)
    made.effects = Effects(monkeypatch)
    bring_up(made.context(), stages=(CONNECT, CREDENTIAL))
    return made
