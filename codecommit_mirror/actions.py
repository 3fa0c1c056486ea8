"""What a command is going to change: data that is shown and compared, and never executed from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verb = Literal["create", "update", "replace", "delete", "run"]
SYMBOLS: dict[Verb, str] = {"create": "+", "update": "~", "replace": "-/+", "delete": "-", "run": ">"}
KNOWN_AFTER_APPLY = "(known after apply)"
"""Stands for what only AWS or Azure DevOps can give a value."""


@dataclass(frozen=True)
class Action:
    """One change of one thing; it contains no secret and no time."""

    verb: Verb
    subject: str
    """The thing, like ``variable AWS_REPO_URL``."""
    before: str | None = None
    after: str | None = None
    is_destructive: bool = False
    """Whether something is lost for good; this is shown, and prevents nothing."""

    @property
    def is_known(self) -> bool:
        """Whether the new value is known before it is applied."""
        return KNOWN_AFTER_APPLY not in (self.after or "")

    def __str__(self) -> str:
        values = f": {self.before} -> {self.after}" if self.before and self.after else f": {self.after or self.before}"
        return f"{SYMBOLS[self.verb]} {self.subject}{values if self.before or self.after else ''}"

    def as_object(self, mirror: str) -> dict[str, object]:
        """Return what JSON says of it."""
        return {
            "mirror": mirror,
            "action": self.verb,
            "subject": self.subject,
            "from": self.before,
            "to": self.after,
            "destructive": self.is_destructive,
            "known_after_apply": not self.is_known,
        }
