"""The alarms: which events they match, by EventBridge's own rules, and what a run does to be counted."""

import json

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror import engine, verification
from codecommit_mirror.config import Alarm, single_mirror
from localcloud import sample
from pipeline_templates.mirror_sync import CONFIRMED
from stacks import ReplicaStack

ARN = "arn:aws:codecommit:eu-west-1:111122223333:MyRepoReplica"
USER = "arn:aws:iam::111122223333:user/azure-devops-pipeline-MyRepoReplica"
OTHER = "arn:aws:sts::111122223333:assumed-role/Admin/alice"
MIRROR = single_mirror("MyRepoReplica", "https://dev.azure.com/contoso/Shop/_git/MyRepo").model_copy(
    update={"alarm": Alarm(email="ops@example.com"), "stale_after": 48}
)


def event(name="referenceUpdated", caller=OTHER, ref="refs/heads/main", arn=ARN, **detail):
    """An event with the keys of those that were recorded in accounts; without a caller, as the documentation has it.

    https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html
    """
    kind, short = ("tag" if "/tags/" in ref else "branch"), ref.split("/", 2)[2]
    commits = {"commitId": "ec3a87304850ca25f8e57945c0262ea5c44001ed"}
    if name != "referenceCreated":
        commits["oldCommitId"] = "34baa66383b3493507e5c626cbe0846c7b55f19a"
    if name == "referenceDeleted":
        del commits["commitId"]
    return {
        "version": "0",
        "id": "6bbfdb52-6dd3-ae11-32c5-f40ae9f369dd",
        "detail-type": "CodeCommit Repository State Change",
        "source": "aws.codecommit",
        "account": "111122223333",
        "time": "2021-12-30T16:46:56Z",
        "region": "eu-west-1",
        "resources": [arn],
        "detail": {
            **({"callerUserArn": caller} if caller else {}),
            "event": name,
            "referenceFullName": ref,
            "referenceName": short,
            "referenceType": kind,
            "repositoryId": "de04b8fc-2214-4dc3-9d7a-2fa8c2ba748c",
            "repositoryName": arn.rpartition(":")[2],
            **commits,
            **detail,
        },
    }


MERGE = {
    "baseCommitId": "3e5a9bf1BASE",
    "sourceCommitId": "26a8f2SOURCE",
    "destinationCommitId": "3e5983DESTINATION",
    "mergeOption": "THREE_WAY_MERGE",
    "conflictDetailsLevel": "LINE_LEVEL",
    "conflictResolutionStrategy": "AUTOMERGE",
}


def resolved(value):
    """Put this account's ARNs in place of the template's references."""
    if isinstance(value, dict):
        if "Fn::GetAtt" in value:
            return ARN if "Replica" in value["Fn::GetAtt"][0] else USER
        return {key: resolved(item) for key, item in value.items()}
    return [resolved(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def rules():
    """The two rules of the stack, by the beginning of their logical ids."""
    resources = Template.from_stack(ReplicaStack(cdk.App(), mirror=MIRROR)).to_json()["Resources"]
    return {name[:5]: r["Properties"] for name, r in resources.items() if r["Type"] == "AWS::Events::Rule"}


def matches(cloud, rule, given):
    pattern = json.dumps(resolved(rule["EventPattern"]))
    return cloud.client("events").test_event_pattern(EventPattern=pattern, Event=json.dumps(given))["Result"]


@pytest.mark.parametrize("name", ["referenceCreated", "referenceUpdated", "referenceDeleted"])
def test_a_change_by_somebody_else_is_told(cloud, rules, name):
    assert matches(cloud, rules["Tampe"], event(name))
    assert matches(cloud, rules["Tampe"], event(name, ref="refs/tags/v1"))
    assert matches(cloud, rules["Tampe"], event(name, caller=None))
    assert matches(cloud, rules["Tampe"], event(name, caller="arn:aws:iam::111122223333:user/gitlab", **MERGE))
    assert matches(cloud, rules["Tampe"], event(name, caller=f"{USER}2"))
    assert not matches(cloud, rules["Tampe"], event(name, caller=USER))
    assert not matches(cloud, rules["Tampe"], event(name, arn=ARN + "2"))


def test_nothing_else_is_told(cloud, rules):
    assert not matches(cloud, rules["Tampe"], event("unreferencedMergeCommitCreated"))
    comment = {**event(), "detail-type": "CodeCommit Comment on Commit"}
    assert not matches(cloud, rules["Tampe"], comment)


def test_only_the_confirming_tag_of_the_mirrors_user_counts(cloud, rules):
    rule = rules["Stale"]
    assert matches(cloud, rule, event("referenceCreated", USER, CONFIRMED))
    assert matches(cloud, rule, event("referenceDeleted", USER, CONFIRMED))
    assert matches(cloud, rule, event("referenceCreated", None, CONFIRMED))
    assert not matches(cloud, rule, event("referenceCreated", OTHER, CONFIRMED))
    assert not matches(cloud, rule, event("referenceCreated", USER, "refs/tags/v1"))
    assert not matches(cloud, rule, event("referenceUpdated", USER))


def test_the_message_says_who_which_ref_from_and_to(rules):
    (target,) = rules["Tampe"]["Targets"]
    paths, template = target["InputTransformer"]["InputPathsMap"], target["InputTransformer"]["InputTemplate"]
    shown = template
    for variable, path in paths.items():
        value = event()
        for part in path.split(".")[1:]:
            value = value[part]
        shown = shown.replace(f"<{variable}>", value)
    assert "<" not in shown
    for words in (
        OTHER,
        "referenceUpdated refs/heads/main",
        "from 34baa66383b3493507e5c626cbe0846c7b55f19a to ec3a8730",
    ):
        assert words in shown
    assert shown.startswith('"Somebody other than the mirror changed the replica MyRepoReplica: ')


def test_the_stack_with_alarms_deploys_and_goes(cloud):
    document = Template.from_stack(ReplicaStack(cdk.App(), mirror=MIRROR)).to_json()
    del document["Parameters"], document["Rules"]
    cloudformation = cloud.client("cloudformation")
    cloudformation.create_stack(
        StackName="alarms", TemplateBody=json.dumps(document), Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName="alarms", WaiterConfig={"Delay": 1})
    (alarm,) = cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    (rule,) = [r for r in cloud.client("events").list_rules()["Rules"] if "did not fail" in r["Description"]]
    assert alarm["Dimensions"] == [{"Name": "RuleName", "Value": rule["Name"]}]
    assert (alarm["TreatMissingData"], alarm["EvaluationPeriods"], alarm["Period"]) == ("breaching", 48, 3600)
    (topic,) = cloud.client("sns").list_topics()["Topics"]
    assert alarm["AlarmActions"] == [topic["TopicArn"]]
    cloudformation.delete_stack(StackName="alarms")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="alarms", WaiterConfig={"Delay": 1})
    assert cloud.client("cloudwatch").describe_alarms()["MetricAlarms"] == []


def test_each_run_confirms_once_also_when_there_is_nothing_to_push(rig):
    sample.fill(rig.source)
    watched = rig.mirror.model_copy(update={"stale_after": 48})
    for expected in (True, False, True):
        assert rig.run(mirror=watched).result == "succeeded"
        assert (CONFIRMED in sample.refs(rig.replica)) is expected
        operator = rig.operator()
        assert verification.compare(rig.mirror, rig.outputs["ReplicaUrl"], operator.aws, operator.token).different == []
    assert rig.run().result == "succeeded"
    assert CONFIRMED in sample.refs(rig.replica)


def test_sync_confirms_as_a_run_does(rig):
    sample.fill(rig.source)
    values = {name: variable.value for name, variable in rig.variables.items()}
    watched = rig.mirror.model_copy(update={"stale_after": 48})
    assert engine.settings(watched, rig.outputs["ReplicaUrl"], values, None).confirm
    assert not engine.settings(rig.mirror, rig.outputs["ReplicaUrl"], values, None).confirm


def test_a_run_that_fails_confirms_nothing(rig):
    sample.fill(rig.source)
    watched = rig.mirror.model_copy(update={"stale_after": 48})
    failed = rig.run(mirror=watched, AZURE_GIT_PASSWORD="wrong")
    assert failed.result == "failed"
    assert CONFIRMED not in sample.refs(rig.replica)


def test_a_tag_of_that_name_at_the_source_is_not_the_replicas(rig):
    sample.fill(rig.source)
    sample.git(rig.source, "update-ref", CONFIRMED, "refs/heads/feature/0")
    assert rig.run().result == "succeeded"
    assert CONFIRMED not in sample.refs(rig.replica)
