"""The confirming tag: when a run last brought the replica up to date, and from which source."""

from __future__ import annotations

import hashlib
import time
from typing import Callable

from .failures import MirrorFailure, PackRefused, RetryableError, TooLarge
from .plan import by_original_name
from .refs import CONFIRMED_TAG, SOURCE_TAG, Advertisement, Command, Refs, ReplicaRefs
from .settings import Endpoint, Settings
from .text import sanitize, say, to_bytes
from .wire.packs import COMMIT, NOBODY, TAG, TREE, object_id, pack_of
from .wire.protocol import push, read_refs
from .wire.retries import patiently
from .wire.transport import Traffic

CONFIRM_TRIES = 3
CONFIRMATION_FORMAT = 1
"""Of what the confirming tag says: docs/formats.md."""


def ref_listing(refs: Refs) -> bytes:
    """Return the list of refs that a confirming tag hashes."""
    return to_bytes("".join(f"{value} {name}\n" for name, value in sorted(refs.items(), key=lambda r: to_bytes(r[0]))))


def source_commit(source: str) -> bytes:
    """Return the commit that names a source: the same one for ever, with an empty tree and no parents.

    Args:
        source: the id of the source's repository, or its URL where the id is not known.
    """
    return to_bytes(
        f"tree {object_id(TREE, b'')}\nauthor {NOBODY} 0 +0000\ncommitter {NOBODY} 0 +0000\n\n"
        f"The replica of this source\n\nsource: {source}\n"
    )


def is_ours(settings: Settings, replica: Refs) -> bool:
    """Whether a run has confirmed the replica, and has not confirmed it for another source.

    Who may only push cannot read the confirming tag; what a mirror took over from others may have one of theirs.
    """
    if settings.existing:
        return replica.get(SOURCE_TAG) == object_id(COMMIT, source_commit(_identity(settings)))
    return CONFIRMED_TAG in replica


def _identity(settings: Settings) -> str:
    return settings.source_id or settings.source.url


def confirmation(settings: Settings, refs: Refs, now: float) -> bytes:
    """Return the annotated tag that records what the replica has after a run, by the source's names.

    That is what the source has, but for refs that need a person's attention. The tag is on the ``source_commit``,
    because it must name an object, and a commit of the source would get the tag's name from ``git describe``.
    """
    return to_bytes(
        f"object {object_id(COMMIT, source_commit(_identity(settings)))}\ntype commit\n"
        f"tag {CONFIRMED_TAG[len('refs/tags/') :]}\ntagger {NOBODY} {int(now)} +0000\n\n"
        f"A run has brought the replica up to date with its source.\n\n"
        f"format: {CONFIRMATION_FORMAT}\nsource: {settings.source.url}\n"
        f"{f'source-id: {settings.source_id}{chr(10)}' if settings.source_id else ''}"
        f"engine: {settings.engine}\nrefs: {len(refs)}\n"
        f"sha256: {hashlib.sha256(ref_listing(refs)).hexdigest()}\n"
        f"time: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now))}\n"
    )


def confirm(settings: Settings, after: Advertisement, traffic: Traffic, sleep: Callable[[float], None]) -> bool:
    """Push the confirming tag, the only push of a run with nothing to do; return whether the replica has it."""
    refs = by_original_name(ReplicaRefs(after.refs), ("refs/",))
    tag, commit = confirmation(settings, refs, time.time()), source_commit(_identity(settings))
    confirmed, source = object_id(TAG, tag), object_id(COMMIT, commit)
    commands = [Command(CONFIRMED_TAG, after.refs.get(CONFIRMED_TAG), confirmed)]
    objects = [(TAG, tag)]
    if after.refs.get(SOURCE_TAG) != source:
        commands = [Command(SOURCE_TAG, after.refs.get(SOURCE_TAG), source), *commands]
        objects = [(TREE, b""), (COMMIT, commit), *objects]
    try:
        problem = patiently(
            lambda _: push(settings.replica, after.capabilities, commands, pack_of(objects), traffic),
            sleep,
            CONFIRM_TRIES,
        ).get(CONFIRMED_TAG, "")
    except (RetryableError, MirrorFailure, PackRefused, TooLarge) as error:
        problem = str(error)
    if problem and not has_ref(settings.replica, CONFIRMED_TAG, confirmed):
        say(f"This run could not be confirmed on the replica ({sanitize(problem)}); the next run tries again.")
        return False
    return True


def has_ref(replica: Endpoint, ref: str, value: str) -> bool:
    """Whether the replica lists a ref at a value, whatever it answered to the push."""
    try:
        return read_refs(replica, "git-receive-pack").refs.get(ref) == value
    except (MirrorFailure, RetryableError):
        return False
