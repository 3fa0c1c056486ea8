"""Are both sides equal? Read with the operator's own tokens, so that no password of the pipeline is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import boto3

from pipeline_templates import mirror_sync

from ..aws.git_signature import sign
from ..azure.token import AzureToken
from ..config.mirror import Mirror
from ..errors import MirrorError


@dataclass(frozen=True)
class Comparison:
    """The refs of both sides, those that are mirrored."""

    source: Mapping[str, str]
    replica: Mapping[str, str]
    """By the source's names."""
    carried: int = 0
    """How many of them the replica only takes below its own prefix."""

    @property
    def different(self) -> list[str]:
        """The names of the refs that are not equal."""
        names = {*self.source, *self.replica}
        return sorted(name for name in names if self.source.get(name) != self.replica.get(name))


def source_endpoint(mirror: Mirror, token: AzureToken) -> mirror_sync.Endpoint:
    """Return the source as the operator reaches it."""
    return _endpoint("source", mirror.azure.clone_url, "operator", token.secret, token.bearer, f"check {token.origin}")


def replica_endpoint(aws: boto3.Session, replica_url: str) -> mirror_sync.Endpoint:
    """Return the replica as the operator reaches it."""
    user, password = sign(aws, replica_url)
    remedy = "your AWS credentials need codecommit:GitPull on this repository"
    return _endpoint("replica", replica_url, user, password, False, remedy)


def password_endpoint(replica_url: str, user_name: str, password: str) -> mirror_sync.Endpoint:
    """Return the replica as the pipeline reaches it."""
    return _endpoint("replica", replica_url, user_name, password, False, "the credential is not accepted")


def compare(mirror: Mirror, replica_url: str, aws: boto3.Session, token: AzureToken) -> Comparison:
    """Read both sides.

    Raises:
        MirrorError: a side cannot be read.
    """
    namespaces = tuple(f"refs/{name}/" for name in mirror.refs)
    settings = mirror_sync.Settings(source_endpoint(mirror, token), replica_endpoint(aws, replica_url), namespaces)
    with engine_failures():
        return Comparison(*mirror_sync.compare(settings, "git-upload-pack"))


def replica_refs(aws: boto3.Session, replica_url: str) -> Mapping[str, str]:
    """Return every ref of the replica, its own included.

    Raises:
        MirrorError: it cannot be read.
    """
    with engine_failures():
        return mirror_sync.read_refs_patiently(replica_endpoint(aws, replica_url), "git-upload-pack").refs


@contextmanager
def engine_failures() -> Iterator[None]:
    """Turn what the engine says into this program's own error."""
    try:
        yield
    except mirror_sync.MirrorFailure as failure:
        raise MirrorError(str(failure)) from None
    except mirror_sync.Transient as failure:
        raise MirrorError(f"{failure}; run again.") from None


def _endpoint(side: str, url: str, user: str, password: str, bearer: bool, remedy: str) -> mirror_sync.Endpoint:
    with engine_failures():
        mirror_sync.check_credential(f"the password for the {side}", password, bearer=bearer)
        mirror_sync.check_credential(f"the user name for the {side}", user)
    url = mirror_sync.repository_url("url", {"url": url})
    authorization = f"Bearer {password}" if bearer else mirror_sync.basic(user, password)
    return mirror_sync.Endpoint(side, url, authorization, user, password, remedy)
