"""CloudFormation: as whom it acts, what it applies, and what it refuses."""

from . import buckets, drift, operations, principal, resources, stacks
from .stacks import set_status

__all__ = ["install", "set_status"]


def install() -> None:
    """Make CloudFormation as strict as the service."""
    buckets.install()
    resources.install()
    operations.install()
    stacks.install()
    principal.install()
    drift.install()
