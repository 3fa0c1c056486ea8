"""CodeCommit's Git endpoint: who may fetch and who may push, by the control plane's own records.

``/git-codecommit.{region}.amazonaws.com/v1/repos/{name}`` stands for that host of the real service. HTTPS Git
credentials are looked up at each request, so that one that was deactivated a moment ago is refused. An access key works
too, with a signature in place of the password, as ``aws codecommit credential-helper`` makes it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ministack.core import iam_evaluator, responses
from ministack.services import iam

from ..git_http import CHALLENGE, Answer, GitRequest, Host, Serve
from .codecommit import CodeCommit
from .service_credentials import ServiceCredentials

_PATH = re.compile(r"/git-codecommit\.([a-z0-9-]+)\.amazonaws\.com/v1/repos/([^/]+)")
_SIGNATURE_SECONDS = 15 * 60
_ACTIONS = {"git-upload-pack": "codecommit:GitPull", "git-receive-pack": "codecommit:GitPush"}


def codecommit_host(repositories: CodeCommit, credentials: ServiceCredentials, account: str) -> Host:
    """Return the host function of the endpoint."""

    def host(request: GitRequest) -> Serve | Answer:
        if request.password is None:
            return Answer(401, "", {"WWW-Authenticate": f'{CHALLENGE}"AWS CodeCommit"'})
        match = _PATH.fullmatch(request.repository)
        if match is None:
            return Answer(403, "")
        region, name = match.groups()
        owner = credentials.authenticate(request.username or "", request.password) or _signed_by(
            request, account, region
        )
        if owner is None:
            return Answer(403, "")
        arn = f"arn:aws:codecommit:{region}:{owner.account}:{name}"
        if not _allowed(owner.account, owner.user_name, _ACTIONS[request.service], arn, region):
            return Answer(403, "")
        repository = repositories.find(owner.account, region, name)
        if repository is None:
            return Answer(404, f"repository '{name}' not found\n")
        return Serve(repository.path)

    return host


@dataclass(frozen=True)
class _Signer:
    account: str
    user_name: str


def _signed_by(request: GitRequest, account: str, region: str) -> _Signer | None:
    """Return the user whose access key signed the request (Signature Version 4 of ``GIT``, path and host)."""
    time, _, signature = (request.password or "").partition("Z")
    with responses.request_scope(account, region):
        record = iam._access_keys.get(request.username)
    if record is None or record["Status"] != "Active" or not re.fullmatch(r"\d{8}T\d{6}", time):
        return None
    age = datetime.now(UTC) - datetime.strptime(time, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    if abs(age.total_seconds()) > _SIGNATURE_SECONDS:
        return None
    canonical = f"GIT\n{request.repository}\n\nhost:{request.host}\n\nhost\n"
    scope = f"{time[:8]}/{region}/codecommit/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"AWS4" + record["SecretAccessKey"].encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return _Signer(account, record["UserName"]) if hmac.compare_digest(key.hex(), signature) else None


def write_hooks(folder: Path) -> None:
    """Write the receive hooks: the limits before a push, the default branch after the first."""
    folder.mkdir()
    check = Path(__file__).parent / "receive_hooks" / "pre_receive.py"
    hooks = {
        "pre-receive": f"exec {shlex.quote(sys.executable)} -SE {shlex.quote(str(check))}",
        "post-receive": (
            "git rev-parse -q --verify HEAD >/dev/null && exit\n"
            'while read -r old new ref; do case "$ref" in refs/heads/*) exec git symbolic-ref HEAD "$ref";; esac; done'
        ),
    }
    for name, script in hooks.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def _allowed(account: str, user: str, action: str, arn: str, region: str) -> bool:
    with responses.request_scope(account, region):
        context = iam_evaluator.EvalContext(
            principal_arn=f"arn:aws:iam::{account}:user/{user}",
            principal_type="User",
            principal_account=account,
            action=action,
            resource_arn=arn,
            region=region,
        )
        policies = iam_evaluator._gather_user_policies(user, account)
        limits = iam_evaluator._permissions_boundary(iam._users, user, account)
        return bool(iam_evaluator.evaluate(context, policies, *limits).decision == "Allow")
