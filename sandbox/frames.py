"""The wire between front desk and cell: length-prefixed frames on a stream socket.

Runs in: front desk and cells; standard library only. Pure functions on bytes.

    0        1                     5                       5 + length
    +--------+---------------------+------------------------+
    | kind   | length, big-endian  | payload                |
    +--------+---------------------+------------------------+

A call is one CALL frame, and where it says so BODY frames behind it, the last of them empty: what
is attached to it. Its answer is any number of DATA frames and one END frame with the status and the
last piece of the body, or one RETIRED frame: the cell is going away and has not begun the call.
STARTED says that a call has left the cell's queue; a cell sends it only when a CALL asks. STREAM
frames, of an answer whose form may go out as it comes, are sent while there is more to be made; an
END behind them that says anything but 200 means that the answer broke off.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from sandbox.errors import FrameError
from sandbox.forms import Form

HEADER = struct.Struct("!BI")
#: timeout in milliseconds, flags, what is asked, form, request id, lengths of the key and of the
#: reach; the key (for safe retries), the reach and the HTTP body follow. The reach is empty, or the
#: call may only read: a JSON array of the tables, all if it has none.
CALL_HEAD = struct.Struct("!IBBB16sBH")
#: status, marks, microseconds it took; the last piece of the body follows.
END_HEAD = struct.Struct("!HBI")

#: length, SHA-256; the file follows.
FILE_HEAD = struct.Struct("!Q32s")

#: Flags of a CALL: say STARTED when the call begins (several askers share this cell); BODY frames
#: follow.
ANNOUNCE = 1
ATTACHED = 2


class Ask(IntEnum):
    """What a call wants."""

    SQL = 0
    SCHEMA = 1
    #: The body is a JSON object, which is answered with what the cell adds to it.
    SIZE = 2
    #: The body is the name of a table or view, which is answered with its rows.
    TABLE = 3
    #: Answered with the database file, behind its length and its SHA-256 (FILE_HEAD).
    FILE = 4
    #: The database becomes what the attached file is.
    LOAD = 5
    #: The attached text is run as SQL.
    SCRIPT = 6
    #: The attached rows go into a table; the body says which, and how they are written.
    ROWS = 7
    #: Answered with the SQL that makes the database again.
    DUMP = 8


#: Marks of an END, which the front desk tells in fields of the answer's head: it is the answer of
#: an earlier call with the same key; it was cut by a cap on rows, or on bytes.
REPLAYED = 1
CUT_ROWS = 2
CUT_BYTES = 4


class Asked(NamedTuple):
    """What a CALL frame says."""

    timeout_ms: int
    announce: bool
    attached: bool
    ask: Ask
    form: Form
    request_id: bytes
    key: bytes
    reach: bytes
    body: bytes


class Ended(NamedTuple):
    """What an END frame says; `took_us` is what the cell spent on the call, in microseconds."""

    status: int
    marks: int
    took_us: int
    piece: bytes


class Kind(IntEnum):
    """What a frame is."""

    CALL = 1
    DATA = 2
    END = 3
    RETIRED = 4
    STARTED = 5
    STREAM = 6
    BODY = 7


#: Found sooner than by making one of a number.
_ASKS = {ask.value: ask for ask in Ask}
_FORMS = {form.value: form for form in Form}

#: The longest piece of a body that one frame carries.
PIECE_BYTES = 262_144

#: The longest payload of each kind, in bytes. Checked before anything is buffered.
LIMITS = {
    Kind.CALL: CALL_HEAD.size + 65_536,
    Kind.DATA: PIECE_BYTES,
    Kind.END: END_HEAD.size + PIECE_BYTES,
    Kind.RETIRED: 0,
    Kind.STARTED: 0,
    Kind.STREAM: PIECE_BYTES,
    Kind.BODY: PIECE_BYTES,
}

#: By number; there is no 0.
_LONGEST = [0, *(LIMITS[kind] for kind in sorted(LIMITS))]

#: The longest answer, all its DATA frames together: 1 MiB of rows and their column names.
MAX_ANSWER_BYTES = 4 << 20

#: The longest that may be attached to a call: as much as a database has.
MAX_ATTACHED_BYTES = 10 << 20

TO_CELL = frozenset({Kind.CALL, Kind.BODY})
FROM_CELL = frozenset({Kind.DATA, Kind.END, Kind.RETIRED, Kind.STARTED, Kind.STREAM})

_NONE = (None, 0)

Frame = tuple[Kind, bytes]


def encode(kind: Kind, payload: bytes = b"") -> bytes:
    """Return one frame. Raises FrameError if the payload is longer than its kind allows."""
    if len(payload) > _LONGEST[kind]:
        raise FrameError(f"{kind.name} frame of {len(payload)} bytes")
    return HEADER.pack(kind, len(payload)) + payload


def encode_call(
    timeout_ms: int,
    request_id: bytes,
    body: bytes,
    *,
    announce: bool,
    ask: Ask = Ask.SQL,
    form: Form = Form.JSON,
    key: bytes = b"",
    reach: bytes = b"",
    attached: bytes | None = None,
) -> bytes:
    """Return the frames for an HTTP body that the front desk has already checked."""
    flags = (ANNOUNCE if announce else 0) | (0 if attached is None else ATTACHED)
    head = CALL_HEAD.pack(timeout_ms, flags, ask, form, request_id, len(key), len(reach))
    call = encode(Kind.CALL, head + key + reach + body)
    if attached is None:
        return call
    return b"".join([call, encode_data(attached, Kind.BODY), encode(Kind.BODY)])


def decode_call(payload: bytes) -> Asked:
    """Return what a CALL says. Raises FrameError for one that says nothing we know."""
    if len(payload) < CALL_HEAD.size:
        raise FrameError(f"CALL frame of {len(payload)} bytes")
    timeout_ms, flags, ask, form, request_id, *lengths = CALL_HEAD.unpack_from(payload)
    reach_at = CALL_HEAD.size + lengths[0]
    body_at = reach_at + lengths[1]
    if body_at > len(payload):
        raise FrameError(f"CALL frame with {lengths} bytes before its body and no room for them")
    try:
        return Asked(
            timeout_ms,
            bool(flags & ANNOUNCE),
            bool(flags & ATTACHED),
            _ASKS[ask],
            _FORMS[form],
            request_id,
            payload[CALL_HEAD.size : reach_at],
            payload[reach_at:body_at],
            payload[body_at:],
        )
    except KeyError as unknown:
        raise FrameError(f"CALL frame that asks for number {unknown}") from None


def encode_data(body: bytes, kind: Kind = Kind.DATA) -> bytes:
    """Return the frames for a piece of a body that goes on."""
    pieces = range(0, len(body), PIECE_BYTES)
    return b"".join(encode(kind, body[at : at + PIECE_BYTES]) for at in pieces)


def encode_answer(status: int, body: bytes, marks: int = 0, took_us: int = 0) -> bytes:
    """Return a whole answer, or its end: an END frame, and DATA frames for what is too long."""
    head = END_HEAD.pack(status, marks, min(took_us, 0xFFFF_FFFF))
    if len(body) <= PIECE_BYTES:
        return HEADER.pack(Kind.END, len(head) + len(body)) + head + body
    last = (len(body) - 1) // PIECE_BYTES * PIECE_BYTES
    return encode_data(body[:last]) + encode(Kind.END, head + body[last:])


class Decoder:
    """Turns a stream of bytes into frames of the kinds named in `accepts`.

    Holds at most one incomplete frame: never more than the longest accepted frame plus the
    piece just fed. After a FrameError the stream cannot be trusted again; drop the line.
    """

    def __init__(self, accepts: frozenset[Kind]) -> None:
        #: Kind and longest payload, by number: what an enumeration hashes takes its time.
        self._accepts: dict[int, tuple[Kind | None, int]] = {
            kind.value: (kind, LIMITS[kind]) for kind in accepts
        }
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
                kind, most = self._accepts.get(number, _NONE)
                if kind is None:
                    raise FrameError(f"frame kind {number} is not accepted here")
                if length > most:
                    raise FrameError(f"{kind.name} frame announces {length} bytes")
                start = at + HEADER.size
                if len(buffer) - start < length:
                    return
                at = start + length
                yield kind, bytes(buffer[start:at])
        finally:
            del buffer[:at]


def decode_end(payload: bytes) -> Ended:
    """Return what an END frame says. Raises FrameError for one without status."""
    if len(payload) < END_HEAD.size:
        raise FrameError(f"END frame of {len(payload)} bytes")
    status, marks, took_us = END_HEAD.unpack_from(payload)
    return Ended(status, marks, took_us, payload[END_HEAD.size :])
