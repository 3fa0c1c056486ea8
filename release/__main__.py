"""``make release VERSION=X.Y.Z``: version, changelog, commit, two builds that are equal, SBOM, checksums and tag.

Each step is done only if it is missing, so that running it again goes on.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from .changelog import released, section

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
_CHANGELOG, _VERSION = ROOT / "CHANGELOG.md", ROOT / "codecommit_mirror" / "engine" / "version.py"


def main(version: str) -> None:
    """Make a release.

    Args:
        version: ``X.Y.Z``.
    """
    if not re.fullmatch(r"[1-9][0-9]*\.[0-9]+\.[0-9]+", version):
        sys.exit(f"VERSION={version} is no version; write three numbers, the first of them not 0, like 1.0.0.")
    tag = f"v{version}"
    if changed := _run("git", "status", "--porcelain", "--untracked-files=no"):
        sys.exit(f"there are changes that are not committed; commit or undo them first:\n{changed}")
    # Git refuses a commit or a tag without a name and an address, when the files are changed already.
    _run("git", "var", "GIT_COMMITTER_IDENT")
    _prepare(version)
    commit = _run("git", "rev-parse", "HEAD")
    tagged = _run("git", "tag", "--list", tag)
    if tagged and _run("git", "rev-parse", f"{tag}^{{commit}}") != commit:
        sys.exit(f"{tag} is the tag of an earlier commit, which stays; choose the next version.")
    files = list(build_twice(ROOT, commit, DIST))
    _describe(files)
    if not tagged:
        notes = section(_CHANGELOG.read_text(encoding="utf-8"), version)
        _run("git", "tag", "--annotate", "--cleanup=verbatim", "--message", f"Version {version}\n\n{notes}\n", tag)
    print(f"{tag} is ready: {', '.join(file.name for file in files)} in {DIST}.")
    print(f"Nothing was published. To publish it: git push origin HEAD {tag}")


def _prepare(version: str) -> None:
    """Commit the version and its section of the changelog, unless that is done."""
    text = _VERSION.read_text(encoding="utf-8")
    _VERSION.write_text(re.sub(r'VERSION = ".*"', f'VERSION = "{version}"', text), encoding="utf-8")
    try:
        changelog = released(_CHANGELOG.read_text(encoding="utf-8"), version, f"{datetime.now(UTC):%Y-%m-%d}")
    except ValueError as error:
        _run("git", "checkout", "--quiet", "--", str(_VERSION))
        sys.exit(f"{error}.")
    _CHANGELOG.write_text(changelog, encoding="utf-8")
    if _run("git", "status", "--porcelain", "--untracked-files=no"):
        _run("git", "commit", "--quiet", "--message", f"Release {version}", "--", str(_VERSION), str(_CHANGELOG))


def build_twice(repository: Path, commit: str, output: Path) -> Iterator[Path]:
    """Build the sdist and the wheel of a commit in two clones, and yield them if they are equal byte for byte.

    Args:
        repository: the clone.
        commit: what is built.
        output: where the files go.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, second = (_build(repository, commit, Path(folder, name)) for name in ("first", "second"))
        if differs := sorted({name for name, _ in first.items() ^ second.items()}):
            sys.exit(f"two builds of {commit} differ: {', '.join(differs)}.")
    output.mkdir(exist_ok=True)
    for name, data in sorted(first.items()):
        (output / name).write_bytes(data)
        yield output / name


def _build(repository: Path, commit: str, folder: Path) -> dict[str, bytes]:
    _run("git", "clone", "--quiet", "--no-checkout", str(repository), str(folder))
    _run("git", "checkout", "--quiet", "--detach", commit, folder=folder)
    epoch = _run("git", "log", "-1", "--format=%ct", folder=folder)
    _run("env", f"SOURCE_DATE_EPOCH={epoch}", sys.executable, "-m", "hatchling", "build", "-d", "built", folder=folder)
    return {path.name: path.read_bytes() for path in (folder / "built").iterdir()}


def _describe(files: list[Path]) -> None:
    """Check what an index would check, and write what the release consists of, and the checksums."""
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    _run("make", "sbom")
    listed = (*files, DIST / "sbom.json")
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in listed]
    (DIST / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def _run(*command: str, folder: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1])
