"""What would stop ``up``, found before anything is changed."""

import pytest

from codecommit_mirror.aws import cdk
from codecommit_mirror.aws.stack import ReplicaStackState
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import preflight, state
from codecommit_mirror.operations.batches import Policy
from codecommit_mirror.operations.context import MirrorContext
from codecommit_mirror.operations.plan import CONNECT, CREDENTIAL
from localcloud import sample
from tests.e2e.conftest import bring_up

from .journeys import UP


def test_everything_that_is_wrong_is_told_at_once(swift):
    swift.cloud.client("codecommit").create_repository(repositoryName=swift.name)
    swift.cloud.client("iam").create_user(UserName=swift.mirror.user_name)
    context = swift.context()
    context.environment = {**context.environment, "AZURE_GIT_PASSWORD": "wrong"}
    with pytest.raises(MirrorError) as caught:
        bring_up(context, cdk_context=swift.cdk_context)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3, lines
    for words in (
        f"there is a CodeCommit repository {swift.name!r} that belongs to no stack",
        f"there is already an IAM user {swift.mirror.user_name!r}",
        "refused access (a sign-in page); check AZURE_GIT_USERNAME",
    ):
        assert any(words in line for line in lines), (words, lines)
    assert swift.effects.seen == []


def test_without_credentials_of_the_source_the_aws_side_is_done_and_a_person_is_needed(swift):
    context = swift.context()
    context.environment = {
        name: value for name, value in context.environment.items() if not name.startswith("AZURE_GIT_")
    }
    row = bring_up(context, cdk_context=swift.cdk_context)
    assert row.result == "needs a person"
    assert row.message.startswith("AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD are not set; export")
    assert swift.effects.seen == ["cdk deploy"]
    assert swift.up() == UP[1:]
    swift.assert_up()


def test_an_account_without_bootstrap_and_a_folder_without_a_project_are_told(trip, tmp_path, monkeypatch):
    context = trip.context()
    context.folder = tmp_path
    with pytest.raises(MirrorError, match=r"has no cdk\.json; run this command in the project's folder"):
        bring_up(context, cdk_context=trip.cdk_context)
    monkeypatch.setattr(cdk, "bootstrap_parameter", lambda folder: "/cdk-bootstrap/other/version")
    with pytest.raises(MirrorError, match="not bootstrapped for CDK; run: cdk bootstrap aws://"):
        trip.up()


def test_a_stack_without_its_user_yet_does_not_stop_the_preflight(bootstrapped, quick, monkeypatch):
    half = ReplicaStackState("REVIEW_IN_PROGRESS", False, None)
    monkeypatch.setattr(MirrorContext, "find_stack", lambda self, again=False: half)
    quick.mirror = quick.mirror.model_copy(update={"user_name": "not-there-yet"})
    assert preflight.mirror_problems(state.read(quick.context(), half), Policy()) == []


def test_two_credentials_that_no_pipeline_holds_are_told_before_anything_is_done(bootstrapped, rig):
    sample.fill(rig.source)
    rig.cloud.client("iam").create_service_specific_credential(
        UserName=rig.user, ServiceName="codecommit.amazonaws.com"
    )
    with pytest.raises(MirrorError, match="has 2 Git credentials already, and IAM allows 2"):
        bring_up(rig.context(), stages=(CONNECT, CREDENTIAL))
    assert rig.context().azure.definitions_named(rig.mirror.pipeline_name) == []
