"""The private half of the signing key, which stays in KMS: only the guard's role may sign with it."""

from __future__ import annotations

import hashlib
from typing import Any

from botocore.exceptions import ClientError

from .public_key import ALGORITHM, PublicKey

_UNUSABLE = {"DisabledException", "KMSInvalidStateException", "NotFoundException", "AccessDeniedException"}
"""https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html, Errors; the others pass."""


class KeyUnusableError(Exception):
    """Raised while the key does not sign: it is disabled, about to be deleted, gone, or not the guard's any longer."""


class Signer:
    """Signs with one key."""

    def __init__(self, kms: Any, key_arn: str) -> None:
        self._kms, self.key_arn = kms, key_arn
        self._public: PublicKey | None = None

    def public_key(self) -> PublicKey:
        """Return the public half (GetPublicKey), which KMS does not show of a key that is disabled or dying.

        Raises:
            KeyUnusableError: it does not show it.
        """
        if self._public is None:
            try:
                self._public = PublicKey(self._kms.get_public_key(KeyId=self.key_arn)["PublicKey"])
            except ClientError as error:
                raise _unusable(error) from None
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Return a detached signature of these bytes (Sign of their SHA-256).

        Raises:
            KeyUnusableError: the key does not sign.
        """
        try:
            answer = self._kms.sign(
                KeyId=self.key_arn,
                Message=hashlib.sha256(data).digest(),
                MessageType="DIGEST",
                SigningAlgorithm=ALGORITHM,
            )
        except ClientError as error:
            raise _unusable(error) from None
        return bytes(answer["Signature"])

    def check(self) -> None:
        """Check that the key signs.

        Raises:
            KeyUnusableError: it does not.
        """
        self.sign(b"")


def _unusable(error: ClientError) -> Exception:
    code = error.response["Error"]["Code"]
    return KeyUnusableError(code) if code in _UNUSABLE else error
