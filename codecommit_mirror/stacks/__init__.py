"""What a mirror owns in AWS, and the roles of CI: one construct a file, and the stacks that compose them."""

from .deploy_role_stack import DeployRoleStack
from .guard_stack import GuardStack
from .identity_stack import IdentityStack
from .replica_stack import ReplicaStack
from .vault_stack import VaultStack

__all__ = ["DeployRoleStack", "GuardStack", "IdentityStack", "ReplicaStack", "VaultStack"]
