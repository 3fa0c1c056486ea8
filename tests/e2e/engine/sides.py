"""A source and a replica for the engine, without AWS and Azure DevOps around them."""

import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from localcloud import sample
from localcloud.aws.codecommit.git_service import GitService, OtherRefs, create_repository
from localcloud.azure.git import upload_pack
from localcloud.azure.git.upload_pack import PackShape
from localcloud.git_http import Answer, GitHttpServer, Serve
from tests.program import program

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
NAMESPACES = ("refs/heads/", "refs/tags/", "refs/notes/")


class Sides:
    """A source on Azure Repos' Git service, and a replica on CodeCommit's, both as they were recorded."""

    def __init__(self, folder: Path, other_refs: OtherRefs, shape: PackShape = PackShape.LATE_BASES) -> None:
        self.shape = shape
        self.shown: frozenset[str] | None = None
        """The refs that the source's plain URL shows (limited refs); None for all."""
        self.has_full_view = True
        self.source, self.replica = folder / "source.git", folder / "replica.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.source)], check=True)
        sample.git(self.source, "config", "core.fsync", "none")
        self.service = GitService(other_refs)
        self.empty_replica()
        self.source_url = GitHttpServer(self.serve_source).url
        self.replica_url = GitHttpServer(self.serve_replica).url
        self.pauses: list[float] = []

    def serve_source(self, request):
        if request.service != "git-upload-pack":
            return Serve(self.source)
        is_full = "/_full/" in request.repository
        if is_full and not self.has_full_view:
            return Answer(404, "TF401019: The Git repository with name or identifier _full does not exist.\n")
        return upload_pack.serve(self.source, request, self.shape, None if is_full else self.shown)

    def serve_replica(self, request):
        return self.service.answer(self.replica, request)

    def empty_replica(self) -> None:
        shutil.rmtree(self.replica, ignore_errors=True)
        create_repository(self.replica)

    def use(self, url: str) -> None:
        """Take another server for the replica."""
        for key, value in {"http.receivepack": "true", "receive.denyDeleteCurrent": "ignore"}.items():
            sample.git(self.replica, "config", key, value)
        self.replica_url = url

    def settings(self, **changes):
        environment = {
            "AZURE_REPO_URL": f"{self.source_url}/o/p/_git/r",
            "AZURE_GIT_USERNAME": "u",
            "AZURE_GIT_PASSWORD": "p",
            "AWS_REPO_URL": f"{self.replica_url}/r",
            "AWS_GIT_USERNAME": "u",
            "AWS_GIT_PASSWORD": "p",
            **changes,
        }
        return program.read_settings(environment)

    def mirror(self, **changes):
        with tempfile.TemporaryDirectory() as folder:
            return program.mirror(self.settings(**changes), folder, self.pauses.append)

    def refs(self):
        """Return what the replica mirrors, by the source's names."""
        return program.by_original_name(sample.refs(self.replica), NAMESPACES)

    def archive(self):
        """Return the archived tips by their old names."""
        tips = {}
        for name, value in sample.refs(self.replica, program.ARCHIVE_PREFIX).items():
            place = name.split("/", 5)[5]
            tips |= {f"refs/{place}": value} if "/" in place else kept_by(self.replica, value)
        return tips

    def assert_equal(self):
        assert self.refs() == sample.refs(self.source, *NAMESPACES)
        sample.git(self.replica, "fsck", "--full")


def kept_by(repository, entry):
    """Return the tips that a commit of the archive keeps, by the refs that they had."""
    commit = sample.git(repository, "cat-file", "commit", entry)
    assert sample.git(repository, "rev-parse", f"{entry}^{{tree}}").strip() == EMPTY_TREE
    parents = re.findall("^parent (.+)$", commit, re.MULTILINE)
    earlier = re.findall("^earlier (.+)$", commit, re.MULTILINE)
    tips = {ref: value for value, ref in re.findall("^([0-9a-f]{40}) (refs/.+)$", commit, re.MULTILINE)}
    assert set(parents) == {*earlier, *tips.values()}
    return {**tips, **(kept_by(repository, earlier[0]) if earlier else {})}


def answering(serve, answers):
    """Answer the first requests with what is given, and then serve."""
    pending = iter(answers)

    def host(request):
        return next(pending, None) or serve(request)

    return GitHttpServer(host).url


def grow(repository, megabytes, *, branch="main"):
    """Give a branch history that does not compress."""
    generator = random.Random(megabytes)
    tip = sample.refs(repository).get(f"refs/heads/{branch}")

    def stream():
        for number in range(megabytes):
            yield f"commit refs/heads/{branch}\n"
            yield f"committer A <a@example.com> {1_700_000_000 + number} +0000\ndata 4\ngrow\n"
            if not number and tip:
                yield f"from {tip}\n"
            yield f"M 100644 inline big/{number}\ndata {1_000_000}\n"
            yield generator.randbytes(1_000_000)
            yield "\n"

    data = b"".join(part if isinstance(part, bytes) else part.encode() for part in stream())
    sample.git(repository, "fast-import", "--quiet", stdin=data)
