"""Git LFS beside the Git endpoint: the batch API with its basic transfers.

The API is https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md; objects are put at
``/info/lfs/objects/<id>`` (recorded in https://github.com/MicrosoftDocs/azure-devops-docs/issues/4179).
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from ...git_http import CHALLENGE, Answer, Body, LfsHost, LfsRequest
from ..repos import Repositories, Repository
from ..tokens import Tokens
from .endpoint import find_served, read_address

_MEDIA_TYPE = "application/vnd.git-lfs+json"
_ID = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


def azure_lfs_host(repositories: Repositories, tokens: Tokens) -> LfsHost:
    """Return what answers Git LFS, which asks for the scopes that Git does.

    Locks are not kept: the answer is 501, which git-lfs takes for a server without them.
    """

    def host(request: LfsRequest) -> Answer:
        token = tokens.find(request.password)
        if token is None or (request.username is None and not token.bearer_only):
            # git-lfs reports it as "Authorization error": https://github.com/git-lfs/git-lfs/issues/5270
            return _refusal(401, "Credentials needed", {"LFS-Authenticate": f'{CHALLENGE}"Azure DevOps"'})
        if not request.path.startswith("/objects/"):
            return _refusal(501, "Not implemented")
        # Azure DevOps Server 2019 is asked at /_git/NAME.git/info/lfs, as git-lfs does with other hosts.
        address = read_address(request.repository.removesuffix(".git"))
        if address is None:
            return _refusal(404, "Not found")
        batch = _parse_batch(request) if request.path == "/objects/batch" else None
        if isinstance(batch, Answer):
            return batch
        upload = batch["operation"] == "upload" if batch else request.method == "PUT"
        found = find_served(repositories, tokens, token, address, upload)
        if isinstance(found, Answer):
            return _refusal(found.status, str(found.body).strip() or "Unauthorized")
        if batch:
            return _plan_transfers(found, batch, f"{request.url}/objects")
        return _transfer(found, request)

    return host


def _parse_batch(request: LfsRequest) -> dict[str, Any] | Answer:
    try:
        batch = json.loads(request.body.read(-1))
        known = batch["operation"] in ("upload", "download") and all(map(_is_valid, batch["objects"]))
    except (ValueError, KeyError, TypeError):
        known = False
    if request.method != "POST" or not known:
        return _refusal(422, "This is not a batch request of Git LFS.")
    if batch.get("hash_algo", "sha256") != "sha256":
        return _refusal(409, "Objects are only known by their SHA-256.")
    if "basic" not in batch.get("transfers", ["basic"]):
        return _refusal(422, "The only transfer is basic.")
    return dict(batch)


def _is_valid(one: dict[str, Any]) -> bool:
    return bool(_ID.fullmatch(one["oid"])) and isinstance(one["size"], int) and one["size"] >= 0


def _plan_transfers(repository: Repository, batch: dict[str, Any], url: str) -> Answer:
    """Say where each object can be put or got; one that is there needs no upload."""
    objects = []
    for wanted in batch["objects"]:
        stored, operation = _path(repository, wanted["oid"]), batch["operation"]
        there = stored.is_file() and stored.stat().st_size == wanted["size"]
        match operation, there:
            case "upload", True:
                what: dict[str, Any] = {}
            case "download", False:
                what = {"error": {"code": 404, "message": "Object does not exist"}}
            case _:
                what = {"actions": {operation: {"href": f"{url}/{wanted['oid']}"}}}
        objects.append({"oid": wanted["oid"], "size": wanted["size"], **what})
    return Answer(200, json.dumps({"transfer": "basic", "objects": objects}), content_type=_MEDIA_TYPE)


def _transfer(repository: Repository, request: LfsRequest) -> Answer:
    object_id = request.path.rpartition("/")[2]
    if not _ID.fullmatch(object_id):
        return _refusal(404, "Object does not exist")
    stored = _path(repository, object_id)
    if request.method == "PUT":
        return _store(stored, request.body)
    if request.method != "GET" or not stored.is_file():
        return _refusal(404, "Object does not exist")
    return Answer(200, stored, content_type="application/octet-stream")


def _store(stored: Path, body: Body) -> Answer:
    """Keep what is sent, unless its SHA-256 is another one than its id."""
    stored.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=stored.parent) as folder:
        partial = Path(folder) / stored.name
        with partial.open("wb") as stream:
            while data := body.read(_CHUNK):
                digest.update(data)
                stream.write(data)
        if digest.hexdigest() != stored.name:
            return _refusal(422, f"The content is not that of object {stored.name}.")
        partial.rename(stored)
    return Answer(200, "")


def _path(repository: Repository, object_id: str) -> Path:
    """Where an object is kept; the layout is git-lfs' own."""
    return repository.path / "lfs" / "objects" / object_id[:2] / object_id[2:4] / object_id


def _refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps({"message": message}), headers or {}, _MEDIA_TYPE)
