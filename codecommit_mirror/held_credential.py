"""Which Git credential a pipeline holds, written beside its secret variables, since those cannot be read back.

It is the value of the plain variable ``AWS_GIT_CREDENTIAL``: an id of IAM, which is no secret. What is about to happen
to the credential stands there too, so that a run of this program that was killed can be finished by the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .credentials import Credential

VARIABLE = "AWS_GIT_CREDENTIAL"
USER_NAME, PASSWORD = "AWS_GIT_USERNAME", "AWS_GIT_PASSWORD"
_NONE = "none"
_ISSUING, _REPLACING = " (issuing; issued before: ", " (in place of "


@dataclass(frozen=True)
class HeldCredential:
    """What the variable says."""

    id: str | None = None
    issuing_beside: frozenset[str] | None = None
    """The ids that there were when a new one was about to be issued; None when nothing is under way."""
    replaces: str | None = None
    """The credential that this one took the place of, and that is to be deleted."""

    def text(self) -> str:
        """Return the variable's value."""
        if self.issuing_beside is not None:
            return f"{self.id or _NONE}{_ISSUING}{' '.join(sorted(self.issuing_beside)) or _NONE})"
        return f"{self.id or _NONE}{_REPLACING}{self.replaces})" if self.replaces else self.id or _NONE


def parse(text: str) -> HeldCredential:
    """Return what a value says; one that this program did not write says nothing."""
    words = text.strip().removesuffix(")")
    for mark in (_ISSUING, _REPLACING):
        before, found, after = words.partition(mark)
        if found:
            identifier = None if before == _NONE else before
            if mark == _REPLACING:
                return HeldCredential(identifier, replaces=after)
            return HeldCredential(identifier, frozenset(() if after == _NONE else after.split()))
    return HeldCredential(None if words in ("", _NONE) or not words.isalnum() else words)


def of_variables(variables: Mapping[str, Mapping[str, Any]]) -> HeldCredential:
    """Return what a pipeline's variables say."""
    return parse(str((variables.get(VARIABLE) or {}).get("value") or ""))


def has_secrets(variables: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether both secret variables of the replica are there, whatever their values."""
    return all(name in variables for name in (USER_NAME, PASSWORD))


def strays(existing: Collection[Credential], held: HeldCredential) -> list[Credential]:
    """Return the credentials that an interrupted run issued, whose passwords are lost with it."""
    if held.issuing_beside is None:
        return []
    return [credential for credential in existing if credential.id not in held.issuing_beside]
