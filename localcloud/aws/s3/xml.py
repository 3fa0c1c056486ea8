"""The few fields of S3's XML bodies that are looked at."""

from __future__ import annotations


def between(body: bytes, tag: str) -> str:
    """Return the text of the first element of this name; empty without one."""
    return body.decode("utf-8", "replace").partition(f"<{tag}>")[2].partition("<")[0]
