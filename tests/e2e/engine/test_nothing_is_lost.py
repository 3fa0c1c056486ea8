"""What a run deletes or overwrites is kept, a source that lost too much stops it, and races end well."""

import itertools
import threading

import pytest

from localcloud import sample
from localcloud.aws.codecommit.git_service import OtherRefs
from localcloud.azure.git import upload_pack
from localcloud.azure.git.upload_pack import PackShape
from tests.program import program

from .sides import NAMESPACES, Sides, grow

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


@pytest.mark.parametrize("shape", PackShape, ids=lambda shape: shape.value)
def test_ten_ordinary_runs_leave_no_archive_entry_whatever_the_packs_are_like(tmp_path, shape):
    sides = Sides(tmp_path, OtherRefs.ABORTED, shape)
    sample.fill(sides.source)
    sides.mirror()
    for number in range(10):
        sample.commit(sides.source, "main", f"next {number}")
        sample.commit(sides.source, "feature/1", f"next {number}")
        sides.mirror()
        sides.assert_equal()
    assert sides.archive() == {}


@pytest.mark.parametrize("shape", PackShape, ids=lambda shape: shape.value)
def test_a_replica_may_refuse_packs_whose_bases_come_late(tmp_path, shape):
    sides = Sides(tmp_path, OtherRefs.ABORTED, shape)
    sides.service.bases_first = True
    sample.fill(sides.source)
    sides.mirror()
    sides.assert_equal()
    sample.commit(sides.source, "main", "next")
    sides.mirror()
    sides.assert_equal()
    assert sides.archive() == {}


def test_a_fast_forward_with_more_than_is_parsed_leaves_no_archive_entry(strict_sides, monkeypatch):
    sides = strict_sides
    monkeypatch.setattr(program, "BUFFER_BYTES", 1_000_000)
    sample.fill(sides.source)
    sides.mirror()
    grow(sides.source, 3)
    sides.mirror()
    sides.assert_equal()
    assert sides.archive() == {}


def test_what_the_source_cannot_show_to_be_a_fast_forward_is_archived(tmp_path, monkeypatch):
    sides = Sides(tmp_path, OtherRefs.ABORTED, PackShape.COMMIT_DELTAS)
    sample.fill(sides.source)
    sides.mirror()
    before = sides.refs()["refs/heads/main"]
    words = " ".join(word for word in upload_pack.CAPABILITIES.split() if word != "filter")
    monkeypatch.setattr(upload_pack, "CAPABILITIES", words)
    sample.commit(sides.source, "main", "next")
    sides.mirror()
    assert sides.archive() == {"refs/heads/main": before}


def test_a_run_looks_at_so_many_updates_more_closely_and_archives_the_others(strict_sides, monkeypatch):
    sides = strict_sides
    monkeypatch.setattr(program, "MAX_PROOFS", 1)
    sides.shape = PackShape.COMMIT_DELTAS
    sample.fill(sides.source)
    sides.mirror()
    for branch in ("main", "feature/0", "feature/1"):
        sample.commit(sides.source, branch, "next")
    sides.mirror()
    assert len(sides.archive()) == 2


def test_a_push_leaves_one_entry_whatever_it_drops(sides):
    sample.fill(sides.source, branches=150)
    sides.mirror()
    before = sides.refs()
    for number in range(149):
        sample.git(sides.source, "update-ref", "-d", f"refs/heads/feature/{number}")
    sides.mirror(MIRROR_ALLOW_DELETIONS="1")
    assert len(sample.refs(sides.replica, program.ARCHIVE_PREFIX)) == 1
    assert sides.archive() == {f"refs/heads/feature/{n}": before[f"refs/heads/feature/{n}"] for n in range(149)}
    sample.git(sides.replica, "fsck", "--strict")


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
    assert sides.archive() == {f"refs/heads/feature/{n}": before[f"refs/heads/feature/{n}"] for n in range(8)}
    assert len(sample.refs(sides.replica, program.ARCHIVE_PREFIX)) <= 2


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
    assert "reported the change but did not make it" in outcome.broken["refs/heads/main"]
