"""Restore a repository: decide what would be created, and create it; no ref is ever overwritten or deleted."""

from __future__ import annotations

import fnmatch
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from .. import engine
from ..errors import MirrorError
from ..progress import say
from .origin import Origin
from .repository import BareRepository
from .target import Target

_MAX_COMPLAINTS = 5


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do."""

    origin: Origin
    target: Target
    wanted: Mapping[str, str]
    """The refs to restore, by their own names."""
    refs: Mapping[str, str]
    """The same, by the names that they get at the target."""
    create: Mapping[str, str]
    """Those of ``refs`` that the target lacks."""


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    created: int
    present: int
    bytes: int
    objects: int
    seconds: float


def choose(refs: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """Return the refs that match one of the patterns, as full names or without ``refs/heads/`` and the like.

    Raises:
        MirrorError: a pattern matches none.
    """
    if not patterns:
        return dict(refs)
    chosen: dict[str, str] = {}
    for pattern in patterns:
        matching = {
            name: value
            for name, value in refs.items()
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.split("/", 2)[-1], pattern)
        }
        if not matching:
            raise MirrorError(f"--refs {pattern!r} matches none of the {len(refs):,} refs; correct the pattern.")
        chosen |= matching
    return chosen


def rename(refs: Mapping[str, str], under: str | None) -> dict[str, str]:
    """Return the refs by the names that they get below ``under``: ``refs/heads/restored/`` takes branches.

    Tags go below ``refs/tags/restored/``, and so on, because a branch is always a commit.

    Raises:
        MirrorError: it is not a prefix below ``refs/heads/``.
    """
    if under is None:
        return dict(refs)
    prefix = under.removeprefix("refs/heads/").strip("/")
    if not under.startswith("refs/heads/") or not prefix:
        raise MirrorError(f"--under {under!r} is not a prefix of branches; write one like refs/heads/restored/.")
    renamed = {}
    for name, value in refs.items():
        _, kind, short = name.split("/", 2)
        renamed[f"refs/{kind}/{prefix}/{short}"] = value
    return renamed


def plan(origin: Origin, target: Target, *, patterns: Sequence[str] = (), under: str | None = None) -> RestorePlan:
    """Decide what a restore would create.

    Raises:
        MirrorError: there is nothing to restore, or the target has something else.
    """
    wanted = choose(origin.refs, patterns)
    if not wanted:
        raise MirrorError(f"{origin.description} has no refs; there is nothing to restore.")
    refs = rename(wanted, under)
    existing = target.refs()
    different = sorted(name for name, value in refs.items() if existing.get(name, value) != value)
    if different:
        raise MirrorError(
            f"{target.name} has other values for {engine.list_refs(different)}, and nothing is overwritten; restore "
            "with --under refs/heads/restored/, or into an empty repository."
        )
    if under is None and (strange := sorted(name for name in existing if name not in refs)):
        raise MirrorError(
            f"{target.name} is not empty: it has {engine.list_refs(strange)}; restore with --under "
            "refs/heads/restored/, or into an empty repository."
        )
    create = {name: value for name, value in refs.items() if name not in existing}
    return RestorePlan(origin, target, wanted, refs, create)


def apply(todo: RestorePlan) -> Restored:
    """Create what the target lacks.

    Raises:
        MirrorError: something could not be read or created; it says what was.
    """
    began = time.monotonic()
    present = len(todo.refs) - len(todo.create)
    if not todo.create:
        return Restored(0, present, 0, 0, 0.0)
    repository = todo.target.restore(todo.origin, todo.refs, todo.wanted)
    seconds = time.monotonic() - began
    return Restored(len(todo.create), present, repository.bytes, repository.objects, seconds)


@dataclass(frozen=True)
class DrillResult:
    """What a drill found."""

    description: str
    refs: int
    bytes: int
    objects: int
    seconds: float
    age_seconds: float
    """How old the restored state is."""
    problem: str | None
    """Why the drill failed; None if everything is restored, and sound."""


def drill(origin: Origin, now: datetime) -> DrillResult:
    """Restore to a temporary folder, and check it with ``git fsck``.

    A snapshot's refs are compared with those in the headers of its bundles; a replica's with what it lists.
    """
    began, problem = time.monotonic(), None
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        repository = BareRepository(Path(folder, "repository.git"))
        try:
            origin.fetch(repository, origin.refs)
            repository.set_refs(origin.refs, origin.head)
            say("checking every object with git fsck")
            problem, complaints = repository.fsck()
            for complaint in complaints[:_MAX_COMPLAINTS]:
                say(f"note: git fsck complains about the form of what was pushed: {complaint}")
        except MirrorError as error:
            problem = str(error)
    age = (now - (origin.time or now)).total_seconds()
    seconds = time.monotonic() - began
    return DrillResult(
        origin.description, len(origin.refs), repository.bytes, repository.objects, seconds, age, problem
    )
