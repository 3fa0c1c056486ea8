"""People and roles with exactly the rights that a test gives them, and buckets of their own."""

import contextlib
import json
import uuid

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

NO_RETRIES = Config(retries={"total_max_attempts": 1})


def allow(*actions, on="*", **condition):
    return {
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": on,
        **({"Condition": condition} if condition else {}),
    }


def deny(*actions, on="*", principal=None, **condition):
    statement = {"Effect": "Deny", "Action": list(actions), "Resource": on}
    return {
        **statement,
        **({"Principal": principal} if principal else {}),
        **({"Condition": condition} if condition else {}),
    }


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(service):
    return document({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})


@contextlib.contextmanager
def refuses(code, words=""):
    """Expect AWS to refuse with a code, and in a message with these words."""
    with pytest.raises(ClientError) as error:
        yield
    answered = error.value.response["Error"]
    assert answered["Code"] == code, error.value
    assert words in answered.get("Message", ""), error.value


class Person:
    """A user with an access key."""

    def __init__(self, cloud, statements, boundary=None):
        self.cloud, self.name = cloud, f"person-{uuid.uuid4().hex[:8]}"
        iam = cloud.client("iam")
        extra = {"PermissionsBoundary": boundary} if boundary else {}
        self.arn = iam.create_user(UserName=self.name, **extra)["User"]["Arn"]
        self.may(*statements)
        key = iam.create_access_key(UserName=self.name)["AccessKey"]
        self.session = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=cloud.region)

    def may(self, *statements):
        """Replace what the person may do."""
        iam = self.cloud.client("iam")
        if statements:
            iam.put_user_policy(UserName=self.name, PolicyName="test", PolicyDocument=document(*statements))
        else:
            iam.delete_user_policy(UserName=self.name, PolicyName="test")

    def client(self, service, region=None):
        return self.session.client(service, region_name=region, endpoint_url=self.cloud.aws_url, config=NO_RETRIES)


@pytest.fixture(scope="module")
def person(cloud):
    """Make a user who may do what the statements say."""
    return lambda *statements, boundary=None: Person(cloud, statements, boundary)


@pytest.fixture(scope="module")
def role(cloud):
    """Make a role that trusts a service, and return its ARN."""

    def make(service, *statements, boundary=None):
        iam, name = cloud.client("iam"), f"role-{uuid.uuid4().hex[:8]}"
        extra = {"PermissionsBoundary": boundary} if boundary else {}
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(service), **extra)["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="test", PolicyDocument=document(*statements))
        return arn

    return make


@pytest.fixture
def bucket(cloud):
    """A bucket with Object Lock."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    cloud.client("s3").create_bucket(
        Bucket=name,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": cloud.region},
    )
    return name
