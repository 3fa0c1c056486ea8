"""S3: what rides along with uploads, encryption, Object Lock, parts, replication and life cycles."""

from collections.abc import Set

from ..clock import Clock
from . import encryption, encryption_update, lifecycle, object_lock, parts, replication, requests, upload_rights
from .replication import Replication

__all__ = ["Replication", "install"]


def install(clock: Clock, regions_down: Set[str]) -> Replication:
    """Make S3 as strict as the service, and return what controls its replication.

    Args:
        clock: by which locks end and rules are executed.
        regions_down: into which nothing is replicated.
    """
    replicated = replication.install(regions_down)
    object_lock.install()
    parts.install()
    encryption.install()
    encryption_update.install()
    requests.install()
    upload_rights.install()
    lifecycle.install(clock)
    return replicated
