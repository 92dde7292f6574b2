"""The wire between front desk and cell: length-prefixed frames on a stream socket.

Runs in: front desk and cells; standard library only. Pure functions on bytes.

    0        1                     5                       5 + length
    +--------+---------------------+------------------------+
    | kind   | length, big-endian  | payload                |
    +--------+---------------------+------------------------+

A call is one CALL frame. Its answer is any number of DATA frames and one END frame with the status
and the last piece of the body, or one RETIRED frame: the cell is going away and has not begun the
call. STARTED says that a call has left the cell's queue; a cell sends it only when a CALL asks.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

from sandbox.errors import FrameError

HEADER = struct.Struct("!BI")
#: timeout in milliseconds, flags, request id; the HTTP body follows.
CALL_HEAD = struct.Struct("!IB16s")
#: status; the last piece of the body follows.
END_HEAD = struct.Struct("!H")

#: Flag of a CALL: say STARTED when the call begins (several askers share this cell).
ANNOUNCE = 1


class Kind(IntEnum):
    """What a frame is."""

    CALL = 1
    DATA = 2
    END = 3
    RETIRED = 4
    STARTED = 5


#: The longest piece of a body that one frame carries.
PIECE_BYTES = 262_144

#: The longest payload of each kind, in bytes. Checked before anything is buffered.
LIMITS = {
    Kind.CALL: CALL_HEAD.size + 65_536,
    Kind.DATA: PIECE_BYTES,
    Kind.END: END_HEAD.size + PIECE_BYTES,
    Kind.RETIRED: 0,
    Kind.STARTED: 0,
}

#: The longest answer, all its DATA frames together: 1 MiB of rows and their column names.
MAX_ANSWER_BYTES = 4 << 20

TO_CELL = frozenset({Kind.CALL})
FROM_CELL = frozenset({Kind.DATA, Kind.END, Kind.RETIRED, Kind.STARTED})

Frame = tuple[Kind, bytes]


def encode(kind: Kind, payload: bytes = b"") -> bytes:
    """Return one frame. Raises FrameError if the payload is longer than its kind allows."""
    if len(payload) > LIMITS[kind]:
        raise FrameError(f"{kind.name} frame of {len(payload)} bytes")
    return HEADER.pack(kind, len(payload)) + payload


def encode_call(timeout_ms: int, request_id: bytes, body: bytes, *, announce: bool) -> bytes:
    """Return the CALL frame for an HTTP body that the front desk has already checked."""
    head = CALL_HEAD.pack(timeout_ms, ANNOUNCE if announce else 0, request_id)
    return encode(Kind.CALL, head + body)


def decode_call(payload: bytes) -> tuple[int, bool, bytes, bytes]:
    """Return timeout in milliseconds, `announce`, request id and HTTP body of a CALL."""
    if len(payload) < CALL_HEAD.size:
        raise FrameError(f"CALL frame of {len(payload)} bytes")
    timeout_ms, flags, request_id = CALL_HEAD.unpack_from(payload)
    return timeout_ms, bool(flags & ANNOUNCE), request_id, payload[CALL_HEAD.size :]


def encode_answer(status: int, body: bytes) -> bytes:
    """Return a whole answer: an END frame, and DATA frames for what is too long for it."""
    last = max(0, len(body) - 1) // PIECE_BYTES * PIECE_BYTES
    pieces = [encode(Kind.DATA, body[at : at + PIECE_BYTES]) for at in range(0, last, PIECE_BYTES)]
    pieces.append(encode(Kind.END, END_HEAD.pack(status) + body[last:]))
    return b"".join(pieces)


class Decoder:
    """Turns a stream of bytes into frames of the kinds named in `accepts`.

    Holds at most one incomplete frame: never more than the longest accepted frame plus the
    piece just fed. After a FrameError the stream cannot be trusted again; drop the line.
    """

    def __init__(self, accepts: frozenset[Kind]) -> None:
        self._accepts = accepts
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take the next piece of the stream; the frames it completes come one by one.

        Raises FrameError for a kind that is not accepted here or a length over its limit, as
        soon as the header is there and before the payload is waited for. Whoever is tired of a
        stream stops: a frame that is not taken costs nothing, and one piece may hold 50,000.
        """
        self._buffer += data
        return self._complete()

    def _complete(self) -> Iterator[Frame]:
        buffer = self._buffer
        at = 0
        try:
            while len(buffer) - at >= HEADER.size:
                number, length = HEADER.unpack_from(buffer, at)
                if number not in self._accepts:
                    raise FrameError(f"frame kind {number} is not accepted here")
                kind = Kind(number)
                if length > LIMITS[kind]:
                    raise FrameError(f"{kind.name} frame announces {length} bytes")
                start = at + HEADER.size
                if len(buffer) - start < length:
                    return
                at = start + length
                yield kind, bytes(buffer[start:at])
        finally:
            del buffer[:at]


def decode_end(payload: bytes) -> tuple[int, bytes]:
    """Return status and last piece of an END frame. Raises FrameError for one without status."""
    if len(payload) < END_HEAD.size:
        raise FrameError(f"END frame of {len(payload)} bytes")
    return END_HEAD.unpack_from(payload)[0], payload[END_HEAD.size :]
