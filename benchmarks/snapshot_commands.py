"""What the benchmark of snapshots measures, each in a process of its own that imports nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3

from codecommit_mirror.backup.origin import from_snapshots
from codecommit_mirror.backup.repository import BareRepository
from codecommit_mirror.backup.snapshots import read_snapshots
from codecommit_mirror.guard.replica.confirmation import digest
from codecommit_mirror.guard.replica.git_access import endpoint, read_patiently
from codecommit_mirror.guard.replica.replicas import Access
from codecommit_mirror.guard.snapshot import Retention, Snapshots
from codecommit_mirror.guard.vault.vault import open_vault

NAME = "replica"
_SECONDS = 870
"""Of an invocation."""


def take(url: str, bucket: str, key: str) -> None:
    """Take a snapshot, as the function does."""
    access = Access("refs/heads/main", lambda: endpoint(url, "x", "x"))
    retention = Retention(timedelta(days=1), timedelta(days=400), timedelta(days=30), "COMPLIANCE")
    vault = open_vault(boto3.client("s3"), boto3.client("kms"), bucket, key)
    vault.store.listing(NAME)
    vault.keys()
    began = time.monotonic()
    advertised = read_patiently(access.endpoint)
    Snapshots(vault, retention, lambda: datetime.now(UTC), _SECONDS).take(NAME, access, advertised)
    print(time.monotonic() - began)


def look(url: str) -> None:
    """Read a replica's refs and hash them, as the hourly look does."""
    boto3.client("s3"), boto3.client("kms"), boto3.client("codecommit"), boto3.client("sns")
    began = time.monotonic()
    digest(read_patiently(lambda: endpoint(url, "x", "x")).refs)
    print(time.monotonic() - began)


def restore(bucket: str, fingerprint: str, folder: str) -> None:
    """Restore the last snapshot to a folder, as the command does."""
    origin = from_snapshots(read_snapshots(boto3.Session(), NAME, bucket, [fingerprint]), None)
    repository = BareRepository(Path(folder))
    origin.fetch(repository, origin.refs)
    repository.set_refs(origin.refs, origin.head)


_COMMANDS: dict[str, Callable[..., None]] = {"take": take, "look": look, "restore": restore}

if __name__ == "__main__":
    _COMMANDS[sys.argv[1]](*sys.argv[2:])
