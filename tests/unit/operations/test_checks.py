"""How a mirror is judged: named checks, each with its verdict and remedy."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.aws.git_credentials import Credential
from codecommit_mirror.aws.stack import ReplicaOutputs, ReplicaStackState
from codecommit_mirror.aws.writer import PipelineRecord
from codecommit_mirror.azure import connection
from codecommit_mirror.azure.pipeline import engine_in, render, written_by_newer
from codecommit_mirror.azure.rest.objects import NO_OBJECT, BranchPolicy, Build, Definition, PullRequest, PushedRef
from codecommit_mirror.azure.variables import HELD_CREDENTIAL, HeldCredential, plain_variable
from codecommit_mirror.backup.coverage import Subscriptions, Unguarded
from codecommit_mirror.checks import reading
from codecommit_mirror.checks.judging import Limits, duration, judge
from codecommit_mirror.checks.reading import Readings
from codecommit_mirror.cli.status import as_object, exit_status, group_errors, group_notes
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.operations.verification import Comparison

from .states import azure_state

MINIMUM = "fa4e907d-c16b-4a4c-9dfa-4906e5d171dd"
REVIEWED = {
    "minimumApproverCount": 1,
    "creatorVoteCounts": False,
    "blockLastPusherVote": True,
    "resetOnSourcePush": True,
}
NOW = datetime(2026, 1, 10, tzinfo=UTC)
LIMITS = Limits(NOW, timedelta(hours=1), 90)
MIRROR = single_mirror("M", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
ALLOWED = render(MIRROR).replace("    default: false\n", "    default: true\n")
FIXED = render(MIRROR).replace("MIRROR_ALLOW_DELETIONS: ${{ parameters.allowDeletions }}", "MIRROR_ALLOW_DELETIONS: 1")
URL = "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/M"
OUTPUTS = ReplicaOutputs(URL, "arn:M", "user", "policy")
EQUAL = Comparison({"a": "1", "b": "2"}, {"a": "1", "b": "2"})
NAMES = [
    *("stack", "drift", "permissions", "source", "credential", "pipeline", "YAML", "engine", "trigger"),
    *("run", "replica", "lag", "snapshot", "drill", "subscription", "LFS"),
]


def ago(**length):
    return NOW - timedelta(**length)


def build(result, build_status="completed"):
    return Build(7, build_status, result, "schedule", "main", ago(hours=2), ago(hours=1))


def credential(identifier="HELD", status="Active", days=2):
    return Credential(identifier, "u", status, datetime.now(UTC) - timedelta(days=days))


def azure(**changes):
    todo = connection.plan(MIRROR, azure_state(), URL, {}, pull_request=False)
    held = {HELD_CREDENTIAL: plain_variable(HeldCredential("HELD").to_json())}
    body = {**todo.body, **changes.pop("body", {}), "variables": held}
    return azure_state(**{"definition": Definition(1, body), "text": todo.yaml, **changes})


def well(**changes):
    values = {
        "account": "111122223333",
        "region": "eu-west-1",
        "stack": ReplicaStackState("CREATE_COMPLETE", False, OUTPUTS, {}, ("IN_SYNC", ago(days=1))),
        "credentials": (credential(),),
        "foreign_rights": [],
        "azure": azure(),
        "last_run": build("succeeded"),
        "comparison": EQUAL,
    }
    return Readings(MIRROR, **{**values, **changes})


def checks(readings, limits=LIMITS):
    return {check.name: check for check in judge(readings, limits).checks}


def test_a_mirror_that_is_well_has_every_check_and_no_warning():
    judged = judge(well(), LIMITS)
    assert [check.name for check in judged.checks] == NAMES
    assert (judged.verdict, judged.notable) == ("ok", [])
    assert {check.name for check in judged.checks if check.verdict == "not checked"} == {
        "snapshot",
        "drill",
        "subscription",
    }


STACK = ReplicaStackState("CREATE_COMPLETE", False, OUTPUTS)
BEHIND = Comparison({"a": "1", "b": "2"}, {"a": "1"})


@pytest.mark.parametrize(
    ("changes", "name", "verdict", "words"),
    [
        ({"stack": replace(STACK, status="UPDATE_FAILED")}, "stack", "failed", "is UPDATE_FAILED"),
        ({"stack": STACK}, "drift", "not checked", "has not looked for drift"),
        (
            {"stack": replace(STACK, drift=("DRIFTED", ago(hours=3))), "drifted": ["User"]},
            "drift",
            "warning",
            "User drifted, as of 3 h ago",
        ),
        (
            {"foreign_rights": ["the access key AKIA"]},
            "permissions",
            "warning",
            "the user also has the access key AKIA",
        ),
        ({"foreign_rights": None}, "permissions", "not checked", "--deep"),
        ({"record": PipelineRecord("p", 1, "another")}, "source", "failed", "so it is another repository"),
        ({"credentials": ()}, "credential", "failed", "is gone or inactive"),
        ({"credentials": (credential(status="Inactive"),)}, "credential", "failed", "is gone or inactive"),
        ({"credentials": (credential("OTHER"),)}, "credential", "failed", "is gone or inactive"),
        ({"credentials": (credential(days=91),)}, "credential", "warning", "91 days old"),
        ({"azure": azure(definition=None)}, "pipeline", "failed", "there is none"),
        ({"azure": azure(body={"queueStatus": "paused"})}, "pipeline", "failed", "is disabled or paused"),
        ({"azure": azure(text=None)}, "YAML", "failed", "is not there"),
        ({"azure": azure(text="edited")}, "YAML", "warning", "is not what this version renders"),
        ({"azure": azure(text=ALLOWED)}, "YAML", "warning", "lets every run delete most of the replica's refs"),
        ({"azure": azure(text=FIXED)}, "YAML", "warning", "lets every run delete most of the replica's refs"),
        ({"azure": azure(text=None, pull_request=PullRequest(5))}, "YAML", "warning", "is in pull request 5"),
        ({"azure": azure(body={"triggers": []})}, "trigger", "warning", "overrides the YAML's trigger"),
        ({"last_run": None}, "run", "failed", "it has never run"),
        ({"last_run": build("failed")}, "run", "failed", "run 7 failed 1 h ago"),
        ({"last_run": build("partiallySucceeded")}, "run", "warning", "run 7 succeeded with issues 1 h ago"),
        ({"last_run": build(None, "inProgress")}, "run", "ok", "run 7 is inProgress"),
        ({"comparison": None, "replica_is_gone": True, "error": "was deleted"}, "replica", "failed", "was deleted"),
        ({"comparison": BEHIND, "since": ago(minutes=5)}, "lag", "ok", "1 ref differs, behind for 5 min"),
        ({"comparison": BEHIND, "since": ago(hours=5)}, "lag", "warning", "1 ref differs, behind for 5 h"),
        ({"comparison": BEHIND}, "lag", "warning", "1 ref differs"),
        ({"azure": azure(lfs=True)}, "LFS", "warning", "the source uses Git LFS"),
    ],
)
def test_what_is_not_in_order_is_one_named_check(changes, name, verdict, words):
    found = checks(well(**changes))
    assert found[name].verdict == verdict
    assert words in found[name].message
    others = {check.name for check in found.values() if check.verdict in ("failed", "warning")} - {name}
    assert others <= ({"run", "credential", "trigger"} if name == "pipeline" else set()), others
    if verdict in ("failed", "warning") and name not in ("LFS", "replica"):
        assert found[name].remedy


def test_a_role_has_no_credential_that_could_be_gone():
    role = replace(OUTPUTS, push_user_name=None, push_role_arn="arn:aws:iam::1:role/r")
    found = checks(well(stack=replace(STACK, outputs=role), credentials=()))
    assert found["credential"].verdict == "ok"
    assert "the role may push" in found["permissions"].message


def test_what_is_not_deployed_has_one_failure_and_what_is_unguarded_a_warning():
    judged = judge(Readings(MIRROR), LIMITS)
    assert [(check.name, check.verdict) for check in judged.notable] == [("stack", "failed")]
    limits = replace(LIMITS, unguarded=Unguarded("the guard is not deployed in r", "cdk deploy g"), has_guard=True)
    found = checks(well(), limits)["snapshot"]
    assert (found.verdict, found.message, found.remedy) == (
        "warning",
        "the guard is not deployed in r",
        "cdk deploy g",
    )


@pytest.mark.parametrize(
    ("subscriptions", "verdict", "message"),
    [
        (None, "not checked", "status NAME, or --deep, reads them"),
        (Subscriptions(1, 0), "ok", "1 subscriber of the guard's messages"),
        (Subscriptions(1, 2), "warning", "2 are not confirmed"),
        (Subscriptions(0, 0), "warning", "the guard's messages have no subscriber"),
    ],
)
def test_whom_the_guards_messages_reach(subscriptions, verdict, message):
    found = checks(well(), replace(LIMITS, has_guard=True, subscriptions=subscriptions))["subscription"]
    assert (found.verdict, found.message) == (verdict, message)


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
    assert reading.behind_since(pushes, source, replica) == ago(minutes=5)
    assert reading.behind_since(pushes, source, source) is None
    assert reading.behind_since([], source, replica) is None


@given(st.integers(min_value=0, max_value=10**7))
def test_a_duration_is_short(seconds):
    number, unit = duration(timedelta(seconds=seconds)).split()
    assert int(number) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[unit] <= seconds


def test_json_has_what_scripts_ask_for():
    judged = judge(well(comparison=BEHIND, since=ago(seconds=90)), LIMITS)
    found = as_object(judged, NOW)
    assert (found["verdict"], found["lag_seconds"], found["different"]) == ("ok", 90, 1)
    assert (found["account"], found["organization"], found["last_run"]["result"]) == (
        "111122223333",
        "contoso",
        "succeeded",
    )
    assert {check["name"]: check["link"] for check in found["checks"]}["run"] == (
        "https://dev.azure.com/contoso/Shop/_build/results?buildId=7"
    )


def test_what_could_not_be_read_has_failed_and_the_rest_is_not_checked():
    blind = Readings(MIRROR, stack=STACK, credentials=(credential(),), error="cannot find the repository: wrong token.")
    judged = judge(blind, LIMITS)
    assert [(check.verdict, check.message) for check in judged.notable] == [("failed", blind.error)]
    assert {check.verdict for check in judged.checks} == {"ok", "failed", "not checked"}


def test_the_exit_status_is_that_of_the_worst_check():
    ok, warned, failed = (judge(r, LIMITS) for r in (well(), well(azure=azure(lfs=True)), well(last_run=None)))
    assert exit_status([ok]) == 0
    assert exit_status([ok, warned]) == 3
    assert exit_status([warned, failed]) == 1
    assert exit_status([]) == 0


def test_one_cause_is_reported_once_for_all_mirrors():
    def unread(name, error):
        return judge(Readings(MIRROR.model_copy(update={"name": name}), error=error), LIMITS)

    bad = [unread(name, f"cannot find the repository {name!r} of o/p: the token is wrong.") for name in "AB"]
    other = unread("C", "cannot read the stack C: AWS denies it.")
    assert group_errors([*bad, other, judge(well(), LIMITS)]) == {
        "the token is wrong.": ["A", "B"],
        "AWS denies it.": ["C"],
    }


def test_what_concerns_many_mirrors_is_said_once():
    def judged(name, **changes):
        return judge(replace(well(**changes), mirror=MIRROR.model_copy(update={"name": name})), LIMITS)

    notes = group_notes([judged("A.b", last_run=None), judged("C", last_run=None), judged("D", azure=azure(lfs=True))])
    never = ("failed: run: it has never run", "codecommit-mirror up NAME")
    assert notes[never] == ["A.b", "C"]
    (lfs,) = [key for key in notes if "LFS" in key[0]]
    assert notes[lfs] == ["D"]
    alone = group_notes([judged("A.b", last_run=None)])
    assert alone[("failed: run: it has never run", "codecommit-mirror up A.b")] == ["A.b"]


@pytest.mark.parametrize(
    ("kind", "settings", "asks"),
    [
        (MINIMUM, REVIEWED, True),
        (MINIMUM, {**REVIEWED, "resetOnSourcePush": False, "requireVoteOnLastIteration": True}, True),
        (MINIMUM, {**REVIEWED, "creatorVoteCounts": True}, False),
        (MINIMUM, {**REVIEWED, "blockLastPusherVote": False}, False),
        (MINIMUM, {**REVIEWED, "resetOnSourcePush": False}, False),
        (MINIMUM, {**REVIEWED, "minimumApproverCount": 0}, False),
        (MINIMUM, {}, False),
        ("0609b952-1397-4640-95ec-e00a01b2c241", {"buildDefinitionId": 1}, False),
    ],
)
def test_a_policy_counts_as_review_if_somebody_else_has_to_approve_each_change_as_it_is(kind, settings, asks):
    assert BranchPolicy(kind, settings).asks_others is asks


def test_digits_without_end_are_no_version():
    """Whoever may push to the branch would stop every command that reads it."""
    assert engine_in(f"#   engine:  {'9' * 5000}.0.0 sha256:{'a' * 64}\n") is None
    assert written_by_newer(f"#   format:  {'9' * 5000}\n") is None
    assert written_by_newer("#   format:  999999\n") == "has the format 999999"
