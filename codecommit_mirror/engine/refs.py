"""Refs: their names on both sides, what a server advertises, and one ref's change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Iterator, NamedTuple, NewType, Union

NO_OBJECT = "0" * 40
OWN_PREFIX = "refs/tags/codecommit-mirror/"
"""Where the engine keeps its own refs: a namespace that CodeCommit accepts, reports as events and knows in IAM."""
ARCHIVE_PREFIX = f"{OWN_PREFIX}archive/"
"""Tips that a run deleted or overwrote."""
CARRIED_PREFIX = f"{OWN_PREFIX}refs/"
"""Refs outside branches and tags, where the replica does not accept them under their own names."""
CONFIRMED_TAG = f"{OWN_PREFIX}confirmed"
"""An annotated tag that records what the replica had after a run."""
SOURCE_TAG = f"{OWN_PREFIX}source"
"""A tag on a commit that names the source, so that its id says whose replica this is to who may only push."""

Pack = Union[bytes, Iterator[bytes]]
"""A whole pack, or one that is still arriving."""
Refs = Dict[str, str]
"""Object ids in hexadecimal, by ref name. Bytes that are not UTF-8 are kept as surrogate escapes."""
SourceRefs = NewType("SourceRefs", Refs)
"""Refs by the source's names."""
ReplicaRefs = NewType("ReplicaRefs", Refs)
"""Refs by the names that the replica has them under: see ``CARRIED_PREFIX``."""


class Command(NamedTuple):
    """One ref's change: ``old`` is what the replica must still have; None means that the ref does not exist."""

    ref: str
    old: str | None
    new: str | None


@dataclass
class Advertisement:
    """A server's refs and capabilities (gitprotocol-pack, "Reference Discovery").

    The replica's refs are updated while a run pushes, because later packs can build on what was pushed.
    """

    refs: Refs
    capabilities: tuple[str, ...] = ()
    peeled: Refs = field(default_factory=dict)
    """What annotated tags lead to, by the tags' names, as ``git-upload-pack`` says."""

    @property
    def head(self) -> str | None:
        """The branch that HEAD points at, if the server reports it."""
        prefix = "symref=HEAD:"
        return next((word[len(prefix) :] for word in self.capabilities if word.startswith(prefix)), None)
