"""IAM and STS: users, roles, policies, credentials and sessions, as the services keep and refuse them."""

from .. import rights
from . import (
    managed_policies,
    operator,
    principals,
    public_keys,
    service_credentials,
    sessions,
    strictness,
    web_identity,
)
from .operator import Operator
from .service_credentials import ServiceCredentials
from .web_identity import KeyOf

__all__ = ["KeyOf", "Operator", "ServiceCredentials", "install", "operator"]


def install(credentials: ServiceCredentials, administrator: Operator, key_of: KeyOf) -> None:
    """Make IAM and STS as strict as the services.

    Args:
        credentials: the Git credentials of all users.
        administrator: who runs ``cdk`` and the CLI.
        key_of: stands for the keys that IAM reads at an issuer's address.
    """
    service_credentials.install(credentials)
    public_keys.install(public_keys.PublicKeys())
    strictness.install()
    managed_policies.install()
    principals.install()
    operator.install(administrator)
    rights.install()
    sessions.install()
    web_identity.install(key_of)
