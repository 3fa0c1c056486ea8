"""The few fields of S3's XML bodies that are looked at."""

from __future__ import annotations

import re


def between(body: bytes, tag: str) -> str:
    """Return the text of the first element of this name; empty without one."""
    found = re.search(rf"<{tag}(?:\s[^>]*)?>([^<]*)", body.decode("utf-8", "replace"))
    return found[1].strip() if found else ""
