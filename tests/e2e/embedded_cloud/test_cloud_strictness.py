"""The embedded cloud refuses what the services refuse, and nobody else reaches it."""

import json
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud

POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]}
)


def listening_addresses(pid):
    """Return the local addresses of a process' listening sockets, and of its children's (Linux)."""
    sockets = set()
    processes = [pid, *(int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    for process in processes:
        for link in Path(f"/proc/{process}/fd").iterdir():
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


def test_every_socket_is_on_loopback():
    with LocalCloud() as cloud:
        cloud.client("iam").list_users()
        assert listening_addresses(cloud.pid) == {"0100007F"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/_ministack/reset"),
        ("POST", "/_ministack/config"),
        ("GET", "/_ministack/health"),
        ("POST", "/_localstack/state/reset"),
    ],
)
def test_ministacks_own_administration_is_shut(cloud, method, path):
    """A reset took no signature, and wiped the account."""
    users = cloud.client("iam").list_users()["Users"]
    request = urllib.request.Request(f"{cloud.aws_url}{path}", b"{}" if method == "POST" else None, method=method)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(request)
    assert cloud.client("iam").list_users()["Users"] == users


# -------------------------------------------------------------------------------------------------------------- IAM


def test_a_user_name_is_one_name_whatever_its_case(cloud):
    iam, name = cloud.client("iam"), f"User-{uuid.uuid4().hex}"
    iam.create_user(UserName=name)
    with pytest.raises(ClientError, match="EntityAlreadyExists"):
        iam.create_user(UserName=name.upper())
    iam.delete_user(UserName=name)


@pytest.mark.parametrize("kind", ["managed", "inline"])
def test_a_foreign_policy_on_the_user_stops_the_stacks_deletion(rig, kind):
    iam = rig.cloud.client("iam")
    iam.delete_service_specific_credential(
        UserName=rig.user, ServiceSpecificCredentialId=rig.credential["ServiceSpecificCredentialId"]
    )
    if kind == "managed":
        arn = iam.create_policy(PolicyName=f"foreign-{rig.name}", PolicyDocument=POLICY)["Policy"]["Arn"]
        iam.attach_user_policy(UserName=rig.user, PolicyArn=arn)
    else:
        iam.put_user_policy(UserName=rig.user, PolicyName="foreign", PolicyDocument=POLICY)
    assert deletion_of(rig) == "DELETE_FAILED"
    assert iam.get_user(UserName=rig.user)
    if kind == "managed":
        iam.detach_user_policy(UserName=rig.user, PolicyArn=arn)
    else:
        iam.delete_user_policy(UserName=rig.user, PolicyName="foreign")
    assert deletion_of(rig) is None


def test_a_policy_that_is_attached_elsewhere_stops_the_stacks_deletion(rig):
    iam, other = rig.cloud.client("iam"), f"other-{rig.name}"
    iam.create_user(UserName=other)
    iam.attach_user_policy(UserName=other, PolicyArn=rig.outputs["PushPolicyArn"])
    assert deletion_of(rig) == "DELETE_FAILED"
    assert iam.get_policy(PolicyArn=rig.outputs["PushPolicyArn"])
    iam.detach_user_policy(UserName=other, PolicyArn=rig.outputs["PushPolicyArn"])
    assert deletion_of(rig) is None
    iam.delete_user(UserName=other)


def deletion_of(rig):
    """Delete the rig's stack; return its status in the end, None when it is gone."""
    cloudformation = rig.cloud.client("cloudformation")
    cloudformation.delete_stack(StackName=rig.name)
    while True:
        try:
            (stack,) = cloudformation.describe_stacks(StackName=rig.name)["Stacks"]
        except ClientError:
            return None
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            return stack["StackStatus"] if stack["StackStatus"] != "DELETE_COMPLETE" else None


# ------------------------------------------------------------------------------------------- CloudFormation, CodeCommit


def test_a_repository_cannot_be_imported_into_a_stack(cloud):
    codecommit, name = cloud.client("codecommit"), f"kept-{uuid.uuid4().hex[:8]}"
    data = codecommit.create_repository(repositoryName=name)["repositoryMetadata"]
    resource = {
        "Type": "AWS::CodeCommit::Repository",
        "DeletionPolicy": "Retain",
        "Properties": {"RepositoryName": name},
    }
    with pytest.raises(ClientError, match="not supported for resource import: AWS::CodeCommit::Repository"):
        cloud.client("cloudformation").create_change_set(
            StackName=name,
            ChangeSetName="adopt",
            ChangeSetType="IMPORT",
            TemplateBody=json.dumps({"Resources": {"Repository": resource}}),
            ResourcesToImport=[
                {
                    "ResourceType": "AWS::CodeCommit::Repository",
                    "LogicalResourceId": "Repository",
                    "ResourceIdentifier": {"RepositoryId": data["repositoryId"]},
                }
            ],
        )
    codecommit.delete_repository(repositoryName=name)


def test_deleting_a_repository_that_is_gone_is_no_error(cloud):
    codecommit, name = cloud.client("codecommit"), f"gone-{uuid.uuid4().hex[:8]}"
    made = codecommit.create_repository(repositoryName=name)["repositoryMetadata"]
    assert codecommit.delete_repository(repositoryName=name)["repositoryId"] == made["repositoryId"]
    assert "repositoryId" not in codecommit.delete_repository(repositoryName=name)
    assert "repositoryId" not in codecommit.delete_repository(repositoryName="never-there")
