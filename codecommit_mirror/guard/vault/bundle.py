"""Git bundles (gitformat-bundle, version 2): a header with prerequisites and refs, and a pack."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import IO, NamedTuple

_SIGNATURE = b"# v2 git bundle\n"
_MAX_HEADER_BYTES = 64 * 1024 * 1024


class Header(NamedTuple):
    """What stands before a bundle's pack."""

    prerequisites: tuple[str, ...]
    """Commits that a repository must have before the pack can be added to it."""
    refs: Mapping[str, str]


def header(prerequisites: Iterable[str], refs: Mapping[str, str], head: str | None = None) -> bytes:
    """Return the bytes of a header; ref names that are not UTF-8 hold surrogate escapes.

    Args:
        prerequisites: commits that the pack builds on.
        refs: the refs.
        head: the default branch, which ``git clone`` checks out.
    """
    lines = [f"-{commit}" for commit in prerequisites] + [f"{value} {name}" for name, value in sorted(refs.items())]
    lines += [f"{refs[head]} HEAD"] if head and head in refs else []
    return _SIGNATURE + "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape") + b"\n"


def read_header(stream: IO[bytes]) -> Header:
    """Read a header, and leave the stream at the pack.

    Raises:
        ValueError: it is not a header of a bundle of version 2.
    """
    if stream.readline(len(_SIGNATURE)) != _SIGNATURE:
        raise ValueError("it is not a git bundle of version 2")
    prerequisites: list[str] = []
    refs: dict[str, str] = {}
    left = _MAX_HEADER_BYTES
    while (line := stream.readline(left)) != b"\n":
        left -= len(line)
        match = re.fullmatch(rb"(-?)([0-9a-f]{40})(?: (.+))?\n", line, re.DOTALL)
        if not match:
            raise ValueError("its header is damaged")
        minus, value, name = match.groups()
        if minus:
            prerequisites.append(value.decode())
        elif name:
            refs[name.decode("utf-8", "surrogateescape")] = value.decode()
        else:
            raise ValueError("its header is damaged")
    return Header(tuple(prerequisites), refs)
