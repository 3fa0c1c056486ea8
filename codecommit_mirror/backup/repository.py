"""A bare repository that a restore fills: packs go in by ``git index-pack``, and then all refs at once."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .. import engine_api
from ..errors import MirrorError
from ..progress import say

_OBJECT_ERRORS = 1
"""The bit of ``git fsck``'s exit status that stands for errors in objects, and for nothing that is missing."""
_ABOUT_FORM = re.compile(r"(error|warning) in (commit|tag|tree|blob) [0-9a-f]{40,64}: ")
_IS_ERROR = re.compile("error|fatal|missing|broken|hash")


class Findings(NamedTuple):
    """What a check of a repository shows."""

    problem: str | None
    """What is missing or damaged; None if nothing is."""
    complaints: tuple[str, ...]
    """About the form of objects, such as an author without an e-mail address: they were pushed so, and are kept so."""


class BareRepository:
    """A new bare repository.

    Args:
        path: an empty folder, or one that does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = self.objects = 0
        self._counting = threading.Lock()
        self._reported = time.monotonic()
        self._git("init", "--quiet", "--bare", "--template=", str(path), at=None)

    def add_pack(self, pack: Iterable[bytes], description: str) -> None:
        """Add a pack's objects, beside others; the bases of a thin pack must be here.

        An object may come twice, and a base after what builds on it: git reads both.

        Args:
            pack: its bytes.
            description: what the pack is, for people.

        Raises:
            MirrorError: the pack is damaged.
        """
        indexer = subprocess.Popen(
            ["git", "-C", str(self.path), "index-pack", "--stdin", "--fix-thin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=engine_api.git_environment(os.environ, None),
        )
        assert indexer.stdin and indexer.stderr  # noqa: S101, PT018
        start = b""
        try:
            for part in pack:
                start = (start + part)[:12] if len(start) < 12 else start
                indexer.stdin.write(part)
                self._count(len(part))
            self._count(objects=engine_api.object_count(start))
            indexer.stdin.close()
        except BrokenPipeError:
            pass  # It says why, below.
        except BaseException:
            indexer.kill()
            raise
        finally:
            words = indexer.stderr.read().decode(errors="replace")
            indexer.stderr.close()
            indexer.wait()
        if indexer.returncode:
            raise MirrorError(
                f"git cannot read {description} ({' '.join(words.split())[:300]}); restore another snapshot."
            )

    def _count(self, size: int = 0, objects: int = 0) -> None:
        with self._counting:
            self.bytes, self.objects = self.bytes + size, self.objects + objects
            if time.monotonic() - self._reported >= 1:
                self._reported = time.monotonic()
                say(f"{engine_api.format_bytes(self.bytes)} and {self.objects:,} objects received")

    def set_refs(self, refs: Mapping[str, str], head: str | None) -> None:
        """Create all refs, packed: their names may be too long, or too much alike, for files of their own.

        gitrepository-layout, "packed-refs".
        """
        lines = [f"{value} {name}\n".encode("utf-8", "surrogateescape") for name, value in refs.items()]
        lines.sort(key=lambda line: line.split(b" ", 1)[1])
        (self.path / "packed-refs").write_bytes(b"# pack-refs with: sorted \n" + b"".join(lines))
        branches = [name for name in refs if name.startswith("refs/heads/")]
        chosen = head if head in refs else next(iter(sorted(branches)), None)
        if chosen:
            (self.path / "HEAD").write_bytes(f"ref: {chosen}\n".encode("utf-8", "surrogateescape"))

    def check_connected(self, refs: Mapping[str, str]) -> None:
        """Check that everything the refs reach is here.

        Raises:
            MirrorError: something is missing.
        """
        tips = "".join(f"{value}\n" for value in set(refs.values())).encode()
        done = self._git("rev-list", "--objects", "--quiet", "--stdin", text=tips, check=False)
        if done.returncode:
            words = " ".join(done.stderr.decode(errors="replace").split())[:300]
            raise MirrorError(f"the restored repository is not complete ({words}); restore another snapshot with --at.")

    def fsck(self) -> Findings:
        """Return what ``git fsck --full`` finds: what is missing or damaged, and complaints about form."""
        done = self._git("fsck", "--full", "--no-dangling", "--no-progress", check=False)
        lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        complaints = tuple(line for line in lines if _ABOUT_FORM.match(line))
        others = [line for line in lines if line not in complaints]
        wrong = done.returncode & ~_OBJECT_ERRORS or (done.returncode and any(map(_IS_ERROR.match, others)))
        return Findings(" ".join(" ".join(others).split())[:600] if wrong else None, complaints)

    def _git(
        self, *arguments: str, text: bytes = b"", check: bool = True, at: bool | None = True
    ) -> subprocess.CompletedProcess[bytes]:
        where = ["-C", str(self.path)] if at else []
        try:
            done = subprocess.run(
                ["git", *where, *arguments],
                input=text,
                env=engine_api.git_environment(os.environ, None),
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            raise MirrorError("git is not installed on this machine; install git 2.31 or later.") from None
        if check and done.returncode:
            raise MirrorError(f"git {arguments[0]} failed: {' '.join(done.stderr.decode(errors='replace').split())}")
        return done


def hashed(parts: Iterable[bytes], size: int, sha256: str, description: str) -> Iterator[bytes]:
    """Pass bytes on; at the end, raise MirrorError if they are not those of the manifest."""
    digest, total = hashlib.sha256(), 0
    for data in parts:
        digest.update(data)
        total += len(data)
        yield data
    if (total, digest.hexdigest()) != (size, sha256):
        raise MirrorError(
            f"{description} is not what its manifest says: its SHA-256 differs; restore another snapshot."
        )
