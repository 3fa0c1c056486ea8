"""The journey on a real AWS account and a real Azure DevOps project: what the embedded cloud cannot prove.

Wanted in the environment: AWS credentials of a bootstrapped account and AWS_REGION; AZURE_DEVOPS_EXT_PAT with the
scopes Code (read, write & manage), Build (read & execute), and Project and team (read); MIRROR_LIVE_PROJECT, like https://dev.azure.com/contoso/Shop.
The report at the end says of each line of docs/assumptions.md whether it held.
Everything that is created has a name of its own, ``mirror-live-`` and eight random letters, and is removed at the end.
"""

import base64
import os
import secrets
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from codecommit_mirror.aws.stack import read_outputs
from codecommit_mirror.azure.rest import token as azure_token
from codecommit_mirror.azure.state import read_state
from codecommit_mirror.backup.origin import dropped_since
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.guard_api import read_entries
from codecommit_mirror.operations import verification
from codecommit_mirror.operations.context import MirrorContext
from codecommit_mirror.operations.run import run
from localcloud import sample
from tests.program import program

ROOT = Path(__file__).parents[2]
NAMESPACES = ("refs/heads/", "refs/tags/", "refs/notes/")
PROJECT = os.environ.get("MIRROR_LIVE_PROJECT", "").rstrip("/")

pytestmark = pytest.mark.skipif(
    not (PROJECT and os.environ.get("AZURE_DEVOPS_EXT_PAT") and os.environ.get("AWS_REGION")),
    reason="needs MIRROR_LIVE_PROJECT, AZURE_DEVOPS_EXT_PAT, AWS_REGION and AWS credentials",
)


class Live:
    """One source repository and its mirror, both new."""

    def __init__(self, folder: Path) -> None:
        self.name = f"mirror-live-{secrets.token_hex(4)}"
        self.mirror = single_mirror(self.name, f"{PROJECT}/_git/{self.name}")
        token = base64.b64encode(f":{os.environ['AZURE_DEVOPS_EXT_PAT']}".encode()).decode()
        self._azure = httpx.Client(
            base_url=f"{PROJECT}/_apis/git/", headers={"Authorization": f"Basic {token}"}, timeout=60
        )
        made = self._azure.post("repositories", params={"api-version": "7.1"}, json={"name": self.name})
        made.raise_for_status()
        self.repository_id = made.json()["id"]
        self.clone = folder / "clone.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.clone)], check=True)
        sample.fill(self.clone, pull_requests=0)
        self.push("refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*", "refs/notes/*:refs/notes/*")

    def context(self) -> MirrorContext:
        return MirrorContext(self.mirror, os.environ, ROOT)

    def push(self, *refspecs: str) -> None:
        endpoint = verification.source_endpoint(self.mirror, azure_token.find_token(os.environ))
        environment = program.git_environment(os.environ, endpoint)
        subprocess.run(
            ["git", "-C", str(self.clone), "push", "-q", endpoint.url, *refspecs], env=environment, check=True
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        url = self.mirror.azure.clone_url
        command = [sys.executable, "-m", "codecommit_mirror", *arguments, "--azure-repo-url", url]
        # The pipeline reads the source with a personal access token, as a Git password.
        secret = {"AZURE_GIT_USERNAME": "git", "AZURE_GIT_PASSWORD": os.environ["AZURE_DEVOPS_EXT_PAT"]}
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, **secret}, capture_output=True, text=True, check=False
        )

    def run(self) -> tuple[str, str]:
        """Run the pipeline; return its result and its log."""
        context = self.context()
        finished = run(context, read_state(self.mirror, context.azure)[1], timeout_minutes=30)
        steps = [record for record in context.azure.timeline(finished.build) if record.kind == "Task"]
        logs = [context.azure.log(finished.build, record.log_id) for record in steps if record.log_id]
        return str(finished.build.result), "\n".join(logs)

    def wait_for_runs(self, at_least: int) -> list[str]:
        """Wait until that many runs have ended, and return the reasons of all."""
        deadline = time.monotonic() + 1800
        while time.monotonic() < deadline:
            context = self.context()
            builds = list(context.azure.builds(read_state(self.mirror, context.azure)[1].definition))
            if len(builds) >= at_least and all(build.done for build in builds):
                return [build.reason for build in builds]
            time.sleep(min(5, 0.2 * at_least))
        raise AssertionError("no run came")

    def replica_endpoint(self) -> program.Endpoint:
        context = self.context()
        url = read_outputs(context.aws, self.mirror).replica_url
        return verification.replica_endpoint(context.aws, url)

    def replica(self) -> dict[str, str]:
        return dict(program.read_refs(self.replica_endpoint(), "git-upload-pack").refs)

    def remove(self) -> None:
        down = self.command("down", self.name, "--yes")
        gone = self._azure.delete(f"repositories/{self.repository_id}", params={"api-version": "7.1"})
        assert down.returncode == 0, down.stdout + down.stderr
        assert gone.status_code in (200, 204), gone.text


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A mirror that is up; taken down at the end, whatever happened."""
    made = Live(tmp_path_factory.mktemp("live"))
    try:
        up = made.command("up", made.name, "--yes")
        assert up.returncode == 0, up.stdout + up.stderr
        yield made
    finally:
        made.remove()


def advertised(observe, what, endpoint, service):
    found = program.read_refs(endpoint, service)
    words = " ".join(word for word in found.capabilities if not word.startswith("symref="))
    observe(f"{what} to `{service}`: `{words}`" + (", `symref=HEAD`" if found.head else ""))
    return found


@pytest.mark.tries("codecommit-receive-pack", "codecommit-no-atomic")
def test_a_push_is_offered_what_was_recorded(live, observe):
    found = advertised(observe, "CodeCommit", live.replica_endpoint(), "git-receive-pack")
    assert found.capabilities == ("side-band-64k", "report-status", "delete-refs", "thin-pack")


@pytest.mark.tries("codecommit-upload-pack")
def test_a_fetch_is_offered_what_was_recorded(live, observe):
    found = advertised(observe, "CodeCommit", live.replica_endpoint(), "git-upload-pack")
    recorded = "multi_ack_detailed shallow side-band-64k thin-pack allow-tip-sha1-in-want allow-reachable-sha1-in-want"
    assert " ".join(found.capabilities) == recorded


@pytest.mark.tries("azure-thin-packs")
def test_the_source_offers_thin_packs(live, observe):
    source = verification.source_endpoint(live.mirror, azure_token.find_token(os.environ))
    found = advertised(observe, "Azure Repos", source, "git-upload-pack")
    assert "thin-pack" in found.capabilities


def push_directly(live, commands, capabilities=()):
    """Push refs of the replica's own commits, as the operator."""
    endpoint = live.replica_endpoint()
    offered = program.read_refs(endpoint, "git-receive-pack").capabilities
    return program.push(endpoint, (*offered, *capabilities), commands, program.EMPTY_PACK, program.Traffic())


@pytest.mark.tries("codecommit-aborts")
def test_a_capability_that_was_not_offered_aborts_the_push(live):
    command = program.Command("refs/tags/never", None, live.replica()["refs/heads/main"])
    with pytest.raises(program.PackRefused, match="aborted the push without giving a reason"):
        push_directly(live, [command], [program.AGENT])
    assert "refs/tags/never" not in live.replica()


@pytest.mark.tries("codecommit-4000")
def test_more_than_four_thousand_updates_are_refused(live):
    tip = live.replica()["refs/heads/main"]
    commands = [program.Command(f"refs/tags/many/{number}", None, tip) for number in range(4001)]
    with pytest.raises(program.PackRefused, match="Too many reference update commands"):
        push_directly(live, commands)
    assert "refs/tags/many/0" not in live.replica()


@pytest.mark.tries("codecommit-names")
@pytest.mark.parametrize("name", [f"refs/heads/{'ab' * 20}", f"refs/tags/{'ab' * 20}"])
def test_names_of_forty_digits_are_refused(live, name):
    command = program.Command(name, None, live.replica()["refs/heads/main"])
    assert name in push_directly(live, [command])
    assert name not in live.replica()


@pytest.mark.tries(
    "codecommit-git-push-lists", "codecommit-signature", "azure-definition-without-yaml", "azure-preview"
)
def test_every_ref_arrives(live):
    """Branches, tags of both kinds and notes."""
    source = sample.refs(live.clone)
    replica = program.by_original_name(live.replica(), NAMESPACES)
    assert {name: replica.get(name) for name in source if name != "refs/heads/main"} == {
        name: value for name, value in source.items() if name != "refs/heads/main"
    }


@pytest.mark.tries("codecommit-other-refs")
def test_a_note_is_there_under_one_of_two_names(live, observe):
    notes = [name for name in live.replica() if "/notes/" in name]
    observe(f"a note is on the replica as `{', '.join(notes)}`")
    assert len(notes) == 1


@pytest.mark.tries("codecommit-thin-packs", "azure-one-request")
def test_a_change_is_one_request_and_one_thin_pack(live):
    """Azure Repos answers wants, haves and done in one request, CodeCommit takes the thin pack in chunks."""
    live.push("+refs/heads/feature/0:refs/heads/feature/grown")
    sample.commit(live.clone, "feature/1", "a change")
    live.push("feature/1")
    result, log = live.run()
    assert result == "succeeded"
    assert "Falling back" not in log
    assert live.replica()["refs/heads/feature/1"] == sample.refs(live.clone)["refs/heads/feature/1"]


def test_what_is_deleted_or_rewritten_stays_in_the_archive(live):
    """CodeCommit takes tags with many slashes, and deletions beside them."""
    began = datetime.now(UTC).replace(microsecond=0)
    old = sample.refs(live.clone)["refs/heads/feature/2"]
    rewritten = sample.refs(live.clone)["refs/heads/feature/3"]
    live.push(":refs/heads/feature/2")
    sample.commit(live.clone, "feature/3", "rewritten", parent="refs/heads/feature/3~1")
    live.push("+feature/3")
    assert live.run()[0] == "succeeded"
    replica, endpoint = live.replica(), live.replica_endpoint()
    offered = program.read_refs(endpoint, "git-upload-pack").capabilities
    dropped, unread = dropped_since(replica, began, lambda entries: read_entries(endpoint, offered, entries))
    assert dropped == {"refs/heads/feature/2": old, "refs/heads/feature/3": rewritten}
    assert unread == ()
    assert "refs/heads/feature/2" not in replica


@pytest.mark.tries("azure-ci-trigger", "azure-skip-ci")
def test_pushes_start_runs_by_themselves(live):
    """The CI trigger, from a branch that has the YAML."""
    live.wait_for_runs(1)
    endpoint = verification.source_endpoint(live.mirror, azure_token.find_token(os.environ))
    environment = program.git_environment(os.environ, endpoint)
    fetch = ["git", "-C", str(live.clone), "fetch", "-q", endpoint.url, "+refs/heads/main:refs/heads/main"]
    subprocess.run(fetch, env=environment, check=True)
    before = len(live.wait_for_runs(1))
    sample.commit(live.clone, "main", "a change that starts a run")
    live.push("main")
    assert {"batchedCI", "individualCI"} & set(live.wait_for_runs(before + 1))
    assert live.command("verify", live.name).returncode == 0


@pytest.mark.tries("iam-propagation", "azure-null-secrets")
def test_a_credential_is_rotated(live):
    """IAM's second place, eventual consistency included; null keeps the other secrets."""
    rotated = live.command("rotate", live.name)
    assert rotated.returncode == 0, rotated.stdout + rotated.stderr
    status = live.command("status", live.name)
    assert status.returncode == 0, status.stdout + status.stderr


def test_everything_is_found_again(live):
    """``up`` on a mirror that is up changes nothing that matters."""
    again = live.command("up", live.name, "--yes")
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.tries("codecommit-default-branch")
def test_the_replicas_default_branch_is_not_deleted(live):
    """CodeCommit's refusal is recognised, and told with its remedy. Last, since it leaves a ref to a person."""
    live.push("main:refs/heads/trunk")
    patched = live._azure.patch(
        f"repositories/{live.repository_id}",
        params={"api-version": "7.1"},
        json={"defaultBranch": "refs/heads/trunk"},
    )
    patched.raise_for_status()
    live.push(":refs/heads/main")
    result, log = live.run()
    assert result == "partiallySucceeded", log
    assert "update-default-branch" in log
