"""Who may do what: personal access tokens with scopes, and the tokens of running jobs.

https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/oauth#scopes
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

JOB = "job"
"""What only a running job may: ask for a token of OpenID Connect. No published scope covers that."""
_IMPLIED = {
    "vso.code_manage": ("vso.code_write",),
    "vso.code_write": ("vso.code",),
    "vso.build_execute": ("vso.build",),
    "vso.project_write": ("vso.project",),
}


@dataclass(frozen=True)
class Token:
    """A token that the service has given out."""

    secret: str = field(repr=False)
    scopes: frozenset[str]
    bearer_only: bool = False
    """Whether it is a job's or Entra's, which the REST API takes as Bearer and not as Basic."""
    repositories: frozenset[str] | None = None
    """Ids of the only repositories that a job may read; None for all of them."""
    plan_id: str | None = None
    """The plan of the run whose job has the token."""

    def allows(self, scope: str) -> bool:
        """Whether one of the token's scopes is or implies ``scope``."""
        waiting = list(self.scopes)
        while waiting:
            one = waiting.pop()
            if one == scope:
                return True
            waiting += _IMPLIED.get(one, ())
        return False


class Tokens:
    """All valid tokens."""

    def __init__(self) -> None:
        self._known: list[Token] = []

    def add(self, token: Token) -> None:
        """Make a token valid."""
        self._known.append(token)

    def find(self, secret: str | None) -> Token | None:
        """Return the valid token with this secret."""
        matching = (t for t in list(self._known) if hmac.compare_digest(t.secret.encode(), (secret or "").encode()))
        return next(matching, None)

    def issue_to_job(self, repositories: frozenset[str] | None, plan_id: str) -> Token:
        """Return a new token that can read, for one run."""
        token = Token(secrets.token_urlsafe(60), frozenset({"vso.code", JOB}), True, repositories, plan_id)
        self.add(token)
        return token

    def revoke(self, token: Token) -> None:
        """Make a token invalid."""
        self._known.remove(token)
