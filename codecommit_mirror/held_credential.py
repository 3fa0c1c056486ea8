"""Which Git credential a pipeline holds, written beside its secret variables, since those cannot be read back.

It is the value of the plain variable ``AWS_GIT_CREDENTIAL``: an id of IAM, which is no secret. What is about to happen
to the credential stands there too, so that a run of this program that was killed can be finished by the next one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from .credentials import Credential

VARIABLE = "AWS_GIT_CREDENTIAL"
USER_NAME, PASSWORD = "AWS_GIT_USERNAME", "AWS_GIT_PASSWORD"
_NONE = "none"
_ISSUING = re.compile(r"(\S+) \(issuing since (\S+Z); issued before: ([^)]*)\)")
_REPLACING = re.compile(r"(\S+) \(in place of (\S+)\)")
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_ISSUING_TAKES = timedelta(minutes=15)
"""Between the note and the credential that it announces, with two clocks that differ."""


@dataclass(frozen=True)
class Issuing:
    """A new credential is about to be issued."""

    since: datetime
    beside: frozenset[str]
    """The ids that there were before."""


@dataclass(frozen=True)
class HeldCredential:
    """What the variable says."""

    id: str | None = None
    issuing: Issuing | None = None
    replaces: str | None = None
    """The credential that this one took the place of, and that is to be deleted."""

    def text(self) -> str:
        """Return the variable's value."""
        held = self.id or _NONE
        if self.issuing:
            before = " ".join(sorted(self.issuing.beside)) or _NONE
            return f"{held} (issuing since {self.issuing.since.strftime(_TIME)}; issued before: {before})"
        return f"{held} (in place of {self.replaces})" if self.replaces else held


def parse(text: str) -> HeldCredential:
    """Return what a value says; one that this program did not write says nothing."""
    text = text.strip()
    if match := _ISSUING.fullmatch(text):
        try:
            since = datetime.strptime(match[2], _TIME).replace(tzinfo=UTC)
        except ValueError:
            return HeldCredential()
        beside = frozenset(() if match[3] == _NONE else match[3].split())
        return HeldCredential(_identifier(match[1]), Issuing(since, beside))
    if match := _REPLACING.fullmatch(text):
        return HeldCredential(_identifier(match[1]), replaces=match[2])
    return HeldCredential(_identifier(text))


def of_variables(variables: Mapping[str, Mapping[str, Any]]) -> HeldCredential:
    """Return what a pipeline's variables say."""
    return parse(str((variables.get(VARIABLE) or {}).get("value") or ""))


def has_secrets(variables: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether both secret variables of the replica are there, whatever their values."""
    return all(name in variables for name in (USER_NAME, PASSWORD))


def strays(existing: Collection[Credential], held: HeldCredential) -> list[Credential]:
    """Return the credentials that an interrupted run issued, whose passwords are lost with it."""
    if held.issuing is None:
        return []
    return [
        credential
        for credential in existing
        if credential.id not in held.issuing.beside and abs(credential.created - held.issuing.since) < _ISSUING_TAKES
    ]


def _identifier(word: str) -> str | None:
    return word if word.isalnum() and word != _NONE else None
