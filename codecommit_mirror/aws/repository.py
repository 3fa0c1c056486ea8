"""A replica: its CodeCommit repository, and what its tags and those of its writer say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3

from .. import engine_api
from ..config.ci import REPLICA
from ..config.mirror import Mirror
from ..errors import MirrorError, NotFoundError
from ..guard.names import ARCHIVE_DAYS_TAG, WRITER_TAG
from .session import aws_failures, client

if TYPE_CHECKING:
    from mypy_boto3_codecommit import CodeCommitClient
    from mypy_boto3_codecommit.type_defs import RepositoryMetadataTypeDef
    from mypy_boto3_iam.type_defs import TagTypeDef


@dataclass(frozen=True)
class TaggedReplica:
    """A replica that another CDK app deploys."""

    clone_url: str
    arn: str
    tags: Mapping[str, str]
    user_name: str | None
    """Who pushes to it; None if a role does."""
    role_arn: str | None
    """Who pushes to it; None if a user does."""


def find_tagged(aws: boto3.Session, mirror: Mirror) -> TaggedReplica | None:
    """Return the replica of a mirror that another CDK app deploys, or None if there is none.

    The repository's tag names its writer, and the writer's tag names the repository: so nobody who may only tag
    repositories can name a user or a role that is not the replica's.

    Raises:
        MirrorError: the two ends contradict each other or mirrors.yaml, or a call failed.
    """
    codecommit = client(aws, "codecommit")
    with aws_failures(f"look for the repository {mirror.name}"):
        metadata = _metadata(codecommit, mirror.name)
        if metadata is None:
            return None
        arn, url = metadata.get("Arn", ""), metadata.get("cloneUrlHttp", "")
        tags = codecommit.list_tags_for_resource(resourceArn=arn)["tags"]
    if tags.get(REPLICA) != mirror.name:
        return None
    if (days := tags.get(ARCHIVE_DAYS_TAG)) != str(mirror.archive_days):
        raise MirrorError(
            f"the app that deploys {mirror.name} keeps its archive for {days} days, but mirrors.yaml says "
            f"archive_days: {mirror.archive_days}; give both the same."
        )
    # A tag of CodeCommit has no commas, and a name of IAM has no colons.
    named = tags.get(WRITER_TAG, "").replace(":", ",")
    match = re.search(rf"(?:^| ){mirror.replica_auth}/(\S+)", named)
    if match is None:
        raise MirrorError(
            f"mirrors.yaml says replica_auth: {mirror.replica_auth}, but to {mirror.name} pushes {named or 'nobody'}, "
            "as its tags say; correct one of them."
        )
    writer = match[1]
    own, role_arn = _writer(aws, mirror, writer)
    if arn not in [tag["Value"] for tag in own if tag["Key"] == REPLICA]:
        raise MirrorError(
            f"the tags of {mirror.name} name the {mirror.replica_auth} {writer!r}, whose tag {REPLICA} does not name "
            f"{arn}; if it is the replica's, deploy the app that has both."
        )
    return TaggedReplica(url, arn, tags, writer if mirror.replica_auth == "user" else None, role_arn)


def _writer(aws: boto3.Session, mirror: Mirror, name: str) -> tuple[Sequence[TagTypeDef], str | None]:
    """Return the tags of who pushes to a replica, and the ARN of a role."""
    iam = client(aws, "iam")
    try:
        with aws_failures(f"look for the {mirror.replica_auth} {name}"):
            if mirror.replica_auth == "user":
                return iam.list_user_tags(UserName=name)["Tags"], None
            return iam.list_role_tags(RoleName=name)["Tags"], iam.get_role(RoleName=name)["Role"]["Arn"]
    except NotFoundError:
        raise MirrorError(
            f"the tags of {mirror.name} name the {mirror.replica_auth} {name!r}, which does not exist; deploy the app "
            "that has both."
        ) from None


def not_found_elsewhere(mirror: Mirror, region: str) -> str:
    """Return the sentence for a mirror that another CDK app should have deployed."""
    return (
        f"mirrors.yaml says deployed: elsewhere, but in region {region} of this account no CodeCommit repository "
        f"{mirror.name!r} has the tag {REPLICA}: {mirror.name}; deploy the app that has its Replica first."
    )


def find_clone_url(aws: boto3.Session, name: str) -> str | None:
    """Return the HTTPS clone URL of a repository in the session's region (GetRepository), or None.

    Raises:
        MirrorError: the call failed.
    """
    with aws_failures(f"look for the repository {name}"):
        metadata = _metadata(client(aws, "codecommit"), name)
    return str(metadata.get("cloneUrlHttp")) if metadata else None


def _metadata(codecommit: CodeCommitClient, name: str) -> RepositoryMetadataTypeDef | None:
    try:
        return codecommit.get_repository(repositoryName=name)["repositoryMetadata"]
    except codecommit.exceptions.RepositoryDoesNotExistException:
        return None


def tag_replica(aws: boto3.Session, arn: str, tags: Mapping[str, str]) -> None:
    """Give a repository that the stack does not own the tags by which the guard knows it (TagResource).

    Raises:
        MirrorError: the call failed.
    """
    with aws_failures(f"tag the repository {arn}"):
        client(aws, "codecommit").tag_resource(resourceArn=arn, tags=dict(tags))


def untag_replica(aws: boto3.Session, mirror: Mirror) -> None:
    """Take the guard's tags from a repository that stays, if it exists (UntagResource).

    Raises:
        MirrorError: a call failed.
    """
    codecommit = client(aws, "codecommit")
    with aws_failures(f"untag the repository {mirror.name}"):
        if metadata := _metadata(codecommit, mirror.name):
            codecommit.untag_resource(resourceArn=metadata.get("Arn", ""), tagKeys=list(mirror.replica_tags))


def missing_repository(mirror: Mirror) -> str:
    """Return the sentence for a deployed stack whose repository does not exist."""
    if mirror.existing:
        return (
            f"mirrors.yaml says existing: true, but there is no CodeCommit repository {mirror.name!r} in this region; "
            f"create it with 'aws codecommit create-repository --repository-name {mirror.name}', or correct the name."
        )
    return (
        f"the CodeCommit repository {mirror.name!r} of the stack {mirror.stack_name!r} was deleted by hand, which "
        f"CloudFormation does not notice; run 'codecommit-mirror down {mirror.name}' (or 'cdk destroy {mirror.name}'), "
        f"then 'codecommit-mirror up {mirror.name}', which copies everything that the source has."
    )


def is_clone_url(url: str, region: str, name: str) -> bool:
    """Whether a URL is that of a repository in CodeCommit, or in the embedded cloud on this machine."""
    parts = urlsplit(url)
    place = parts.path.lstrip("/") if engine_api.is_loopback(parts.hostname) else f"{parts.netloc}{parts.path}"
    host = rf"git-codecommit(-fips)?\.{re.escape(region)}\.amazonaws\.com(\.cn)?"
    return re.fullmatch(rf"{host}/v1/repos/{re.escape(name)}", place) is not None
