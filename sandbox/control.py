"""The control socket's messages: fixed-size packets, one per message (SOCK_SEQPACKET).

Runs in: zygote, front desk, reaper; standard library only. Functions on bytes, and the socket.

A request is an operation, a number chosen by the asker, an instance id and what the operation
needs beside it. A reply repeats the number; a DONE reply to CREATE or OPEN carries the database's
line as a descriptor (SCM_RIGHTS). TOUCH and REAPED have no reply. The listening socket is kept by
whoever starts the zygote, so that it outlives a zygote that died and callers merely wait in its
queue.
"""

import os
import re
import socket
import struct
import time
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from sandbox.errors import (
    ControlError,
    InstanceMissing,
    NoRoom,
    NoSuchState,
    NotFolded,
    SandboxError,
    TooLong,
)

MAX_PACKET = 4096
ID_BYTES = 16
#: So many states may be kept of a database, and so long may the name of each be.
MOST_STATES = 16
NAME_BYTES = 64
#: What a kept state may be called.
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_BYTES - 1}}}")
_REQUEST = struct.Struct(f"!BI16sIQQ16s{NAME_BYTES}s")
_REPLY = struct.Struct("!BIQQQ")
#: Instance ids that fit one TOUCH packet.
TOUCH_MOST = (MAX_PACKET - 1) // ID_BYTES

_SOCKET_NAME = "control.sock"


class Op(IntEnum):
    """What is asked of the zygote."""

    CREATE = 1
    OPEN = 2
    KILL = 3
    TOUCH = 4
    STATUS = 5
    REAPED = 6
    EXTEND = 7
    END_AT = 8
    FORK = 9
    STATES = 10
    KEEP = 11
    GO_BACK = 12
    DROP = 13


class Outcome(IntEnum):
    """How it went.

    REFUSED: it would live longer than a database may. NO_ROOM: it would have more than it may.
    NO_STATE: it has none of that name. NOT_FOLDED: its cell has left something out of its file.
    """

    DONE = 0
    MISSING = 1
    BUSY = 2
    FAILED = 3
    REFUSED = 4
    NO_ROOM = 5
    NO_STATE = 6
    NOT_FOLDED = 7


#: What it means that something could not be done; whatever else was in the way is FAILED.
REFUSALS: dict[Outcome, type[SandboxError]] = {
    Outcome.MISSING: InstanceMissing,
    Outcome.REFUSED: TooLong,
    Outcome.NO_ROOM: NoRoom,
    Outcome.NO_STATE: NoSuchState,
    Outcome.NOT_FOLDED: NotFolded,
}


def outcome_of(refused: SandboxError) -> Outcome:
    """Return how that is said in a reply."""
    for outcome, error in REFUSALS.items():
        if isinstance(refused, error):
            return outcome
    return Outcome.FAILED


class Request(NamedTuple):
    """One question.

    `amount` is the seconds of CREATE's and FORK's lifetime, those that EXTEND adds to it, the Unix
    second of END_AT (0: now), the milliseconds that KEEP, GO_BACK and DROP leave to a call that is
    under way, and how many databases were removed since the last REAPED. `cell` is
    for KILL: the number of the cell that is meant, so that its successor is not; 0 means whichever
    there is. `source` is for FORK: the database that `instance` becomes a copy of.
    `until` (milliseconds of CLOCK_MONOTONIC, which all processes of a machine share) is when the
    asker stops waiting: a database made after that would be nobody's. 0 means never.
    `name` is the kept state that KEEP, GO_BACK and DROP mean (NAME); empty for all else.
    """

    op: Op
    number: int
    instance: bytes
    amount: int = 0
    cell: int = 0
    until: int = 0
    source: bytes = bytes(ID_BYTES)
    name: str = ""

    @property
    def is_awaited(self) -> bool:
        """Whether its asker waits for the answer yet."""
        return not 0 < self.until < time.monotonic() * 1000


class Reply(NamedTuple):
    """One answer.

    For CREATE, OPEN, FORK, EXTEND and END_AT: `expires` is when the database is over (Unix seconds,
    for its caller), `ends` the same in nanoseconds of CLOCK_BOOTTIME, which nobody can set; for the
    first two `cell` is the number of its cell. `text` is the JSON of STATUS, STATES, KEEP, GO_BACK.
    """

    outcome: Outcome
    number: int
    expires: int
    text: bytes
    cell: int = 0
    ends: int = 0


def encode_request(
    op: Op,
    number: int,
    instance: bytes = bytes(ID_BYTES),
    amount: int = 0,
    cell: int = 0,
    until: int = 0,
    source: bytes = bytes(ID_BYTES),
    name: str = "",
) -> bytes:
    """Return the packet for one question (every operation but TOUCH).

    Raises ControlError for a name that is none.
    """
    if name and not NAME.fullmatch(name):
        raise ControlError("a name that is none")
    return _REQUEST.pack(op, number, instance, amount, cell, until, source, name.encode("ascii"))


def decode_request(packet: bytes) -> Request:
    """Return the question in a packet. Raises ControlError for anything else."""
    if len(packet) != _REQUEST.size:
        raise ControlError(f"control request of {len(packet)} bytes")
    op, number, instance, amount, cell, until, source, name = _REQUEST.unpack(packet)
    named = name.rstrip(b"\0").decode("ascii", errors="replace")
    if named and not NAME.fullmatch(named):
        raise ControlError("a control request with a name that is none")
    try:
        return Request(Op(op), number, instance, amount, cell, until, source, named)
    except ValueError:
        raise ControlError(f"unknown control operation {op}") from None


def encode_touch(instances: Iterable[bytes]) -> bytes:
    """Return the packet that says these databases were used just now (at most TOUCH_MOST)."""
    return bytes([Op.TOUCH]) + b"".join(instances)


def decode_touch(packet: bytes) -> list[bytes] | None:
    """Return the ids in a TOUCH packet, or None if the packet is another operation's."""
    if not packet or packet[0] != Op.TOUCH:
        return None
    if (len(packet) - 1) % ID_BYTES:
        raise ControlError(f"TOUCH of {len(packet)} bytes")
    return [packet[at : at + ID_BYTES] for at in range(1, len(packet), ID_BYTES)]


def encode_reply(
    outcome: Outcome,
    number: int,
    expires: int = 0,
    text: bytes = b"",
    cell: int = 0,
    ends: int = 0,
) -> bytes:
    """Return the packet for one answer."""
    return _REPLY.pack(outcome, number, expires, cell, ends) + text


def decode_reply(packet: bytes) -> Reply:
    """Return the answer in a packet. Raises ControlError for anything else."""
    if len(packet) < _REPLY.size:
        raise ControlError(f"control reply of {len(packet)} bytes")
    outcome, number, expires, cell, ends = _REPLY.unpack_from(packet)
    try:
        return Reply(Outcome(outcome), number, expires, packet[_REPLY.size :], cell, ends)
    except ValueError:
        raise ControlError(f"unknown control outcome {outcome}") from None


def listen(run_dir: Path) -> socket.socket:
    """Bind the control socket in `run_dir` and return it listening. Replaces a stale one.

    Anyone may connect; the zygote decides by the peer's user id (SO_PEERCRED) what it serves.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short_path(run_dir) as path:
            Path(path).unlink(missing_ok=True)
            listener.bind(path)
            Path(path).chmod(0o666)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def connect(run_dir: Path) -> socket.socket:
    """Return a blocking control connection. Raises OSError when nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short_path(run_dir) as path:
            sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


class _short_path:  # noqa: N801 - reads as the function it stands for
    """The socket's path by way of /proc: unix(7) allows 108 bytes, data folders may be deeper."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def __enter__(self) -> str:
        self._fd = os.open(self._run_dir, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._fd}/{_SOCKET_NAME}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
