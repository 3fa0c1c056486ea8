"""Find the replicas of the account and region by the tags that each mirror's stack gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...engine.failures import RetryableError
from ...engine.settings import Endpoint
from ...engine.wire.role import sign
from ..names import ARCHIVE_DAYS_TAG, REPLICA_TAG, WRITER_TAG
from ..vault.ref_list import MAX_LIST_BYTES
from .git_access import Advertised, endpoint, read_patiently

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_codecommit import CodeCommitClient
    from mypy_boto3_resourcegroupstaggingapi import ResourceGroupsTaggingAPIClient

_TRIES = 5
_RESOURCE_TYPE = "codecommit:repository"


@dataclass(frozen=True)
class Replica:
    """A replica, as its tags describe it."""

    name: str
    arn: str
    writer: str
    """The mirror's own user or role; both, with a space between them, while the pipeline changes to the other one."""
    archive_days: int

    @property
    def tags(self) -> str:
        """What the guard goes by, for people."""
        return f"writer {self.writer}, archive kept {self.archive_days} days"

    def is_writer(self, caller: str) -> bool:
        """Whether an ARN is that of the mirror's own user, or of a session of its own role."""
        return any(self._is(writer, caller) for writer in self.writer.replace(":", ",").split())

    def _is(self, writer: str, caller: str) -> bool:
        kind, _, name = writer.partition("/")
        account = self.arn.split(":")[4]
        head, _, who = caller.partition(f"::{account}:")
        if kind == "role":
            return head.endswith(":sts") and who.rpartition("/")[0] == f"assumed-role/{name}"
        return head.endswith(":iam") and who.partition("/")[0] == "user" and who.rpartition("/")[2] == name


def from_tags(arn: str, tags: Mapping[str, str]) -> Replica | None:
    """Return the replica that a repository's tags describe; None if it is not a mirror's."""
    if REPLICA_TAG not in tags or WRITER_TAG not in tags:
        return None
    days = tags.get(ARCHIVE_DAYS_TAG, "")
    return Replica(arn.rpartition(":")[2], arn, tags[WRITER_TAG], int(days) if re.fullmatch("[0-9]{1,5}", days) else 0)


def find_all(tagging: ResourceGroupsTaggingAPIClient) -> Iterator[Replica]:
    """Yield every replica; one call for each hundred of them (GetResources)."""
    pages = tagging.get_paginator("get_resources").paginate(
        ResourceTypeFilters=[_RESOURCE_TYPE], TagFilters=[{"Key": REPLICA_TAG}]
    )
    for page in pages:
        yield from _replicas(page["ResourceTagMappingList"])


def find(tagging: ResourceGroupsTaggingAPIClient, arn: str) -> Replica | None:
    """Return one replica by its ARN; None if the repository is not a mirror's."""
    return next(_replicas(tagging.get_resources(ResourceARNList=[arn])["ResourceTagMappingList"]), None)


def _replicas(mappings: object) -> Iterator[Replica]:
    for mapping in mappings:  # type: ignore[attr-defined]
        tags = {tag["Key"]: tag["Value"] for tag in mapping["Tags"]}
        if replica := from_tags(mapping["ResourceARN"], tags):
            yield replica


@dataclass(frozen=True)
class Access:
    """Where a replica is, and how to sign in to it."""

    head: str | None
    """The default branch as a full ref name, if there is one."""
    id: str = field(kw_only=True, default="")
    """The repository's; one that is created again under the same name has another one."""
    modified: object = field(kw_only=True, default=None)
    """When the repository was last modified, by its own clock."""
    endpoint: Callable[[], Endpoint]
    """Returns the endpoint with a new password, which is valid for 15 minutes."""


def open_replica(session: boto3.Session, codecommit: CodeCommitClient, replica: Replica) -> Access:
    """Look a replica up (GetRepository)."""
    metadata = codecommit.get_repository(repositoryName=replica.name)["repositoryMetadata"]
    branch, url, region = metadata.get("defaultBranch"), metadata["cloneUrlHttp"], replica.arn.split(":")[3]

    def sign_in() -> Endpoint:
        credentials = session.get_credentials().get_frozen_credentials()  # type: ignore[union-attr]
        user, password = sign(url, region, str(credentials.access_key), str(credentials.secret_key), credentials.token)
        return endpoint(url, user, password)

    head = f"refs/heads/{branch}" if branch else None
    return Access(head, sign_in, id=str(metadata["repositoryId"]), modified=metadata.get("lastModifiedDate"))


def read_replica(
    session: boto3.Session, codecommit: CodeCommitClient, replica: Replica, limit: int = MAX_LIST_BYTES
) -> tuple[Access, Advertised]:
    """Return a replica and its refs, which are read by its name: of one repository, before and after.

    Args:
        session: signs in.
        codecommit: a client.
        replica: which.
        limit: bytes of the list that are read.

    Raises:
        RetryableError: another repository has had its name meanwhile.
        AnswerTooLarge, MirrorFailure: as ``read_patiently``.
    """
    access = open_replica(session, codecommit, replica)
    for _ in range(_TRIES):
        advertised = read_patiently(access.endpoint, limit)
        before, access = access, open_replica(session, codecommit, replica)
        if (before.id, before.modified) == (access.id, access.modified):
            return access, advertised
    if before.id != access.id:
        raise RetryableError(f"another repository has had the name {replica.name} while its refs were read")
    # Whoever pushes all the time stops no look.
    return access, advertised
