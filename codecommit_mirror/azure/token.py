"""Azure DevOps authentication: a personal access token, a pipeline's own token, or Microsoft Entra."""

from __future__ import annotations

import base64
import importlib.util
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import MirrorError

SCOPES = "Code (read & write) and Build (read & execute)"
"""The scopes that a personal access token needs for all commands."""
_RESOURCE = "499b84ac-1321-427f-aa17-267ca6975798/.default"
"""Azure DevOps as a resource of Entra: https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/service-principal-managed-identity"""


@dataclass(frozen=True)
class AzureToken:
    """A token and how to send it."""

    secret: str = field(repr=False)
    bearer: bool
    origin: str
    """Where the token came from, for messages."""

    @property
    def authorization(self) -> str:
        """The value of the Authorization header: Basic with an empty user for a personal access token."""
        if self.bearer:
            return f"Bearer {self.secret}"
        return "Basic " + base64.b64encode(f":{self.secret}".encode()).decode()


def find_token(environment: Mapping[str, str]) -> AzureToken:
    """Return the token of ``AZURE_DEVOPS_EXT_PAT``, else ``SYSTEM_ACCESSTOKEN``, else of the Entra sign-in.

    Raises:
        MirrorError: there is no token; it says how to get one, and with which scopes.
    """
    for name, bearer in (("AZURE_DEVOPS_EXT_PAT", False), ("SYSTEM_ACCESSTOKEN", True)):
        if secret := environment.get(name, "").strip():
            if not re.fullmatch(r"[!-~]+", secret):
                raise MirrorError(
                    f"{name} is not a token: it contains spaces, line breaks or other characters; set it again."
                )
            return AzureToken(secret, bearer, name)
    remedy = f"set AZURE_DEVOPS_EXT_PAT to a personal access token with the scopes {SCOPES}"
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.identity") is None:
        raise MirrorError(f"there is no Azure DevOps token; {remedy}, or install the extra 'entra' and run 'az login'.")
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import CredentialUnavailableError, DefaultAzureCredential

    # The list of sign-in methods that were tried would not help a user who has no token.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    try:
        token = DefaultAzureCredential().get_token(_RESOURCE)
    except (CredentialUnavailableError, ClientAuthenticationError):
        raise MirrorError(f"there is no Azure DevOps token; {remedy}, or run 'az login'.") from None
    return AzureToken(token.token, True, "the Entra sign-in")
