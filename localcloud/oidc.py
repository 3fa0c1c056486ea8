"""Issuers of OpenID Connect tokens, as CI services have them: they sign, and whoever asks gets the public key."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

_SECONDS = 600


class Issuers:
    """Every issuer there is, each with a key of its own that is made when first needed."""

    def __init__(self) -> None:
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self._lock = threading.Lock()

    def sign(self, issuer: str, audience: str, subject: str, seconds: float = _SECONDS) -> str:
        """Return a token, good for so many seconds from now (a negative number: over since then)."""
        with self._lock:
            key = self._keys.setdefault(issuer, self._keys.get(issuer) or rsa.generate_private_key(65537, 2048))
        now = int(time.time())
        claims = {
            "iss": issuer,
            "aud": audience,
            "sub": subject,
            "jti": str(uuid.uuid4()),
            "iat": min(now, now + int(seconds)),
            "exp": now + int(seconds),
        }
        return jwt.encode(claims, key, algorithm="RS256")

    def key_of(self, issuer: str) -> Any:
        """Return the public key that is read at the issuer's address; None when it has none."""
        key = self._keys.get(issuer)
        return key.public_key() if key else None
