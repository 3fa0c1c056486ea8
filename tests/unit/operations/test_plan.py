"""What ``up`` would change: a pure function of what both clouds have and of what is wanted."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.actions import KNOWN_AFTER_APPLY
from codecommit_mirror.aws.git_credentials import Credential
from codecommit_mirror.aws.stack import ReplicaOutputs, ReplicaStackState
from codecommit_mirror.aws.stack_plan import DeployedStack, WantedStack
from codecommit_mirror.aws.template_changes import template_changes
from codecommit_mirror.aws.writer import PipelineRecord
from codecommit_mirror.azure import connection
from codecommit_mirror.azure.rest.objects import Build, Definition, ProjectSettings
from codecommit_mirror.azure.variables import AZURE_SECRETS, HELD_CREDENTIAL, HeldCredential, plain_variable
from codecommit_mirror.cli.results import markdown_plan
from codecommit_mirror.config.ci import PROVISIONED_FROM, REPLICA, SOURCE_METADATA
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.operations.batches import Policy
from codecommit_mirror.operations.context import MirrorContext
from codecommit_mirror.operations.down import removed_mirror
from codecommit_mirror.operations.plan import CONNECT, CREDENTIAL, DEPLOY, FINISH, RUN, UpPlan, plan_up
from codecommit_mirror.operations.preflight import mirror_problems
from codecommit_mirror.operations.state import MirrorState, SharedState, other_source
from codecommit_mirror.operations.up import PlannedMirror, confirm_plan
from codecommit_mirror.operations.verification import Comparison
from codecommit_mirror.progress import Board

from .states import azure_state

MIRROR = single_mirror("M", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
URL = "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/M"
OUTPUTS = ReplicaOutputs(URL, "arn:aws:codecommit:eu-west-1:111122223333:M", "azure-devops-pipeline-M", "policy")
TAGS = {REPLICA: "M"}
TEMPLATE = {"Resources": {"R": {"Type": "AWS::CodeCommit::Repository", "DeletionPolicy": "Delete"}}}
WANTED = WantedStack("M", "M", "111122223333", "eu-west-1", TEMPLATE, TAGS, False)
STACK = ReplicaStackState("CREATE_COMPLETE", False, OUTPUTS, TAGS)
NOW = datetime(2026, 11, 29, tzinfo=UTC)
CREDENTIAL_A = Credential("A", "user-at-1", "Active", NOW)
SUCCEEDED = Build(1, "completed", "succeeded", "manual", "main", NOW, NOW)
EQUAL = Comparison({"refs/heads/main": "1" * 40}, {"refs/heads/main": "1" * 40})


def connected(**changes):
    """Return the Azure side of a mirror whose pipeline is as it should be."""
    empty = azure_state()
    todo = connection.plan(MIRROR, empty, URL, dict.fromkeys(AZURE_SECRETS, "secret"), pull_request=False)
    secret = {"value": None, "isSecret": True}
    variables = {name: secret if value.get("isSecret") else value for name, value in todo.body["variables"].items()}
    held = plain_variable(HeldCredential("A", account="111122223333").to_json())
    variables |= {"AWS_GIT_USERNAME": secret, "AWS_GIT_PASSWORD": secret, HELD_CREDENTIAL: held}
    body = {**todo.body, "id": 7, "revision": 1, "variables": variables}
    return azure_state(**{"definition": Definition(7, body), "text": todo.yaml, **changes})


def state(**changes):
    """Return a mirror that is up."""
    values = {
        "mirror": MIRROR,
        "account": "111122223333",
        "record": PipelineRecord("project", 7, "id"),
        "region": "eu-west-1",
        "stack": STACK,
        "wanted": WANTED,
        "template": None,
        "clone_url": URL,
        "may_read_repository": True,
        "taken_names": (),
        "credentials": (CREDENTIAL_A,),
        "azure": connected(),
        "last_run": SUCCEEDED,
        "proof": SUCCEEDED,
        "comparison": EQUAL,
    }
    return MirrorState(**{**values, **changes})


NEW = {
    "stack": None,
    "clone_url": None,
    "credentials": None,
    "azure": azure_state(),
    "record": None,
    "last_run": None,
    "proof": None,
    "comparison": None,
}


def test_what_is_equal_is_left_alone():
    assert plan_up(state()).all_actions == ()
    assert mirror_problems(state(), Policy()) == []


def test_a_pipeline_that_only_a_roles_tags_name_is_shown_before_it_gets_a_secret():
    planned = plan_up(state(record=PipelineRecord("project", 7, "id", is_of_role=True)))
    (line,) = map(str, planned.actions[CONNECT])
    assert line.endswith(": pipeline 7, which CI may have named -> pipeline 7")


def test_a_new_mirror_gets_everything_and_what_only_aws_knows_is_marked():
    planned = plan_up(state(**NEW))
    assert list(planned.actions) == [DEPLOY, CONNECT, CREDENTIAL, RUN]
    lines = [str(action) for action in planned.all_actions]
    assert lines[0] == "+ stack 'M' in account 111122223333, eu-west-1"
    assert f"+ variable AWS_REPO_URL: {KNOWN_AFTER_APPLY}" in lines
    assert "+ secret variable AZURE_GIT_PASSWORD" in lines
    assert any(line.startswith("+ YAML 'azure-pipelines-mirror.yml' on 'main' of 'MyRepo': ") for line in lines)
    objects = [action.as_object("M") for action in planned.all_actions]
    assert {entry["subject"]: entry["known_after_apply"] for entry in objects}["variable AWS_REPO_URL"]
    json.dumps(objects)


def test_a_person_is_asked_with_each_place_that_changes():
    asked = []
    policy = Policy(lambda question, typed=None: asked.append(question))
    states = [state(**NEW), state(**NEW, account="444455556666", region="eu-central-1")]
    changed = {
        name: PlannedMirror(MirrorContext(MIRROR, {}, Path()), current, plan_up(current), is_proposed=False)
        for name, current in zip("MN", states, strict=True)
    }
    for chosen in (["M"], ["M", "N"]):
        confirm_plan({name: changed[name] for name in chosen}, Board(chosen), policy)
    one = len(plan_up(states[0]).all_actions)
    here, there = "account 111122223333, eu-west-1", "account 444455556666, eu-central-1"
    assert asked == [
        f"Make {one} changes of M in {here}?",
        f"Make {2 * one} changes of 2 mirrors in {here}, and {there}?",
    ]


@pytest.mark.parametrize(
    ("changes", "stage", "line"),
    [
        (
            {"stack": replace(STACK, tags={}), "template": {}},
            DEPLOY,
            "~ stack 'M' in account 111122223333, eu-west-1: its template could not be read",
        ),
        (
            {"stack": replace(STACK, tags={}), "template": WANTED.template},
            DEPLOY,
            "~ stack 'M' in account 111122223333, eu-west-1: only tags or termination protection change",
        ),
        ({"stack": replace(STACK, protected=True)}, DEPLOY, "~ stack 'M' in account 111122223333, eu-west-1: "),
        (
            {"stack": replace(STACK, status="UPDATE_FAILED")},
            DEPLOY,
            "~ stack 'M' in account 111122223333, eu-west-1: UPDATE_FAILED",
        ),
        ({"azure": connected(text="edited by hand")}, CONNECT, "~ YAML 'azure-pipelines-mirror.yml'"),
        ({"azure": connected(text=None)}, CONNECT, "+ YAML 'azure-pipelines-mirror.yml'"),
        ({"credentials": ()}, CREDENTIAL, "+ Git credential of 'azure-devops-pipeline-M'"),
        ({"credentials": None}, CONNECT, "+ user 'azure-devops-pipeline-M', which was deleted by hand"),
        ({"last_run": replace(SUCCEEDED, result="failed")}, RUN, "> pipeline, until both sides are equal: since its"),
        (
            {"comparison": Comparison({"refs/heads/main": "2" * 40}, EQUAL.replica)},
            RUN,
            "> pipeline, until both sides are equal: since 1 ref differs",
        ),
    ],
)
def test_whatever_differs_is_planned(changes, stage, line):
    planned = plan_up(state(**changes))
    assert str(planned.actions[stage][0]).startswith(line)
    assert RUN in planned.actions


def test_a_job_queues_a_run_only_where_none_has_shown_that_the_pipeline_works():
    failed = replace(SUCCEEDED, result="failed")
    assert plan_up(state(last_run=failed, comparison=None), waits=False).all_actions == ()
    (run,) = plan_up(state(last_run=failed, proof=None, comparison=None), waits=False).all_actions
    assert str(run) == "> pipeline, once: for the first time"


def test_a_job_queues_no_first_run_of_a_repository_that_was_there_before():
    existing = MIRROR.model_copy(update={"existing": True})
    assert RUN not in plan_up(state(mirror=existing, last_run=None, proof=None, comparison=None), waits=False).actions
    assert RUN in plan_up(state(mirror=existing, last_run=None, proof=None, comparison=None)).actions


def test_without_the_azure_side_only_the_stack_is_planned():
    assert list(plan_up(state(azure=None, stack=None)).actions) == [DEPLOY]
    assert plan_up(state(azure=None)).all_actions == ()


def test_what_a_pipeline_signs_in_with_is_removed_last():
    both = replace(OUTPUTS, push_role_arn="arn:aws:iam::111122223333:role/r")
    planned = plan_up(state(stack=replace(STACK, outputs=both)))
    assert str(planned.actions[FINISH][-1]) == "- role that the pipeline no longer needs"
    assert RUN in planned.actions


def test_nothing_beyond_what_was_shown_is_done():
    shown, later = plan_up(state(azure=connected(text=None))), plan_up(state(azure=connected(definition=None)))
    assert shown.beyond(shown) == []
    assert any("pipeline 'codecommit-mirror-M'" in action.subject for action in later.beyond(shown))
    known = UpPlan({CONNECT: tuple(replace(action, after="known") for action in shown.actions[CONNECT])})
    assert known.beyond(shown) == []


REPOSITORY = "AWS::CodeCommit::Repository"


def test_changes_of_rights_come_first_with_their_new_statements():
    statement = {"Effect": "Allow", "Action": "codecommit:GitPush", "Resource": "*"}
    policy = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": {"Statement": [statement]}}}
    wider = {**statement, "Action": "codecommit:*"}
    widened = {**policy, "Properties": {"PolicyDocument": {"Statement": [statement, wider]}}}
    before = {"Resources": {"R": {"Type": REPOSITORY, "Properties": {"RepositoryDescription": "a"}}, "P": policy}}
    after = {"Resources": {"R": {"Type": REPOSITORY, "Properties": {"RepositoryDescription": "b"}}, "P": widened}}
    first, second = template_changes(before, after)
    assert str(first).startswith("~ AWS::IAM::ManagedPolicy P: PolicyDocument; ")
    assert '"codecommit:*"' in str(first)
    assert '"codecommit:GitPush"' not in str(first)
    assert str(second) == f"~ {REPOSITORY} R: RepositoryDescription"


@pytest.mark.parametrize(("policy", "destructive"), [({}, True), ({"DeletionPolicy": "Retain"}, False)])
def test_a_repository_that_goes_is_destructive_unless_it_is_retained(policy, destructive):
    (action,) = template_changes({"Resources": {"R": {"Type": REPOSITORY, **policy}}}, {"Resources": {}})
    assert (action.verb, action.is_destructive) == ("delete", destructive)


@pytest.mark.parametrize(("policy", "stops"), [({}, True), ({"DeletionPolicy": "Retain"}, False)])
def test_a_stack_that_would_delete_its_repository_is_not_deployed(policy, stops):
    """With existing: true the template has no repository, and CloudFormation would take that for a deletion."""
    existing = MIRROR.model_copy(update={"existing": True})
    deployed = {"Resources": {"R": {"Type": REPOSITORY, **policy}}}
    wanted = replace(WANTED, template={"Resources": {}}, tags={**TAGS, "digest": "other"})
    problems = mirror_problems(state(mirror=existing, wanted=wanted, template=deployed, azure=None), Policy())
    assert any("CloudFormation would delete it" in problem for problem in problems) is stops


OWNER, ACCOUNT = "github.com/contoso/mirrors", "1"
OWN = {PROVISIONED_FROM: OWNER}


def deployed(name, **changes):
    return replace(DeployedStack(name, "r", "CREATE_COMPLETE", {**OWN, REPLICA: name}, False), **changes)


def wanted(name, **changes):
    return replace(WantedStack(name, name, "1", "r", {}, {**OWN, REPLICA: name}, False), **changes)


def test_only_what_was_provisioned_from_here_is_removed():
    theirs = deployed("theirs", tags={PROVISIONED_FROM: "github.com/contoso/other", REPLICA: "theirs"})
    by_hand = deployed("by-hand", tags={REPLICA: "by-hand"})
    shared = SharedState(OWNER, ACCOUNT, (deployed("gone"), theirs, by_hand, deployed("x", tags={})))
    assert list(shared.removed([])) == ["gone"]


def test_a_mirror_that_moved_to_another_region_has_to_go_first():
    shared, there = SharedState(OWNER, ACCOUNT, (deployed("a"),)), wanted("a", region="s")
    (problem,) = shared.problems(there, [there])
    assert "remove this mirror from mirrors.yaml, deploy that change and approve the removal" in problem
    assert shared.removed([there]) == {}


def test_a_stack_of_another_repositorys_mirror_is_not_touched():
    shared = SharedState(OWNER, ACCOUNT, (deployed("a", tags={REPLICA: "a", PROVISIONED_FROM: "github.com/o/other"}),))
    (problem,) = shared.problems(wanted("a"), [wanted("a")])
    assert "is taken by another repository's mirror" in problem


names = st.sets(st.text("abc", min_size=1, max_size=3))


@given(names, names, names)
def test_nothing_that_is_wanted_is_removed(in_file, there, of_others):
    stacks = [deployed(name) for name in there] + [deployed(name, tags={}) for name in of_others - there]
    shared = SharedState(OWNER, ACCOUNT, tuple(stacks))
    assert set(shared.removed([wanted(name) for name in in_file])) == there - in_file


def test_a_removed_mirror_is_known_by_its_template():
    source = {"azure": {"organization": "o", "project": "p", "repository": "r"}}
    template = {
        "Metadata": {"codecommit-mirror:source": {**source, "source_auth": "job-token", "replica_auth": "role"}}
    }
    mirror, stores_secrets = removed_mirror("a", template)
    assert (mirror.azure.repository, stores_secrets) == ("r", False)
    assert removed_mirror("a", {}) == (None, True)
    assert removed_mirror("a", {"Metadata": {"codecommit-mirror:source": source}})[1]


@given(st.lists(st.text("`a#\n", min_size=1), min_size=1))
def test_no_text_breaks_out_of_the_summarys_fence(lines):
    text = markdown_plan(lines, ["1 to create."]).split("\n")
    fences = [line for line in text if re.fullmatch("`{3,}", line)]
    opening = next(line for line in text if line.endswith("text") and line.startswith("```"))
    assert fences.count(opening.removesuffix("text")) == 1


SHOP = {"organization": "contoso", "project": "Shop", "repository": "MyRepo"}


@pytest.mark.parametrize(
    ("record", "deployed", "source_id", "words"),
    [
        (PipelineRecord("p", 1, "id"), SHOP, "id", None),
        (PipelineRecord("p", 1, "id"), {**SHOP, "repository": "Renamed"}, "id", None),
        (
            PipelineRecord("p", 1, "id"),
            SHOP,
            "new",
            "follows the repository with the id id, but contoso/Shop/MyRepo has",
        ),
        (PipelineRecord("p", 1, "id"), SHOP, None, None),
        (PipelineRecord("p", 1, "id"), {**SHOP, "project": "Other"}, None, "follows contoso/Other/MyRepo, but"),
        (None, {**SHOP, "repository": "myrepo"}, "id", None),
        (None, {**SHOP, "organization": "other"}, "id", "follows other/Shop/MyRepo, but mirrors.yaml names contoso/"),
        (None, None, "id", None),
    ],
)
def test_a_source_is_its_id_and_where_that_is_unknown_its_name(record, deployed, source_id, words):
    template = {"Metadata": {SOURCE_METADATA: {"azure": deployed}}} if deployed else None
    problem = other_source(MIRROR, record, template, source_id)
    assert problem is None if words is None else words in problem


def test_another_source_is_a_destructive_change_that_counts_refs():
    refs = Comparison({"a": "1", "b": "2", "c": "3"}, {"b": "0", "c": "3", "d": "4"})
    planned = plan_up(state(record=PipelineRecord("project", 7, "earlier"), comparison=refs))
    change, counts = [action for action in planned.actions[CONNECT] if action.is_destructive]
    assert str(change) == "-/+ source of the replica 'M': repository earlier -> repository id"
    assert counts.after == "1 created, 1 updated, 1 deleted"


@pytest.mark.parametrize(
    ("mirror", "variables", "says_so"),
    [
        ({}, {}, True),
        ({"azure": MIRROR.azure.model_copy(update={"pipelines_repository": "pipelines"})}, {}, False),
        ({"source_auth": "job-token", "replica_auth": "role"}, {}, False),
        ({}, {key: {"isSecret": True} for key in (*AZURE_SECRETS, "AWS_GIT_USERNAME", "AWS_GIT_PASSWORD")}, False),
    ],
)
def test_up_says_who_can_read_a_password_that_it_is_about_to_store(mirror, variables, says_so):
    current = azure_state(Definition(7, {"variables": variables}))
    notes = connection.notes(MIRROR.model_copy(update=mirror), current)
    assert any("anyone who may push a branch to 'MyRepo'" in note for note in notes) == says_so


def test_a_project_where_anyone_sets_variables_gets_no_secret_unless_a_person_accepts_it():
    lax = azure_state(settings=ProjectSettings(False, False))
    (problem,) = connection.find_problems(MIRROR, lax, connection.Allowed())
    assert "'Limit variables that can be set at queue time' is off" in problem
    assert connection.find_problems(MIRROR, lax, connection.Allowed(settable_variables=True)) == []
    assert (
        connection.find_problems(MIRROR, azure_state(settings=ProjectSettings(False, True)), connection.Allowed()) == []
    )
    unseen = azure_state(settings=ProjectSettings(False, None))
    (problem,) = connection.find_problems(MIRROR, unseen, connection.Allowed())
    assert "cannot be seen, since the token lacks the scope Project and team (read)" in problem
    assert connection.find_problems(MIRROR, unseen, connection.Allowed(settable_variables=True)) == []


def test_of_a_template_that_cannot_be_read_nothing_is_known():
    """What the file names would else seem to be deployed already."""
    unread = state(stack=replace(STACK, tags={}), template=None)
    assert unread.wanted_places
    assert unread.deployed_places == frozenset()
