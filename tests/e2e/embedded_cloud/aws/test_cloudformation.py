"""CloudFormation acts as somebody, applies what a template says, and refuses the rest."""

import json
import uuid

import pytest

from .conftest import allow, deny, document, refuses, trust
from .stacks import CAPABILITIES, Stack, resource, template


@pytest.fixture
def stack(cloud):
    """A stack of the administrator's."""
    return Stack(cloud.client("cloudformation"))


def bucket_name():
    return f"bucket-{uuid.uuid4().hex[:12]}"


# ------------------------------------------------------------------------------------------------------- acts as whom


def test_a_role_that_may_not_fails_the_resource_in_awss_words(cloud, role, stack):
    name = bucket_name()
    poor = role("cloudformation.amazonaws.com", allow("sns:ListTopics"))
    body = template(Bucket=resource("AWS::S3::Bucket", BucketName=name))
    assert stack.create(body, RoleARN=poor) == "ROLLBACK_COMPLETE"
    who = f"arn:aws:sts::{cloud.account}:assumed-role/{poor.rpartition('/')[2]}/AWSCloudFormation"
    (reason,) = [reason for reason in stack.reasons() if "s3:CreateBucket" in reason]
    assert f"User: {who} is not authorized to perform: s3:CreateBucket on resource: arn:aws:s3:::{name}" in reason
    assert "HandlerErrorCode: AccessDenied" in reason
    with refuses("404"):
        cloud.client("s3").head_bucket(Bucket=name)


def test_each_call_that_a_property_causes_is_asked_for(cloud, role, stack):
    name = bucket_name()
    properties = {"BucketName": name, "VersioningConfiguration": {"Status": "Enabled"}}
    body = template(Bucket=resource("AWS::S3::Bucket", **properties))
    arn = role("cloudformation.amazonaws.com", allow("s3:CreateBucket", "s3:PutBucketTagging", "s3:DeleteBucket"))
    assert stack.create(body, RoleARN=arn) == "ROLLBACK_COMPLETE"
    assert any("s3:PutBucketVersioning" in reason for reason in stack.reasons())
    cloud.client("iam").put_role_policy(
        RoleName=arn.rpartition("/")[2],
        PolicyName="test",
        PolicyDocument=document(
            allow("s3:CreateBucket", "s3:PutBucketTagging", "s3:DeleteBucket", "s3:PutBucketVersioning")
        ),
    )
    another = Stack(stack.client)
    assert another.create(body, RoleARN=arn) == "CREATE_COMPLETE"
    assert another.delete() == "DELETE_COMPLETE"


def test_a_caller_without_a_role_needs_the_rights_themselves(cloud, person):
    someone = person(allow("cloudformation:*"))
    mine = Stack(someone.client("cloudformation"))
    body = template(Group=resource("AWS::IAM::Group", GroupName=f"group-{uuid.uuid4().hex[:8]}"))
    assert mine.create(body) == "ROLLBACK_COMPLETE"
    assert any(f"User: {someone.arn} is not authorized to perform: iam:CreateGroup" in r for r in mine.reasons())
    someone.may(allow("cloudformation:*", "iam:CreateGroup", "iam:GetGroup"))
    again = Stack(mine.client)
    assert again.create(body) == "CREATE_COMPLETE"
    # A right that is missing at the end stops the deletion, and nothing is lost of the stack.
    assert again.delete() == "DELETE_FAILED"
    someone.may(allow("cloudformation:*", "iam:GetGroup", "iam:DeleteGroup"))
    assert again.delete() == "DELETE_COMPLETE"


def test_passing_a_role_is_a_right_of_its_own_and_later_operations_reuse_it(cloud, person, role):
    arn = role("cloudformation.amazonaws.com", allow("codecommit:*"))
    someone = person(allow("cloudformation:*"))
    mine = Stack(someone.client("cloudformation"))
    body = template(Replica=resource("AWS::CodeCommit::Repository", RepositoryName=f"r-{uuid.uuid4().hex[:8]}"))
    with refuses("AccessDenied", f"iam:PassRole on resource: {arn}"):
        mine.create(body, RoleARN=arn)
    someone.may(allow("cloudformation:*"), allow("iam:PassRole", on=arn))
    assert mine.create(body, RoleARN=arn) == "CREATE_COMPLETE"
    someone.may(allow("cloudformation:*"))
    assert mine.delete() == "DELETE_COMPLETE"


def test_a_role_that_does_not_trust_cloudformation_is_refused(role, stack):
    arn = role("lambda.amazonaws.com", allow("*"))
    with refuses("ValidationError", "is invalid or cannot be assumed"):
        stack.create(template(Group=resource("AWS::IAM::Group")), RoleARN=arn)


def test_a_change_set_is_executed_with_the_role_that_it_was_made_with(cloud, role):
    cloudformation, name = cloud.client("cloudformation"), f"stack-{uuid.uuid4().hex[:8]}"
    poor = role("cloudformation.amazonaws.com", allow("sns:ListTopics"))
    cloudformation.create_change_set(
        StackName=name,
        ChangeSetName="first",
        ChangeSetType="CREATE",
        TemplateBody=template(Group=resource("AWS::IAM::Group")),
        Capabilities=CAPABILITIES,
        RoleARN=poor,
    )
    cloudformation.execute_change_set(StackName=name, ChangeSetName="first")
    made = Stack(cloudformation, name)
    assert made.settled() == "ROLLBACK_COMPLETE"
    assert any("iam:CreateGroup" in reason for reason in made.reasons())


def test_a_custom_resource_needs_the_right_to_invoke(cloud, role, stack):
    function = f"arn:aws:lambda:{cloud.region}:{cloud.account}:function:anything"
    poor = role("cloudformation.amazonaws.com", allow("s3:*"))
    body = template(Custom={"Type": "Custom::Thing", "Properties": {"ServiceToken": function}})
    assert stack.create(body, RoleARN=poor) == "ROLLBACK_COMPLETE"
    assert any(f"lambda:InvokeFunction on resource: {function}" in reason for reason in stack.reasons())


def test_a_buckets_own_policy_binds_cloudformation(cloud, stack):
    """The role that deploys must be left out of a Deny, or the policy can never be changed again."""
    name = bucket_name()
    arn = f"arn:aws:s3:::{name}"

    def body(*statements):
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        return template(
            Bucket=resource("AWS::S3::Bucket", policy="Retain", BucketName=name),
            Policy={
                **resource("AWS::S3::BucketPolicy", Bucket=name, PolicyDocument=policy),
                "DependsOn": "Bucket",
            },
        )

    everybody = deny("s3:PutBucketPolicy", "s3:DeleteBucketPolicy", on=arn, principal="*")
    assert stack.create(body(everybody)) == "CREATE_COMPLETE"
    assert stack.update(body(everybody, deny("s3:DeleteBucket", on=arn, principal="*"))) == "UPDATE_ROLLBACK_COMPLETE"
    assert any("explicit deny in a resource-based policy" in reason for reason in stack.reasons())
    assert stack.delete() == "DELETE_FAILED"


def test_a_second_policy_of_a_bucket_fails(cloud, bucket, stack):
    policy = {"Version": "2012-10-17", "Statement": [deny("s3:DeleteBucket", principal="*")]}
    policy["Statement"][0]["Resource"] = f"arn:aws:s3:::{bucket}"
    cloud.client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    body = template(Policy=resource("AWS::S3::BucketPolicy", Bucket=bucket, PolicyDocument=policy))
    assert stack.create(body) == "ROLLBACK_COMPLETE"
    assert any(f"The bucket policy already exists on bucket {bucket}." in reason for reason in stack.reasons())


# ------------------------------------------------------------------------------------------------ applies, or refuses


@pytest.mark.parametrize(
    ("kind", "properties", "named"),
    [
        ("AWS::S3::Bucket", {"Lifecycle": {}}, "Lifecycle"),
        ("AWS::S3::Bucket", {"LoggingConfiguration": {}}, "LoggingConfiguration"),
        (
            "AWS::IAM::Role",
            {"AssumeRolePolicyDocument": json.loads(trust("s3.amazonaws.com")), "Colour": "red"},
            "Colour",
        ),
        ("AWS::Lambda::Function", {"DeadLetterConfig": {}}, "DeadLetterConfig"),
        ("AWS::SQS::Queue", {}, "AWS::SQS::Queue"),
    ],
)
def test_a_property_that_is_unknown_or_would_be_dropped_is_an_error_that_names_it(stack, kind, properties, named):
    assert stack.create(template(Thing=resource(kind, **properties))) == "ROLLBACK_COMPLETE"
    assert any(named in reason for reason in stack.reasons())


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("AWS::IAM::Role", {"AssumeRolePolicyDocument": "POLICY"}),
        ("AWS::KMS::Key", {"KeyPolicy": "POLICY"}),
        ("AWS::S3::BucketPolicy", {"Bucket": "any", "PolicyDocument": "POLICY"}),
        ("AWS::SNS::TopicPolicy", {"Topics": ["any"], "PolicyDocument": "POLICY"}),
    ],
)
def test_a_principal_that_does_not_exist_fails_the_first_deployment(cloud, stack, kind, properties):
    nobody = f"arn:aws:iam::{cloud.account}:role/nobody"
    statement = {"Effect": "Allow", "Principal": {"AWS": nobody}, "Action": "sts:AssumeRole", "Resource": "*"}
    policy = json.loads(document(statement))
    filled = {key: policy if value == "POLICY" else value for key, value in properties.items()}
    assert stack.create(template(Thing=resource(kind, **filled))) == "ROLLBACK_COMPLETE"
    assert any("rincipal" in reason for reason in stack.reasons())


def test_a_bucket_has_everything_that_its_template_says(cloud, role, stack):
    s3, name, copy = cloud.client("s3"), bucket_name(), bucket_name()
    where = {"LocationConstraint": cloud.region}
    s3.create_bucket(Bucket=copy, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=where)
    copying = role("s3.amazonaws.com", allow("s3:*"))
    rules = [
        {"Id": "uploads", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
        {
            "Id": "expired",
            "Status": "Enabled",
            "Prefix": "state/",
            "TagFilters": [{"Key": "expired", "Value": "true"}],
            "ExpirationInDays": 1,
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            "Transitions": [{"StorageClass": "GLACIER_IR", "TransitionInDays": 0}],
        },
        {"Id": "markers", "Status": "Enabled", "ExpiredObjectDeleteMarker": True},
    ]
    retention = {"Mode": "GOVERNANCE", "Days": 3}
    properties = {
        "BucketName": name,
        "ObjectLockEnabled": True,
        "ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
        "LifecycleConfiguration": {"Rules": rules},
        "Tags": [{"Key": "team", "Value": "platform"}],
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "ReplicationConfiguration": {
            "Role": copying,
            "Rules": [
                {
                    "Id": "copy",
                    "Status": "Enabled",
                    "Priority": 1,
                    "Filter": {"Prefix": ""},
                    "DeleteMarkerReplication": {"Status": "Disabled"},
                    "Destination": {"Bucket": f"arn:aws:s3:::{copy}"},
                }
            ],
        },
    }
    assert stack.create(template(Bucket=resource("AWS::S3::Bucket", **properties))) == "CREATE_COMPLETE"
    stored = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert [rule["ID"] for rule in stored] == ["uploads", "expired", "markers"]
    assert stored[1]["Expiration"] == {"Days": 1}
    assert stored[1]["Transitions"] == [{"Days": 0, "StorageClass": "GLACIER_IR"}]
    both = stored[1]["Filter"]["And"]
    assert (both["Prefix"], both["Tags"]) == ("state/", [{"Key": "expired", "Value": "true"}])
    lock = s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]
    assert lock["Rule"]["DefaultRetention"] == retention
    replication = s3.get_bucket_replication(Bucket=name)["ReplicationConfiguration"]
    assert (replication["Role"], replication["Rules"][0]["ID"]) == (copying, "copy")
    tags = {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket=name)["TagSet"]}
    assert tags["team"] == "platform"
    assert tags["aws:cloudformation:stack-name"] == stack.name
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    assert s3.get_object_retention(Bucket=name, Key="k")["Retention"]["Mode"] == "GOVERNANCE"


def test_a_role_has_its_boundary_and_a_function_its_reservation(cloud, stack):
    iam = cloud.client("iam")
    limit = iam.create_policy(
        PolicyName=f"limit-{uuid.uuid4().hex[:8]}", PolicyDocument=document(allow("sns:ListTopics"))
    )["Policy"]["Arn"]
    name = f"thing-{uuid.uuid4().hex[:8]}"
    role = resource(
        "AWS::IAM::Role",
        RoleName=name,
        PermissionsBoundary=limit,
        AssumeRolePolicyDocument=json.loads(trust("lambda.amazonaws.com")),
    )
    function = resource(
        "AWS::Lambda::Function",
        FunctionName=name,
        Role={"Fn::GetAtt": ["Role", "Arn"]},
        Runtime="python3.14",
        Handler="index.handler",
        Code={"ZipFile": "def handler(event, context): pass"},
        ReservedConcurrentExecutions=2,
    )
    assert stack.create(template(Role=role, Function=function)) == "CREATE_COMPLETE"
    assert iam.get_role(RoleName=name)["Role"]["PermissionsBoundary"]["PermissionsBoundaryArn"] == limit
    reserved = cloud.client("lambda").get_function_concurrency(FunctionName=name)
    assert reserved["ReservedConcurrentExecutions"] == 2
    assert stack.delete() == "DELETE_COMPLETE"


# --------------------------------------------------------------------------------------------------------------- drift


def drifted(stack):
    """Return the logical ids that have drifted, by what became of them."""
    cloudformation = stack.client
    detection = cloudformation.detect_stack_drift(StackName=stack.name)["StackDriftDetectionId"]
    while (
        cloudformation.describe_stack_drift_detection_status(StackDriftDetectionId=detection)["DetectionStatus"]
        == "DETECTION_IN_PROGRESS"
    ):
        pass
    drifts = cloudformation.describe_stack_resource_drifts(StackName=stack.name)["StackResourceDrifts"]
    return {
        drift["LogicalResourceId"]: drift["StackResourceDriftStatus"]
        for drift in drifts
        if drift["StackResourceDriftStatus"] not in ("IN_SYNC", "NOT_CHECKED")
    }


def test_drift_is_what_differs_and_nothing_else(rig):
    iam, stack = rig.cloud.client("iam"), Stack(rig.cloud.client("cloudformation"), rig.name)
    assert drifted(stack) == {}
    (policy,) = [p["PolicyArn"] for p in iam.list_attached_user_policies(UserName=rig.user)["AttachedPolicies"]]
    wide = document(allow("codecommit:*"))
    iam.create_policy_version(PolicyArn=policy, PolicyDocument=wide, SetAsDefault=True)
    assert list(drifted(stack).values()) == ["MODIFIED"]
    iam.detach_user_policy(UserName=rig.user, PolicyArn=policy)
    assert list(drifted(stack).values()) == ["MODIFIED", "MODIFIED"]
    rig.cloud.client("codecommit").delete_repository(repositoryName=rig.name)
    assert "DELETED" in drifted(stack).values()


def test_drift_of_a_bucket_and_of_its_policy(cloud, stack):
    s3, name = cloud.client("s3"), bucket_name()
    encryption = {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    lifecycle = {"Rules": [{"Id": "r", "Status": "Enabled", "ExpirationInDays": 9}]}
    policy = json.loads(document(deny("s3:DeleteBucket", on=f"arn:aws:s3:::{name}", principal="*")))
    body = template(
        Bucket=resource(
            "AWS::S3::Bucket", BucketName=name, BucketEncryption=encryption, LifecycleConfiguration=lifecycle
        ),
        Policy={**resource("AWS::S3::BucketPolicy", Bucket=name, PolicyDocument=policy), "DependsOn": "Bucket"},
    )
    assert stack.create(body) == "CREATE_COMPLETE"
    assert drifted(stack) == {}
    s3.delete_bucket_lifecycle(Bucket=name)
    assert drifted(stack) == {"Bucket": "MODIFIED"}
    s3.delete_bucket_policy(Bucket=name)
    assert drifted(stack) == {"Bucket": "MODIFIED", "Policy": "DELETED"}


def test_a_new_stack_has_no_role_of_one_that_had_its_name(cloud, person, role, stack):
    powerful = role("cloudformation.amazonaws.com", allow("*"))
    body = template(Group=resource("AWS::IAM::Group", GroupName=f"group-{uuid.uuid4().hex[:8]}"))
    assert stack.create(body, RoleARN=powerful) == "CREATE_COMPLETE"
    assert stack.delete() == "DELETE_COMPLETE"
    mine = Stack(person(allow("cloudformation:*")).client("cloudformation"), stack.name)
    assert mine.create(body) == "ROLLBACK_COMPLETE"


def test_no_other_operation_gives_a_stack_a_role(cloud, person, role, stack):
    powerful = role("cloudformation.amazonaws.com", allow("*"))
    assert stack.create(template(Topic=resource("AWS::SNS::Topic"))) == "CREATE_COMPLETE"
    mine = Stack(person(allow("cloudformation:*")).client("cloudformation"), stack.name)
    mine.client.meta.events.register("before-call.cloudformation.DescribeStacks", naming(powerful))
    mine.settled()
    assert mine.delete() == "DELETE_FAILED"


def naming(role):
    def name(params, **_):
        params["body"]["RoleARN"] = role

    return name


def test_an_update_in_place_needs_the_right_to_make_it(cloud, role, stack):
    arn = role("cloudformation.amazonaws.com", allow("cloudwatch:*"))
    alarm = {
        "AlarmName": f"alarm-{uuid.uuid4().hex[:8]}",
        "Namespace": "N",
        "MetricName": "m",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Statistic": "Sum",
        "ComparisonOperator": "GreaterThanThreshold",
    }
    assert stack.create(template(A=resource("AWS::CloudWatch::Alarm", Threshold=1, **alarm)), RoleARN=arn) == (
        "CREATE_COMPLETE"
    )
    quiet = document(deny("cloudwatch:PutMetricAlarm"))
    cloud.client("iam").put_role_policy(RoleName=arn.rpartition("/")[2], PolicyName="quiet", PolicyDocument=quiet)
    changed = template(A=resource("AWS::CloudWatch::Alarm", Threshold=2, **alarm))
    assert stack.update(changed).startswith("UPDATE_ROLLBACK")
    assert any("cloudwatch:PutMetricAlarm" in reason for reason in stack.reasons())


def test_a_policy_that_moves_to_another_bucket_is_judged_there(cloud, bucket, stack):
    first = bucket_name()
    cloud.client("s3").create_bucket(Bucket=first, CreateBucketConfiguration={"LocationConstraint": cloud.region})

    def body(name):
        statement = deny("s3:DeleteBucket", on=f"arn:aws:s3:::{name}", principal="*")
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        return template(Policy=resource("AWS::S3::BucketPolicy", Bucket=name, PolicyDocument=policy))

    assert stack.create(body(first)) == "CREATE_COMPLETE"
    closed = document(deny("s3:PutBucketPolicy", on=f"arn:aws:s3:::{bucket}", principal="*"))
    cloud.client("s3").put_bucket_policy(Bucket=bucket, Policy=closed)
    assert stack.update(body(bucket)) == "UPDATE_ROLLBACK_COMPLETE"
