"""Mirrors for journeys: with the real CDK CLI, without it, and one that is up already."""

import pytest

from codecommit_mirror.aws import cdk
from codecommit_mirror.lifecycle.connect import connect, ensure_pipeline_credential
from localcloud import sample

from ..conftest import create_stack
from .journeys import Effects, Journey


@pytest.fixture
def trip(bootstrapped, tmp_path, monkeypatch, capfd):
    return Journey(bootstrapped, tmp_path, monkeypatch, capfd)


@pytest.fixture
def swift(bootstrapped, tmp_path, monkeypatch, capfd, stack_template):
    """The same, where boto3 gives the real template to CloudFormation in place of the CDK CLI, which takes seconds."""
    cloudformation = bootstrapped.client("cloudformation")

    def without_cli(folder, arguments, assembly=None, report=None):
        command, name = arguments[:2]
        if command == "destroy":
            cloudformation.delete_stack(StackName=name)
            cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 0.2})
        elif not any(
            stack["StackName"] == name
            for stack in cloudformation.list_stacks(StackStatusFilter=["CREATE_COMPLETE"])["StackSummaries"]
        ):
            create_stack(bootstrapped, name, stack_template.replace("NAME", name))

    monkeypatch.setattr(cdk, "run", without_cli)
    return Journey(bootstrapped, tmp_path, monkeypatch, capfd)


@pytest.fixture
def quick(rig, tmp_path, monkeypatch, capfd):
    """A mirror that is up, its stack deployed without the CDK CLI."""
    sample.fill(rig.source)
    iam = rig.cloud.client("iam")
    iam.delete_service_specific_credential(
        UserName=rig.user, ServiceSpecificCredentialId=rig.credential["ServiceSpecificCredentialId"]
    )
    made = Journey.__new__(Journey)
    made.cloud, made.name, made.capfd, made.source, made.said = rig.cloud, rig.name, capfd, rig.source, ""
    made.mirror, made.replica, made.config = rig.mirror, rig.replica, tmp_path / "none"
    made.effects = Effects(monkeypatch)
    connect(made.context(), rig.outputs["ReplicaUrl"], lambda line: None)
    ensure_pipeline_credential(made.context(), lambda line: None)
    return made
