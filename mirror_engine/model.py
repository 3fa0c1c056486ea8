"""What the engine works with: refs, commands, endpoints, settings, failures, and the outcome of a run.

The settings come from the environment:

    AZURE_REPO_URL, AZURE_GIT_USERNAME, AZURE_GIT_PASSWORD    the source (or SYSTEM_ACCESSTOKEN, the run's own token)
    AWS_REPO_URL, AWS_GIT_USERNAME, AWS_GIT_PASSWORD          the replica
    MIRROR_REFS               which namespaces below refs/ are mirrored: "heads tags notes"
    MIRROR_ARCHIVE_DAYS       how long tips that were deleted or overwritten are kept: 90; 0 turns the archive off
    MIRROR_ALLOW_DELETIONS    1: for this run, skip the check that stops a source which lost most of its refs

Passwords stay in the environment and go out in the Authorization header, only to the host that they belong to.
"""

from __future__ import annotations

import base64
import ipaddress
import random
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Dict, Iterator, Mapping, NamedTuple, Union

from .text import sanitize

NO_OBJECT = "0" * 40
OWN_PREFIX = "refs/tags/codecommit-mirror/"
"""Where the engine keeps its own refs: a namespace that CodeCommit accepts, reports as events and knows in IAM."""
ARCHIVE_PREFIX = f"{OWN_PREFIX}archive/"
"""Tips that a run deleted or overwrote."""
CARRIED_PREFIX = f"{OWN_PREFIX}refs/"
"""Refs outside branches and tags, where the replica does not accept them under their own names."""
CONFIRMED_TAG = f"{OWN_PREFIX}confirmed"
"""An annotated tag that records what a run found equal."""
MAX_ROUNDS = 6

Pack = Union[bytes, Iterator[bytes]]
"""A whole pack, or one that is still arriving."""
Refs = Dict[str, str]
"""Object ids in hexadecimal, by ref name. Bytes that are not UTF-8 are kept as surrogate escapes."""


class MirrorFailure(Exception):
    """Raised when the mirror cannot continue; its text is one sentence with the reason and the remedy."""


class RetryableError(Exception):
    """Raised when a retry may succeed: a connection broke, a server is busy, a ref moved."""

    def __init__(self, reason: str, wait_seconds: float = 0, status: int = 0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.status = status
        """The HTTP status; 0 when the connection broke."""


class PackRefused(Exception):
    """Raised when the replica refused a push as a whole; it may accept a simpler pack."""


class SourceRefused(Exception):
    """Raised when the source did not provide a pack; it may provide a simpler one, or one without a damaged ref."""


class TooLarge(Exception):
    """Raised when a push is too large; smaller pushes may succeed."""


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


@dataclass(frozen=True)
class Settings:
    """What to mirror, and how."""

    source: Endpoint
    replica: Endpoint
    namespaces: tuple[str, ...] = ("refs/heads/", "refs/tags/", "refs/notes/")
    archive_days: int = 90
    allow_deletions: bool = False


class Command(NamedTuple):
    """One ref's change: ``old`` is what the replica must still have; None means that the ref does not exist."""

    ref: str
    old: str | None
    new: str | None


@dataclass
class Advertisement:
    """A server's refs and capabilities (gitprotocol-pack, "Reference Discovery").

    The replica's refs are updated while a run pushes, because later packs can build on what was pushed.
    """

    refs: Refs
    capabilities: tuple[str, ...] = ()

    @property
    def head(self) -> str | None:
        """The branch that HEAD points at, if the server reports it."""
        prefix = "symref=HEAD:"
        return next((word[len(prefix) :] for word in self.capabilities if word.startswith(prefix)), None)


@dataclass
class Outcome:
    """What a run did, and how the two sides compare."""

    equal: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    archived: Refs = field(default_factory=dict)
    """Archive entries that the run created, with the tips that they keep."""
    expired: int = 0
    carried: int = 0
    """Refs outside branches and tags that the replica only has below ``CARRIED_PREFIX``."""
    confirmed: bool = False
    """Whether the confirming tag on the replica records this run."""
    lfs: bool = False
    """Whether the source keeps files in Git LFS, which are not mirrored."""
    needs_attention: dict[str, str] = field(default_factory=dict)
    """Refs that stay different until a person acts, each with the reason and the remedy."""
    broken: dict[str, str] = field(default_factory=dict)
    """Refs that should be equal but are not, each with the reason."""
    bytes_from_source: int = 0
    bytes_to_replica: int = 0
    seconds: float = 0

    @property
    def result(self) -> str:
        """``Succeeded``, ``SucceededWithIssues`` or ``Failed``, as Azure Pipelines names them."""
        return "Failed" if self.broken else "SucceededWithIssues" if self.needs_attention else "Succeeded"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from environment variables; raise MirrorFailure if one is missing or wrong."""
    days = environment.get("MIRROR_ARCHIVE_DAYS", "90").strip()
    if not re.fullmatch("[0-9]{1,5}", days):
        raise MirrorFailure(f"MIRROR_ARCHIVE_DAYS is {sanitize(days)!r}; give a number of days, or 0 for no archive.")
    names = environment.get("MIRROR_REFS", "heads tags notes").split()
    if any(re.match("(refs|archive)(/|$)", name) for name in names):
        raise MirrorFailure("MIRROR_REFS must name namespaces below refs/, like heads, but not archive; correct it.")
    return Settings(
        _source(environment),
        _replica(environment),
        tuple(f"refs/{name}/" for name in names),
        int(days),
        environment.get("MIRROR_ALLOW_DELETIONS", "").strip() in ("1", "true", "True"),
    )


def _source(environment: Mapping[str, str]) -> Endpoint:
    token = environment.get("SYSTEM_ACCESSTOKEN", "").strip()
    if _is_set(token):
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
            "check the pipeline's variables AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD: the Git credentials or personal "
            "access token may be wrong, expired or global (global tokens stop working on 1 December 2026); the scope "
            "needed is Code (read)"
        )
    url = parse_repository_url("AZURE_REPO_URL", _required(environment, "AZURE_REPO_URL"))
    return make_endpoint("source", url, username, password, remedy, bearer=_is_set(token))


def _replica(environment: Mapping[str, str]) -> Endpoint:
    username = _credential(environment, "AWS_GIT_USERNAME")
    password = _credential(environment, "AWS_GIT_PASSWORD")
    remedy = (
        "check the pipeline's variables AWS_GIT_USERNAME and AWS_GIT_PASSWORD, that the credential is Active in IAM, "
        "and that the user's policy allows codecommit:GitPush on this repository"
    )
    url = parse_repository_url("AWS_REPO_URL", _required(environment, "AWS_REPO_URL"))
    return make_endpoint("replica", url, username, password, remedy)


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


def _required(environment: Mapping[str, str], variable: str) -> str:
    value = environment.get(variable, "").strip()
    if not _is_set(value):
        raise MirrorFailure(
            f"the pipeline variable {variable} is not set; add it under Edit, Variables of the pipeline."
        )
    return value


def _credential(environment: Mapping[str, str], variable: str) -> str:
    value = _required(environment, variable)
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


def _is_set(value: str) -> bool:
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


def retry_delay(error: RetryableError, number: int) -> float:
    """Return the seconds to wait before the next try: what the server asked for, or twice as long each time."""
    return max(error.wait_seconds, random.uniform(0.5, 1) * float(2**number))
