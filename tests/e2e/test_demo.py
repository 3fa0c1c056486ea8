"""``python -m demo``: the main job, as ``make demo`` runs it."""

import os
import re
import subprocess
import sys
import time

import httpx
import pytest

from localcloud import sample

from .conftest import ROOT

pytestmark = pytest.mark.long


def without_numbers(line):
    """Return a line without its times and counts, which differ from run to run."""
    return re.sub(r" *[0-9]+(\.[0-9]+)?", " N", line)


def demo(*arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_yaml_of_a_source_runs_on_this_machine(tmp_path):
    source, stolen = tmp_path / "source", tmp_path / "stolen"
    subprocess.run(["git", "init", "-q", "-b", "trunk", str(source)], check=True)
    git = ["git", "-C", str(source), "-c", "user.email=a@example.com", "-c", "user.name=A"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    subprocess.run([*git, "checkout", "-q", "-b", "feature"], check=True)
    (source / "azure-pipelines-mirror.yml").write_text(f"steps:\n  - bash: touch {stolen}\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a pipeline"], check=True)
    done = demo("--source", str(source))
    assert done.returncode == 1
    assert "refs/heads/feature of that repository has a file azure-pipelines-mirror.yml" in done.stderr
    assert not stolen.exists()


def test_any_repository_is_mirrored_and_nothing_is_left(tmp_path):
    source = tmp_path / "source"
    subprocess.run(["git", "init", "-q", "-b", "trunk", str(source)], check=True)
    subprocess.run(["git", "-C", str(source), "config", "user.email", "a@example.com"], check=True)
    subprocess.run(["git", "-C", str(source), "config", "user.name", "A"], check=True)
    for number in range(3):
        subprocess.run(["git", "-C", str(source), "commit", "-q", "--allow-empty", "-m", f"{number}"], check=True)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = demo("--source", str(source), TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "created policy CodeCommitMyRepoReplicaGitPush",
        "created pipeline codecommit-mirror-MyRepoReplica",
        "a force-push to mirror-demo/to-be-rewritten",
        "(batchedCI, trunk): succeeded",
        "2 created, 2 updated, 0 deleted, 1 archived",
        "(schedule, trunk): succeeded",
        "0 created, 0 updated, 1 deleted, 1 archived",
        "MyRepoReplica has a new credential, and the old one is deleted.",
        "after down there is no repository, no policy, no user, no credential, no role, no function, no log group, "
        "no pipeline, no YAML file left",
    ):
        assert words in done.stdout
    printed = {without_numbers(line) for line in done.stdout.splitlines()}
    (excerpt,) = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [line for line in excerpt.splitlines() if without_numbers(line) not in printed] == []
    left = [path.name for path in temporary.iterdir()]
    assert not [name for name in left if name.startswith(("localcloud-", "agent-", "mirror-"))]


def test_a_source_that_cannot_be_used_is_one_sentence(tmp_path):
    done = demo("--source", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: SOURCE")
    assert "Traceback" not in done.stderr
    empty = tmp_path / "empty.git"
    subprocess.run(["git", "init", "-q", "--bare", str(empty)], check=True)
    assert "has no branch" in demo("--source", str(empty)).stderr
    shallow = tmp_path / "shallow.git"
    full = tmp_path / "full.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(full)], check=True)
    sample.fill(full)
    subprocess.run(["git", "clone", "-q", "--bare", "--depth", "1", f"file://{full}", str(shallow)], check=True)
    assert "is a shallow clone" in demo("--source", str(shallow)).stderr


def test_more_repositories_go_with_a_cloud_that_stays():
    done = demo("--repositories", "3")
    assert done.returncode == 2
    assert "--repositories requires --keep" in done.stderr


@pytest.mark.skipif(not hasattr(os, "kill"), reason="stops a process by its id")
def test_keep_leaves_the_cloud_running_until_it_is_stopped():
    done = demo("--keep", "--repositories", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in done.stdout.splitlines())}
    script, pid = lines["environment"].removeprefix(". "), int(lines["stop"].split()[1])
    command = f"{sys.executable} -m codecommit_mirror credentials list MyRepoReplica"
    look = f". {script}; {command} --config {lines['mirrors.yaml']}"
    listed = subprocess.run(["sh", "-c", look], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Active" in listed.stdout, listed.stderr
    # A newcomer brings up another mirror, and creates and lists repositories.
    up = f". {script}; {sys.executable} -m codecommit_mirror up MyRepo2Replica --yes"
    second = subprocess.run(["sh", "-c", up], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "MyRepo2Replica is up" in second.stdout, second.stdout + second.stderr
    url = lines["more sources"].split()[0]
    token = subprocess.run(
        ["sh", "-c", f'. {script}; printf %s "$AZURE_DEVOPS_EXT_PAT"'], capture_output=True, text=True
    )
    assert httpx.post(url, auth=("", token.stdout), json={"name": "Another"}).status_code == 200
    names = [found["name"] for found in httpx.get(url, auth=("", token.stdout)).json()["value"]]
    assert names == ["Another", "MyRepo", "MyRepo2"]
    os.kill(pid, 15)
    deadline = time.monotonic() + 10
    while os.path.exists(os.path.dirname(script)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(os.path.dirname(script))
