"""The alarms: which events they match, by EventBridge's own rules, and what a run does to be counted."""

import hashlib
import json
import time
from datetime import datetime

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.config.mirror import Alarm
from codecommit_mirror.lifecycle import verification
from localcloud import sample
from stacks import ReplicaStack
from tests.program import program

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
    assert matches(cloud, rule, event("referenceCreated", USER, program.CONFIRMED_TAG))
    assert matches(cloud, rule, event("referenceUpdated", USER, program.CONFIRMED_TAG))
    assert matches(cloud, rule, event("referenceCreated", None, program.CONFIRMED_TAG))
    assert not matches(cloud, rule, event("referenceCreated", OTHER, program.CONFIRMED_TAG))
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


def confirmed(rig):
    """Return the lines of the confirming tag's message, as plain git shows them."""
    text = sample.git(rig.replica, "for-each-ref", "--format=%(contents:body)", program.CONFIRMED_TAG)
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def test_each_run_says_anew_what_was_equal_also_when_there_is_nothing_to_push(rig):
    sample.fill(rig.source)
    tags = set()
    for _ in range(2):
        assert rig.run().result == "succeeded"
        tags.add(sample.refs(rig.replica)[program.CONFIRMED_TAG])
        context = rig.context()
        assert verification.compare(rig.mirror, rig.outputs["ReplicaUrl"], context.aws, context.token).different == []
        time.sleep(1)
    assert len(tags) == 2
    listing = sample.git(
        rig.source, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags", "refs/notes"
    )
    said = confirmed(rig)
    assert said["source"] == rig.mirror.azure.clone_url
    assert said["refs"] == str(len(listing.splitlines()))
    assert said["sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    assert abs(datetime.fromisoformat(said["time"]).timestamp() - time.time()) < 60
    sample.git(rig.replica, "fsck", "--full", "--strict")


def test_a_run_that_fails_confirms_nothing(rig):
    sample.fill(rig.source)
    assert rig.run(AZURE_GIT_PASSWORD="wrong").result == "failed"
    assert program.CONFIRMED_TAG not in sample.refs(rig.replica)


@pytest.mark.parametrize(
    "name",
    [program.CONFIRMED_TAG, f"{program.OWN_PREFIX}archive/x", f"{program.OWN_PREFIX}mine", f"refs/tags/{'ab' * 20}"],
)
def test_a_tag_that_the_replica_cannot_take_is_reported_and_the_rest_is_mirrored(rig, name):
    sample.fill(rig.source)
    tip = sample.git(rig.source, "rev-parse", "feature/0").strip()
    sample.git(rig.source, "update-ref", name, tip)
    run = rig.run()
    assert run.result == "succeededWithIssues", run.text
    ((kind, words),) = run.issues
    assert kind == "warning"
    assert words.startswith(f"{name}: ")
    assert words.endswith("rename the tag at the source")
    assert sample.refs(rig.replica).get(name) != tip
    sample.git(rig.source, "update-ref", "-d", name)
    rig.assert_equal()
