"""An operation of the REST API: its route, its scope, and a call of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..tokens import Token


@dataclass(frozen=True)
class Call:
    """One authorised call, its path taken apart."""

    organization: str
    project: str
    parts: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    token: Token


@dataclass(frozen=True)
class Text:
    """An answer that is no JSON."""

    text: str


@dataclass(frozen=True)
class Route:
    """One operation."""

    method: str
    template: str
    """The path below ``_apis/``."""
    scope: str
    handle: Callable[[Call], Any]
    version: str = "7.1"
    in_project: bool = True
    """Whether the path names a project."""

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parts of a path that this route matches, or None."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template)
        project = "(?P<project>[^/]+)/" if self.in_project else "(?P<project>)"
        found = re.fullmatch(rf"/(?P<organization>[^/]+)/{project}_apis/{pattern}", path, re.IGNORECASE)
        return found.groupdict() if found else None

    def takes(self, version: str) -> bool:
        """Whether this version of the resource can be asked for: a released one also as 7.0, and as any preview."""
        known = r"7\.[01]" if self.version == "7.1" else re.escape(self.version)
        return bool(re.fullmatch(rf"{known}(-preview(\.[0-9]+)?)?", version))
