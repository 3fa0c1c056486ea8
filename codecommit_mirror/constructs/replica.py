"""A replica: a CodeCommit repository, and who may push to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Aws, RemovalPolicy, Tags, Token
from aws_cdk import aws_codecommit as codecommit
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.azure_url import parse_clone_url
from ..config.mirror import RECORD_TAGS, check_replica_name, pipeline_name
from ..errors import ConfigurationError
from ..guard.names import ARCHIVE_DAYS_TAG, REPLICA_TAG, WRITER_TAG
from .credential_cleanup import CredentialCleanup
from .push_access import PipelineRole, PipelineUser, PushAccess


class Replica(Construct):
    """A repository that the pipeline of a mirror pushes to, and nobody else.

    Its tags say that it is a replica, and who pushes to it: by them the guard watches it, and ``codecommit-mirror up``
    connects a mirror whose entry in mirrors.yaml says ``deployed: elsewhere``. A user's Git credentials, which ``up``
    issues, are removed when the stack goes.

    Attributes:
        repository: the replica.
        policy: allows nothing but pushing to it.
        user: who pushes; None if only a role does.
        role: who pushes, with tokens of its own; None if only a user does.
        token_subjects: the pipelines whose tokens the role trusts.

    Args:
        repository_name: the replica's name, 1 to 100 of ``[A-Za-z0-9_.-]``: a literal, since ``up`` looks for it.
        source_url: the source's clone URL, which the description shows and a role's subject is made of.
        repository: an existing repository of that name, which is not deleted. One that is not in the same app is not
            tagged by CloudFormation either.
        description: what the console shows, at most 1,000 characters. Default: that it is a replica of ``source_url``.
        removal_policy: what becomes of a repository that the construct creates.
        archive_days: how long deleted and overwritten tips stay, as in mirrors.yaml.
        user: the user who pushes. Default: one with a generated name, unless there is a role.
        role: the role that pushes. Default: none.
        policy_name: unique in the account. Default: a generated name.

    Raises:
        MirrorError: a name or the URL is wrong, or a role has no subject.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        repository_name: str,
        source_url: str | None = None,
        repository: codecommit.IRepository | None = None,
        description: str | None = None,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
        archive_days: int = 90,
        user: PipelineUser | None = None,
        role: PipelineRole | None = None,
        policy_name: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        if Token.is_unresolved(repository_name):
            raise ConfigurationError("repository_name is a token; write the name itself, by which 'up' finds it.")
        check_replica_name(repository_name)
        what = f"Read-only replica of {source_url}." if source_url else "Read-only replica."
        self.repository: codecommit.IRepository = repository or self._create(
            repository_name,
            description or f"{what} Do not push here: the next mirror run overwrites it.",
            removal_policy,
        )
        arn = self._arn = f"arn:{Aws.PARTITION}:codecommit:{Aws.REGION}:{Aws.ACCOUNT_ID}:{repository_name}"
        self.token_subjects = _subjects(role, source_url, repository_name)
        access = PushAccess(
            self,
            "PushAccess",
            repository_arn=arn,
            policy_name=policy_name,
            user=user if user or role else PipelineUser(),
            role=role,
            subjects=self.token_subjects,
        )
        self.policy: iam.ManagedPolicy = access.policy
        self.user: iam.User | None = access.user
        self.role: iam.Role | None = access.role
        self._keep_until_last(access.writers)
        if self.user:
            CredentialCleanup(self, "Cleanup", user=self.user)
        self._tag(access.writers, archive_days, repository_name)

    def _keep_until_last(self, writers: str) -> None:
        """Let the repository go last: if a deletion stops at its writer, it is still there.

        Where the writer's name is generated, the repository's tag refers to it, so that it goes first.
        """
        if not Token.is_unresolved(writers):
            self.policy.node.add_dependency(self.repository)

    def _tag(self, writers: str, archive_days: int, repository_name: str) -> None:
        for key, value in ((WRITER_TAG, writers), (ARCHIVE_DAYS_TAG, str(archive_days))):
            Tags.of(self.repository).add(key, value)
        # A higher priority than that of a stack's own tags.
        Tags.of(self.repository).add(REPLICA_TAG, repository_name, priority=_OVER_THE_STACKS)
        for writer in filter(None, (self.user, self.role)):
            Tags.of(writer).add(REPLICA_TAG, self._arn, priority=_OVER_THE_STACKS)
        Tags.of(self).add("managed-by", "codecommit-mirror")

    def _create(self, name: str, description: str, removal_policy: RemovalPolicy) -> codecommit.Repository:
        repository = codecommit.Repository(self, "Repository", repository_name=name, description=description)
        repository.apply_removal_policy(removal_policy)
        return repository

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let somebody clone and fetch the replica.

        Args:
            grantee: a role, a user or a group.
        """
        return self.repository.grant_pull(grantee)

    def grant_connect(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let somebody connect the replica with ``codecommit-mirror up``: a person's role.

        ``up`` reads the replica, to compare both sides, and what else who pushes may do; it records the pipeline in
        the tags of who pushes; and it issues and revokes a user's Git credentials. So whoever has it may read such a
        credential, and say which pipeline gets one: with a user it is not for a CI job, which stores no secret anyway.

        Args:
            grantee: a role, a user or a group.
        """
        record = {"ForAllValues:StringEquals": {"aws:TagKeys": list(RECORD_TAGS)}}
        grant = self._grant(grantee, ["GetRepository", "GitPull", "ListTagsForResource"], self._arn, "codecommit")
        if self.user:
            credentials = [f"{verb}ServiceSpecificCredential" for verb in ("Create", "Delete", "Update")]
            reading = [f"List{what}" for what in _OF_A_USER]
            reading += ["GetLoginProfile"]
            grant = grant.combine(self._grant(grantee, [*credentials, *reading], self.user.user_arn))
            grant = grant.combine(self._grant(grantee, ["TagUser"], self.user.user_arn, conditions=record))
        if self.role:
            grant = grant.combine(self._grant(grantee, _OF_A_ROLE, self.role.role_arn))
            grant = grant.combine(self._grant(grantee, ["TagRole"], self.role.role_arn, conditions=record))
        reading = ["GetPolicy", "GetPolicyVersion"]
        return grant.combine(self._grant(grantee, reading, self.policy.managed_policy_arn))

    @staticmethod
    def _grant(
        grantee: iam.IGrantable,
        actions: Sequence[str],
        arn: str,
        service: str = "iam",
        conditions: Mapping[str, Mapping[str, object]] | None = None,
    ) -> iam.Grant:
        named = [f"{service}:{action}" for action in actions]
        only = {"conditions": {kind: dict(keys) for kind, keys in conditions.items()}} if conditions else {}
        return iam.Grant.add_to_principal(grantee=grantee, actions=named, resource_arns=[arn], **only)


_OF_A_USER = (
    "AccessKeys",
    "AttachedUserPolicies",
    "GroupsForUser",
    "SSHPublicKeys",
    "ServiceSpecificCredentials",
    "UserPolicies",
    "UserTags",
)
_OF_A_ROLE = ("GetRole", "ListAttachedRolePolicies", "ListRolePolicies", "ListRoleTags")
"""What ``up`` reads, since nobody who may do more than push gets credentials."""
_OVER_THE_STACKS = 200
"""https://docs.aws.amazon.com/cdk/v2/guide/tagging.html: ``Tags.of`` of a stack has 100."""


def _subjects(role: PipelineRole | None, source_url: str | None, replica: str) -> tuple[str, ...]:
    """Return whose tokens a role trusts: those of the mirror's own pipeline, if it does not say so."""
    if role is None or role.subjects:
        return tuple(role.subjects) if role else ()
    if source_url is None:
        raise ConfigurationError(f"the role of {replica} has no subjects; give source_url, or the role's subjects.")
    source = parse_clone_url(source_url)
    return (f"p://{source['organization']}/{source['project']}/{pipeline_name(replica)}",)
