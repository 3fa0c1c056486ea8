"""The roles with which CI provisions the mirrors: a read-only one, for pull requests, and one that deploys."""

from __future__ import annotations

from aws_cdk import CfnOutput, DefaultStackSynthesizer, Environment, Stack, Tags
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.ci import PROVISIONED_FROM, REPLICA, Ci
from ..config.guard import VAULT_STACK_NAME
from ..config.mirror import RECORD_TAGS
from .federated_role import FederatedRole
from .identity_stack import provider_arn_of
from .nag_suppressions import acknowledge
from .replica_stack import QUALIFIER_KEY

_OURS = {"StringEquals": {"aws:ResourceTag/managed-by": "codecommit-mirror"}}


class DeployRoleStack(Stack):
    """Two roles that trust the CI service, and an identity provider for GitHub, unless the account has it.

    The provider for Azure Pipelines is in ``IdentityStack``, since the mirrors' own roles may trust it too.

    A pull request can change what its own jobs do, so that its role may read stacks and templates, and nothing else.
    The other role only trusts what runs on the deployed branch. It may assume CDK's bootstrap roles, as a person with
    ``cdk deploy`` does, and delete stacks that were provisioned from here.

    Outputs: ``DiffRoleArn``, ``DeployRoleArn``.

    Args:
        ci: the section ``ci`` of ``mirrors.yaml``.
        reads_snapshots: whether scheduled runs restore snapshots, to see that they can.
    """

    def __init__(self, scope: Construct, *, ci: Ci, reads_snapshots: bool = False) -> None:
        super().__init__(
            scope,
            ci.stack_name,
            stack_name=ci.stack_name,
            description=f"Roles with which {ci.owner} provisions CodeCommit replicas",
            env=Environment(account=ci.account, region=ci.region),
        )
        trust = ci.trust
        provider_arn = ci.provider_arn
        if provider_arn is None and ci.github:
            provider = iam.OidcProviderNative(self, "Provider", url=trust.issuer, client_ids=[trust.audience])
            provider_arn = provider.oidc_provider_arn
        elif provider_arn is None:
            provider_arn = provider_arn_of(self, trust.issuer)
        bootstrap_roles = [self._bootstrap_role(kind) for kind in ("deploy", "file-publishing")]
        looking = self._looking()
        deploying = self._deploying(ci, bootstrap_roles) + (self._restoring() if reads_snapshots else [])
        for construct_id, name, description, subjects, statements in (
            ("Diff", ci.diff_role, "Shows what a pull request would change.", trust.diff, looking),
            ("Deploy", ci.deploy_role, "Deploys and deletes replicas.", trust.deploy, looking + deploying),
        ):
            policy = iam.ManagedPolicy(self, f"{construct_id}Policy", description=description, statements=statements)
            federated = FederatedRole(
                self,
                construct_id,
                name=name,
                description=description,
                provider_arn=provider_arn,
                issuer=trust.issuer,
                audience=trust.audience,
                subjects=subjects,
                policy=policy,
            )
            CfnOutput(self, f"{construct_id}RoleArn", value=federated.role.role_arn, description=description)
        Tags.of(self).add("managed-by", "codecommit-mirror")
        bucket, objects, keys = self._snapshots()
        wildcards = {
            "*": "Listing stacks and repositories, and reading quotas, cannot be limited to a resource.",
            self._stacks(): "Mirrors come and go; deletion is limited by the stack's tag.",
            self._roles(): "Mirrors come and go; reading and recording is limited to roles with the mirrors' tag.",
            self._replicas(): "Mirrors come and go; reading is limited to repositories with the replicas' tag.",
            **dict.fromkeys((bucket, *objects), "The vault's bucket has a generated name."),
            keys: "The vault's key has a generated id; a public key is no secret.",
            **dict.fromkeys(bootstrap_roles, "The bootstrap roles of every region of the account."),
        }
        acknowledge(self, {f"IAM5[Resource::{arn}]": why for arn, why in wildcards.items()}, packs=["AwsSolutions"])

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

    def _deploying(self, ci: Ci, bootstrap_roles: list[str]) -> list[iam.PolicyStatement]:
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
                    "StringEquals": {f"aws:ResourceTag/{PROVISIONED_FROM}": ci.owner},
                    "ForAllValues:StringEquals": {"aws:TagKeys": list(RECORD_TAGS)},
                },
            ),
            iam.PolicyStatement(
                actions=["cloudformation:DeleteStack", "cloudformation:DescribeStackEvents"],
                resources=[self._stacks()],
                conditions={"StringEquals": {f"aws:ResourceTag/{PROVISIONED_FROM}": ci.owner}},
            ),
        ]

    def _restoring(self) -> list[iam.PolicyStatement]:
        """Return what a drill needs: reading the guard's snapshots, their locks and the key that verifies them."""
        bucket, objects, keys = self._snapshots()
        return [
            iam.PolicyStatement(actions=["s3:ListBucketVersions"], resources=[bucket]),
            iam.PolicyStatement(actions=["s3:GetObjectRetention", "s3:GetObjectVersion"], resources=objects),
            iam.PolicyStatement(actions=["kms:GetPublicKey"], resources=[keys]),
        ]

    def _snapshots(self) -> tuple[str, list[str], str]:
        bucket = f"arn:{self.partition}:s3:::{VAULT_STACK_NAME}-*"
        keys = f"arn:{self.partition}:kms:*:{self.account}:key/*"
        return bucket, [f"{bucket}/snapshots/*", f"{bucket}/keys/*"], keys

    def _replicas(self) -> str:
        return f"arn:{self.partition}:codecommit:*:{self.account}:*"

    def _roles(self) -> str:
        return f"arn:{self.partition}:iam::{self.account}:role/*"

    def _stacks(self) -> str:
        return f"arn:{self.partition}:cloudformation:*:{self.account}:stack/*"

    def _bootstrap_role(self, kind: str) -> str:
        keys = (QUALIFIER_KEY, "@aws-cdk/core:bootstrapQualifier")
        given = filter(None, (self.node.try_get_context(key) for key in keys))
        qualifier = next(given, DefaultStackSynthesizer.DEFAULT_QUALIFIER)
        return f"arn:{self.partition}:iam::{self.account}:role/cdk-{qualifier}-{kind}-role-{self.account}-*"
