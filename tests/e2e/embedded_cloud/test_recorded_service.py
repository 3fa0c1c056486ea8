"""CodeCommit's Git service in the embedded cloud, held against what was recorded of the real one.

docs/assumptions.md names the recordings. Each rule has a test here that fails without it.
"""

import subprocess
import urllib.request

import pytest

from localcloud import sample
from localcloud.aws.codecommit.git_service import MAX_UPDATES, HangUp, OtherRefs, packet
from localcloud.git_http import Answer
from tests.e2e.engine.sides import grow
from tests.program import program

RESULT = "application/x-git-receive-pack-result"


@pytest.fixture
def service(strict_sides):
    """A filled source, and an empty replica that is served as recorded."""
    sample.fill(strict_sides.source)
    return strict_sides


def get(url):
    with urllib.request.urlopen(url) as response:
        return response.headers["Content-Type"], response.read()


def post(service, body):
    request = urllib.request.Request(f"{service.replica_url}/r/git-receive-pack", body, method="POST")
    with urllib.request.urlopen(request) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, RESULT)
        return response.read()


def push(service, *refspecs, options=(), repository=None):
    command = ["git", *options, "-C", str(repository or service.source), "push", f"{service.replica_url}/r", *refspecs]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def line(service, ref, new, old="0" * 40, capabilities=" report-status side-band-64k"):
    return packet(f"{old} {new} {ref}\0{capabilities}".encode()) + b"0000"


def tip(service, name="main"):
    return sample.git(service.source, "rev-parse", name).strip()


# ------------------------------------------------------------------------------------------------- the advertisements


def test_upload_pack_advertises_byte_for_byte_what_was_recorded(service):
    """https://github.com/isomorphic-git/isomorphic-git/issues/199, with another commit and branch."""
    assert push(service, "main").returncode == 0
    kind, body = get(f"{service.replica_url}/r/info/refs?service=git-upload-pack")
    assert kind == "application/x-git-upload-pack-advertisement"
    assert body == (
        b"001e# service=git-upload-pack\n0000"
        b"0099%(id)s HEAD\0multi_ack_detailed shallow side-band-64k thin-pack allow-tip-sha1-in-want "
        b"allow-reachable-sha1-in-want\n"
        b"003d%(id)s refs/heads/main\n"
        b"0000"
    ) % {b"id": tip(service).encode()}


def test_receive_pack_advertises_byte_for_byte_what_was_recorded(service):
    """The capabilities of https://github.com/jelmer/dulwich/issues/671, in the frame of gitprotocol-http."""
    kind, body = get(f"{service.replica_url}/r/info/refs?service=git-receive-pack")
    assert kind == "application/x-git-receive-pack-advertisement"
    capabilities = b"side-band-64k report-status delete-refs thin-pack"
    start = b"001f# service=git-receive-pack\n0000"
    assert body == start + b"006f" + b"0" * 40 + b" capabilities^{}\0" + capabilities + b"\n0000"
    push(service, "main")
    _, body = get(f"{service.replica_url}/r/info/refs?service=git-receive-pack")
    assert body == start + (b"0064%(id)s HEAD\0%(words)s\n003d%(id)s refs/heads/main\n0000") % {
        b"id": tip(service).encode(),
        b"words": capabilities,
    }


def test_protocol_version_2_is_not_spoken(service):
    push(service, "main")
    listed = ["git", "-c", "protocol.version=2", "ls-remote", f"{service.replica_url}/r"]
    done = subprocess.run(listed, env={"GIT_TRACE_PACKET": "1"}, capture_output=True, text=True, check=True)
    assert "refs/heads/main" in done.stdout
    assert "version 2" not in done.stderr


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("word", ["agent=git/2.39.5", "atomic", "ofs-delta", "quiet", "report-status-v2"])
def test_a_push_that_names_what_was_not_advertised_is_aborted_with_an_empty_report(service, word):
    """https://github.com/isomorphic-git/isomorphic-git/issues/310."""
    push(service, "main")
    body = line(service, "refs/heads/new", tip(service), capabilities=f" report-status side-band-64k {word}")
    assert post(service, body + program.EMPTY_PACK) == b""
    assert "refs/heads/new" not in sample.refs(service.replica)
    body = line(service, "refs/heads/new", tip(service))
    assert b"unpack ok" in post(service, body + program.EMPTY_PACK)
    assert "refs/heads/new" in sample.refs(service.replica)


def test_a_fetch_that_names_what_was_not_advertised_gets_nothing(service):
    push(service, "main")
    want = packet(f"want {tip(service)} side-band-64k ofs-delta\n".encode()) + b"0000" + packet(b"done\n")
    request = urllib.request.Request(f"{service.replica_url}/r/git-upload-pack", want, method="POST")
    with urllib.request.urlopen(request) as response:
        assert response.read() == b""


def test_offset_deltas_are_refused_in_the_recorded_words(service):
    """https://github.com/src-d/go-git/issues/945."""
    command = ["git", "-C", str(service.source), "pack-objects", "--stdout", "--all", "-q"]
    for options, refused in (["--delta-base-offset"], True), ([], False):
        pack = subprocess.run([*command, *options], stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
        answer = post(service, line(service, "refs/heads/main", tip(service)) + pack)
        assert (b"unpack protocol error (offset deltas are not supported)\n" in answer) is refused
        assert ("refs/heads/main" in sample.refs(service.replica)) is not refused


def test_atomic_pushes_are_refused_by_git_itself(service):
    """https://github.com/ef-labs/stash-hook-mirror/issues/57."""
    assert "the receiving end does not support --atomic push" in push(service, "--atomic", "main").stderr


def test_more_than_four_thousand_updates_are_refused_in_the_documented_words(service):
    new, (first, *rest) = tip(service), [f"refs/tags/{n}" for n in range(MAX_UPDATES + 1)]
    push(service, "main")
    more = b"".join(packet(f"{'0' * 40} {new} {ref}".encode()) for ref in rest)
    head = packet(f"{'0' * 40} {new} {first}\0 report-status side-band-64k".encode())
    answer = post(service, head + more + b"0000" + program.EMPTY_PACK)
    assert b"unpack Too many reference update commands\n" in answer
    assert "refs/tags/0" not in sample.refs(service.replica)
    fits = more[: -len(packet(f"{'0' * 40} {new} {rest[-1]}".encode()))]
    assert b"unpack ok" in post(service, head + fits + b"0000" + program.EMPTY_PACK)


@pytest.mark.parametrize(
    "name", [f"refs/heads/{'aB' * 20}", f"refs/tags/{'0' * 40}", f"refs/heads/{'x' * 257}", "refs/heads/@"]
)
def test_names_that_the_quotas_page_forbids_are_refused(service, name):
    assert push(service, "main", f"main:{name}").returncode != 0
    assert sample.refs(service.replica) == {}


def test_the_default_branch_cannot_be_deleted(service):
    push(service, "main", "feature/0")
    refused = push(service, ":main", ":feature/0")
    assert "[remote rejected] main (deletion of the current branch prohibited)" in refused.stderr
    assert list(sample.refs(service.replica)) == ["refs/heads/main"]


def test_an_old_value_that_does_not_hold_is_refused(service):
    push(service, "main")
    body = line(service, "refs/heads/main", tip(service, "feature/0"), old=tip(service, "main~1"))
    command = ["git", "-C", str(service.source), "pack-objects", "--stdout", "--all", "-q"]
    pack = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    assert b"ng refs/heads/main" in post(service, body + pack)
    assert sample.refs(service.replica)["refs/heads/main"] == tip(service)


def test_a_pack_that_lacks_objects_is_refused(service):
    body = line(service, "refs/heads/main", tip(service))
    assert b"ng refs/heads/main missing necessary objects" in post(service, body + program.EMPTY_PACK)
    assert sample.refs(service.replica) == {}


def test_a_branch_and_a_folder_of_one_name_cannot_both_be(service):
    push(service, "main", "main:refs/heads/a/b")
    assert push(service, "main:refs/heads/a").returncode != 0
    assert push(service, "main:refs/heads/a/b/c").returncode != 0
    assert sorted(sample.refs(service.replica)) == ["refs/heads/a/b", "refs/heads/main"]


def test_refs_outside_branches_and_tags_under_each_setting(sides):
    sample.fill(sides.source)
    done = push(sides, "main", "refs/notes/*:refs/notes/*")
    kept = sorted(sample.refs(sides.replica))
    expected = {
        OtherRefs.ACCEPTED: (0, ["refs/heads/main", "refs/notes/commits"]),
        OtherRefs.REFUSED: (1, ["refs/heads/main"]),
        OtherRefs.ABORTED: (1, []),
    }
    assert (done.returncode, kept) == expected[sides.service.other_refs]


# ------------------------------------------------------------------------------------------------ plain git, and faults


def test_plain_git_pushes_and_clones(service, tmp_path):
    done = push(service, "--all")
    assert (done.returncode, push(service, "--tags").returncode) == (0, 0), done.stderr
    sample.commit(service.source, "main", "another")
    assert push(service, "main").returncode == 0
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--mirror", f"{service.replica_url}/r", str(clone)], check=True)
    assert sample.refs(clone) == sample.refs(service.source, "refs/heads/", "refs/tags/")
    sample.git(clone, "fsck", "--full")


def test_a_test_can_ask_for_throttling_and_for_a_connection_that_ends(service):
    service.service.push_faults = [Answer(429, "Rate Exceeded"), HangUp(1_000_000)]
    assert "429" in push(service, "main").stderr
    grow(service.source, 3)
    assert push(service, "main").returncode != 0
    assert sample.refs(service.replica) == {}
    assert push(service, "main").returncode == 0
