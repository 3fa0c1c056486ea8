"""What a mirror owns in AWS, and the roles of CI: one construct a file, and the stacks that compose them."""

try:
    import aws_cdk as _aws_cdk
except ModuleNotFoundError:
    raise ImportError("the stacks need aws-cdk-lib; run: pip install 'codecommit-mirror[deploy]'") from None
from .deploy_role_stack import DeployRoleStack
from .guard_stack import GuardStack
from .identity_stack import IdentityStack
from .replica_stack import ReplicaStack
from .vault_stack import VaultStack

del _aws_cdk

__all__ = ["DeployRoleStack", "GuardStack", "IdentityStack", "ReplicaStack", "VaultStack"]
