"""``down``: stopped after every single effect, and begun again, it leaves nothing; it deletes nothing unasked."""

import shutil

import pytest

from codecommit_mirror.errors import MirrorError
from localcloud import sample
from tests.e2e.conftest import take_down

from .journeys import DOWN, Killed, hide_stack, state_of
from .test_moving import configure
from .test_other_source import name_in_outputs


@pytest.mark.parametrize("effect", range(1, len(DOWN) + 1), ids=lambda n: f"{n} {DOWN[n - 1]}")
def test_down_that_is_stopped_is_finished_by_the_next(swift, effect):
    swift.up()
    with pytest.raises(Killed):
        swift.down(stop_after=effect)
    swift.down()
    assert not swift.replica.exists()
    assert state_of(swift.context()).definition is None
    assert state_of(swift.context()).yaml.text is None
    iam = swift.cloud.client("iam")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_user(UserName=swift.mirror.user_name)
    swift.assert_no_leak()


def test_down_asks_before_commits_are_deleted_and_says_how_many_refs(swift):
    swift.up()
    asked = []

    def no(question, typed=None):
        asked.append(question)
        raise MirrorError("stopped; nothing was deleted.")

    with pytest.raises(MirrorError, match="nothing was deleted"):
        swift.down(confirm=no)
    count = len(sample.refs(swift.replica))
    assert asked == [
        f"Delete the pipeline 'codecommit-mirror-{swift.name}' with its runs and the CodeCommit repository "
        f"{swift.name!r} with {count} refs (0 of them archived) and all history? The source keeps its "
        "commits. Snapshots stay."
    ]
    assert swift.effects.seen == []
    swift.assert_up()


def test_a_protected_stack_stays_and_so_does_everything_else(quick):
    cloudformation = quick.cloud.client("cloudformation")
    cloudformation.update_termination_protection(StackName=quick.name, EnableTerminationProtection=True)
    quick.effects.seen = []
    with pytest.raises(MirrorError, match="has termination protection; set termination_protection: false"):
        quick.down()
    assert quick.effects.seen == []
    assert quick.pipeline_works()


def test_a_stack_that_is_not_as_mirrors_yaml_says_is_deployed_first(quick):
    quick.mirror = quick.mirror.model_copy(update={"on_destroy": "retain"})
    quick.effects.seen = []
    with pytest.raises(MirrorError, match="says on_destroy: retain, but the deployed stack deletes the repository"):
        quick.down()
    assert quick.effects.seen == []


def test_another_region_is_not_taken_for_gone(quick):
    quick.mirror = quick.mirror.model_copy(update={"region": "us-east-1"})
    quick.effects.seen = []
    with pytest.raises(MirrorError, match="which is not in region us-east-1; set region: "):
        quick.down()
    assert quick.effects.seen == []


def test_another_account_is_not_taken_for_gone(quick, monkeypatch):
    hide_stack(monkeypatch)
    context = quick.context()
    context.account = "999999999999"
    quick.effects.seen = []
    with pytest.raises(MirrorError, match="mirrors to account 111122223333, but the AWS credentials are for 9999"):
        take_down(context)
    assert quick.effects.seen == []


def test_without_a_stack_a_user_of_that_name_keeps_its_credentials(quick, monkeypatch):
    held, other = quick.credentials[0]["ServiceSpecificCredentialId"], quick.issue_by_hand()
    hide_stack(monkeypatch)
    quick.down()
    assert [c["ServiceSpecificCredentialId"] for c in quick.credentials] == [held, other]
    assert f"{held}, which the pipeline held, may still exist in IAM; revoke it with: codecommit-mirror" in quick.said


def test_a_stack_that_names_somebody_elses_user_deletes_none_of_their_credentials(templated):
    """Who may deploy decides what the outputs say, and mirrors.yaml what the user of a mirror with a role is called."""
    templated.up()
    iam, theirs = templated.cloud.client("iam"), f"alice-{templated.name}"
    iam.create_user(UserName=theirs)
    iam.create_access_key(UserName=theirs)
    iam.create_service_specific_credential(UserName=theirs, ServiceName="codecommit.amazonaws.com")
    name_in_outputs(templated, "PushUserName", theirs)
    templated.down()
    held = iam.list_service_specific_credentials(UserName=theirs)["ServiceSpecificCredentials"]
    assert len(held) == 1
    assert f"left the Git credentials of '{theirs}' alone: the user '{theirs}', whom the outputs" in templated.said


def test_a_mirror_with_a_role_deletes_no_users_credentials(templated):
    configure(templated, auth="role")
    templated.up()
    iam, namesake = templated.cloud.client("iam"), templated.mirror.user_name
    iam.create_user(UserName=namesake)
    iam.create_service_specific_credential(UserName=namesake, ServiceName="codecommit.amazonaws.com")
    templated.down()
    assert len(iam.list_service_specific_credentials(UserName=namesake)["ServiceSpecificCredentials"]) == 1


def test_a_replica_that_was_deleted_by_hand_does_not_stop_down(swift):
    swift.up()
    swift.cloud.client("codecommit").delete_repository(repositoryName=swift.name)
    swift.down()
    assert "is already gone" in swift.said
    assert swift.context().azure.definitions_named(swift.mirror.pipeline_name) == []


def test_without_a_record_a_source_that_is_not_to_be_seen_is_asked_about(quick):
    iam, user = quick.cloud.client("iam"), quick.mirror.user_name
    iam.untag_user(UserName=user, TagKeys=["codecommit-mirror:pipeline"])
    shutil.rmtree(quick.source)
    asked = []

    def no(question, typed=None):
        asked.append(question)
        raise MirrorError("stopped; nothing was deleted.")

    quick.effects.seen = []
    with pytest.raises(MirrorError, match="nothing was deleted"):
        quick.down(confirm=no)
    assert "Azure DevOps is left alone, because the repository there does not exist" in asked[0]
    assert quick.effects.seen == []


def test_a_mirror_whose_clean_up_function_is_gone_is_taken_down(swift):
    swift.up()
    functions = swift.cloud.client("lambda")
    names = [one["FunctionName"] for one in functions.list_functions()["Functions"]]
    (name,) = (name for name in names if name.startswith(swift.name))
    functions.delete_function(FunctionName=name)
    swift.down()
    assert not swift.replica.exists()
    iam = swift.cloud.client("iam")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_user(UserName=swift.mirror.user_name)
