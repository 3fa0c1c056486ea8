"""A mirror is its source's: a file that names another repository takes nothing over."""

import json
import re

import httpx
import pytest

from codecommit_mirror.aws import writer
from codecommit_mirror.checks.judging import judge
from codecommit_mirror.checks.reading import read
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import state
from codecommit_mirror.operations.plan import DEPLOY
from codecommit_mirror.operations.run import run_successfully
from localcloud import sample
from tests.e2e.conftest import azure_environment

from .journeys import state_of
from .test_moving import LIMITS, azure_of, configure


@pytest.fixture
def other(templated):
    """Another team's repository in the same project, with other contents."""
    name = f"{templated.name}-other"
    path = templated.cloud.create_azure_repository("contoso", "Shop", name)
    sample.fill(path)
    sample.git(path, "update-ref", "-d", "refs/heads/feature/0")
    sample.commit(path, "main", "by another team")
    return name


def subjects(journey):
    return state.settled_stack(journey.context()).outputs.push_role_subjects


@pytest.mark.parametrize("auth", ["user", "role"])
def test_another_file_takes_no_mirror_over(templated, other, auth):
    configure(templated, auth=auth)
    templated.up()
    replica, trusted = sample.refs(templated.replica), subjects(templated)
    configure(templated, repository=other, auth=auth)
    for command in (templated.up, templated.down, *([templated.rotate] if auth == "user" else [])):
        with pytest.raises(MirrorError, match="so it is another repository; if the replica is to follow it"):
            command()
    assert sample.refs(templated.replica) == replica
    configure(templated, auth=auth)
    assert subjects(templated) == trusted
    assert judge(read(templated.context()), LIMITS).notable == []
    assert templated.up() == []


def test_a_file_that_names_what_does_not_exist_takes_nothing_down(templated):
    configure(templated)
    templated.up()
    configure(templated, repository="nothing-here")
    with pytest.raises(
        MirrorError, match=f"follows contoso/Shop/{templated.name}, but mirrors.yaml names contoso/Shop/no"
    ):
        templated.down()
    configure(templated)
    assert judge(read(templated.context()), LIMITS).notable == []


def test_a_new_repository_with_the_name_is_another_one(templated):
    configure(templated, pipelines_repository=f"{templated.name}-other")
    sample.fill(templated.cloud.create_azure_repository("contoso", "Shop", f"{templated.name}-other"))
    templated.up()
    replica, azure = sample.refs(templated.replica), azure_of(templated)
    templated.cloud.azure.rename_repository("contoso", "Shop", templated.name, f"{templated.name}-archived")
    sample.fill(templated.cloud.create_azure_repository("contoso", "Shop", templated.name), commits=2, tags=0)
    with pytest.raises(MirrorError, match="it is another repository"):
        templated.up()
    with pytest.raises(MirrorError, match="ended as failed"):
        run_successfully(templated.context(), azure)
    assert "this pipeline mirrors the repository with the id" in templated.capfd.readouterr().err + templated.said
    assert sample.refs(templated.replica) == replica


def test_a_person_lets_the_replica_follow_another_source(templated, other):
    configure(templated)
    templated.up()
    configure(templated, repository=other)
    asked = []
    templated.up(change_source=True, confirm=lambda question, typed=None: asked.append((question, typed)))
    assert asked == [(asked[0][0], templated.name)]
    assert f"plan: -/+ source of the replica '{templated.name}': repository " in templated.said
    assert "plan: ~ refs of the replica: " in templated.said
    assert templated.up() == []
    configure(templated)
    with pytest.raises(MirrorError, match="it is another repository"):
        templated.up()


def test_a_disabled_repository_is_named_by_status_and_taken_down(quick, command, monkeypatch):
    url, place = quick.mirror.azure.clone_url, ("contoso", "Shop", quick.name)
    quick.cloud.azure.disable_repository(*place)
    seen = command("status", quick.name, "--azure-repo-url", url, **azure_environment(quick.cloud))
    assert seen.returncode == 1
    assert (
        f"the repository '{quick.name}' of contoso/Shop is disabled; enable it under Project settings." in seen.stdout
    )
    with pytest.raises(MirrorError, match="is disabled; enable it"):
        quick.up()
    restored = command(
        "restore", quick.name, "--azure-repo-url", url, "--to", "source", "--yes", **azure_environment(quick.cloud)
    )
    assert (restored.returncode, "is disabled; enable it" in restored.stderr) == (1, True)
    quick.down()
    quick.cloud.azure.disable_repository(*place, False)
    assert not quick.replica.exists()
    assert state_of(quick.context()).definition is None


def test_without_a_record_of_the_user_nothing_says_what_the_source_is(quick, command):
    tags = ["codecommit-mirror:pipeline", "codecommit-mirror:source"]
    quick.cloud.client("iam").untag_user(UserName=quick.mirror.user_name, TagKeys=tags)
    victim = quick.cloud.create_azure_repository("contoso", "Shop", f"{quick.name}-victim")
    url = f"{quick.mirror.azure.clone_url}-victim"
    refused = command(
        "restore", quick.name, "--azure-repo-url", url, "--to", "source", "--yes", **azure_environment(quick.cloud)
    )
    assert f"name the one that you mean: --to {url}, if it is that" in refused.stderr
    assert sample.refs(victim) == {}


def name_in_outputs(journey, output, value):
    """Update the mirror's stack like somebody who may: its resources and tags stay, an output says something else."""
    cloudformation = journey.cloud.client("cloudformation")
    template = cloudformation.get_template(StackName=journey.name)["TemplateBody"]
    template["Outputs"].setdefault(output, {})["Value"] = value
    cloudformation.update_stack(
        StackName=journey.name, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_NAMED_IAM"]
    )


def test_outputs_that_tell_of_a_migration_give_no_prepared_pipeline_a_secret(templated):
    """While a pipeline migrates without secrets, its file and its variables count; anybody may write those."""
    templated.up(stages=(DEPLOY,))
    context = templated.context()
    name_in_outputs(templated, "PushRoleSubjects", "p://contoso/Shop/a\np://contoso/Shop/b")
    home = context.azure.repository(templated.name)
    context.azure.create_definition(
        {
            "name": templated.mirror.pipeline_name,
            "process": {"type": 2, "yamlFilename": templated.mirror.pipeline_path},
            "repository": {"id": home.id, "type": "TfsGit", "defaultBranch": "refs/heads/main"},
            "variables": {"AWS_REPO_URL": {"value": f"x/{templated.name}"}, "AWS_GIT_CREDENTIAL": {"value": "{}"}},
        }
    )
    with pytest.raises(MirrorError, match="is not recorded as this mirror's; its creator can always change it, so it"):
        templated.up()


@pytest.mark.parametrize(
    ("output", "value", "why"),
    [
        (
            "PushUserName",
            "theirs-{name}",
            "the user 'theirs-{name}', which the stack of {arn} names, is recorded as",
        ),
        ("ReplicaArn", "{arn}2", "name {arn}2, which does not belong to '{name}' there: look for who changed them"),
        ("ReplicaArn", "{elsewhere}", "name {elsewhere}, which does not belong to '{name}' there: look for who"),
        (
            "PushRoleArn",
            "arn:aws:iam::999900001111:role/{name}",
            "name arn:aws:iam::999900001111:role/{name}, which does",
        ),
        (
            "ReplicaUrl",
            "https://theirs.example/v1/repos/{name}",
            "name https://theirs.example/v1/repos/{name}, which does",
        ),
    ],
)
def test_a_stack_lends_no_other_mirrors_user(templated, command, output, value, why):
    """Who may deploy decides what a stack's outputs say: another user's record, policy or Git credentials do not go."""
    templated.up()
    iam = templated.cloud.client("iam")
    outputs = state.settled_stack(templated.context()).outputs
    names = {"name": templated.name, "arn": outputs.replica_arn}
    names["elsewhere"] = outputs.replica_arn.replace(templated.cloud.region, "eu-north-1")
    record = writer.read_record(iam, outputs)
    iam.create_user(UserName=f"theirs-{templated.name}", Tags=record.tags(f"{outputs.replica_arn}2"))
    name_in_outputs(templated, output, value.format(**names))
    for act in (templated.down, templated.rotate):
        with pytest.raises(MirrorError, match=re.escape(why.format(**names))):
            act()
    restore = ("restore", templated.name, "--azure-repo-url", templated.mirror.azure.clone_url, "--to", "source")
    refused = command(*restore, "--yes", **azure_environment(templated.cloud))
    assert (refused.returncode, why.format(**names) in refused.stderr) == (1, True)
    assert (
        iam.list_service_specific_credentials(UserName=f"theirs-{templated.name}")["ServiceSpecificCredentials"] == []
    )


def test_a_user_who_may_do_more_gets_no_credential_whatever_the_plan_was(templated):
    templated.up(stages=(DEPLOY,))
    templated.cloud.client("iam").create_access_key(UserName=templated.mirror.user_name)
    kept = templated.issue_by_hand()
    with pytest.raises(MirrorError, match="also has the access key"):
        templated.up()
    # Nothing was done before that: no pipeline, no record, and no credential of that user is gone.
    assert templated.effects.seen == []
    assert [credential["ServiceSpecificCredentialId"] for credential in templated.credentials] == [kept]


def test_a_deleted_repository_is_restored_and_followed_again(templated, command):
    """The replica outlives its source: what it has goes back, and the old pipeline is known by its record."""
    configure(templated)
    templated.up()
    before = sample.refs(templated.source, "refs/heads/", "refs/tags/")
    pipeline = state_of(templated.context()).definition.id
    token = {**azure_environment(templated.cloud), "AZURE_DEVOPS_EXT_PAT": templated.cloud.manager_token}
    found = templated.context().azure.repository(templated.name).id
    api = f"{templated.cloud.azure_url}/contoso/Shop/_apis/git/repositories/{found}?api-version=7.1"
    assert httpx.delete(api, auth=("", templated.cloud.manager_token)).status_code == 204
    url = templated.mirror.azure.clone_url
    lost = command("status", templated.name, "--azure-repo-url", url, **azure_environment(templated.cloud))
    assert "does not exist or you do not have permissions" in lost.stdout
    where = (templated.name, "--azure-repo-url", url)
    gone = command("restore", *where, "--to", "source", "--yes", **token)
    assert f"create it again with --to {templated.mirror.azure.clone_url}." in gone.stderr
    done = command("restore", *where, "--to", templated.mirror.azure.clone_url, **token)
    assert done.returncode == 0, done.stderr
    assert sample.refs(templated.source, "refs/heads/", "refs/tags/") == before
    other = command("restore", *where, "--to", "source", "--yes", **token)
    assert "is another repository (id " in other.stderr
    # Nor does mirrors.yaml decide, which more people may change.
    new = templated.context().azure.repository(templated.name).id
    text = templated.config.read_text()
    templated.config.write_text(text.replace("{repository: ", f"{{repository_id: {new}, repository: "))
    named = command("restore", templated.name, "--config", templated.config, "--to", "source", "--yes", **token)
    assert "is another repository (id " in named.stderr
    templated.config.write_text(text)
    with pytest.raises(MirrorError, match="so it is another repository; if the replica is to follow it"):
        templated.up()
    templated.up(change_source=True)
    current = state_of(templated.context())
    assert (current.definition.id, current.source.id != found) == (pipeline, True)
    assert templated.pipeline_works()
    assert judge(read(templated.context()), LIMITS).notable == []


def test_a_source_with_another_name_is_not_guessed(templated, command):
    configure(templated)
    templated.up()
    templated.cloud.azure.rename_repository("contoso", "Shop", templated.name, f"{templated.name}-renamed")
    where = (templated.name, "--azure-repo-url", templated.mirror.azure.clone_url, "--to", "source", "--dry-run")
    planned = command("restore", *where, **azure_environment(templated.cloud))
    assert planned.returncode == 1
    assert "does not exist, or you may not read it; if it was renamed, correct azure.repository" in planned.stderr
