"""Azure Repos' Git endpoint: ``/{organization}/{project}/_git/{repository}``."""

from __future__ import annotations

import hmac
import subprocess
from collections.abc import Collection
from pathlib import Path

from ..git_http import CHALLENGE, Answer, GitRequest, Host, Serve

_SIGN_IN_PAGE = Answer(
    203,
    "<!DOCTYPE html><html><head><title>Azure DevOps Services | Sign In</title></head><body></body></html>\n",
    content_type="text/html; charset=utf-8",
)


def azure_repos_host(root: Path, tokens: Collection[str]) -> Host:
    """Return the host function of the endpoint.

    It speaks protocol v0 alone, wants ``multi_ack``, and answers a wrong token with a sign-in page.

    Args:
        root: where the repositories are, one folder each for organization, project and repository.
        tokens: personal access tokens and job tokens that are valid.
    """

    def host(request: GitRequest) -> Serve | Answer:
        if request.password is None:
            return Answer(401, "", {"WWW-Authenticate": f'{CHALLENGE}"Azure DevOps"'})
        if not any(hmac.compare_digest(request.password.encode(), token.encode()) for token in tokens):
            return _SIGN_IN_PAGE
        parts = request.repository.strip("/").split("/")
        if len(parts) != 4 or parts[2] != "_git":
            return Answer(404, "The page was not found.\n")
        path = repository_path(root, parts[0], parts[1], parts[3])
        if not path.is_dir():
            return Answer(404, f"TF401019: The Git repository with name or identifier {parts[3]} does not exist.\n")
        if request.first_line is not None and b"multi_ack" not in request.first_line:
            return Answer(400, "multi_ack is required.\n")
        return Serve(path)

    return host


def repository_path(root: Path, organization: str, project: str, repository: str) -> Path:
    """Return where a repository's bare Git data is.

    Raises:
        ValueError: a name would leave the folder.
    """
    for name in (organization, project, repository):
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"{name!r} is not a name")
    return root / organization / project / f"{repository}.git"


def create_repository(path: Path) -> None:
    """Create an empty source repository."""
    subprocess.run(["git", "init", "-q", "--bare", "--template=", "-b", "main", str(path)], check=True)
    subprocess.run(["git", "-C", str(path), "config", "http.receivepack", "true"], check=True)
