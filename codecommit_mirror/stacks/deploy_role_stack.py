"""The stack of the roles with which CI provisions the mirrors."""

from __future__ import annotations

from aws_cdk import CfnOutput, Environment, Stack, Tags
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.ci import Ci
from ..constructs import CiRoles


class DeployRoleStack(Stack):
    """The roles of CI, and an identity provider for GitHub, unless the account has it.

    The provider for Azure Pipelines is in ``IdentityStack``, since the mirrors' own roles may trust it too.

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
        roles = CiRoles(
            self,
            "Roles",
            owner=ci.owner,
            issuer=trust.issuer,
            audience=trust.audience,
            diff_subjects=trust.diff,
            deploy_subjects=trust.deploy,
            provider=self._provider(ci),
            diff_name=ci.diff_role,
            deploy_name=ci.deploy_role,
            reads_snapshots=reads_snapshots,
        )
        Tags.of(self).add("managed-by", "codecommit-mirror")
        for name, role, does in (
            ("DiffRoleArn", roles.diff, "Shows what a pull request would change."),
            ("DeployRoleArn", roles.deploy, "Deploys and deletes replicas."),
        ):
            CfnOutput(self, name, value=role.role_arn, description=does)

    def _provider(self, ci: Ci) -> iam.IOidcProvider | None:
        if ci.provider_arn:
            return iam.OidcProviderNative.from_oidc_provider_arn(self, "Provider", ci.provider_arn)
        if ci.github is None:
            return None
        return iam.OidcProviderNative(self, "Provider", url=ci.trust.issuer, client_ids=[ci.trust.audience])
