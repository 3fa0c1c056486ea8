"""Which bundles a snapshot consists of, manifests, and bundle headers."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.guard.snapshot import is_unchanged, plan
from codecommit_mirror.guard.vault.bundle import header, read_header
from codecommit_mirror.guard.vault.manifest import (
    Manifest,
    ManifestTooLargeError,
    as_of,
    chain_of,
    check_size,
    dump,
    parse,
)

CONFIRMED = "refs/tags/codecommit-mirror/confirmed"
IDS = st.integers(0, 2**160 - 1).map(lambda number: f"{number:040x}")
NAMES = st.builds(
    lambda kind, number: f"refs/{kind}/{number}", st.sampled_from(["heads", "tags", "notes"]), st.integers(0, 40)
)
REFS = st.dictionaries(NAMES, IDS, max_size=30)


def manifest(time="20261101T000000Z", refs=None, **fields):
    defaults = {
        "account": "123456789012",
        "region": "eu-west-1",
        "bucket": "vault",
        "replica": "M",
        "sequence": 1,
        "signed_by": "0" * 64,
        "time": time,
        "refs": refs or {},
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
        "lock_mode": "COMPLIANCE",
        "locked_until": "20271101T000000Z",
    }
    return Manifest(**{**defaults, **fields})


@given(REFS, REFS, st.booleans(), st.integers(0, 4))
def test_the_last_part_has_all_refs_and_each_object_is_asked_for_or_there(before, refs, anew, halvings):
    parts = list(plan(refs, "refs/heads/1", manifest(refs=before), anew=anew, halvings=halvings))
    assert parts[-1].refs == refs
    assert [part.complete for part in parts] == [False] * (len(parts) - 1) + [True]
    had = {} if anew else dict(before)
    for part in parts:
        there = set(had.values()) if part.prerequisites else set()
        assert set(part.refs.values()) <= there | set(part.wants)
        assert set(part.prerequisites) <= {value for name, value in had.items() if name.startswith("refs/heads/")}
        had |= part.refs


@given(REFS, st.integers(0, 4))
def test_after_interruptions_a_snapshot_is_taken_in_more_and_smaller_parts(refs, halvings):
    parts = list(plan(refs, None, None, anew=True, halvings=halvings))
    assert len(parts) <= max(1, 2**halvings)
    sizes = [len(part.refs) for part in parts]
    assert sizes == sorted(sizes)


def test_the_confirming_tag_alone_is_no_change():
    last = manifest(refs={"refs/heads/main": "a" * 40, CONFIRMED: "b" * 40})
    assert is_unchanged({"refs/heads/main": "a" * 40, CONFIRMED: "c" * 40}, last)
    assert not is_unchanged({"refs/heads/main": "d" * 40, CONFIRMED: "b" * 40}, last)
    assert not is_unchanged({"refs/heads/main": "a" * 40}, manifest(refs=last.refs, complete=False))
    assert not is_unchanged({}, None)


@given(st.lists(IDS, max_size=5), st.dictionaries(st.sampled_from(["refs/heads/a b", "refs/heads/\udcff", "é"]), IDS))
def test_a_header_is_read_as_it_was_written(prerequisites, refs):
    stream = io.BytesIO(header(prerequisites, refs) + b"PACK")
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


@given(REFS)
def test_a_manifest_is_read_as_it_was_written(refs):
    assert parse(dump(manifest(refs=refs))) == manifest(refs=refs)


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


def test_refs_whose_manifest_nobody_could_read_are_refused_before_anything_is_written():
    refs = {f"refs/heads/{number:05}{chr(0xDCFF) * 300}": "a" * 40 for number in range(40_000)}
    with pytest.raises(ManifestTooLargeError, match=r"the refs of M make a manifest of [0-9,]+ bytes"):
        check_size("M", refs)
    check_size("M", {f"refs/heads/{number:06}": "a" * 40 for number in range(200_000)})
