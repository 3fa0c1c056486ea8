"""Microsoft's own Python SDK against the embedded Azure DevOps, whose resources and versions it looks up."""

import time
import uuid

import httpx
import pytest
from azure.devops.connection import Connection
from azure.devops.exceptions import AzureDevOpsServiceError
from azure.devops.v7_1.build.models import Build
from azure.devops.v7_1.git.models import GitRepositoryCreateOptions
from msrest.authentication import BasicAuthentication

from localcloud import sample

SLOW = """\
jobs:
  - job: j
    pool: {vmImage: ubuntu-24.04}
    steps:
      - checkout: none
      - bash: |
          echo started
          sleep 60
"""


@pytest.fixture(params=["clients", "clients_v7_1"])
def clients(request, cloud, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    connection = Connection(f"{cloud.azure_url}/contoso", BasicAuthentication("", cloud.manager_token))
    return getattr(connection, request.param)


@pytest.fixture
def repository(cloud):
    path = cloud.create_azure_repository("contoso", "Sdk", f"r-{uuid.uuid4().hex[:8]}")
    sample.fill(path, branches=2)
    return path


def test_repositories_branches_commits_and_pushes(clients, cloud, repository):
    git, name = clients.get_git_client(), repository.stem
    assert name in [found.name for found in git.get_repositories("Sdk")]
    assert name in [found.name for found in git.get_repositories()]
    found = git.get_repository(name, project="Sdk")
    assert (found.name, found.default_branch) == (name, "refs/heads/main")
    assert found.remote_url == f"{cloud.azure_url}/contoso/Sdk/_git/{name}"
    branches = {branch.name: branch for branch in git.get_branches(name, project="Sdk")}
    assert branches["main"].is_base_version
    assert branches["feature/0"].ahead_count == 1
    refs = git.get_refs(name, project="Sdk", filter="heads/")
    assert {ref.name.removeprefix("refs/heads/") for ref in refs} == set(branches)
    tip = sample.git(repository, "rev-parse", "main").strip()
    from azure.devops.v7_1.git.models import GitQueryCommitsCriteria

    commits = git.get_commits(name, GitQueryCommitsCriteria(), project="Sdk", top=5)
    assert (commits[0].commit_id, len(commits)) == (tip, 5)


def test_a_repository_is_created_pushed_to_and_deleted(clients):
    from azure.devops.v7_1.git.models import GitPush

    git, name = clients.get_git_client(), f"new-{uuid.uuid4().hex[:8]}"
    made = git.create_repository(GitRepositoryCreateOptions(name=name), project="Sdk")
    change = {
        "changeType": "add",
        "item": {"path": "/a.txt"},
        "newContent": {"content": "text", "contentType": "rawText"},
    }
    pushed = git.create_push(
        GitPush(
            ref_updates=[{"name": "refs/heads/main", "oldObjectId": "0" * 40}],
            commits=[{"comment": "first", "changes": [change]}],
        ),
        made.id,
        project="Sdk",
    )
    one = git.get_push(made.id, pushed.push_id, project="Sdk", include_ref_updates=True)
    assert (one.push_id, one.ref_updates[0].name) == (pushed.push_id, "refs/heads/main")
    git.delete_repository(made.id, project="Sdk")
    with pytest.raises(AzureDevOpsServiceError, match="TF401019"):
        git.get_repository(name, project="Sdk")


@pytest.mark.parametrize(
    "name", ["a:b", "_hidden", "con", "COM1", " space", "space ", ".dot", "dot.", "a/b", "x" * 65, "web"]
)
def test_names_that_azure_refuses_are_refused(clients, name):
    with pytest.raises(AzureDevOpsServiceError, match="TF400898: The repository name"):
        clients.get_git_client().create_repository(GitRepositoryCreateOptions(name=name), project="Sdk")


def test_a_ref_that_moved_is_said_in_an_answer_of_success(clients, repository):
    from azure.devops.v7_1.git.models import GitRefUpdate

    git = clients.get_git_client()
    tip = sample.git(repository, "rev-parse", "main").strip()
    updates = [GitRefUpdate(name="refs/heads/feature/0", old_object_id="1" * 40, new_object_id=tip)]
    (answer,) = git.update_refs(updates, repository.stem, project="Sdk")
    assert (answer.success, answer.update_status) == (False, "staleOldObjectId")


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_runs_are_listed_read_and_canceled(clients, cloud, repository):
    build, git = clients.get_build_client(), clients.get_git_client()
    found = git.get_repository(repository.stem, project="Sdk")
    blob = sample.git(repository, "hash-object", "-w", "--stdin", stdin=SLOW.encode()).strip()
    tree = sample.git(repository, "mktree", stdin=f"100644 blob {blob}\tp.yml\n".encode()).strip()
    commit = sample.git(repository, "commit-tree", tree, "-p", "main", "-m", "pipeline").strip()
    sample.git(repository, "update-ref", "refs/heads/main", commit)
    definition = build.create_definition(
        {
            "name": repository.stem,
            "process": {"type": 2, "yamlFilename": "p.yml"},
            "repository": {"id": found.id, "type": "TfsGit", "defaultBranch": "refs/heads/main"},
        },
        project="Sdk",
    )
    first, second = (build.queue_build(Build(definition={"id": definition.id}), project="Sdk") for _ in range(2))
    until(lambda: len(build.get_build_logs("Sdk", first.id)) > 1)
    until(lambda: any("started" in line for line in build.get_build_log_lines("Sdk", first.id, 2)))
    assert {found.id for found in build.get_builds("Sdk")} >= {first.id, second.id}
    for run in (second, first):
        build.update_build(Build(status="cancelling"), project="Sdk", build_id=run.id)
    until(lambda: all(build.get_build("Sdk", run.id).status == "completed" for run in (first, second)))
    assert [build.get_build("Sdk", run.id).result for run in (first, second)] == ["canceled", "canceled"]
    assert len(build.get_build_logs("Sdk", second.id)) == 0


@pytest.mark.parametrize(
    "path", ["_apis/git/repositories?api-version=7.1", "_git/{name}/info/refs?service=git-upload-pack"]
)
def test_a_personal_access_token_is_no_bearer_token(cloud, repository, path):
    url = f"{cloud.azure_url}/contoso/Sdk/{path.format(name=repository.stem)}"
    assert httpx.get(url, auth=("", cloud.operator_token)).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"Bearer {cloud.operator_token}"}).status_code == 203
    assert httpx.get(url, headers={"Authorization": f"Bearer {cloud.entra_token}"}).status_code == 200
