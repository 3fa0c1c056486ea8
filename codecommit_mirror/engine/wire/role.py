"""A role of AWS in place of a stored password: the job's own OpenID Connect token is exchanged for it.

1. Azure Pipelines gives the job a token, which names its pipeline and is valid for ten minutes; the job asks at
   SYSTEM_OIDCREQUESTURI, with OIDC_REQUEST_TOKEN, its System.AccessToken.
2. AWS STS exchanges it for the credentials of the role AWS_ROLE_ARN, which trusts only this pipeline
   (AssumeRoleWithWebIdentity). They are valid for an hour, and are renewed before that in a long run.
3. Each request to CodeCommit has a password of its own, a signature with those credentials, valid for 15 minutes.

Tokens and credentials stay in memory; nothing prints them.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac
import http.client
import json
import re
import time
import urllib.parse
from dataclasses import replace
from typing import Mapping, NamedTuple

from ..failures import MirrorFailure, RetryableError
from ..settings import (
    Endpoint,
    basic_auth_header,
    check_credential,
    is_loopback,
    password_replica,
    replica_url,
    require,
)
from ..text import sanitize
from .connection import TIMEOUT_SECONDS, connection_failure, open_connection
from .retries import retry_after_seconds

RENEW_SECONDS = 300
MAX_ANSWER_BYTES = 1_000_000
"""So long before they expire, credentials are renewed."""
SESSION_NAME = "azure-pipelines"
"""The same in each run: CodeCommit bills each ARN that it sees in a month, and a session's ARN has this name in it."""
TOKEN_HOSTS = {
    "SYSTEM_OIDCREQUESTURI": re.compile(r"dev\.azure\.com|[a-z0-9-]+\.(dev\.azure\.com|visualstudio\.com)"),
    "AWS_ENDPOINT_URL_STS": re.compile(
        r"sts(-fips)?\.([a-z0-9-]+\.)?amazonaws\.com(\.cn)?|vpce-[a-z0-9-]+\.sts\.[a-z0-9-]+\.vpce\.amazonaws\.com"
    ),
}
"""Who may get the job's tokens: Azure DevOps, and AWS STS, also at its VPC endpoints."""
HOST = re.compile(r"git-codecommit(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


def role_replica(environment: Mapping[str, str]) -> Endpoint:
    """Return the replica, to be pushed to as a role; raise MirrorFailure if a variable is missing or wrong."""
    url = replica_url(environment)
    remedy = "check that the policy of the pipeline's role allows codecommit:GitPush on this repository"
    endpoint = Endpoint("replica", url, "", "", "", remedy)
    return replace(endpoint, sign_in=Role(endpoint, environment).sign_in)


def configured_replica(environment: Mapping[str, str]) -> Endpoint:
    """Return the replica, to be pushed to as a role if the YAML names one, and else with a stored password."""
    has_role = bool(environment.get("MIRROR_ROLE", "").strip())
    return role_replica(environment) if has_role else password_replica(environment)


class Keys(NamedTuple):
    """Temporary credentials of AWS."""

    access_key: str
    secret_key: str
    session_token: str
    expires: float


class Role:
    """A role that this run acts as, and the replica that it pushes to.

    Raises MirrorFailure if a variable is missing or wrong.
    """

    def __init__(self, replica: Endpoint, environment: Mapping[str, str]) -> None:
        host = urllib.parse.urlsplit(replica.url).hostname or ""
        match = HOST.fullmatch(host)
        # A VPC endpoint's host name does not contain the region in the usual place.
        self._region = match.group(1) if match else require(environment, "AWS_REGION")
        suffix = ".cn" if self._region.startswith("cn-") else ""
        self._sts = environment.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{self._region}.amazonaws.com{suffix}/"
        self._arn = require(environment, "AWS_ROLE_ARN")
        self._azure = require(environment, "SYSTEM_OIDCREQUESTURI")
        self._token = require(environment, "OIDC_REQUEST_TOKEN")
        self._replica = replica
        self._keys: Keys | None = None
        check_credential("OIDC_REQUEST_TOKEN", self._token, bearer=True)
        for name, url in (("SYSTEM_OIDCREQUESTURI", self._azure), ("AWS_ENDPOINT_URL_STS", self._sts)):
            parts = urllib.parse.urlsplit(url)
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
                raise MirrorFailure(f"{name} would send a token unencrypted; use https://.")
            if not (TOKEN_HOSTS[name].fullmatch(parts.hostname or "") or is_loopback(parts.hostname)):
                raise MirrorFailure(f"{name} names {sanitize(parts.hostname or '')}, which gets no token; remove it.")
        wanted = environment.get("MIRROR_ROLE", "").strip()
        if wanted and self._arn.partition(":role/")[2].rpartition("/")[2] != wanted:
            raise MirrorFailure(
                f"nothing was changed: AWS_ROLE_ARN is {sanitize(self._arn)}, but this pipeline's YAML is for the role "
                f"{sanitize(wanted)}; run 'codecommit-mirror up NAME' for its mirror."
            )

    def sign_in(self) -> Endpoint:
        """Return the replica with a new password; raise MirrorFailure or RetryableError if there is none."""
        if self._keys is None or self._keys.expires - time.time() < RENEW_SECONDS:
            self._keys = self._assume()
        keys = self._keys
        user, password = sign(self._replica.url, self._region, keys.access_key, keys.secret_key, keys.session_token)
        authorization = basic_auth_header(user, password)
        return replace(self._replica, authorization=authorization, username=user, password=password)

    def _assume(self) -> Keys:
        token = self._identity()
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": self._arn,
            "RoleSessionName": SESSION_NAME,
            "WebIdentityToken": token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, body = _post("AWS STS", self._sts, headers, urllib.parse.urlencode(form).encode())
        fields = dict(re.findall("<(AccessKeyId|SecretAccessKey|SessionToken|Expiration|Code)>([^<]+)<", body))
        if status != 200:
            code = fields.get("Code", str(status))
            if code in ("IDPCommunicationError", "Throttling"):
                raise RetryableError(f"AWS STS answered {sanitize(code)}")
            raise MirrorFailure(
                f"AWS STS did not give this pipeline, {sanitize(subject_of(token))}, the role {sanitize(self._arn)} "
                f"({sanitize(code)}); the role must trust exactly that name: if the pipeline or the project was "
                "renamed, deploy the mirror's stack again."
            )
        expires = time.strptime(fields["Expiration"][:19], "%Y-%m-%dT%H:%M:%S")
        return Keys(
            fields["AccessKeyId"], fields["SecretAccessKey"], fields["SessionToken"], float(calendar.timegm(expires))
        )

    def _identity(self) -> str:
        """Return a token that names this pipeline (https://learn.microsoft.com/rest/api/azure/devops/oidctoken)."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        url = f"{self._azure}{'&' if '?' in self._azure else '?'}api-version=7.1"
        status, body = _post("Azure Pipelines", url, headers, b"")
        try:
            token = str(json.loads(body)["oidcToken"])
        except (ValueError, KeyError, TypeError):
            raise MirrorFailure(
                f"Azure Pipelines gave this job no OpenID Connect token ({status}); OIDC_REQUEST_TOKEN must be "
                "its System.AccessToken, as in the rendered pipeline."
            ) from None
        check_credential("the OpenID Connect token", token, bearer=True)
        return token


def subject_of(token: str) -> str:
    """Return the subject of a token, which is no secret; the token is not checked."""
    try:
        claims = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"])
    except (ValueError, KeyError, IndexError, TypeError):
        return "of an unknown name"


def sign(url: str, region: str, access_key: str, secret_key: str, session_token: str | None) -> tuple[str, str]:
    """Return a user name and a password for a clone URL of CodeCommit, which are valid for 15 minutes.

    Signature Version 4 of the pseudo-method GIT, the path and the host without its port, as the AWS CLI's
    credential-helper makes it (https://docs.aws.amazon.com/codecommit/latest/userguide/setting-up-https-unixes.html).
    """
    parts = urllib.parse.urlsplit(url)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    canonical = f"GIT\n{parts.path}\n\nhost:{parts.hostname}\n\nhost\n"
    scope = f"{stamp[:8]}/{region}/codecommit/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return (f"{access_key}%{session_token}" if session_token else access_key), f"{stamp}Z{key.hex()}"


def _post(who: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
    """Return the status and the text of an answer; raise RetryableError if the server is busy or not reached."""
    parts = urllib.parse.urlsplit(url)
    connection = open_connection(parts)
    connection.timeout = min(60, TIMEOUT_SECONDS)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path or "/", body, dict(headers))
        response = connection.getresponse()
        text = response.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise connection_failure(who, url, error, was_sending=False) from None
    finally:
        connection.close()
    if response.status == 429 or response.status >= 500:
        wait = retry_after_seconds(response.headers.get("Retry-After", ""))
        raise RetryableError(f"{who} answered {response.status}", wait)
    return response.status, text
