"""The test build of a cell: honest, all walls up, until a call's SQL names a treason.

Runs in: the zygote (by build/sitecustomize.py) and its cells, which do after the jail what code
that took one over might do. `-- act: <name>` tries an act of acts.py in the cell's place and
answers with its outcome; `-- treason: <name>` spoils the answer itself.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from sandbox import cell as cell_process
from sandbox import frames, jail, kernel, leash, limits, proof
from sandbox.frames import HEADER, Kind
from tests.hostile import acts
from tests.hostile.acts import Scene

#: In a zygote's environment: leave the filter of system calls out.
WITHOUT_SECCOMP = "TRAITOR_WITHOUT_SECCOMP"

ACT = "-- act: "
TREASON = "-- treason: "
#: What an honest answer to a treason would be.
BODY = b'{"columns":["word"],"rows":[["treason"]],"rows_affected":0}'
ANSWER = frames.encode_answer(200, BODY)
#: Names of traitors that end in the middle of an answer.
CUT = "end after byte "
STATUS = "status "
EXIT = "exit "

_honest_answer = cell_process._Cell._answer


def install() -> None:
    """Change what every cell forked from now on does with a call."""
    cell_process._Cell._answer = _answer  # type: ignore[method-assign]
    if os.environ.get(WITHOUT_SECCOMP):
        kernel.seccomp = lambda *_: None  # type: ignore[assignment]
        jail._try_the_door = lambda *_: None  # type: ignore[assignment]
        proof.look_at = lambda *_: {}  # type: ignore[assignment]


def _answer(cell: Any, line: Any, asked: frames.Asked, attached: bytes) -> None:
    announce = asked.announce
    call = json.loads(asked.body)
    sql = call["sql"]
    if not sql.startswith((ACT, TREASON)):
        _honest_answer(cell, line, asked, attached)
        return
    if announce and sql != TREASON + "retired":
        line.sock.sendall(frames.encode(Kind.STARTED))
    if sql.startswith(ACT):
        act, _, _ = acts.ACTS[sql.removeprefix(ACT)]
        word = acts.outcome(act, Scene(**call["args"]))
        line.sock.sendall(frames.encode_answer(200, json.dumps({"rows": [[word]]}).encode()))
        return
    _commit(sql.removeprefix(TREASON), cell, line.sock)


def _commit(treason: str, cell: Any, sock: socket.socket) -> None:
    if treason.startswith(CUT):
        sock.sendall(ANSWER[: int(treason.removeprefix(CUT))])
        os._exit(0)
    elif treason.startswith(EXIT):
        os._exit(int(treason.removeprefix(EXIT)))
    elif treason.startswith(STATUS):
        sock.sendall(frames.encode_answer(int(treason.removeprefix(STATUS)), BODY))
    else:
        TREASONS[treason](cell, sock)


def _ignore_the_clock() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _for_ever(sock: socket.socket, piece: bytes) -> None:
    _ignore_the_clock()
    while True:
        sock.sendall(piece)


def _silence(*_: Any) -> None:
    _ignore_the_clock()
    while True:
        time.sleep(1)


def _say(data: bytes) -> Callable[[Any, socket.socket], None]:
    return lambda _, sock: sock.sendall(data)


def _say_and_wait(data: bytes) -> Callable[[Any, socket.socket], None]:
    def act(_: Any, sock: socket.socket) -> None:
        sock.sendall(data)
        _silence()

    return act


def _dribble(_: Any, sock: socket.socket) -> None:
    _ignore_the_clock()
    sock.sendall(HEADER.pack(Kind.DATA, frames.LIMITS[Kind.DATA]))
    while True:
        sock.sendall(b" ")
        time.sleep(0.001)


def _answer_at_once_next_time(_: Any, sock: socket.socket) -> None:
    sock.sendall(ANSWER)
    time.sleep(0.05)
    sock.sendall(frames.encode_answer(200, b'{"rows":[["unasked"]],"rows_affected":0}'))


def _burn(_: Any, sock: socket.socket) -> None:
    sock.sendall(ANSWER)
    _ignore_the_clock()
    while True:
        pass


def _eat_memory(_: Any, sock: socket.socket) -> None:
    _ignore_the_clock()
    held = []
    try:
        while True:
            held.append(b"x" * (1 << 20))
    except MemoryError:
        _silence()


def _fill_files(cell: Any, sock: socket.socket) -> None:
    most = limits.RLIMITS[acts.resource.RLIMIT_FSIZE]
    database = cell._gate._file
    for path in (database, database + "-wal"):
        fd = os.open(path, os.O_RDWR)
        for at in range(0, most, 1 << 20):
            os.pwrite(fd, os.urandom(1 << 20), at)
        os.close(fd)
    sock.sendall(ANSWER)


def _send_descriptors(_: Any, sock: socket.socket) -> None:
    for _ in range(50):
        with contextlib.suppress(OSError):  # its user may not have more of them under way
            socket.send_fds(sock, [frames.encode(Kind.DATA)], [0, 1, 2] * 20)
    sock.sendall(ANSWER)


def _send_descriptors_to_zygote(cell: Any, sock: socket.socket) -> None:
    for _ in range(3):
        with contextlib.suppress(OSError):
            socket.send_fds(cell._own, [bytes([leash.Report.READY])], [0, 1, 2] * 20)
    sock.sendall(ANSWER)


def _flood_zygote(cell: Any, _: socket.socket) -> None:
    _ignore_the_clock()
    while True:
        cell._own.send(bytes([leash.Report.FAULT]) + b"flood " * 300)


def _lie_to_zygote(cell: Any, sock: socket.socket) -> None:
    cell._own.send(bytes([leash.Report.READY]))
    cell._own.send(bytes([99]) + b"\xff\xfe\nERROR walkin.zygote: forged\n\x1b[2J")
    sock.sendall(ANSWER)


def _leave_zygote(cell: Any, _: socket.socket) -> None:
    _ignore_the_clock()
    cell._own.close()
    time.sleep(60)


def _crash(*_: Any) -> None:
    ctypes.string_at(0)


def _header(kind: int, length: int) -> bytes:
    return HEADER.pack(kind, length)


_END = frames.encode(Kind.END, frames.END_HEAD.pack(200, 0, 0))

TREASONS: dict[str, Callable[[Any, socket.socket], None]] = {
    "garbage": lambda _, sock: sock.sendall(b"\xff" + os.urandom(65_535)),
    "another protocol": _say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "garbage for ever": lambda _, sock: _for_ever(sock, os.urandom(65_536)),
    "data for ever": lambda _, sock: _for_ever(sock, frames.encode(Kind.DATA, bytes(262_144))),
    "crumbs for ever": lambda _, sock: _for_ever(sock, frames.encode(Kind.DATA) * 10_000),
    "started for ever": lambda _, sock: _for_ever(sock, frames.encode(Kind.STARTED) * 10_000),
    "a frame too long": _say_and_wait(_header(Kind.DATA, frames.LIMITS[Kind.DATA] + 1)),
    "a frame of 4 GiB": _say_and_wait(_header(Kind.DATA, 0xFFFFFFFF)),
    "an end too long": _say_and_wait(_header(Kind.END, frames.LIMITS[Kind.END] + 1)),
    "an end too short": _say(_header(Kind.END, 1) + b"\0"),
    "an end of nothing": _say(_header(Kind.END, 0)),
    "a call of its own": _say(frames.encode_call(1, bytes(16), b"{}", announce=False)),
    "kind 0": _say_and_wait(_header(0, 0)),
    "kind 6": _say_and_wait(_header(6, 0)),
    "kind 255": _say_and_wait(_header(255, 0)),
    "retired": _say(frames.encode(Kind.RETIRED)),
    "retired in the middle": _say(
        frames.encode(Kind.DATA, b"{") + frames.encode(Kind.RETIRED) + _END
    ),
    "started in the middle": _say(
        frames.encode(Kind.DATA, b"{") + frames.encode(Kind.STARTED) + _END
    ),
    "two answers": _say(ANSWER * 2),
    "an answer unasked": _answer_at_once_next_time,
    "an answer of nothing": _say(_END),
    "the longest answer": lambda _, sock: sock.sendall(
        frames.encode_answer(200, b" " * frames.MAX_ANSWER_BYTES)
    ),
    "an answer longer than that": lambda _, sock: sock.sendall(
        frames.encode_answer(200, b" " * (frames.MAX_ANSWER_BYTES + 1))
    ),
    "no JSON": _say(frames.encode_answer(200, b"\x00<script>\r\n\r\nHTTP/1.1 200 OK")),
    "silence": _silence,
    "half an answer": _say_and_wait(ANSWER[:20]),
    "half a header": _say_and_wait(ANSWER[:3]),
    "a dribble": _dribble,
    "a loop after the answer": _burn,
    "all its memory": _eat_memory,
    "all its disk": _fill_files,
    "descriptors": _send_descriptors,
    "descriptors to the zygote": _send_descriptors_to_zygote,
    "reports for ever": _flood_zygote,
    "lies to the zygote": _lie_to_zygote,
    "its leash dropped": _leave_zygote,
    "a crash": _crash,
    "a forbidden call": lambda *_: acts.by_number(acts.number_of("getppid")),
}
