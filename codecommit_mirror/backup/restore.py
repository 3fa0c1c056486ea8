"""Restore a repository: decide what would be created, and create it; no ref is ever moved or deleted."""

from __future__ import annotations

import fnmatch
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..engine_api import list_refs
from ..errors import MirrorError
from ..progress import say
from .origin import Origin
from .pushing import GROWING
from .repository import BareRepository
from .target import Target

_MAX_COMPLAINTS = 5


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do."""

    origin: Origin
    target: Target
    create: Mapping[str, str]
    """What the target lacks, by the names that the refs get there."""
    present: int = 0
    """How many refs the target has already."""
    conflicts: Mapping[str, str] = field(default_factory=dict)
    """The refs of which the target has another value, with that value: they stay as they are."""
    left_out: tuple[str, ...] = ()
    """The refs that the target keeps for itself, such as those of pull requests."""
    left_over: tuple[str, ...] = ()
    """Tips for which a restore that was stopped left a ref of its own."""
    of_others: tuple[str, ...] = ()
    """The same of restores of something else."""


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    created: int
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
        MirrorError: there is nothing to restore, or the target has other values for all of it.
    """
    refs = rename(choose(origin.refs, patterns), under)
    if not refs:
        raise MirrorError(f"{origin.description} has no refs; there is nothing to restore.")
    left_out = tuple(sorted(name for name in refs if name.startswith((*target.reserved, *GROWING))))
    existing = target.refs()
    able = {name: value for name, value in refs.items() if name not in left_out}
    create = {name: value for name, value in able.items() if name not in existing}
    conflicts = {name: existing[name] for name, value in able.items() if existing.get(name, value) != value}
    present = len(able) - len(create) - len(conflicts)
    if conflicts and not create and not present:
        raise MirrorError(
            f"{target.name} has other values for {list_refs(sorted(conflicts))}, and nothing is moved; restore with "
            "--under refs/heads/restored/, or into another repository."
        )
    left = {name: name.rpartition("-")[2] for name in sorted(existing) if name.startswith(GROWING)}
    ours = tuple(tip for tip in left.values() if tip in able.values())
    others = tuple(name for name, tip in left.items() if tip not in ours)
    return RestorePlan(origin, target, create, present, conflicts, left_out, ours, others)


def apply(todo: RestorePlan) -> Restored:
    """Create what the target lacks.

    Raises:
        MirrorError: something could not be read or created; it says what was.
    """
    began = time.monotonic()
    done = Restored(0, 0, 0, 0.0)
    if todo.create:
        repository = todo.target.restore(todo.origin, todo.create)
        done = Restored(len(todo.create), repository.bytes, repository.objects, time.monotonic() - began)
    if todo.left_over:
        todo.target.clear(todo.left_over)
    return done


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
    left_out: Sequence[str] = ()
    """What was passed over: newer snapshots that do not count, or what could not be read."""


def drill(origin: Origin, now: datetime) -> DrillResult:
    """Restore to a temporary folder, and check it with ``git fsck``.

    A snapshot's refs are those whose hash its manifest has; a replica's are what it lists.
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
        origin.description,
        len(origin.refs),
        repository.bytes,
        repository.objects,
        seconds,
        age,
        problem,
        origin.left_out,
    )
