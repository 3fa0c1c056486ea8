"""How long a session may last, what it may be called, and what STS says about a web identity.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html: 900 seconds up to the role's maximum, one hour
where one role assumes another; https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_manage-assume.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import jwt
from ministack import app
from ministack.core import router
from ministack.services import iam, sts

_SHORTEST, _CHAINED = 900, 3600
_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_ACTIONS = ("AssumeRole", "AssumeRoleWithWebIdentity")


def install() -> None:
    """Refuse what is too long or wrongly named, and report the token's own subject and audience."""
    handle: Callable[..., Any] = sts.handle_request

    async def checked(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Any:
        parameters = _parameters(headers, body, query)
        action = sts._p(parameters, "Action")
        if action not in _ACTIONS:
            return await handle(method, path, headers, body, query)
        if problem := _problem(action, parameters, headers, query):
            return sts._error(400, "ValidationError", problem, ns="sts")
        status, answer, text = await handle(method, path, headers, body, query)
        if action == "AssumeRoleWithWebIdentity" and status == 200:
            text = _with_identity(text, sts._p(parameters, "WebIdentityToken"))
        return status, answer, text

    sts.handle_request = checked
    app.SERVICE_HANDLERS["sts"] = checked


def _parameters(headers: dict[str, str], body: bytes, query: dict[str, Any]) -> dict[str, Any]:
    parameters = dict(query)
    if body and "json" not in headers.get("content-type", ""):
        parameters |= parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return parameters


def _problem(action: str, parameters: dict[str, Any], headers: dict[str, str], query: dict[str, Any]) -> str | None:
    name = sts._p(parameters, "RoleSessionName")
    if not _NAME.fullmatch(name or ""):
        return (
            f"1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [\\w+=,.@-]*"
        )
    seconds = int(sts._p(parameters, "DurationSeconds") or 0)
    if not seconds:
        return None
    if seconds < _SHORTEST:
        return (
            f"1 validation error detected: Value '{seconds}' at 'durationSeconds' failed to satisfy constraint: "
            f"Member must have value greater than or equal to {_SHORTEST}"
        )
    access_key_id = router.extract_access_key_id(headers, query) or ""
    if action == "AssumeRole" and access_key_id in sts._sessions and seconds > _CHAINED:
        return "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
    arn = sts._p(parameters, "RoleArn")
    role = iam._roles.get_scoped(arn.split(":")[4] if arn.count(":") > 4 else "", None, arn.rpartition("/")[2])
    if role and seconds > role.get("MaxSessionDuration", 3600):
        return "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
    return None


def _with_identity(text: bytes, token: str) -> bytes:
    claims = jwt.decode(token, options={"verify_signature": False})
    audience = claims["aud"] if isinstance(claims["aud"], str) else claims["aud"][0]
    return text.replace(b">test-subject<", f">{claims['sub']}<".encode()).replace(
        b"<Audience>sts.amazonaws.com<", f"<Audience>{audience}<".encode()
    )
