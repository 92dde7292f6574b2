"""The jail: what a cell keeps and still can do, and how a wall that does not stand is found out.

What it cannot do any more is tests/promises/test_jail_holds.py.
"""

import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox import jail, kernel, leash, limits, proof
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
)


class Scene:
    """The folder of a cell's own, and a neighbour who says whether it is there."""

    def __init__(self, own: Path, neighbour: Child) -> None:
        self.own = own
        self.folder = own.parent
        self.file = own / DATABASE
        self.wal = own / FILES[1]
        self.neighbour = neighbour


@pytest.fixture
def scene(own: Path, start_child: Callable[..., Child]) -> Scene:
    def answer(sock: socket.socket) -> None:
        while sock.recv(100):
            sock.send(b"here")

    return Scene(own, start_child(answer))


Act = Callable[[Scene], object]


def jailed(scene: Scene, walls: Walls, act: Act) -> End:
    """Do one act as a cell does it: all walls up."""
    before = os.getpid()

    def inside(sock: socket.socket) -> object:
        confined(sock, scene.own, walls, before)
        return act(scene)

    return in_child(inside)


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
        _, _, _, line = leash.receive_order(own)
        assert line is not None
        keep(line)
        line.sendall(b"hello")
        return "sent"

    child = start_child(inside)
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            leash.send_order(child.sock, Order.CONNECT, bytes(16), line=theirs)
        assert child.end() == End("sent", 0)
        assert mine.recv(10) == b"hello"


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
        found = json.loads(jailed(scene, walls, numbers).word)
    assert found[:3] == [0, 1, 2]
    assert len(found) == 4


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


def test_a_cell_is_the_first_to_go_when_memory_runs_out(prisoner: Prisoner) -> None:
    assert Path(f"/proc/{prisoner.pid}/oom_score_adj").read_text() == "1000\n"


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
    for act in (
        lambda: os.open(f"/proc/{prisoner.pid}/mem", os.O_RDONLY),
        lambda: os.listdir(f"/proc/{prisoner.pid}/fd"),
    ):
        assert in_child(lambda _, act=act: act()).word == "EACCES"


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


def test_a_cell_whose_zygote_has_ended_already_does_not_start(walls: Walls) -> None:
    nobody = 1 if os.getppid() != 1 else 2
    end = in_child(lambda sock: jail.strip(sock, nobody, walls.ruleset()))
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


def test_a_ruleset_that_cannot_be_made_is_a_wall_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(kernel, "landlock_ruleset", fail)
    with pytest.raises(WallError, match="Landlock: no such thing"):
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
    end = in_child(lambda _: jail.enter(scene.own, walls, walls.ruleset()))
    assert end.word.startswith(f"WallError('{step}: ")


def test_a_folder_that_is_not_there_is_no_jail(scene: Scene, walls: Walls) -> None:
    end = in_child(lambda _: jail.enter(scene.folder / "nowhere", walls, walls.ruleset()))
    assert end.word.startswith('WallError("Landlock: ')


def test_a_filter_of_rubbish_is_refused_by_the_kernel(scene: Scene, walls: Walls) -> None:
    rubbish = Walls(walls.landlock_abi, b"\xff" * 64)
    end = in_child(lambda _: jail.enter(scene.own, rubbish, walls.ruleset()))
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
    end = in_child(lambda _: jail.enter(scene.own, walls, walls.ruleset()))
    assert end.word == f"WallError('{words}')"
