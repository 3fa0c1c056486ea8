"""The engine between a source and a replica of each make: equal refs, every object, nothing lost."""

import itertools
import os
import subprocess
import sys
import threading

import pytest

from localcloud import sample
from localcloud.aws.git_service import OtherRefs
from localcloud.git_http import Answer, GitHttpServer, Serve
from tests.program import program

from . import servers
from .sides import NAMESPACES, Sides, answering, grow


@pytest.fixture(scope="session")
def jgit_classes(tmp_path_factory):
    classpath = servers.jgit_classpath()
    if classpath is None:
        pytest.skip("JGit is not on this machine (javac and its jars below ~/.m2)")
    classes = tmp_path_factory.mktemp("jgit")
    subprocess.run(["javac", "-cp", classpath, "-d", str(classes), str(servers.JGIT)], check=True)
    return f"{classpath}{os.pathsep}{classes}"


@pytest.fixture(params=[*OtherRefs, "git", "dulwich", "jgit"], ids=lambda param: getattr(param, "value", param))
def any_replica(request, tmp_path):
    """Both sides, with each make of server as the replica."""
    sides = Sides(tmp_path, request.param if isinstance(request.param, OtherRefs) else OtherRefs.ACCEPTED)
    if request.param == "git":
        sides.use(servers.git_replica(sides.replica))
    elif request.param == "dulwich":
        sides.use(servers.dulwich_replica(sides.replica))
    elif request.param == "jgit":
        sides.use(servers.jgit_replica(sides.replica, request.getfixturevalue("jgit_classes")))
    return sides


def test_the_life_of_a_mirror(any_replica):
    sides = any_replica
    sample.fill(sides.source, extra_branches=sample.HOSTILE_BRANCHES)
    first = sides.mirror()
    assert (first.result, first.created) == ("Succeeded", len(sides.refs()))
    sides.assert_equal()

    again = sides.mirror()
    assert (again.created, again.updated, again.deleted) == (0, 0, 0)
    assert again.confirmed

    sample.commit(sides.source, "main", "one commit")
    one = sides.mirror()
    assert (one.updated, one.archived) == (1, {})
    sides.assert_equal()

    old = sample.git(sides.source, "rev-parse", "main~50").strip()
    sample.git(sides.source, "update-ref", "refs/heads/from-an-old-commit", old)
    sample.git(sides.source, "tag", "-a", "-m", "tag of a tag", "nested", "v0.0")
    sample.git(sides.source, "tag", "tree", "main^{tree}")
    sample.git(sides.source, "tag", "blob", "feature/0:branch.txt")
    sample.git(sides.source, "update-ref", "-d", "refs/tags/light-1")
    for index in range(3):
        sample.commit(sides.source, f"new/{index}", "new branch", parent="main~7")
    mixed = sides.mirror()
    assert (mixed.created, mixed.deleted) == (7, 1)
    sides.assert_equal()


def test_a_force_push_whose_old_tip_is_gone_at_the_source(any_replica):
    sides = any_replica
    sample.fill(sides.source)
    sides.mirror()
    lost = sample.git(sides.source, "rev-parse", "feature/1").strip()
    sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
    sample.git(sides.source, "reflog", "expire", "--expire=now", "--all")
    sample.git(sides.source, "gc", "--prune=now", "-q")
    outcome = sides.mirror()
    assert outcome.result == "Succeeded"
    sides.assert_equal()
    assert sides.archive() == {"refs/heads/feature/1": lost}


def test_a_renamed_default_branch(any_replica):
    sides = any_replica
    sample.fill(sides.source)
    sides.mirror()
    sample.git(sides.source, "branch", "-m", "main", "trunk")
    outcome = sides.mirror()
    if outcome.result == "SucceededWithIssues":
        # CodeCommit does not delete its default branch: a person chooses another one.
        assert "update-default-branch" in outcome.needs_attention["refs/heads/main"]
        sample.git(sides.replica, "symbolic-ref", "HEAD", "refs/heads/trunk")
        sides.mirror()
    sides.assert_equal()


def test_a_branch_becomes_a_folder_and_back(any_replica):
    sides = any_replica
    sample.fill(sides.source)
    tip = sample.git(sides.source, "rev-parse", "main").strip()
    for before, after in [("topic", "topic/a"), ("topic/a", "topic")]:
        sample.git(sides.source, "update-ref", f"refs/heads/{before}", tip)
        sides.mirror()
        sample.git(sides.source, "update-ref", "-d", f"refs/heads/{before}")
        sample.git(sides.source, "update-ref", f"refs/heads/{after}", tip)
        assert sides.mirror().result == "Succeeded"
        sides.assert_equal()


def test_ten_thousand_refs(any_replica):
    sides = any_replica
    sample.fill(sides.source)
    tip = sample.git(sides.source, "rev-parse", "main").strip()
    names = [f"refs/{'heads' if n % 2 else 'tags'}/many/{n}" for n in range(10_000)]
    sample.git(sides.source, "update-ref", "--stdin", stdin="".join(f"create {n} {tip}\n" for n in names).encode())
    assert sides.mirror().created > 10_000
    sides.assert_equal()
    sample.git(sides.source, "update-ref", "--stdin", stdin="".join(f"delete {n}\n" for n in names[:4000]).encode())
    assert sides.mirror().deleted == 4000
    sides.assert_equal()


def test_a_hundred_megabytes_of_history(any_replica):
    sides = any_replica
    grow(sides.source, 100)
    first = sides.mirror()
    assert first.bytes_to_replica > 100_000_000
    sides.assert_equal()
    sample.commit(sides.source, "main", "one commit")
    assert sides.mirror().bytes_from_source < 100_000
    sides.assert_equal()


def test_memory_stays_below_a_hundred_megabytes(strict_sides):
    sides = strict_sides
    grow(sides.source, 200)
    environment = {
        "PATH": os.environ["PATH"],
        "AZURE_REPO_URL": f"{sides.source_url}/o/p/_git/r",
        "AWS_REPO_URL": f"{sides.replica_url}/r",
        **{f"{side}_GIT_{what}": "x" for side in ("AZURE", "AWS") for what in ("USERNAME", "PASSWORD")},
    }
    # A small process between, since a child's peak memory counts that of the process that it was forked from.
    launcher = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:], stdout=2);"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", launcher, sys.executable, program.__file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    status, kilobytes = map(int, done.stdout.split())
    assert status == 0, done.stderr
    assert kilobytes < 100_000
    sides.assert_equal()


# ------------------------------------------------------------------------------------------------------ nothing lost


def test_deleted_and_overwritten_tips_stay_reachable(sides):
    sample.fill(sides.source)
    sides.mirror()
    before = sides.refs()
    sample.git(sides.source, "update-ref", "-d", "refs/heads/feature/0")
    sample.git(sides.source, "update-ref", "refs/tags/light-1", "refs/heads/main~40")
    outcome = sides.mirror()
    assert sides.archive() == {name: before[name] for name in ("refs/heads/feature/0", "refs/tags/light-1")}
    assert sorted(outcome.archived.values()) == sorted(sides.archive().values())
    sides.assert_equal()


def test_a_fast_forward_leaves_no_archive_entry(sides):
    sample.fill(sides.source)
    sides.mirror()
    for _ in range(5):
        sample.commit(sides.source, "main", "next")
    sides.mirror()
    assert sides.archive() == {}


def test_the_archive_can_be_turned_off(sides):
    sample.fill(sides.source)
    sides.mirror()
    sample.git(sides.source, "update-ref", "-d", "refs/heads/feature/0")
    sides.mirror(MIRROR_ARCHIVE_DAYS="0")
    assert sides.archive() == {}
    sides.assert_equal()


def test_old_archive_entries_are_removed_and_young_ones_stay(sides):
    sample.fill(sides.source)
    tip = sample.git(sides.source, "rev-parse", "main").strip()
    sides.mirror()
    young = program.time.strftime(program.ARCHIVE_TIME)
    for stamp in ("20200101T000000Z", young):
        sample.git(sides.replica, "update-ref", f"{program.ARCHIVE_PREFIX}{stamp}/heads/x", tip)
    outcome = sides.mirror()
    assert outcome.expired == 1
    assert list(sample.refs(sides.replica, program.ARCHIVE_PREFIX)) == [f"{program.ARCHIVE_PREFIX}{young}/heads/x"]


def test_what_cannot_be_archived_is_not_overwritten(git_sides):
    sample.fill(git_sides.source)
    git_sides.mirror()
    before = git_sides.refs()
    hook = git_sides.replica / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        '#!/bin/sh\ncase "$1" in refs/tags/codecommit-mirror/archive/*) echo no archive here; exit 1;; esac\n'
    )
    hook.chmod(0o755)
    sample.git(git_sides.source, "update-ref", "-d", "refs/heads/feature/0")
    sample.commit(git_sides.source, "feature/1", "rewritten", parent="main~9")
    sample.commit(git_sides.source, "main", "next")
    outcome = git_sides.mirror()
    assert outcome.result == "Failed"
    assert "could not be kept in the archive" in outcome.broken["refs/heads/feature/1"]
    after = git_sides.refs()
    assert {name for name in before if before[name] != after.get(name)} == {"refs/heads/main"}


# ------------------------------------------------------------------------------------------------ refusing to destroy


def test_a_source_without_refs_changes_nothing(sides):
    sample.fill(sides.source)
    sides.mirror()
    before = sides.refs()
    for name in sample.refs(sides.source):
        sample.git(sides.source, "update-ref", "-d", name)
    with pytest.raises(
        program.MirrorFailure, match=r"the source has no branches and tags; this run would delete .* MIRROR_ALLOW"
    ):
        sides.mirror()
    assert sides.refs() == before


def test_a_source_that_lost_most_of_its_branches_changes_nothing_until_told(sides):
    sample.fill(sides.source, branches=30)
    sides.mirror()
    before = sides.refs()
    for number in range(25):
        sample.git(sides.source, "update-ref", "-d", f"refs/heads/feature/{number}")
    sample.commit(sides.source, "main", "next")
    with pytest.raises(program.MirrorFailure, match=r"refs/heads/feature/0, .*MIRROR_ALLOW_DELETIONS=1"):
        sides.mirror()
    assert sides.refs() == before
    assert sides.mirror(MIRROR_ALLOW_DELETIONS="1").deleted == 25
    sides.assert_equal()
    assert len(sides.archive()) == 25


def test_refs_that_azure_lists_and_does_not_show_are_not_deleted(sides):
    sample.fill(sides.source)
    sides.mirror()
    everything = sample.refs(sides.source, *NAMESPACES)
    hidden = "refs/heads/feature/0"

    def rest(path, query):
        assert path == "/o/p/_apis/git/repositories/r/refs"
        start = int(query.get("continuationToken", 0))
        more = {} if start else {"x-ms-continuationtoken": "10"}
        names = sorted(everything)[start:] if start else sorted(everything)[:10]
        return {"value": [{"name": name} for name in names]}, more

    sides.source_url = servers.with_rest_api(sides.source, rest)
    sample.git(sides.source, "update-ref", "-d", hidden)
    with pytest.raises(program.MirrorFailure, match=r"refs/heads/feature/0\), but does not show them .*limited refs"):
        sides.mirror()
    assert hidden in sides.refs()
    del everything[hidden]
    assert sides.mirror().deleted == 1


# -------------------------------------------------------------------------------------------------------------- races


def test_a_push_by_somebody_else_between_plan_and_push(sides, monkeypatch):
    sample.fill(sides.source)
    sides.mirror()
    sample.commit(sides.source, "main", "from the source")
    theirs = []
    push = program.push

    def late(replica, capabilities, commands, *arguments):
        if not theirs and commands[0].ref == "refs/heads/main":
            theirs.append(sample.commit(sides.replica, "main", "pushed by a stranger"))
        return push(replica, capabilities, commands, *arguments)

    monkeypatch.setattr(program, "push", late)
    outcome = sides.mirror()
    assert outcome.result == "Succeeded"
    sides.assert_equal()
    assert sides.archive() == {"refs/heads/main": theirs[0]}
    assert theirs[0] in program.summary(outcome)[-1]


def test_a_branch_that_a_stranger_made_is_archived_and_removed(sides):
    sample.fill(sides.source)
    sides.mirror()
    sample.git(sides.replica, "update-ref", "refs/heads/stranger", "refs/heads/main~2")
    tip = sample.commit(sides.replica, "stranger", "not from the source")
    sides.mirror()
    sides.assert_equal()
    assert sides.archive() == {"refs/heads/stranger": tip}


def test_a_source_that_moves_during_a_run(sides, monkeypatch):
    sample.fill(sides.source)
    sides.mirror()
    request_pack, moves = program.request_pack, itertools.count()
    sample.commit(sides.source, "feature/1", "first", parent="main~3")

    def late(*arguments):
        if next(moves) == 0:
            sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
        return request_pack(*arguments)

    monkeypatch.setattr(program, "request_pack", late)
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()


def test_two_runs_at_once(sides):
    sample.fill(sides.source)
    sides.mirror()
    for number in range(8):
        sample.commit(sides.source, f"feature/{number}", "rewritten", parent="main~9")
    before = sides.refs()
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(sides.mirror())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.result for outcome in outcomes] == ["Succeeded", "Succeeded"]
    sides.assert_equal()
    archived = set(sample.refs(sides.replica, program.ARCHIVE_PREFIX).values())
    assert archived == {before[f"refs/heads/feature/{number}"] for number in range(8)}


def test_a_replica_that_never_stops_moving_is_named(sides, monkeypatch):
    sample.fill(sides.source)
    sides.mirror()
    sample.commit(sides.source, "main", "from the source")
    push = program.push

    def late(replica, capabilities, commands, *arguments):
        if any(command.ref == "refs/heads/main" for command in commands):
            sample.commit(sides.replica, "main", "pushed by a stranger")
        return push(replica, capabilities, commands, *arguments)

    monkeypatch.setattr(program, "push", late)
    with pytest.raises(
        program.MirrorFailure, match=r"gave up after 6 tries: 1 ref \(refs/heads/main\) changed on the replica"
    ):
        sides.mirror()


# ----------------------------------------------------------------------------------------------------- one bad ref


def test_one_bad_ref_does_not_stop_the_rest(git_sides):
    hook = git_sides.replica / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nif grep -q forbidden; then echo forbidden branch; exit 1; fi\n")
    hook.chmod(0o755)
    sample.fill(git_sides.source, extra_branches=["forbidden"])
    outcome = git_sides.mirror()
    assert outcome.result == "Failed"
    assert list(outcome.broken) == ["refs/heads/forbidden"]
    assert "forbidden branch" in outcome.broken["refs/heads/forbidden"]
    assert sample.refs(git_sides.source, *NAMESPACES).keys() - git_sides.refs().keys() == {"refs/heads/forbidden"}


@pytest.mark.parametrize("status", [400, 413])
def test_an_archive_push_that_is_refused_whole_withholds_and_does_not_break(sides, monkeypatch, status):
    sample.fill(sides.source)
    sides.mirror()
    push = program.push

    def refusing(replica, capabilities, commands, *arguments):
        if commands[0].ref.startswith(program.ARCHIVE_PREFIX):
            raise {400: program.PackRefused, 413: program.TooLarge}[status]("no archive here")
        return push(replica, capabilities, commands, *arguments)

    monkeypatch.setattr(program, "push", refusing)
    sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
    sample.commit(sides.source, "main", "next")
    outcome = sides.mirror()
    assert list(outcome.broken) == ["refs/heads/feature/1"]
    assert outcome.updated == 1


def test_a_server_that_says_ok_and_does_nothing_is_not_believed(sides, monkeypatch):
    sample.fill(sides.source)
    sides.mirror()
    sample.commit(sides.source, "main", "next")
    monkeypatch.setattr(program, "push", lambda *arguments: {})
    outcome = sides.mirror()
    assert outcome.result == "Failed"
    assert "says that it took the change, and did not" in outcome.broken["refs/heads/main"]


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


def test_a_truncated_or_damaged_pack_is_never_accepted(sides):
    sample.fill(sides.source)
    grow(sides.source, 20)
    for fault in ("cut", "flip"):
        sides.empty_replica()
        proxy = servers.Proxy(sides.source_url, {1: ("down", 18_000_000, fault)})
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
    sides.source_url = answering(sides.serve_source, [Answer(429, "busy", {"Retry-After": "86400"})])
    with pytest.raises(program.MirrorFailure, match=r"asks to wait 86,400 s; run again then"):
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


# --------------------------------------------------------------------------------------------------- stepping down


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
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Stepping down" in line]
    assert (
        "Stepping down to a self-contained pack with what the replica lacks: the replica could not take the pack"
        in line
    )


@pytest.mark.parametrize("refusals", [1, 2, 3])
def test_each_step_down_mirrors_everything(sides, monkeypatch, capsys, refusals):
    sample.fill(sides.source)
    sides.mirror()
    push, left = program.push, iter(range(refusals))
    before = sides.refs()

    def refusing(replica, capabilities, commands, pack, traffic):
        if pack != program.EMPTY_PACK and next(left, None) is not None:
            raise program.PackRefused("the replica could not take the pack: because of the test")
        return push(replica, capabilities, commands, pack, traffic)

    monkeypatch.setattr(program, "push", refusing)
    sample.commit(sides.source, "main", "next")
    sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert capsys.readouterr().out.count("Stepping down") == refusals
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
