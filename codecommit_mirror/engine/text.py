"""Text for people: numbers, names and messages, safe to print wherever they come from."""

from __future__ import annotations

import re
from typing import Mapping, Sequence


def say(text: str) -> None:
    """Print one line."""
    print(text, flush=True)


def sanitize(text: str) -> str:
    """Make untrusted text safe to print: no control characters, and no logging command that a build agent runs."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub("#(?=#)", "# ", "".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def printable(text: bytes) -> str:
    """Return at most 600 characters of a server's message, on one line and safe to print."""
    return sanitize(" ".join(text.replace(b"\0", b" ").decode("utf-8", "surrogateescape").split())[:600])


def error_name(error: BaseException) -> str:
    """Name an error without the HTTP library's text, which may repeat what was sent."""
    return sanitize(getattr(error, "strerror", None) or type(error).__name__)


def count(things: Sequence[object] | Mapping[str, object] | int, noun: str, plural: str = "") -> str:
    """Return a number with its noun in the singular or plural, like ``1 ref`` and ``2 refs``."""
    number = things if isinstance(things, int) else len(things)
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def equal_refs(number: int) -> str:
    """Return the statement that so many refs are equal."""
    return f"{count(number, 'ref')} {'is' if number == 1 else 'are'} equal"


def list_refs(names: Sequence[str]) -> str:
    """Return the number of refs and the first 20 names."""
    listed = ", ".join(sanitize(name) for name in names[:20])
    return f"{count(names, 'ref')} ({listed}{', ...' if len(names) > 20 else ''})"


def format_bytes(number: float) -> str:
    """Format a number of bytes in decimal units."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


def to_bytes(text: str) -> bytes:
    """Encode text that may hold bytes which are not UTF-8, as ref names may."""
    return text.encode("utf-8", "surrogateescape")
