"""The one door to ``mirror_guard``: what the CLI reads of the guard's snapshots."""

from __future__ import annotations

from mirror_guard.history import read_entries
from mirror_guard.vault.bundle import read_header
from mirror_guard.vault.manifest import SIGNATURE_SUFFIX, Manifest, as_of, chain_of, format_time, parse_time
from mirror_guard.vault.public_key import PublicKey
from mirror_guard.vault.signed import Signed, SignedSnapshots
from mirror_guard.vault.signer import KeyUnusableError, Signer
from mirror_guard.vault.store import Listing, Store, Version

__all__ = [
    "SIGNATURE_SUFFIX",
    "KeyUnusableError",
    "Listing",
    "Manifest",
    "PublicKey",
    "Signed",
    "SignedSnapshots",
    "Signer",
    "Store",
    "Version",
    "as_of",
    "chain_of",
    "format_time",
    "parse_time",
    "read_entries",
    "read_header",
]
