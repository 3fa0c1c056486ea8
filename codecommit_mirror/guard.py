"""The one door to ``mirror_guard``: what the CLI reads of the guard's snapshots."""

from __future__ import annotations

from mirror_guard.bundle import read_header
from mirror_guard.manifest import Manifest, as_of, chain_of, digest, format_time, parse_time
from mirror_guard.store import Store

__all__ = [
    "Manifest",
    "Store",
    "as_of",
    "chain_of",
    "digest",
    "format_time",
    "parse_time",
    "read_header",
]
