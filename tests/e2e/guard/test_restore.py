"""``restore`` as a person runs it: from the replica, its archive and snapshots, to folders and servers."""

import json
import os
import re
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from codecommit_mirror.aws.writer import PipelineRecord
from codecommit_mirror.azure.rest.client import AzureDevOps
from codecommit_mirror.azure.rest.token import AzureToken
from codecommit_mirror.engine.refs import CARRIED_PREFIX
from localcloud import sample
from localcloud.azure import repos

from ..conftest import Rig, counter
from ..engine.sides import NAMESPACES

pytestmark = pytest.mark.long("guard")


@pytest.fixture
def restore(rig, command, cloud):
    """Run ``restore`` for the rig's mirror, with a token that may create repositories; its user has a record."""
    azure = AzureDevOps(rig.mirror.azure, AzureToken(cloud.operator_token, False, "test", cloud.azure_url))
    source = azure.repository(rig.mirror.azure.repository)
    record = PipelineRecord(source.project_id, 1, source.id)
    cloud.client("iam").tag_user(UserName=rig.outputs["PushUserName"], Tags=record.tags(rig.outputs["ReplicaArn"]))

    def run(*arguments, check=True):
        url = rig.mirror.azure.clone_url
        done = command(
            "restore", rig.name, "--azure-repo-url", url, *arguments, AZURE_DEVOPS_EXT_PAT=cloud.manager_token
        )
        assert (done.returncode == 0) is check, done.stdout + done.stderr
        return done.stdout if check else done.stderr

    return run


def azure_refs(cloud, name):
    return sample.refs(repos.repository_path(cloud.root / "azure", "contoso", "Shop", name))


def shop(rig, name):
    """The clone URL of a repository beside the source."""
    return rig.mirror.azure.model_copy(update={"repository": name}).clone_url


def test_a_new_repository_in_azure_devops_gets_everything_and_running_again_nothing(rig, restore, cloud):
    sample.fill(rig.source)
    rig.run()
    name = f"{rig.name}-restored"
    planned = restore("--to", shop(rig, name), "--dry-run")
    assert "Would create 16 refs; 0 are there already." in planned
    assert "refs/notes/commits" in planned
    assert not repos.repository_path(cloud.root / "azure", "contoso", "Shop", name).exists()
    assert "16 refs created, 0 there already" in restore("--to", shop(rig, name))
    assert azure_refs(cloud, name) == sample.refs(rig.source, *NAMESPACES)
    assert "0 refs created, 16 there already" in restore("--to", shop(rig, name))
    sample.commit(rig.source, "main", "one more")
    rig.run()
    assert "0 refs created, 15 there already" in restore("--to", shop(rig, name))
    refused = restore("--to", shop(rig, name), "--refs", "main", check=False)
    assert "has other values for 1 ref (refs/heads/main), and nothing is moved" in refused
    beside = ("--under", "refs/heads/restored/", "--refs", "main", "--refs", "v*", "--yes")
    below = restore("--to", shop(rig, name), *beside)
    assert "4 refs created" in below
    assert azure_refs(cloud, name)["refs/heads/restored/main"] == sample.refs(rig.source)["refs/heads/main"]
    assert azure_refs(cloud, name)["refs/tags/restored/v2.0"] == sample.refs(rig.source)["refs/tags/v2.0"]


def test_a_deleted_branch_comes_back_where_it_was(rig, restore):
    """And nothing else is touched, whatever has happened to it since; a pull request does not stand in the way."""
    sample.fill(rig.source)
    rig.run()
    time.sleep(1.1)
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    time.sleep(1.1)
    before = sample.refs(rig.source, "refs/heads/", "refs/tags/")
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    rewritten = sample.commit(rig.source, "feature/1", "rewritten", parent="main~3")
    rig.run()
    pull = f"{CARRIED_PREFIX}pull/77/merge"
    sample.git(rig.replica, "update-ref", pull, rewritten)
    planned = json.loads(restore("--at", at, "--from", "replica", "--to", "source", "--dry-run", "--json"))
    assert planned["create"] == {"refs/heads/feature/0": before["refs/heads/feature/0"]}
    assert planned["conflicts"] == {"refs/heads/feature/1": rewritten}
    assert planned["left_out"] == ["refs/pull/77/merge"]
    printed = restore("--at", at, "--from", "replica", "--to", "source", "--yes")
    assert "1 ref created, " in printed
    assert f"1 ref has another value there, and stays as it is; --under restores beside:\n  {rewritten} " in printed
    assert "Left out, because the server writes it itself: 1 ref (refs/pull/77/merge)." in printed
    now = sample.refs(rig.source, "refs/heads/", "refs/tags/")
    assert now == {**before, "refs/heads/feature/1": rewritten}


def test_what_was_planted_on_the_replica_reaches_the_source_only_with_a_persons_word(rig, restore):
    sample.fill(rig.source)
    rig.run()
    assert json.loads(restore("--to", "source", "--dry-run", "--json"))["confirmed"] is True
    planted = sample.commit(rig.replica, "planted", "A pipeline", parent="main")
    # A name that has no kind, which only the engine's own place on the replica can give a ref.
    sample.git(rig.replica, "update-ref", f"{CARRIED_PREFIX}x", planted)
    said = restore("--to", "source", check=False)
    assert "no run of the mirror has confirmed what the replica has now" in said
    assert f"{planted} refs/heads/planted" in said
    assert "there is no terminal to ask on: Create 1 ref in " in said
    assert "refs/heads/planted" not in sample.refs(rig.source)
    assert "refs/heads/restored/planted" in restore("--to", "source", "--under", "refs/heads/restored/", "--dry-run")
    said = restore("--to", rig.mirror.azure.clone_url, check=False)
    assert f"there is no terminal to ask on: Create 1 ref in {rig.mirror.azure.clone_url}? What" in said
    restore("--to", "source", "--yes")
    assert sample.refs(rig.source)["refs/heads/planted"] == planted


@pytest.mark.parametrize("form", ["each-ref", "the-pack"])
def test_a_repository_that_is_too_large_for_one_push_goes_in_increments(rig, restore, cloud, form):
    sample.fill(rig.source, commits=3, branches=1, tags=1)
    for _ in range(4):
        stream = b"commit refs/heads/main\ncommitter A <a@b> 1 +0000\ndata 1\nx\nfrom refs/heads/main^0\n"
        content = b"data 700000\n" + os.urandom(700_000) + b"\n"
        sample.git(rig.source, "fast-import", "--quiet", stdin=stream + b"M 100644 inline large\n" + content)
    rig.run()
    name = f"{rig.name}-large"
    cloud.azure.limit_pushes(1, form)
    try:
        assert "refs created, 0 there already" in restore("--to", shop(rig, name))
    finally:
        cloud.azure.limit_pushes(5120)
    assert azure_refs(cloud, name) == sample.refs(rig.source, *NAMESPACES)


def test_another_replica_can_be_the_target(rig, restore, cloud):
    sample.fill(rig.source)
    rig.run()
    codecommit = cloud.client("codecommit")
    made = codecommit.create_repository(repositoryName=f"{rig.name}-copy")["repositoryMetadata"]
    refused = restore("--to", made["cloneUrlHttp"], "--yes", check=False)
    assert "refused 1 ref (refs/notes/commits)" in refused
    assert "the other 15 are there, and running this again tries only what is missing" in refused
    branches = sample.refs(cloud.replica_path(f"{rig.name}-copy"), "refs/heads/")
    assert branches == sample.refs(rig.source, "refs/heads/")


def test_the_archive_gives_back_what_runs_have_dropped_since(rig, restore, tmp_path):
    sample.fill(rig.source)
    rig.run()
    before = sample.refs(rig.source, *NAMESPACES)
    time.sleep(1.1)
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    time.sleep(1.1)
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    sample.commit(rig.source, "feature/1", "rewritten", parent="main~3")
    rig.run()
    restore("--from", "replica", "--at", at, "--to", str(tmp_path / "then"))
    assert sample.refs(tmp_path / "then") == before
    restore("--to", str(tmp_path / "now"))
    assert sample.refs(tmp_path / "now") == sample.refs(rig.source, *NAMESPACES)
    assert (tmp_path / "now" / "HEAD").read_text() == "ref: refs/heads/main\n"


def test_an_entry_that_cannot_be_read_hides_no_other(rig, restore):
    sample.fill(rig.source)
    rig.run()
    time.sleep(1.1)
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tip = sample.refs(rig.source)["refs/heads/feature/0"]
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    time.sleep(1.1)
    rig.run()
    endless = f"tree {sample.git(rig.source, 'rev-parse', 'main^{tree}').strip()}\nauthor A <a@b> 1 +0000\n"
    endless += f"committer A <a@b> 1 +0000\n\n{'x' * 17_000_000}"
    spoilt = sample.git(rig.replica, "hash-object", "-t", "commit", "-w", "--stdin", stdin=endless.encode()).strip()
    entry = f"refs/tags/codecommit-mirror/archive/{datetime.now(UTC):%Y%m%dT%H%M%SZ}/{spoilt[:16]}"
    sample.git(rig.replica, "update-ref", entry, spoilt)
    planned = json.loads(restore("--from", "replica", "--at", at, "--to", "source", "--dry-run", "--json"))
    assert (planned["unread"], planned["create"]) == ([entry], {"refs/heads/feature/0": tip})


def test_mistakes_leave_nothing_behind(rig, restore, tmp_path):
    sample.fill(rig.source)
    rig.run()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert "exists and is not empty" in restore("--to", str(tmp_path / "full"), check=False)
    assert "there is no snapshot of this replica" in restore("--from", "snapshots", "--to", "x", check=False)
    assert "does not exist; correct --bucket" in restore("--drill", "--bucket", "no-such-bucket-here", check=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_a_drill_says_how_old_and_how_long(guarded, rig, restore, cloud, command, tmp_path):
    sample.fill(rig.source)
    rig.run()
    guarded.snapshot(rig.name)
    assert re.search(r"The drill of \S+ succeeded: the snapshot of .*, \d+ s old, has 16 refs and", restore("--drill"))
    found = json.loads(restore("--drill", "--json"))
    assert (found["sound"], found["refs"], found["problem"]) == (True, 16, None)


def test_drills_of_several_mirrors_say_which_snapshots_are_sound(
    guarded, rig, cloud, stack_template, command, tmp_path
):
    config, summary = tmp_path / "mirrors.yaml", tmp_path / "summary.md"
    another = Rig(cloud, f"replica-{next(counter)}", stack_template)
    for one in (rig, another):
        sample.fill(one.source, commits=3, branches=1, tags=1)
        one.run()
        guarded.snapshot(one.name)
    names = [rig.name, another.name, "no-such-replica"]
    entries = [f"  {name}: {{azure: {{repository: {name}}}}}\n" for name in names]
    head = "defaults:\n  azure: {organization: contoso, project: Shop}\nmirrors:\n"
    config.write_text(head + "".join(entries))
    for drill in (["restore", "--drill", "--all"], ["restore", "--drill", "--all", "--job"]):
        done = command(*drill, "--config", str(config), "--summary", str(summary), "--json")
        assert done.returncode == 1
        found = {one["mirror"]: one for one in json.loads(done.stdout)["mirrors"]}
        assert {name: found[name]["result"] for name in names} == dict(
            zip(names, ("succeeded", "succeeded", "failed"), strict=True)
        )
        drill = found[rig.name]["drill"]
        assert (drill["problem"], drill["refs"] > 3, drill["age_seconds"] < 600) == (None, True, True)
        assert "there is no snapshot of this replica" in found["no-such-replica"]["message"]
    assert summary.read_text().count("2 of 3 mirrors succeeded; failed: no-such-replica.") == 2
    late = ("restore", "--drill", "--all", "--job", "--minutes", "0", "--json")
    left = json.loads(command(*late, "--config", str(config)).stdout)["mirrors"]
    assert {one["result"] for one in left} == {"left"}


def test_no_password_is_in_the_guards_log_or_state(guarded, rig, cloud):
    sample.fill(rig.source)
    rig.run()
    guarded.snapshot(rig.name)
    guarded.invoke(task="check")
    logs, group = cloud.client("logs"), guarded.environment()["LOG_GROUP"]
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    text = "".join(
        event["message"]
        for stream in streams
        for event in logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    )
    text += guarded.s3.get_object(Bucket=guarded.bucket, Key=f"state/{rig.name}.json")["Body"].read().decode()
    assert '"replica": ' in text
    assert not re.search(r"\d{8}T\d{6}Z[0-9a-f]{64}", text)
    assert "ASIA" not in text
    assert rig.credential["ServicePassword"] not in text


@pytest.fixture
def elsewhere():
    """A server that is nobody's, and the credentials that it got."""
    heard = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.headers.get("Authorization"))
            self.send_response(404)
            self.end_headers()

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", heard
    server.shutdown()


@pytest.mark.parametrize("how", ["file", "option"])
def test_a_server_that_only_a_file_or_a_url_names_gets_no_token(rig, cloud, command, tmp_path, elsewhere, how):
    sample.fill(rig.source)
    rig.run()
    server, heard = elsewhere
    azure = f"{{server: '{server}', organization: contoso, project: Shop, repository: {rig.name}}}"
    text = f"mirrors:\n  {rig.name}:\n    azure: {azure}\n    region: {cloud.region}\n"
    (tmp_path / "mirrors.yaml").write_text(text)
    url = f"{server}/contoso/Shop/_git"
    named = ["--config", str(tmp_path / "mirrors.yaml")] if how == "file" else ["--azure-repo-url", f"{url}/{rig.name}"]
    done = command(
        "restore", rig.name, *named, "--to", f"{url}/restored", "--dry-run", AZURE_DEVOPS_EXT_PAT="canary-of-a-person"
    )
    assert done.returncode == 2
    assert "gets no token or password" in done.stderr
    assert heard == []
