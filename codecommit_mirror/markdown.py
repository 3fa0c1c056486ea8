"""Text that other people's names cannot turn into markup."""

from __future__ import annotations

import html
import re


def cell(text: str) -> str:
    """Return text that cannot leave its cell of a table in Markdown, nor become markup."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
