"""The engine where servers are strict: capabilities, aborted pushes, and refs that the replica does not take."""

import dataclasses
import io
import itertools

import pytest

from localcloud import sample
from localcloud.aws.codecommit.git_service import GitService, HangUp, OtherRefs, packet, read_updates
from localcloud.git_http import Answer, GitHttpServer, Serve
from tests.program import program

from .sides import NAMESPACES, Sides, answering, grow

ABORTED = Answer(200, "", content_type="application/x-git-receive-pack-result")
NOTE = "refs/notes/commits"


def spy_on_pushes(sides, monkeypatch):
    """Collect the refs of every push that the engine makes, and the capabilities that it names."""
    pushes, send = [], program.send

    def watching(endpoint, method, path, headers, body=None, length=None):
        if path == "/git-receive-pack":
            parts = list(body)
            lines = list(program.split_pkt_lines(parts[0]))
            refs = [line.partition(b"\0")[0].split(b" ")[2].decode("utf-8", "surrogateescape") for line in lines]
            pushes.append((refs, lines[0].partition(b"\0")[2].decode().split()))
            body = parts
        return send(endpoint, method, path, headers, body, length)

    monkeypatch.setattr(program, "send", watching)
    return pushes


# ------------------------------------------------------------------------------------------------------ capabilities


def test_both_sides_may_abort_on_a_capability_that_they_did_not_advertise(sides):
    """The recorded service is strict on both sides; here it is the source too."""
    strict = GitService()
    sides.source_url = GitHttpServer(lambda request: strict.answer(sides.source, request)).url
    sample.fill(sides.source)
    assert sides.mirror().result == "Succeeded"
    sample.commit(sides.source, "main", "next")
    sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
    sample.git(sides.source, "update-ref", "-d", "refs/heads/feature/2")
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()


def test_what_was_advertised_and_is_the_servers_own_is_not_sent_back(strict_sides, monkeypatch):
    pushes = spy_on_pushes(strict_sides, monkeypatch)
    sample.fill(strict_sides.source)
    strict_sides.mirror()
    sample.git(strict_sides.source, "update-ref", "-d", "refs/heads/feature/2")
    strict_sides.mirror()
    assert {tuple(words) for _, words in pushes} == {("report-status", "side-band-64k")}


def test_the_agent_is_named_where_it_was_advertised(git_sides, monkeypatch):
    pushes = spy_on_pushes(git_sides, monkeypatch)
    sample.fill(git_sides.source)
    git_sides.mirror()
    assert {words[-1] for _, words in pushes} == {"agent=codecommit-mirror"}


def test_a_replica_that_advertises_nothing_gets_everything_by_plain_git(strict_sides, capsys):
    sides = strict_sides
    sides.use("")

    def silent(request):
        if not request.advertisement:
            return Serve(sides.replica)
        refs = sample.refs(sides.replica) or {"capabilities^{}": "0" * 40}
        lines = b"".join(packet(f"{value} {name}\n".encode()) for name, value in refs.items())
        body = packet(b"# service=git-receive-pack\n") + b"0000" + lines + b"0000"
        return Answer(200, body, content_type="application/x-git-receive-pack-advertisement")

    sides.replica_url = GitHttpServer(silent).url
    sample.fill(sides.source)
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    sample.commit(sides.source, "main", "next")
    sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
    capsys.readouterr()
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    said = [line for line in capsys.readouterr().out.splitlines() if "Falling back" in line]
    assert said == ["Falling back to plain git: the replica does not offer to report the result of a push."]


# ---------------------------------------------------------------------------------------------------- aborted pushes


@pytest.mark.parametrize("aborts", [1, 2, 3])
def test_an_abort_without_a_reason_is_a_refusal_and_steps_down(sides, aborts, capsys):
    """The last step, plain git, comes after three: the replica took none of the engine's own packs."""
    sample.fill(sides.source)
    sides.service.push_faults = [ABORTED] * aborts
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    # To plain git an abort looks like a connection that broke, once.
    assert len(sides.pauses) <= (aborts == 3)
    steps = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Falling back")]
    assert len(steps) == aborts
    assert all("the replica aborted the push without giving a reason" in line for line in steps)
    assert ("plain git" in steps[-1]) is (aborts == 3)


def test_a_server_that_aborts_everything_is_a_failure_and_no_success(strict_sides):
    sample.fill(strict_sides.source)
    strict_sides.service.push_faults = [ABORTED] * 500
    with pytest.raises(program.MirrorFailure, match="the replica refused refs/heads/main"):
        strict_sides.mirror()
    assert sample.refs(strict_sides.replica) == {}


def test_one_ref_that_makes_the_replica_abort_does_not_stop_the_rest(strict_sides):
    sides = strict_sides
    sample.fill(sides.source)
    sides.mirror()
    serve = sides.serve_replica

    def host(request):
        if request.advertisement or request.service != "git-receive-pack":
            return serve(request)
        start = request.body.read(4)
        rest = request.body.read(-1)
        if b"refs/heads/forbidden" in rest:
            return ABORTED
        return sides.service.answer(sides.replica, replaced(request, start + rest))

    sides.replica_url = GitHttpServer(host).url
    for name in ("forbidden", "fine/1", "fine/2"):
        sample.commit(sides.source, name, "new", parent="main")
    outcome = sides.mirror()
    assert outcome.result == "Failed"
    assert list(outcome.broken) == ["refs/heads/forbidden"]
    assert {"refs/heads/fine/1", "refs/heads/fine/2"} <= sides.refs().keys()


def replaced(request, body):
    return dataclasses.replace(request, body=io.BytesIO(body))


# ------------------------------------------------------------------------------------------- throttling and hang-ups


def test_throttling_is_waited_for(sides):
    sample.fill(sides.source)
    sides.service.push_faults = [Answer(429, "Rate Exceeded", {"Retry-After": "7"}), Answer(429, "Rate Exceeded")]
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert len(sides.pauses) == 2
    assert sides.pauses[0] == 7


@pytest.mark.parametrize("times", [1, 2])
def test_a_hang_up_in_the_middle_of_a_large_push(strict_sides, times, capsys):
    sides = strict_sides
    sample.fill(sides.source)
    grow(sides.source, 20)
    sides.service.push_faults = [HangUp(15_000_000)] * times
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert ("in increments of history" in capsys.readouterr().out) is (times == 2)


@pytest.mark.parametrize("status", [408, 413, 504])
@pytest.mark.parametrize("request_number", range(8))
def test_any_request_that_is_answered_so_once_is_tried_again(strict_sides, status, request_number, monkeypatch):
    """Listings of both sides, the push, the archive's, the confirmation's: one rule for all of them."""
    sides = strict_sides
    sample.fill(sides.source)
    sides.mirror()
    sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
    sample.commit(sides.source, "main", "next")
    requests, send = itertools.count(), program.send

    def answered(endpoint, *arguments):
        if next(requests) == request_number:
            busy = program.Endpoint(endpoint.side, f"{refusing}/r", "", "", "", "")
            return send(busy, *arguments)
        return send(endpoint, *arguments)

    refusing = answering(sides.serve_replica, [Answer(status, "not now")])
    monkeypatch.setattr(program, "send", answered)
    outcome = sides.mirror()
    assert (outcome.result, outcome.confirmed) == ("Succeeded", True)
    sides.assert_equal()
    assert len(sides.archive()) == 1


# ------------------------------------------------------------------------------- refs outside branches and tags


def test_a_note_lives_and_dies_under_each_setting(sides, monkeypatch):
    sample.fill(sides.source)
    sides.mirror()
    pushes = spy_on_pushes(sides, monkeypatch)
    sides.mirror()
    assert [refs for refs, _ in pushes] == [[program.CONFIRMED_TAG]]
    old = sides.refs()[NOTE]
    sample.git(sides.source, "notes", "add", "-f", "-m", "another", "main~3")
    assert (sides.mirror().updated, sides.archive()) == (1, {})
    sides.assert_equal()
    sample.git(sides.source, "update-ref", NOTE, "refs/heads/feature/0")
    overwritten = sides.refs()[NOTE]
    sides.mirror()
    sides.assert_equal()
    assert sides.archive() == {NOTE: overwritten}
    assert old != overwritten
    sample.git(sides.source, "update-ref", "refs/notes/second", "refs/heads/feature/1")
    sides.mirror()
    sample.git(sides.source, "update-ref", "-d", NOTE)
    assert sides.mirror().deleted == 1
    sides.assert_equal()
    kept = {name for name in sample.refs(sides.replica) if name.startswith((program.CARRIED_PREFIX, "refs/notes/"))}
    native = sides.service.other_refs is OtherRefs.ACCEPTED
    assert kept == {"refs/notes/second" if native else f"{program.CARRIED_PREFIX}notes/second"}
    # What the replica has decided: not one of these pushes was refused and tried again.
    assert sum(NOTE in refs for refs, _ in pushes) == (3 if native else 0)


def test_the_report_says_once_that_refs_are_carried(sides, capsys):
    sample.fill(sides.source)
    for _ in range(2):
        capsys.readouterr()
        outcome = sides.mirror()
        lines = [line for line in program.summary(outcome) if program.CARRIED_PREFIX in line]
        native = sides.service.other_refs is OtherRefs.ACCEPTED
        assert (outcome.carried, len(lines)) == ((0, 0) if native else (1, 1))
        assert outcome.result == "Succeeded"


def test_refs_outside_branches_and_tags_go_last_and_apart(sides, monkeypatch):
    sample.fill(sides.source)
    pushes = spy_on_pushes(sides, monkeypatch)
    sides.mirror()
    own = [refs for refs, _ in pushes if refs[0].startswith(program.OWN_PREFIX)]
    assert pushes[0][0] == ["refs/heads/main"]
    assert [refs for refs, _ in pushes if NOTE in refs] == [[NOTE]]
    assert pushes[2][0] == [NOTE]
    assert own[-1] == [program.SOURCE_TAG, program.CONFIRMED_TAG]


@pytest.mark.parametrize("then", OtherRefs, ids=lambda setting: setting.value)
def test_a_service_that_changes_its_mind_loses_nothing(sides, then):
    sample.fill(sides.source)
    sides.mirror()
    sides.service.other_refs = then
    sample.git(sides.source, "notes", "add", "-f", "-m", "another", "main~3")
    sample.git(sides.source, "update-ref", "refs/notes/second", "refs/heads/feature/1")
    for _ in range(2):
        assert sides.mirror().result == "Succeeded"
        assert sides.refs() == sample.refs(sides.source, *NAMESPACES)


@pytest.mark.parametrize("aborts", [3])
def test_plain_git_carries_them_too(sides, aborts):
    sample.fill(sides.source)
    sides.service.push_faults = [ABORTED] * aborts
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()


def test_pull_requests_that_are_asked_for_are_carried(sides):
    sample.fill(sides.source, pull_requests=5)
    outcome = sides.mirror(MIRROR_REFS="heads tags notes pull")
    assert outcome.result == "Succeeded"
    kept = program.by_original_name(sample.refs(sides.replica), (*NAMESPACES, "refs/pull/"))
    assert kept == sample.refs(sides.source)
    # What is no longer asked for stays under its own name, and is reported; what was carried goes.
    outcome = sides.mirror()
    left = [name for name in sample.refs(sides.replica) if name.startswith("refs/pull/")]
    assert outcome.needs_attention.keys() == set(left)


def test_one_aborted_push_of_a_note_that_the_replica_has_taken_before_is_tried_again(tmp_path):
    sides = Sides(tmp_path, OtherRefs.ACCEPTED)
    sample.fill(sides.source)
    sides.mirror()
    sample.git(sides.source, "notes", "add", "-f", "-m", "another", "main~3")
    sides.service.push_faults = [ABORTED]
    assert sides.mirror().result == "Succeeded"
    assert sample.refs(sides.replica, "refs/notes/") == sample.refs(sides.source, "refs/notes/")
    assert not sample.refs(sides.replica, program.CARRIED_PREFIX)


def test_pushes_of_notes_that_break_each_time_end_with_carried_notes(strict_sides):
    sides = strict_sides
    sample.fill(sides.source)

    def host(request):
        if request.advertisement:
            return sides.serve_replica(request)
        body = request.body.read(-1)
        if b" refs/notes/" in body[:200]:
            return Answer(500, "Internal Service Error")
        return sides.serve_replica(replaced(request, body))

    sides.replica_url = GitHttpServer(host).url
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert len(sides.pauses) == 1


# ------------------------------------------------------------------------------------------------------- what counts


def refusing(sides, *refs):
    """Serve the replica, and refuse these refs one by one."""

    def host(request):
        if request.advertisement:
            return sides.serve_replica(request)
        body = request.body.read(-1)
        names = [update.ref for update in read_updates(io.BytesIO(body))[0]]
        if not set(names) & set(refs):
            return sides.serve_replica(replaced(request, body))
        report = packet(b"unpack ok\n")
        report += b"".join(packet(f"ng {name} not today\n".encode()) for name in names) + b"0000"
        answer = packet(b"\x01" + report) + b"0000"
        return Answer(200, answer, content_type="application/x-git-receive-pack-result")

    return GitHttpServer(host).url


@pytest.mark.parametrize(
    ("kept", "result"), [(["feature/2"], "SucceededWithIssues"), (["feature/2", "feature/3"], "Failed")]
)
def test_only_one_refused_deletion_can_be_that_of_the_default_branch(strict_sides, kept, result):
    sides = strict_sides
    sample.fill(sides.source)
    sides.mirror()
    names = [f"refs/heads/{name}" for name in kept]
    for name in names:
        sample.git(sides.source, "update-ref", "-d", name)
    sides.replica_url = refusing(sides, *names)
    outcome = sides.mirror()
    assert outcome.result == result
    assert set(outcome.broken or outcome.needs_attention) == set(names)
    assert outcome.confirmed is (result != "Failed")


def test_a_deletion_that_waits_for_the_archive_is_a_failure(strict_sides, monkeypatch):
    sides = strict_sides
    sample.fill(sides.source)
    sides.mirror()
    sample.git(sides.source, "update-ref", "-d", "refs/heads/feature/2")
    push = program.push

    def without_archive(replica, capabilities, commands, *arguments):
        if commands[0].ref.startswith(program.ARCHIVE_PREFIX):
            return {command.ref: "no archive here" for command in commands}
        return push(replica, capabilities, commands, *arguments)

    monkeypatch.setattr(program, "push", without_archive)
    outcome = sides.mirror()
    assert (outcome.result, outcome.confirmed) == ("Failed", False)
    assert "could not be kept in the archive (no archive here)" in outcome.broken["refs/heads/feature/2"]


def test_each_round_that_brings_something_over_gives_the_next_one_all_its_tries(strict_sides, monkeypatch):
    sides = strict_sides
    sample.fill(sides.source, branches=20)
    monkeypatch.setattr(program, "pushes_within_limit", lambda commands, size=2: batches_of(commands, size))
    once, push = set(), program.push

    def busy_once(replica, capabilities, commands, *arguments):
        if commands[0].ref not in once:
            once.add(commands[0].ref)
            raise program.RetryableError("busy", status=503)
        return push(replica, capabilities, commands, *arguments)

    monkeypatch.setattr(program, "push", busy_once)
    outcome = sides.mirror()
    assert outcome.result == "Succeeded"
    assert outcome.created == len(sides.refs())
    sides.assert_equal()
    assert len(sides.pauses) > program.MAX_ROUNDS


def batches_of(commands, size):
    for start in range(0, len(commands), size):
        yield tuple(commands[start : start + size])


def test_an_archive_that_cannot_be_cleaned_up_spoils_no_run(strict_sides, monkeypatch, capsys):
    sides = strict_sides
    sample.fill(sides.source)
    sides.mirror()
    old = f"{program.ARCHIVE_PREFIX}20200101T000000Z/heads/x"
    sample.git(sides.replica, "update-ref", old, "refs/heads/main")
    push = program.push

    def denied(replica, capabilities, commands, *arguments):
        if commands[0].ref == old:
            raise program.MirrorFailure("the replica refused access (403)")
        return push(replica, capabilities, commands, *arguments)

    monkeypatch.setattr(program, "push", denied)
    assert sides.mirror().result == "Succeeded"
    assert "Expired archive entries are kept until the next run" in capsys.readouterr().out


def test_nothing_is_waited_for_after_the_last_try(strict_sides):
    sides = strict_sides
    sample.fill(sides.source)
    sides.replica_url = answering(sides.serve_replica, [Answer(429, "busy", {"Retry-After": "60"})] * 50)
    with pytest.raises(program.MirrorFailure, match="gave up after 6 tries"):
        sides.mirror()
    assert sides.pauses == [60] * 5
