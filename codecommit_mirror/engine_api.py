"""The one door to the engine for the CLI: its public names, and reading refs with its retries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from .engine.archive import archive_entries, dropped_tips
from .engine.failures import MirrorFailure, PackRefused, RetryableError, SourceRefused
from .engine.git import Git, batches_by_command_line, git_environment
from .engine.plan import by_original_name, make_plan, mass_deletion, plan_refs, select, unmirrorable
from .engine.refs import ARCHIVE_PREFIX, CARRIED_PREFIX, CONFIRMED_TAG, Advertisement, Command, ReplicaRefs
from .engine.report import Outcome, carried_note, summary
from .engine.run import foreign_history, hidden_refs, mirror, names_lfs, read_source
from .engine.settings import (
    CODECOMMIT,
    Endpoint,
    Settings,
    check_credential,
    is_loopback,
    make_endpoint,
    parse_repository_url,
    read_settings,
)
from .engine.text import count, equal_refs, format_bytes, list_refs, sanitize
from .engine.version import VERSION
from .engine.wire import protocol
from .engine.wire.packs import fetch_pack, object_count
from .engine.wire.retries import patiently, retry_after_seconds
from .engine.wire.role import sign
from .engine.wire.transport import Traffic
from .errors import MirrorError

__all__ = [
    "ARCHIVE_PREFIX",
    "CARRIED_PREFIX",
    "CODECOMMIT",
    "CONFIRMED_TAG",
    "VERSION",
    "Advertisement",
    "Command",
    "Endpoint",
    "Git",
    "MirrorFailure",
    "Outcome",
    "ReplicaRefs",
    "RetryableError",
    "Settings",
    "archive_entries",
    "batches_by_command_line",
    "by_original_name",
    "carried_note",
    "check_credential",
    "count",
    "dropped_tips",
    "equal_refs",
    "failures_as_mirror_errors",
    "foreign_history",
    "format_bytes",
    "git_environment",
    "hidden_refs",
    "is_loopback",
    "list_refs",
    "make_endpoint",
    "make_plan",
    "mass_deletion",
    "mirror",
    "names_lfs",
    "object_count",
    "parse_repository_url",
    "patiently",
    "plan_refs",
    "read_refs",
    "read_refs_patiently",
    "read_settings",
    "read_source_patiently",
    "retry_after_seconds",
    "sanitize",
    "select",
    "sign",
    "summary",
    "unmirrorable",
    "whole_pack",
]

_LOG = logging.getLogger(__name__)
_Found = TypeVar("_Found")


@contextmanager
def failures_as_mirror_errors() -> Iterator[None]:
    """Raise the engine's failures as ``MirrorError``, which ends a command with one sentence."""
    try:
        yield
    except MirrorFailure as failure:
        raise MirrorError(str(failure)) from None
    except RetryableError as failure:
        raise MirrorError(f"{failure}; run again.") from None


def read_refs(endpoint: Endpoint, service: str) -> Advertisement:
    """Read a server's refs, once; logged as every request to a service is.

    Args:
        endpoint: the source or the replica.
        service: ``git-upload-pack``, or ``git-receive-pack`` for a user who may push but not fetch.

    Raises:
        MirrorFailure: it refuses.
        RetryableError: it cannot be reached.
    """
    advertised = protocol.read_refs(endpoint, service)
    _LOG.info("git %s of the %s -> %s refs", service, endpoint.side, len(advertised.refs))
    return advertised


def read_refs_patiently(endpoint: Endpoint, service: str, sleep: Callable[[float], None] = time.sleep) -> Advertisement:
    """Read a server's refs, with retries.

    Args:
        endpoint: the replica, or the target of a restore.
        service: ``git-upload-pack``, or ``git-receive-pack`` for a user who may push but not fetch.
        sleep: waits between tries.

    Raises:
        MirrorFailure: the server refuses, or every try failed.
    """
    return _answered(lambda _: read_refs(endpoint, service), sleep)


def read_source_patiently(
    source: Endpoint, sleep: Callable[[float], None] = time.sleep
) -> tuple[Endpoint, Advertisement]:
    """Read the source's refs, with retries, and return them with the endpoint that shows them; see ``read_source``.

    Args:
        source: the source.
        sleep: waits between tries.

    Raises:
        MirrorFailure: the server refuses, or every try failed.
    """
    endpoint, advertised = _answered(lambda failures: read_source(source, failures=failures), sleep)
    _LOG.info("git git-upload-pack of the source -> %s refs", len(advertised.refs))
    return endpoint, advertised


def _answered(read: Callable[[int], _Found], sleep: Callable[[float], None]) -> _Found:
    try:
        return patiently(read, sleep)
    except RetryableError as error:
        raise MirrorFailure(f"{error}; run again.") from None


def whole_pack(endpoint: Endpoint, advertised: Sequence[str], wants: Sequence[str]) -> Iterator[bytes]:
    """Yield a pack of everything that some objects reach, and raise RetryableError at its end if it is damaged.

    Args:
        endpoint: the server.
        advertised: the capabilities that it advertised.
        wants: object ids.
    """
    try:
        yield from fetch_pack(endpoint, advertised, wants, [], Traffic())
    except (SourceRefused, PackRefused) as refusal:
        raise MirrorFailure(f"{endpoint} does not provide a pack: {refusal}.") from None
