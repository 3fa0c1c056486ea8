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

from ..aws.git_credentials import Credential

VARIABLE = "AWS_GIT_CREDENTIAL"
USER_NAME, PASSWORD = "AWS_GIT_USERNAME", "AWS_GIT_PASSWORD"
_NONE = "none"
_FORM = re.compile(
    r"(?P<id>\S+)(?: in (?P<account>[0-9]{12}))?"
    r"(?: \(issuing since (?P<since>\S+Z); issued before: (?P<beside>[^)]*)\)| \(in place of (?P<old>\S+)\))?"
)
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
    account: str | None = None
    """The AWS account that issued it."""

    def text(self) -> str:
        """Return the variable's value."""
        held = (self.id or _NONE) + (f" in {self.account}" if self.account else "")
        if self.issuing:
            before = " ".join(sorted(self.issuing.beside)) or _NONE
            return f"{held} (issuing since {self.issuing.since.strftime(_TIME)}; issued before: {before})"
        return f"{held} (in place of {self.replaces})" if self.replaces else held


def parse(text: str) -> HeldCredential:
    """Return what a value says; one that this program did not write says nothing."""
    match = _FORM.fullmatch(text.strip())
    if not match:
        return HeldCredential()
    identifier = match["id"] if match["id"].isalnum() and match["id"] != _NONE else None
    issuing = None
    if match["since"]:
        try:
            since = datetime.strptime(match["since"], _TIME).replace(tzinfo=UTC)
        except ValueError:
            return HeldCredential()
        issuing = Issuing(since, frozenset(() if match["beside"] == _NONE else match["beside"].split()))
    return HeldCredential(identifier, issuing, match["old"], match["account"])


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
