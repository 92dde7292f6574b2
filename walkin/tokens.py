"""The seal: session tokens, issued and verified. No HTTP, no I/O, one algorithm.

Runs in: front desk.

    wkn_ base64url( UUIDv7 (16 bytes) ‖ nonce (32) ‖ HMAC-SHA256 (32) ), unpadded

Sixteen and thirty-two bytes are 64 characters exactly and the MAC is the 43 after them, so the
signature is itsdangerous' own text. Its last character has two spare bits: only the canonical
spelling is accepted.
"""

import functools
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
#: Good tokens that are known again without work, some 400 bytes each.
_REMEMBERED = 10_000
_TOKEN = re.compile(r"wkn_[A-Za-z0-9_-]{107}")
#: One purpose for each kind of token, so that none stands in for another.
_PURPOSE = b"walkin.session.full"


class TokenInvalid(Exception):  # noqa: N818
    """Raised for a token that is not one of ours; the caller is told 404."""


class Seal:
    """Signs with the newest key, verifies with all of them."""

    def __init__(self, keys: tuple[Secret, ...]) -> None:
        self.change_keys(keys)

    def change_keys(self, keys: tuple[Secret, ...]) -> None:
        """Sign and verify with other keys from now on."""
        self._signer = Signer(
            [key.reveal() for key in keys],
            salt=_PURPOSE,
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        self._keys = [self._signer.derive_key(key) for key in self._signer.secret_keys]
        #: Tokens are called again and again; one that was found good stays good.
        self.verify = functools.lru_cache(_REMEMBERED)(self._verify)

    def issue(self, instance: bytes) -> str:
        """Return a new token for an instance id (16 bytes)."""
        body = base64_encode(instance + os.urandom(_NONCE_BYTES))
        return PREFIX + (body + self._signer.get_signature(body)).decode()

    def _verify(self, token: str) -> bytes:
        """Return the instance id. Raises TokenInvalid, whatever was wrong with the token.

        Called as `verify`, which remembers what was found good and nothing else. Every key is
        tried on every token, also behind the one that matched, and compared in constant time
        (itsdangerous, by hmac.compare_digest): how long it takes tells neither how near a forgery
        came nor which key signed. Only what has not the shape of a token is told apart sooner, and
        that shape is public.
        """
        if not _TOKEN.fullmatch(token):
            raise TokenInvalid
        text = token[len(PREFIX) :].encode()
        body, signature = text[:_BODY_CHARACTERS], text[_BODY_CHARACTERS:]
        mac = base64_decode(signature)
        matches = [self._signer.algorithm.verify_signature(key, body, mac) for key in self._keys]
        # The spelling is the caller's own and no secret: it may be compared as it comes.
        if not any(matches) or base64_encode(mac) != signature:
            raise TokenInvalid
        return base64_decode(body)[:_ID_BYTES]


def new_instance_id() -> bytes:
    """Return a UUIDv7: 48 bits of Unix milliseconds, the rest random (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | random[0] & 0x0F
    random[2] = 0x80 | random[2] & 0x3F
    return milliseconds.to_bytes(6, "big") + bytes(random)
