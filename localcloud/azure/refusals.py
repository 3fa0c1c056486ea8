"""How Azure DevOps refuses a request, over Git and over its REST API alike, as it was recorded.

An unknown credential gets a sign-in page (203). One that is refused gets 401 without a body, whether it has expired,
was revoked or lacks the scope; a personal access token's may be explained in ``X-TFS-ServiceError``. A Microsoft Entra
identity that the organization does not know gets JSON behind a byte-order mark. Only who is signed in gets
``X-VSS-UserData``: https://github.com/cjohnstoniv/wardyn (2026), https://github.com/renovatebot/renovate/issues/13013,
https://github.com/microsoft/azure-pipelines-agent/issues/1559.
"""

from __future__ import annotations

import json
import uuid

from ..git_http import Answer
from .tokens import Token, Tokens

_HTML = "text/html; charset=utf-8"
_PAGE = "<!DOCTYPE html><html><head><title>{}</title></head><body></body></html>\n"
SIGN_IN_PAGE = Answer(203, _PAGE.format("Azure DevOps Services | Sign In"), content_type=_HTML)
CONDITIONAL_ACCESS_PAGE = Answer(
    403,
    _PAGE.format("VS403463: The conditional access policy defined by your Microsoft Entra administrator has failed."),
    content_type=_HTML,
)
_NAMESPACE = uuid.UUID("0a8b6f63-6f0e-4d0f-8f1e-6a1f6b1f4c55")


def refused_credential(error: str = "") -> Answer:
    """Return the answer to a credential that is known and refused, with the service's explanation if it gives one."""
    return Answer(401, "", {"X-TFS-ServiceError": error.replace(" ", "%20")} if error else {})


def unknown_identity(token: Token) -> Answer:
    """Return the answer to an Entra identity that is not a user of the organization."""
    body = {
        "$id": "1",
        "innerException": None,
        "message": f"TF400813: The user '{_user_id(token)}' is not authorized to access this resource.",
        "typeName": "Microsoft.TeamFoundation.Framework.Server.UnauthorizedRequestException, "
        "Microsoft.TeamFoundation.Framework.Server",
        "typeKey": "UnauthorizedRequestException",
        "errorCode": 0,
        "eventId": 3000,
    }
    return Answer(401, ("\ufeff" + json.dumps(body)).encode(), content_type="application/json; charset=utf-8")


def credential_refusal(tokens: Tokens, secret: str, organization: str) -> Answer | None:
    """Return why nothing is done for whoever sends a token, whatever is asked; None if it is let in."""
    token = tokens.find(secret)
    if token is None:
        if tokens.was_valid(secret):
            return refused_credential("Access Denied: The Personal Access Token used has expired.")
        return SIGN_IN_PAGE
    if tokens.conditional_access_fails:
        return CONDITIONAL_ACCESS_PAGE
    if token.is_entra and not tokens.knows(token, organization):
        return unknown_identity(token)
    return None


def signed_in(token: Token) -> dict[str, str]:
    """Return the header that tells who signed in."""
    return {"X-VSS-UserData": f"{_user_id(token)}:{token.identity or 'operator@contoso.example'}"}


def _user_id(token: Token) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, token.identity or "operator")
