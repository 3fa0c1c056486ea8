"""The Azure side of ``up`` and ``down``, and ``pipeline run``: planned, done once, done again, taken back."""

import os

import httpx
import pytest

from codecommit_mirror.azure import pipeline
from codecommit_mirror.azure.connection import Allowed
from codecommit_mirror.azure.rest.client import AzureDevOps
from codecommit_mirror.azure.state import read_state
from codecommit_mirror.azure.variables import AZURE_SECRETS
from codecommit_mirror.errors import AzureError, MirrorError
from codecommit_mirror.operations.plan import CONNECT, CREDENTIAL
from codecommit_mirror.operations.run import run as run_pipeline
from codecommit_mirror.operations.state import read_azure
from localcloud import sample

from .conftest import azure_environment, bring_up, commit_file, take_down

PATH = "azure-pipelines-mirror.yml"


@pytest.fixture
def said():
    return []


def connect(rig, said, mirror=None, *, context=None, **policy):
    """Connect as ``up`` does, and give the credential."""
    context = context or rig.context(mirror)
    row = bring_up(context, said, stages=(CONNECT, CREDENTIAL), **policy)
    if row.result == "needs a person":
        raise MirrorError(row.message)
    return read_azure(context)


@pytest.fixture
def filled(rig):
    sample.fill(rig.source)
    return rig


def changed(mirror, **azure):
    return mirror.model_copy(update={"azure": mirror.azure.model_copy(update=azure)})


def run(rig, mirror=None):
    context = rig.context(mirror)
    return run_pipeline(context, read_azure(context), timeout_minutes=1)


def test_a_connected_pipeline_mirrors(filled, said):
    state = connect(filled, said)
    variables = state.definition.variables
    assert variables["AZURE_REPO_URL"]["value"] == filled.mirror.azure.clone_url
    secret = {name for name, v in variables.items() if v.get("isSecret")}
    assert secret == {*AZURE_SECRETS, "AWS_GIT_USERNAME", "AWS_GIT_PASSWORD"}
    resolved, _ = read_state(filled.mirror, filled.context().azure)
    assert sample.git(filled.source, "show", f"main:{PATH}") == pipeline.render(resolved)
    assert resolved.azure.repository_id == state.source.id
    assert run(filled).build.result == "succeeded"
    filled.assert_equal()
    # Committing the YAML started no run of its own.
    assert [build.reason for build in filled.runs_are_done()] == ["manual"]


def test_a_plan_changes_nothing(filled, command):
    before = sample.refs(filled.source)
    where = ("--azure-repo-url", filled.mirror.azure.clone_url)
    shown = command("up", filled.name, "--no-deploy", "--dry-run", *where, **azure_environment(filled.cloud))
    assert shown.returncode == 0, shown.stderr
    assert read_state(filled.mirror, filled.context().azure)[1].definition is None
    assert sample.refs(filled.source) == before
    assert "  + pipeline 'codecommit-mirror-" in shown.stdout
    assert f"  + YAML {PATH!r} on 'main' of {filled.name!r}: " in shown.stdout
    assert "  + secret variable AZURE_GIT_PASSWORD\n" in shown.stdout


def test_again_changes_nothing(filled, said, monkeypatch):
    connect(filled, said)
    before, tips = connect(filled, said).definition.body["revision"], sample.refs(filled.source)
    for name in AZURE_SECRETS:
        monkeypatch.delenv(name, raising=False)
    said.clear()
    state = connect(filled, said, context=filled.context(AZURE_GIT_USERNAME="", AZURE_GIT_PASSWORD=""))
    assert state.definition.body["revision"] == before
    assert sample.refs(filled.source) == tips
    assert not any(line.startswith("plan: ") for line in said)
    assert run(filled).succeeded


def test_a_pipeline_has_our_variables_and_no_others(filled, said):
    """A name and a folder are a person's to choose; variables are the environment of whatever holds the passwords."""
    state = connect(filled, said)
    azure = filled.context().azure
    body = azure.definition(state.definition.id).body
    variables = {**body["variables"], "BASH_ENV": {"value": "theirs"}, "AWS_REPO_URL": {"value": "wrong"}}
    azure.update_definition(state.definition, {**body, "name": f"renamed {filled.name}", "variables": variables})
    said.clear()
    again = connect(filled, said).definition
    assert again.name == f"renamed {filled.name}"
    assert "BASH_ENV" not in again.variables
    assert "plan: - variable BASH_ENV: theirs" in said
    assert again.variables["AWS_REPO_URL"]["value"] == filled.outputs["ReplicaUrl"].removeprefix("https://")
    assert any(line.startswith("plan: ~ variable AWS_REPO_URL: wrong -> ") for line in said)


def test_a_secret_that_was_typed_in_without_the_lock_becomes_one(filled, said):
    state = connect(filled, said)
    azure = filled.context().azure
    body = azure.definition(state.definition.id).body
    open_secret = {**body["variables"], "AZURE_GIT_PASSWORD": {"value": filled.cloud.personal_access_token}}
    azure.update_definition(state.definition, {**body, "variables": open_secret})
    state = connect(filled, said, context=filled.context(AZURE_GIT_USERNAME="", AZURE_GIT_PASSWORD=""))
    assert state.definition.variables["AZURE_GIT_PASSWORD"] == {"value": None, "isSecret": True}
    assert run(filled).succeeded


def test_a_file_of_somebody_else_is_never_overwritten(filled, said):
    sample.commit(filled.source, "main", "text")
    azure = filled.context().azure
    home = azure.repository(filled.name)
    tip = azure.tip(home, "main")
    commit_file(azure, home, "main", tip, PATH, text="steps: []\n", exists=False, comment="mine")
    with pytest.raises(MirrorError, match="not written by codecommit-mirror and will not be overwritten; set azure"):
        connect(filled, said)
    assert azure.definitions_named(filled.mirror.pipeline_name) == []
    other = pipeline.render(filled.mirror.model_copy(update={"name": "other"}))
    commit_file(azure, home, "main", azure.tip(home, "main"), PATH, text=other, exists=True, comment="theirs")
    with pytest.raises(MirrorError, match="belongs to the mirror 'other'"):
        connect(filled, said)
    elsewhere = changed(filled.mirror, pipeline_path="ci/mirror.yml")
    connect(filled, said, mirror=elsewhere)
    assert run(filled, elsewhere).succeeded


def test_git_credentials_are_tried_before_they_are_stored(filled, said):
    context = filled.context(AZURE_GIT_PASSWORD="canary-wrong")
    with pytest.raises(MirrorError, match=r"refused access \(a sign-in page\); check AZURE_GIT_USERNAME") as caught:
        connect(filled, said, context=context)
    assert "canary-wrong" not in str(caught.value) + str(said)
    assert filled.context().azure.definitions_named(filled.mirror.pipeline_name) == []
    with pytest.raises(MirrorError, match="AZURE_GIT_PASSWORD is not set"):
        connect(filled, said, context=filled.context(AZURE_GIT_PASSWORD=""))


def test_a_person_is_asked_for_them(filled, said):
    context = filled.context(AZURE_GIT_USERNAME="", AZURE_GIT_PASSWORD="")
    asked = []
    context.ask = lambda name: asked.append(name) or azure_environment(filled.cloud)[name]
    connect(filled, said, context=context)
    assert asked == list(AZURE_SECRETS)


def test_a_policy_that_forbids_a_push_names_the_way_out_and_that_way_works(filled, said):
    filled.cloud.azure.protect_branch("contoso", "Shop", filled.name, "main")
    with pytest.raises(MirrorError, match="forbid a push; run again with --pull-request"):
        # A job of CI opens no pull request by itself.
        connect(filled, said, waits=False)
    state = connect(filled, said)
    assert state.yaml.pull_request
    proposed = state.yaml.proposed_tip
    assert connect(filled, said, pull_request=True).yaml.proposed_tip == proposed
    assert PATH not in sample.git(filled.source, "ls-tree", "--name-only", "main")
    assert run(filled).build.branch == f"codecommit-mirror/{filled.name}"
    filled.assert_equal()
    disconnect(filled, said)
    assert sample.refs(filled.source, "refs/heads/codecommit-mirror") == {}
    azure = filled.context().azure
    assert azure.pull_request(azure.repository(filled.name), f"codecommit-mirror/{filled.name}", "main") is None


def test_a_merged_yaml_is_taken_out_by_a_pull_request(filled, said):
    connect(filled, said)
    filled.cloud.azure.protect_branch("contoso", "Shop", filled.name, "main")
    with pytest.raises(MirrorError, match="forbid a push"):
        disconnect(filled, said)
    disconnect(filled, said, pull_request=True)
    disconnect(filled, said, pull_request=True)
    proposal = sample.git(filled.source, "ls-tree", "--name-only", f"codecommit-mirror/{filled.name}")
    assert PATH not in proposal
    assert "docs" in proposal
    assert any(line.endswith("is waiting to be merged") for line in said)


def disconnect(rig, said, mirror=None, *, pull_request=False):
    take_down(rig.context(mirror), said, keep_stack=True, pull_request=pull_request)


def test_disconnect_takes_back_what_connect_did_and_nothing_else(filled, said):
    files = sample.git(filled.source, "ls-tree", "-r", "main")
    connect(filled, said)
    assert run(filled).succeeded
    azure = filled.context().azure
    assert azure.leases(read_state(filled.mirror, azure)[1].definition)
    disconnect(filled, said)
    assert sample.git(filled.source, "ls-tree", "-r", "main") == files
    assert azure.definitions_named(filled.mirror.pipeline_name) == []
    said.clear()
    disconnect(filled, said)
    assert "nothing to disconnect: the pipeline is already gone" in said


def test_disconnect_leaves_a_file_that_is_not_ours(filled, said):
    connect(filled, said)
    azure = filled.context().azure
    home = azure.repository(filled.name)
    commit_file(azure, home, "main", azure.tip(home, "main"), PATH, text="steps: []\n", exists=True, comment="mine now")
    filled.runs_are_done()
    disconnect(filled, said)
    assert sample.git(filled.source, "show", f"main:{PATH}") == "steps: []\n"


@pytest.fixture
def pipelines_home(filled):
    """A repository of the project that holds pipelines."""
    path = filled.cloud.create_azure_repository("contoso", "Shop", f"mirrors-of-{filled.name}")
    sample.fill(path, commits=2, branches=0, tags=0, pull_requests=0)
    return path


@pytest.mark.parametrize("source_auth", ["pat", "job-token"])
@pytest.mark.parametrize("protected", [False, True])
def test_a_repository_of_its_own_for_pipelines(filled, pipelines_home, said, tmp_path, source_auth, protected):
    filled.cloud.azure.set_project_setting("contoso", "Shop", "enforceReferencedRepoScopedToken", protected)
    try:
        mirror = changed(filled.mirror, pipelines_repository=f"mirrors-of-{filled.name}").model_copy(
            update={"source_auth": source_auth}
        )
        before = sample.refs(filled.source)
        connect(filled, said, mirror=mirror)
        assert sample.refs(filled.source) == before
        assert f"{filled.name}.yml" in sample.git(pipelines_home, "ls-tree", "--name-only", "main")
        assert run(filled, mirror).succeeded
        clone = filled.clone(tmp_path / "clone.git")
        sample.commit(clone, "feature/1", "a change")
        filled.push("feature/1", clone=clone)
        filled.mirror = mirror
        assert [b.reason for b in filled.runs_are_done()] == ["manual", "resourceTrigger"]
        filled.assert_equal()
        disconnect(filled, said, mirror)
        assert f"{filled.name}.yml" not in sample.git(pipelines_home, "ls-tree", "--name-only", "main")
    finally:
        filled.cloud.azure.set_project_setting("contoso", "Shop", "enforceReferencedRepoScopedToken", False)


def test_a_job_token_needs_no_git_credentials_and_its_obstacle_is_named(filled, said):
    mirror = filled.mirror.model_copy(update={"source_auth": "job-token"})
    connect(filled, said)
    state = connect(filled, said, mirror=mirror)
    assert not set(AZURE_SECRETS) & set(state.definition.variables)
    assert run(filled, mirror).succeeded
    context = filled.context(mirror, AZURE_DEVOPS_EXT_PAT="", SYSTEM_ACCESSTOKEN=filled.cloud.entra_token)
    filled.cloud.azure.set_project_setting("contoso", "Shop", "enforceReferencedRepoScopedToken", True)
    try:
        with pytest.raises(MirrorError, match="'Protect access to repositories in YAML pipelines' keeps the job token"):
            connect(filled, said, context=context)
        failed = run(filled, mirror)
        assert failed.build.result == "failed"
    finally:
        filled.cloud.azure.set_project_setting("contoso", "Shop", "enforceReferencedRepoScopedToken", False)


def test_the_log_of_a_failed_step_is_printed(filled, said, command):
    connect(filled, said)
    iam = filled.cloud.client("iam")
    for credential in iam.list_service_specific_credentials(UserName=filled.user)["ServiceSpecificCredentials"]:
        identifier = credential["ServiceSpecificCredentialId"]
        iam.delete_service_specific_credential(UserName=filled.user, ServiceSpecificCredentialId=identifier)
    url = filled.mirror.azure.clone_url
    done = command(
        "pipeline", "run", filled.name, "--azure-repo-url", url, AZURE_DEVOPS_EXT_PAT=filled.cloud.operator_token
    )
    assert done.returncode == 1, done.stderr
    assert "log of the step 'Mirror to CodeCommit':" in done.stderr
    assert "the replica" in done.stderr
    assert "refused access (403)" in done.stderr
    assert "##vso" not in done.stderr
    assert done.stdout.strip().endswith("failed.")
    # ``up`` would see that what the pipeline holds is gone, and give it another.
    connect(filled, said)
    assert any(line.startswith("issued ") for line in said)
    assert run(filled).succeeded


def test_a_run_may_be_allowed_deletions_and_no_variable_is(filled, said, command):
    connect(filled, said)
    for number in range(8):
        sample.git(filled.source, "update-ref", f"refs/heads/more/{number}", "refs/heads/main")
    assert run(filled).succeeded
    for name in list(sample.refs(filled.source, "refs/heads/")):
        if name != "refs/heads/main":
            sample.git(filled.source, "update-ref", "-d", name)
    url, token = filled.mirror.azure.clone_url, filled.cloud.operator_token

    def run_pipeline_of(*options):
        arguments = ("pipeline", "run", filled.name, "--azure-repo-url", url, *options)
        return command(*arguments, AZURE_DEVOPS_EXT_PAT=token)

    refused = run_pipeline_of()
    assert refused.returncode == 1
    assert "pipeline run NAME --allow-deletions" in refused.stderr
    assert run_pipeline_of("--allow-deletions").returncode == 0
    filled.assert_equal()
    definition = read_state(filled.mirror, filled.context().azure)[1].definition
    variables = '{"MIRROR_ALLOW_DELETIONS": "1"}'
    queued = f"{filled.cloud.azure_url}/contoso/Shop/_apis/build/builds?api-version=7.1"
    body = {"definition": {"id": definition.id}, "parameters": variables}
    answer = httpx.post(queued, json=body, auth=("", token))
    assert (answer.status_code, answer.json()["message"][:39]) == (400, "You can't set the following variables (")


@pytest.mark.parametrize("refused", ["validate", "create_definition"])
def test_the_mark_of_a_creation_that_failed_brings_no_secret(filled, said, monkeypatch, refused):
    """Many can read it: on a pipeline that is there for a moment, or in the tags of the mirror's user."""
    azure = filled.context().azure
    connected = getattr(AzureDevOps, refused)

    def refuse(self, *arguments):
        raise AzureError("Azure DevOps refuses", 403)

    monkeypatch.setattr(AzureDevOps, refused, refuse)
    with pytest.raises(MirrorError, match="Azure DevOps refuses"):
        connect(filled, said)
    monkeypatch.setattr(AzureDevOps, refused, connected)
    tags = filled.cloud.client("iam").list_user_tags(UserName=filled.user)["Tags"]
    (mark,) = (tag["Value"].partition("/new-")[2] for tag in tags if "/new-" in tag["Value"])
    theirs = azure.create_definition(
        {
            "name": filled.mirror.pipeline_name,
            "path": "\\mallory",
            "type": "build",
            "quality": "definition",
            "process": {"type": 2, "yamlFilename": "mine.yml"},
            "repository": {
                "id": azure.repository(filled.name).id,
                "type": "TfsGit",
                "defaultBranch": "refs/heads/main",
            },
            "queue": {"name": "Azure Pipelines", "pool": {"name": "Azure Pipelines"}},
            "description": mark,
            "variables": {},
        }
    )
    state = connect(filled, said)
    assert state.definition.id != theirs.id
    assert azure.find_definition(theirs.id) is None


def test_an_empty_agent_pool_is_waited_for_and_then_told(filled, said):
    connect(filled, said)
    filled.cloud.azure.set_agent_online(False)
    try:
        with pytest.raises(MirrorError, match=r"has not ended within 0\.01 minutes \(it is waiting for an agent\)"):
            run_pipeline(filled.context(), read_state(filled.mirror, filled.context().azure)[1], timeout_minutes=0.01)
    finally:
        filled.cloud.azure.set_agent_online(True)
    filled.runs_are_done()


def test_a_branch_that_was_not_named_is_the_servers_own(filled, said):
    sample.git(filled.source, "branch", "-m", "main", "trunk")
    sample.git(filled.source, "symbolic-ref", "HEAD", "refs/heads/trunk")
    state = connect(filled, said)
    assert state.yaml.branch == "trunk"
    assert 'include: ["trunk"]' in sample.git(filled.source, "show", f"trunk:{PATH}")
    wrong = changed(filled.mirror, default_branch="main")
    with pytest.raises(MirrorError, match=r"has no branch 'main'; correct azure.default_branch .* 'trunk'"):
        connect(filled, said, mirror=wrong)


def test_somebody_elses_pipeline_at_our_path_is_not_ours(filled, said):
    azure = filled.context().azure
    home = azure.repository(filled.name)
    commit_file(azure, home, "main", azure.tip(home, "main"), PATH, text="jobs: []", exists=False, comment="Team's")
    body = {
        "name": f"Team CI {filled.name}",
        "process": {"type": 2, "yamlFilename": PATH},
        "repository": {"id": home.id, "type": "TfsGit", "defaultBranch": "refs/heads/main"},
    }
    theirs = azure.create_definition(body)
    with pytest.raises(MirrorError, match="there is already a pipeline 'Team CI"):
        connect(filled, said)
    disconnect(filled, said)
    assert azure.definition(theirs.id).name == f"Team CI {filled.name}"
    assert PATH in sample.git(filled.source, "ls-tree", "--name-only", "main")


def test_another_mirror_of_the_same_source_is_left_alone(filled, said):
    state = connect(filled, said)
    assert run(filled).succeeded
    other = filled.mirror.model_copy(update={"name": "other"})
    with pytest.raises(MirrorError, match=f"belongs to the mirror '{filled.name}'"):
        connect(filled, said, mirror=other)
    disconnect(filled, said, other)
    assert filled.context().azure.definition(state.definition.id).name == filled.mirror.pipeline_name
    assert run(filled).succeeded


def test_somebody_elses_commits_on_our_branch_are_left(filled, said):
    branch = f"codecommit-mirror/{filled.name}"
    sample.git(filled.source, "branch", branch, "main")
    theirs = sample.commit(filled.source, branch, "work in progress")
    with pytest.raises(MirrorError, match="has commits by someone else; delete or rename it"):
        connect(filled, said, pull_request=True)
    disconnect(filled, said)
    assert sample.refs(filled.source)[f"refs/heads/{branch}"] == theirs


def test_disconnect_touches_nothing_in_aws_and_names_the_credential(filled, command):
    arguments = (filled.name, "--azure-repo-url", filled.mirror.azure.clone_url)
    iam = filled.cloud.client("iam")

    def state():
        listed = iam.list_service_specific_credentials(UserName=filled.user)["ServiceSpecificCredentials"]
        return {c["ServiceSpecificCredentialId"]: c["Status"] for c in listed}

    connected = command("up", *arguments, "--no-deploy", "--yes", **azure_environment(filled.cloud))
    assert connected.returncode == 0, connected.stderr
    before = state()
    (held,) = before.keys() - {filled.credential["ServiceSpecificCredentialId"]}
    refused = command("down", "--keep-stack", *arguments, **azure_environment(filled.cloud))
    assert "Use --yes to confirm" in refused.stderr
    done = command("down", "--keep-stack", *arguments, "--yes", **azure_environment(filled.cloud))
    assert done.returncode == 0, done.stderr
    assert f"codecommit-mirror credentials revoke {filled.name} {held}" in done.stdout
    assert state() == before
    again = command("down", "--keep-stack", *arguments, "--yes", **azure_environment(filled.cloud))
    assert again.returncode == 0
    assert "nothing to disconnect: the pipeline is already gone" in again.stderr


def test_a_password_in_a_url_goes_nowhere(bootstrapped, filled, command, tmp_path):
    url = filled.mirror.azure.clone_url.replace("://", "://me:canary-password@")
    environment = {**azure_environment(filled.cloud), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    program = tmp_path / "cdk"
    program.write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    program.chmod(0o755)
    (tmp_path / "cdk.json").write_text("{}")
    done = command("up", filled.name, "--azure-repo-url", url, **environment)
    assert "cdk synth" in done.stderr
    assert "azure_repo_url=" in done.stderr
    assert "canary" not in done.stdout + done.stderr
    wrong = command("up", filled.name, "--azure-repo-url", "ftp://me:canary-password@host/o/p/_git/r")
    assert wrong.returncode == 2
    assert "canary" not in wrong.stderr


def test_an_empty_source_is_a_sentence(rig, said):
    with pytest.raises(MirrorError, match="has no commit yet; push one first"):
        connect(rig, said)


def test_a_pipeline_that_somebody_prepared_gets_no_secret(filled, said):
    """It has our name, our file and our variables; whoever created it can change it for ever."""
    azure = filled.context().azure
    home = azure.repository(filled.name)
    text = pipeline.render(filled.mirror)
    commit_file(azure, home, "main", azure.tip(home, "main"), PATH, text=text, exists=False, comment="prepared")
    values = {name: {"value": v.value, "isSecret": v.secret} for name, v in filled.variables.items()}
    prepared = azure.create_definition(
        {
            "name": filled.mirror.pipeline_name,
            "process": {"type": 2, "yamlFilename": PATH},
            "repository": {"id": home.id, "type": "TfsGit", "defaultBranch": "refs/heads/main"},
            "variables": values,
        }
    )
    before = azure.definition(prepared.id).body
    with pytest.raises(MirrorError, match="is not recorded as this mirror's; its creator can always change it, so it"):
        connect(filled, said)
    assert azure.definition(prepared.id).body == before
    state = connect(filled, said, allowed=Allowed(replace_pipeline=True))
    assert state.definition.id != prepared.id
    theirs = azure.definition(prepared.id)
    assert (theirs.body["queueStatus"], theirs.name) == (
        "disabled",
        f"{filled.mirror.pipeline_name}-replaced-{prepared.id}",
    )
    assert theirs.variables == before["variables"]
    assert run(filled).succeeded


def test_an_unknown_repository_is_azures_own_sentence(filled, said):
    with pytest.raises(MirrorError, match="TF401019"):
        connect(filled, said, mirror=changed(filled.mirror, repository="nowhere"))
