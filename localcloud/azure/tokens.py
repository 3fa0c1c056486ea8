"""Who may do what: personal access tokens with scopes, the tokens of running jobs, and those of Entra identities.

https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/oauth#scopes
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import unquote

CONTRIBUTOR = frozenset({"vso.code_write", "vso.build", "vso.build_execute", "vso.project"})
"""What CI needs in a project of mirrors: *Contribute*, rights on pipelines, and *View project-level information*."""
BUILD_SERVICE = "Project Collection Build Service"
"""The identity of every job of every pipeline of an organization; at first it may only read.

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
    identity: str | None = None
    """Whose rights in projects the token has, beside its scopes."""

    @property
    def is_entra(self) -> bool:
        """Whether it is an access token of a service principal."""
        return self.identity not in (None, BUILD_SERVICE)

    def allows(self, scope: str, rights: frozenset[str] = frozenset()) -> bool:
        """Whether one of the token's scopes, or of its identity's rights in a project, is or implies ``scope``."""
        return self._implies(self.scopes | rights, scope)

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
        self.conditional_access_fails = False
        """Whether a conditional access policy stops everybody."""
        self._known: list[Token] = []
        self._expired: set[str] = set()
        self._rights: dict[tuple[str, str, str], frozenset[str]] = {}

    def add(self, token: Token) -> None:
        """Make a token valid."""
        self._known.append(token)

    def find(self, secret: str | None) -> Token | None:
        """Return the valid token with this secret."""
        matching = (t for t in list(self._known) if hmac.compare_digest(t.secret.encode(), (secret or "").encode()))
        return next(matching, None)

    def was_valid(self, secret: str) -> bool:
        """Whether a secret is that of a token which has expired or was revoked."""
        return secret in self._expired

    def permit(self, identity: str, organization: str, project: str, rights: frozenset[str] = CONTRIBUTOR) -> None:
        """Give an identity rights in a project.

        For the build service that is every job of the organization, with the job authorization scope of the job's own
        project not limited.
        """
        self._rights[identity, organization.lower(), project.lower()] = rights

    def rights(self, token: Token, organization: str, project: str) -> frozenset[str]:
        """Return what a token's identity may do in a project, whose name is percent-encoded."""
        return self._rights.get((token.identity or "", organization.lower(), unquote(project).lower()), frozenset())

    def knows(self, token: Token, organization: str) -> bool:
        """Whether a token's identity has rights in any project of an organization."""
        return any(key[:2] == (token.identity, organization.lower()) for key in list(self._rights))

    def issue_to_identity(self, identity: str) -> Token:
        """Return a new access token of Entra for a service principal; it outlives the job that asked for it."""
        token = Token(secrets.token_urlsafe(300), frozenset(), bearer_only=True, identity=identity)
        self.add(token)
        return token

    def issue_to_job(self, repositories: frozenset[str] | None, plan_id: str) -> Token:
        """Return a new token that can read, for one run."""
        scopes = frozenset({"vso.code", JOB})
        token = Token(secrets.token_urlsafe(60), scopes, True, repositories, plan_id, BUILD_SERVICE)
        self.add(token)
        return token

    def revoke(self, token: Token) -> None:
        """Make a token invalid."""
        self._known.remove(token)
        self._expired.add(token.secret)
