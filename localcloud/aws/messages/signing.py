"""KMS: how much it signs at once, what conditions see of it, and a key that does not show itself.

https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html (4,096 bytes of a raw message; ``kms:MessageType``,
``kms:SigningAlgorithm``) and API_GetPublicKey.html (DisabledException, KMSInvalidStateException).
"""

from __future__ import annotations

import base64
import json
from typing import Any

from ministack.core import responses
from ministack.services import kms

from ..rights.judgement import Request, give_keys

MAX_RAW_BYTES = 4096


def install() -> None:
    """Check messages and states, and give conditions their keys."""
    sign, verify, public_key = kms._sign, kms._verify, kms._get_public_key

    def sign_checked(data: dict[str, Any]) -> Any:
        return _length_problem(data) or sign(data)

    def verify_checked(data: dict[str, Any]) -> Any:
        return _length_problem(data) or verify(data)

    def public_key_checked(data: dict[str, Any]) -> Any:
        record = kms._resolve_key(data.get("KeyId", ""))
        return (kms._check_key_state(record) if record else None) or public_key(data)

    kms._sign, kms._verify, kms._get_public_key = sign_checked, verify_checked, public_key_checked
    give_keys("kms", _keys)


def _length_problem(data: dict[str, Any]) -> Any:
    message = data.get("Message", "")
    size = len(base64.b64decode(message) if isinstance(message, str) else message)
    if data.get("MessageType", "RAW") != "RAW" or size <= MAX_RAW_BYTES:
        return None
    words = (
        "1 validation error detected: Value at 'message' failed to satisfy constraint: "
        f"Member must have length less than or equal to {MAX_RAW_BYTES}"
    )
    return responses.error_response_json("ValidationException", words, 400)


def _keys(request: Request) -> dict[str, Any]:
    if request.action not in ("kms:Sign", "kms:Verify"):
        return {}
    try:
        data = json.loads(request.body or b"{}")
    except ValueError:
        return {}
    return {
        "kms:messagetype": data.get("MessageType", "RAW"),
        "kms:signingalgorithm": data.get("SigningAlgorithm", ""),
    }
