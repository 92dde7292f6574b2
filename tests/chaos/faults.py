"""The faults: each is done to a running service, held for a moment and undone.

A fault says beforehand what it excuses: broken connections where the front desk is hurt, a full
disk where the disk is. Nothing excuses a lost row.
"""

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.chaos.tenants import Tenant
from tests.handles import Client, Service, is_running, wait_until
from tests.machine import HUNGRY, SteppedClock, little_memory, short_of

#: A stopped process is missed by the others within this time at most.
_HOLD_S = 0.4
#: What all processes together may take on top of what they have: room for one hungry query, and
#: for what the tenants write meanwhile, which counts as memory too where the disk is a tmpfs.
_LITTLE = 96 << 20
#: Zygote, reaper and one front desk.
_PROGRAMS = 3


class Scene:
    """The service that is hurt, who calls it, and chance."""

    def __init__(
        self,
        service: Service,
        tenants: list[Tenant],
        chance: random.Random,
        disk: Path | None,
        clock: SteppedClock,
    ) -> None:
        self.service = service
        self.tenants = tenants
        self.chance = chance
        #: The small file system that the data is on, None if there could be none.
        self.disk = disk
        #: The clock that the service goes by.
        self.clock = clock
        #: A file outside the data that no fault may reach.
        self.canary = service.data_dir.parent / "canary"

    def pids(self, *roles: str) -> list[int]:
        return [
            pid
            for pid, title in self.service._family()
            if any(title.startswith(f"walkin: {role}") for role in roles)
        ]

    def victim(self, *roles: str) -> int | None:
        found = self.pids(*roles)
        return self.chance.choice(found) if found else None

    def hold(self) -> None:
        time.sleep(self.chance.uniform(0.05, _HOLD_S))

    @contextlib.contextmanager
    def excused(self, *, breaks: bool = False, full: bool = False) -> Iterator[None]:
        """What the tenants must put up with meanwhile."""
        for tenant in self.tenants:
            if breaks:
                tenant.may_break.set()
            if full:
                tenant.may_be_full.set()
        try:
            yield
        finally:
            # An answer that was on its way may come a moment later.
            time.sleep(0.3 if breaks or full else 0)
            for tenant in self.tenants:
                tenant.may_break.clear()
                tenant.may_be_full.clear()

    def until_ready(self, within_s: float = 30.0) -> None:
        client = self.service.client()
        try:

            def is_ready() -> bool:
                with contextlib.suppress(OSError, Exception):
                    return client.get("/readyz").status == 200
                return False

            wait_until(is_ready, within_s, "the node is ready again")
        finally:
            client.close()
            self.service._clients.remove(client)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill(*roles: str, breaks: bool = False) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        with scene.excused(breaks=breaks):
            pid = scene.victim(*roles)
            if pid is not None:
                _send(pid, signal.SIGKILL)
                wait_until(lambda: not is_running(pid), 10)

    return act


def _stop(*roles: str) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        pid = scene.victim(*roles)
        if pid is not None:
            _send(pid, signal.SIGSTOP)
            try:
                scene.hold()
            finally:
                _send(pid, signal.SIGCONT)

    return act


def kill_many_cells(scene: Scene) -> None:
    for pid in scene.pids("cell ", "blank cell"):
        _send(pid, signal.SIGKILL)


def stop_a_cell_for_long(scene: Scene) -> None:
    """Longer than a call may take: the front desk has it killed."""
    pid = scene.victim("cell ")
    if pid is not None:
        _send(pid, signal.SIGSTOP)
        time.sleep(3)
        _send(pid, signal.SIGCONT)


def kill_everything(scene: Scene) -> None:
    """All at once, and a new start with the same data."""
    service = scene.service
    with scene.excused(breaks=True):
        pids = [pid for pid, _ in service._family()]
        service.kill()
        for pid in pids:
            _send(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, pids)), 10)
        service.start()


def stop_in_order(scene: Scene) -> None:
    service = scene.service
    with scene.excused(breaks=True):
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
        service.start()


def replace_front_desks(scene: Scene) -> None:
    """Nobody is excused for this one."""
    before = scene.pids("front desk")
    assert scene.service.process is not None
    scene.service.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: not set(before) & set(scene.pids("front desk")), 40, "a new front desk")


def read_keys_again(scene: Scene) -> None:
    assert scene.service.process is not None
    scene.service.process.send_signal(signal.SIGHUP)


def fill_the_disk(scene: Scene) -> None:
    assert scene.disk is not None
    ballast = scene.disk / "ballast"
    with scene.excused(full=True):
        try:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                for size in (1 << 20, 4096):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(b"x" * size)
            scene.hold()
        finally:
            ballast.unlink(missing_ok=True)


def use_up_the_inodes(scene: Scene) -> None:
    assert scene.disk is not None
    folder = scene.disk / "inodes"
    with scene.excused(full=True):
        try:
            with contextlib.suppress(OSError):
                folder.mkdir()
                for number in range(1_000_000):
                    (folder / str(number)).touch()
            scene.hold()
        finally:
            with contextlib.suppress(FileNotFoundError):
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()


def close_the_disk_to_writing(scene: Scene) -> None:
    """Only what is not open for writing can be: the cells must go first, and be quick about it."""
    assert scene.disk is not None
    with scene.excused(full=True):
        for pid in scene.pids("zygote"):
            _send(pid, signal.SIGTERM)
        give_up = time.monotonic() + 1
        while not _remount(scene.disk, "ro") and time.monotonic() < give_up:
            time.sleep(0.01)
        try:
            scene.hold()
        finally:
            assert _remount(scene.disk, "rw")


def _remount(disk: Path, how: str) -> bool:
    command = ["mount", "-o", f"remount,{how}", str(disk)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _set_the_clock(seconds: int) -> Callable[[Scene], None]:
    """The tenants' own clock goes on as before, and they watch each end."""

    def act(scene: Scene) -> None:
        scene.clock.step(seconds)
        try:
            scene.hold()
            if scene.chance.random() < 0.5:  # whoever comes now has seen no other time
                _send(scene.victim("zygote", "reaper") or 0, signal.SIGKILL)
            scene.hold()
        finally:
            scene.clock.step(0)

    return act


def leave_little_memory(scene: Scene) -> None:
    """Queries that want more than there is: the kernel ends cells, and nothing but cells."""
    service = scene.service
    programs = wait_until(lambda: len(found := service.programs()) >= _PROGRAMS and found)
    pids = [pid for pid, _ in service._family()]
    with little_memory(pids, _LITTLE) as done:
        assert done
        clients = [service.client() for _ in range(4)]
        for client in clients:
            client.http.timeout = httpx.Timeout(10)
        with ThreadPoolExecutor(4) as callers:
            list(callers.map(_ask_for_memory, clients))
        for client in clients:
            service._clients.remove(client)
            client.close()
    after = service.programs()
    assert after.keys() == programs.keys(), f"only cells may be ended: {programs}, {after}"


def _ask_for_memory(client: Client) -> None:
    with contextlib.suppress(httpx.TransportError):
        client.sql(HUNGRY)


def _few(what: int, room: int, *roles: str) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        pid = scene.victim(*roles)
        if pid is not None:
            # It may end by itself meanwhile.
            with (
                contextlib.suppress(OSError, subprocess.CalledProcessError),
                short_of(pid, what, room),
            ):
                scene.hold()

    return act


def hold_answers_unread(scene: Scene) -> None:
    """Callers who ask for much and take nothing, and some who never end their request."""
    host, port = scene.service.url.removeprefix("http://").split(":")
    body = (
        b'{"sql": "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<9000)'
        b' SELECT i, hex(zeroblob(40)) FROM n"}'
    )
    head = b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with contextlib.ExitStack() as socks:
        for number in range(20):
            with contextlib.suppress(OSError):
                sock = socks.enter_context(socket.create_connection((host, int(port)), 5))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.sendall(whole * 3 if number % 2 else whole[: scene.chance.randrange(1, 200)])
        scene.hold()


# --- what is done to the data ---


def _resting(scene: Scene) -> list[Path]:
    return list((scene.service.data_dir / "cells" / "instances").glob("*/*"))


def _spoil(scene: Scene) -> str | None:
    """Choose a tenant's database, which is from now on not judged; return its id."""
    known = [tenant.database for tenant in scene.tenants if tenant.database]
    if not known:
        return None
    database = scene.chance.choice(known)
    database.is_spoilt = True
    return database.instance


def scribble_in_a_database(scene: Scene) -> None:
    """Rubbish in the middle of a file: it hurts its own tenant alone."""
    instance = _spoil(scene)
    for folder in _resting(scene):
        if folder.name == instance:
            with contextlib.suppress(OSError), (folder / "main.db").open("r+b") as file:
                file.seek(scene.chance.randrange(0, 4096))
                file.write(scene.chance.randbytes(scene.chance.randrange(1, 4096)))


def cut_a_database_off(scene: Scene) -> None:
    instance = _spoil(scene)
    for folder in _resting(scene):
        if folder.name == instance:
            with contextlib.suppress(OSError):
                os.truncate(folder / "main.db", scene.chance.randrange(0, 4096))


def lose_a_record(scene: Scene) -> None:
    """A record that is gone, or says nothing: the database is gone with it."""
    instance = _spoil(scene)
    if instance is None:
        return
    record = scene.service.data_dir / "cells" / "expiry" / instance[-2:] / instance
    with contextlib.suppress(OSError):
        record.unlink()
        if scene.chance.random() < 0.5:
            record.symlink_to("rubbish")


def leave_strays(scene: Scene) -> None:
    """Files, folders and links where none of ours are: whatever they point at stays as it is.

    Those that a reaper can meet belong to the cells' user, as all there does.
    """
    cells = scene.service.data_dir / "cells"
    owner = _owner(cells)
    second = cells / "due" / str(int(time.time()) - 5)
    name = scene.chance.randbytes(16).hex()
    folder = cells / "instances" / name[-2:]
    rubbish = [second / "rubbish", cells / "due" / "rubbish"]
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        (folder / name).symlink_to(scene.canary)
        second.mkdir()
        (second / name).touch()
        for stray in rubbish:
            stray.touch()
    for made in (folder, second, second / name):
        with contextlib.suppress(OSError):
            os.chown(made, *owner)
    wait_until(lambda: not (second / name).exists(), 15, "the reaper has taken the stray's turn")
    for stray in rubbish:
        stray.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        second.rmdir()


def _owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


FAULTS: dict[str, Callable[[Scene], None]] = {
    "cell killed": _kill("cell "),
    "blank cell killed": _kill("blank cell"),
    "all cells killed": kill_many_cells,
    "cell stopped": _stop("cell "),
    "cell stopped for long": stop_a_cell_for_long,
    "zygote killed": _kill("zygote"),
    "zygote stopped": _stop("zygote"),
    "reaper killed": _kill("reaper"),
    "reaper stopped": _stop("reaper"),
    "front desk killed": _kill("front desk", breaks=True),
    "front desk stopped": _stop("front desk"),
    "front desks replaced": replace_front_desks,
    "keys read again": read_keys_again,
    "everything killed": kill_everything,
    "restart in order": stop_in_order,
    "disk full": fill_the_disk,
    "no inodes": use_up_the_inodes,
    "disk read-only": close_the_disk_to_writing,
    "few descriptors in the front desk": _few(resource.RLIMIT_NOFILE, 2, "front desk"),
    "few descriptors in the zygote": _few(resource.RLIMIT_NOFILE, 3, "zygote"),
    "no descriptor in the reaper": _few(resource.RLIMIT_NOFILE, 0, "reaper"),
    "no process to be had": _few(resource.RLIMIT_NPROC, 1, "zygote"),
    "clock set forwards": _set_the_clock(3600),
    "clock set back": _set_the_clock(-3600),
    "little memory": leave_little_memory,
    "answers unread": hold_answers_unread,
    "database scribbled in": scribble_in_a_database,
    "database cut off": cut_a_database_off,
    "record lost": lose_a_record,
    "strays": leave_strays,
}
#: Those that need a small file system of their own.
NEEDS_DISK = frozenset({"disk full", "no inodes", "disk read-only"})
#: The one that needs control groups.
NEEDS_GROUPS = frozenset({"little memory"})
#: How often, beside 4 for all others: what takes long is rarer.
WEIGHTS = {
    "cell stopped for long": 1,
    "everything killed": 1,
    "restart in order": 1,
    "front desks replaced": 1,
    "little memory": 2,
}
