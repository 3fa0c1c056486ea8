"""Whose signatures the guard believes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property

from .public_key import PublicKey
from .signer import KeyUnusableError, Signer
from .store import Store


class TrustedKeys:
    """The guard's own key, and those that mirrors.yaml pins, by fingerprint.

    Args:
        store: keeps the public keys.
        signer: signs with the guard's own.
        pinned: the fingerprints of the others.
    """

    def __init__(self, store: Store, signer: Signer, pinned: Sequence[str]) -> None:
        self._store, self._signer, self._fingerprints = store, signer, pinned

    @cached_property
    def _pinned(self) -> list[PublicKey]:
        return [key for fingerprint in self._fingerprints if (key := self._store.public_key(fingerprint))]

    def __call__(self) -> Mapping[str, PublicKey]:
        """Return the keys; while KMS does not show its own and none is pinned, those that lie locked in the vault."""
        keys = list(self._pinned)
        with suppress(KeyUnusableError):
            keys.append(self._signer.public_key())
        return {key.fingerprint: key for key in keys or self._store.locked_public_keys()}
