"""What a function sees and may use, and how events reach it."""

import io
import json
import time
import uuid
import zipfile

import pytest

from .conftest import allow, refuses

PROBE = """
import json, os, shutil, sys
def handler(event, context):
    seen = {}
    carried = ("boto3", "botocore", "dateutil", "urllib3")
    for name in (*carried, "cryptography", "jwt", "codecommit_mirror", "aws_cdk", "pip"):
        try:
            __import__(name)
            seen[name] = True
        except ImportError:
            seen[name] = False
    return {
        "modules": seen, "home": os.environ["HOME"], "git": shutil.which("git"), "mine": os.environ.get("MINE"),
        "names": sorted(os.environ), "path": sys.path,
    }
"""
HUNGRY = """
def handler(event, context):
    data = bytearray(event["megabytes"] * 1024 * 1024)
    return len(data)
"""
RECORDER = """
import boto3, json, os
def handler(event, context):
    detail = event["detail"] if "detail" in event else json.loads(event["Records"][0]["Sns"]["Message"])
    s3, bucket = boto3.client("s3"), os.environ["BUCKET"]
    s3.put_object(Bucket=bucket, Key=f"{detail['id']}/{context.aws_request_id}", Body=b"")
    if detail.get("fails"):
        raise ValueError("as the event says")
"""


def zipped(source):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("index.py", source)
    return data.getvalue()


@pytest.fixture
def function(cloud, role):
    """Make a function."""
    made = []

    def make(source, *statements, memory=128, **environment):
        name = f"function-{uuid.uuid4().hex[:8]}"
        arn = cloud.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.14",
            Role=role("lambda.amazonaws.com", *statements),
            Handler="index.handler",
            Code={"ZipFile": zipped(source)},
            MemorySize=memory,
            Timeout=20,
            Environment={"Variables": environment},
        )["FunctionArn"]
        made.append(name)
        return arn

    yield make
    for name in made:
        cloud.client("lambda").delete_function(FunctionName=name)


def invoke(cloud, arn, **payload):
    answer = cloud.client("lambda").invoke(FunctionName=arn, Payload=json.dumps(payload), LogType="Tail")
    return answer.get("FunctionError"), json.loads(answer["Payload"].read())


def test_a_function_sees_boto3_and_its_own_code_and_nothing_of_this_machine(cloud, function):
    _, seen = invoke(cloud, function(PROBE, MINE="mine"))
    assert {name for name, there in seen["modules"].items() if there} == {"boto3", "botocore", "dateutil", "urllib3"}
    assert seen["git"] is None
    assert seen["mine"] == "mine"
    assert seen["home"].startswith(str(cloud.root))
    assert seen["home"] != str(cloud.root)
    foreign = {"PYTHONPATH", "MINISTACK_ACCOUNT_ID", "S3_DATA_DIR", "STATE_DIR", "AUTH"}
    assert not foreign & set(seen["names"])
    assert not [path for path in seen["path"] if "site-packages" in path]


def test_memory_is_measured_and_limited(cloud, function):
    arn = function(HUNGRY, memory=128)
    error, size = invoke(cloud, arn, megabytes=20)
    assert (error, size) == (None, 20 * 1024**2)
    error, answer = invoke(cloud, arn, megabytes=200)
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.OutOfMemory")
    assert "signal: killed" in answer["errorMessage"]
    # The next invocation has a process of its own.
    assert invoke(cloud, arn, megabytes=20)[0] is None
    reports = [
        event["message"]
        for event in cloud.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{arn.rpartition(':')[2]}")[
            "events"
        ]
        if event["message"].startswith("REPORT")
    ]
    used = [int(line.rpartition("Max Memory Used: ")[2].split()[0]) for line in reports]
    assert 20 < used[0] < 128 <= used[1]


# -------------------------------------------------------------------------------------------------------------- events


@pytest.fixture
def recorder(cloud, function, bucket):
    """A function that leaves an object for each time that it runs, and what there is of an event."""
    arn = function(RECORDER, allow("s3:PutObject", "sns:Publish"), BUCKET=bucket)

    def runs(identifier, expected=1, seconds=15):
        end = time.monotonic() + seconds
        while True:
            listed = cloud.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{identifier}/").get("Contents", [])
            if len(listed) >= expected or time.monotonic() > end:
                return len(listed)
            time.sleep(0.1)

    return arn, runs


@pytest.fixture
def rule(cloud, recorder):
    """A rule whose target is the recorder, with the permission to invoke it."""
    events, name = cloud.client("events"), f"rule-{uuid.uuid4().hex[:8]}"
    arn = events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))["RuleArn"]
    events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": recorder[0]}])
    cloud.client("lambda").add_permission(
        FunctionName=recorder[0],
        StatementId="rule",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=arn,
    )
    yield name
    cloud.aws.deliver_events("once")
    events.remove_targets(Rule=name, Ids=["1"])
    events.delete_rule(Name=name)


def send(cloud, rule, **detail):
    entry = {"Source": rule, "DetailType": "test", "Detail": json.dumps(detail)}
    cloud.client("events").put_events(Entries=[entry])


def test_without_permission_nothing_is_invoked(cloud, recorder, rule):
    arn, runs = recorder
    cloud.client("lambda").remove_permission(FunctionName=arn, StatementId="rule")
    send(cloud, rule, id="refused")
    assert runs("refused", seconds=1) == 0
    assert cloud.aws.undelivered()[-1] == arn


def test_a_permission_is_for_one_rule(cloud, recorder, rule):
    arn, runs = recorder
    awslambda = cloud.client("lambda")
    awslambda.remove_permission(FunctionName=arn, StatementId="rule")
    awslambda.add_permission(
        FunctionName=arn,
        StatementId="another",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=f"arn:aws:events:{cloud.region}:{cloud.account}:rule/another",
    )
    send(cloud, rule, id="refused")
    assert runs("refused", seconds=1) == 0


def test_a_failure_is_tried_three_times_and_ends_at_its_destination(cloud, recorder, rule):
    arn, runs = recorder
    sns = cloud.client("sns")
    topic = sns.create_topic(Name=f"topic-{uuid.uuid4().hex[:8]}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=f"{rule}@example.com")
    cloud.aws.confirm_subscriptions(f"{rule}@example.com")
    cloud.client("lambda").put_function_event_invoke_config(
        FunctionName=arn, Qualifier="$LATEST", DestinationConfig={"OnFailure": {"Destination": topic}}
    )
    send(cloud, rule, id="failing", fails=True)
    assert runs("failing", expected=3) == 3
    for _ in range(50):
        failures = [m for m in cloud.mail() if m["to"] == f"{rule}@example.com" and "RetriesExhausted" in m["body"]]
        if failures:
            break
        time.sleep(0.1)
    (failure,) = failures
    assert json.loads(failure["body"])["requestPayload"]["detail"]["id"] == "failing"
    assert runs("failing", expected=4, seconds=1) == 3


def test_a_throttled_event_waits(cloud, recorder, rule):
    arn, runs = recorder
    awslambda = cloud.client("lambda")
    awslambda.put_function_concurrency(FunctionName=arn, ReservedConcurrentExecutions=0)
    send(cloud, rule, id="throttled")
    assert runs("throttled", seconds=1) == 0
    awslambda.delete_function_concurrency(FunctionName=arn)
    assert runs("throttled") == 1


@pytest.mark.parametrize(("how", "expected"), [("twice", 2), ("late", 1), ("shuffled", 1)])
def test_events_come_as_a_queue_may_deliver_them(cloud, recorder, rule, how, expected):
    _, runs = recorder
    cloud.aws.deliver_events(how)
    sent = time.monotonic()
    send(cloud, rule, id=f"{how}-1")
    send(cloud, rule, id=f"{how}-2")
    assert [runs(f"{how}-1", expected), runs(f"{how}-2", expected)] == [expected, expected]
    if how != "twice":
        assert time.monotonic() - sent > 1.5


def test_a_topic_needs_the_permission_as_well(cloud, recorder):
    arn, _ = recorder
    sns = cloud.client("sns")
    topic = sns.create_topic(Name=f"topic-{uuid.uuid4().hex[:8]}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)
    sns.publish(TopicArn=topic, Message="m")
    time.sleep(0.5)
    assert cloud.aws.undelivered()[-1] == arn


def test_what_a_topic_sends_waits_in_the_same_queue(cloud, recorder):
    arn, runs = recorder
    sns, identifier = cloud.client("sns"), uuid.uuid4().hex
    topic = sns.create_topic(Name=f"topic-{identifier[:8]}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)
    cloud.client("lambda").add_permission(
        FunctionName=arn,
        StatementId="topic",
        Action="lambda:InvokeFunction",
        Principal="sns.amazonaws.com",
        SourceArn=topic,
    )
    cloud.aws.deliver_events("twice")
    sns.publish(TopicArn=topic, Message=json.dumps({"id": identifier}))
    assert runs(identifier, expected=2) == 2
    cloud.aws.deliver_events("once")


def test_a_role_that_lambda_may_not_assume_is_refused(cloud, role):
    with refuses("InvalidParameterValueException", "cannot be assumed by Lambda"):
        cloud.client("lambda").create_function(
            FunctionName=f"function-{uuid.uuid4().hex[:8]}",
            Runtime="python3.14",
            Role=role("events.amazonaws.com"),
            Handler="index.handler",
            Code={"ZipFile": zipped(PROBE)},
        )


def test_a_function_gets_no_such_role_later_either(cloud, function, role):
    with refuses("InvalidParameterValueException", "cannot be assumed by Lambda"):
        cloud.client("lambda").update_function_configuration(
            FunctionName=function(PROBE), Role=role("events.amazonaws.com")
        )


def test_who_may_see_a_setting_may_not_change_it(function, person):
    arn = function(PROBE)
    client = person(allow("lambda:GetFunctionConcurrency", "lambda:GetFunctionEventInvokeConfig")).client("lambda")
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName=arn)
    with refuses("AccessDeniedException", "lambda:PutFunctionConcurrency"):
        client.put_function_concurrency(FunctionName=arn, ReservedConcurrentExecutions=0)
    with refuses("AccessDeniedException", "lambda:DeleteFunctionConcurrency"):
        client.delete_function_concurrency(FunctionName=arn)
    with refuses("ResourceNotFoundException"):
        client.get_function_event_invoke_config(FunctionName=arn)
    with refuses("AccessDeniedException", "lambda:PutFunctionEventInvokeConfig"):
        client.put_function_event_invoke_config(FunctionName=arn, MaximumRetryAttempts=0)
    with refuses("AccessDeniedException", "lambda:DeleteFunctionEventInvokeConfig"):
        client.delete_function_event_invoke_config(FunctionName=arn)


def test_without_a_qualifier_asynchronous_settings_are_those_of_the_latest_version(cloud, function):
    client, arn = cloud.client("lambda"), function(PROBE)
    client.put_function_event_invoke_config(FunctionName=arn, MaximumRetryAttempts=1)
    found = client.get_function_event_invoke_config(FunctionName=arn, Qualifier="$LATEST")
    assert (found["FunctionArn"], found["MaximumRetryAttempts"]) == (f"{arn}:$LATEST", 1)
    client.delete_function_event_invoke_config(FunctionName=arn, Qualifier="$LATEST")
    with refuses("ResourceNotFoundException"):
        client.get_function_event_invoke_config(FunctionName=arn)
