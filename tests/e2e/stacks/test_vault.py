"""The vault outlives its stack, and a first deployment that fails leaves nothing behind that stops the next one."""

import json

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.config.guard import Guard
from codecommit_mirror.stacks import VaultStack
from localcloud import LocalCloud

from ..embedded_cloud.aws.stacks import Stack

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cloud():
    with LocalCloud() as running:
        yield running


@pytest.fixture
def template():
    stack = VaultStack(cdk.App(), guard=Guard(email="ops@example.com", deployed_by="arn:aws:iam::111122223333:role/d"))
    document = Template.from_stack(stack).to_json()
    del document["Parameters"], document["Rules"]
    return document


def there(cloud):
    """Return the names of buckets and roles, and how many keys are in use."""
    buckets = [bucket["Name"] for bucket in cloud.client("s3").list_buckets()["Buckets"]]
    roles = [role["RoleName"] for role in cloud.client("iam").list_roles()["Roles"]]
    kms = cloud.client("kms")
    states = [kms.describe_key(KeyId=k["KeyId"])["KeyMetadata"]["KeyState"] for k in kms.list_keys()["Keys"]]
    return sorted(buckets), sorted(roles), states.count("Enabled")


def test_it_outlives_its_stack_and_a_failed_creation_leaves_nothing(cloud, template):
    cloud.client("iam").create_user(UserName="taken")
    before, stack = there(cloud), Stack(cloud.client("cloudformation"))
    broken = json.loads(json.dumps(template))
    broken["Resources"]["Broken"] = {
        "Type": "AWS::IAM::User",
        "DependsOn": [name for name, r in template["Resources"].items() if r["Type"] != "AWS::S3::BucketPolicy"],
        "Properties": {"UserName": "taken"},
    }
    assert stack.create(json.dumps(broken)) == "ROLLBACK_COMPLETE"
    assert there(cloud) == before
    stack.delete()
    stack = Stack(cloud.client("cloudformation"))
    assert stack.create(json.dumps(template)) == "CREATE_COMPLETE"
    made = there(cloud)
    assert made != before
    stack.delete()
    assert there(cloud) == made
    policy = cloud.client("s3").get_bucket_policy(Bucket=next(name for name in made[0] if name not in before[0]))
    assert "OnlyTheGuardWrites" in policy["Policy"]
