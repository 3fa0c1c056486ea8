"""What a restore would create: pure decisions."""

import re
import zlib
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.backup.origin import Origin, dropped_since
from codecommit_mirror.backup.repository import BareRepository
from codecommit_mirror.backup.restore import choose, plan, rename
from codecommit_mirror.backup.snapshots import parse_at
from codecommit_mirror.backup.target import Folder, find_target
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations.context import MirrorContext
from localcloud import sample

A, B = "a" * 40, "b" * 40
REFS = {"refs/heads/main": A, "refs/heads/release/1": B, "refs/tags/v1": A, "refs/notes/commits": B}
ORIGIN = Origin("the replica M", None, REFS, "refs/heads/main")
ARCHIVE = "refs/tags/codecommit-mirror/archive"


class Existing:
    """A target that has these refs."""

    name = "https://git.example.com/r"
    reserved = ("refs/pull/",)

    def __init__(self, refs):
        self._refs = refs

    def refs(self):
        return self._refs


def test_an_empty_target_gets_everything():
    assert plan(ORIGIN, Existing({})).create == REFS


def test_what_is_there_already_is_not_created_again():
    assert plan(ORIGIN, Existing({"refs/heads/main": A})).create == {n: v for n, v in REFS.items() if "main" not in n}


def test_nothing_is_moved_and_what_differs_is_listed():
    todo = plan(ORIGIN, Existing({"refs/heads/main": B, "refs/heads/mine": B, "refs/tags/v1": A}))
    assert todo.create == {"refs/heads/release/1": B, "refs/notes/commits": B}
    assert (todo.conflicts, todo.present, todo.left_out) == ({"refs/heads/main": B}, 1, ())


def test_if_the_target_has_other_values_for_all_of_it_that_is_an_error():
    with pytest.raises(MirrorError, match=r"other values for 1 ref \(refs/heads/main\), and nothing is moved; restore"):
        plan(ORIGIN, Existing({"refs/heads/main": B}), patterns=["main"])


@pytest.mark.parametrize("under", [None, "refs/heads/restored/"])
def test_what_a_server_writes_itself_is_left_out(under):
    origin = Origin("the replica M", None, {**REFS, "refs/pull/7/merge": A}, "refs/heads/main")
    todo = plan(origin, Existing({"refs/pull/1/merge": B}), under=under)
    assert len(todo.create) == 4
    assert todo.left_out == ("refs/pull/restored/7/merge" if under else "refs/pull/7/merge",)
    assert len(plan(origin, Folder(Path("/no/such/folder"))).create) == 5


def test_below_a_prefix_the_rest_of_the_target_does_not_matter():
    todo = plan(ORIGIN, Existing({"refs/heads/main": B}), under="refs/heads/restored/")
    assert todo.create == {
        "refs/heads/restored/main": A,
        "refs/heads/restored/release/1": B,
        "refs/tags/restored/v1": A,
        "refs/notes/restored/commits": B,
    }
    for wrong in ("restored", "refs/heads/", "refs/tags/x"):
        with pytest.raises(MirrorError, match=r"is not a prefix of branches; write one like refs/heads/restored/"):
            rename(REFS, wrong)


@given(st.sets(st.sampled_from(sorted(REFS))), st.sampled_from([None, "refs/heads/r", "refs/heads/a/b/"]))
def test_renaming_loses_nothing(names, under):
    refs = {name: REFS[name] for name in names}
    renamed = rename(refs, under)
    assert sorted(renamed.values()) == sorted(refs.values())
    assert all(name.split("/")[1] == old.split("/")[1] for name, old in zip(renamed, refs, strict=True))


def test_refs_are_chosen_by_full_and_by_short_names():
    assert choose(REFS, ["release/*"]) == {"refs/heads/release/1": B}
    assert choose(REFS, ["refs/tags/*", "main"]) == {"refs/tags/v1": A, "refs/heads/main": A}
    with pytest.raises(MirrorError, match=r"--refs 'nope' matches none of the 4 refs"):
        choose(REFS, ["nope"])


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MirrorError, match=r"exists and is not empty; name a new folder"):
        plan(ORIGIN, Folder(tmp_path))
    with pytest.raises(MirrorError, match=r"has no refs; there is nothing to restore"):
        plan(Origin("the replica M", None, {}, None), Folder(Path(tmp_path, "new")))


def test_the_archive_gives_the_first_tip_that_was_dropped_since():
    replica = {
        f"{ARCHIVE}/20261101T000000Z/heads/x": "1" * 40,
        f"{ARCHIVE}/20261103T000000Z/heads/x": "3" * 40,
        f"{ARCHIVE}/20261105T000000Z/heads/x": "5" * 40,
        f"{ARCHIVE}/20261104T000000Z/eeeeeeeeeeeeeeee": "e" * 40,
        f"{ARCHIVE}/20261105T000000Z/tags/v": "6" * 40,
        "refs/heads/x": "9" * 40,
    }
    common = {"e" * 40: {"refs/heads/x": "4" * 40, "refs/heads/y": "7" * 40}, "f" * 40: {}}

    def read(entries):
        return {entry: common[entry] for entry in entries}

    found, unread = dropped_since(replica, datetime(2026, 11, 2, tzinfo=UTC), read)
    assert found == {"refs/heads/x": "3" * 40, "refs/heads/y": "7" * 40, "refs/tags/v": "6" * 40}
    assert unread == ()
    assert dropped_since(replica, datetime(2026, 11, 6, tzinfo=UTC), read) == ({}, ())


def test_an_entry_that_cannot_be_read_is_told():
    entry = f"{ARCHIVE}/20261104T000000Z/ffffffffffffffff"
    found = dropped_since({entry: "f" * 40}, datetime(2026, 11, 2, tzinfo=UTC), lambda _: {"f" * 40: {}})
    assert found == ({}, (entry,))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-20", datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)),
        ("2026-11-20T08:30Z", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20T08:30", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20T08:30+02:00", datetime(2026, 11, 20, 6, 30, tzinfo=UTC)),
        ("20261120T083000Z", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("20261120", datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_are_dates_or_iso_8601(text, time):
    assert parse_at(text) == time


@pytest.mark.parametrize("text", ["yesterday", "", "0206-11-20", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_a_sentence(text):
    with pytest.raises(MirrorError, match=rf"--at '{re.escape(text)}' is not a time; write a date like 2026-11-20"):
        parse_at(text)


def context(transport=None, **environment):
    mirror = single_mirror("M", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
    return MirrorContext(mirror, environment, Path(), azure_transport=transport)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("git@host:repo.git", "looks like an SSH address; give an HTTPS URL, or a folder"),
        ("https://dev.azure.com/contoso/Shop/MyRepo", "is not an Azure Repos clone URL; it looks like https://dev"),
        ("ftp://host/r", "--to would send the password over ftp, unencrypted"),
        ("https://git.example.com/r", "RESTORE_GIT_USERNAME and RESTORE_GIT_PASSWORD are not set"),
        ("https://evil.example.com/git-codecommit.eu-west-1.amazonaws.com/v1", "RESTORE_GIT_USERNAME and"),
    ],
)
def test_a_target_that_cannot_be_is_a_sentence(text, sentence):
    with pytest.raises(MirrorError, match=re.escape(sentence)):
        find_target(text, context())


def test_a_server_gets_the_credentials_that_are_meant_for_it():
    target = find_target("https://git.example.com/r", context(RESTORE_GIT_USERNAME="a", RESTORE_GIT_PASSWORD="b"))
    assert (target.endpoint().username, target.endpoint().password) == ("a", "b")
    asked, found = [], {"id": "i", "name": "New", "project": {"id": "p"}}
    transport = httpx.MockTransport(lambda request: asked.append(request) or httpx.Response(200, json=found))
    # The organization is the one that a person typed, and not the one of the file.
    url = "https://dev.azure.com/fabrikam/Shop/_git/New"
    source = find_target(url, context(transport, AZURE_DEVOPS_EXT_PAT="token"))
    assert (source.name, source.endpoint().url, source.endpoint().password) == (url, url, "token")
    assert {request.url.path for request in asked} == {"/fabrikam/Shop/_apis/git/repositories/New"}


def test_a_time_in_the_future_is_refused():
    with pytest.raises(MirrorError, match="is in the future; name an earlier time"):
        parse_at("2999-01-01")


def test_a_malformed_author_is_a_note_and_a_missing_or_damaged_object_a_problem(tmp_path):
    """Servers have accepted commits that git fsck complains about; they can be restored all the same."""
    repository = BareRepository(tmp_path / "r.git")
    path = repository.path
    blob = sample.git(path, "hash-object", "-w", "--stdin", stdin=b"text").strip()
    tree = sample.git(path, "mktree", stdin=f"100644 blob {blob}\tfile\n".encode()).strip()
    text = f"tree {tree}\nauthor no mail 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n".encode()
    commit = sample.git(path, "hash-object", "-t", "commit", "--literally", "-w", "--stdin", stdin=text).strip()
    repository.set_refs({"refs/heads/main": commit}, "refs/heads/main")
    problem, complaints = repository.fsck()
    assert problem is None
    assert commit in complaints[0]
    file = path / "objects" / blob[:2] / blob[2:]
    kept = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(zlib.compress(b"blob 4\0txet"))
    assert "hash" in repository.fsck().problem or "mismatch" in repository.fsck().problem
    file.unlink()
    assert f"missing blob {blob}" in repository.fsck().problem
    file.write_bytes(kept)
    assert repository.fsck().problem is None
