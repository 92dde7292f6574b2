"""The sandbox's own processes, each with one handle: a zygote, a line, a thrown-away child."""

import contextlib
import errno
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sandbox import control, frames, jail, settings
from sandbox.control import Op, Outcome, Reply
from sandbox.frames import Decoder, Frame, Kind
from sandbox.jail import Walls
from sandbox.place import FILES, Place
from tests.handles import ROOT, wait_until

CELL_USER = settings.user("")
AS_ROOT = os.geteuid() == 0
#: Far enough away for any test.
LATER = 100_000  # seconds: no test lasts that long


def own_fds() -> set[int]:
    """The descriptors that this process has open now."""
    found = {int(name) for name in os.listdir("/proc/self/fd")}
    return {fd for fd in found if Path(f"/proc/self/fd/{fd}").is_symlink()}


def new_id() -> bytes:
    return os.urandom(control.ID_BYTES)


# --- children ---


class End(NamedTuple):
    """How a child ended: what it said last and the status that wait(2) gave."""

    word: str
    status: int

    @property
    def signal(self) -> str | None:
        """The name of the signal that it died of."""
        if not os.WIFSIGNALED(self.status):
            return None
        return str(signal.Signals(os.WTERMSIG(self.status)).name)


class Child:
    """A fork of this process as the cells' user that runs `act` and is thrown away.

    `act` gets the child's end of a packet socket; what it returns is sent there as text, an
    OSError as its errno's name.
    """

    def __init__(self, act: Callable[[socket.socket], object]) -> None:
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                # Nothing of the tests may be closed or collected in here.
                gc.disable()
                signal.alarm(0)
                self.sock.close()
                CELL_USER.become()
                _act_out(act, theirs)
            os._exit(0)
        theirs.close()
        self._status: int | None = None

    def hear(self) -> str:
        """Wait for the child's next word; an empty one when it has ended."""
        try:
            return self.sock.recv(65_536).decode()
        except ConnectionResetError:
            return ""

    def wait(self) -> int:
        """Wait until the child has ended and return its status."""
        if self._status is None:
            ready, _, _ = select.select([self._pidfd()], [], [], 20)
            if not ready:
                os.kill(self.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)
            os.close(self._fd)
            assert ready, "the child did not end"
        return self._status

    def _pidfd(self) -> int:
        self._fd = os.pidfd_open(self.pid)
        return self._fd

    def end(self) -> End:
        """Hear its last word and wait for it."""
        word = ""
        while heard := self.hear():
            word = heard
        return End(word, self.wait())

    def close(self) -> None:
        """Kill it if it is still there."""
        self.sock.close()
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def _act_out(act: Callable[[socket.socket], object], theirs: socket.socket) -> None:
    fd = theirs.fileno()
    try:
        word = act(theirs)
    except OSError as error:
        word = errno_name(error)
    except BaseException as error:
        word = repr(error)
    # By number: whatever the act did with the socket, it may have been closed.
    with contextlib.suppress(OSError):
        os.write(fd, str(word).encode())


def confined(sock: socket.socket, folder: Path, walls: Walls, zygote: int) -> socket.socket:
    """In a child: raise all walls as a cell does and return the leash."""
    ruleset = walls.ruleset()
    jail.strip(sock, zygote, ruleset)
    jail.enter(folder, walls, ruleset)
    return keep(sock)


#: In a child: sockets that stay open until the end, when the last word is sent through one.
_KEPT: list[socket.socket] = []


def keep(sock: socket.socket) -> socket.socket:
    """In a child: keep a socket open whatever becomes of its holder."""
    _KEPT.append(sock)
    return sock


def errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, repr(error))


def in_child(act: Callable[[socket.socket], object]) -> End:
    """Run `act` in a thrown-away child and return how it ended."""
    child = Child(act)
    try:
        return child.end()
    finally:
        child.close()


# --- lines ---


class CellAnswer(NamedTuple):
    """What came back for one call."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def rows(self) -> Any:
        assert self.status == 200, self.body
        return self.json["rows"]

    @property
    def code(self) -> str | None:
        code: str | None = self.json.get("code")
        return code


class Line:
    """The front desk's end of a line to a cell."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(20)
        self._decoder = Decoder(frames.FROM_CELL)
        self._frames: deque[Frame] = deque()

    def send(
        self, sql: str, args: Any = None, *, timeout_ms: int = 5000, announce: bool = False
    ) -> None:
        """Send one call and do not wait for its answer."""
        self.sock.sendall(call_frame(sql, args, timeout_ms=timeout_ms, announce=announce))

    def next_frame(self) -> Frame | None:
        """Wait for the next frame; None when the cell has hung up."""
        while not self._frames:
            try:
                data = self.sock.recv(65_536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._frames.extend(self._decoder.feed(data))
        return self._frames.popleft()

    def answer(self) -> CellAnswer:
        """Wait for the answer of the call that was sent first."""
        answer = self.answer_if_any()
        assert answer is not None, "the cell hung up"
        return answer

    def answer_if_any(self) -> CellAnswer | None:
        """Wait for an answer, or for the cell to hang up instead."""
        body = b""
        while True:
            frame = self.next_frame()
            if frame is None:
                return None
            kind, payload = frame
            if kind is Kind.END:
                status, _, _, last = frames.decode_end(payload)
                return CellAnswer(status, body + last)
            assert kind is Kind.DATA, kind
            body += payload

    def sql(self, sql: str, args: Any = None, *, timeout_ms: int = 5000) -> CellAnswer:
        """Send one call and wait for its answer."""
        self.send(sql, args, timeout_ms=timeout_ms)
        return self.answer()

    def close(self) -> None:
        self.sock.close()


def call_frame(
    sql: str, args: Any = None, *, timeout_ms: int = 5000, announce: bool = False
) -> bytes:
    body = {"sql": sql} if args is None else {"sql": sql, "args": args}
    return frames.encode_call(timeout_ms, bytes(16), json.dumps(body).encode(), announce=announce)


# --- folders ---


def give_to_cells(*paths: Path) -> None:
    """Make the cells' user the owner, as if the zygote had made them."""
    for path in paths:
        os.chown(path, CELL_USER.uid, CELL_USER.gid, follow_symlinks=False)


def make_database_folder(folder: Path, content: bytes) -> Path:
    """Make what the zygote makes for one database, outside of any place."""
    folder.mkdir(mode=0o700)
    for name in FILES:
        path = folder / name
        path.write_bytes(content if name == FILES[0] else b"")
        path.chmod(0o600)
        give_to_cells(path)
    give_to_cells(folder)
    return folder


def traces(place: Place, instance: bytes) -> set[str]:
    """Where there is still something of a database: instances, expiry, due, trash."""
    found = set()
    for folder, folders, files in os.walk(place.cells):
        if instance.hex() in (*folders, *files):
            found.add(Path(folder).relative_to(place.cells).parts[0])
    return found


# --- the zygote ---


#: What `python -m sandbox` does, for a program that has changed something before.
RUN = """
import runpy, sys
sys.argv = ["sandbox", *sys.argv[1:]]
runpy.run_module("sandbox", run_name="__main__")
"""


class Zygote:
    """`python -m sandbox` as a real process on a control socket of the test's own."""

    def __init__(self, data_dir: Path, **chosen: object) -> None:
        self.place = Place(data_dir)
        self.place.prepare(CELL_USER.uid, CELL_USER.gid)
        self.env = {
            "PATH": os.environ.get("PATH", ""),
            "WALKIN_DATA_DIR": str(data_dir),
            **{f"WALKIN_{name.upper()}": str(value) for name, value in chosen.items()},
        }
        self._log = data_dir / "zygote.log"
        self._listener = control.listen(self.place.run)
        self._sockets: list[socket.socket] = []
        self._number = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.control = self.connect()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> "Zygote":
        """Start the process and wait until it answers."""
        self.process = self.popen()
        self.status()
        return self

    def start_with(self, **constants: float) -> "Zygote":
        """Start the process with other values of zygote.py's and nursery.py's constants."""
        changed = "".join(
            f"vars(nursery if hasattr(nursery, {name!r}) else zygote)[{name!r}] = {value}\n"
            for name, value in constants.items()
        )
        program = f"from sandbox import nursery, zygote\n{changed}{RUN}"
        self.process = self.popen_program(program)
        self.status()
        return self

    def popen(self, *before: str) -> "subprocess.Popen[bytes]":
        """Start the process, perhaps by way of a starter of its own."""
        return self._popen([*before, sys.executable, "-m", "sandbox"])

    def popen_program(self, program: str) -> "subprocess.Popen[bytes]":
        """Start a Python program in the zygote's place; with `RUN` at its end it becomes one."""
        return self._popen([sys.executable, "-c", program])

    def _popen(self, command: list[str]) -> "subprocess.Popen[bytes]":
        fd = self._listener.fileno()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--listen-fd", str(fd)],
                env=self.env,
                cwd=ROOT,
                pass_fds=(fd,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def connect(self) -> socket.socket:
        """A further control connection."""
        sock = control.connect(self.place.run)
        sock.settimeout(20)
        self._sockets.append(sock)
        return sock

    # --- questions ---

    def send(
        self,
        op: Op,
        instance: bytes = bytes(16),
        amount: int = 0,
        cell: int = 0,
        source: bytes = bytes(16),
        name: str = "",
    ) -> int:
        """Ask without waiting; return the question's number."""
        self._number += 1
        packet = control.encode_request(
            op, self._number, instance, amount, cell, source=source, name=name
        )
        self.control.send(packet)
        return self._number

    def receive(self) -> tuple[Reply, Line | None]:
        """Wait for the next reply and the line that came with it."""
        packet, fds, _, _ = socket.recv_fds(self.control, control.MAX_PACKET, 4)
        assert packet, self.log()[-2000:]
        line = None
        for fd in fds:
            line = Line(socket.socket(fileno=fd))
            self._sockets.append(line.sock)
        return control.decode_reply(packet), line

    def ask(self, op: Op, *about: Any, **more: Any) -> tuple[Reply, Line | None]:
        """Ask as `send` does; wait for the reply and the line that comes with it."""
        number = self.send(op, *about, **more)
        reply, line = self.receive()
        assert reply.number == number
        return reply, line

    def ask_until_served(self, op: Op, instance: bytes, amount: int = 0) -> Line:
        """Ask again while the zygote is busy, as callers do; return the line."""

        def served() -> Line | None:
            reply, line = self.ask(op, instance, amount)
            assert reply.outcome in (Outcome.DONE, Outcome.BUSY), (reply, self.log()[-2000:])
            return line

        line: Line = wait_until(served, 10)
        return line

    def create(self, instance: bytes | None = None, ttl_s: int = LATER) -> tuple[bytes, Line]:
        """Make a database; return its id and a line."""
        instance = instance or new_id()
        reply, line = self.ask(Op.CREATE, instance, ttl_s)
        assert reply.outcome is Outcome.DONE, (reply, self.log()[-2000:])
        assert line is not None
        return instance, line

    def open(self, instance: bytes) -> Line:
        """Return a line to a database."""
        reply, line = self.ask(Op.OPEN, instance)
        assert reply.outcome is Outcome.DONE, (reply, self.log()[-2000:])
        assert line is not None
        return line

    def kill(self, instance: bytes, cell: int = 0) -> None:
        reply, _ = self.ask(Op.KILL, instance, cell=cell)
        assert reply.outcome is Outcome.DONE

    def status(self) -> Any:
        return json.loads(self.ask(Op.STATUS)[0].text)

    # --- processes ---

    def children(self) -> dict[int, str]:
        """Its cells by pid, with their titles; those that wait to be collected are left out."""
        return children_of(self.pid)

    def cells(self) -> dict[str, int]:
        """The live cells' pids by title."""
        return {title: pid for pid, title in self.children().items()}

    def cell(self, instance: bytes) -> int:
        """The pid of the cell that has this database."""
        title = f"walkin: cell {instance.hex()}"
        return int(wait_until(lambda: self.cells().get(title), 5, title))

    def has_cell(self, instance: bytes) -> bool:
        return f"walkin: cell {instance.hex()}" in self.cells()

    def blanks(self) -> list[int]:
        """The pids of the cells that wait for a database."""
        return [pid for pid, title in self.children().items() if title == "walkin: blank cell"]

    def stop(self) -> int:
        """SIGTERM, then the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._listener.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(20)


def children_of(parent: int) -> dict[int, str]:
    """The running children of a process with their titles."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(ppid) == parent and state != "Z":
                    title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(folder.name)] = title.strip()
    return found


# --- a zygote of cardboard ---

#: What is to be sent for one packet: a reply and the descriptors with it. None hangs up.
Answering = Callable[[bytes], tuple[bytes, list[int]] | None]


class FakeZygote:
    """A control socket whose every packet `answering` answers, in a thread."""

    def __init__(self, run_dir: Path, answering: Answering) -> None:
        self.packets: list[bytes] = []
        self.connections = 0
        self._answering = answering
        self._listener = control.listen(run_dir)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        open_: list[socket.socket] = []
        while True:
            ready, _, _ = select.select([self._listener, *open_], [], [], 0.02)
            if self._stopping.is_set():
                break
            for sock in ready:
                if sock is self._listener:
                    accepted, _ = self._listener.accept()
                    self.connections += 1
                    open_.append(accepted)
                elif not self._answer(sock):
                    open_.remove(sock)
                    sock.close()
        for sock in open_:
            sock.close()
        self._listener.close()

    def _answer(self, sock: socket.socket) -> bool:
        packet = sock.recv(control.MAX_PACKET)
        if not packet:
            return False
        self.packets.append(packet)
        if packet[0] == Op.REAPED:
            return True
        reply = self._answering(packet)
        if reply is None:
            return False
        if reply[0]:
            socket.send_fds(sock, [reply[0]], reply[1])
            for fd in reply[1]:
                os.close(fd)
        return True

    @property
    def requests(self) -> list[control.Request]:
        """The questions so far, what has no answer left out."""
        return [
            control.decode_request(packet)
            for packet in self.packets
            if packet[0] not in (Op.TOUCH, Op.REAPED)
        ]

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(10)


@contextlib.contextmanager
def fake_zygote(run_dir: Path, answering: Answering) -> Iterator[FakeZygote]:
    """A zygote that says what the test wants it to say."""
    fake = FakeZygote(run_dir, answering)
    try:
        yield fake
    finally:
        fake.close()


def done(packet: bytes, text: bytes = b"") -> tuple[bytes, list[int]]:
    """Answer DONE to whatever was asked."""
    request = control.decode_request(packet)
    return control.encode_reply(Outcome.DONE, request.number, request.amount, text), []


def now() -> int:
    return int(time.time())
