"""pkt-lines and reference advertisements: well-formed ones are read, and malformed ones refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_templates.mirror_sync import packet_lines, parse_advertisement

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
def test_a_cut_advertisement_is_refused_or_shorter(data):
    whole = advertisement(ID.encode() + b" HEAD\0symref=HEAD:refs/heads/main", ID.encode() + b" refs/heads/main")
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with contextlib.suppress(ValueError):
        assert len(parse_advertisement(cut).refs) <= 1


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
