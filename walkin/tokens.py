"""The seal: session tokens, issued and verified. No HTTP, no I/O, one algorithm.

Runs in: front desk.

    wkn_ base64url( UUIDv7 (16 bytes) ‖ nonce (32) ‖ HMAC-SHA256 (32) ), unpadded
    wkr_ base64url( UUIDv7 (16 bytes) ‖ Unix second (8) ‖ JSON array of tables ‖ HMAC-SHA256 (32) )

The first is good for everything, the second for reading, until that second, and of those tables if
there are any; its JSON has spaces behind it that make all before the MAC a multiple of three bytes.
So the MAC is the last 43 characters of both, and the signature is itsdangerous' own text. Its last
character has two spare bits: only the canonical spelling is accepted.
"""

import functools
import hashlib
import os
import re
import time
from typing import NamedTuple

import orjson
from itsdangerous import Signer
from itsdangerous.encoding import base64_decode, base64_encode

from walkin.settings import Secret

PREFIX = "wkn_"
READ_PREFIX = "wkr_"
_ID_BYTES = 16
_NONCE_BYTES = 32
_MAC_CHARACTERS = 43
_SECOND_BYTES = 8
#: So long may the names of the tables be in one token, as JSON.
MOST_TABLES_BYTES = 1024
#: Good tokens that are known again without work, some 400 bytes each.
_REMEMBERED = 10_000
_TOKEN = re.compile(r"wkn_[A-Za-z0-9_-]{107}|wkr_(?:[A-Za-z0-9_-]{4}){9,360}[A-Za-z0-9_-]{43}")
#: One purpose for each kind of token, so that none stands in for another.
_PURPOSES = {PREFIX: b"walkin.session.full", READ_PREFIX: b"walkin.session.read"}


class Grant(NamedTuple):
    """What a token is good for: all that can be done with a database, or reading it."""

    instance: bytes
    #: Which tables may be read, all if there are none. None: not only reading, everything.
    tables: tuple[str, ...] | None = None
    #: From this Unix second on it is good for nothing; 0: as long as the database is there.
    expires: int = 0

    @property
    def scope(self) -> str:
        """The name of it."""
        return "full" if self.tables is None else "read"


class TokenInvalid(Exception):  # noqa: N818
    """Raised for a token that is not one of ours; the caller is told 404."""


class Seal:
    """Signs with the newest key, verifies with all of them."""

    def __init__(self, keys: tuple[Secret, ...]) -> None:
        self.change_keys(keys)

    def change_keys(self, keys: tuple[Secret, ...]) -> None:
        """Sign and verify with other keys from now on."""
        self._signers = {
            prefix: Signer(
                [key.reveal() for key in keys],
                salt=purpose,
                key_derivation="hmac",
                digest_method=hashlib.sha256,
            )
            for prefix, purpose in _PURPOSES.items()
        }
        self._keys = {
            prefix: [signer.derive_key(key) for key in signer.secret_keys]
            for prefix, signer in self._signers.items()
        }
        #: Tokens are called again and again; one that was found good stays good.
        self.verify = functools.lru_cache(_REMEMBERED)(self._verify)

    def issue(self, instance: bytes) -> str:
        """Return a new token for an instance id (16 bytes)."""
        return self._sign(PREFIX, instance + os.urandom(_NONCE_BYTES))

    def narrow(self, grant: Grant) -> str:
        """Return a token for a grant that is not everything.

        Raises ValueError where the names of its tables are too long for one.
        """
        names = orjson.dumps(grant.tables)
        if len(names) > MOST_TABLES_BYTES:
            raise ValueError("too many names, or too long ones")
        body = grant.instance + grant.expires.to_bytes(_SECOND_BYTES) + names
        return self._sign(READ_PREFIX, body + b" " * (-len(body) % 3))

    def _sign(self, prefix: str, body: bytes) -> str:
        text = base64_encode(body)
        return prefix + (text + self._signers[prefix].get_signature(text)).decode()

    def _verify(self, token: str) -> Grant:
        """Return what a token is good for. Raises TokenInvalid, whatever was wrong with it.

        Called as `verify`, which remembers what was found good and nothing else. Every key is
        tried on every token, also behind the one that matched, and compared in constant time
        (itsdangerous, by hmac.compare_digest): how long it takes tells neither how near a forgery
        came nor which key signed. Only what has not the shape of a token is told apart sooner, and
        that shape is public.
        """
        if not _TOKEN.fullmatch(token):
            raise TokenInvalid
        prefix, text = token[: len(PREFIX)], token[len(PREFIX) :].encode()
        body, signature = text[:-_MAC_CHARACTERS], text[-_MAC_CHARACTERS:]
        mac = base64_decode(signature)
        verify = self._signers[prefix].algorithm.verify_signature
        matches = [verify(key, body, mac) for key in self._keys[prefix]]
        # The spelling is the caller's own and no secret: it may be compared as it comes.
        if not any(matches) or base64_encode(mac) != signature:
            raise TokenInvalid
        said = base64_decode(body)
        instance, rest = said[:_ID_BYTES], said[_ID_BYTES:]
        if prefix == PREFIX:
            return Grant(instance)
        names = orjson.loads(rest[_SECOND_BYTES:])
        return Grant(instance, tuple(names), int.from_bytes(rest[:_SECOND_BYTES]))


def new_instance_id() -> bytes:
    """Return a UUIDv7: 48 bits of Unix milliseconds, the rest random (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | random[0] & 0x0F
    random[2] = 0x80 | random[2] & 0x3F
    return milliseconds.to_bytes(6, "big") + bytes(random)
