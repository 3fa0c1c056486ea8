"""Azure Repos' Git service answers byte for byte as it was recorded."""

import base64
import http.client

import pytest

from codecommit_mirror.engine.wire.packs import read_pack
from codecommit_mirror.engine.wire.protocol import split_pkt_lines
from localcloud import sample
from localcloud.azure.git.upload_pack import PackShape, serve
from localcloud.git_http import GitHttpServer

WORDS = (
    b"multi_ack thin-pack side-band side-band-64k no-progress multi_ack_detailed no-done shallow "
    b"allow-tip-sha1-in-want filter"
)


@pytest.fixture
def source(tmp_path):
    """A repository on the service, with a function that asks it."""
    repository = tmp_path / "source.git"
    sample.git(tmp_path, "init", "-q", "--bare", "-b", "main", str(repository))
    sample.fill(repository)
    server = GitHttpServer(lambda request: serve(repository, request, PackShape.LATE_BASES))

    def ask(*lines, path="/git-upload-pack"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        body = b"".join(b"0000" if line is None else b"%04x%s" % (len(line) + 4, line) for line in lines)
        headers = {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}
        connection.request("POST" if lines else "GET", f"/source{path}", body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    ask.repository = repository
    return ask


def want(source, words, name="refs/heads/main"):
    tip = sample.refs(source.repository)[name].encode()
    return b"want " + tip + (b" " + words if words else b"") + b"\n"


def test_the_list_of_refs(source):
    _, body = source(path="/info/refs?service=git-upload-pack")
    first = next(line for line in split_pkt_lines(body) if b"HEAD" in line)
    tip = sample.refs(source.repository)["refs/heads/main"].encode()
    assert first == tip + b" HEAD\0 " + WORDS + b" symref=HEAD:refs/heads/main\n"


@pytest.mark.parametrize(
    ("words", "status"), [(b"", 200), (b"side-band-64k", 400), (b"multi_ack side-band-64k agent=x ofs-delta", 200)]
)
def test_multi_ack_is_asked_of_a_list_of_capabilities(source, words, status):
    answered, body = source(want(source, words), None, b"done\n")
    assert answered == status
    assert (b"TF401041: The Git protocol sent is not as expected" in body) is (status == 400)


def test_an_object_that_no_ref_has(source):
    gone = b"want " + b"1" * 40 + b" multi_ack side-band-64k\n"
    _, body = source(gone, None, b"done\n")
    assert list(split_pkt_lines(body)) == [b"\x03TF401035: The object '" + b"1" * 40 + b"' does not exist."]


@pytest.mark.parametrize(("spec", "served"), [(b"blob:none", True), (b"tree:0", True), (b"blob:limit=1k", False)])
def test_which_filters_there_are(source, spec, served):
    words = b"multi_ack side-band-64k filter"
    _, body = source(want(source, words), b"filter " + spec + b"\n", None, b"done\n")
    assert (b"PACK" in body) is served
    assert body[4:].startswith(b"ERR") is not served


def test_deltas_come_before_what_they_build_on(source):
    _, body = source(want(source, b"multi_ack side-band-64k"), None, b"done\n")
    pack = b"".join(line[1:] for line in split_pkt_lines(body) if line[:1] == b"\x01")
    assert (pack[12] >> 4) & 7 == 7
    commits = sample.git(source.repository, "rev-list", "main").split()
    assert set(read_pack(pack).parents) == set(commits)
