"""What the embedded agent refuses, because it does not know it."""

from __future__ import annotations


class UnsupportedPipeline(Exception):
    """The YAML has something that the agent does not run; the service might, or might refuse it."""


def check_keys(mapping: object, known: set[str], what: str) -> None:
    """Refuse what is not a mapping, or has a key that is not known."""
    if not isinstance(mapping, dict):
        raise UnsupportedPipeline(f"a {what} that is not a mapping: {mapping!r}")
    if unknown := mapping.keys() - known:
        raise UnsupportedPipeline(f"unknown key of a {what}: {sorted(unknown)[0]}")
