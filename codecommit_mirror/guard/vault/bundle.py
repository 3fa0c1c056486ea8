"""Git bundles (gitformat-bundle, version 2): a header with prerequisites and refs, and a pack."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, NamedTuple

from .ref_list import RefList

_SIGNATURE = b"# v2 git bundle\n"
MAX_HEADER_BYTES = 64 * 1024 * 1024
"""More than the longest list of refs takes, with all prerequisites."""


class Header(NamedTuple):
    """What stands before a bundle's pack."""

    prerequisites: tuple[str, ...]
    """Commits that a repository must have before the pack can be added to it."""
    refs: Mapping[str, str]


def header(prerequisites: Iterable[str], refs: RefList, head: str | None = None) -> Iterator[bytes]:
    """Yield the bytes of a header.

    Args:
        prerequisites: commits that the pack builds on.
        refs: the refs.
        head: the id of the default branch, which ``git clone`` checks out.
    """
    yield _SIGNATURE + "".join(f"-{commit}\n" for commit in prerequisites).encode()
    yield bytes(refs.lines)
    yield (f"{head} HEAD\n" if head else "").encode() + b"\n"


def read_header(stream: IO[bytes]) -> Header:
    """Read a header, and leave the stream at the pack.

    Raises:
        ValueError: it is not a header of a bundle of version 2.
    """
    if stream.readline(len(_SIGNATURE)) != _SIGNATURE:
        raise ValueError("it is not a git bundle of version 2")
    prerequisites: list[str] = []
    refs: dict[str, str] = {}
    left = MAX_HEADER_BYTES
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
