"""What to mirror, and how: the two sides, and the settings of a run.

The settings come from the environment:

    AZURE_REPO_URL, AZURE_GIT_USERNAME, AZURE_GIT_PASSWORD    the source (or SYSTEM_ACCESSTOKEN, the run's own token)
    AWS_REPO_URL, AWS_GIT_USERNAME, AWS_GIT_PASSWORD          the replica
    MIRROR_SOURCE, MIRROR_REPLICA    what AZURE_REPO_URL and AWS_REPO_URL must name: a URL, and a repository's name
    MIRROR_SOURCE_ID          the source's id in Azure DevOps; another repository of its name is not mirrored
    MIRROR_REFS               which namespaces below refs/ are mirrored: "heads tags notes"
    MIRROR_ARCHIVE_DAYS       days to keep deleted or overwritten tips: 90; 0 turns the archive off
    MIRROR_ALLOW_DELETIONS    1: this run may delete most of the refs
    MIRROR_EXISTING           1: the replica may have been another one's before
    MIRROR_REPLACE_HISTORY    the mark of a history that is not the source's, and that this run may replace
    MIRROR_ENGINE_SHA256      the SHA-256 of this program, which the step before has compared

Passwords stay in the environment and go out in the Authorization header, only to the host that they belong to.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Callable, Mapping

from .failures import MirrorFailure
from .text import sanitize
from .version import VERSION

CODECOMMIT = re.compile(
    r"git-codecommit(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?"
    r"|vpce-[a-z0-9-]+\.git-codecommit(-fips)?\.[a-z0-9-]+\.vpce\.amazonaws\.com(\.cn)?"
)
"""Hosts of CodeCommit, with those of VPC endpoints, which AWS runs."""


@dataclass(frozen=True)
class Endpoint:
    """One side of the mirror."""

    side: str
    url: str
    authorization: str = field(repr=False)
    """The value of the Authorization header."""
    username: str = field(repr=False)
    password: str = field(repr=False)
    remedy: str
    """What to check when this side refuses the credentials."""
    git_url: str = ""
    """Where its Git service answers, if not at the URL that people know."""
    sign_in: Callable[[], Endpoint] | None = field(default=None, repr=False)
    """Returns the same endpoint with a new password, if passwords are valid for minutes only."""

    def __str__(self) -> str:
        return f"the {self.side} {self.url}"

    def now(self) -> Endpoint:
        """Return the endpoint with a password that is valid now."""
        return self.sign_in() if self.sign_in else self


@dataclass(frozen=True)
class Settings:
    """What to mirror, and how."""

    source: Endpoint
    replica: Endpoint
    namespaces: tuple[str, ...] = ("refs/heads/", "refs/tags/", "refs/notes/")
    archive_days: int = 90
    allow_deletions: bool = False
    replace_history: str = ""
    """The mark of what the replica may lose although it is not the source's; see ``foreign_history``."""
    source_id: str = ""
    """The id of the source's repository; empty if any repository of its name is mirrored."""
    existing: bool = False
    """Whether the replica may have been another one's before."""
    engine_sha256: str = ""
    """The SHA-256 of the joined program; empty if its modules run."""

    @property
    def engine(self) -> str:
        """What mirrors: the engine's version and, for a joined program, its SHA-256."""
        return f"{VERSION} sha256:{self.engine_sha256}" if self.engine_sha256 else VERSION


def _source(environment: Mapping[str, str]) -> Endpoint:
    token = environment.get("SYSTEM_ACCESSTOKEN", "").strip()
    if is_set(token):
        check_credential("SYSTEM_ACCESSTOKEN", token, bearer=True)
        username, password = "azure-pipelines", token
        remedy = (
            "the job token of this pipeline was not accepted: in Project settings, Pipelines, Settings, check 'Limit "
            "job authorization scope', and give the project's Build Service the Read permission on the repository"
        )
    else:
        username = _credential(environment, "AZURE_GIT_USERNAME")
        password = _credential(environment, "AZURE_GIT_PASSWORD")
        remedy = (
            "check the pipeline's variables AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD: the credential may be wrong, "
            "expired, without the scope Code (read), or a global token (refused from 1 December 2026 on)"
        )
    url = parse_repository_url("AZURE_REPO_URL", require(environment, "AZURE_REPO_URL"))
    _check_source(environment, url)
    return make_endpoint("source", url, username, password, remedy, bearer=is_set(token))


def password_replica(environment: Mapping[str, str]) -> Endpoint:
    """Return the replica, with the pipeline's Git credential."""
    username = _credential(environment, "AWS_GIT_USERNAME")
    password = _credential(environment, "AWS_GIT_PASSWORD")
    remedy = (
        "check the pipeline's variables AWS_GIT_USERNAME and AWS_GIT_PASSWORD, that the credential is Active in IAM, "
        "and that the user's policy allows codecommit:GitPush on this repository"
    )
    return make_endpoint("replica", replica_url(environment), username, password, remedy)


def replica_url(environment: Mapping[str, str]) -> str:
    """Return the replica's URL; raise MirrorFailure if it is not CodeCommit's, or not the one that the YAML names."""
    url = parse_repository_url("AWS_REPO_URL", require(environment, "AWS_REPO_URL"))
    parts = urllib.parse.urlsplit(url)
    if not (CODECOMMIT.fullmatch(parts.hostname or "") or is_loopback(parts.hostname)):
        raise MirrorFailure(f"AWS_REPO_URL names {parts.hostname}, which is not CodeCommit; correct it.")
    wanted = environment.get("MIRROR_REPLICA", "").strip()
    name = urllib.parse.unquote(parts.path.rpartition("/")[2])
    if wanted and name != wanted:
        raise MirrorFailure(
            f"nothing was changed: AWS_REPO_URL names the repository {sanitize(name)}, but this pipeline's YAML is for "
            f"{sanitize(wanted)}; run 'codecommit-mirror up {sanitize(wanted)}'."
        )
    return url


def _check_source(environment: Mapping[str, str], url: str) -> None:
    """Refuse another source than the one that the YAML names, before any credential goes there."""
    wanted = environment.get("MIRROR_SOURCE", "").strip()
    if wanted and parse_repository_url("MIRROR_SOURCE", wanted) != url:
        raise MirrorFailure(
            f"nothing was changed: AZURE_REPO_URL is {url}, but this pipeline's YAML is for {sanitize(wanted)}; run "
            "'codecommit-mirror up NAME' for its mirror."
        )


def read_settings(
    environment: Mapping[str, str], replica: Callable[[Mapping[str, str]], Endpoint] = password_replica
) -> Settings:
    """Read the settings from environment variables; raise MirrorFailure if one is missing or wrong."""
    days = environment.get("MIRROR_ARCHIVE_DAYS", "90").strip()
    if not re.fullmatch("[0-9]{1,5}", days):
        raise MirrorFailure(f"MIRROR_ARCHIVE_DAYS is {sanitize(days)!r}; give a number of days, or 0 for no archive.")
    names = environment.get("MIRROR_REFS", "heads tags notes").split()
    if any(re.match("(refs|archive)(/|$)", name) for name in names):
        raise MirrorFailure("MIRROR_REFS must name namespaces below refs/, like heads, but not archive; correct it.")
    return Settings(
        _source(environment),
        replica(environment),
        tuple(f"refs/{name}/" for name in names),
        int(days),
        allow_deletions=_is_on(environment, "MIRROR_ALLOW_DELETIONS"),
        replace_history=environment.get("MIRROR_REPLACE_HISTORY", "").strip(),
        source_id=environment.get("MIRROR_SOURCE_ID", "").strip(),
        existing=_is_on(environment, "MIRROR_EXISTING"),
        engine_sha256=_engine_sha256(environment),
    )


def _engine_sha256(environment: Mapping[str, str]) -> str:
    text = environment.get("MIRROR_ENGINE_SHA256", "").strip()
    return text if re.fullmatch("[0-9a-f]{64}", text) else ""


def _is_on(environment: Mapping[str, str], variable: str) -> bool:
    return environment.get(variable, "").strip() in ("1", "true", "True")


def make_endpoint(side: str, url: str, username: str, password: str, remedy: str, *, bearer: bool = False) -> Endpoint:
    """Return an endpoint that signs in with a Bearer token or with Basic authentication."""
    authorization = f"Bearer {password}" if bearer else basic_auth_header(username, password)
    return Endpoint(side, url, authorization, username, password, remedy)


def parse_repository_url(name: str, text: str) -> str:
    """Return a repository's URL with its scheme, and without user and password.

    Raises MirrorFailure, which calls the URL by ``name`` and does not repeat it: it may hold a password.
    """
    scheme, separator, rest = text.rpartition("://")
    scheme = scheme.lower() if separator else "https"
    authority, _, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63})(:[0-9]{1,5})?", host)
    usable = match and int((match.group(2) or ":443")[1:]) < 65536
    # An @ in the path can be the end of a password that contains a slash.
    if (
        not match
        or not usable
        or not path.strip("/")
        or re.search(r"[@?#\\\x00-\x1f]", path)
        or not re.fullmatch("[a-z]+", scheme)
    ):
        raise MirrorFailure(f"{name} is not the URL of a repository; copy the HTTPS clone URL, without user@.")
    if scheme != "https" and not (scheme == "http" and is_loopback(match.group(1).strip("[]"))):
        raise MirrorFailure(f"{name} would send the password over {scheme}, unencrypted; use https://.")
    return f"{scheme}://{host}/" + urllib.parse.quote(path.strip("/"), safe="/%:+,;=!$&'()*~")


def require(environment: Mapping[str, str], variable: str) -> str:
    """Return a variable; raise MirrorFailure if it is not set."""
    value = environment.get(variable, "").strip()
    if is_set(value):
        return value
    raise MirrorFailure(f"the pipeline variable {variable} is not set; add it under Edit, Variables of the pipeline.")


def _credential(environment: Mapping[str, str], variable: str) -> str:
    value = require(environment, variable)
    check_credential(variable, value)
    return value


def check_credential(name: str, value: str, *, bearer: bool = False) -> None:
    """Refuse a credential that cannot be sent, without repeating it.

    A line break would end a header, and http.client's exception would print the rest. A bearer token is visible ASCII
    (RFC 6750, 2.1).
    """
    if not (re.fullmatch("[!-~]+", value) if bearer else value.isprintable()):
        raise MirrorFailure(
            f"{name} contains a line break or another character that a credential cannot contain; copy it again."
        )


def is_set(value: str) -> bool:
    """Whether a variable of the pipeline has a value."""
    # Azure Pipelines leaves the macro of an unknown variable unchanged.
    return bool(value) and not value.startswith("$" + "(")


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is this machine; only such a host may be reached without TLS."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def basic_auth_header(username: str, password: str) -> str:
    """Return the value of an Authorization header for Basic authentication."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
