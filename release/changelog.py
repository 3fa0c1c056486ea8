"""The changelog's section of a version, in the format of Keep a Changelog (https://keepachangelog.com/en/1.1.0/)."""

from __future__ import annotations

import re

_UNRELEASED = "## [Unreleased]\n"


def released(text: str, version: str, day: str) -> str:
    """Return the changelog with what is unreleased as a version's section; one that has the section stays as it is.

    Args:
        text: the changelog.
        version: the version.
        day: the day of its release, as ``2026-11-30``.

    Raises:
        ValueError: nothing is unreleased.
    """
    if f"## [{version}]" in text:
        return text
    head, heading, rest = text.partition(_UNRELEASED)
    if not heading or not re.match(r"\s*[^#\s]|\s*###", rest):
        raise ValueError("CHANGELOG.md has nothing under 'Unreleased'; say there what this version changes")
    return f"{head}{_UNRELEASED}\n## [{version}] - {day}\n{rest}"


def section(text: str, version: str) -> str:
    """Return what the changelog says of a version."""
    _, _, rest = text.partition(f"## [{version}]")
    return re.split(r"(?m)^## \[", rest.partition("\n")[2])[0].strip()
