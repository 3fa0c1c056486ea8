"""Broken connections, refusals, and falling back to simpler packs and plain git."""

import itertools

import pytest

from localcloud import sample
from localcloud.git_http import Answer, GitHttpServer, Serve
from tests.program import program

from . import servers
from .sides import answering, grow

# -------------------------------------------------------------------------------------------------- faults on the way


@pytest.mark.parametrize("side", ["source", "replica"])
@pytest.mark.parametrize("connection", range(4))
@pytest.mark.parametrize(("direction", "after"), [("up", 0), ("up", 600), ("down", 0), ("down", 700)])
def test_a_connection_that_is_cut_anywhere(sides, side, connection, direction, after):
    sample.fill(sides.source)
    proxy = servers.Proxy(getattr(sides, f"{side}_url"), {connection: (direction, after, "cut")})
    setattr(sides, f"{side}_url", proxy.url)
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()


def test_a_truncated_or_damaged_pack_is_never_accepted(strict_sides):
    sides = strict_sides
    sample.fill(sides.source)
    grow(sides.source, 8)
    for fault in ("cut", "flip"):
        sides.empty_replica()
        proxy = servers.Proxy(sides.source_url, {1: ("down", 6_000_000, fault)})
        url, sides.source_url = sides.source_url, proxy.url
        assert sides.mirror().result == "Succeeded"
        assert sides.pauses
        sides.source_url = url
        sides.assert_equal()


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_busy_server_is_asked_again(sides, status):
    sample.fill(sides.source)
    sides.replica_url = answering(sides.serve_replica, [Answer(status, "busy"), None, Answer(status, "busy")])
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert len(sides.pauses) == 2


def test_a_wait_that_is_too_long_is_told(sides):
    sample.fill(sides.source)
    sides.source_url = answering(sides.serve_source, [Answer(429, "busy", {"Retry-After": "86400"})] * 2)
    with pytest.raises(program.MirrorFailure, match=r"asked for a wait of 86,400 s; retry after that"):
        sides.mirror()


def test_retry_after_is_obeyed(sides):
    sample.fill(sides.source)
    sides.source_url = answering(sides.serve_source, [Answer(429, "busy", {"Retry-After": "77"})])
    assert sides.mirror().result == "Succeeded"
    assert sides.pauses == [77]


@pytest.mark.parametrize("side", ["source", "replica"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401, "no"), r"refused access \(401\)"),
        (Answer(403, "no"), r"refused access \(403\)"),
        (Answer(203, "<html>", content_type="text/html"), r"refused access \(a sign-in page\)"),
        (Answer(302, "", {"Location": "https://login.example.com/"}), r"refused access \(a sign-in page\)"),
        (Answer(200, "<html>", content_type="text/html"), r"refused access \(a sign-in page\)"),
        (Answer(404, "no"), "does not exist"),
    ],
)
def test_what_cannot_be_cured_fails_at_once(sides, side, answer, words):
    sample.fill(sides.source)
    setattr(sides, f"{side}_url", answering(getattr(sides, f"serve_{side}"), [answer] * 9))
    with pytest.raises(program.MirrorFailure, match=words):
        sides.mirror()
    assert sides.pauses == []


def test_credentials_are_never_sent_to_another_host(sides):
    asked = []

    def elsewhere(request):
        asked.append(request)
        return Serve(sides.source)

    other = GitHttpServer(elsewhere)
    answers = [Answer(307, "", {"Location": f"{other.url}/r/info/refs?service=git-upload-pack"})] * 9
    sides.source_url = answering(sides.serve_source, answers)
    with pytest.raises(program.MirrorFailure):
        sides.mirror()
    assert asked == []


# ---------------------------------------------------------------------------------------------------- falling back


def test_a_replica_that_takes_no_thin_packs(sides, capsys):
    sample.fill(sides.source)
    replica = servers.thin_refusing_replica(sides.replica)
    sides.use(replica.url)
    sides.mirror()
    text = "\n".join(f"line {n}" for n in range(5000))
    blob = sample.git(sides.source, "hash-object", "-w", "--stdin", stdin=text.encode()).strip()
    entry = sample.git(sides.source, "mktree", stdin=f"100644 blob {blob}\tlong\n".encode()).strip()
    one = sample.git(sides.source, "commit-tree", entry, "-p", "main", "-m", "long").strip()
    sample.git(sides.source, "update-ref", "refs/heads/main", one)
    sides.mirror()
    blob = sample.git(sides.source, "hash-object", "-w", "--stdin", stdin=f"{text}\nmore".encode()).strip()
    entry = sample.git(sides.source, "mktree", stdin=f"100644 blob {blob}\tlong\n".encode()).strip()
    two = sample.git(sides.source, "commit-tree", entry, "-p", one, "-m", "longer").strip()
    sample.git(sides.source, "update-ref", "refs/heads/main", two)
    capsys.readouterr()
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert replica.refused == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Falling back" in line]
    assert (
        "Falling back to a self-contained pack with what the replica lacks: the replica could not unpack the pack"
        in line
    )


@pytest.mark.parametrize("refusals", [1, 2, 3])
def test_each_simpler_form_mirrors_everything(sides, monkeypatch, capsys, refusals):
    sample.fill(sides.source)
    sides.mirror()
    push, left = program.push, iter(range(refusals))
    before = sides.refs()

    def refusing(replica, capabilities, commands, pack, traffic):
        is_archive = commands[0].ref.startswith(program.ARCHIVE_PREFIX)
        if pack != program.EMPTY_PACK and not is_archive and next(left, None) is not None:
            raise program.PackRefused("the replica could not unpack the pack: because of the test")
        return push(replica, capabilities, commands, pack, traffic)

    monkeypatch.setattr(program, "push", refusing)
    sample.commit(sides.source, "main", "next")
    sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert capsys.readouterr().out.count("Falling back") == refusals
    assert sides.archive() == {"refs/heads/feature/1": before["refs/heads/feature/1"]}


def test_a_large_first_mirror_goes_in_increments_and_can_be_killed(sides, monkeypatch, capsys):
    sample.fill(sides.source, commits=1000)
    monkeypatch.setattr(program, "MAX_OBJECTS_PER_PUSH", 1000)
    monkeypatch.setattr(program, "COMMITS_PER_INCREMENT", 100)
    push = program.Git.push
    pushes = itertools.count()

    def dying(self, replica, commands):
        if next(pushes) == 5:
            raise KeyboardInterrupt
        return push(self, replica, commands)

    monkeypatch.setattr(program.Git, "push", dying)
    with pytest.raises(KeyboardInterrupt):
        sides.mirror()
    reached = int(sample.git(sides.replica, "rev-list", "--count", "main"))
    assert 400 <= reached < 1000
    capsys.readouterr()
    assert sides.mirror().result == "Succeeded"
    assert "increments of history (1 of 5)" in capsys.readouterr().out
    sides.assert_equal()
    assert sides.archive() == {}


def test_increments_are_as_many_as_the_history_is_long(sides, monkeypatch, capsys):
    """Not as many for each branch and tag, and with side branches merged in."""
    sample.fill(sides.source, commits=300)
    parent = sample.git(sides.source, "rev-parse", "main").strip()
    side = sample.commit(sides.source, "side", "on the side", parent="main~100")
    tree = sample.git(sides.source, "rev-parse", "main^{tree}").strip()
    merge = sample.git(sides.source, "commit-tree", tree, "-p", parent, "-p", side, "-m", "merge").strip()
    sample.git(sides.source, "update-ref", "refs/heads/main", merge)
    monkeypatch.setattr(program, "MAX_OBJECTS_PER_PUSH", 10)
    monkeypatch.setattr(program, "COMMITS_PER_INCREMENT", 50)
    old = sample.git(sides.source, "rev-parse", "main~250").strip()
    sample.git(sides.source, "push", "-q", str(sides.replica), f"{old}:refs/heads/feature/0")
    assert sides.mirror(MIRROR_ARCHIVE_DAYS="0").result == "Succeeded"
    sides.assert_equal()
    steps = [
        line for line in capsys.readouterr().out.splitlines() if "in increments of history" in line and "Push" in line
    ]
    assert 4 <= len(steps) <= 8
    assert not [line for line in steps if "refs/tags/" in line]


def test_no_increment_drops_an_old_tip_that_was_merged_from_the_side(strict_sides, tmp_path):
    """After a merge the replica's old tip can be the second parent: pieces before the merge would overwrite it."""
    sample.fill(strict_sides.source, commits=300)
    old = sample.commit(strict_sides.source, "side", "the old tip", parent="main~250")
    tree = sample.git(strict_sides.source, "rev-parse", "main^{tree}").strip()
    tip = sample.git(strict_sides.source, "rev-parse", "main").strip()
    merge = sample.git(strict_sides.source, "commit-tree", tree, "-p", tip, "-p", old, "-m", "merge").strip()
    sample.git(strict_sides.source, "update-ref", "refs/heads/main", merge)
    for number in range(120):
        sample.commit(strict_sides.source, "main", f"after the merge {number}")
    tip = sample.git(strict_sides.source, "rev-parse", "main").strip()
    git = program.Git(str(tmp_path))
    git.fetch(strict_sides.settings().source, ["refs/heads/main"])
    steps = git.increments(program.Command("refs/heads/main", old, tip), [old], 50)
    assert len(steps) == 2
    assert all(git.is_ancestor(step.old, step.new) for step in steps)


@pytest.mark.parametrize(("status", "times"), [(413, 1), (408, 2), (504, 2)])
def test_a_push_that_is_too_large_goes_in_increments(sides, status, times, capsys):
    sample.fill(sides.source)
    sides.replica_url = answering(sides.serve_replica, [None, Answer(status, "too large")] * times)
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert "in increments of history" in capsys.readouterr().out


def test_a_run_that_is_killed_in_a_push_and_started_again(sides, monkeypatch):
    sample.fill(sides.source)
    push, pushes = program.push, itertools.count()

    def dying(*arguments):
        if next(pushes) == 1:
            raise KeyboardInterrupt
        return push(*arguments)

    monkeypatch.setattr(program, "push", dying)
    with pytest.raises(KeyboardInterrupt):
        sides.mirror()
    assert list(sides.refs()) == ["refs/heads/main"]
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
