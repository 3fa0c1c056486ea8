"""The guard cannot be silenced quietly: it compares itself hourly, and one replica spoils its own look only."""

import json
import zlib

import pytest

from localcloud import sample

from ..conftest import Rig, counter
from .conftest import GUARD

pytestmark = pytest.mark.long("guard")

SUBJECT = "The guard itself was changed"


def told(guarded):
    """Let the guard look, and return what it says of itself since the last time."""
    before = len([mail for mail in guarded.cloud.mail() if mail["subject"] == SUBJECT])
    assert "errorMessage" not in guarded.invoke(task="check")
    guarded.mails("nobody")
    return [mail["body"] for mail in guarded.cloud.mail() if mail["subject"] == SUBJECT][before:]


@pytest.fixture
def quiet(guarded):
    """A guard that has looked at itself, and is put right again."""
    told(guarded)
    assert told(guarded) == []
    return guarded


def test_a_disabled_rule(quiet):
    events = quiet.cloud.client("events")
    (rule,) = (r["Name"] for r in events.list_rules()["Rules"] if "Changes" in r["Name"])
    events.disable_rule(Name=rule)
    (said,) = told(quiet)
    assert f"rule {rule} was changed" in said
    assert told(quiet) == []
    events.enable_rule(Name=rule)
    assert len(told(quiet)) == 1


def test_a_rule_that_goes_elsewhere(quiet):
    events = quiet.cloud.client("events")
    (rule,) = (r["Name"] for r in events.list_rules()["Rules"] if "Changes" in r["Name"])
    targets = events.list_targets_by_rule(Rule=rule)["Targets"]
    events.remove_targets(Rule=rule, Ids=[target["Id"] for target in targets])
    (said,) = told(quiet)
    assert f"rule {rule} is gone" in said
    events.put_targets(Rule=rule, Targets=targets)
    assert len(told(quiet)) == 1


def test_settings_of_the_function(quiet):
    client = quiet.cloud.client("lambda")
    was = quiet.environment()
    client.update_function_configuration(
        FunctionName=GUARD, Environment={"Variables": {**was, "STALE_AFTER_HOURS": "87600"}}
    )
    (said,) = told(quiet)
    assert "function: settings was changed" in said
    client.update_function_configuration(FunctionName=GUARD, Environment={"Variables": was})
    assert len(told(quiet)) == 1


def test_how_the_function_is_called(quiet):
    client = quiet.cloud.client("lambda")
    statement = json.loads(client.get_policy(FunctionName=GUARD)["Policy"])["Statement"][0]
    config = client.get_function_event_invoke_config(FunctionName=GUARD)
    client.put_function_concurrency(FunctionName=GUARD, ReservedConcurrentExecutions=1)
    client.remove_permission(FunctionName=GUARD, StatementId=statement["Sid"])
    client.delete_function_event_invoke_config(FunctionName=GUARD)
    (said,) = told(quiet)
    assert "function: concurrency was changed" in said
    assert "function: what fails goes was changed" in said
    assert "function: who may call it was changed" in said
    client.delete_function_concurrency(FunctionName=GUARD)
    client.add_permission(
        FunctionName=GUARD,
        StatementId=statement["Sid"],
        Action=statement["Action"],
        Principal=statement["Principal"]["Service"],
        SourceArn=statement["Condition"]["ArnLike"]["AWS:SourceArn"],
    )
    client.put_function_event_invoke_config(FunctionName=GUARD, DestinationConfig=config["DestinationConfig"])
    assert len(told(quiet)) == 1


def test_only_a_look_that_was_made_keeps_the_alarm_on_silence_quiet(quiet):
    alarms = quiet.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    silence = next(alarm for alarm in alarms if "Silence" in alarm["AlarmName"])
    assert (silence["MetricName"], silence["TreatMissingData"]) == ("Looks", "breaching")
    metrics = quiet.cloud.client("cloudwatch").list_metrics(Namespace=silence["Namespace"])["Metrics"]
    assert "Looks" in {metric["MetricName"] for metric in metrics}


def test_the_vaults_policy_and_encryption_and_the_keys_policy(quiet):
    s3, kms = quiet.session_as(quiet.deployer).client("s3"), quiet.cloud.client("kms")
    policy = s3.get_bucket_policy(Bucket=quiet.bucket)["Policy"]
    key_policy = kms.get_key_policy(KeyId=quiet.key, PolicyName="default")["Policy"]
    wider = json.loads(policy)
    wider["Statement"].pop()
    s3.put_bucket_policy(Bucket=quiet.bucket, Policy=json.dumps(wider))
    kms.put_key_policy(KeyId=quiet.key, PolicyName="default", Policy=key_policy.replace("NobodyElseSigns", "Others"))
    (said,) = told(quiet)
    assert "signing key: policy was changed\n  vault: policy was changed" in said
    s3.put_bucket_policy(Bucket=quiet.bucket, Policy=policy)
    kms.put_key_policy(KeyId=quiet.key, PolicyName="default", Policy=key_policy)
    assert len(told(quiet)) == 1


def test_an_alarm_without_its_action(quiet):
    cloudwatch = quiet.cloud.client("cloudwatch")
    alarms = cloudwatch.describe_alarms()["MetricAlarms"]
    alarm = next(one for one in alarms if "Silence" in one["AlarmName"])
    cloudwatch.disable_alarm_actions(AlarmNames=[alarm["AlarmName"]])
    (said,) = told(quiet)
    assert f"alarm {alarm['AlarmName']} was changed" in said
    cloudwatch.enable_alarm_actions(AlarmNames=[alarm["AlarmName"]])
    assert len(told(quiet)) == 1


def test_a_topic_that_nobody_hears_is_an_alarm_of_its_own(quiet):
    sns, cloudwatch = quiet.cloud.client("sns"), quiet.cloud.client("cloudwatch")
    subscriptions = sns.list_subscriptions_by_topic(TopicArn=quiet.topic)["Subscriptions"]
    (confirmed,) = (one for one in subscriptions if one["SubscriptionArn"].startswith("arn:"))
    sns.unsubscribe(SubscriptionArn=confirmed["SubscriptionArn"])
    quiet.invoke(task="check")
    unheard = next(a for a in cloudwatch.describe_alarms()["MetricAlarms"] if "Unheard" in a["AlarmName"])
    assert (unheard["MetricName"], unheard.get("AlarmActions", [])) == ("Subscribers", [])
    sns.subscribe(TopicArn=quiet.topic, Protocol=confirmed["Protocol"], Endpoint=confirmed["Endpoint"])
    # Others may be pending.
    quiet.cloud.aws.confirm_subscriptions(confirmed["Endpoint"])


def test_a_tag_that_unpacks_to_a_gigabyte_spoils_no_other_replicas_look(guarded, rig, stack_template):
    other = Rig(guarded.cloud, f"replica-{next(counter)}", stack_template)
    for one in (rig, other):
        sample.fill(one.source)
        one.run()
    commit = sample.refs(rig.replica)["refs/heads/main"]
    bomb = f"object {commit}\ntype commit\ntag x\ntagger x <x> 0 +0000\n\n".encode() + bytes(800 * 1024 * 1024)
    name = sample.git(rig.replica, "hash-object", "-t", "tag", "-w", "--literally", "--stdin", stdin=bomb).strip()
    assert len(zlib.compress(bomb, 1)) < 5 * 1024 * 1024
    sample.git(rig.replica, "update-ref", "refs/tags/codecommit-mirror/confirmed", name)
    answer = guarded.invoke(task="check")
    assert "errorMessage" not in answer, answer
    guarded.cloud.client("codecommit").delete_repository(repositoryName=rig.name)
