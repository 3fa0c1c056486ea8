"""pkt-lines, advertisements, reports and packs: well-formed ones are read, and malformed ones refused."""

import contextlib
import subprocess
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud import sample
from pipeline_templates.mirror_sync import (
    EMPTY_PACK,
    PackRefused,
    Transient,
    checked,
    commit_parents,
    is_ancestor,
    packet_lines,
    parse_advertisement,
    parse_report,
)

ID = "a" * 40


def packet(payload: bytes) -> bytes:
    return b"%04x%s" % (len(payload) + 4, payload)


def advertisement(*lines: bytes, service: bytes = b"git-upload-pack") -> bytes:
    return packet(b"# service=" + service + b"\n") + b"0000" + b"".join(map(packet, lines)) + b"0000"


@given(st.lists(st.binary(min_size=1, max_size=200)))
def test_packets_are_read_as_they_were_written(payloads):
    assert list(packet_lines(b"".join(map(packet, payloads)) + b"0000")) == payloads


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


def pack_of(repository, *options):
    command = ["git", "-C", str(repository), "pack-objects", "--stdout", "--all", "-q", *options]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout


@pytest.mark.parametrize("options", [(), ("--delta-base-offset",), ("--window=0",), ("--depth=50", "--window=250")])
def test_the_commits_of_a_pack_are_those_that_git_sees(repository, options):
    listing = sample.git(repository, "rev-list", "--all", "--parents").splitlines()
    expected = {line.split()[0]: tuple(line.split()[1:]) for line in listing}
    assert commit_parents(pack_of(repository, *options)) == expected


def test_ancestors_are_those_that_git_sees(repository):
    parents = commit_parents(pack_of(repository))
    main, old, side = (sample.git(repository, "rev-parse", n).strip() for n in ("main", "main~50", "feature/0"))
    assert is_ancestor(old, main, parents)
    assert not is_ancestor(main, old, parents)
    assert not is_ancestor(side, main, parents)
    assert not is_ancestor("0" * 40, main, parents)


@given(st.binary(max_size=400))
def test_a_pack_of_rubbish_has_no_commits_and_no_surprise(data):
    with contextlib.suppress(Transient, IndexError, zlib.error):
        commit_parents(b"PACK\0\0\0\2\0\0\0\5" + data)


@given(st.data())
def test_a_checksum_is_checked_however_the_pack_is_cut_into_parts(data):
    whole = EMPTY_PACK
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert b"".join(checked(parts)) == whole
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    with pytest.raises(Transient, match="not whole"):
        list(checked([damaged]))
    with pytest.raises(Transient, match="not whole"):
        list(checked([whole[:at]]))
