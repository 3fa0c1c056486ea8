"""What IAM and STS refuse, and what they show to those who look."""

import uuid

import boto3
import pytest

from localcloud.aws.iam.service_credentials import SERVICE

from .conftest import allow, deny, document, refuses, trust

POWER_USER = "arn:aws:iam::aws:policy/AWSCodeCommitPowerUser"


@pytest.fixture
def limit(cloud):
    """A managed policy that lets buckets be listed, as a boundary."""
    policy = document(allow("s3:ListAllMyBuckets"))
    name = f"limit-{uuid.uuid4().hex[:8]}"
    return cloud.client("iam").create_policy(PolicyName=name, PolicyDocument=policy)["Policy"]["Arn"]


# ----------------------------------------------------------------------------------------------------------- PassRole


def test_a_function_gets_a_role_from_who_may_pass_it(cloud, person, role):
    powerful = role("lambda.amazonaws.com", allow("*"))
    someone = person(allow("lambda:CreateFunction"))
    function = {
        "FunctionName": f"f-{uuid.uuid4().hex[:8]}",
        "Runtime": "python3.11",
        "Role": powerful,
        "Handler": "index.handler",
        "Code": {"ZipFile": zipped("def handler(event, context): pass")},
    }
    with refuses("AccessDeniedException", f"iam:PassRole on resource: {powerful}"):
        someone.client("lambda").create_function(**function)
    passed = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    someone.may(allow("lambda:CreateFunction"), allow("iam:PassRole", on=powerful, **passed))
    someone.client("lambda").create_function(**function)
    cloud.client("lambda").delete_function(FunctionName=function["FunctionName"])


def test_replication_gets_a_role_from_who_may_pass_it(person, role, bucket):
    copying = role("s3.amazonaws.com")
    rule = {"ID": "r", "Status": "Enabled", "Priority": 1, "Filter": {}, "Destination": {"Bucket": "arn:aws:s3:::b"}}
    rule["DeleteMarkerReplication"] = {"Status": "Disabled"}
    with refuses("AccessDenied", "iam:PassRole"):
        person(allow("s3:PutReplicationConfiguration")).client("s3").put_bucket_replication(
            Bucket=bucket, ReplicationConfiguration={"Role": copying, "Rules": [rule]}
        )


def zipped(source):
    import io
    import zipfile

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("index.py", source)
    return data.getvalue()


# --------------------------------------------------------------------------------------------------------- boundaries


def test_who_may_create_only_what_has_a_boundary(person, limit):
    within = {"StringEquals": {"iam:PermissionsBoundary": limit}}
    someone = person(allow("iam:CreateUser", "iam:AttachUserPolicy", **within))
    iam, name = someone.client("iam"), f"user-{uuid.uuid4().hex[:8]}"
    with refuses("AccessDenied"):
        iam.create_user(UserName=name)
    iam.create_user(UserName=name, PermissionsBoundary=limit)
    iam.attach_user_policy(UserName=name, PolicyArn=POWER_USER)
    with refuses("AccessDenied"):
        iam.attach_user_policy(UserName=someone.name, PolicyArn=POWER_USER)


def test_a_deny_of_everything_without_the_boundary(person, limit):
    without = {"StringNotEquals": {"iam:PermissionsBoundary": limit}}
    iam = person(allow("iam:*"), deny("iam:CreateRole", **without)).client("iam")
    name = f"role-{uuid.uuid4().hex[:8]}"
    with refuses("AccessDenied"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("lambda.amazonaws.com"))
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("lambda.amazonaws.com"), PermissionsBoundary=limit)


def test_a_simulation_stays_within_the_boundary(cloud, person, limit):
    iam = cloud.client("iam")
    someone = person(allow("s3:*"), boundary=limit)
    results = iam.simulate_principal_policy(
        PolicySourceArn=someone.arn, ActionNames=["s3:ListAllMyBuckets", "s3:PutObject"]
    )["EvaluationResults"]
    assert [result["EvalDecision"] for result in results] == ["allowed", "implicitDeny"]
    assert results[1]["PermissionsBoundaryDecisionDetail"]["AllowedByPermissionsBoundary"] is False
    with refuses("NoSuchEntity"):
        iam.simulate_principal_policy(PolicySourceArn=f"{someone.arn}x", ActionNames=["s3:PutObject"])
    with refuses("InvalidInput"):
        iam.simulate_principal_policy(PolicySourceArn=someone.arn, ActionNames=["PutObject"])


# --------------------------------------------------------------------------------------- who may push, and who may look


@pytest.mark.parametrize(
    ("policy", "pulls", "deletes"),
    [
        ("AWSCodeCommitReadOnly", True, False),
        ("AWSCodeCommitPowerUser", True, False),
        ("AWSCodeCommitFullAccess", True, True),
    ],
)
def test_the_managed_policies_of_codecommit(cloud, person, policy, pulls, deletes):
    arn, someone = f"arn:aws:iam::aws:policy/{policy}", person(allow("iam:ListUsers"))
    iam = cloud.client("iam")
    iam.attach_user_policy(UserName=someone.name, PolicyArn=arn)
    actions = ["codecommit:GitPull", "codecommit:GitPush", "codecommit:DeleteBranch", "codecommit:DeleteRepository"]
    results = iam.simulate_principal_policy(PolicySourceArn=someone.arn, ActionNames=actions)["EvaluationResults"]
    pushes = policy != "AWSCodeCommitReadOnly"
    decisions = [result["EvalDecision"] == "allowed" for result in results]
    assert decisions == [pulls, pushes, pushes, deletes]
    # Their own Git credentials and no one else's: the policies use a variable.
    own = someone.client("iam")
    assert own.list_service_specific_credentials(UserName=someone.name)["ServiceSpecificCredentials"] == []
    with refuses("AccessDenied"):
        own.list_service_specific_credentials(UserName="operator")
    if pushes:
        own.create_service_specific_credential(UserName=someone.name, ServiceName=SERVICE)


def test_ssh_keys_are_seen_and_keep_a_user(cloud, person):
    iam, someone = cloud.client("iam"), person(allow("iam:ListUsers"))
    body = "ssh-rsa AAAAB3NzaC1yc2E= someone"
    key = iam.upload_ssh_public_key(UserName=someone.name, SSHPublicKeyBody=body)["SSHPublicKey"]
    with refuses("DuplicateSSHPublicKey"):
        iam.upload_ssh_public_key(UserName=someone.name, SSHPublicKeyBody=body)
    with refuses("InvalidPublicKey"):
        iam.upload_ssh_public_key(UserName=someone.name, SSHPublicKeyBody="not a key")
    (listed,) = iam.list_ssh_public_keys(UserName=someone.name)["SSHPublicKeys"]
    assert (listed["SSHPublicKeyId"], listed["Status"]) == (key["SSHPublicKeyId"], "Active")
    read = iam.get_ssh_public_key(UserName=someone.name, SSHPublicKeyId=key["SSHPublicKeyId"], Encoding="SSH")
    assert read["SSHPublicKey"]["SSHPublicKeyBody"] == body
    iam.delete_user_policy(UserName=someone.name, PolicyName="test")
    (access,) = iam.list_access_keys(UserName=someone.name)["AccessKeyMetadata"]
    iam.delete_access_key(UserName=someone.name, AccessKeyId=access["AccessKeyId"])
    with refuses("DeleteConflict"):
        iam.delete_user(UserName=someone.name)
    iam.update_ssh_public_key(UserName=someone.name, SSHPublicKeyId=key["SSHPublicKeyId"], Status="Inactive")
    iam.delete_ssh_public_key(UserName=someone.name, SSHPublicKeyId=key["SSHPublicKeyId"])
    iam.delete_user(UserName=someone.name)


# ----------------------------------------------------------------------------------------------- principals and quotas


def test_a_policy_of_a_resource_names_who_exists(cloud, bucket):
    nobody = f"arn:aws:iam::{cloud.account}:role/nobody"
    statement = {"Effect": "Allow", "Principal": {"AWS": nobody}, "Action": "s3:GetObject", "Resource": "*"}
    s3, iam, sns = cloud.client("s3"), cloud.client("iam"), cloud.client("sns")
    with refuses("MalformedPolicy", "Invalid principal in policy"):
        s3.put_bucket_policy(Bucket=bucket, Policy=document(statement))
    with refuses("MalformedPolicy", "Policy has invalid action"):
        s3.put_bucket_policy(Bucket=bucket, Policy=document({**statement, "Principal": "*", "Action": "sqs:Send"}))
    with refuses("MalformedPolicyDocument", nobody):
        iam.create_role(
            RoleName="r",
            AssumeRolePolicyDocument=document(
                {"Effect": "Allow", "Principal": {"AWS": nobody}, "Action": "sts:AssumeRole"}
            ),
        )
    topic = sns.create_topic(Name=f"topic-{uuid.uuid4().hex[:8]}")["TopicArn"]
    with refuses("InvalidParameter", "PrincipalNotFound"):
        sns.set_topic_attributes(
            TopicArn=topic,
            AttributeName="Policy",
            AttributeValue=document({**statement, "Action": "sns:Publish", "Resource": topic}),
        )


def test_quotas_of_a_user(cloud, person):
    iam, someone = cloud.client("iam"), person(allow("iam:ListUsers"))
    iam.create_access_key(UserName=someone.name)
    with refuses("LimitExceeded", "AccessKeysPerUser: 2"):
        iam.create_access_key(UserName=someone.name)
    large = document(allow(*(f"s3:GetObject{number}" for number in range(200))))
    with refuses("LimitExceeded", "2048"):
        iam.put_user_policy(UserName=someone.name, PolicyName="large", PolicyDocument=large)
    policy = document(allow("s3:ListAllMyBuckets"))
    arns = [
        iam.create_policy(PolicyName=f"p-{uuid.uuid4().hex[:8]}", PolicyDocument=policy)["Policy"]["Arn"]
        for _ in range(11)
    ]
    for arn in arns[:10]:
        iam.attach_user_policy(UserName=someone.name, PolicyArn=arn)
    with refuses("LimitExceeded", "PoliciesPerUser: 10"):
        iam.attach_user_policy(UserName=someone.name, PolicyArn=arns[10])


# ------------------------------------------------------------------------------------------------------------ sessions


def test_a_session_is_no_longer_than_its_role_allows(cloud):
    iam, sts, name = cloud.client("iam"), cloud.client("sts"), f"role-{uuid.uuid4().hex[:8]}"
    trusted = document(
        {"Effect": "Allow", "Principal": {"AWS": cloud.account}, "Action": "sts:AssumeRole", "Resource": []}
    ).replace(', "Resource": []', "")
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted, MaxSessionDuration=7200)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(allow("sts:AssumeRole")))
    with refuses("ValidationError", "MaxSessionDuration"):
        sts.assume_role(RoleArn=arn, RoleSessionName="session", DurationSeconds=7201)
    with refuses("ValidationError", "roleSessionName"):
        sts.assume_role(RoleArn=arn, RoleSessionName="a session")
    keys = sts.assume_role(RoleArn=arn, RoleSessionName="session", DurationSeconds=7200)["Credentials"]
    chained = boto3.client(
        "sts",
        region_name=cloud.region,
        endpoint_url=cloud.aws_url,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )
    with refuses("ValidationError", "role chaining"):
        chained.assume_role(RoleArn=arn, RoleSessionName="session", DurationSeconds=3601)
    chained.assume_role(RoleArn=arn, RoleSessionName="session", DurationSeconds=3600)


def test_a_web_identitys_answer_is_about_its_token(cloud):
    iam, issuer = cloud.client("iam"), "https://issuer.example"
    provider = iam.create_open_id_connect_provider(Url=issuer, ClientIDList=["audience"])["OpenIDConnectProviderArn"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {"issuer.example:sub": "me", "issuer.example:aud": "audience"}},
    }
    name = f"role-{uuid.uuid4().hex[:8]}"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(statement))["Role"]["Arn"]
    answer = cloud.client("sts").assume_role_with_web_identity(
        RoleArn=arn,
        RoleSessionName="session",
        WebIdentityToken=cloud.web_identity_token(issuer, "audience", "me"),
    )
    assert (answer["SubjectFromWebIdentityToken"], answer["Audience"]) == ("me", "audience")
    # A variable in a trust policy stands for its value, not for a token with that very text.
    statement["Condition"] = {"StringEquals": {"issuer.example:sub": "${aws:username}"}}
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=document(statement))
    with refuses("AccessDenied"):
        cloud.client("sts").assume_role_with_web_identity(
            RoleArn=arn,
            RoleSessionName="session",
            WebIdentityToken=cloud.web_identity_token(issuer, "audience", "${aws:username}"),
        )


def test_events_and_schedules_get_a_role_from_who_may_pass_it(cloud, person, role):
    someone, name = person(allow("events:*", "scheduler:*")), f"rule-{uuid.uuid4().hex[:8]}"
    events, scheduler = someone.client("events"), someone.client("scheduler")
    target = {"Arn": f"arn:aws:sqs:{cloud.region}:{cloud.account}:q", "RoleArn": role("events.amazonaws.com")}
    events.put_rule(Name=name, ScheduleExpression="rate(1 day)")
    with refuses("AccessDeniedException", "iam:PassRole"):
        events.put_targets(Rule=name, Targets=[{"Id": "1", **target}])
    with refuses("AccessDeniedException", "iam:PassRole"):
        scheduler.create_schedule(
            Name=name, ScheduleExpression="rate(1 day)", FlexibleTimeWindow={"Mode": "OFF"}, Target=target
        )
