"""An operation of the REST API: its route, its scope, and a call of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..repos import ServiceError
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
    is_preview: bool = False
    """Whether every version of it is a preview."""
    released_in: int = 6
    """The major version from which on it is no preview."""
    since: int = 6
    """The first major version that has it."""
    in_project: bool = True
    """Whether the path names a project."""

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parts of a path that this route matches, or None."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template)
        project = "(?P<project>[^/]+)/" if self.in_project else "(?P<project>)"
        found = re.fullmatch(rf"/(?P<organization>[^/]+)/{project}_apis/{pattern}", path, re.IGNORECASE)
        return found.groupdict() if found else None

    def check_version(self, asked: str, newest: str) -> None:
        """Refuse a version that a server does not have of this operation, as servers were recorded to do.

        https://github.com/microsoft/azure-devops-extension-sample/issues/161

        Args:
            asked: the version that the request names.
            newest: the newest version that the server has.

        Raises:
            ServiceError: it is none, too new, or a preview that is not called so.
        """
        found = re.fullmatch(r"([67]\.[01])(-preview(?:\.[0-9]+)?)?", asked)
        if not found:
            raise ServiceError(400, f"No api-version {asked!r} of this resource.", "VssVersionNotSpecifiedException")
        number = found[1]
        if number > newest:
            raise ServiceError(
                400,
                f"The requested REST API version of {number} is out of range for this server. The latest REST API "
                f"version this server supports is {newest}.",
                "VssVersionOutOfRangeException",
            )
        if (self.is_preview or int(number[0]) < self.released_in) and not found[2]:
            raise ServiceError(
                400,
                f'The requested version "{number}" of the resource is under preview. The -preview flag must be '
                f'supplied in the api-version for such requests. For example: "{number}-preview"',
                "VssInvalidPreviewVersionException",
            )
