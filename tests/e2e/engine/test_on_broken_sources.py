"""The engine where the source is broken, hostile, or has very many refs: good refs arrive, nothing is lost."""

import json
import subprocess

import pytest

from localcloud import sample
from localcloud.aws.codecommit.git_service import packet
from localcloud.git_http import Answer, GitHttpServer, Serve
from tests.program import program

from .sides import NAMESPACES


def fill(sides, *names):
    """Give the source branches that share no commit with each other but the root."""
    sample.fill(sides.source, branches=0)
    for name in names:
        sample.commit(sides.source, name, f"on {name}", parent="main~5")


def lose(repository, revision):
    """Remove one object from a repository."""
    name = sample.git(repository, "rev-parse", revision).strip()
    subprocess.run(["git", "-C", str(repository), "repack", "-q", "-a", "-d"], check=True)
    packs = list((repository / "objects" / "pack").glob("*.pack"))
    for pack in packs:
        moved = pack.rename(repository / pack.name)
        pack.with_suffix(".idx").unlink()
        with moved.open("rb") as stream:
            subprocess.run(["git", "-C", str(repository), "unpack-objects", "-q"], stdin=stream, check=True)
        moved.unlink()
    loose = repository / "objects" / name[:2] / name[2:]
    loose.chmod(0o644)
    loose.unlink()
    return name


@pytest.mark.parametrize("broken", ["one", "main"])
def test_one_missing_object_stops_no_other_branch(sides, broken):
    fill(sides, "one", "two", "three", "four")
    lost = lose(sides.source, f"{broken}^{{tree}}")
    outcome = sides.mirror()
    assert outcome.result == "Failed"
    tags = {"refs/tags/v0.0"} if broken == "main" else set()
    assert set(outcome.broken) == {f"refs/heads/{broken}", *tags}
    assert "the source cannot provide this ref" in outcome.broken[f"refs/heads/{broken}"]
    assert lost in outcome.broken[f"refs/heads/{broken}"]
    expected = {f"refs/heads/{name}" for name in ("main", "one", "two", "three", "four")} - {f"refs/heads/{broken}"}
    assert {name for name in sides.refs() if name.startswith("refs/heads/")} == expected
    assert sides.pauses == []


def listing(sides, extra):
    """Serve the source with refs in its list that it cannot give, as servers other than git's do."""

    def host(request):
        if not request.advertisement:
            return Serve(sides.source)
        capabilities = "multi_ack thin-pack side-band-64k ofs-delta no-progress symref=HEAD:refs/heads/main"
        refs = {**sample.refs(sides.source), **extra()}
        lines = [f"{value} {name}" for name, value in sorted(refs.items())]
        lines[0] += f"\0{capabilities}"
        body = packet(b"# service=git-upload-pack\n") + b"0000"
        body += b"".join(packet(f"{line}\n".encode()) for line in lines) + b"0000"
        return Answer(200, body, content_type="application/x-git-upload-pack-advertisement")

    return GitHttpServer(host).url


def test_a_ref_that_is_listed_and_cannot_be_given_is_named_and_the_rest_arrives(sides):
    fill(sides, "one", "two")
    sides.source_url = listing(sides, lambda: {"refs/heads/ghost": "1" * 40})
    outcome = sides.mirror()
    assert list(outcome.broken) == ["refs/heads/ghost"]
    assert "not our ref" in outcome.broken["refs/heads/ghost"]
    assert sides.refs() == sample.refs(sides.source, *NAMESPACES)
    assert sides.pauses == []


def test_a_source_that_moved_is_told_apart_from_a_broken_ref(sides):
    fill(sides, "one", "two")
    listings = iter([{"refs/heads/one": "1" * 40}, {}, {}, {}, {}])
    sides.source_url = listing(sides, lambda: next(listings))
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert len(sides.pauses) == 1


@pytest.mark.parametrize("way", ["500", "cut", "hang-up"])
def test_a_source_that_breaks_at_one_ref_and_does_not_say_why_stops_no_other(strict_sides, way):
    sides = strict_sides
    fill(sides, "one", "two")
    sides.mirror()
    bad = sample.commit(sides.source, "bad", "at which the source breaks", parent="main~5").encode()
    sample.commit(sides.source, "one", "fine")

    def host(request):
        if request.advertisement or bad not in (body := request.body.read(-1)):
            return Serve(sides.source) if request.advertisement else served(sides.source, body)
        if way == "500":
            return Answer(500, "out of order")
        if way == "cut":
            answer = packet(b"NAK\n") + packet(b"\x01PACK" + bytes(40)) + b"0000"
            return Answer(200, answer, content_type="application/x-git-upload-pack-result")
        raise ConnectionAbortedError

    sides.source_url = GitHttpServer(host).url
    outcome = sides.mirror()
    assert list(outcome.broken) == ["refs/heads/bad"]
    assert "repeatedly" in outcome.broken["refs/heads/bad"]
    assert sides.refs()["refs/heads/one"] == sample.refs(sides.source)["refs/heads/one"]
    assert sum(sides.pauses) < 5


def served(repository, body):
    """Let git answer a request whose body was read already."""
    command = ["git", "upload-pack", "--stateless-rpc", str(repository)]
    answer = subprocess.run(command, input=body, capture_output=True, check=False).stdout
    return Answer(200, answer, content_type="application/x-git-upload-pack-result")


def test_on_an_agent_without_git_one_broken_ref_stops_no_other(strict_sides, monkeypatch):
    sides = strict_sides
    fill(sides, "one", "two", "three")
    sides.mirror()
    for name in ("one", "two"):
        sample.commit(sides.source, name, f"next on {name}")
    lose(sides.source, "one^{tree}")
    monkeypatch.setattr(program.Git, "_run", no_git)
    outcome = sides.mirror()
    assert list(outcome.broken) == ["refs/heads/one"]
    assert sides.refs()["refs/heads/two"] == sample.refs(sides.source)["refs/heads/two"]


def no_git(*arguments, **options):
    raise program.MirrorFailure("git is not on this agent")


def test_a_tag_in_the_way_of_the_replicas_own_refs_is_reported(strict_sides):
    sides = strict_sides
    fill(sides, "one")
    sample.git(sides.source, "update-ref", "refs/tags/codecommit-mirror", "refs/heads/one")
    outcome = sides.mirror()
    assert (outcome.result, outcome.confirmed) == ("SucceededWithIssues", True)
    assert "rename the tag" in outcome.needs_attention["refs/tags/codecommit-mirror"]
    sample.git(sides.source, "update-ref", "-d", "refs/tags/codecommit-mirror")
    sides.assert_equal()


@pytest.mark.parametrize("status", [429, 503])
def test_a_rest_api_that_is_busy_once_does_not_switch_the_guard_off(strict_sides, status):
    """Refs that Azure lists and does not show are never deleted, also when the list needs a second try."""
    sides = strict_sides
    fill(sides, "one", "hidden")
    sides.mirror()
    everything = sorted(sample.refs(sides.source, *NAMESPACES))
    answers = iter([Answer(status, "busy")])

    def api(request):
        body = json.dumps({"value": [{"name": name} for name in everything]})
        return next(answers, None) or Answer(200, body, content_type="application/json")

    sides.source_url = GitHttpServer(sides.serve_source, api).url
    sample.git(sides.source, "update-ref", "-d", "refs/heads/hidden")
    outcome = sides.mirror()
    assert "limited refs" in outcome.needs_attention["refs/heads/hidden"]
    assert "refs/heads/hidden" in sides.refs()


def test_a_broken_note_stops_no_branch_and_no_other_note(sides):
    fill(sides, "one")
    sample.commit(sides.source, "tmp", "a note", parent="main~5")
    sample.git(sides.source, "update-ref", "refs/notes/broken", "refs/heads/tmp")
    sample.git(sides.source, "update-ref", "-d", "refs/heads/tmp")
    sample.git(sides.source, "update-ref", "refs/notes/fine", "main~2")
    lose(sides.source, "refs/notes/broken^{tree}")
    outcome = sides.mirror()
    assert list(outcome.broken) == ["refs/notes/broken"]
    expected = sample.refs(sides.source, *NAMESPACES)
    del expected["refs/notes/broken"]
    assert sides.refs() == expected


VARIANTS = {
    "behind the committer": "{tree}{parents}{people}parent {old}\n\nforged\n",
    "in a signature": "{tree}{parents}{people}gpgsig x\nparent {old}\n\nforged\n",
    "as an encoding": "{tree}{parents}{people}encoding x\nparent {old}\n\nforged\n",
    "before the author, apart": "{tree}{parents}mergetag x\nparent {old}\n{people}\nforged\n",
}


@pytest.mark.parametrize("form", VARIANTS.values(), ids=VARIANTS)
def test_a_forged_parent_does_not_defeat_the_archive(strict_sides, form):
    """Four commits in which git sees no parent, and an engine that believes any line would see the overwritten tip."""
    sides = strict_sides
    fill(sides, "one")
    sides.mirror()
    old = sample.git(sides.source, "rev-parse", "one").strip()
    people = "author A <a@example.com> 1700000000 +0000\ncommitter A <a@example.com> 1700000000 +0000\n"
    tree = f"tree {sample.git(sides.source, 'rev-parse', 'main^{tree}').strip()}\n"
    parents = f"parent {sample.git(sides.source, 'rev-parse', 'main').strip()}\n"
    text = form.format(tree=tree, parents=parents, people=people, old=old)
    forged = sample.git(
        sides.source, "hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=text.encode()
    ).strip()
    sample.git(sides.source, "update-ref", "refs/heads/one", forged)
    sides.mirror()
    assert sides.refs()["refs/heads/one"] == forged
    assert sides.archive() == {"refs/heads/one": old}


def test_requests_stay_small_when_there_are_many_tags(strict_sides, monkeypatch):
    """They said all that the replica had, so that the first mirror of 50,000 tags sent 16 MB of it."""
    sides = strict_sides
    fill(sides)
    tip = sample.git(sides.source, "rev-parse", "main").strip()
    tags = "".join(f"create refs/tags/many/{n} {tip}\n" for n in range(3))
    stream = "".join(
        f"tag many/{n}\nfrom {tip}\ntagger A <a@example.com> 1700000000 +0000\ndata 3\ntag\n" for n in range(9000)
    )
    sample.git(sides.source, "update-ref", "--stdin", stdin=tags.encode())
    sample.git(sides.source, "fast-import", "--quiet", "--force", stdin=stream.encode())
    sizes, send = [], program.send

    def measured(endpoint, method, path, headers, body=None, length=None):
        if path == "/git-upload-pack":
            sizes.append(length)
        return send(endpoint, method, path, headers, body, length)

    monkeypatch.setattr(program, "send", measured)
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    wants = 9000 * 50
    assert sum(sizes) < wants + 20_000


@pytest.mark.parametrize("days", ["90", "0"])
def test_a_run_says_that_files_of_git_lfs_are_not_mirrored(strict_sides, days):
    sides = strict_sides
    fill(sides)
    assert not sides.mirror().lfs
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
    blob = sample.git(sides.source, "hash-object", "-w", "--stdin", stdin=pointer).strip()
    tree = sample.git(sides.source, "mktree", stdin=f"100644 blob {blob}\tlarge.psd\n".encode()).strip()
    commit = sample.git(sides.source, "commit-tree", tree, "-p", "main", "-m", "a large file").strip()
    sample.git(sides.source, "update-ref", "refs/heads/main", commit)
    outcome = sides.mirror(MIRROR_ARCHIVE_DAYS=days)
    assert (outcome.result, outcome.lfs) == ("Succeeded", True)
    assert any("its large files are not in the replica" in line for line in program.summary(outcome))
