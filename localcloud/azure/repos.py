"""Azure Repos: its Git endpoint, ``/{organization}/{project}/_git/{repository}``, and the REST call that lists refs."""

from __future__ import annotations

import hmac
import json
import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

from ..git_http import CHALLENGE, Answer, Api, GitRequest, Host, Serve

_SIGN_IN_PAGE = Answer(
    203,
    "<!DOCTYPE html><html><head><title>Azure DevOps Services | Sign In</title></head><body></body></html>\n",
    content_type="text/html; charset=utf-8",
)


def azure_repos_host(root: Path, tokens: Collection[str]) -> Host:
    """Return the host function of the endpoint.

    It speaks protocol v0 alone, wants ``multi_ack``, answers a wrong token with a sign-in page, and lets the tokens
    read and not write, as the scope *Code (read)* does.

    Args:
        root: where the repositories are, one folder each for organization, project and repository.
        tokens: personal access tokens and job tokens that are valid.
    """

    def host(request: GitRequest) -> Serve | Answer:
        if request.password is None:
            return Answer(401, "", {"WWW-Authenticate": f'{CHALLENGE}"Azure DevOps"'})
        if not any(hmac.compare_digest(request.password.encode(), token.encode()) for token in tokens):
            return _SIGN_IN_PAGE
        if request.service == "git-receive-pack":
            return Answer(403, "TF401027: You need the Git 'GenericContribute' permission to perform this action.\n")
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


def azure_rest_api(root: Path, tokens: Collection[str]) -> Api:
    """Return what answers REST calls: ``Refs - List`` (7.1), in pages of at most 1,000."""

    def api(path: str, query: Mapping[str, str], password: str | None) -> Answer:
        if not any(hmac.compare_digest((password or "").encode(), token.encode()) for token in tokens):
            return _SIGN_IN_PAGE
        match = re.fullmatch(r"/([^/]+)/([^/]+)/_apis/git/repositories/([^/]+)/refs", path)
        if not match or not repository_path(root, *match.groups()).is_dir():
            return Answer(
                404, json.dumps({"message": "The resource cannot be found."}), content_type="application/json"
            )
        if "api-version" not in query:
            return Answer(400, json.dumps({"message": "api-version is required"}), content_type="application/json")
        command = ["git", "-C", str(repository_path(root, *match.groups())), "for-each-ref"]
        listing = subprocess.run(
            [*command, "--format=%(objectname) %(refname)"], check=True, capture_output=True
        ).stdout
        lines = [line.partition(" ") for line in listing.decode(errors="replace").split("\n") if line]
        start, size = int(query.get("continuationToken", 0)), min(int(query.get("$top", 100)), 1000)
        page = [{"name": name, "objectId": value} for value, _, name in lines[start : start + size]]
        more = {"x-ms-continuationtoken": str(start + size)} if start + size < len(lines) else {}
        return Answer(200, json.dumps({"value": page, "count": len(page)}), more, "application/json")

    return api


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
