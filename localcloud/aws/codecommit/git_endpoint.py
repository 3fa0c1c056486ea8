"""CodeCommit's Git endpoint: who may fetch and who may push, by the control plane's own records.

``/git-codecommit.{region}.amazonaws.com/v1/repos/{name}`` stands for that host of the real service. HTTPS Git
credentials are looked up at each request, so that one that was deactivated a moment ago is refused. An access key, or
the credentials of a session, work too, with a signature in place of the password, as ``aws codecommit
credential-helper`` and git-remote-codecommit make it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Set
from datetime import UTC, datetime

from ministack.core import iam_evaluator, responses
from ministack.core.iam_evaluator import AuthError, CredentialResolutionError, PrincipalInfo
from ministack.services import iam

from ...git_http import CHALLENGE, Answer, GitRequest, Host, Serve
from ..iam.service_credentials import ServiceCredentials
from ..messages import trail
from ..rights.judgement import CODE, CannotJudgeError
from .api import CodeCommit
from .change_events import EventShape, publish
from .git_service import GitService, Update

_PATH = re.compile(r"/git-codecommit\.([a-z0-9-]+)\.amazonaws\.com/v1/repos/([^/]+)")
_SIGNATURE_SECONDS = 15 * 60
_ACTIONS = {"git-upload-pack": "codecommit:GitPull", "git-receive-pack": "codecommit:GitPush"}


def codecommit_host(
    repositories: CodeCommit,
    credentials: ServiceCredentials,
    service: GitService,
    account: str,
    events: EventShape,
    regions_down: Set[str],
) -> Host:
    """Return the host function of the endpoint."""

    def host(request: GitRequest) -> Serve | Answer:
        if request.password is None:
            return Answer(401, "", {"WWW-Authenticate": f'{CHALLENGE}"AWS CodeCommit"'})
        match = _PATH.fullmatch(request.repository)
        if match is None:
            return Answer(403, "")
        region, name = match.groups()
        if region in regions_down:
            return Answer(503, "")
        with responses.request_scope(account, region):
            caller = _principal(credentials, request, account, region)
            repository = repositories.find(account, region, name)
            arn = f"arn:aws:codecommit:{region}:{account}:{name}"
            keys = {f"aws:resourcetag/{key}": value for key, value in (repository.tags if repository else {}).items()}
            try:
                allowed = caller is not None and _allowed(caller, _ACTIONS[request.service], arn, keys)
            except CannotJudgeError as error:
                return Answer(501, f"{CODE}: {error}\n")
        if caller is None:
            return Answer(403, "")
        if not allowed:
            return _recorded(request, caller, arn, Answer(403, ""))
        if repository is None:
            return _recorded(request, caller, arn, Answer(404, f"repository '{name}' not found\n"))
        principal, found = caller, repository

        def may(update: Update) -> bool:
            # A push is evaluated once without the key, above, and for each ref with it.
            with responses.request_scope(account, region):
                return _allowed(principal, "codecommit:GitPush", arn, {**keys, "codecommit:References": update.ref})

        answer = service.answer(
            found.path, request, lambda updates: publish(found, updates, principal.arn, events), may
        )
        return _recorded(request, principal, arn, answer)

    return host


def _recorded(request: GitRequest, caller: PrincipalInfo, arn: str, answer: Serve | Answer) -> Serve | Answer:
    """Record a pull or a push in CloudTrail, and return its answer."""
    if not request.advertisement:
        error = "AccessDenied" if isinstance(answer, Answer) and answer.status == 403 else ""
        with responses.request_scope(*arn.split(":")[4:2:-1]):
            trail.record(_ACTIONS[request.service], caller.arn, arn, error)
    return answer


def _principal(credentials: ServiceCredentials, request: GitRequest, account: str, region: str) -> PrincipalInfo | None:
    """Return who asks, with their policies."""
    user = credentials.authenticate(request.username or "", request.password or "")
    if user:
        return PrincipalInfo(
            arn=f"arn:aws:iam::{account}:user/{user.user_name}",
            type="User",
            account=account,
            policies=iam_evaluator._gather_user_policies(user.user_name, account),
            keys={"aws:username": user.user_name},
            limits=iam_evaluator._permissions_boundary(iam._users, user.user_name, account),
        )
    # A session's token stands behind its access key, as both published clients write it.
    access_key_id, _, token = (request.username or "").partition("%")
    credential = iam_evaluator.resolve_credential(access_key_id, account, token)
    if isinstance(credential, CredentialResolutionError) or not _is_signed(
        request, credential.secret_access_key, region
    ):
        return None
    found = iam_evaluator.resolve_principal(access_key_id, account, credential)
    return None if isinstance(found, AuthError) else found


def _is_signed(request: GitRequest, secret: str, region: str) -> bool:
    """Whether the password is a Signature Version 4 of ``GIT``, path and host, made in the last 15 minutes.

    Both published clients sign the host without a port.
    """
    time, _, signature = (request.password or "").partition("Z")
    if not re.fullmatch(r"\d{8}T\d{6}", time):
        return False
    age = datetime.now(UTC) - datetime.strptime(time, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    if abs(age.total_seconds()) > _SIGNATURE_SECONDS:
        return False
    host = request.host.partition(":")[0]
    canonical = f"GIT\n{request.repository}\n\nhost:{host}\n\nhost\n"
    scope = f"{time[:8]}/{region}/codecommit/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"AWS4" + secret.encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(key.hex(), signature)


def _allowed(principal: PrincipalInfo, action: str, arn: str, keys: Mapping[str, str]) -> bool:
    context = iam_evaluator.EvalContext(
        principal_arn=principal.arn,
        principal_type=principal.type,
        principal_account=principal.account,
        action=action,
        resource_arn=arn,
        region=arn.split(":")[3],
        service_context={key.lower(): value for key, value in keys.items()},
        principal_keys=principal.keys,
    )
    return bool(iam_evaluator.evaluate(context, principal.policies, *principal.limits).decision == "Allow")
