"""Source repositories made on the spot: history of any size, refs of every kind, changes as developers make them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .isolated_git import isolated_environment

_PERSON = "Ada Example <ada@example.com>"
_TIME = 1_700_000_000
HOSTILE_BRANCHES = (
    "hostile/$(touch${IFS}x)",
    "hostile/`touch${IFS}x`",
    "hostile/a;b",
    "hostile/\"quoted\"'names'",
    "hostile/##vso(task.complete_result=Failed;)",
    "hostile/--force",
    "hostile/%n%s",
    "hostile/ünïcödé-分支-🌿",
    "hostile/" + "long" * 48,
    "hostile/" + "分" * 80,
    "main\u2028x",
    "main\u0085y",
)
"""Names that git allows and that shells, templates and log parsers trip on."""


def fill(
    repository: Path,
    *,
    commits: int = 200,
    branches: int = 8,
    tags: int = 6,
    pull_requests: int = 20,
    extra_branches: Iterable[str] = (),
) -> None:
    """Give an empty bare repository a history: ``main``, branches, tags of both kinds, a note, pull-request refs.

    The same arguments give the same object ids.
    """
    stream = _history(commits, branches, tags, pull_requests, tuple(extra_branches))
    git(repository, "fast-import", "--quiet", stdin=b"".join(stream))


def _history(commits: int, branches: int, tags: int, pull_requests: int, extra: Sequence[str]) -> Iterator[bytes]:
    for number in range(1, commits + 1):
        parent = number - 1 or None
        yield _commit("refs/heads/main", number, parent, f"docs/page{number % 20}.md", f"Commit {number}\n" * 20)
    mark = commits
    for name in (*(f"feature/{n}" for n in range(branches)), *extra):
        mark += 1
        yield _commit(f"refs/heads/{name}", mark, max(1, commits - 3), "branch.txt", f"{name}\n")
    for number in range(tags):
        target = commits - number * 3 % commits
        if number % 2:
            yield f"reset refs/tags/light-{number}\nfrom :{target}\n\n".encode()
        else:
            text = _data(f"Release {number}")
            yield f"tag v{number}.0\nfrom :{target}\ntagger {_PERSON} {_TIME} +0000\n{text}".encode()
    for number in range(1, pull_requests + 1):
        mark += 1
        yield _commit(f"refs/pull/{number}/merge", mark, max(1, commits - 1), "pull.txt", f"Pull request {number}\n")
    yield f"commit refs/notes/commits\ncommitter {_PERSON} {_TIME} +0000\n{_data('Notes')}".encode()
    yield f"N inline :{commits}\n{_data('Reviewed')}\n".encode()


def _commit(ref: str, mark: int, parent: int | None, path: str, content: str) -> bytes:
    header = f"commit {ref}\nmark :{mark}\ncommitter {_PERSON} {_TIME + mark * 60} +0000\n{_data(f'Commit {mark}')}"
    origin = f"from :{parent}\n" if parent else ""
    return f"{header}{origin}M 100644 inline {path}\n{_data(content)}\n".encode()


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"


def commit(repository: Path, branch: str, message: str, *, parent: str | None = None) -> str:
    """Put a commit on a branch of a bare repository, on its tip or on ``parent``, and return its id."""
    ref = f"refs/heads/{branch}"
    base = git(repository, "rev-parse", parent or ref).strip()
    blob = git(repository, "hash-object", "-w", "--stdin", stdin=f"{message}\n".encode()).strip()
    listing = git(repository, "ls-tree", base).encode("utf-8", "surrogateescape")
    others = [line for line in listing.splitlines() if not line.endswith(b"\tCHANGES")]
    entries = b"\n".join([*others, f"100644 blob {blob}\tCHANGES".encode()]) + b"\n"
    tree = git(repository, "mktree", stdin=entries).strip()
    new = git(repository, "commit-tree", tree, "-p", base, "-m", message).strip()
    git(repository, "update-ref", ref, new)
    return new


def refs(repository: Path, *namespaces: str) -> dict[str, str]:
    """Return the refs of a bare repository, or those of some namespaces like ``refs/heads/``."""
    listing = git(repository, "for-each-ref", "--format=%(objectname) %(refname)", *namespaces)
    return {name: value for value, _, name in (line.partition(" ") for line in listing.split("\n") if line)}


def git(repository: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """Run git in a bare repository, away from the user's own settings, and return its output."""
    name, email = _PERSON.rstrip(">").split(" <")
    environment = {
        **isolated_environment(),
        **{
            f"GIT_{who}_{what}": text
            for who in ("AUTHOR", "COMMITTER")
            for what, text in (("NAME", name), ("EMAIL", email))
        },
    }
    command = ["git", "-C", str(repository), *arguments]
    run = subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)
    if run.returncode:
        raise RuntimeError(f"git {arguments[0]}: {run.stderr.decode(errors='replace')}")
    return run.stdout.decode("utf-8", "surrogateescape")
