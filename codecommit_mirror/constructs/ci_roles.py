"""The roles with which CI provisions the mirrors: a read-only one, for pull requests, and one that deploys."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, DefaultStackSynthesizer, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.ci import PROVISIONED_FROM, QUALIFIER_KEY, REPLICA
from ..config.guard import VAULT_STACK_NAME
from ..config.mirror import RECORD_TAGS
from .federated_role import FederatedRole
from .identity_provider import provider_arn_of
from .nag_suppressions import acknowledge
from .vault.vault import reading

_OURS = {"StringEquals": {"aws:ResourceTag/managed-by": "codecommit-mirror"}}


class CiRoles(Construct):
    """Two roles that trust a CI service.

    A pull request can change what its own jobs do, so that its role may read stacks and templates, and nothing else.
    The other role only trusts what runs on the deployed branch. It may assume CDK's bootstrap roles, as a person with
    ``cdk deploy`` does, and delete stacks that were provisioned from here.

    Attributes:
        diff: the role for pull requests.
        deploy: the role that deploys.

    Args:
        owner: the repository that holds mirrors.yaml, as ``ci.owner`` names it: whose stacks may be deleted.
        issuer: who signs the jobs' tokens, ``https://...``.
        audience: whom the tokens are for.
        diff_subjects: the tokens' subjects that may read, without wildcards.
        deploy_subjects: those that may deploy and delete.
        provider: the account's identity provider. Default: the one that it has for this issuer, in whatever stack.
        diff_name: the reading role's name. Default: a generated one.
        deploy_name: the deploying role's name. Default: a generated one.
        reads_snapshots: whether scheduled runs restore snapshots, to see that they can.
        vault_buckets: the pattern of the vault's bucket.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        issuer: str,
        audience: str,
        diff_subjects: Sequence[str],
        deploy_subjects: Sequence[str],
        provider: iam.IOidcProvider | None = None,
        diff_name: str | None = None,
        deploy_name: str | None = None,
        reads_snapshots: bool = False,
        vault_buckets: str = f"{VAULT_STACK_NAME}-*",
    ) -> None:
        super().__init__(scope, construct_id)
        self._owner, self._buckets = owner, vault_buckets
        provider_arn = provider.oidc_provider_arn if provider else provider_arn_of(Stack.of(self), issuer)
        bootstrap_roles = [self._bootstrap_role(kind) for kind in ("deploy", "file-publishing")]
        looking = self._looking()
        deploying = self._deploying(bootstrap_roles) + (self._restoring() if reads_snapshots else [])

        def role(
            kind: str, name: str | None, does: str, subjects: Sequence[str], may: list[iam.PolicyStatement]
        ) -> iam.Role:
            return FederatedRole(
                self,
                kind,
                name=name,
                description=does,
                provider_arn=provider_arn,
                issuer=issuer,
                audience=audience,
                subjects=subjects,
                policy=iam.ManagedPolicy(self, f"{kind}Policy", description=does, statements=may),
            ).role

        self.diff = role("Diff", diff_name, "Shows what a pull request would change.", diff_subjects, looking)
        self.deploy = role("Deploy", deploy_name, "Deploys and deletes replicas.", deploy_subjects, looking + deploying)
        self._accept_wildcards(bootstrap_roles)

    def _accept_wildcards(self, bootstrap_roles: Sequence[str]) -> None:
        vault = [arn for _, arns in self._snapshots() for arn in arns]
        wildcards = {
            "*": "Listing stacks and repositories, and reading quotas, cannot be limited to a resource.",
            self._stacks(): "Mirrors come and go; deletion is limited by the stack's tag.",
            self._roles(): "Mirrors come and go; reading and recording is limited to roles with the mirrors' tag.",
            self._replicas(): "Mirrors come and go; reading is limited to repositories with the replicas' tag.",
            **dict.fromkeys(vault, "The vault's bucket and key have generated names; a public key is no secret."),
            **dict.fromkeys(bootstrap_roles, "The bootstrap roles of every region of the account."),
        }
        findings = {f"IAM5[Resource::{_as_cdk_nag_shows(arn)}]": why for arn, why in wildcards.items()}
        acknowledge(self, findings, packs=["AwsSolutions"])

    def _looking(self) -> list[iam.PolicyStatement]:
        """Return what both roles may do: read stacks and templates."""
        return [
            # None of these takes a resource.
            iam.PolicyStatement(
                actions=[
                    "cloudformation:DescribeStacks",
                    "codecommit:ListRepositories",
                    "iam:GetAccountSummary",
                    "servicequotas:GetServiceQuota",
                ],
                resources=["*"],
            ),
            iam.PolicyStatement(
                actions=["cloudformation:GetTemplate"],
                resources=[self._stacks()],
                conditions=_OURS,
            ),
            # Which pipeline is a mirror's.
            iam.PolicyStatement(actions=["iam:ListRoleTags"], resources=[self._roles()], conditions=_OURS),
        ]

    def _deploying(self, bootstrap_roles: list[str]) -> list[iam.PolicyStatement]:
        """Return what the deploying role may do in addition."""
        return [
            iam.PolicyStatement(actions=["sts:AssumeRole"], resources=bootstrap_roles),
            # To compare a new replica with its source.
            iam.PolicyStatement(
                actions=["codecommit:GetRepository", "codecommit:GitPull"],
                resources=[self._replicas()],
                conditions={"Null": {f"aws:ResourceTag/{REPLICA}": "false"}},
            ),
            iam.PolicyStatement(
                actions=["iam:TagRole"],
                resources=[self._roles()],
                conditions={
                    "StringEquals": {f"aws:ResourceTag/{PROVISIONED_FROM}": self._owner},
                    "ForAllValues:StringEquals": {"aws:TagKeys": list(RECORD_TAGS)},
                },
            ),
            iam.PolicyStatement(
                actions=["cloudformation:DeleteStack", "cloudformation:DescribeStackEvents"],
                resources=[self._stacks()],
                conditions={"StringEquals": {f"aws:ResourceTag/{PROVISIONED_FROM}": self._owner}},
            ),
        ]

    def _restoring(self) -> list[iam.PolicyStatement]:
        """Return what a drill needs: reading the guard's snapshots, their locks and the key that verifies them."""
        return [iam.PolicyStatement(actions=actions, resources=arns) for actions, arns in self._snapshots()]

    def _snapshots(self) -> list[tuple[list[str], list[str]]]:
        bucket = f"arn:{Aws.PARTITION}:s3:::{self._buckets}"
        return reading(bucket, f"arn:{Aws.PARTITION}:kms:*:{Aws.ACCOUNT_ID}:key/*")

    def _replicas(self) -> str:
        return f"arn:{Aws.PARTITION}:codecommit:*:{Aws.ACCOUNT_ID}:*"

    def _roles(self) -> str:
        return f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/*"

    def _stacks(self) -> str:
        return f"arn:{Aws.PARTITION}:cloudformation:*:{Aws.ACCOUNT_ID}:stack/*"

    def _bootstrap_role(self, kind: str) -> str:
        keys = (QUALIFIER_KEY, "@aws-cdk/core:bootstrapQualifier")
        given = filter(None, (self.node.try_get_context(key) for key in keys))
        qualifier = next(given, DefaultStackSynthesizer.DEFAULT_QUALIFIER)
        account = Aws.ACCOUNT_ID
        return f"arn:{Aws.PARTITION}:iam::{account}:role/cdk-{qualifier}-{kind}-role-{account}-*"


def _as_cdk_nag_shows(arn: str) -> str:
    return arn.replace(Aws.PARTITION, "<AWS::Partition>").replace(Aws.ACCOUNT_ID, "<AWS::AccountId>")
