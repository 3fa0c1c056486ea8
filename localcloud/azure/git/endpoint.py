"""Azure Repos' Git endpoint: who is let in, and to which repository.

``/{organization}/{project}/_git/{repository}`` stands for that path of ``dev.azure.com``. The project can be left out
if it has the repository's name. ``/_git/_full/{repository}`` shows every ref, and ``/_git/_optimized/{repository}``
those that the plain URL shows, as Microsoft described it with *limited refs* in 2018 and clients still expect
(https://github.com/dotnet/sourcelink/issues/1139).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from ...git_http import CHALLENGE, Answer, GitRequest, Host, Serve
from ..refusals import SIGN_IN_PAGE, credential_refusal, refused_credential, signed_in
from ..repos import NO_OBJECT, Push, RefUpdate, Repositories, Repository
from ..tokens import Token, Tokens
from . import receive_pack, upload_pack

_PATH = re.compile(
    r"(?P<organization>[^/]+)/(?:(?P<project>[^/]+)/)?_git/(?:(?P<way>_full|_optimized)/)?(?P<name>[^/]+)"
)


class Address(NamedTuple):
    """What a URL path names."""

    organization: str
    project: str
    name: str
    full: bool
    """Whether limited refs are shown too."""


def read_address(path: str) -> Address | None:
    """Take a decoded URL path apart; None if it is not one of a repository."""
    found = _PATH.fullmatch(path.strip("/"))
    if not found:
        return None
    return Address(found["organization"], found["project"] or found["name"], found["name"], found["way"] == "_full")


def azure_repos_host(
    repositories: Repositories,
    tokens: Tokens,
    limits: receive_pack.Limits,
    pushed: Callable[[Repository, Push], None],
) -> Host:
    """Return the host function of the endpoint.

    It only speaks protocol v0, fetches as ``upload_pack`` says, takes pushes as ``receive_pack`` says, and asks for the
    scope *Code (read)* or *Code (read & write)*.

    Args:
        repositories: what is served.
        tokens: what is taken as a password.
        limits: what pushes may have.
        pushed: called after each push.
    """

    def host(request: GitRequest) -> Serve | Answer:
        if request.password is None:
            return Answer(401, "", {"WWW-Authenticate": f'{CHALLENGE}"Azure DevOps"'})
        address = read_address(request.repository)
        if address is None:
            return Answer(404, "The page was not found.\n")
        if refusal := credential_refusal(tokens, request.password, address.organization):
            return refusal
        token = tokens.find(request.password)
        if token is None or (request.username is None and not token.bearer_only):
            return SIGN_IN_PAGE
        found = find_served(repositories, tokens, token, address, request.service == "git-receive-pack")
        if isinstance(found, Answer):
            return found
        if request.service == "git-upload-pack":
            return upload_pack.serve(found.path, request, shown=None if address.full else found.shown)
        if request.advertisement:
            return Serve(found.path)
        before = found.refs()
        answer = receive_pack.answer(found, request.body, limits)
        after = found.refs()
        names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        changes = [RefUpdate(name, before.get(name, NO_OBJECT), after.get(name, NO_OBJECT)) for name in names]
        if changes:
            pushed(found, found.record(changes))
        return answer

    return host


def find_served(
    repositories: Repositories, tokens: Tokens, token: Token, address: Address, push: bool
) -> Repository | Answer:
    """Return the repository that a token may fetch from or push to, or the refusal.

    A repository that is not there, is disabled or may not be read gets one answer for all three.
    """
    organization, project = address.organization, address.project
    rights = tokens.rights(token, organization, repositories.find_project(organization, project) or project)
    repository = repositories.find(organization, project, address.name)
    hidden = repository and token.repositories is not None and repository.id not in token.repositories
    readable = token.allows("vso.code", rights)
    if not readable and token.identity is None:
        return refused_credential()
    if repository is None or repository.disabled or hidden or not readable:
        return Answer(
            404,
            f"TF401019: The Git repository with name or identifier {address.name} does not exist or you do not have "
            "permissions for the operation you are attempting.\n",
            signed_in(token),
        )
    if push and not token.allows("vso.code_write", rights):
        if token.identity is None:
            return refused_credential()
        needed = "TF401027: You need the Git 'GenericContribute' permission to perform this action.\n"
        return Answer(403, needed, signed_in(token))
    return repository
