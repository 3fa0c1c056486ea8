"""The replica: a CodeCommit repository that only the pipeline writes to."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import RemovalPolicy, Tags
from aws_cdk import aws_codecommit as codecommit
from constructs import Construct


class ReplicaRepository(Construct):
    """A CodeCommit repository with an explicit deletion policy, or an existing one.

    CloudFormation cannot import repositories: one that it did not create is only referred to, and never deleted.

    Args:
        name: the repository's name, 1 to 100 of ``[A-Za-z0-9_.-]``.
        description: what the console shows, at most 1,000 characters.
        existing: refer to an existing repository.
        retain: keep the repository and its history when the stack is destroyed.
        tags: by which the guard knows the repository as a replica.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        description: str,
        existing: bool,
        retain: bool,
        tags: Mapping[str, str],
    ) -> None:
        super().__init__(scope, construct_id)
        if existing:
            repository = codecommit.Repository.from_repository_name(self, "Repository", name)
            self.arn, self.clone_url = repository.repository_arn, repository.repository_clone_url_http
            return
        repository = codecommit.Repository(self, "Repository", repository_name=name, description=description)
        repository.apply_removal_policy(RemovalPolicy.RETAIN if retain else RemovalPolicy.DESTROY)
        for key, value in tags.items():
            Tags.of(repository).add(key, value)
        self.arn = repository.repository_arn
        self.clone_url = repository.repository_clone_url_http
