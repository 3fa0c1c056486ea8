"""E-mails that wait for their recipient, subjects, alarms that are evaluated as time passes, and CloudTrail."""

import json
import subprocess
import time
import uuid
from urllib.parse import quote

import boto3
import pytest

from localcloud import LocalCloud, sample

from .conftest import allow, document, refuses
from .stacks import Stack, resource, template


@pytest.fixture(scope="module")
def moving_cloud():
    """A cloud of its own, whose clock is moved."""
    with LocalCloud() as running:
        yield running


@pytest.fixture
def topic(cloud):
    return cloud.client("sns").create_topic(Name=f"topic-{uuid.uuid4().hex[:8]}")["TopicArn"]


def counts(cloud, topic):
    attributes = cloud.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]
    return int(attributes["SubscriptionsPending"]), int(attributes["SubscriptionsConfirmed"])


def test_an_e_mail_subscription_is_pending_until_its_recipient_confirms(cloud, topic):
    sns, address = cloud.client("sns"), f"{uuid.uuid4().hex}@example.com"
    answer = sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=address)
    assert answer["SubscriptionArn"] == "pending confirmation"
    (listed,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert listed["SubscriptionArn"] == "PendingConfirmation"
    assert counts(cloud, topic) == (1, 0)
    sns.publish(TopicArn=topic, Message="lost")
    assert cloud.aws.confirm_subscriptions(address) == 1
    assert counts(cloud, topic) == (0, 1)
    sns.publish(TopicArn=topic, Message="read")
    mails = [mail["body"] for mail in cloud.mail() if mail["to"] == address]
    assert [len(mails), mails[-1]] == [2, "read"]
    assert "ConfirmSubscription" in mails[0]


def test_a_filter_holds_for_e_mails_too(cloud, topic):
    sns, address = cloud.client("sns"), f"{uuid.uuid4().hex}@example.com"
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=address)
    cloud.aws.confirm_subscriptions(address)
    (listed,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    sns.set_subscription_attributes(
        SubscriptionArn=listed["SubscriptionArn"], AttributeName="FilterPolicy", AttributeValue='{"kind": ["wanted"]}'
    )
    sns.publish(TopicArn=topic, Message="filtered")
    wanted = {"kind": {"DataType": "String", "StringValue": "wanted"}}
    sns.publish(TopicArn=topic, Message="sent", MessageAttributes=wanted)
    assert [mail["body"] for mail in cloud.mail() if mail["to"] == address][1:] == ["sent"]


def test_a_topic_whose_key_cannot_be_used_takes_no_message(cloud):
    sns, kms = cloud.client("sns"), cloud.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    topic = sns.create_topic(Name=f"topic-{uuid.uuid4().hex[:8]}", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    sns.publish(TopicArn=topic, Message="sent")
    kms.disable_key(KeyId=key)
    with refuses("KMSDisabled"):
        sns.publish(TopicArn=topic, Message="lost")
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    with refuses("KMSInvalidState"):
        sns.publish(TopicArn=topic, Message="lost")


def test_an_alarm_is_lost_with_its_topics_key(moving_cloud):
    sns, kms, address = moving_cloud.client("sns"), moving_cloud.client("kms"), f"{uuid.uuid4().hex}@example.com"
    key = kms.create_key()["KeyMetadata"]["Arn"]
    topic = sns.create_topic(Name="locked", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=address)
    moving_cloud.aws.confirm_subscriptions(address)
    before = len([mail for mail in moving_cloud.mail() if mail["to"] == address])
    kms.disable_key(KeyId=key)
    alarm = {"AlarmName": "locked", "Namespace": "n", "MetricName": "locked", "Statistic": "Sum", "Period": 60}
    moving_cloud.client("cloudwatch").put_metric_alarm(
        **alarm,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="LessThanThreshold",
        TreatMissingData="breaching",
        AlarmActions=[topic],
    )
    moving_cloud.aws.move_clock(days=1)
    (shown,) = moving_cloud.client("cloudwatch").describe_alarms(AlarmNames=["locked"])["MetricAlarms"]
    assert shown["StateValue"] == "ALARM"
    assert len([mail for mail in moving_cloud.mail() if mail["to"] == address]) == before


def test_a_subscription_that_nobody_confirms_is_gone_after_three_days(moving_cloud):
    sns = moving_cloud.client("sns")
    topic = sns.create_topic(Name="topic")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="nobody@example.com")
    moving_cloud.aws.move_clock(days=2)
    assert len(sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]) == 1
    moving_cloud.aws.move_clock(days=2)
    assert sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == []


@pytest.mark.parametrize("subject", ["x" * 100, "two\nlines", "a\x1bb", ""])
def test_a_subject_that_sns_refuses(cloud, topic, subject):
    with refuses("InvalidParameter"):
        cloud.client("sns").publish(TopicArn=topic, Message="m", Subject=subject)


def test_a_batch_has_the_same_subjects(cloud, topic):
    entries = [{"Id": "1", "Message": "m", "Subject": "two\nlines"}]
    with refuses("InvalidParameter"):
        cloud.client("sns").publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)


def test_a_subscription_that_a_stack_replaces_is_pending_again(cloud, topic):
    stack = Stack(cloud.client("cloudformation"))

    def body(address):
        return template(
            S=resource("AWS::SNS::Subscription", TopicArn=topic, Protocol="email", Endpoint=f"{address}@example.com")
        )

    assert stack.create(body("first")) == "CREATE_COMPLETE"
    cloud.aws.confirm_subscriptions("first@example.com")
    assert stack.update(body("second")) == "UPDATE_COMPLETE"
    assert counts(cloud, topic) == (1, 0)


def test_a_subject_of_99_characters_of_any_language(cloud, topic):
    cloud.client("sns").publish(TopicArn=topic, Message="m", Subject="ü" * 99)


# -------------------------------------------------------------------------------------------------------------- alarms


def alarm(cloud, name, **settings):
    cloud.client("cloudwatch").put_metric_alarm(
        **{
            "AlarmName": name,
            "Namespace": "Test",
            "MetricName": "Errors",
            "Dimensions": [{"Name": "Function", "Value": name}],
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            **settings,
        }
    )


def put(cloud, function, value=1):
    data = {
        "MetricName": "Errors",
        "Value": value,
        "Dimensions": [{"Name": "Function", "Value": function}],
    }
    cloud.client("cloudwatch").put_metric_data(Namespace="Test", MetricData=[data])


def state(cloud, name, expected, seconds=6):
    end = time.monotonic() + seconds
    while True:
        (found,) = cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
        if found["StateValue"] == expected or time.monotonic() > end:
            return found["StateValue"]
        time.sleep(0.2)


def test_an_alarm_is_about_its_own_dimensions(cloud):
    mine, other = f"alarm-{uuid.uuid4().hex[:8]}", f"alarm-{uuid.uuid4().hex[:8]}"
    for name in (mine, other):
        alarm(cloud, name, TreatMissingData="notBreaching")
    put(cloud, mine)
    assert state(cloud, mine, "ALARM") == "ALARM"
    assert state(cloud, other, "OK") == "OK"


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("breaching", "ALARM"), ("notBreaching", "OK"), ("missing", "INSUFFICIENT_DATA")],
)
def test_missing_data_are_what_the_alarm_says(cloud, missing, expected):
    name = f"alarm-{uuid.uuid4().hex[:8]}"
    alarm(cloud, name, TreatMissingData=missing, ComparisonOperator="LessThanThreshold")
    assert state(cloud, name, expected) == expected


def test_silence_becomes_an_alarm_by_itself_and_tells_its_topic(moving_cloud):
    sns = moving_cloud.client("sns")
    topic = sns.create_topic(Name="silence")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="ops@example.com")
    moving_cloud.aws.confirm_subscriptions("ops@example.com")
    settings = {"ComparisonOperator": "LessThanThreshold", "Period": 3600, "EvaluationPeriods": 3}
    alarm(moving_cloud, "silence", TreatMissingData="breaching", AlarmActions=[topic], **settings)
    put(moving_cloud, "silence")
    assert state(moving_cloud, "silence", "OK") in ("OK", "INSUFFICIENT_DATA")
    moving_cloud.aws.move_clock(hours=4)
    assert state(moving_cloud, "silence", "ALARM") == "ALARM"
    assert any("silence" in mail["subject"] for mail in moving_cloud.mail() if mail["to"] == "ops@example.com")


# ---------------------------------------------------------------------------------------------------------- CloudTrail


def events(cloud, name):
    listed = cloud.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": name}]
    )["Events"]
    return [json.loads(event["CloudTrailEvent"]) for event in listed]


def test_cloudtrail_names_who_did_what_and_what_was_refused(cloud, person):
    someone = person(allow("sns:ListTopics"))
    with refuses("AccessDenied"):
        someone.client("iam").create_user(UserName="x")
    (record,) = [e for e in events(cloud, "CreateUser") if e["userIdentity"]["arn"] == someone.arn]
    assert (record["eventSource"], record["errorCode"]) == ("iam.amazonaws.com", "AccessDenied")
    name = f"repository-{uuid.uuid4().hex[:8]}"
    cloud.client("codecommit").create_repository(repositoryName=name)
    (made,) = [e for e in events(cloud, "CreateRepository") if e["resources"][0]["ARN"].endswith(f":{name}")]
    assert made["userIdentity"]["arn"].endswith(":user/operator")
    assert "errorCode" not in made
    assert not made["readOnly"]


def test_a_role_that_is_passed_is_no_call_of_its_own(cloud, role):
    name = f"stack-{uuid.uuid4().hex[:8]}"
    arn = role("cloudformation.amazonaws.com", allow("sns:*"))
    assert Stack(cloud.client("cloudformation"), name).create(
        template(Topic=resource("AWS::SNS::Topic")), RoleARN=arn
    ) == ("CREATE_COMPLETE")
    assert any(name in event["resources"][0]["ARN"] for event in events(cloud, "CreateStack"))
    assert events(cloud, "PassRole") == []


def test_a_session_has_its_name_in_cloudtrail(cloud, role):
    iam, name = cloud.client("iam"), f"caller-{uuid.uuid4().hex[:8]}"
    me = cloud.client("sts").get_caller_identity()["Arn"]
    trusting = document({"Effect": "Allow", "Principal": {"AWS": me}, "Action": "sts:AssumeRole"})
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusting)["Role"]["Arn"]
    keys = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="ada")["Credentials"]
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    sns = session.client("sns", region_name=cloud.region, endpoint_url=cloud.aws_url)
    with refuses("AuthorizationError"):
        sns.create_topic(Name="refused")
    callers = [event["userIdentity"] for event in events(cloud, "CreateTopic")]
    wanted = f"arn:aws:sts::{cloud.account}:assumed-role/{name}/ada"
    assert ("AssumedRole", wanted) in [(caller["type"], caller["arn"]) for caller in callers]


def test_a_push_is_in_cloudtrail_with_its_user(rig):
    sample.fill(rig.source)
    name, password = (quote(rig.credential[key], safe="") for key in ("ServiceUserName", "ServicePassword"))
    url = rig.outputs["ReplicaUrl"].replace("://", f"://{name}:{password}@")
    push = ["git", "-C", str(rig.source), "push", "-q", url, "main"]
    subprocess.run(push, check=True, capture_output=True)
    pushes = [e for e in events(rig.cloud, "GitPush") if e["resources"][0]["ARN"].endswith(f":{rig.name}")]
    assert pushes[0]["userIdentity"]["arn"].endswith(f":user/{rig.user}")
    assert pushes[0]["eventSource"] == "codecommit.amazonaws.com"
