"""Which bundles a snapshot consists of, manifests, and bundle headers."""

import io
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.guard.snapshot import is_unchanged
from codecommit_mirror.guard.vault.bundle import MAX_HEADER_BYTES, header, read_header
from codecommit_mirror.guard.vault.bundle_plan import MAX_PREREQUISITES, plan, starts_chain
from codecommit_mirror.guard.vault.manifest import (
    MAX_BYTES,
    MAX_DELETED_BYTES,
    Manifest,
    as_of,
    chain_of,
    dump,
    list_is_due,
    parse,
)
from codecommit_mirror.guard.vault.ref_list import MAX_LIST_BYTES, RefList

CONFIRMED = "refs/tags/codecommit-mirror/confirmed"
IDS = st.integers(0, 2**160 - 1).map(lambda number: f"{number:040x}")
NAMES = st.builds(
    lambda kind, number: f"refs/{kind}/{number}", st.sampled_from(["heads", "tags", "notes"]), st.integers(0, 40)
)
REFS = st.dictionaries(NAMES, IDS, max_size=30)


def manifest(time="20261101T000000Z", **fields):
    defaults = {
        "account": "123456789012",
        "region": "eu-west-1",
        "bucket": "vault",
        "replica": "M",
        "sequence": 1,
        "signed_by": "0" * 64,
        "time": time,
        "ref_count": 0,
        "refs_sha256": "0" * 64,
        "changed": {},
        "deleted": (),
        "list_key": None,
        "list_version": None,
        "list_bytes": 0,
        "links": 0,
        "changed_bytes": 0,
        "head": "refs/heads/main",
        "complete": True,
        "bundle": f"snapshots/M/{time}.bundle",
        "bundle_version": "v",
        "size": 1,
        "sha256": "0" * 64,
        "prerequisites": (),
        "previous": None,
        "previous_sha256": None,
        "chain_started": time,
        "chain_length": 1,
        "lock_mode": "COMPLIANCE",
        "locked_until": "20271101T000000Z",
    }
    return Manifest(**{**defaults, **fields})


@given(REFS, REFS, st.integers(0, 4))
def test_the_last_part_has_all_refs_and_each_object_is_asked_for_or_there(before, refs, size):
    base = RefList.of(before)
    parts = list(plan(RefList.of(refs), "refs/heads/1", base, (lambda: size) if size else None))
    assert dict(parts[-1].refs) == refs
    assert [part.complete for part in parts] == [False] * (len(parts) - 1) + [True]
    had = base
    for part in parts:
        there = set(had.values()) if part.prerequisites else set()
        assert set(part.changed.values()) <= there | set(part.wants)
        assert set(part.prerequisites) <= set(had.below("refs/heads/").values())
        # What a reader makes of the manifests is what the part has.
        read = (had if part.prerequisites else RefList()).updated(part.changed, part.deleted)
        assert read.lines == part.refs.lines
        had = part.refs


@given(REFS, st.integers(1, 4))
def test_after_interruptions_a_snapshot_is_taken_in_more_and_smaller_parts(refs, size):
    parts = list(plan(RefList.of(refs), None, RefList(), lambda: size))
    had = 0
    for part in parts:
        assert had <= len(part.refs) <= had + size
        had = len(part.refs)


def test_a_chain_ends_when_it_is_old_and_complete_or_too_long():
    now, month = datetime(2026, 11, 20, tzinfo=UTC), timedelta(days=30)
    assert starts_chain(None, now, month)
    assert not starts_chain(manifest(), now, month)
    assert starts_chain(manifest(), now + month, month)
    assert not starts_chain(manifest(complete=False), now + month, month)
    assert starts_chain(manifest(complete=False, chain_length=1500), now, month)


def test_a_name_goes_before_one_below_it_comes_and_no_manifest_is_too_large():
    before = {"refs/heads/main": "a" * 40, **{f"refs/heads/{i:03}\udcff{'x' * 9000}": "b" * 40 for i in range(300)}}
    refs = RefList.of({"refs/heads/main": "c" * 40, f"refs/heads/000\udcff{'x' * 9000}/b": "d" * 40})
    parts = list(plan(refs, "refs/heads/main", RefList.of(before)))
    assert len(parts) == 3
    assert sum(len(part.deleted) for part in parts) == 300
    assert [dict(part.changed) for part in parts] == [{}, {}, dict(refs)]
    assert all(len(dump(manifest(deleted=tuple(part.deleted)))) < MAX_DELETED_BYTES + 10_000 for part in parts)


@pytest.mark.parametrize("sizes", [None, lambda: 1_000])
def test_a_plan_takes_the_memory_of_a_few_lists_whatever_the_names_are(sizes):
    """A character beyond U+FFFF makes each character of a name in Python take four bytes."""
    old, new = (
        RefList.of({f"refs/heads/{word}/{number}/{'x' * 150}\U0001f600": f"{number:040x}" for number in range(10_000)})
        for word in ("old", "new")
    )
    tracemalloc.start()
    for part in plan(new, "refs/heads/main", old, sizes):
        assert len(part.refs) <= 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # What changed, what goes, what there is before and after a part; names of a megabyte, and ids.
    assert peak < 6 * len(new.lines) + 5_000_000


def test_a_bundle_builds_on_the_branches_that_it_brings_first():
    before = {f"refs/heads/{number:04}": f"{number:040x}" for number in range(2000)}
    refs = {**before, "refs/heads/1999": "a" * 40}
    (part,) = plan(RefList.of(refs), "refs/heads/1000", RefList.of(before))
    assert part.prerequisites[:3] == (f"{1999:040x}", f"{1000:040x}", f"{0:040x}")
    assert (len(part.prerequisites), part.wants) == (MAX_PREREQUISITES, ["a" * 40])


def test_a_list_is_due_where_following_the_changes_would_cost_more():
    assert list_is_due(None, 0)
    assert not list_is_due(manifest(list_bytes=100_000, links=62), 100_000)
    assert list_is_due(manifest(list_bytes=100_000, links=63), 0)
    assert list_is_due(manifest(list_bytes=100_000), 100_001)
    assert not list_is_due(manifest(list_bytes=10), 60_000)
    # Whatever the list takes, a manifest stays below what is read of one.
    assert list_is_due(manifest(list_bytes=MAX_LIST_BYTES), MAX_BYTES - MAX_DELETED_BYTES - 100_000)


def test_the_confirming_tag_alone_is_no_change():
    refs = RefList.of({"refs/heads/main": "a" * 40, CONFIRMED: "b" * 40})
    last = manifest()
    assert is_unchanged(refs.updated(RefList.of({CONFIRMED: "c" * 40}), []), last, refs)
    assert is_unchanged(refs.updated(RefList.of({}), [CONFIRMED]), last, refs)
    assert not is_unchanged(refs.updated(RefList.of({"refs/heads/main": "d" * 40}), []), last, refs)
    assert not is_unchanged(refs.updated(RefList.of({"refs/heads/new": "d" * 40}), []), last, refs)
    assert not is_unchanged(refs.updated(RefList.of({}), ["refs/heads/main"]), last, refs)
    assert not is_unchanged(refs, manifest(complete=False), refs)
    assert not is_unchanged(RefList(), None, RefList())


@given(st.lists(IDS, max_size=5), st.dictionaries(st.sampled_from(["refs/heads/a b", "refs/heads/\udcff", "é"]), IDS))
def test_a_header_is_read_as_it_was_written(prerequisites, refs):
    stream = io.BytesIO(b"".join(header(prerequisites, RefList.of(refs))) + b"PACK")
    found = read_header(stream)
    assert (list(found.prerequisites), found.refs) == (prerequisites, refs)
    assert stream.read() == b"PACK"


@given(st.binary(max_size=200))
def test_what_is_no_header_is_refused(data):
    for text in (data, b"# v2 git bundle\n" + data):
        try:
            read_header(io.BytesIO(text))
        except ValueError:
            continue
        assert b"\n\n" in text


def test_the_longest_list_fits_into_a_header():
    assert MAX_LIST_BYTES + MAX_PREREQUISITES * len(b"-" + b"0" * 40 + b"\n") + 100 < MAX_HEADER_BYTES


@given(REFS)
def test_a_manifest_is_read_as_it_was_written(refs):
    written = manifest(changed=refs, deleted=tuple(refs))
    assert parse(dump(written)) == written


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"format": 2}', b'{"format": 1, "replica": "M"}'])
def test_a_damaged_manifest_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        parse(data)


def test_a_chain_goes_back_to_the_full_snapshot():
    full = manifest("20261101T000000Z")
    first = manifest("20261102T000000Z", prerequisites=("a" * 40,), previous=full.key)
    second = manifest("20261103T000000Z", prerequisites=("b" * 40,), previous=first.key)
    known = {one.key: one for one in (full, first, second)}
    assert chain_of(second, known) == [full, first, second]
    assert chain_of(full, known) == [full]
    with pytest.raises(ValueError, match="it says that it is"):
        parse(dump(first).replace(b'"key": "snapshots/M/', b'"key": "snapshots/N/'))
    del known[first.key]
    with pytest.raises(ValueError, match=f"the snapshot that {second.key} builds on is missing"):
        chain_of(second, known)


def test_as_of_a_time_is_the_last_complete_snapshot_before_it():
    one, two = manifest("20261101T000000Z"), manifest("20261103T000000Z", sequence=3)
    half = manifest("20261102T000000Z", complete=False, sequence=2)
    noon = datetime(2026, 11, 2, 12, tzinfo=UTC)
    assert as_of([one, half, two], noon) is one
    assert as_of([one, half, two], noon + timedelta(days=1)) is two
    assert as_of([one], noon - timedelta(days=2)) is None
