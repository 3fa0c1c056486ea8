"""What would stop ``up``, found before anything is changed."""

import pytest

from codecommit_mirror.aws import cdk
from codecommit_mirror.aws.stack import ReplicaStackState
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.lifecycle import preflight
from codecommit_mirror.lifecycle.up import up
from codecommit_mirror.progress import Checklist
from localcloud import sample


def test_everything_that_is_wrong_is_told_at_once(swift):
    swift.cloud.client("codecommit").create_repository(repositoryName=swift.name)
    swift.cloud.client("iam").create_user(UserName=swift.mirror.user_name)
    context = swift.context()
    context.environment = {"AZURE_DEVOPS_EXT_PAT": swift.cloud.operator_token}
    with pytest.raises(MirrorError) as caught, Checklist(()) as checklist:
        up(context, checklist)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3, lines
    context = swift.context()
    context.environment = {**context.environment, "AZURE_GIT_PASSWORD": "wrong"}
    with pytest.raises(MirrorError, match=r"refused access \(a sign-in page\); check AZURE_GIT_USERNAME") as again:
        up(context, Checklist(()))
    assert len(str(again.value).splitlines()) == 3
    for words in (
        f"there is a CodeCommit repository {swift.name!r} that belongs to no stack",
        f"there is already an IAM user {swift.mirror.user_name!r}",
        "AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD are not set",
    ):
        assert any(line.startswith(words) for line in lines), words
    assert swift.effects.seen == []


def test_an_account_without_bootstrap_and_a_folder_without_a_project_are_told(trip, tmp_path, monkeypatch):
    context = trip.context()
    context.folder = tmp_path
    with (
        pytest.raises(MirrorError, match=r"has no cdk\.json; run this command in the project's folder"),
        Checklist(()) as c,
    ):
        up(context, c)
    monkeypatch.setattr(cdk, "bootstrap_parameter", lambda folder: "/cdk-bootstrap/other/version")
    with pytest.raises(MirrorError, match="not bootstrapped for CDK; run: cdk bootstrap aws://"), Checklist(()) as c:
        up(trip.context(), c)


def test_a_stack_without_its_user_yet_does_not_stop_the_preflight(bootstrapped, quick, monkeypatch):
    half = ReplicaStackState("REVIEW_IN_PROGRESS", False, None)
    monkeypatch.setattr("codecommit_mirror.lifecycle.preflight.find_stack", lambda aws, mirror: half)
    quick.mirror = quick.mirror.model_copy(update={"user_name": "not-there-yet"})
    assert preflight.find_problems(quick.context()) == []


def test_two_credentials_that_no_pipeline_holds_are_told_before_anything_is_done(bootstrapped, rig):
    sample.fill(rig.source)
    rig.cloud.client("iam").create_service_specific_credential(
        UserName=rig.user, ServiceName="codecommit.amazonaws.com"
    )
    with pytest.raises(MirrorError, match="has 2 Git credentials already, and IAM allows 2"):
        up(rig.context(), Checklist(()))
    assert rig.context().azure.find_definitions(name=rig.mirror.pipeline_name) == []
