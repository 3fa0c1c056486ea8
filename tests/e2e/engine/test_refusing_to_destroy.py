"""What the source lost, hides or never had stops a run or is reported, and is not deleted from the replica."""

import itertools
import json

import pytest

from localcloud import sample
from localcloud.git_http import Answer, GitHttpServer
from tests.program import program

from . import servers
from .sides import NAMESPACES, answering


def test_a_source_without_refs_changes_nothing(sides):
    sample.fill(sides.source)
    sides.mirror()
    before = sides.refs()
    for name in sample.refs(sides.source):
        sample.git(sides.source, "update-ref", "-d", name)
    with pytest.raises(
        program.MirrorFailure, match=r"the source has no branches and tags; this run would delete .* --allow-deletions"
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
    with pytest.raises(program.MirrorFailure, match=r"refs/heads/feature/0, .*pipeline run NAME --allow-deletions"):
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
    sample.commit(sides.source, "main", "next")
    outcome = sides.mirror()
    assert (outcome.result, outcome.deleted, outcome.updated) == ("SucceededWithIssues", 0, 1)
    assert "limited refs" in outcome.needs_attention[hidden]
    assert hidden in sides.refs()
    del everything[hidden]
    assert sides.mirror().deleted == 1


def test_limited_refs_are_mirrored_through_the_view_that_shows_them(sides):
    sample.fill(sides.source)
    sides.shown = frozenset(["refs/heads/main"])
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    sample.commit(sides.source, "feature/1", "next")
    assert sides.mirror().updated == 1
    sides.assert_equal()


def test_limited_refs_that_no_view_shows_are_reported_by_every_run(strict_sides):
    sides = strict_sides
    sample.fill(sides.source)
    sides.shown, sides.has_full_view = frozenset(["refs/heads/main"]), False
    everything = [{"name": name} for name in sample.refs(sides.source, *NAMESPACES)]

    def api(request):
        return Answer(200, json.dumps({"value": everything}), content_type="application/json")

    sides.source_url = GitHttpServer(sides.serve_source, api).url
    for _ in range(2):
        outcome = sides.mirror()
        assert outcome.result == "SucceededWithIssues"
        assert len(outcome.needs_attention) == len(everything) - 1
        assert set(sides.refs()) == {"refs/heads/main"}


def test_a_view_that_fails_for_ever_is_given_up(strict_sides):
    sides = strict_sides
    sample.fill(sides.source)

    def serve(request):
        return Answer(500, "broken") if "/_full/" in request.repository else sides.serve_source(request)

    sides.source_url = GitHttpServer(serve).url
    sides.mirror()
    sides.assert_equal()
    assert len(sides.pauses) == 2


@pytest.mark.parametrize("shape", ["band 3", "band 2 and no pack"])
def test_an_object_that_is_gone_meanwhile_is_another_round(strict_sides, shape):
    """A ref moved between the list of refs and the request; both shapes are in public logs."""
    sides = strict_sides
    sample.fill(sides.source)
    moves = itertools.count()

    def serve(request):
        if request.service == "git-upload-pack" and not request.advertisement and next(moves) == 0:
            tip = sample.refs(sides.source)["refs/heads/main"]
            sample.commit(sides.source, "main", "meanwhile")
            words = f"TF401035: The object '{tip}' does not exist.".encode()
            line = b"\x03?" + words if shape == "band 3" else b"\x02" + words + b"\n"
            before = b"" if shape == "band 3" else b"0008NAK\n"
            body = before + b"%04x%s0000" % (len(line) + 4, line)
            return Answer(200, body, content_type="application/x-git-upload-pack-result")
        return sides.serve_source(request)

    sides.source_url = GitHttpServer(serve).url
    assert sides.mirror().result == "Succeeded"
    sides.assert_equal()
    assert len(sides.pauses) == 1


@pytest.mark.parametrize("busy", [0, 1])
def test_another_repository_of_the_source_s_name_takes_nothing_over(sides, busy):
    sample.fill(sides.source)
    sides.mirror()
    before = sides.refs()
    sample.commit(sides.source, "main", "by another repository")
    sides.source_url = servers.with_rest_api(sides.source, lambda path, query: ({"id": "another"}, {}))
    sides.replica_url = answering(sides.serve_replica, [Answer(503, "busy")] * busy)
    with pytest.raises(program.MirrorFailure, match="has the id another, but this pipeline mirrors"):
        sides.mirror(MIRROR_SOURCE_ID="mine")
    assert (sides.refs(), len(sides.pauses)) == (before, busy)


def commit_alone(repository, message):
    """Return a commit without parents."""
    tree = sample.git(repository, "mktree", stdin=b"").strip()
    return sample.git(repository, "commit-tree", tree, "-m", message).strip()


def somebody_elses(sides, *branches):
    """Give the replica a history that is not the source's."""
    for branch in branches:
        sample.git(sides.replica, "update-ref", f"refs/heads/{branch}", commit_alone(sides.replica, branch))
    return sides.refs()


@pytest.mark.parametrize("branches", [("main",), ("elsewhere",), ("main", "elsewhere")])
def test_a_history_that_is_not_the_sources_is_replaced_by_a_persons_word_only(sides, branches):
    sample.fill(sides.source)
    before = somebody_elses(sides, *branches)
    with pytest.raises(program.MirrorFailure, match="nothing was changed: the replica has") as stopped:
        sides.mirror()
    assert sides.refs() == before
    mark = str(stopped.value).rpartition("--replace-history ")[2].rstrip("'.")
    with pytest.raises(program.MirrorFailure, match="nothing was changed"):
        sides.mirror(MIRROR_REPLACE_HISTORY="1")
    sides.mirror(MIRROR_REPLACE_HISTORY=mark)
    sides.assert_equal()
    assert set(before.values()) <= set(sides.archive().values())
    sample.commit(sides.source, "main", "next")
    sides.mirror()
    sides.assert_equal()


def test_a_replica_that_was_another_mirrors_is_not_taken_for_this_ones(sides):
    sample.fill(sides.source)
    before = somebody_elses(sides, "main")
    # The other mirror's last run confirmed it, and who may only push cannot read for which source.
    for tag in (program.CONFIRMED_TAG, program.SOURCE_TAG):
        sample.git(sides.replica, "update-ref", tag, "refs/heads/main")
    with pytest.raises(program.MirrorFailure, match="no run has ever confirmed this replica for it") as stopped:
        sides.mirror(MIRROR_EXISTING="1")
    assert sides.refs() == before
    mark = str(stopped.value).rpartition("--replace-history ")[2].rstrip("'.")
    sides.mirror(MIRROR_EXISTING="1", MIRROR_REPLACE_HISTORY=mark)
    sample.commit(sides.source, "main", "a history of its own")
    sides.mirror(MIRROR_EXISTING="1")
    sides.assert_equal()


def test_an_empty_source_has_no_history_that_the_replicas_could_be(sides):
    before = somebody_elses(sides, "main")
    with pytest.raises(program.MirrorFailure, match="nothing was changed"):
        sides.mirror(MIRROR_ALLOW_DELETIONS="1")
    assert sides.refs() == before


def test_a_file_in_both_makes_no_common_history(sides):
    sample.fill(sides.source)
    somebody_elses(sides, "main")
    for side in (sides.source, sides.replica):
        blob = sample.git(side, "hash-object", "-w", "--stdin", stdin=b"").strip()
        sample.git(side, "update-ref", "refs/tags/empty", blob)
    before = sides.refs()
    with pytest.raises(program.MirrorFailure, match="nothing was changed: the replica has"):
        sides.mirror()
    assert sides.refs() == before


def test_a_word_about_one_history_is_not_about_another_one(sides):
    sample.fill(sides.source)
    somebody_elses(sides, "main")
    with pytest.raises(program.MirrorFailure) as stopped:
        sides.mirror()
    mark = str(stopped.value).rpartition("--replace-history ")[2].rstrip("'.")
    before = somebody_elses(sides, "another")
    with pytest.raises(program.MirrorFailure, match="nothing was changed"):
        sides.mirror(MIRROR_REPLACE_HISTORY=mark)
    assert sides.refs() == before


def test_an_older_copy_of_the_source_is_its_history(sides):
    sample.fill(sides.source)
    old = sample.refs(sides.source)["refs/heads/main"]
    sample.git(sides.replica, "fetch", "-q", str(sides.source), "refs/heads/main:refs/heads/main")
    sample.git(sides.replica, "tag", "-f", "by-somebody", "main~3")
    sample.commit(sides.source, "main", "since then")
    sides.mirror()
    sides.assert_equal()
    assert old not in sides.archive().values()


def test_a_confirmed_replica_follows_a_source_that_was_rewritten(sides):
    sample.fill(sides.source)
    sides.mirror()
    for name in sample.refs(sides.source):
        sample.git(sides.source, "update-ref", "-d", name)
    sample.git(sides.source, "update-ref", "refs/heads/main", commit_alone(sides.source, "all anew"))
    sample.git(sides.source, "reflog", "expire", "--expire=now", "--all")
    sample.git(sides.source, "gc", "-q", "--prune=now")
    sides.mirror(MIRROR_ALLOW_DELETIONS="1")
    sides.assert_equal()


def test_what_somebody_else_put_beside_the_mirrored_refs_is_reported(strict_sides):
    """Whoever has the pipeline's credential may push a tag where only branches are mirrored."""
    sides = strict_sides
    sample.fill(sides.source)
    sides.mirror(MIRROR_REFS="heads")
    tip = sample.refs(sides.replica)["refs/heads/main"]
    sample.git(sides.replica, "update-ref", "refs/tags/v9.9.9", tip)
    outcome = sides.mirror(MIRROR_REFS="heads")
    assert outcome.result == "SucceededWithIssues"
    assert "not among the refs that are mirrored" in outcome.needs_attention["refs/tags/v9.9.9"]


def test_a_stray_goes_although_the_source_has_a_tag_of_that_name(strict_sides):
    sides = strict_sides
    sample.fill(sides.source)
    sides.mirror()
    planted, tip = f"{program.OWN_PREFIX}anything", sample.refs(sides.replica)["refs/heads/main"]
    for side in (sides.source, sides.replica):
        sample.git(side, "update-ref", planted, tip)
    sides.mirror()
    assert planted not in sample.refs(sides.replica)
