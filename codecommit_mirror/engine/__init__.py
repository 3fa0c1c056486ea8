"""The mirror engine: make a replica repository equal to its source, ref by ref, without a clone.

A run reads the refs of both sides, plans the difference, asks the source for one pack with what the replica lacks, and
streams that pack to the replica. It makes a clone only if a server refuses every such pack. It needs Python 3.8 or
later and the standard library, and git 2.31 or later only for such a clone.
"""

MODULES = (
    "version",
    "failures",
    "text",
    "refs",
    "settings",
    "wire.retries",
    "wire.connection",
    "wire.idle",
    "wire.transport",
    "wire.role",
    "wire.protocol",
    "wire.packs",
    "plan",
    "archive",
    "confirmation",
    "git",
    "transfer",
    "report",
    "run",
)
"""In reading order: each imports from those before it only; ``wire.role`` travels where no password is stored."""
