"""Restores with other gits than this machine's: newer ones, and with the defaults that are announced for Git 3.0.

``TEST_GITS`` may name more of them: folders with a ``git``, separated like ``PATH``.
"""

import hashlib
import os
import shutil
import subprocess
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codecommit_mirror.backup.origin import Origin
from codecommit_mirror.backup.restore import apply, drill, plan
from codecommit_mirror.backup.snapshots import readable
from codecommit_mirror.backup.target import Folder
from codecommit_mirror.engine.git import Git
from codecommit_mirror.engine.wire.packs import COMMIT, pack_of
from codecommit_mirror.guard.vault import bundle
from codecommit_mirror.guard.vault.manifest import dump
from codecommit_mirror.guard.vault.ref_list import RefList
from codecommit_mirror.guard_api import Manifest, format_time
from localcloud import sample
from localcloud.azure.git import upload_pack
from localcloud.azure.git.upload_pack import PackShape

from .conftest import documented_restore

LENGTH = 300
_DELTA = 7
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULTS_OF_GIT_3 = """#!/bin/sh
export GIT_DEFAULT_HASH=${{GIT_DEFAULT_HASH-sha256}} GIT_DEFAULT_REF_FORMAT=${{GIT_DEFAULT_REF_FORMAT-reftable}}
exec {} "$@"
"""
SYSTEM = str(Path(shutil.which("git") or "git").parent)
GITS = [SYSTEM, *filter(None, os.environ.get("TEST_GITS", "").split(os.pathsep))]


@pytest.fixture(params=[(folder, old) for folder in GITS for old in (True, False)], ids=lambda p: f"{p[0]}-{p[1]}")
def git_in_path(request, tmp_path_factory, monkeypatch):
    """Make one git the first in the PATH, with its own defaults or with those of Git 3.0."""
    folder, own_defaults = request.param
    if not own_defaults:
        wrapper = tmp_path_factory.mktemp("git-3") / "git"
        wrapper.write_text(DEFAULTS_OF_GIT_3.format(f"{folder}/git"))
        wrapper.chmod(0o755)
        folder = str(wrapper.parent)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A full snapshot with an object that comes twice, and increments whose deltas come before their bases."""
    folder = tmp_path_factory.mktemp("chain")
    repository = folder / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(repository)], check=True)
    sample.git(repository, "fast-import", "--quiet", stdin="".join(_history()).encode())
    snapshots = _Chain(folder)
    for number in range(LENGTH):
        snapshots.add(repository, number)
    return snapshots


def _history():
    lines = [f"line {number}: {'x' * (number % 60)}" for number in range(200)]
    for number in range(2 * LENGTH):
        lines[number % 200] = f"line {number} as it was changed by commit {number}"
        text = "\n".join(lines)
        yield f"commit refs/heads/main\ncommitter A <a@b> {1_700_000_000 + number} +0000\ndata 1\nx\n"
        yield f"M 100644 inline file\ndata {len(text)}\n{text}\n"
        yield f"reset refs/tags/step/{number}\nfrom refs/heads/main\n\n" if number % 2 else ""


class _Chain:
    """Bundles as the guard writes them, in a folder."""

    unsigned = ()

    def __init__(self, folder):
        self.folder, self.manifests, self.late = folder, [], 0

    def add(self, repository, number):
        tip = sample.git(repository, "rev-parse", f"step/{2 * number + 1}").strip()
        before = self.manifests[-1].changed["refs/heads/main"] if number else None
        pack = self._pack(repository, tip, before)
        self.late += (pack[12] >> 4) & 7 == _DELTA
        pack = pack if number else _with_twice(pack, repository, tip)
        # One goes, and one below its name comes; another one is longer than a file's name may be.
        refs = {"refs/heads/main": tip, f"refs/tags/only{'/it' * (number % 2)}": tip, f"refs/heads/{'é' * 150}": tip}
        data = b"".join(bundle.header([before] if before else [], RefList.of(refs), tip)) + pack
        time = format_time(BEGAN + timedelta(hours=number))
        name = f"{time}-{number:08x}"
        (self.folder / f"{name}.bundle").write_bytes(data)
        manifest = Manifest(
            **{field.name: None for field in fields(Manifest)}
            | {
                "replica": "R",
                "time": time,
                "refs_sha256": RefList.of(refs).sha256,
                "changed": refs,
                "list_key": None if number else f"snapshots/R/{name}.refs.gz",
                "deleted": (f"refs/tags/only{'/it' * (1 - number % 2)}",) if number else (),
                "bundle": f"snapshots/R/{name}.bundle",
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "prerequisites": (before,) if before else (),
            }
        )
        (self.folder / f"{name}.json").write_bytes(dump(manifest))
        if not number:
            (self.folder / f"{name}.refs.gz").write_bytes(b"".join(RefList.of(refs).deflate()))
        self.manifests.append(manifest)

    @staticmethod
    def _pack(repository, want, have):
        lines = [f"want {want} multi_ack_detailed side-band-64k no-progress\n".encode(), None]
        lines += [f"have {have}\n".encode()] if have else []
        request = b"".join(b"0000" if line is None else upload_pack.packet(line) for line in [*lines, b"done\n"])
        answer = upload_pack.answer(repository, request, PackShape.LATE_BASES)
        return b"".join(line[1:] for line in upload_pack.payloads(answer.body) if line and line[:1] == b"\x01")

    def read_bundle(self, manifest):
        yield (self.folder / Path(manifest.bundle).name).read_bytes()

    def origin(self):
        last = self.manifests[-1]
        return Origin(
            f"the snapshot of {readable(last.time)}", None, last.changed, None, tuple(self.manifests), snapshots=self
        )


def _with_twice(pack, repository, commit):
    data = subprocess.run(["git", "-C", str(repository), "cat-file", "commit", commit], capture_output=True, check=True)
    count = int.from_bytes(pack[8:12], "big") + 1
    longer = pack[:8] + count.to_bytes(4, "big") + pack[12:-20] + pack_of([(COMMIT, data.stdout)])[12:-20]
    return longer + hashlib.sha1(longer).digest()


def test_a_long_chain_with_late_bases_is_restored_and_drilled(git_in_path, chain, tmp_path):
    assert chain.late > LENGTH / 2
    origin = chain.origin()
    assert apply(plan(origin, Folder(tmp_path / "restored.git"))).created == 3
    assert sample.refs(tmp_path / "restored.git") == origin.refs
    sample.git(tmp_path / "restored.git", "fsck", "--full")
    drilled = drill(origin, datetime.now(UTC))
    assert (drilled.problem, drilled.refs) == (None, 3)


def test_a_long_chain_with_late_bases_is_restored_by_the_documented_commands(git_in_path, chain, tmp_path):
    for path in chain.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    documented_restore(tmp_path, sorted(path.stem for path in chain.folder.glob("*.bundle")))
    assert sample.refs(tmp_path / "repository.git") == chain.manifests[-1].changed


def test_plain_git_in_the_engine_has_sha1_and_files(git_in_path, tmp_path):
    Git(str(tmp_path))
    config = (tmp_path / "config").read_text()
    assert "sha256" not in config
    assert "reftable" not in config
