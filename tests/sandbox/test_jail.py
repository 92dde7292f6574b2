"""The jail: what a cell cannot do any more, tried one act to a thrown-away process.

Each act is tried behind all walls, behind Landlock alone, and behind none: the last shows that it
is the walls that stop it.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import jail, kernel, leash, limits, proof
from sandbox.engine import blank_database
from sandbox.errors import WallError
from sandbox.jail import Walls
from sandbox.leash import Order
from sandbox.place import DATABASE, FILES
from tests.sandbox.handles import (
    Child,
    End,
    confined,
    in_child,
    keep,
    make_database_folder,
)

_libc = ctypes.CDLL(None, use_errno=True)
KILLED = "SIGSYS"


class Scene:
    """What there is to be reached: the cell's own folder, a neighbour's, a neighbour, servers."""

    def __init__(self, folder: Path, victim: Child, port: int, abstract: str, named: str) -> None:
        self.own = folder / "own"
        self.other = folder / "other"
        self.file = self.own / DATABASE
        self.wal = self.own / FILES[1]
        self.folder = folder
        self.neighbour = victim
        self.victim = victim.pid
        self.port = port
        self.abstract = abstract
        self.named = named


@pytest.fixture
def scene(folder: Path, start_child: Callable[..., Child]) -> Iterator[Scene]:
    for name in ("own", "other"):
        make_database_folder(folder / name, blank_database())
    free = folder / "free"
    free.mkdir(mode=0o777)
    free.chmod(0o777)
    link = folder / "other" / "link"
    link.symlink_to("/etc/passwd")

    def answer(sock: socket.socket) -> None:
        while sock.recv(100):
            sock.send(b"here")

    victim = start_child(answer)
    abstract = f"\0walkin-test-{os.getpid()}-{folder.name}"
    named = str(free / "sock")
    tcp, abstract_socket, named_socket = (
        socket.socket(),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    )
    with tcp, abstract_socket, named_socket:
        tcp.bind(("127.0.0.1", 0))
        abstract_socket.bind(abstract)
        named_socket.bind(named)
        os.chmod(named, 0o777)
        for listener in (tcp, abstract_socket, named_socket):
            listener.listen()
        yield Scene(folder, victim, tcp.getsockname()[1], abstract, named)


Act = Callable[[Scene], object]


def jailed(scene: Scene, walls: Walls, act: Act) -> End:
    """Do one act as a cell does it: all walls up."""
    before = os.getpid()

    def inside(sock: socket.socket) -> object:
        confined(sock, scene.own, walls, before)
        return act(scene)

    return in_child(inside)


def landlocked(scene: Scene, walls: Walls, act: Act) -> End:
    """Do one act behind Landlock alone."""

    def inside(_: socket.socket) -> object:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.landlock(scene.own, jail.RIGHTS, walls.landlock_abi)
        return act(scene)

    return in_child(inside)


def free(scene: Scene, act: Act) -> End:
    """Do one act without a wall."""

    def inside(_: socket.socket) -> object:
        # The kernel takes this away from whoever changes its user.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        return act(scene)

    return in_child(inside)


def outcome(end: End) -> str:
    """The errno's name, the signal, or `done`."""
    return end.signal or (end.word if end.word in errno.errorcode.values() else "done")


def call(result: int) -> None:
    """Raise what a C function reports by -1."""
    if result == -1:
        raise OSError(ctypes.get_errno(), "")


def opened(path: str | Path, flags: int) -> None:
    os.close(os.open(path, flags))


def accessed(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, "")


def connected(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as sock:
        sock.connect(address)


def bound(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as sock:
        sock.bind(address)


def paired() -> None:
    for sock in socket.socketpair():
        sock.close()


def forked() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def mapped(protection: int) -> None:
    size, private_anonymous = 4096, 0x22
    _libc.mmap.restype = ctypes.c_void_p
    address = _libc.mmap(None, size, protection, private_anonymous, -1, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def protected(protection: int) -> None:
    _libc.mmap.restype = ctypes.c_void_p
    address = _libc.mmap(None, 4096, 3, 0x22, -1, 0)
    call(_libc.mprotect(ctypes.c_void_p(address), 4096, protection))


RW = os.O_RDWR
NEW = os.O_CREAT | os.O_RDWR
DENIED = "EACCES"

#: The act; how it ends behind all walls; behind Landlock alone (None: not Landlock's business).
FORBIDDEN: dict[str, tuple[Act, str, str | None]] = {
    # other files
    "read a system file": (lambda _: opened("/etc/passwd", os.O_RDONLY), DENIED, DENIED),
    "read another database": (lambda s: opened(s.other / DATABASE, os.O_RDONLY), DENIED, DENIED),
    "write another database": (lambda s: opened(s.other / DATABASE, RW), DENIED, DENIED),
    "follow a link": (lambda s: opened(s.other / "link", os.O_RDONLY), DENIED, DENIED),
    "reach out by ..": (lambda s: opened(s.own / ".." / "other" / DATABASE, RW), DENIED, DENIED),
    "read its own maps": (lambda _: opened("/proc/self/maps", os.O_RDONLY), DENIED, DENIED),
    "read its environment": (lambda _: opened("/proc/self/environ", os.O_RDONLY), DENIED, DENIED),
    "write its own memory": (lambda _: opened("/proc/self/mem", RW), DENIED, DENIED),
    "open a device": (lambda _: opened("/dev/null", RW), DENIED, DENIED),
    "list its own folder": (lambda s: os.listdir(s.own), DENIED, DENIED),
    "list the other folders": (lambda s: os.listdir(s.folder), DENIED, DENIED),
    # its own folder
    "make a file": (lambda s: opened(s.own / "new", NEW), DENIED, DENIED),
    "make a file elsewhere": (lambda s: opened(s.folder / "free" / "new", NEW), DENIED, DENIED),
    # Landlock has no right for it: there is no name to make.
    "make a nameless file": (lambda s: opened(s.own, os.O_TMPFILE | RW), KILLED, None),
    "remove a file": (lambda s: os.unlink(s.wal), DENIED, DENIED),
    "rename a file": (lambda s: os.rename(s.wal, s.own / "new"), KILLED, DENIED),
    "replace a file": (lambda s: os.rename(s.wal, s.file), KILLED, DENIED),
    "link a file": (lambda s: os.link(s.file, s.own / "new"), KILLED, DENIED),
    "link another's file": (lambda s: os.link(s.other / DATABASE, s.own / "new"), KILLED, DENIED),
    "make a symbolic link": (lambda s: os.symlink("/etc/passwd", s.own / "new"), KILLED, DENIED),
    "make a folder": (lambda s: os.mkdir(s.own / "new"), KILLED, DENIED),
    "remove a folder": (lambda s: os.rmdir(s.folder / "free" / "sub"), KILLED, None),
    "make a pipe file": (lambda s: os.mkfifo(s.own / "new"), KILLED, DENIED),
    "truncate another's file": (lambda s: os.truncate(s.other / DATABASE, 0), KILLED, DENIED),
    "change a mode": (lambda s: os.chmod(s.file, 0o777), KILLED, None),
    "change a time": (lambda s: os.utime(s.file), KILLED, None),
    "change folders": (lambda s: os.chdir(s.own), KILLED, None),
    "set an attribute": (lambda s: os.setxattr(s.file, "user.a", b"1"), KILLED, None),
    "read a link": (lambda s: os.readlink(s.other / "link"), DENIED, None),
    "test for access": (lambda s: accessed(s.file), DENIED, None),
    # the network
    "connect by TCP": (
        lambda s: connected(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", s.port)),
        KILLED,
        DENIED,
    ),
    "listen by TCP": (
        lambda _: bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        KILLED,
        DENIED,
    ),
    "make a UDP socket": (
        lambda _: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        KILLED,
        None,
    ),
    "connect to an abstract socket": (
        lambda s: connected(socket.AF_UNIX, socket.SOCK_STREAM, s.abstract),
        KILLED,
        "EPERM",
    ),
    "connect to a named socket": (
        lambda s: connected(socket.AF_UNIX, socket.SOCK_STREAM, s.named),
        KILLED,
        None,
    ),
    "make a pair of sockets": (lambda _: paired(), KILLED, None),
    "make a pipe": (lambda _: os.pipe(), KILLED, None),
    # processes
    "fork": (lambda _: forked(), KILLED, None),
    "run a program": (lambda _: os.execv("/bin/true", ["true"]), KILLED, DENIED),
    "kill another process": (lambda s: os.kill(s.victim, signal.SIGTERM), KILLED, "EPERM"),
    "look for another process": (lambda s: os.kill(s.victim, 0), KILLED, "EPERM"),
    "be traced": (lambda _: call(_libc.ptrace(0, 0, 0, 0)), KILLED, None),
    "wait for others": (lambda _: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG), KILLED, None),
    "change priority": (lambda _: os.nice(0), KILLED, None),
    "read another's limits": (lambda s: resource.prlimit(s.victim, 9), KILLED, None),
    "become traceable": (lambda _: kernel.prctl(kernel.PR_SET_DUMPABLE, 1), KILLED, None),
    # memory that runs
    "map memory that runs": (lambda _: mapped(7), KILLED, None),
    "make memory run": (lambda _: protected(5), KILLED, None),
    # devices
    "control a device": (lambda _: fcntl.ioctl(0, 0x541B, b"\0" * 8), DENIED, None),
}  # fmt: skip
#: These fail without a wall, too, for other reasons, or end the process that does them.
NOT_FREE = {"remove a folder", "set an attribute", "wait for others", "control a device"}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_cell_cannot(scene: Scene, walls: Walls, name: str) -> None:
    act, expected, _ = FORBIDDEN[name]
    assert outcome(jailed(scene, walls, act)) == expected


@pytest.mark.parametrize("name", [name for name, row in FORBIDDEN.items() if row[2]])
def test_landlock_alone_denies_to(scene: Scene, walls: Walls, name: str) -> None:
    act, _, expected = FORBIDDEN[name]
    assert outcome(landlocked(scene, walls, act)) == expected


@pytest.mark.parametrize("name", FORBIDDEN.keys() - NOT_FREE)
def test_without_walls_it_is_possible_to(scene: Scene, name: str) -> None:
    act, _, _ = FORBIDDEN[name]
    assert outcome(free(scene, act)) == "done"


def test_a_signal_through_a_descriptor_does_not_arrive(scene: Scene, walls: Walls) -> None:
    """fcntl(2) can have a signal of one's choice sent to any process when a socket has news."""

    def signalled(scene: Scene, sock: socket.socket) -> str:
        fd = sock.fileno()
        fcntl.fcntl(fd, fcntl.F_SETOWN, scene.victim)
        fcntl.fcntl(fd, 10, int(signal.SIGTERM))  # F_SETSIG
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
        sock.send(b"ready")
        return sock.recv(10).decode()

    def with_walls(sock: socket.socket) -> str:
        own = confined(sock, scene.own, walls, parent)
        return signalled(scene, own)

    def reached(act: Callable[[socket.socket], str]) -> bool:
        child = Child(act)
        try:
            assert child.hear() == "ready"
            child.sock.send(b"news")
            assert child.end().word == "news"
        finally:
            child.close()
        # A signal that was sent would come before this is read.
        with contextlib.suppress(BrokenPipeError):
            scene.neighbour.sock.send(b"there?")
        return scene.neighbour.hear() != "here"

    parent = os.getpid()
    assert not reached(with_walls)
    assert reached(lambda sock: signalled(scene, sock))


# --- what a cell needs ---


def read_and_write(scene: Scene) -> str:
    for path in (scene.file, scene.wal):
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, b"written", 8192)
        assert os.pread(fd, 7, 8192) == b"written"
        os.ftruncate(fd, 4096)
        os.fsync(fd)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
    return "both"


def test_a_cell_reads_writes_truncates_and_locks_its_two_files(scene: Scene, walls: Walls) -> None:
    assert jailed(scene, walls, read_and_write) == End("both", 0)
    assert {path.stat().st_size for path in (scene.file, scene.wal)} == {4096}


def test_a_cell_can_still_take_a_line(scene: Scene, walls: Walls, start_child: Any) -> None:
    parent = os.getpid()

    def inside(sock: socket.socket) -> str:
        own = confined(sock, scene.own, walls, parent)
        _, _, line = leash.receive_order(own)
        assert line is not None
        keep(line)
        line.sendall(b"hello")
        return "sent"

    child = start_child(inside)
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            leash.send_order(child.sock, Order.CONNECT, b"", theirs)
        assert child.end() == End("sent", 0)
        assert mine.recv(10) == b"hello"


def test_a_file_cannot_grow_over_its_limit(scene: Scene, walls: Walls) -> None:
    def grow(scene: Scene) -> None:
        fd = os.open(scene.file, os.O_RDWR)
        os.pwrite(fd, b"x", limits.RLIMITS[resource.RLIMIT_FSIZE] - 1)
        os.pwrite(fd, b"x", limits.RLIMITS[resource.RLIMIT_FSIZE])

    assert jailed(scene, walls, grow).word == "EFBIG"
    assert scene.file.stat().st_size == limits.RLIMITS[resource.RLIMIT_FSIZE]


def test_memory_cannot_grow_over_its_limit(scene: Scene, walls: Walls) -> None:
    def grow(_: Scene) -> str:
        try:
            bytearray(600 << 20)
        except MemoryError:
            return "refused"
        return "got it"

    assert jailed(scene, walls, grow).word == "refused"


# --- what a cell keeps ---


def test_no_descriptor_is_open_but_the_standard_three_and_the_line(
    scene: Scene, walls: Walls
) -> None:
    def numbers(_: Scene) -> list[int]:
        found = []
        for fd in range(1024):
            try:
                os.fstat(fd)
            except OSError:
                continue
            found.append(fd)
        return found

    with (scene.folder / "held").open("w"):
        assert jailed(scene, walls, numbers).word == "[0, 1, 2, 3]"


def test_the_standard_three_are_the_null_device(scene: Scene, walls: Walls) -> None:
    def kinds(_: Scene) -> list[bool]:
        found = [os.fstat(fd) for fd in (0, 1, 2)]
        return [stat.S_ISCHR(one.st_mode) and one.st_rdev == os.makedev(1, 3) for one in found]

    assert jailed(scene, walls, kinds).word == "[True, True, True]"


class Prisoner:
    """A process behind all walls that waits, and what the kernel says of it."""

    def __init__(self, child: Child) -> None:
        self.pid = child.pid

    def status(self, field: str) -> str:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return value.strip()
        raise AssertionError(field)

    def limit(self, name: str) -> list[str]:
        for line in Path(f"/proc/{self.pid}/limits").read_text().splitlines():
            if line.startswith(name):
                return line.removeprefix(name).split()[:2]
        raise AssertionError(name)


@pytest.fixture
def prisoner(scene: Scene, walls: Walls, start_child: Callable[..., Child]) -> Prisoner:
    parent = os.getpid()

    def inside(sock: socket.socket) -> None:
        own = confined(sock, scene.own, walls, parent)
        own.send(b"here")
        own.recv(1)

    child = start_child(inside)
    assert child.hear() == "here"
    return Prisoner(child)


def test_the_kernel_shows_no_new_privileges_and_a_filter(prisoner: Prisoner) -> None:
    assert prisoner.status("NoNewPrivs") == "1"
    assert prisoner.status("Seccomp") == "2"


def test_the_kernel_shows_one_thread(prisoner: Prisoner) -> None:
    assert prisoner.status("Threads") == "1"


def test_the_kernel_shows_no_capability(prisoner: Prisoner) -> None:
    for field in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(prisoner.status(field), 16) == 0


def test_a_cell_leads_a_session_of_its_own(prisoner: Prisoner) -> None:
    assert os.getsid(prisoner.pid) == prisoner.pid != os.getsid(0)


def test_a_cell_comes_after_the_front_desk(prisoner: Prisoner) -> None:
    assert os.getpriority(os.PRIO_PROCESS, prisoner.pid) == os.nice(0) + limits.NICER


def test_the_kernel_shows_every_limit(prisoner: Prisoner) -> None:
    assert {getattr(resource, name) for name in proof.LIMITS} == set(limits.RLIMITS)
    for name, title in proof.LIMITS.items():
        number = getattr(resource, name)
        soft, hard = prisoner.limit(title)
        _, mine = resource.getrlimit(number)
        wanted = limits.RLIMITS[number]
        most = wanted if mine == resource.RLIM_INFINITY else min(mine, wanted)
        assert (soft, hard) == (str(most), str(most)), name


def test_a_cells_memory_is_closed_to_its_neighbours(prisoner: Prisoner) -> None:
    """Not dumpable: even another process of the same user may not look into it."""
    assert free_word(lambda: opened(f"/proc/{prisoner.pid}/mem", os.O_RDONLY)) == DENIED
    assert free_word(lambda: os.listdir(f"/proc/{prisoner.pid}/fd")) == DENIED


def free_word(act: Callable[[], object]) -> str:
    return in_child(lambda _: act()).word


def test_a_cell_is_killed_when_its_zygote_ends(
    scene: Scene, walls: Walls, start_child: Callable[..., Child]
) -> None:
    def zygote(sock: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            own = confined(sock, scene.own, walls, os.getppid())
            own.send(str(os.getpid()).encode())
            own.recv(1)
            os._exit(0)
        signal.pause()

    child = start_child(zygote)
    cell = os.pidfd_open(int(child.hear()))
    os.kill(child.pid, signal.SIGKILL)
    ready, _, _ = select.select([cell], [], [], 5)
    os.close(cell)
    assert ready


def test_a_cell_whose_zygote_has_ended_already_does_not_start() -> None:
    end = in_child(lambda sock: keep(jail.strip(sock, 1 if os.getppid() != 1 else 2)))
    assert (end.word, end.signal) == ("", "SIGKILL")


# --- walls that cannot stand ---


@pytest.mark.parametrize(("abi", "found"), [(0, "does not have it"), (1, "ABI 1"), (5, "ABI 5")])
def test_an_older_kernel_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, abi: int, found: str
) -> None:
    monkeypatch.setattr(kernel, "landlock_abi", lambda: abi)
    with pytest.raises(WallError, match=found) as raised:
        jail.prepare()
    assert "Linux 6.12" in str(raised.value)


@pytest.mark.parametrize("abi", [6, 7])
def test_the_least_kernel_and_newer_ones_will_do(monkeypatch: pytest.MonkeyPatch, abi: int) -> None:
    monkeypatch.setattr(kernel, "landlock_abi", lambda: abi)
    assert jail.prepare().landlock_abi == abi


def test_the_filter_is_a_program_of_whole_instructions(walls: Walls) -> None:
    assert len(walls.seccomp) % 8 == 0
    assert 20 < len(walls.seccomp) // 8 < 4096


def test_a_filter_that_cannot_be_built_is_a_wall_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError("no library")

    monkeypatch.setattr(kernel, "build_filter", fail)
    with pytest.raises(WallError, match="seccomp filter cannot be built: no library"):
        jail.prepare()


@pytest.mark.parametrize(
    ("step", "function"),
    [("no_new_privs", "prctl"), ("Landlock", "landlock"), ("seccomp", "seccomp")],
)
def test_a_wall_that_does_not_stand_is_named(
    scene: Scene, walls: Walls, monkeypatch: pytest.MonkeyPatch, step: str, function: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(kernel, function, fail)
    end = in_child(lambda _: jail.enter(scene.own, walls))
    assert end.word.startswith(f"WallError('{step}: ")


def test_a_folder_that_is_not_there_is_no_jail(scene: Scene, walls: Walls) -> None:
    end = in_child(lambda _: jail.enter(scene.folder / "nowhere", walls))
    assert end.word.startswith('WallError("Landlock: ')


def test_a_filter_of_rubbish_is_refused_by_the_kernel(scene: Scene, walls: Walls) -> None:
    rubbish = Walls(walls.landlock_abi, b"\xff" * 64)
    end = in_child(lambda _: jail.enter(scene.own, rubbish))
    assert end.word.startswith("WallError('seccomp: ")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("landlock", "Landlock: a folder outside the jail could be opened"),
        ("seccomp", "seccomp: a call that it refuses was carried out"),
    ],
)
def test_a_wall_that_is_said_to_stand_and_does_not_is_found_out(
    scene: Scene, walls: Walls, monkeypatch: pytest.MonkeyPatch, function: str, words: str
) -> None:
    monkeypatch.setattr(kernel, function, lambda *_: None)
    end = in_child(lambda _: jail.enter(scene.own, walls))
    assert end.word == f"WallError('{words}')"
