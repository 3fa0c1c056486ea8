"""Lists of refs: the same as a dictionary, and the same digest as a run writes."""

import gzip
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.engine.confirmation import ref_listing
from codecommit_mirror.engine.plan import by_original_name
from codecommit_mirror.engine.refs import CARRIED_PREFIX, ReplicaRefs
from codecommit_mirror.engine.wire.protocol import pkt_line
from codecommit_mirror.guard.replica.confirmation import digest
from codecommit_mirror.guard.replica.git_access import parse
from codecommit_mirror.guard.vault import ref_list
from codecommit_mirror.guard.vault.ref_list import RefList

IDS = st.integers(0, 2**160 - 1).map(lambda number: f"{number:040x}")
PLACES = ["refs/heads/", "refs/tags/", "refs/notes/", "refs/tags/codecommit-mirror/", CARRIED_PREFIX]
PLACES += [f"{CARRIED_PREFIX}heads/", f"{CARRIED_PREFIX}notes/"]
NAMES = st.builds(str.__add__, st.sampled_from(PLACES), st.text("ab/é\udcff\r\u2028", min_size=1, max_size=3))
REFS = st.dictionaries(NAMES, IDS, max_size=20)


def key(name):
    return name.encode("utf-8", "surrogateescape")


@given(REFS, st.sampled_from(PLACES))
def test_a_list_is_a_sorted_dictionary(refs, place):
    found = RefList.of(refs)
    assert dict(found) == dict(found.items()) == refs
    assert list(found) == sorted(refs, key=key)
    assert list(found.values()) == [refs[name] for name in found]
    assert all(value in found.values() for value in refs.values())
    assert (len(found), found.get("refs/heads/none"), "" in found) == (len(refs), None, False)
    assert dict(found.below(place)) == {name: value for name, value in refs.items() if name.startswith(place)}
    assert [name for start in range(0, len(found), 3) for name in found.part(start, start + 3)] == list(found)
    assert found.sha256 == hashlib.sha256(ref_listing(refs)).hexdigest()


@given(REFS, REFS)
def test_what_changed_since_a_list_makes_the_other_one_of_it(before, after):
    old, new = RefList.of(before), RefList.of({**after, **dict(list(before.items())[:5])})
    changed, deleted = new.since(old)
    assert dict(changed) == {name: value for name, value in new.items() if old.get(name) != value}
    assert list(deleted) == [name for name in old if name not in new]
    assert old.updated(changed, deleted).lines == new.lines


@given(REFS)
def test_a_list_is_unpacked_as_it_was_packed_also_by_gzip(refs):
    data = b"".join(RefList.of(refs).deflate())
    assert dict(RefList.inflate(data)) == refs
    assert gzip.decompress(data) == ref_listing(refs)


@given(REFS)
def test_the_digest_is_the_one_that_a_run_writes(refs):
    mirrored = by_original_name(ReplicaRefs(refs), ("refs/",))
    assert digest(RefList.of(refs)) == hashlib.sha256(ref_listing(mirrored)).hexdigest()


@pytest.mark.parametrize(
    "lines", [b"x", b"a" * 40 + b" b", b"a" * 40 + b" b\n" + b"a" * 40 + b" a\n", b"A" * 40 + b" b\n"]
)
def test_damaged_lines_are_refused(lines):
    with pytest.raises(ValueError, match="damaged"):
        RefList(lines)


def test_a_damaged_or_endless_list_is_refused(monkeypatch):
    good = b"".join(RefList.of({"refs/heads/main": "a" * 40}).deflate())
    for data in (b"", b"x", good[:-1], good[:20]):
        with pytest.raises(ValueError, match=r"damaged|cut short"):
            RefList.inflate(data)
    monkeypatch.setattr(ref_list, "MAX_LIST_BYTES", 1000)
    with pytest.raises(ValueError, match="too large"):
        RefList.inflate(zlib.compress(bytes(100_000), wbits=31))


def test_a_server_may_list_refs_in_any_order_and_the_later_of_two_counts():
    lines = [b"a" * 40 + b" HEAD\0side-band-64k\n", b"b" * 40 + b" refs/tags/v1\n", b"c" * 40 + b" refs/tags/v1^{}\n"]
    lines += [b"d" * 40 + b" refs/heads/main\n", b"e" * 40 + b" refs/heads/main\n"]
    found = parse(b"".join(map(pkt_line, lines)) + b"0000")
    assert dict(found.refs) == {"refs/heads/main": "e" * 40, "refs/tags/v1": "b" * 40}
    assert (dict(found.peeled), found.capabilities) == ({"refs/tags/v1": "c" * 40}, ("side-band-64k",))


@pytest.mark.parametrize("line", [b"a" * 40 + b" refs/heads/a\nb", b"a" * 64 + b" refs/heads/a"])
def test_a_list_with_a_ref_that_no_bundle_can_have_is_malformed(line):
    with pytest.raises(ValueError, match="not a ref"):
        parse(pkt_line(line) + b"0000")
