"""The seal: session tokens, issued and verified. No HTTP, no I/O, one algorithm.

Runs in: front desk.

    wkn_ base64url( UUIDv7 (16 bytes) ‖ nonce (32) ‖ HMAC-SHA256 (32) ), unpadded

Sixteen and thirty-two bytes are 64 characters exactly and the MAC is the 43 after them, so the
signature is itsdangerous' own text. Its last character has two spare bits: only the canonical
spelling is accepted.
"""

import hashlib
import os
import re
import time

from itsdangerous import Signer
from itsdangerous.encoding import base64_decode, base64_encode

from walkin.settings import Secret

PREFIX = "wkn_"
_ID_BYTES = 16
_NONCE_BYTES = 32
_BODY_CHARACTERS = 64
_TOKEN = re.compile(r"wkn_[A-Za-z0-9_-]{107}")
#: One purpose for each kind of token, so that none stands in for another.
_PURPOSE = b"walkin.session.full"


class TokenInvalid(Exception):  # noqa: N818
    """Raised for a token that is not one of ours; the caller is told 404."""


class Seal:
    """Signs with the newest key, verifies with all of them."""

    def __init__(self, keys: tuple[Secret, ...]) -> None:
        self._signer = Signer(
            [key.reveal() for key in keys],
            salt=_PURPOSE,
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )

    def issue(self, instance: bytes) -> str:
        """Return a new token for an instance id (16 bytes)."""
        body = base64_encode(instance + os.urandom(_NONCE_BYTES))
        return PREFIX + (body + self._signer.get_signature(body)).decode()

    def verify(self, token: str) -> bytes:
        """Return the instance id. Raises TokenInvalid, whatever was wrong with the token.

        The comparison is constant-time and every key is tried the same way (itsdangerous).
        """
        if not _TOKEN.fullmatch(token):
            raise TokenInvalid
        text = token[len(PREFIX) :].encode()
        body, signature = text[:_BODY_CHARACTERS], text[_BODY_CHARACTERS:]
        canonical = base64_encode(base64_decode(signature)) == signature
        if not self._signer.verify_signature(body, signature) or not canonical:
            raise TokenInvalid
        return base64_decode(body)[:_ID_BYTES]


def new_instance_id() -> bytes:
    """Return a UUIDv7: 48 bits of Unix milliseconds, the rest random (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | random[0] & 0x0F
    random[2] = 0x80 | random[2] & 0x3F
    return milliseconds.to_bytes(6, "big") + bytes(random)
