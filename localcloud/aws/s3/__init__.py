"""S3: what rides along with uploads, encryption, Object Lock, parts, replication and life cycles."""

from . import encryption, object_lock, parts, requests, upload_rights


def install() -> None:
    """Make S3 as strict as the service."""
    object_lock.install()
    parts.install()
    encryption.install()
    requests.install()
    upload_rights.install()
