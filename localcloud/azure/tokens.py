"""Who may do what: personal access tokens with scopes, and the tokens of running jobs.

https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/oauth#scopes
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import unquote

BUILD_SERVICE = frozenset({"vso.code_write", "vso.build", "vso.build_execute"})
"""What a job may do in a project whose permissions its identity, the build service, was given; at first only read.

https://learn.microsoft.com/azure/devops/pipelines/process/access-tokens#manage-build-service-account-permissions
"""
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
        return self._implies(self.scopes, scope)

    def allows_in(self, scope: str, permitted: bool) -> bool:
        """Whether it allows ``scope`` in a project, where the build service may have been permitted more."""
        more = BUILD_SERVICE if permitted and self.plan_id else frozenset()
        return self._implies(self.scopes | more, scope)

    @staticmethod
    def _implies(scopes: frozenset[str], scope: str) -> bool:
        waiting = list(scopes)
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
        self._permitted: set[tuple[str, str]] = set()

    def add(self, token: Token) -> None:
        """Make a token valid."""
        self._known.append(token)

    def find(self, secret: str | None) -> Token | None:
        """Return the valid token with this secret."""
        matching = (t for t in list(self._known) if hmac.compare_digest(t.secret.encode(), (secret or "").encode()))
        return next(matching, None)

    def permit_build_service(self, organization: str, project: str) -> None:
        """Let every job of the organization create, edit and run a project's pipelines, and contribute to its code.

        That is: the permissions of the Project Collection Build Service in this project, with the job authorization
        scope of the job's own project not limited.
        """
        self._permitted.add((organization.lower(), project.lower()))

    def permits_build_service(self, organization: str, project: str) -> bool:
        """Whether jobs have these permissions in a project, whose name is percent-encoded."""
        return (organization.lower(), unquote(project).lower()) in self._permitted

    def issue_to_job(self, repositories: frozenset[str] | None, plan_id: str) -> Token:
        """Return a new token that can read, for one run."""
        token = Token(secrets.token_urlsafe(60), frozenset({"vso.code", JOB}), True, repositories, plan_id)
        self.add(token)
        return token

    def revoke(self, token: Token) -> None:
        """Make a token invalid."""
        self._known.remove(token)
