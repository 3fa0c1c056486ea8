"""The vault as a whole: where snapshots and states go, how they are signed, and whose signatures count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .public_key import PublicKey
from .signer import Signer
from .state import States
from .store import Store
from .trust import TrustedKeys

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Vault:
    """One account's and region's vault, as the guard uses it."""

    account: str
    region: str
    store: Store
    states: States
    signer: Signer
    keys: Callable[[], Mapping[str, PublicKey]]
    """Returns the keys whose signatures count, by fingerprint."""


def open_vault(s3: S3Client, kms: Any, bucket: str, key_arn: str, pinned: Sequence[str] = ()) -> Vault:
    """Return a vault.

    Args:
        s3: a client for S3.
        kms: a client for KMS.
        bucket: its bucket.
        key_arn: the key that it is signed with, which is in its account and region.
        pinned: fingerprints of other keys whose signatures count.
    """
    store, signer = Store(s3, bucket), Signer(kms, key_arn)
    keys = TrustedKeys(store, signer, pinned)
    region, account = key_arn.split(":")[3:5]
    return Vault(account, region, store, States(s3, bucket, signer, lambda: keys().values()), signer, keys)
