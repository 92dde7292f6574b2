"""The zygote: answers questions about databases, one at a time, and never waits for anyone.

Runs in: the zygote. Single-threaded, one selector. It sees no SQL and holds no key. The questions
come by the reception; the cells are the nursery's, kept states the shelf's.
"""

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox import control, proof
from sandbox.census import Census
from sandbox.clock import Clock
from sandbox.control import Op, Outcome, Request
from sandbox.errors import SandboxError
from sandbox.jail import Walls
from sandbox.lifetimes import Lifetimes
from sandbox.nursery import Cell, Nursery
from sandbox.place import Place
from sandbox.reception import Asker, Reception
from sandbox.settings import Settings
from sandbox.shelf import Shelf
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


class Waiting(NamedTuple):
    """A question put off until a cell is free."""

    asker: Asker
    request: Request
    since: float


class Zygote:
    """Everything between `listen` and the end. `may_ask` says which users may ask what."""

    def __init__(
        self,
        listener: socket.socket,
        place: Place,
        clock: Clock,
        settings: Settings,
        walls: Walls,
        database: bytes,
        may_ask: dict[Op, frozenset[int]],
        say_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._place = place
        self._clock = clock
        self._clock_off = 0.0
        self._lifetimes = Lifetimes(place, clock, settings.max_life_s)
        self._census = Census(place)
        self._next_census = 0.0
        self._versions = versions()
        self._most_live = settings.max_live_cells
        self._walls: dict[str, Any] = {"landlock_abi": walls.landlock_abi}
        self._say_alive = say_alive
        self._parent = os.getppid()
        self._reaped = 0
        self._reaper_spoke: float | None = None
        self._selector = selectors.DefaultSelector()
        self._shelf = Shelf(place, clock)
        self._nursery = Nursery(
            place, settings, walls, database, self._shelf.pages_left, self._selector
        )
        self._reception = Reception(
            listener, self._selector, may_ask, self._answer, self._nursery.touch
        )
        self._waiting: list[Waiting] = []
        #: Questions for the shelf, and OPENs behind them, of databases that had no cell then.
        self._shelving: deque[tuple[Asker, Request]] = deque()
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
            Op.STATES: self._answer_states,
            Op.KEEP: self._answer_shelf,
            Op.GO_BACK: self._answer_shelf,
            Op.DROP: self._answer_shelf,
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
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: self._woken(wake_read))
        next_tick = time.monotonic()
        while not self._stopping:
            wants_blanks = self._nursery.wants_blanks()
            has_work = wants_blanks or self._shelving
            timeout = 0 if has_work else max(0.0, next_tick - time.monotonic())
            events = self._selector.select(timeout)
            for key, _ in events:
                key.data()
            if self._shelving:  # one copy at a time: others are not to wait for all of them
                asker, request = self._shelving.popleft()
                if request.is_awaited and not asker.is_gone:
                    self._try(self._shelve, asker, request)
            elif wants_blanks and not events:
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

    def _answer(self, asker: Asker, request: Request) -> None:
        self._try(self._answers[request.op], asker, request)

    def _try(self, act: Callable[[Asker, Request], None], asker: Asker, request: Request) -> None:
        """See to a question; what is in the way of that is an answer too."""
        try:
            act(asker, request)
        except SandboxError as refused:
            self._reply(asker, request, control.outcome_of(refused))
        except OSError as cause:
            what, whose = request.op.name, request.instance.hex()
            log.error("%s of instance %s failed: %s", what, whose, cause)
            self._reply(asker, request, Outcome.FAILED)

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
        self._reception.send(asker, packet, line)

    def _answer_create(self, asker: Asker, request: Request) -> None:
        if not self._has_room(asker, request):
            return
        expires = self._lifetimes.end_after(request.amount)
        self._nursery.make_database(request.instance, expires)
        self._census.add(expires)
        self._hand_over(asker, request, expires)

    def _answer_fork(self, asker: Asker, request: Request) -> None:
        """Copy a database. The copy has no cell until it is called."""
        self._lifetimes.end_of(request.source)
        expires = self._lifetimes.end_after(request.amount)
        self._nursery.copy_database(request.source, request.instance, expires)
        self._census.add(expires)
        self._reply(asker, request, Outcome.DONE, expires)

    def _answer_open(self, asker: Asker, request: Request) -> None:
        if any(other.instance == request.instance for _, other in self._shelving):
            self._shelving.append((asker, request))  # a cell now would be in its way
        else:
            self._open(asker, request)

    def _open(self, asker: Asker, request: Request) -> None:
        expires = self._lifetimes.end_of(request.instance)
        cell = self._nursery.live.get(request.instance)
        if cell is None:
            if self._has_room(asker, request):
                self._hand_over(asker, request, expires)
            return
        line = None if cell.ending_since is not None else self._nursery.connect(cell)
        if line is None:
            self._put_off(cell, asker, request)
        else:
            self._reply(asker, request, Outcome.DONE, expires, line)

    def _hand_over(self, asker: Asker, request: Request, expires: int) -> None:
        line = self._nursery.assign(request.instance)
        outcome = Outcome.DONE if line else Outcome.FAILED
        self._reply(asker, request, outcome, expires, line)

    def _put_off(self, cell: Cell, asker: Asker, request: Request) -> None:
        """Take a question again when a cell has ended."""
        cell.then.append(lambda: self._take_again(asker, request))

    def _take_again(self, asker: Asker, request: Request) -> None:
        if not self._stopping:  # who has asked a zygote that ends asks the next
            self._reception.take(asker, request)

    def _answer_kill(self, asker: Asker, request: Request) -> None:
        cell = self._nursery.live.get(request.instance)
        if cell is None or request.cell not in (0, cell.number):
            self._reply(asker, request, Outcome.DONE)
            return
        cell.then.append(lambda: self._reply(asker, request, Outcome.DONE))
        self._nursery.kill(cell)

    def _answer_end(self, asker: Asker, request: Request) -> None:
        """Change when a database ends: later, at a given second, or now."""
        before = self._lifetimes.end_of(request.instance)
        wanted = before + request.amount if request.op is Op.EXTEND else request.amount
        after = self._lifetimes.change(request.instance, before, wanted)
        self._census.move(before, after)
        cell = self._nursery.live.get(request.instance)
        if after > self._clock.now() or cell is None:
            self._reply(asker, request, Outcome.DONE, after)
            return
        cell.then.append(lambda: self._reply(asker, request, Outcome.DONE, after))
        self._nursery.kill(cell)

    def _answer_states(self, asker: Asker, request: Request) -> None:
        """Say what is kept of a database."""
        self._lifetimes.end_of(request.instance)
        states = [state._asdict() for state in self._shelf.states(request.instance)]
        self._reply(asker, request, Outcome.DONE, text=json.dumps(states).encode())

    def _answer_shelf(self, asker: Asker, request: Request) -> None:
        """Have a database's cell end between two calls, with all in its file; then see to it.

        What can only be refused ends no cell.
        """
        self._lifetimes.end_of(request.instance)
        if request.op is Op.KEEP:
            self._shelf.others(request.instance, request.name)
        else:
            self._shelf.find(request.instance, request.name)
        cell = self._nursery.live.get(request.instance)
        if cell is None:
            self._shelving.append((asker, request))
            return
        self._put_off(cell, asker, request)
        self._nursery.retire(cell, request.amount / 1000)

    def _shelve(self, asker: Asker, request: Request) -> None:
        """Keep a state of a database that has no cell, have it go back to one, or drop one.

        Or open it, for one who has asked meanwhile.
        """
        if request.op is Op.OPEN:
            self._open(asker, request)
            return
        if request.instance in self._nursery.live:
            self._answer_shelf(asker, request)
            return
        self._lifetimes.end_of(request.instance)
        text = b""
        if request.op is Op.KEEP:
            state, replaced = self._shelf.keep(request.instance, request.name)
            text = json.dumps({**state._asdict(), "replaced": replaced}).encode()
        elif request.op is Op.GO_BACK:
            state = self._shelf.go_back(request.instance, request.name)
            text = json.dumps(state._asdict()).encode()
        else:
            self._shelf.drop(request.instance, request.name)
        self._reply(asker, request, Outcome.DONE, text=text)

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
        self._waiting = [waiting for waiting in self._waiting if not waiting.asker.is_gone]
        cold = time.monotonic() - _WARM_S
        for ending, cell in enumerate(self._nursery.live.values()):
            if ending >= len(self._waiting) or cell.used > cold:
                return
            self._nursery.retire(cell)

    def _serve_waiting(self) -> None:
        while self._waiting and len(self._nursery.live) < self._most_live:
            waiting = self._waiting.pop(0)
            self._reception.take(waiting.asker, waiting.request)

    # --- time ---

    def _tick(self) -> None:
        now = time.monotonic()
        self._say_alive()
        if os.getppid() != self._parent:
            log.warning("the process that started the zygote is gone")
            self._stopping = True
        self._reception.open()
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
