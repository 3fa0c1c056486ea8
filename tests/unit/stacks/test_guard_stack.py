"""The guard's stack: exactly what it creates and allows, whatever the number of mirrors."""

import json
import subprocess
import sys
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.config.guard import Guard
from codecommit_mirror.stacks import GuardStack, VaultStack

from .test_stacks import CONTEXT, PACKS, findings, logical_id, of_type

GUARD = Guard(email="ops@example.com")
TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
VARIANTS = pytest.mark.parametrize(
    "guard", [GUARD, Guard(topic_arn=TOPIC, snapshots="off")], ids=["e-mail", "topic, no snapshots"]
)
SETTINGS = ("GetFunctionConcurrency", "GetFunctionConfiguration", "GetFunctionEventInvokeConfig", "GetPolicy")


def stack(guard=GUARD):
    app = cdk.App(context=CONTEXT, analytics_reporting=False)
    return GuardStack(app, guard=guard, vault=VaultStack(app, guard=guard))


def template(guard=GUARD):
    return Template.from_stack(stack(guard)).to_json()


def test_there_are_these_resources_and_nothing_else():
    kinds = sorted(resource["Type"] for resource in template()["Resources"].values())
    assert kinds == [
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
        "AWS::Events::Rule",
        "AWS::Events::Rule",
        "AWS::Events::Rule",
        "AWS::IAM::ManagedPolicy",
        "AWS::KMS::Key",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
        "AWS::Lambda::Permission",
        "AWS::Lambda::Permission",
        "AWS::Logs::LogGroup",
        "AWS::SNS::Subscription",
        "AWS::SNS::Topic",
        "AWS::SNS::TopicPolicy",
    ]


def test_outside_the_vault_the_role_reads_tagged_replicas_and_publishes_to_one_topic():
    document = template()

    def arn(service, rest):
        account = [{"Ref": "AWS::Region"}, ":", {"Ref": "AWS::AccountId"}, f":{rest}"]
        return {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, f":{service}:", *account]]}

    policy = of_type(document, "AWS::IAM::ManagedPolicy")["Properties"]
    assert policy["Roles"] == [{"Fn::Join": ["", ["codecommit-mirror-guard-", {"Ref": "AWS::Region"}]]}]
    assert policy["PolicyDocument"]["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["codecommit:GetRepository", "codecommit:GitPull"],
            "Resource": arn("codecommit", "*"),
            "Condition": {"Null": {"aws:ResourceTag/codecommit-mirror:replica": "false"}},
        },
        {
            "Effect": "Allow",
            "Action": [
                "cloudwatch:DescribeAlarms",
                "cloudwatch:PutMetricData",
                "events:ListRuleNamesByTarget",
                "events:ListTargetsByRule",
                "sns:GetSubscriptionAttributes",
                "tag:GetResources",
            ],
            "Resource": "*",
        },
        {
            "Effect": "Allow",
            "Action": [f"lambda:{name}" for name in (*SETTINGS, "InvokeFunction")],
            "Resource": arn("lambda", "function:codecommit-mirror-guard"),
        },
        {
            "Effect": "Allow",
            "Action": "events:DescribeRule",
            "Resource": arn("events", "rule/*"),
        },
        {
            "Effect": "Allow",
            "Action": ["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic", "sns:Publish"],
            "Resource": {"Ref": logical_id(document, "AWS::SNS::Topic")},
        },
        {
            "Effect": "Allow",
            "Action": "cloudformation:DescribeStacks",
            "Resource": [
                arn("cloudformation", "stack/codecommit-mirror-guard/*"),
                arn("cloudformation", "stack/codecommit-mirror-vault/*"),
            ],
        },
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": {"Fn::GetAtt": [logical_id(document, "AWS::Logs::LogGroup"), "Arn"]},
        },
        {
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey", "kms:GetKeyPolicy"],
            "Resource": {"Fn::GetAtt": [logical_id(document, "AWS::KMS::Key"), "Arn"]},
        },
    ]


def test_messages_go_to_an_encrypted_topic_and_its_alarms_may_publish():
    document = template()
    topic = of_type(document, "AWS::SNS::Topic")["Properties"]
    assert topic["KmsMasterKeyId"] == {"Fn::GetAtt": [logical_id(document, "AWS::KMS::Key"), "Arn"]}
    policy = of_type(document, "AWS::SNS::TopicPolicy")["Properties"]["PolicyDocument"]["Statement"]
    allowed = [s for s in policy if s["Effect"] == "Allow"]
    assert [s["Principal"] for s in allowed] == [{"Service": "cloudwatch.amazonaws.com"}]
    assert allowed[0]["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert of_type(document, "AWS::SNS::Subscription")["Properties"]["Endpoint"] == "ops@example.com"


def test_a_topic_that_is_there_already_is_used_as_it_is():
    document = template(Guard(topic_arn=TOPIC))
    kinds = {resource["Type"] for resource in document["Resources"].values()}
    assert not kinds & {"AWS::SNS::Topic", "AWS::KMS::Key", "AWS::SNS::TopicPolicy"}
    alarms = [r["Properties"] for r in document["Resources"].values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    assert sorted(alarm.get("AlarmActions", []) for alarm in alarms) == [[], [TOPIC], [TOPIC], [TOPIC]]


def test_what_the_function_cannot_handle_goes_to_the_topic():
    document = template()
    topic = {"Ref": logical_id(document, "AWS::SNS::Topic")}
    config = of_type(document, "AWS::Lambda::EventInvokeConfig")["Properties"]
    assert config["DestinationConfig"] == {"OnFailure": {"Destination": topic}}


def test_without_snapshots_none_is_scheduled():
    rules = [r for r in template(Guard(topic_arn=TOPIC, snapshots="off"))["Resources"].values() if "Rule" in r["Type"]]
    assert sorted(str(rule["Properties"].get("ScheduleExpression")) for rule in rules) == ["None", "rate(1 hour)"]


def test_the_function_carries_the_engine_and_nothing_of_the_cli():
    synthesised = stack()
    synthesised.node.root.synth()
    folders = [path for path in Path(synthesised.node.root.outdir).glob("asset.*") if path.is_dir()]
    (folder,) = folders
    (package,) = folder.iterdir()
    assert sorted(path.name for path in package.iterdir()) == ["__init__.py", "engine", "guard"]
    ask = "import codecommit_mirror.guard.handler as h; print(h.handler.__name__)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {ask}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "handler\n", done.stderr


@PACKS
@VARIANTS
def test_cdk_nag_is_clean_or_acknowledged(pack, guard):
    assert findings(stack(guard), pack) == []


def test_no_account_region_or_partition_is_written_into_the_resources():
    assert "arn:aws:" not in json.dumps(template()["Resources"])
