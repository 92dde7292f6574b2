"""A cell: one jailed process, one database, one call at a time.

Runs in: cells, from the fork to the end. Everything is imported before the jail is entered; after
it, nothing can be. Whoever takes this process over has two files of 16 MiB at most, its own
tenant's answers, and 120 seconds of processor time.
"""

import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import orjson
from landlockpy import Ruleset
from setproctitle import setproctitle

from sandbox import calls, frames, jail, leash, limits, policy, receipts, refusal
from sandbox.answers import Answer
from sandbox.engine import Engine
from sandbox.errors import FrameError
from sandbox.forms import AS_THEY_COME
from sandbox.frames import Ask, Asked, Decoder, Kind
from sandbox.gate import Gate
from sandbox.jail import Walls
from sandbox.leash import Order, Report
from sandbox.place import DATABASE, Place
from sandbox.porter import Porter
from sandbox.refusal import Refusal
from sandbox.sqlite import seed_randomness

#: From the deadline on SQLite has this long to come back by itself, then the kernel ends us.
GRACE_S = 0.2
_RECEIVE_BYTES = 65_536


def run(own: socket.socket, zygote: int, place: Place, walls: Walls, ruleset: Ruleset) -> NoReturn:
    """Be a cell: wait blank for a database, raise the walls, serve it, exit.

    `own` is this end of the leash.
    """
    status = 1
    try:
        jail.strip(own, zygote, ruleset)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        seed_randomness()
        setproctitle("walkin: blank cell")
        order, instance, most_pages, line = leash.receive_order(own)
        if order is Order.ASSIGN and line is not None:
            setproctitle(f"walkin: cell {instance.hex()}")
            folder = place.folder(instance)
            jail.enter(folder, walls, ruleset)
            _confined(own, line, folder, most_pages)
        status = 0
    except EOFError:
        status = 0
    except BaseException:
        _report_fault(own, "cell")
    finally:
        os._exit(status)


def _confined(own: socket.socket, line: socket.socket, folder: Path, most_pages: int) -> None:
    gate = Gate(folder / DATABASE, most_pages)
    leash.send_report(own, Report.READY)
    _Cell(own, gate, line).serve()
    gate.close()


class _Line:
    """One front desk's connection to this cell."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = Decoder(frames.TO_CELL)
        #: A call of which more is to come, and what has come of that.
        self._call: Asked | None = None
        self._attached = bytearray()

    def take(self, kind: Kind, payload: bytes) -> tuple[Asked, bytes] | None:
        """Take a frame; return a call and what is attached to it once both are here.

        Raises FrameError.
        """
        if (kind is Kind.CALL) is (self._call is not None):
            raise FrameError(f"{kind.name} frame out of turn")
        if self._call is None:
            asked = frames.decode_call(payload)
            if not asked.attached:
                return asked, b""
            self._call = asked
        elif payload:
            self._attached += payload
            if len(self._attached) > frames.MAX_ATTACHED_BYTES:
                raise FrameError("what is attached has no end")
        else:
            whole = self._call, bytes(self._attached)
            self._call, self._attached = None, bytearray()
            return whole
        return None


class _Cell:
    """The loop: the zygote's orders first, then calls, one after the other."""

    def __init__(self, own: socket.socket, gate: Gate, line: socket.socket) -> None:
        self._own = own
        self._gate = gate
        self._engine = Engine(gate)
        self._porter = Porter(gate)
        self._lines: dict[int, _Line] = {}
        self._poll = select.poll()
        self._poll.register(own, select.POLLIN)
        self._orders = select.poll()
        self._orders.register(own, select.POLLIN)
        self._add(line)

    def _add(self, sock: socket.socket) -> None:
        self._lines[sock.fileno()] = _Line(sock)
        self._poll.register(sock, select.POLLIN)

    def _drop(self, line: _Line) -> None:
        del self._lines[line.sock.fileno()]
        self._poll.unregister(line.sock)
        line.sock.close()

    def serve(self) -> None:
        """Answer calls until the zygote says to stop."""
        own = self._own.fileno()
        tired = False
        while True:
            if not tired and time.process_time() > limits.CPU_BUDGET_S:
                # The zygote must know first: it would send others to a cell that is going.
                tired = True
                leash.send_report(self._own, Report.TIRED)
            is_first = True
            for fd, _ in self._poll.poll():
                if fd == own:
                    if not self._obey():
                        return
                elif fd in self._lines and not self._read(self._lines[fd], is_first=is_first):
                    return
                is_first = False

    def _obey(self) -> bool:
        """Take one order; False ends the cell."""
        try:
            order, _, _, line = leash.receive_order(self._own)
        except EOFError:
            return False
        if order is Order.CONNECT and line is not None:
            self._add(line)
            return True
        self._retire()
        return False

    def _retire(self) -> None:
        """Tell every asker that a call it may just have sent was not begun."""
        for line in self._lines.values():
            try:
                line.sock.send(frames.encode(Kind.RETIRED), socket.MSG_DONTWAIT)
            except OSError:
                continue

    def _read(self, line: _Line, *, is_first: bool) -> bool:
        """Answer the calls that have come by a line; False ends the cell.

        `is_first`: the orders were looked at, and no call has run since.
        """
        try:
            data = line.sock.recv(_RECEIVE_BYTES)
            if not data:
                raise FrameError("the front desk hung up")
            for frame in line.decoder.feed(data):
                if whole := line.take(*frame):
                    # No call is begun once the zygote has said to go.
                    if not is_first and not self._heed():
                        return False
                    is_first = False
                    self._answer(line, *whole)
        except (OSError, FrameError):
            self._drop(line)
        return True

    def _heed(self) -> bool:
        """Take all orders that have come; False ends the cell."""
        try:
            while self._orders.poll(0):
                if not self._obey():
                    return False
        except OSError:  # the leash is broken
            return False
        return True

    def _answer(self, line: _Line, asked: Asked, attached: bytes) -> None:
        if asked.announce:
            _require_asker(line.sock)
            line.sock.sendall(frames.encode(Kind.STARTED))
        timeout_s = asked.timeout_ms / 1000
        began = time.monotonic()
        # Not every query looks at SQLite's clock. This one is the kernel's: SIGALRM ends us.
        signal.setitimer(signal.ITIMER_REAL, timeout_s + GRACE_S)
        try:
            try:
                status, answer = self._run(asked, attached, line.sock, began + timeout_s)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            took_us = int((time.monotonic() - began) * 1_000_000)
            line.sock.sendall(frames.encode_answer(status, answer.body, answer.marks, took_us))
        finally:
            self._tidy()

    def _tidy(self) -> None:
        try:
            self._gate.tidy()
        except Exception:
            # Of no more use. A call that has come meanwhile was not begun and is not lost.
            self._retire()
            raise

    def _run(
        self, asked: Asked, attached: bytes, sock: socket.socket, deadline: float
    ) -> tuple[int, Answer]:
        try:
            if asked.attached:
                return 200, self._fill(asked, attached, deadline)
            return 200, self._ask(asked, sock, deadline)
        except Refusal as refused:
            request_id = asked.request_id.hex()
            status, body = refusal.encode(refused, request_id)
        except MemoryError:
            out = Refusal("out_of_memory", "out of memory")
            status, body = refusal.encode(out, asked.request_id.hex())
        except ConnectionError:  # nobody takes what is said
            raise
        except Exception:
            request_id = asked.request_id.hex()
            _report_fault(self._own, request_id)
            status, body = refusal.encode(Refusal("internal"), request_id)
        return status, Answer(body)

    def _fill(self, asked: Asked, attached: bytes, deadline: float) -> Answer:
        if asked.reach:
            raise Refusal("read_only", "the token is for reading")
        if asked.ask is Ask.LOAD:
            return self._porter.load(attached, deadline)
        if asked.ask is Ask.SCRIPT:
            return self._engine.run_script(attached, deadline)
        return self._porter.add_rows(orjson.loads(asked.body), attached, deadline)

    def _ask(self, asked: Asked, sock: socket.socket, deadline: float) -> Answer:
        tables = _tables(asked)
        if asked.ask is Ask.SCHEMA:
            return self._porter.describe(asked.form, deadline, tables)
        if asked.ask is Ask.SIZE:
            return self._porter.measure(orjson.loads(asked.body), deadline)
        say = _Mouth(sock, deadline).say if asked.form in AS_THEY_COME else None
        if asked.ask in (Ask.FILE, Ask.DUMP) and say:
            if tables is not None:
                raise Refusal("not_authorized", "the token is for some tables, and this is all")
            out = self._porter.copy_out if asked.ask is Ask.FILE else self._porter.dump
            return out(deadline, say)
        if asked.ask is Ask.TABLE:
            table = calls.whole_table(asked.body.decode(), asked.form)
            return self._engine.run(table._replace(tables=tables), deadline, say)
        return self._engine.run(_decode(asked, tables), deadline, say)


def _tables(asked: Asked) -> frozenset[bytes] | None:
    """Return which tables may be read, None if all may."""
    names = orjson.loads(asked.reach) if asked.reach else []
    return policy.reach(names) if names else None


def _decode(asked: Asked, tables: frozenset[bytes] | None) -> calls.Call:
    call = calls.decode(asked.body, asked.form)
    if asked.reach:
        call = call._replace(readonly=True, is_plain=False, tables=tables)
    if not asked.key or call.readonly:  # what changes nothing may be repeated
        return call
    fingerprint = receipts.fingerprint(asked.body, asked.form)
    return call._replace(key=asked.key, print=fingerprint, is_plain=False)


class _Mouth:
    """Says a long answer as it comes, for as long as its call may take."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def say(self, piece: bytes) -> None:
        """Send a piece. Raises Refusal when the time is over, ConnectionError."""
        rest = memoryview(frames.encode_data(piece, Kind.STREAM))
        ready = select.poll()
        ready.register(self._sock, select.POLLOUT)
        while rest:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                # In the middle of a frame nothing more can be said.
                raise ConnectionAbortedError("the asker takes too long")
            if ready.poll(left_s * 1000):
                rest = rest[self._sock.send(rest, socket.MSG_DONTWAIT) :]


def _require_asker(sock: socket.socket) -> None:
    """Raise OSError if the asker hung up while its call waited: then it must not be begun."""
    try:
        if not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            raise ConnectionResetError("the asker hung up")
    except BlockingIOError:
        return


def _report_fault(own: socket.socket, what: str) -> None:
    """Send the innermost frames of the current exception to the zygote's log."""
    kind, error, trace = sys.exc_info()
    walk = list(traceback.walk_tb(trace))[-4:]
    where = " > ".join(f"{frame.f_code.co_name}:{number}" for frame, number in walk)
    try:
        leash.send_report(
            own, Report.FAULT, f"{what}: {kind.__name__ if kind else ''}: {error} ({where})"
        )
    except OSError:
        return
