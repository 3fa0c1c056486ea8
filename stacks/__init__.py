"""The stacks of this clone's CDK app, which are those of the package."""

from codecommit_mirror.stacks import DeployRoleStack, GuardStack, IdentityStack, ReplicaStack, VaultStack

__all__ = ["DeployRoleStack", "GuardStack", "IdentityStack", "ReplicaStack", "VaultStack"]
