"""Constructs for CDK apps: a replica with who may push to it, the vault and the guard, and the roles of CI."""

try:
    import aws_cdk as _aws_cdk
except ModuleNotFoundError:
    raise ImportError("the constructs need aws-cdk-lib; run: pip install 'codecommit-mirror[deploy]'") from None
from .ci_roles import CiRoles
from .guard.guard import Guard, SnapshotTimes
from .identity_provider import IdentityProvider
from .push_access import PipelineRole, PipelineUser
from .replica import Replica
from .vault.vault import Vault

del _aws_cdk

__all__ = [
    "CiRoles",
    "Guard",
    "IdentityProvider",
    "PipelineRole",
    "PipelineUser",
    "Replica",
    "SnapshotTimes",
    "Vault",
]
