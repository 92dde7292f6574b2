"""Rows that come in, in each form that they may have.

Runs in: cells, on bytes of whoever calls. Standard library only. They are read twice, for what the
columns hold and for the rows, so that those are never held all at once.
"""

import zlib

from sandbox import documents, separated
from sandbox.columns import Clock, Incoming, refused
from sandbox.forms import Written
from sandbox.refusal import Refusal

__all__ = ["Incoming", "Written", "read", "unpack"]

#: zlib's, for the head and the end that gzip has.
_GZIP = 31
#: What a member leaves over is copied, and a body may be members of 20 bytes.
_SLICE = 1 << 12


def read(written: Written, body: bytes, look_at_clock: Clock) -> Incoming:
    """Return what a body has. Raises Refusal, and so may the rows; and what `look_at_clock` does.

    That is called every 1,000 rows.
    """
    if written is Written.NDJSON:
        return documents.read_lines(body, look_at_clock)
    if written is Written.JSON:
        return documents.read_document(body, look_at_clock)
    return separated.read(body, "," if written is Written.CSV else "\t", look_at_clock)


def unpack(body: bytes, most: int) -> bytes:
    """Return what was packed by gzip, which may have several members. Raises Refusal."""
    found = bytearray()
    member = zlib.decompressobj(_GZIP)
    at = 0
    while at < len(body):
        piece = body[at : at + _SLICE]
        at += len(piece)
        try:
            # At most one byte too many, so all of the piece is used or there is too much.
            found += member.decompress(piece, most - len(found) + 1)
        except zlib.error:
            raise refused("the body is not gzip", 1) from None
        if len(found) > most:
            raise Refusal("body_too_large", f"at most {most} bytes, unpacked")
        if member.eof:
            at -= len(member.unused_data)
            if at < len(body):
                member = zlib.decompressobj(_GZIP)
    if not member.eof:
        raise refused("the gzip ends too soon", 1)
    return bytes(found)
