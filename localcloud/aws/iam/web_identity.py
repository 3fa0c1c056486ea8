"""Roles for tokens of OpenID Connect: what ministack lacks, or takes unseen.

CloudFormation's type of identity provider; and a token must be signed by its issuer, not be over, and be for an
audience of a provider that the account has (API_AssumeRoleWithWebIdentity). Trust policies are ministack's to evaluate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jwt
from ministack.core import iam_evaluator, responses
from ministack.services import iam, sts
from ministack.services.cloudformation import provisioners

RESOURCE_TYPE = "AWS::IAM::OIDCProvider"
_ACTION = "sts:AssumeRoleWithWebIdentity"
_PROPERTIES = {"Url", "ClientIdList", "ThumbprintList", "Tags"}

KeyOf = Callable[[str], Any]
"""The public key of an issuer; None for one that does not answer."""


def install(key_of: KeyOf) -> None:
    """Add the resource type, and check tokens before they are believed.

    Args:
        key_of: stands for the keys that IAM reads at the issuer's address.
    """
    trust_denied = sts._web_identity_trust_denied

    def checked(role_arn: str, parameters: dict[str, Any], use_json: bool) -> Any:
        problem = _problem(sts._p(parameters, "WebIdentityToken"), key_of)
        if problem:
            return sts._error(400, "InvalidIdentityToken", problem, ns="sts")
        return trust_denied(role_arn, parameters, use_json)

    enforce = iam_evaluator.enforce

    def enforced(access_key_id: str, action: str, *arguments: Any, **options: Any) -> Any:
        # The call is not signed: the token says who asks.
        return None if action == _ACTION else enforce(access_key_id, action, *arguments, **options)

    iam_evaluator.enforce = enforced
    sts._web_identity_trust_denied = checked
    provisioners._RESOURCE_HANDLERS[RESOURCE_TYPE] = {"create": _create, "delete": _delete}
    provisioners._REPLACING_PROPERTIES[RESOURCE_TYPE] = ("Url",)


def _problem(token: str, key_of: KeyOf) -> str | None:
    try:
        issuer = str(jwt.decode(token, options={"verify_signature": False}).get("iss", ""))
    except jwt.InvalidTokenError:
        return "The ID Token provided is not a valid JWT."
    provider = iam._oidc_providers.get(_arn(issuer))
    if provider is None:
        return f"No OpenIDConnect provider found in your account for {issuer}"
    try:
        jwt.decode(token, key_of(issuer), algorithms=["RS256"], audience=provider["ClientIDList"], issuer=issuer)
    except jwt.InvalidAudienceError:
        return "Incorrect token audience"
    except jwt.InvalidTokenError as error:
        return f"Couldn't verify the ID Token: {error}"
    return None


def _arn(issuer: str) -> str:
    return f"arn:aws:iam::{responses.get_account_id()}:oidc-provider/{issuer.removeprefix('https://').rstrip('/')}"


def _create(logical_id: str, properties: dict[str, Any], stack_name: str) -> tuple[str, dict[str, str]]:
    if unknown := properties.keys() - _PROPERTIES:
        raise ValueError(f"{RESOURCE_TYPE}: unsupported property {sorted(unknown)[0]}")
    url, arn = properties["Url"], _arn(properties["Url"])
    if not url.startswith("https://"):
        raise ValueError(f"{RESOURCE_TYPE}: {url} does not begin with https://")
    if arn in iam._oidc_providers:
        raise ValueError(f"Provider with url {url} already exists.")
    iam._oidc_providers[arn] = {
        "Url": url,
        "ClientIDList": list(properties.get("ClientIdList", [])),
        "ThumbprintList": list(properties.get("ThumbprintList", [])),
        "Arn": arn,
        "CreateDate": iam._now(),
        "Tags": properties.get("Tags", []),
    }
    return arn, {"Arn": arn}


def _delete(physical_id: str, properties: dict[str, Any]) -> None:
    iam._oidc_providers.pop(physical_id, None)
