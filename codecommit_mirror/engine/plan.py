"""Decide what to create, update and delete on the replica; pure functions.

``make_plan`` decides which refs are deleted, and ``mass_deletion`` whether a run may delete so many.
"""

from __future__ import annotations

import re
from typing import Collection, Iterable, Iterator, Mapping, Sequence, Tuple

from .refs import (
    ARCHIVE_PREFIX,
    CARRIED_PREFIX,
    CONFIRMED_TAG,
    OWN_PREFIX,
    SOURCE_TAG,
    Advertisement,
    Command,
    Refs,
    ReplicaRefs,
    SourceRefs,
)
from .text import list_refs

MAX_REFS_PER_PUSH = 2000
"""CodeCommit accepts 4,000: https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html"""
MAX_BRANCH_NAME = 256
"""Characters, without refs/heads/ (the same page)."""
MAX_HAVES = 2000
"""The most object ids that a request for a pack names as already present."""

Plan = Tuple[Tuple[Command, ...], ...]
"""The pushes to make, in order."""


def select(refs: Mapping[str, str], namespaces: Sequence[str]) -> SourceRefs:
    """Return the refs to mirror: those in the namespaces, without the engine's own."""
    prefixes = tuple(namespaces)
    return SourceRefs({name: value for name, value in refs.items() if name.startswith(prefixes) and not is_own(name)})


def is_own(ref: str) -> bool:
    """Whether a ref is the engine's own, or blocks the engine's own refs."""
    return f"{ref}/".startswith(OWN_PREFIX)


def original_name(ref: str) -> str:
    """Return the source's name of a ref that the replica may have below ``CARRIED_PREFIX``: no branch and no tag."""
    name = f"refs/{ref[len(CARRIED_PREFIX) :]}"
    return name if ref.startswith(CARRIED_PREFIX) and is_other(name) else ref


def carried_name(ref: str) -> str:
    """Return the name for a ref that the replica does not accept under its own name."""
    return CARRIED_PREFIX + ref[len("refs/") :]


def by_original_name(replica: ReplicaRefs, namespaces: Sequence[str]) -> SourceRefs:
    """Return the replica's mirrored refs by the source's names.

    Branches and tags have their own names: one that somebody put below ``CARRIED_PREFIX`` hides none of them. Of other
    refs the one there counts, since a replica that has refused the name may keep an earlier one under it.
    """
    carried = {original_name(name): value for name, value in replica.items() if name.startswith(CARRIED_PREFIX)}
    return SourceRefs({**select(replica, namespaces), **select(carried, namespaces)})


def is_stray(ref: str) -> bool:
    """Whether a ref that is not mirrored is among the engine's own, and no run makes such a one."""
    return ref.startswith(OWN_PREFIX) and ref not in (CONFIRMED_TAG, SOURCE_TAG) and not ref.startswith(ARCHIVE_PREFIX)


def is_other(ref: str) -> bool:
    """Whether a ref is neither a branch nor a tag, so that CodeCommit may refuse its name."""
    return not ref.startswith(("refs/heads/", "refs/tags/"))


def _kind(ref: str) -> str:
    return ref.split("/", 2)[1]


def replica_names(source: Iterable[str], replica: Iterable[str], refused: Iterable[str] = ()) -> dict[str, str]:
    """Decide the replica's name for each of the source's refs.

    A ref outside branches and tags is carried below ``CARRIED_PREFIX`` if the replica already carries it or another ref
    of its kind, so that a refused push is not repeated by every run. All other refs keep their names.

    ``refused`` has the names that the replica refused in this run.
    """
    existing, refused = set(replica), set(refused)
    carried_kinds = {_kind(original_name(name)) for name in existing if name.startswith(CARRIED_PREFIX)}
    kept_kinds = {_kind(name) for name in existing if is_other(name)}

    def is_carried(name: str) -> bool:
        if not is_other(name):
            return False
        if name in refused or carried_name(name) in existing:
            return True
        if name in existing:
            return False
        return _kind(name) in carried_kinds or (bool(carried_kinds) and _kind(name) not in kept_kinds)

    return {name: carried_name(name) if is_carried(name) else name for name in source}


def unmirrorable(source: Iterable[str], namespaces: Sequence[str]) -> dict[str, str]:
    """Return the source's refs that the replica cannot accept, each with the reason and the remedy."""
    reasons = {name: denial_reason(name) for name in source if name.startswith(tuple(namespaces))}
    return {name: why for name, why in reasons.items() if why}


def outside(replica: Iterable[str], namespaces: Sequence[str]) -> dict[str, str]:
    """Return the replica's refs that no run brought: outside of what is mirrored, and not the engine's own."""
    why = "is on the replica, but is not among the refs that are mirrored; delete it there, or add it to refs:"
    return {name: why for name in replica if not name.startswith(tuple(namespaces)) and not is_own(name)}


def plan_refs(
    source: Advertisement,
    replica: ReplicaRefs,
    namespaces: Sequence[str],
    refused_names: Iterable[str] = (),
    given_up: Iterable[str] = (),
) -> tuple[SourceRefs, Plan]:
    """Return the source's refs to mirror, and the pushes.

    ``refused_names`` and ``given_up`` are what ``replica_names`` and ``make_plan`` take.
    """
    wanted = select(source.refs, namespaces)
    present = by_original_name(replica, namespaces)
    names = replica_names(wanted, replica, refused_names)
    target = ReplicaRefs({names[name]: value for name, value in wanted.items()})
    there = {name: value for name, value in replica.items() if original_name(name) in present or is_stray(name)}
    return wanted, make_plan(target, ReplicaRefs(there), source.head, given_up)


def make_plan(
    target: ReplicaRefs, replica: ReplicaRefs, default_branch: str | None = None, given_up: Iterable[str] = ()
) -> Plan:
    """Decide how the replica becomes equal to the source.

    A deletion goes first if its name blocks a new ref (``a`` and ``a/b`` cannot both exist), else last, in a push of
    its own. On a replica without branches the default branch goes first and alone, because CodeCommit makes the first
    branch that it receives the default one. Refs outside branches and tags follow in pushes of their own, so that a
    server that refuses them refuses nothing else.

    Args:
        target: the source's refs to mirror, by the replica's names.
        replica: the replica's mirrored refs.
        default_branch: the source's, if known.
        given_up: refs that this run leaves alone.
    """
    ignored = set(given_up)
    changes = [
        Command(name, replica.get(name), value)
        for name, value in sorted(target.items())
        if replica.get(name) != value and name not in ignored
    ]
    deletions = [
        Command(name, value, None)
        for name, value in sorted(replica.items())
        if name not in target and (name not in ignored or is_stray(name)) and carried_name(name) not in target
    ]
    blocking = _blocking(deletions, changes)
    first = _first_branch(changes, replica, default_branch)
    groups = (
        [deletion for deletion in deletions if deletion in blocking],
        first,
        [change for change in changes if change not in first],
        [deletion for deletion in deletions if deletion not in blocking],
    )
    split = [
        [command for command in group if is_other(command.ref) == other] for other in (False, True) for group in groups
    ]
    return tuple(batch for group in split for batch in pushes_within_limit(group))


def _blocking(deletions: Sequence[Command], changes: Sequence[Command]) -> set[Command]:
    """Return the deletions whose names block a new ref."""
    created = {change.ref for change in changes if change.old is None}
    parents = {ref[:end] for ref in created for end in slash_positions(ref)}
    return {
        deletion
        for deletion in deletions
        if deletion.ref in parents or any(deletion.ref[:end] in created for end in slash_positions(deletion.ref))
    }


def _first_branch(changes: Sequence[Command], replica: Refs, default_branch: str | None) -> list[Command]:
    """Return the branch to push before all others; nothing if the replica has a branch already."""
    if any(name.startswith("refs/heads/") for name in replica):
        return []
    branches = [change for change in changes if change.ref.startswith("refs/heads/")]
    names = {branch.ref: branch for branch in branches}
    likely = [names[name] for name in (default_branch, "refs/heads/main", "refs/heads/master") if name in names]
    return [*likely, *branches][:1]


def slash_positions(ref: str) -> list[int]:
    """Return where a ref's name has slashes."""
    return [position for position, character in enumerate(ref) if character == "/"]


def denial_reason(name: str) -> str | None:
    """Return why CodeCommit does not accept a ref of this name, with the remedy; None if it does."""
    if is_own(name):
        return f"names below {OWN_PREFIX} are reserved for the engine's own refs; rename the tag at the source"
    kind, _, short = name[len("refs/") :].partition("/")
    noun = {"heads": "branch", "tags": "tag"}.get(kind)
    refused = ""
    if noun and re.fullmatch("[0-9a-fA-F]{40}", short):
        refused = f"a {noun} name of 40 hexadecimal digits"
    elif noun == "branch" and len(short) > MAX_BRANCH_NAME:
        refused = f"a branch name of more than {MAX_BRANCH_NAME} characters"
    elif noun == "branch" and short == "@":
        refused = "@ as a branch name"
    return f"CodeCommit does not accept {refused}; rename the {noun} at the source" if refused else None


def pushes_within_limit(commands: Sequence[Command], size: int = MAX_REFS_PER_PUSH) -> Iterator[tuple[Command, ...]]:
    """Yield the commands in batches of at most ``size``."""
    for start in range(0, len(commands), size):
        yield tuple(commands[start : start + size])


def halves(commands: Sequence[Command]) -> tuple[Sequence[Command], Sequence[Command]]:
    """Split the commands in two."""
    half = len(commands) // 2
    return commands[:half], commands[half:]


def mass_deletion(
    source: SourceRefs, replica: SourceRefs, hidden: Collection[str], allow_deletions: bool
) -> str | None:
    """Return why this source must not be mirrored without confirmation: it lost too many refs at once.

    Args:
        source: the source's refs to mirror.
        replica: the replica's mirrored refs, by the source's names.
        hidden: refs that the source has and does not show, so that they are not deleted.
        allow_deletions: whether a person confirmed the deletions.
    """
    if allow_deletions:
        return None
    confirm = "If that is intended, run once with 'codecommit-mirror pipeline run NAME --allow-deletions'"
    mirrorable = dict.fromkeys((name for name in source if not denial_reason(name)), "")
    for kinds, noun in (
        (("refs/heads/", "refs/tags/"), "branches and tags"),
        (("refs/heads/",), "branches"),
        (("refs/tags/",), "tags"),
    ):
        before = select(replica, kinds)
        lost = sorted(name for name in before if name not in source and name not in hidden)
        no_branch_left = "refs/heads/" in kinds and not select(mirrorable, kinds)
        if lost and (no_branch_left or (len(lost) > 10 and 2 * len(lost) > len(before))):
            left = "no" if no_branch_left else f"only {len(before) - len(lost):,} of the replica's {len(before):,}"
            return f"the source has {left} {noun}; this run would delete {list_refs(lost)}. {confirm}."
    return None


def useful_haves(
    commands: Sequence[Command], replica: ReplicaRefs, before: Refs, default_branch: str | None
) -> list[str]:
    """Return the object ids that a pack for these commands can build on, the most useful first.

    ``before`` has the refs other than branches that the replica had when the round began; tags that were pushed since
    then build on the same branches.
    """
    values = [command.old for command in commands if command.old]
    values += [replica[default_branch]] if default_branch and default_branch in replica else []
    values += [value for name, value in replica.items() if name.startswith("refs/heads/")]
    return list(dict.fromkeys([*values, *before.values()]))[:MAX_HAVES]
