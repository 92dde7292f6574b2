"""The nursery: has cells born, gives them databases, ends them, collects their exits.

Runs in: the zygote. It never waits for a cell. What it knows of one it knows from fork, wait and
its own socket; what a cell says goes to the log, printable and cut, and decides nothing.
"""

import contextlib
import itertools
import logging
import os
import selectors
import signal
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from sandbox import birth, leash
from sandbox.jail import Walls
from sandbox.leash import Order, Report
from sandbox.place import Place
from sandbox.settings import Settings

log = logging.getLogger("walkin.zygote")

#: A cell told to retire may still be in a call of its full length; then it is killed.
RETIRE_S = 4.0
#: How much longer than its longest call, where that is known, a cell told to go is given.
_AFTER_S = 2.0
#: How long no blank cells are made after one failed.
_REST_S = 0.5
_REPORTS_MOST = 5
#: How long a cell is given to stand still for a copy, and how often it is looked at till then.
_STOP_S = 0.1
_LOOK_S = 0.0001
#: What it means when a cell dies of a signal.
_CAUSES = {
    signal.SIGSYS: "a system call that seccomp forbids",
    signal.SIGALRM: "a call that outran its clock",
    signal.SIGKILL: "not on our word: most likely the machine is out of memory",
    signal.SIGXCPU: "its share of processor time is used up",
}


class Cell:
    """What the zygote knows of one cell."""

    def __init__(self, number: int, pid: int, own: socket.socket) -> None:
        #: Never used twice by one zygote, as process ids are.
        self.number = number
        self.pid = pid
        self.own = own
        self.instance = b""
        self.used = 0.0
        self.ending_since: float | None = None
        #: How long it has then for the call that it may be in (seconds).
        self.patience_s = RETIRE_S
        #: Whether it was killed on our word, as opposed to its own end.
        self.killed = False
        self.reports = 0
        #: What to do once this cell is gone.
        self.then: list[Callable[[], None]] = []

    def __str__(self) -> str:
        return f"cell {self.pid} of {self.instance.hex() or 'no database'}"


class Nursery:
    """All the cells.

    `database` is the first content of a database file; `pages_left` says how many pages one may
    have beside what else is kept of it.
    """

    def __init__(
        self,
        place: Place,
        settings: Settings,
        walls: Walls,
        database: bytes,
        pages_left: Callable[[bytes], int],
        selector: selectors.BaseSelector,
    ) -> None:
        self._place = place
        self._settings = settings
        self._walls = walls
        self._database = database
        self._pages_left = pages_left
        self._selector = selector
        self._blank: list[Cell] = []
        self._by_pid: dict[int, Cell] = {}
        self._rest_until = 0.0
        self._numbers = itertools.count(1)
        #: Cells with a database, least recently used first.
        self.live: OrderedDict[bytes, Cell] = OrderedDict()
        #: Cells that ended in another way than on our word: by signal name, or "exit".
        self.deaths: Counter[str] = Counter()

    @property
    def blank_count(self) -> int:
        """Cells that wait for a database."""
        return len(self._blank)

    def make_database(self, instance: bytes, expires: int) -> None:
        """Make a database's files and records. Raises OSError."""
        self._place.create(instance, expires, self._database)

    def copy_database(self, source: bytes, instance: bytes, expires: int) -> None:
        """Make a database of another one, whose cell stands still meanwhile. Raises OSError."""
        cell = self.live.get(source)
        if cell is None:
            self._place.copy(source, instance, expires)
            return
        try:
            _stop(cell.pid)
            self._place.copy(source, instance, expires)
        finally:
            os.kill(cell.pid, signal.SIGCONT)

    def _is_resting(self) -> bool:
        return time.monotonic() <= self._rest_until

    def wants_blanks(self) -> bool:
        """Say whether blank cells should be made."""
        return len(self._blank) < self._settings.blank_cells and not self._is_resting()

    def prepare_blanks(self) -> None:
        """Fork cells for the next databases; while there is trouble, one at a time."""
        wanted = self._settings.blank_cells - len(self._blank)
        try:
            born = birth.fork(1 if self._is_resting() else max(1, wanted), self._place, self._walls)
        except OSError as cause:
            log.error("no blank cell can be forked: %s", cause)
            self._rest_until = time.monotonic() + _REST_S
            return
        for pid, own in born:
            self._add(Cell(next(self._numbers), pid, own))

    def _add(self, cell: Cell) -> None:
        self._by_pid[cell.pid] = cell
        self._blank.append(cell)
        self._selector.register(cell.own, selectors.EVENT_READ, lambda: self._read_report(cell))

    def assign(self, instance: bytes) -> socket.socket | None:
        """Give a cell a database; return the asker's end of the line, None if none can be had.

        Raises OSError if it cannot be seen how large the database may be.
        """
        pages = self._pages_left(instance)
        line = None
        was_blank = True
        while line is None and was_blank:  # a blank cell may have died just now
            was_blank = bool(self._blank)
            if not was_blank:
                self.prepare_blanks()
            if not self._blank:
                log.error("no cell for %s", instance.hex())
                return None
            try:
                mine, theirs = socket.socketpair()
            except OSError as cause:
                log.error("no line to %s: %s", instance.hex(), cause)
                return None
            cell = self._blank.pop(0)
            cell.instance, cell.used = instance, time.monotonic()
            self.live[instance] = cell
            line = self._order(cell, Order.ASSIGN, mine, theirs, pages)
        return line

    def connect(self, cell: Cell) -> socket.socket | None:
        """Return a further line to a live cell; None if it takes no orders, and is killed.

        Raises OSError when there are no descriptors left.
        """
        mine, theirs = socket.socketpair()
        self.touch(cell.instance)
        return self._order(cell, Order.CONNECT, mine, theirs)

    def _order(
        self,
        cell: Cell,
        order: Order,
        mine: socket.socket,
        theirs: socket.socket,
        pages: int = 0,
    ) -> socket.socket | None:
        with theirs:
            try:
                leash.send_order(cell.own, order, cell.instance, pages, theirs)
            except OSError as cause:
                # One that has ended a moment ago does not, and that is nobody's fault.
                level = logging.INFO if isinstance(cause, ConnectionError) else logging.ERROR
                log.log(level, "%s takes no orders: %s", cell, cause)
                self.kill(cell)
                mine.close()
                return None
        return mine

    def touch(self, instance: bytes) -> None:
        """Note that a database was used just now."""
        cell = self.live.get(instance)
        if cell:
            cell.used = time.monotonic()
            self.live.move_to_end(instance)

    def retire(self, cell: Cell, call_s: float = 0.0) -> None:
        """Have a cell fold up its database and go. A call that it is in may last so long."""
        cell.patience_s = max(cell.patience_s, call_s + _AFTER_S)
        if cell.ending_since is not None:
            return
        cell.ending_since = time.monotonic()
        try:
            leash.send_order(cell.own, Order.RETIRE, cell.instance)
        except OSError:
            self.kill(cell)

    def kill(self, cell: Cell) -> None:
        """End a cell now."""
        cell.ending_since = cell.ending_since or time.monotonic()
        if not cell.killed:
            cell.killed = True
            # Not yet waited for, so the number still is this cell's.
            os.kill(cell.pid, signal.SIGKILL)

    def tick(self, now: float) -> None:
        """Give up idle cells; kill those that were told to go and have not."""
        for cell in list(self.live.values()):
            if cell.ending_since is not None:
                if now - cell.ending_since > cell.patience_s:
                    self.kill(cell)
            elif now - cell.used > self._settings.cell_idle_s:
                self.retire(cell)

    def _read_report(self, cell: Cell) -> None:
        if cell.own.fileno() < 0:
            return  # buried earlier in the same turn of the loop
        try:
            report = leash.receive_report(cell.own)
        except BlockingIOError:
            return
        if report is None:
            # Its socket is closed: it has ended, which this does not change, or pretends to.
            self._selector.unregister(cell.own)
            cell.ending_since = cell.ending_since or time.monotonic()
            os.kill(cell.pid, signal.SIGKILL)
            return
        self._note(cell, *report)

    def _note(self, cell: Cell, number: int, text: str) -> None:
        cell.reports += 1
        if cell.reports > _REPORTS_MOST:
            self.kill(cell)
        elif number == Report.TIRED:
            self.retire(cell)
        elif number != Report.READY:
            log.error("%s: %s", cell, text)

    def _hear_out(self, cell: Cell) -> None:
        """Take what a cell said last: its exit may be seen before its words."""
        with contextlib.suppress(BlockingIOError):
            while cell.reports <= _REPORTS_MOST and (report := leash.receive_report(cell.own)):
                cell.reports += 1
                if report[0] == Report.FAULT:
                    log.error("%s: %s", cell, report[1])

    def collect_exits(self) -> None:
        """Take leave of every cell that has ended, and do what waited for its end."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            cell = self._by_pid.pop(pid, None)
            if cell:
                self._bury(cell, status)

    def wait_for_end(self, cell: Cell) -> None:
        """Wait for the exit of a cell that was killed: for the zygote's start, not for later."""
        _, status = os.waitpid(cell.pid, 0)
        del self._by_pid[cell.pid]
        self._bury(cell, status)

    def _bury(self, cell: Cell, status: int) -> None:
        with contextlib.suppress(KeyError):  # its end may have been seen before its exit
            self._selector.unregister(cell.own)
        self._hear_out(cell)
        cell.own.close()
        if cell in self._blank:
            self._blank.remove(cell)
            self._rest_until = time.monotonic() + _REST_S
        if self.live.get(cell.instance) is cell:
            del self.live[cell.instance]
        # The status only names the cause in the log: a hostile cell picks its own.
        ours = cell.killed and os.WTERMSIG(status) == signal.SIGKILL
        if os.WIFSIGNALED(status) and not ours:
            number = signal.Signals(os.WTERMSIG(status))
            self.deaths[number.name] += 1
            what = _CAUSES.get(number, "not on our word")
            log.warning("%s died of %s: %s", cell, number.name, what)
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status):
            self.deaths["exit"] += 1
            log.warning("%s failed", cell)
        for act in cell.then:
            act()

    def end_all(self) -> None:
        """Let the cells fold up; those that do not in time die with this process."""
        for cell in self._blank:
            self.kill(cell)
        for cell in self.live.values():
            self.retire(cell)
        give_up = time.monotonic() + RETIRE_S
        while self._by_pid and time.monotonic() < give_up:
            self.collect_exits()
            time.sleep(0.01)


def _stop(pid: int) -> None:
    """Have a child stand still, or see that it has ended. Raises TimeoutError.

    It may have to come out of a system call first (waitid(2) says when it has).
    """
    os.kill(pid, signal.SIGSTOP)
    give_up = time.monotonic() + _STOP_S
    # Not waited for: its exit is for collect_exits() to see.
    look = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, pid, look) is None:
        if time.monotonic() > give_up:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(_LOOK_S)
