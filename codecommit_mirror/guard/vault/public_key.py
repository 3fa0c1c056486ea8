"""The public half of the signing key: what anybody checks the guard's signatures with, without AWS.

An RSA key as SubjectPublicKeyInfo (RFC 5280, 4.1), which KMS's GetPublicKey returns and ``openssl`` reads as PEM. The
signatures are RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2.2). The function has no library for this: Lambda's runtime
has boto3 only.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from dataclasses import dataclass
from functools import cached_property

ALGORITHM = "RSASSA_PKCS1_V1_5_SHA_256"
"""As KMS calls it."""
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
"""DigestInfo of SHA-256 before the hash itself (RFC 8017, 9.2, note 1)."""
_RSA = bytes.fromhex("06092a864886f70d0101010500")
"""The algorithm rsaEncryption, without parameters (RFC 3279, 2.3.1)."""
_SEQUENCE, _INTEGER, _BIT_STRING = 0x30, 0x02, 0x03
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"


@dataclass(frozen=True)
class PublicKey:
    """A public key."""

    der: bytes

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of its DER form, in hexadecimal: ``openssl pkey -pubin -outform DER | sha256sum``."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def pem(self) -> str:
        """The key as text (RFC 7468)."""
        lines = textwrap.wrap(base64.b64encode(self.der).decode(), 64)
        return "\n".join([_BEGIN, *lines, _END, ""])

    @cached_property
    def _numbers(self) -> tuple[int, int]:
        algorithm, key = _elements(_only(self.der, _SEQUENCE))
        if algorithm != (_SEQUENCE, _RSA) or key[0] != _BIT_STRING or key[1][:1] != b"\0":
            raise ValueError("it is not an RSA public key")
        modulus, exponent = _elements(_only(key[1][1:], _SEQUENCE))
        if modulus[0] != _INTEGER or exponent[0] != _INTEGER:
            raise ValueError("it is not an RSA public key")
        return int.from_bytes(modulus[1]), int.from_bytes(exponent[1])

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether a signature of these bytes was made with the private half."""
        modulus, exponent = self._numbers
        size = (modulus.bit_length() + 7) // 8
        if len(signature) != size:
            return False
        message = _SHA256_PREFIX + hashlib.sha256(data).digest()
        expected = b"\0\1" + b"\xff" * (size - len(message) - 3) + b"\0" + message
        return pow(int.from_bytes(signature), exponent, modulus).to_bytes(size) == expected


def parse_pem(text: str) -> PublicKey:
    """Return the key that ``PublicKey.pem`` wrote.

    Raises:
        ValueError: it is none.
    """
    lines = text.split()
    begin, end = " ".join(lines[:3]), " ".join(lines[-3:])
    if (begin, end) != (_BEGIN, _END):
        raise ValueError("it is not a public key in PEM form")
    key = PublicKey(base64.b64decode("".join(lines[3:-3]), validate=True))
    _ = key._numbers
    return key


def _only(data: bytes, tag: int) -> bytes:
    """Return the contents of the only element that the bytes have."""
    ((found, contents),) = _elements(data)
    if found != tag:
        raise ValueError("it is not an RSA public key")
    return contents


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return the tags and contents of elements in DER (X.690, 8.1), whose lengths have at most two bytes of their own.

    Raises:
        ValueError: they are damaged.
    """
    elements = []
    while data:
        start = 2 if len(data) > 1 and data[1] < 128 else 2 + (data[1] & 127) if len(data) > 1 else 0
        size = data[1] if start == 2 else int.from_bytes(data[2:start])
        if not 2 <= start <= 4 or len(data) < start + size:
            raise ValueError("it is damaged")
        elements.append((data[0], data[start : start + size]))
        data = data[start + size :]
    return elements
