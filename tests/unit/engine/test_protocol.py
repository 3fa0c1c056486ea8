"""pkt-lines, advertisements, reports and packs: well-formed ones are read, and malformed ones refused."""

import contextlib
import hashlib
import subprocess
import tracemalloc
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codecommit_mirror.engine.confirmation import confirmation, source_commit
from codecommit_mirror.engine.failures import PackRefused, RetryableError
from codecommit_mirror.engine.settings import Settings, make_endpoint
from codecommit_mirror.engine.wire.packs import (
    COMMIT,
    EMPTY_PACK,
    TAG,
    TREE,
    commit_parents,
    is_ancestor,
    object_id,
    pack_of,
    read_pack,
    verify_checksum,
)
from codecommit_mirror.engine.wire.protocol import offered, parse_advertisement, parse_report, split_pkt_lines
from localcloud import sample

ID = "a" * 40


def packet(payload: bytes) -> bytes:
    return b"%04x%s" % (len(payload) + 4, payload)


def advertisement(*lines: bytes, service: bytes = b"git-upload-pack") -> bytes:
    return packet(b"# service=" + service + b"\n") + b"0000" + b"".join(map(packet, lines)) + b"0000"


@given(st.lists(st.binary(min_size=1, max_size=200)))
def test_packets_are_read_as_they_were_written(payloads):
    assert list(split_pkt_lines(b"".join(map(packet, payloads)) + b"0000")) == payloads


@given(st.binary(max_size=300))
def test_anything_else_is_refused_and_never_a_surprise(data):
    with contextlib.suppress(ValueError):
        parse_advertisement(data)


@given(st.data())
def test_a_cut_advertisement_is_refused(data):
    whole = advertisement(ID.encode() + b" HEAD\0symref=HEAD:refs/heads/main", ID.encode() + b" refs/heads/main")
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    if cut != advertisement()[: len(cut)] or not cut.endswith(b"0000"):
        with pytest.raises(ValueError, match=r"."):
            parse_advertisement(cut)


def test_refs_head_and_peeled_tags():
    found = parse_advertisement(
        advertisement(
            ID.encode() + b" HEAD\0multi_ack symref=HEAD:refs/heads/main agent=x\n",
            ID.encode() + b" refs/heads/main\n",
            ID.encode() + b" refs/tags/v1\n",
            b"b" * 40 + b" refs/tags/v1^{}\n",
        )
    )
    assert found.refs == {"refs/heads/main": ID, "refs/tags/v1": ID}
    assert found.peeled == {"refs/tags/v1": "b" * 40}
    assert found.head == "refs/heads/main"


def test_an_empty_repository_has_no_refs():
    assert parse_advertisement(advertisement(b"0" * 40 + b" capabilities^{}\0report-status\n")).refs == {}


def test_alternates_version_and_shallow_lines_are_passed_over():
    lines = [b"version 1\n", ID.encode() + b" .have\n", b"shallow " + ID.encode() + b"\n"]
    assert parse_advertisement(advertisement(*lines)).refs == {}


def test_names_that_are_not_utf8_survive():
    (name,) = parse_advertisement(advertisement(ID.encode() + b" refs/heads/\xff\n")).refs
    assert name.encode("utf-8", "surrogateescape") == b"refs/heads/\xff"


@pytest.mark.parametrize(
    "data",
    [
        b"zzzz",
        b"0001",
        b"0005",
        b"00",
        packet(b"ERR access denied\n"),
        packet(b"nonsense\n"),
        packet(b"deadbeef refs/heads/main\n"),
    ],
)
def test_malformed_input_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        parse_advertisement(data)


# ---------------------------------------------------------------------------------------------------------- reports


def report(*lines: bytes, band: bool = True) -> bytes:
    inner = b"".join(map(packet, lines)) + b"0000"
    return packet(b"\x02hello\n") + packet(b"\x01" + inner) + b"0000" if band else inner


@pytest.mark.parametrize("band", [True, False])
def test_refused_refs_are_told_with_the_reason(band):
    body = report(b"unpack ok\n", b"ok refs/heads/a\n", b"ng refs/heads/b no way\n", band=band)
    refused = parse_report(body, band)
    assert list(refused) == ["refs/heads/b"]
    assert refused["refs/heads/b"].startswith("no way")
    assert ("hello" in refused["refs/heads/b"]) == band


def test_a_pack_that_was_not_taken_is_a_refusal_of_the_pack():
    with pytest.raises(PackRefused, match="unresolved deltas"):
        parse_report(report(b"unpack unresolved deltas\n", b"ng refs/heads/a n/a\n"), True)
    with pytest.raises(PackRefused, match="out of memory"):
        parse_report(packet(b"\x03out of memory\n"), True)


@pytest.mark.parametrize("body", [b"", b"0000", packet(b"ok refs/heads/a\n") + b"0000"])
@pytest.mark.parametrize("band", [True, False])
def test_a_report_without_unpack_ok_is_a_refusal_of_the_push(body, band):
    """CodeCommit aborts with an empty one: https://github.com/isomorphic-git/isomorphic-git/issues/310."""
    inner = packet(b"\x01" + body) + b"0000" if band and body else body
    with pytest.raises(PackRefused, match="aborted the push without giving a reason"):
        parse_report(inner, band)


def test_only_what_a_server_advertised_is_named():
    assert offered(["side-band-64k", "agent=git/2"], "report-status", "side-band-64k", "agent=us") == [
        "side-band-64k",
        "agent=us",
    ]
    assert offered([], "report-status", "agent=us") == []


@given(st.binary(max_size=300), st.booleans())
def test_any_report_is_read_or_refused_and_never_a_surprise(data, band):
    with contextlib.suppress(ValueError, PackRefused):
        parse_report(data, band)


# ------------------------------------------------------------------------------------------------------------- packs


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    path = tmp_path_factory.mktemp("packs") / "sample.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    sample.fill(path, commits=300)
    return path


def pack_from(repository, *options):
    command = ["git", "-C", str(repository), "pack-objects", "--stdout", "--all", "-q", *options]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout


@pytest.mark.parametrize("options", [(), ("--delta-base-offset",), ("--window=0",), ("--depth=50", "--window=250")])
def test_the_commits_of_a_pack_are_those_that_git_sees(repository, options):
    listing = sample.git(repository, "rev-list", "--all", "--parents").splitlines()
    expected = {line.split()[0]: tuple(line.split()[1:]) for line in listing}
    assert read_pack(pack_from(repository, *options)).parents == expected


def test_ancestors_are_those_that_git_sees(repository):
    parents = read_pack(pack_from(repository)).parents
    main, old, side = (sample.git(repository, "rev-parse", n).strip() for n in ("main", "main~50", "feature/0"))
    assert is_ancestor(old, main, parents)
    assert not is_ancestor(main, old, parents)
    assert not is_ancestor(side, main, parents)
    assert not is_ancestor("0" * 40, main, parents)


header_lines = st.sampled_from(
    [
        b"parent " + b"1" * 40,
        b"parent " + b"AB" * 20,
        b" parent " + b"2" * 40,
        b"parent  " + b"3" * 39,
        b"author A <a@example.com> 1700000000 +0000",
        b"committer A <a@example.com> 1700000000 +0000",
        b"encoding parent " + b"4" * 40,
        b"gpgsig -----BEGIN PGP SIGNATURE-----",
        b" -----END PGP SIGNATURE-----",
        b"mergetag object " + b"5" * 40,
        b"",
        b"tree " + b"6" * 40,
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(header_lines, max_size=7))
def test_parents_are_those_that_git_sees_however_hostile_the_commit(repository, lines):
    """A line that begins with ``parent`` further down made an overwritten tip pass for an ancestor."""
    tree = sample.git(repository, "rev-parse", "main^{tree}").strip().encode()
    commit = b"tree " + tree + b"\n" + b"".join(line + b"\n" for line in lines) + b"\nmessage\n"
    name = sample.git(repository, "hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=commit).strip()
    seen = subprocess.run(
        ["git", "-C", str(repository), "log", "--no-walk", "--format=%P", name], capture_output=True, check=False
    )
    ours = commit_parents(commit)
    if seen.returncode == 0:
        assert list(ours) == seen.stdout.decode().split()


def test_a_forged_parent_shows_no_fast_forward(repository):
    old, new = "a" * 40, "b" * 40
    forged = b"tree %s\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\nparent %s\n\nx" % (b"1" * 40, old.encode())
    assert not is_ancestor(old, new, {new: commit_parents(forged)})
    honest = b"tree %s\nparent %s\nauthor A <a> 1 +0000\n\nx" % (b"1" * 40, old.encode())
    assert is_ancestor(old, new, {new: commit_parents(honest)})


def test_a_huge_commit_takes_no_memory_and_shows_no_fast_forward(repository):
    parent = sample.git(repository, "rev-parse", "main").strip()
    tree = sample.git(repository, "rev-parse", "main^{tree}").strip()
    people = "author A <a> 1 +0000\ncommitter A <a> 1 +0000\n"
    text = f"tree {tree}\nparent {parent}\n{people}\n{'x' * 30_000_000}".encode()
    huge = sample.git(repository, "hash-object", "-w", "-t", "commit", "--stdin", stdin=text).strip()
    command = ["git", "-C", str(repository), "pack-objects", "--stdout", "-q"]
    pack = subprocess.run(command, input=f"{huge}\n{parent}\n".encode(), capture_output=True, check=True).stdout
    tracemalloc.start()
    try:
        parents = read_pack(pack).parents
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert huge not in parents
    assert parent in parents


def test_many_early_deltas_of_a_large_commit_take_no_memory():
    """Each of them was inflated before any was looked at: a pack of some kilobytes took half a gigabyte."""
    base = b"tree " + b"0" * 40 + b"\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\n" + b"x" * 900_000
    name, size = bytes.fromhex(object_id(COMMIT, base)), len(base)
    copy = bytes([0xF0]) + size.to_bytes(3, "little")
    pack = b"PACK" + (2).to_bytes(4, "big") + (201).to_bytes(4, "big")
    for number in range(200):
        delta = _varint(size) + _varint(size + 10) + copy + bytes([10]) + b"%010d" % number
        pack += bytes([0x80 | (7 << 4) | (len(delta) & 15), len(delta) >> 4]) + name + zlib.compress(delta)
    pack += pack_of([(COMMIT, base)])[12:-20]
    pack += hashlib.sha1(pack).digest()
    tracemalloc.start()
    try:
        parents = read_pack(pack).parents
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()
    assert len(parents) == 201


def _varint(number):
    digits = []
    while number > 127:
        digits.append((number & 127) | 128)
        number >>= 7
    return bytes([*digits, number])


def test_pointers_of_git_lfs_are_counted(repository):
    assert read_pack(pack_from(repository)).lfs_pointers == 0
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
    blob = sample.git(repository, "hash-object", "-w", "--stdin", stdin=pointer).strip()
    command = ["git", "-C", str(repository), "pack-objects", "--stdout", "-q"]
    pack = subprocess.run(command, input=f"{blob}\n".encode(), capture_output=True, check=True).stdout
    assert read_pack(pack).lfs_pointers == 1


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, st.just(ID), max_size=40), names)
def test_the_confirming_tag_is_one_that_git_reads(repository, refs, url):
    source, replica = (make_endpoint(side, f"https://{url}", "", "", "") for side in ("source", "replica"))
    tag = confirmation(Settings(source, replica), refs, 1_800_000_000.5)
    pack = pack_of([(TREE, b""), (COMMIT, source_commit(f"https://{url}")), (TAG, tag)])
    command = ["git", "-C", str(repository), "unpack-objects", "-q", "--strict"]
    subprocess.run(command, input=pack, capture_output=True, check=True)
    raw = ["git", "-C", str(repository), "cat-file", "tag", object_id(TAG, tag)]
    assert subprocess.run(raw, capture_output=True, check=True).stdout == tag
    assert f"refs: {len(refs)}\n".encode() in tag


@given(st.binary(max_size=400))
def test_a_pack_of_rubbish_has_no_commits_and_no_surprise(data):
    with contextlib.suppress(RetryableError, IndexError, zlib.error):
        read_pack(b"PACK\0\0\0\2\0\0\0\5" + data)


@given(st.data())
def test_a_checksum_is_checked_however_the_pack_is_cut_into_parts(data):
    whole = EMPTY_PACK
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert b"".join(verify_checksum(parts)) == whole
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    with pytest.raises(RetryableError, match="the pack from the source is damaged"):
        list(verify_checksum([damaged]))
    with pytest.raises(RetryableError, match="the pack from the source is damaged"):
        list(verify_checksum([whole[:at]]))
