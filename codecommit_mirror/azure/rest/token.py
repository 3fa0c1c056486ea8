"""Azure DevOps authentication: a personal access token, Microsoft Entra or, to read only, a job's own token."""

from __future__ import annotations

import base64
import importlib.util
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from ...config import azure_url
from ...errors import MirrorError

ENTRA_TOKEN, JOB_TOKEN = "AZURE_DEVOPS_ENTRA_TOKEN", "SYSTEM_ACCESSTOKEN"
"""Variables with an access token of an Entra identity for Azure DevOps, and with the token of a pipeline's job."""
SCOPES = "Code (read & write), Build (read & execute), and Project and team (read)"
"""The scopes that a personal access token needs for all commands."""
_GITHUB_AUDIENCE = "api://AzureADTokenExchange"
_RESOURCE = "499b84ac-1321-427f-aa17-267ca6975798/.default"
"""Azure DevOps as a resource of Entra: https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/service-principal-managed-identity"""


@dataclass(frozen=True)
class AzureToken:
    """A token and how to send it."""

    secret: str = field(repr=False)
    bearer: bool
    origin: str
    """Where the token came from, for messages."""
    server: str | None = None
    """The server that it may go to beside Azure DevOps Services."""
    is_job: bool = False
    """Whether it is that of a running job, which every job of every pipeline of the project acts with."""

    def check_destination(self, url: str) -> None:
        """Refuse a URL of a server that only a file names.

        Raises:
            MirrorError: it is neither of Azure DevOps Services nor of ``server``.
        """
        azure_url.check_destination(url, self.server)

    def check_writing(self) -> None:
        """Refuse to write with a job's own token: a pull request that nobody has merged has the same one.

        Raises:
            MirrorError: it is one.
        """
        if self.is_job:
            raise MirrorError(
                f"{self.origin} is the token of a job, which also belongs to pull requests that nobody has merged: it "
                f"may read, and nothing else. Sign in as an Entra identity of CI ({ENTRA_TOKEN}; see docs/ci.md, 'The "
                "Azure side'), or as yourself."
            )

    @property
    def authorization(self) -> str:
        """The value of the Authorization header: Basic with an empty user for a personal access token."""
        if self.bearer:
            return f"Bearer {self.secret}"
        return "Basic " + base64.b64encode(f":{self.secret}".encode()).decode()


def find_token(environment: Mapping[str, str]) -> AzureToken:
    """Return the first token that there is.

    That is: ``AZURE_DEVOPS_EXT_PAT``, ``ENTRA_TOKEN``, ``SYSTEM_ACCESSTOKEN``, that of a job of GitHub, or that of the
    Entra sign-in. Entra's tokens go to Azure DevOps Services only.

    Raises:
        MirrorError: there is no token; it says how to get one, and with which scopes.
    """
    for name in ("AZURE_DEVOPS_EXT_PAT", ENTRA_TOKEN, JOB_TOKEN):
        if secret := environment.get(name, "").strip():
            if not re.fullmatch(r"[!-~]+", secret):
                raise MirrorError(
                    f"{name} is not a token: it contains spaces, line breaks or other characters; set it again."
                )
            server = azure_url.named_server(environment)
            if name == ENTRA_TOKEN and not azure_url.is_this_machine(server):
                server = None
            return AzureToken(secret, name != "AZURE_DEVOPS_EXT_PAT", name, server, name == JOB_TOKEN)
    if environment.get("ACTIONS_ID_TOKEN_REQUEST_URL") and environment.get("AZURE_CLIENT_ID"):
        return _token_of_github_job(environment)
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


def _token_of_github_job(environment: Mapping[str, str], transport: httpx.BaseTransport | None = None) -> AzureToken:
    """Exchange a GitHub job's own token for one of an Entra service principal that trusts it; nothing is stored.

    https://docs.github.com/actions/reference/security/oidc and
    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, "federated credential".

    Raises:
        MirrorError: GitHub or Entra refuses; it says what to check.
    """
    tenant = environment.get("AZURE_TENANT_ID", "")
    host = environment.get("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com").rstrip("/")
    if not re.fullmatch("[A-Za-z0-9.-]+", tenant) or not host.startswith("https://"):
        raise MirrorError(
            "AZURE_TENANT_ID is not the id of a tenant, or AZURE_AUTHORITY_HOST is not an https:// address; correct it."
        )
    grant = {
        "client_id": environment["AZURE_CLIENT_ID"],
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "grant_type": "client_credentials",
        "scope": _RESOURCE,
    }
    try:
        with httpx.Client(timeout=30, transport=transport) as client:
            bearer = {"Authorization": f"Bearer {environment.get('ACTIONS_ID_TOKEN_REQUEST_TOKEN', '')}"}
            url = httpx.URL(environment["ACTIONS_ID_TOKEN_REQUEST_URL"]).copy_add_param("audience", _GITHUB_AUDIENCE)
            assertion = client.get(url, headers=bearer).json()["value"]
            answer = client.post(f"{host}/{tenant}/oauth2/v2.0/token", data={**grant, "client_assertion": assertion})
            return AzureToken(answer.json()["access_token"], True, "the Entra service principal")
    except (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError, KeyError, TypeError) as error:
        raise MirrorError(
            f"Entra gave this GitHub job no token ({type(error).__name__}); check that the job has id-token: write, "
            "and that AZURE_CLIENT_ID and AZURE_TENANT_ID name a service principal with a federated credential for "
            "this repository and branch."
        ) from None
