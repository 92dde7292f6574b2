"""The zygote: answers the control socket, one question at a time, and never waits for anyone.

Runs in: the zygote. Single-threaded, one selector. It sees no SQL and holds no key. The cells
themselves are the nursery's.
"""

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox import control, descriptors, proof
from sandbox.census import Census
from sandbox.clock import Clock
from sandbox.control import Op, Outcome, Request
from sandbox.errors import ControlError
from sandbox.jail import Walls
from sandbox.nursery import Nursery
from sandbox.place import Place
from sandbox.settings import Settings
from sandbox.sqlite import versions

log = logging.getLogger("walkin.zygote")

_TICK_S = 0.5
#: How long an asker waits for a cell to be given up when all are taken.
_PATIENCE_S = 2.0
#: A cell used more recently than this is not given up for another database.
_WARM_S = 1.0
#: How often the census forgets what has expired.
_CENSUS_S = 60.0
#: A change of the machine's clock by more than this is worth a line in the log.
_STEP_S = 1.0
_PEER = struct.Struct("3i")


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
    """Everything between `listen` and the end. `askers` says which users may ask what."""

    def __init__(
        self,
        listener: socket.socket,
        place: Place,
        clock: Clock,
        settings: Settings,
        walls: Walls,
        database: bytes,
        askers: dict[Op, frozenset[int]],
        say_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._place = place
        self._clock = clock
        self._clock_off = 0.0
        self._census = Census(place)
        self._next_census = 0.0
        self._versions = versions()
        self._most_live = settings.max_live_cells
        self._max_life_s = settings.max_life_s
        self._walls: dict[str, Any] = {"landlock_abi": walls.landlock_abi}
        self._askers = askers
        self._say_alive = say_alive
        self._parent = os.getppid()
        self._reaped = 0
        self._reaper_spoke: float | None = None
        self._selector = selectors.DefaultSelector()
        self._nursery = Nursery(place, settings, walls, database, self._selector)
        self._waiting: list[Waiting] = []
        self._accepting = False
        self._stopping = False
        self._answers: dict[Op, Callable[[Asker, Request], None]] = {
            Op.CREATE: self._answer_create,
            Op.OPEN: self._answer_open,
            Op.KILL: self._answer_kill,
            Op.STATUS: self._answer_status,
            Op.REAPED: self._note_reaped,
            Op.EXTEND: self._answer_end,
            Op.END_AT: self._answer_end,
            Op.FORK: self._answer_fork,
        }

    def prove_walls(self) -> None:
        """Raise every wall once in a real cell. Raises WallError if one does not stand."""
        self._walls |= proof.prove_walls(self._nursery, self._place, self._clock)

    def serve(self) -> None:
        """Run until told to stop (SIGTERM, SIGINT) or until the starter is gone."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener.setblocking(False)
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: self._woken(wake_read))
        next_tick = time.monotonic()
        while not self._stopping:
            wants_blanks = self._nursery.wants_blanks()
            timeout = 0 if wants_blanks else max(0.0, next_tick - time.monotonic())
            events = self._selector.select(timeout)
            for key, _ in events:
                key.data()
            if wants_blanks and not events:
                self._nursery.prepare_blanks()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK_S
                self._tick()
        self._nursery.end_all()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _woken(self, wake_fd: int) -> None:
        """A signal came: most likely a cell has ended."""
        with contextlib.suppress(BlockingIOError):
            os.read(wake_fd, 4096)
        self._nursery.collect_exits()
        self._serve_waiting()

    # --- questions ---

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as cause:
            # Most likely no descriptor is left: those who call wait in the queue until the tick.
            log.error("accept: %s", cause)
            self._selector.unregister(self._listener)
            self._accepting = False
            return
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, uid, _ = _PEER.unpack(peer)
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
            self._nursery.touch(instance)
        if request and not 0 < request.until < time.monotonic() * 1000:
            self._answers[request.op](asker, request)

    def _hang_up(self, asker: Asker) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it may be closed already
            self._selector.unregister(asker.sock)
        asker.sock.close()
        self._waiting = [waiting for waiting in self._waiting if waiting.asker is not asker]

    def _reply(
        self,
        asker: Asker,
        request: Request,
        outcome: Outcome,
        expires: int = 0,
        line: socket.socket | None = None,
        text: bytes = b"",
    ) -> None:
        cell = self._nursery.live.get(request.instance)
        number = cell.number if line and cell else 0
        ends = self._clock.ends(expires)
        packet = control.encode_reply(outcome, request.number, expires, text, number, ends)
        try:
            descriptors.send(asker.sock, packet, line)
        except OSError:
            # Gone, or not reading its answers: either way it is of no use any more.
            self._hang_up(asker)
        finally:
            if line:
                line.close()

    def _answer_create(self, asker: Asker, request: Request) -> None:
        if not self._has_room(asker, request):
            return
        expires = self._end_after(request.amount)
        try:
            self._nursery.make_database(request.instance, expires)
        except OSError as cause:
            log.error("instance %s cannot be made: %s", request.instance.hex(), cause)
            self._reply(asker, request, Outcome.FAILED)
            return
        self._census.add(expires)
        self._hand_over(asker, request, expires)

    def _answer_fork(self, asker: Asker, request: Request) -> None:
        """Copy a database. The copy has no cell until it is called."""
        if self._end_of(request.source) is None:
            self._reply(asker, request, Outcome.MISSING)
            return
        expires = self._end_after(request.amount)
        try:
            self._nursery.copy_database(request.source, request.instance, expires)
        except OSError as cause:
            log.error("instance %s cannot be copied: %s", request.source.hex(), cause)
            self._reply(asker, request, Outcome.FAILED)
            return
        self._census.add(expires)
        self._reply(asker, request, Outcome.DONE, expires)

    def _answer_open(self, asker: Asker, request: Request) -> None:
        expires = self._end_of(request.instance)
        if expires is None:
            self._reply(asker, request, Outcome.MISSING)
            return
        cell = self._nursery.live.get(request.instance)
        if cell is None:
            if self._has_room(asker, request):
                self._hand_over(asker, request, expires)
            return
        try:
            line = None if cell.ending_since is not None else self._nursery.connect(cell)
        except OSError as cause:
            log.error("no further line to %s: %s", cell, cause)
            self._reply(asker, request, Outcome.FAILED)
            return
        if line is None:
            cell.then.append(lambda: self._answer_open(asker, request))
        else:
            self._reply(asker, request, Outcome.DONE, expires, line)

    def _hand_over(self, asker: Asker, request: Request, expires: int) -> None:
        line = self._nursery.assign(request.instance)
        outcome = Outcome.DONE if line else Outcome.FAILED
        self._reply(asker, request, outcome, expires, line)

    def _answer_kill(self, asker: Asker, request: Request) -> None:
        cell = self._nursery.live.get(request.instance)
        if cell is None or request.cell not in (0, cell.number):
            self._reply(asker, request, Outcome.DONE)
            return
        cell.then.append(lambda: self._reply(asker, request, Outcome.DONE))
        self._nursery.kill(cell)

    def _answer_end(self, asker: Asker, request: Request) -> None:
        """Change when a database ends: later, at a given second, or now."""
        before = self._end_of(request.instance)
        if before is None:
            self._reply(asker, request, Outcome.MISSING)
            return
        now = self._clock.now()
        after = before + request.amount if request.op is Op.EXTEND else request.amount
        after = max(after, int(now))
        if after > max(before, self._born(request.instance, now) + self._max_life_s):
            self._reply(asker, request, Outcome.REFUSED, before)
            return
        try:
            self._place.change_expiry(request.instance, before, after)
        except OSError as cause:
            log.error("instance %s: its end stays: %s", request.instance.hex(), cause)
            self._reply(asker, request, Outcome.FAILED)
            return
        self._census.move(before, after)
        cell = self._nursery.live.get(request.instance)
        if after > now or cell is None:
            self._reply(asker, request, Outcome.DONE, after)
            return
        cell.then.append(lambda: self._reply(asker, request, Outcome.DONE, after))
        self._nursery.kill(cell)

    def _end_of(self, instance: bytes) -> int | None:
        """Return the Unix second at which a database is over, None if there is none or it is."""
        expires = self._place.expires(instance)
        return expires if expires is not None and expires > self._clock.now() else None

    def _end_after(self, seconds: int) -> int:
        """Return the end of a lifetime that begins now.

        Whole seconds are what callers are told; rounded up, nobody gets less than the lifetime.
        """
        return math.ceil(self._clock.now() + seconds)

    def _born(self, instance: bytes, now: float) -> float:
        """Return when a database was made, by its id (RFC 9562, 5.7): Unix seconds, not later."""
        return min(int.from_bytes(instance[:6]) / 1000, now)

    def _note_reaped(self, _: Asker, request: Request) -> None:
        self._reaped += request.amount
        self._reaper_spoke = time.monotonic()

    def _answer_status(self, asker: Asker, request: Request) -> None:
        spoke = self._reaper_spoke
        status = {
            "walls": self._walls,
            "instances": self._census.count(self._clock.now()),
            "live_cells": len(self._nursery.live),
            "blank_cells": self._nursery.blank_count,
            "max_live_cells": self._most_live,
            "waiting": len(self._waiting),
            "cell_deaths": self._nursery.deaths.total(),
            "deaths_by_cause": self._nursery.deaths,
            "reaped": self._reaped,
            "reaper_silent_s": None if spoke is None else time.monotonic() - spoke,
            "versions": self._versions,
        }
        self._reply(asker, request, Outcome.DONE, text=json.dumps(status).encode())

    # --- room ---

    def _has_room(self, asker: Asker, request: Request) -> bool:
        """Say whether a cell may be added; if not, give one up and put the question off."""
        if len(self._nursery.live) < self._most_live:
            return True
        self._waiting.append(Waiting(asker, request, time.monotonic()))
        self._make_room()
        return False

    def _make_room(self) -> None:
        """Give up the least recently used cells, one for each question that waits."""
        cold = time.monotonic() - _WARM_S
        for ending, cell in enumerate(self._nursery.live.values()):
            if ending >= len(self._waiting) or cell.used > cold:
                return
            self._nursery.retire(cell)

    def _serve_waiting(self) -> None:
        while self._waiting and len(self._nursery.live) < self._most_live:
            waiting = self._waiting.pop(0)
            self._answers[waiting.request.op](waiting.asker, waiting.request)

    # --- time ---

    def _tick(self) -> None:
        now = time.monotonic()
        self._say_alive()
        if os.getppid() != self._parent:
            log.warning("the process that started the zygote is gone")
            self._stopping = True
        if not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._accepting = True
        off = self._clock.off()
        if abs(off - self._clock_off) > _STEP_S:
            self._clock_off = off
            log.warning("the machine's clock was set: it is %+.1f s off that of the databases", off)
        self._nursery.tick(now)
        if now >= self._next_census:
            self._next_census = now + _CENSUS_S
            self._census.forget(self._clock.now())
        while self._waiting and now - self._waiting[0].since > _PATIENCE_S:
            late = self._waiting.pop(0)
            self._reply(late.asker, late.request, Outcome.BUSY)
        if self._waiting:
            self._make_room()
