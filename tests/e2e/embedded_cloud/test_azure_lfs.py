"""Git LFS at the embedded Azure: the batch API by itself, and with the real git-lfs at both ends."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

from localcloud.isolated_git import isolated_environment

MEDIA_TYPE = "application/vnd.git-lfs+json"


class Server:
    """The LFS endpoint of one new repository, asked with one token."""

    def __init__(self, cloud, name, token):
        self.cloud, self.token = cloud, token
        self.path = cloud.create_azure_repository("contoso", "Large", name)
        self.url = f"{cloud.azure_url}/contoso/Large/_git/{name}/info/lfs"

    def ask(self, url, body=None, method=None, token=None):
        """Return status and body; refusals too."""
        request = urllib.request.Request(url, body, method=method)
        request.add_header("Content-Type", MEDIA_TYPE)
        encoded = base64.b64encode(f"somebody:{token or self.token}".encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def batch(self, operation, *objects, token=None, **more):
        body = {"operation": operation, "objects": [{"oid": oid, "size": size} for oid, size in objects], **more}
        status, answer = self.ask(f"{self.url}/objects/batch", json.dumps(body).encode(), token=token)
        return status, json.loads(answer)

    def upload(self, data):
        oid = hashlib.sha256(data).hexdigest()
        _, answer = self.batch("upload", (oid, len(data)))
        assert self.ask(answer["objects"][0]["actions"]["upload"]["href"], data, "PUT")[0] == 200
        return oid


@pytest.fixture
def server(cloud, request):
    return Server(cloud, f"lfs-{abs(hash(request.node.name))}", cloud.manager_token)


def test_what_is_put_is_got(server):
    data = os.urandom(3 << 20)
    oid = server.upload(data)
    _, answer = server.batch("download", (oid, len(data)))
    (one,) = answer["objects"]
    assert server.ask(one["actions"]["download"]["href"]) == (200, data)
    assert "actions" not in server.batch("upload", (oid, len(data)))[1]["objects"][0]


def test_an_object_that_is_not_there_is_an_error_of_its_own(server):
    oid, missing = server.upload(b"here"), "0" * 64
    status, answer = server.batch("download", (oid, 4), (missing, 4))
    assert status == 200
    assert "actions" in answer["objects"][0]
    assert answer["objects"][1]["error"]["code"] == 404
    assert server.ask(f"{server.url}/objects/{missing}")[0] == 404


def test_content_that_is_not_its_ids_is_refused(server):
    oid = hashlib.sha256(b"one").hexdigest()
    assert server.ask(f"{server.url}/objects/{oid}", b"two", "PUT")[0] == 422
    assert server.batch("download", (oid, 3))[1]["objects"][0]["error"]["code"] == 404
    assert [path for path in (server.path / "lfs").rglob("*") if path.is_file()] == []


def test_who_may_only_read_code_uploads_nothing(server):
    oid, reader = server.upload(b"x"), server.cloud.personal_access_token
    assert server.batch("download", (oid, 1), token=reader)[0] == 200
    assert server.batch("upload", ("1" * 64, 1), token=reader)[0] == 401
    assert server.ask(f"{server.url}/objects/{oid}", b"x", "PUT", token=reader)[0] == 401
    assert server.batch("download", (oid, 1), token="wrong")[0] == 401


def test_another_repositorys_objects_are_not_there(server):
    oid = server.upload(b"secret")
    other = Server(server.cloud, "lfs-other", server.token)
    assert other.batch("download", (oid, 6))[1]["objects"][0]["error"]["code"] == 404
    assert other.ask(f"{other.url}/objects/{oid}")[0] == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"[]", 422),
        (b'{"operation": "delete", "objects": []}', 422),
        (b'{"operation": "upload", "objects": [{"oid": "../../config", "size": 1}]}', 422),
        (b'{"operation": "upload", "objects": [{"oid": "%s", "size": -1}]}' % (b"0" * 64), 422),
        (b'{"operation": "upload", "objects": [], "transfers": ["tus"]}', 422),
        (b'{"operation": "upload", "objects": [], "hash_algo": "sha1"}', 409),
    ],
)
def test_a_request_that_is_none_is_refused(server, body, status):
    assert server.ask(f"{server.url}/objects/batch", body)[0] == status


def test_locks_are_not_there(server):
    assert server.ask(f"{server.url}/locks/verify", b"{}")[0] == 501


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="needs git-lfs ('make tools' installs Debian's, as root)")
def test_real_git_lfs_pushes_and_clones(server, tmp_path):
    """By the URL without .git, and by the one with it, as Azure DevOps Server 2019 is asked."""
    helper = '!f() { test "$1" = get && echo username=somebody && echo password=$TOKEN; }; f'
    settings = {
        "credential.helper": helper,
        "user.name": "Ada",
        "user.email": "a@b.c",
        "filter.lfs.process": "git-lfs filter-process",
        "filter.lfs.required": "true",
    }
    environment = {
        **isolated_environment(),
        "HOME": str(tmp_path),
        "TOKEN": server.token,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(settings)},
        **{f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(settings.values())},
    }

    def git(folder, *arguments):
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    url, data = server.url.removesuffix("/info/lfs"), os.urandom(2 << 20)
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "main", str(work))
    (work / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (work / "large.bin").write_bytes(data)
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "Large")
    git(work, "remote", "add", "origin", url)
    git(work, "lfs", "push", "origin", "main")
    git(work, "push", "-q", "origin", "main")
    assert len([path for path in (server.path / "lfs").rglob("*") if path.is_file()]) == 1
    for name, endpoint in (("plain", server.url), ("server-2019", f"{url}.git/info/lfs")):
        git(tmp_path, "-c", f"lfs.url={endpoint}", "clone", "-q", url, str(tmp_path / name))
        assert (tmp_path / name / "large.bin").read_bytes() == data
