"""Git access to CodeCommit with the function's role."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ...engine.settings import Endpoint, make_endpoint
from ...engine.wire.protocol import advertised_capabilities, advertised_refs, read_list
from ...engine.wire.retries import patiently
from ..vault.ref_list import MAX_LIST_BYTES, RefList

_TRIES = 4
_MAX_WAIT_SECONDS = 60
_PEELED = b"^{}"


@dataclass(frozen=True)
class Advertised:
    """A replica's refs and capabilities (gitprotocol-pack, "Reference Discovery"), in little memory."""

    refs: RefList
    capabilities: Sequence[str] = ()
    peeled: RefList = field(default_factory=RefList)
    """What annotated tags lead to, by the tags' names."""


def parse(body: bytes) -> Advertised:
    """Parse a reference advertisement of protocol v0 or v1; raise ValueError if it is malformed."""
    peeled: dict[bytes, bytes] = {}

    def refs() -> Iterator[tuple[bytes, bytes]]:
        for value, name in advertised_refs(body):
            if name.endswith(_PEELED):
                peeled[name.removesuffix(_PEELED)] = value
            elif name.startswith(b"refs/"):
                yield value, name

    listed = RefList.from_pairs(refs())
    tags = RefList.from_pairs((value, name) for name, value in peeled.items() if name.startswith(b"refs/"))
    return Advertised(listed, advertised_capabilities(body), tags)


def endpoint(url: str, user: str, password: str) -> Endpoint:
    """Return a replica, to be read with a signed password."""
    return make_endpoint("replica", url, user, password, "codecommit:GitPull on this repository is needed")


def read_patiently(
    sign_in: Callable[[], Endpoint],
    limit: int = MAX_LIST_BYTES,
    sleep: Callable[[float], None] = clock.sleep,
) -> Advertised:
    """Read a replica's refs, with retries: CodeCommit limits the requests of an account and region.

    Args:
        sign_in: returns the endpoint, with a new password.
        limit: bytes that are read.
        sleep: waits between tries.

    Raises:
        RetryableError: every try failed.
        AnswerTooLarge: the list of refs is longer than that.
        MirrorFailure: the replica cannot be read.
    """

    def read(_: int) -> Advertised:
        return read_list(sign_in(), "git-upload-pack", parse, limit=limit)

    return patiently(read, sleep, _TRIES, _MAX_WAIT_SECONDS)
