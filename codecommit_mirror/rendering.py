"""Values in the YAML that is rendered for CI services, which replace parts of it before any parser sees it."""

from __future__ import annotations

import sys

import yaml

from .errors import MirrorError

EXPANDED = ("$(", "${{", "$[")
"""What Azure Pipelines replaces in the text of a YAML file: macros, template and runtime expressions."""


def scalar(value: str) -> str:
    """Return a YAML double-quoted scalar, on one line, that no CI service replaces a part of.

    Raises:
        MirrorError: it holds text that would be replaced.
    """
    for expanded in EXPANDED:
        if expanded in value:
            raise MirrorError(
                f"{value!r} holds {expanded!r}, which Azure Pipelines would replace; choose another name."
            )
    return yaml.safe_dump(value, default_style='"', width=sys.maxsize).rstrip("\n")


def comment(value: str) -> str:
    """Return text for a comment, on one line."""
    return "".join(character if character.isprintable() else "?" for character in value)
