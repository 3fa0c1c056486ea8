"""The pipeline's user, recreated when it is gone, and only then."""

import json
from dataclasses import replace

import boto3
import pytest
from botocore.stub import Stubber

from codecommit_mirror.aws import writer
from codecommit_mirror.aws.stack import ReplicaOutputs
from codecommit_mirror.aws.writer import PipelineRecord
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.errors import MirrorError

MIRROR = single_mirror("MyRepoReplica", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
USER, POLICY = MIRROR.user_name, "arn:aws:iam::111122223333:policy/CodeCommitMyRepoReplicaGitPush"
OUTPUTS = ReplicaOutputs("https://host/v1/repos/r", "arn:aws:codecommit:eu-west-1:111122223333:r", USER, POLICY)
FOUND = {
    "User": {"UserName": USER, "Path": "/", "UserId": "A" * 16, "Arn": f"arn:aws:iam::1:user/{USER}", "CreateDate": 0}
}


@pytest.fixture
def stub():
    iam = boto3.client("iam", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(iam) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def add_policy(stub, **statement):
    """Answer with the replica's policy, or with another one."""
    pushing = {"Effect": "Allow", "Action": "codecommit:GitPush", "Resource": OUTPUTS.replica_arn}
    document = json.dumps({"Version": "2012-10-17", "Statement": {**pushing, **statement}})
    stub.add_response("get_policy", {"Policy": {"DefaultVersionId": "v2"}}, {"PolicyArn": POLICY})
    version = {"PolicyVersion": {"Document": document}}
    stub.add_response("get_policy_version", version, {"PolicyArn": POLICY, "VersionId": "v2"})


def test_a_user_that_is_there_is_left_alone(stub):
    stub.add_response("get_user", FOUND, {"UserName": USER})
    assert not writer.restore(stub.client, MIRROR, OUTPUTS, None)


@pytest.mark.parametrize("policy_on", ["user", "group"])
def test_a_user_that_is_gone_gets_its_tags_and_its_policy_again(stub, policy_on):
    mirror = MIRROR.model_copy(update={"tags": {"team": "platform"}, "policy_on": policy_on})
    stub.add_client_error("get_user", "NoSuchEntity")
    tags = [
        {"Key": "team", "Value": "platform"},
        {"Key": "managed-by", "Value": "codecommit-mirror"},
        {"Key": "codecommit-mirror:replica", "Value": "arn:aws:codecommit:eu-west-1:111122223333:r"},
    ]
    add_policy(stub)
    if policy_on == "group":
        attached = {"AttachedPolicies": [{"PolicyName": "push", "PolicyArn": POLICY}]}
        stub.add_response("list_attached_group_policies", attached, {"GroupName": USER})
        stub.add_response("list_group_policies", {"PolicyNames": []}, {"GroupName": USER})
        add_policy(stub)
    stub.add_response("create_user", FOUND, {"UserName": USER, "Tags": tags})
    if policy_on == "group":
        stub.add_response("add_user_to_group", {}, {"UserName": USER, "GroupName": USER})
    else:
        stub.add_response("attach_user_policy", {}, {"UserName": USER, "PolicyArn": POLICY})
    assert writer.restore(stub.client, mirror, OUTPUTS, None)


def test_whoever_may_not_look_goes_on(stub):
    stub.add_client_error("get_user", "AccessDenied")
    assert not writer.restore(stub.client, MIRROR, OUTPUTS, None)


def test_whoever_may_not_create_it_is_told(stub):
    stub.add_client_error("get_user", "NoSuchEntity")
    add_policy(stub)
    stub.add_client_error("create_user", "AccessDenied")
    with pytest.raises(MirrorError, match=r"cannot recreate the user .*: AWS denies"):
        writer.restore(stub.client, MIRROR, OUTPUTS, None)


@pytest.mark.parametrize("statement", [{"Action": "*"}, {"Resource": "*"}])
def test_no_user_gets_a_policy_that_does_more(stub, statement):
    """Whoever may change a stack's outputs names it, and the person who runs 'up' would attach it."""
    stub.add_client_error("get_user", "NoSuchEntity")
    add_policy(stub, **statement)
    with pytest.raises(MirrorError, match=r"more than let a pipeline push to the replica, so no user gets it"):
        writer.restore(stub.client, MIRROR, OUTPUTS, None)


def test_no_user_joins_a_group_that_may_do_more(stub):
    mirror = MIRROR.model_copy(update={"policy_on": "group"})
    stub.add_client_error("get_user", "NoSuchEntity")
    add_policy(stub)
    attached = {"AttachedPolicies": [{"PolicyName": "push", "PolicyArn": POLICY}]}
    stub.add_response("list_attached_group_policies", attached, {"GroupName": USER})
    stub.add_response("list_group_policies", {"PolicyNames": ["everything"]}, {"GroupName": USER})
    add_policy(stub)
    with pytest.raises(MirrorError, match=r"the group 'azure-devops-pipeline-MyRepoReplica', which the stack"):
        writer.restore(stub.client, mirror, OUTPUTS, None)


RECORD = PipelineRecord("project", 7, "source")
OTHER = "arn:aws:codecommit:eu-west-1:111122223333:other"


def test_a_record_is_of_the_replica_that_it_names(stub):
    """Whoever may deploy can let a stack name another mirror's user."""
    stub.add_response("list_user_tags", {"Tags": RECORD.tags(OTHER)}, {"UserName": USER})
    with pytest.raises(MirrorError, match=rf"is recorded as that of {OTHER}: look for who changed the stack's outputs"):
        writer.read_record(stub.client, OUTPUTS)


def test_the_record_of_a_user_goes_before_that_of_a_role(stub):
    """CI may tag roles: it names no other pipeline for a mirror with stored secrets."""
    outputs = replace(OUTPUTS, push_role_arn="arn:aws:iam::111122223333:role/theirs")
    stub.add_response("list_user_tags", {"Tags": RECORD.tags(OUTPUTS.replica_arn)}, {"UserName": USER})
    found = writer.read_record(stub.client, outputs)
    assert (found, found.is_of_role) == (RECORD, False)


def test_the_record_of_a_role_is_known_as_one(stub):
    outputs = replace(OUTPUTS, push_role_arn="arn:aws:iam::111122223333:role/theirs")
    stub.add_response("list_user_tags", {"Tags": []}, {"UserName": USER})
    stub.add_response("list_role_tags", {"Tags": RECORD.tags(OUTPUTS.replica_arn)}, {"RoleName": "theirs"})
    found = writer.read_record(stub.client, outputs)
    assert (found, found.is_of_role) == (RECORD, True)


@pytest.mark.parametrize("record", [RECORD, PipelineRecord("project", None, "source", "mark")])
def test_a_record_is_read_as_it_was_written(record):
    assert writer.parse_record(record.tags(OTHER)) == (record, OTHER)


@pytest.mark.parametrize("tags", [{}, {"pipeline": "p/7", "source": "s"}, {"pipeline": "p/x", "source": f"s/{OTHER}"}])
def test_tags_of_another_form_are_no_record(tags):
    named = [{"Key": f"codecommit-mirror:{key}", "Value": value} for key, value in tags.items()]
    assert writer.parse_record(named) is None
