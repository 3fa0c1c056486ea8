"""How a mirror is judged."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.aws.git_credentials import Credential
from codecommit_mirror.aws.stack import ReplicaStackState
from codecommit_mirror.azure.client import NO_OBJECT, Build, Definition, PushedRef
from codecommit_mirror.azure.variables import HELD_CREDENTIAL, HeldCredential, plain_variable
from codecommit_mirror.checks import status
from codecommit_mirror.checks.status import Status
from codecommit_mirror.cli.status import as_object, exit_status, group_errors
from codecommit_mirror.operations.verification import Comparison

from .states import azure_state

NOW = datetime(2026, 1, 10, tzinfo=UTC)


def ago(**length):
    return NOW - timedelta(**length)


def build(result, build_status="completed"):
    return Build(7, build_status, result, "schedule", "main", ago(hours=2), ago(hours=1))


def well(**changes):
    values = {"stack": "CREATE_COMPLETE", "credentials": 1, "credential_age_days": 3, "pipeline": "p", "refs": 5}
    return Status("M", **{**values, "last_run": build("succeeded"), "different": 0, **changes})


def judge(one):
    return status.attention(one, now=NOW, longest_lag=timedelta(hours=1), oldest_days=90)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"stack": None, "pipeline": None, "last_run": None}, ["not deployed"]),
        ({"stack": "UPDATE_FAILED"}, ["the stack is UPDATE_FAILED"]),
        ({"pipeline": None, "last_run": None}, ["no pipeline"]),
        ({"last_run": None}, ["never run"]),
        ({"last_run": build("failed")}, ["run 7 failed"]),
        ({"last_run": build("partiallySucceeded")}, []),
        ({"last_run": build(None, "inProgress")}, []),
        ({"different": 2, "behind_since": ago(minutes=5)}, []),
        ({"different": 2, "behind_since": ago(hours=5)}, ["2 refs differ, behind for 5 h"]),
        ({"enabled": False}, ["the pipeline is disabled or paused"]),
        ({"different": 2}, ["2 refs differ"]),
        ({"credential_age_days": 91}, ["the credential is 91 days old"]),
        ({"different": 1}, ["1 ref differs"]),
        ({"error": "cannot look"}, []),
    ],
)
def test_who_needs_attention(changes, reasons):
    assert judge(well(**changes)) == reasons


def push(name, new, **length):
    return PushedRef(f"refs/heads/{name}", new, ago(**length))


def test_the_replica_is_behind_since_the_oldest_push_that_it_lacks():
    source = {"refs/heads/a": "3", "refs/heads/b": "1", "refs/heads/c": "9"}
    replica = {"refs/heads/a": "1", "refs/heads/b": "1", "refs/heads/gone": "5"}
    pushes = [
        push("b", "1", minutes=1),
        push("gone", NO_OBJECT, minutes=2),
        push("a", "3", minutes=3),
        push("c", "9", minutes=4),
        push("a", "2", minutes=5),
        push("gone", "5", minutes=6),
        push("a", "1", minutes=7),
        push("a", "0", minutes=8),
    ]
    assert status.behind_since(pushes, source, replica) == ago(minutes=5)
    assert status.behind_since(pushes, source, source) is None
    assert status.behind_since([], source, replica) is None


@given(st.integers(min_value=0, max_value=10**7))
def test_a_duration_is_short(seconds):
    number, unit = status.duration(timedelta(seconds=seconds)).split()
    assert int(number) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[unit] <= seconds


def test_json_has_what_scripts_ask_for():
    found = as_object(well(different=1, behind_since=ago(seconds=90)), ["why"], NOW)
    assert (found["healthy"], found["lag_seconds"], found["different"]) == (False, 90, 1)
    assert found["last_run"]["result"] == "succeeded"
    assert as_object(well(), [], NOW)["healthy"] is True


def test_what_could_not_be_read_is_unknown_and_not_well():
    unknown = well(error="cannot find the repository 'r': the token is wrong.")
    assert as_object(unknown, [], NOW)["healthy"] is None
    assert exit_status([(well(), [])]) == 0
    assert exit_status([(well(), []), (unknown, [])]) == 3
    assert exit_status([(well(), ["not deployed"]), (unknown, [])]) == 1


def test_one_cause_is_reported_once_for_all_mirrors():
    bad = [Status(name, error=f"cannot find the repository {name!r} of o/p: the token is wrong.") for name in "AB"]
    other = Status("C", error="cannot read the stack C: AWS denies it.")
    assert group_errors([*bad, other, well()]) == {"the token is wrong.": ["A", "B"], "AWS denies it.": ["C"]}


def test_what_was_read_becomes_a_status():
    stack = ReplicaStackState("CREATE_COMPLETE", False, None)
    old, held = (
        Credential(i, "u", "Active", datetime.now(UTC) - timedelta(days=d)) for i, d in (("OLD", 9), ("HELD", 2))
    )
    variables = {HELD_CREDENTIAL: plain_variable(HeldCredential("HELD").to_json())}
    definition = Definition(1, {"name": "p", "variables": variables, "queueStatus": "paused"})
    azure = azure_state(definition)
    comparison = Comparison({"a": "1", "b": "2"}, {"a": "1"}, carried=1)
    readings = status.Readings(stack, [old, held], azure, build("succeeded"), comparison, ago(hours=1))
    found = status.summarize("M", readings)
    assert (found.credentials, found.credential_age_days, found.credential_works) == (2, 2, True)
    assert (found.pipeline, found.enabled, found.refs, found.different, found.carried) == ("p", False, 2, 1, 1)
    gone = status.summarize("M", replace(readings, credentials=[old]))
    assert not gone.credential_works
    unread = status.summarize("M", status.Readings(stack, [old]))
    assert (unread.credential_age_days, unread.pipeline, unread.refs) == (None, None, None)
