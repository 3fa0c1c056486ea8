"""The one door to the guard for the CLI: what it reads of snapshots."""

from __future__ import annotations

from .guard.replica.confirmation import digest, read_confirmation
from .guard.replica.history import read_entries
from .guard.vault.bundle import read_header
from .guard.vault.manifest import PREFIX, SIGNATURE_SUFFIX, Manifest, as_of, chain_of, format_time, parse_time
from .guard.vault.public_key import PublicKey
from .guard.vault.ref_list import RefList
from .guard.vault.signed import Signed, SignedSnapshots, refs_of
from .guard.vault.signer import KeyUnusableError, Signer
from .guard.vault.store import Listing, Store, Version

__all__ = [
    "PREFIX",
    "SIGNATURE_SUFFIX",
    "KeyUnusableError",
    "Listing",
    "Manifest",
    "PublicKey",
    "RefList",
    "Signed",
    "SignedSnapshots",
    "Signer",
    "Store",
    "Version",
    "as_of",
    "chain_of",
    "digest",
    "format_time",
    "parse_time",
    "read_confirmation",
    "read_entries",
    "read_header",
    "refs_of",
]
