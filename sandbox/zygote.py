"""The nursery: forks cells, hands out lines to them, ends them, collects their exits.

Runs in: the zygote. Single-threaded, one selector, never waits for a cell or for an asker. It
sees no SQL and holds no key. What it knows of a cell it knows from fork, wait and its own socket;
what a cell says goes to the log, printable and cut, and decides nothing.
"""

import contextlib
import json
import logging
import os
import select
import selectors
import signal
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from sandbox import cell as cell_process
from sandbox import control, leash
from sandbox.control import Op, Outcome, Request
from sandbox.errors import ControlError
from sandbox.jail import WallError, Walls
from sandbox.leash import Order, Report
from sandbox.limits import RLIMITS
from sandbox.place import Place
from sandbox.settings import Settings

log = logging.getLogger("walkin.zygote")

_TICK_S = 0.5
#: A cell told to retire may still be in a call of its full length; then it is killed.
_RETIRE_S = 4.0
#: How long an asker waits for a cell to be given up when all are taken.
_PATIENCE_S = 1.5
#: A cell used more recently than this is not given up for another database.
_WARM_S = 1.0
_REPORTS_MOST = 3
_PROOF_S = 10.0


class Cell:
    """What the zygote knows of one cell."""

    def __init__(self, pid: int, own: socket.socket) -> None:
        self.pid = pid
        self.own = own
        self.instance = b""
        self.expires = 0
        self.used = 0.0
        self.ready = False
        self.ending_since: float | None = None
        self.killed = False
        self.reports = 0
        #: Questions to take up again once this cell is gone.
        self.then: list[Callable[[], None]] = []


class Asker(NamedTuple):
    """One control connection and the user at its other end."""

    sock: socket.socket
    uid: int


class Waiting(NamedTuple):
    """A question put off until a cell is free."""

    asker: Asker
    request: Request
    since: float


class Zygote:
    """Everything between `listen` and the end."""

    def __init__(
        self,
        listener: socket.socket,
        place: Place,
        settings: Settings,
        walls: Walls,
        database: bytes,
        askers: dict[Op, frozenset[int]],
    ) -> None:
        self._listener = listener
        self._place = place
        self._settings = settings
        self._walls = walls
        self._database = database
        self._askers = askers
        self._pid = os.getpid()
        self._parent = os.getppid()
        self._selector = selectors.DefaultSelector()
        self._blank: list[Cell] = []
        #: Assigned cells, least recently used first.
        self._live: OrderedDict[bytes, Cell] = OrderedDict()
        self._by_pid: dict[int, Cell] = {}
        self._waiting: list[Waiting] = []
        self._deaths = 0
        self._stopping = False
        #: No blank cells are made before this time: the last one failed.
        self._rest_until = 0.0
        self._answers: dict[Op, Callable[[Asker, Request], None]] = {
            Op.CREATE: self._answer_create,
            Op.OPEN: self._answer_open,
            Op.KILL: self._answer_kill,
            Op.STATUS: self._answer_status,
        }

    def serve(self) -> None:
        """Run until told to stop (SIGTERM, SIGINT) or until the starter is gone."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(
            wake_read, selectors.EVENT_READ, lambda: self._collect_exits(wake_read)
        )
        next_tick = time.monotonic()
        while not self._stopping:
            wants_blank = self._wants_blank()
            timeout = 0 if wants_blank else max(0.0, next_tick - time.monotonic())
            events = self._selector.select(timeout)
            for key, _ in events:
                key.data()
            if wants_blank and not events:
                self._prepare_blank()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK_S
                self._tick()
        self._end_all()

    def prove_walls(self) -> None:
        """Raise every wall once, in a real cell on a database of its own, before any caller's.

        Raises WallError with the cell's own words if it does not come up within _PROOF_S.
        """
        instance = os.urandom(control.ID_BYTES)
        now = int(time.time())
        self._place.create(instance, now, self._database)
        line = self._assign(instance, now)
        cell = self._live.pop(instance)
        self._selector.unregister(cell.own)
        ready, _, _ = select.select([cell.own], [], [], _PROOF_S)
        report = leash.receive_report(cell.own) if ready else (0, "no word from the first cell")
        self._kill(cell)
        os.waitpid(cell.pid, 0)
        del self._by_pid[cell.pid]
        cell.own.close()
        if line:
            line.close()
        self._place.move_aside(instance)
        self._place.delete(instance)
        self._place.forget(instance, now)
        if report is None or report[0] != Report.READY:
            raise WallError(report[1] if report else "the first cell ended without a word")

    def _stop(self, *_: object) -> None:
        self._stopping = True

    # --- cells ---

    def _wants_blank(self) -> bool:
        return len(self._blank) < self._settings.blank_cells and time.monotonic() > self._rest_until

    def _prepare_blank(self) -> None:
        try:
            self._blank.append(self._fork())
        except OSError as cause:
            log.error("no blank cell can be forked: %s", cause)
            self._rest_until = time.monotonic() + _TICK_S

    def _fork(self) -> Cell:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            cell_process.run(theirs, self._pid, self._place, self._walls)
        theirs.close()
        cell = Cell(pid, mine)
        self._by_pid[pid] = cell
        self._selector.register(mine, selectors.EVENT_READ, lambda: self._read_report(cell))
        return cell

    def _assign(self, instance: bytes, expires: int) -> socket.socket | None:
        """Give a blank cell its database; return the asker's end of the line, None if it died."""
        try:
            cell = self._blank.pop() if self._blank else self._fork()
            mine, theirs = socket.socketpair()
        except OSError as cause:
            log.error("no cell for %s: %s", instance.hex(), cause)
            return None
        with theirs:
            try:
                leash.send_order(cell.own, Order.ASSIGN, instance, theirs)
            except OSError as cause:
                log.error("blank cell %d took no order: %s", cell.pid, cause)
                self._kill(cell)
                mine.close()
                return None
        cell.instance, cell.expires, cell.used = instance, expires, time.monotonic()
        self._live[instance] = cell
        return mine

    def _connect(self, cell: Cell) -> socket.socket | None:
        """Return a further line to a live cell, None if it takes no orders."""
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                leash.send_order(cell.own, Order.CONNECT, b"", theirs)
            except OSError:
                mine.close()
                self._kill(cell)
                return None
        self._touch(cell.instance)
        return mine

    def _touch(self, instance: bytes) -> None:
        cell = self._live.get(instance)
        if cell:
            cell.used = time.monotonic()
            self._live.move_to_end(instance)

    def _retire(self, cell: Cell) -> None:
        """Have a cell fold up its database and go. It gets _RETIRE_S, then it is killed."""
        if cell.ending_since is not None:
            return
        cell.ending_since = time.monotonic()
        try:
            leash.send_order(cell.own, Order.RETIRE, b"", None)
        except OSError:
            self._kill(cell)

    def _kill(self, cell: Cell) -> None:
        cell.ending_since = cell.ending_since or time.monotonic()
        if not cell.killed:
            cell.killed = True
            # Not yet waited for, so the number still is this cell's.
            os.kill(cell.pid, signal.SIGKILL)

    def _read_report(self, cell: Cell) -> None:
        try:
            report = leash.receive_report(cell.own)
        except BlockingIOError:
            return
        if report is None:
            # Its socket is closed: it has ended or pretends to.
            self._selector.unregister(cell.own)
            self._kill(cell)
            return
        number, text = report
        cell.reports += 1
        if number == Report.READY:
            cell.ready = True
        elif cell.reports <= _REPORTS_MOST:
            log.error("cell %d of %s: %s", cell.pid, cell.instance.hex() or "none", text)
        else:
            self._kill(cell)

    def _collect_exits(self, wake_fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake_fd, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._bury(self._by_pid.pop(pid), status)

    def _bury(self, cell: Cell, status: int) -> None:
        with contextlib.suppress(KeyError):  # its end may have been seen before its exit
            self._selector.unregister(cell.own)
        cell.own.close()
        if cell in self._blank:
            self._blank.remove(cell)
            self._rest_until = time.monotonic() + _TICK_S
        if self._live.get(cell.instance) is cell:
            del self._live[cell.instance]
        # The status only names the cause in the log: a hostile cell picks its own.
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number and not cell.killed:
            self._deaths += 1
            log.warning(
                "cell %d of %s died of %s",
                cell.pid,
                cell.instance.hex() or "none",
                signal.Signals(number).name,
            )
        elif not number and os.WEXITSTATUS(status):
            self._deaths += 1
            log.warning("cell %d of %s failed", cell.pid, cell.instance.hex() or "none")
        for act in cell.then:
            act()
        self._serve_waiting()

    # --- questions ---

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as cause:
            log.error("accept: %s", cause)
            return
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack(
            "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        if not any(uid in uids for uids in self._askers.values()):
            log.warning("control connection of user %d refused", uid)
            sock.close()
            return
        sock.setblocking(False)
        asker = Asker(sock, uid)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read_question(asker))

    def _read_question(self, asker: Asker) -> None:
        try:
            packet = asker.sock.recv(control.MAX_PACKET)
            if not packet:
                self._hang_up(asker)
                return
            touched = control.decode_touch(packet)
            request = control.decode_request(packet) if touched is None else None
            op = request.op if request else Op.TOUCH
            if asker.uid not in self._askers[op]:
                raise ControlError(f"{op.name} is not for user {asker.uid}")
        except BlockingIOError:
            return
        except (OSError, ControlError) as cause:
            log.error("control connection of user %d dropped: %s", asker.uid, cause)
            self._hang_up(asker)
            return
        for instance in touched or ():
            self._touch(instance)
        if request:
            self._answers[request.op](asker, request)

    def _hang_up(self, asker: Asker) -> None:
        try:
            self._selector.unregister(asker.sock)
        except (KeyError, ValueError):
            return
        asker.sock.close()

    def _reply(
        self,
        asker: Asker,
        request: Request,
        outcome: Outcome,
        expires: int = 0,
        line: socket.socket | None = None,
        text: bytes = b"",
    ) -> None:
        packet = control.encode_reply(outcome, request.number, expires, text)
        try:
            socket.send_fds(asker.sock, [packet], [line.fileno()] if line else [])
        except OSError:
            # Gone, or not reading its answers: either way it is of no use any more.
            self._hang_up(asker)
        finally:
            if line:
                line.close()

    def _answer_create(self, asker: Asker, request: Request) -> None:
        if not self._has_room(asker, request):
            return
        try:
            self._place.create(request.instance, request.expires, self._database)
        except OSError as cause:
            log.error("instance %s cannot be made: %s", request.instance.hex(), cause)
            self._reply(asker, request, Outcome.FAILED)
            return
        self._hand_over(asker, request, request.expires)

    def _answer_open(self, asker: Asker, request: Request) -> None:
        expires = self._place.expires(request.instance)
        if expires is None or expires <= time.time():
            self._reply(asker, request, Outcome.MISSING)
            return
        cell = self._live.get(request.instance)
        if cell is None:
            if self._has_room(asker, request):
                self._hand_over(asker, request, expires)
        elif cell.ending_since is not None:
            cell.then.append(lambda: self._answer_open(asker, request))
        else:
            line = self._connect(cell)
            if line is None:
                cell.then.append(lambda: self._answer_open(asker, request))
            else:
                self._reply(asker, request, Outcome.DONE, expires, line)

    def _hand_over(self, asker: Asker, request: Request, expires: int) -> None:
        line = self._assign(request.instance, expires)
        outcome = Outcome.DONE if line else Outcome.FAILED
        self._reply(asker, request, outcome, expires, line)

    def _answer_kill(self, asker: Asker, request: Request) -> None:
        cell = self._live.get(request.instance)
        if cell is None:
            self._reply(asker, request, Outcome.DONE)
            return
        cell.then.append(lambda: self._reply(asker, request, Outcome.DONE))
        self._kill(cell)

    def _answer_status(self, asker: Asker, request: Request) -> None:
        status = {
            "live_cells": len(self._live),
            "blank_cells": len(self._blank),
            "max_live_cells": self._settings.max_live_cells,
            "cell_deaths": self._deaths,
            "landlock_abi": self._walls.landlock_abi,
            "seccomp": True,
            "rlimits": len(RLIMITS),
            "cell_uid": os.geteuid(),
        }
        self._reply(asker, request, Outcome.DONE, text=json.dumps(status).encode())

    # --- room ---

    def _has_room(self, asker: Asker, request: Request) -> bool:
        """Say whether a cell may be added; if not, give one up and put the question off."""
        if len(self._live) < self._settings.max_live_cells:
            return True
        self._waiting.append(Waiting(asker, request, time.monotonic()))
        self._make_room()
        return False

    def _make_room(self) -> None:
        """Give up the least recently used cells, one for each question that waits."""
        ending = sum(cell.ending_since is not None for cell in self._live.values())
        cold = time.monotonic() - _WARM_S
        for cell in list(self._live.values()):
            if ending >= len(self._waiting) or cell.used > cold:
                return
            if cell.ending_since is None:
                self._retire(cell)
                ending += 1

    def _serve_waiting(self) -> None:
        while self._waiting and len(self._live) < self._settings.max_live_cells:
            waiting = self._waiting.pop(0)
            self._answers[waiting.request.op](waiting.asker, waiting.request)

    # --- time ---

    def _tick(self) -> None:
        now = time.monotonic()
        if os.getppid() != self._parent:
            log.warning("the process that started the zygote is gone")
            self._stopping = True
        for cell in list(self._live.values()):
            if cell.ending_since is not None:
                if now - cell.ending_since > _RETIRE_S:
                    self._kill(cell)
            elif now - cell.used > self._settings.cell_idle_s:
                self._retire(cell)
        while self._waiting and now - self._waiting[0].since > _PATIENCE_S:
            late = self._waiting.pop(0)
            self._reply(late.asker, late.request, Outcome.BUSY)
        if self._waiting:
            self._make_room()

    def _end_all(self) -> None:
        """Let the cells fold up; those that do not in time die with this process."""
        for cell in self._blank:
            self._kill(cell)
        for cell in self._live.values():
            self._retire(cell)
        signal.set_wakeup_fd(-1)
        give_up = time.monotonic() + _RETIRE_S
        while self._by_pid and time.monotonic() < give_up:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                time.sleep(0.01)
            else:
                self._by_pid.pop(pid, None)
