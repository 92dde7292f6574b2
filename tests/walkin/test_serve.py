"""The supervisor: keeps its children running, stops them, and shares its folder with nobody."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandbox import control
from tests.handles import ROOT, Service
from tests.walkin.fakes import until
from walkin import serve
from walkin.serve import Program

#: A child that writes its number down and waits.
CHILD = """
import os, pathlib, signal, sys
pathlib.Path(__file__).with_name("pids").open("a").write(f"{os.getpid()}\\n")
"""
WAITS = CHILD + "signal.pause()\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS


class Kept:
    """A program of the test's that is being kept running."""

    def __init__(self, folder: Path, source: str) -> None:
        (folder / "child.py").write_text(source)
        (folder / "pids").touch()
        self._pids = folder / "pids"
        self.program = Program("child", ["child"], {"PYTHONPATH": str(folder)}, None)
        self.keeping = asyncio.create_task(self.program.keep())

    def pids(self) -> list[int]:
        """Every child that was started so far."""
        return [int(line) for line in self._pids.read_text().splitlines()]

    def running(self) -> list[int]:
        """Those that have not ended."""
        return [pid for pid in self.pids() if Path(f"/proc/{pid}").exists()]

    async def started(self, count: int = 1) -> int:
        """Wait for the given start and return the child's number."""
        await until(lambda: len(self.pids()) >= count, 10)
        return self.pids()[count - 1]


@contextlib.asynccontextmanager
async def kept(folder: Path, source: str) -> AsyncIterator[Kept]:
    child = Kept(folder, source)
    try:
        yield child
    finally:
        await child.program.stop(1)
        child.keeping.cancel()
        await asyncio.gather(child.keeping, return_exceptions=True)
        for pid in child.running():
            os.kill(pid, signal.SIGKILL)


def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept(tmp_path, WAITS) as child:
            os.kill(await child.started(), signal.SIGKILL)
            await child.started(2)
            assert not child.program.fatal.done()

    asyncio.run(main())


@pytest.mark.parametrize("status", [0, 1, 4])
def test_a_child_that_ends_is_started_again(tmp_path: Path, status: int) -> None:
    async def main() -> None:
        async with kept(tmp_path, CHILD + f"sys.exit({status})\n") as child:
            await child.started(3)
            assert not child.program.fatal.done()

    asyncio.run(main())


@pytest.mark.parametrize("status", [2, 3])
def test_a_child_that_would_only_fail_again_is_not(tmp_path: Path, status: int) -> None:
    async def main() -> None:
        async with kept(tmp_path, CHILD + f"sys.exit({status})\n") as child:
            async with asyncio.timeout(10):
                assert await child.program.fatal == status
                await child.keeping
            assert len(child.pids()) == 1

    asyncio.run(main())


def test_a_child_that_cannot_be_started_for_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = asyncio.create_subprocess_exec
    tried: list[object] = []

    async def sometimes(*command: str, **options: object) -> object:
        tried.append(command)
        if len(tried) == 2:
            raise BlockingIOError("no more processes")
        return await real(*command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sometimes)

    async def main() -> None:
        async with kept(tmp_path, WAITS) as child:
            os.kill(await child.started(), signal.SIGKILL)
            await child.started(2)

    asyncio.run(main())


def test_stopping_ends_the_child_and_it_is_not_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept(tmp_path, WAITS) as child:
            await child.started()
            await child.program.stop(5)
            async with asyncio.timeout(5):
                await child.keeping
            assert child.running() == []
            assert len(child.pids()) == 1

    asyncio.run(main())


def test_a_child_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept(tmp_path, DEAF) as child:
            await child.started()
            await child.program.stop(0.2)
            assert child.running() == []

    asyncio.run(main())


def test_a_child_that_is_just_being_started_is_stopped_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept(tmp_path, WAITS) as child:
            await asyncio.sleep(0)
            await child.program.stop(1)
            async with asyncio.timeout(5):
                await child.keeping
            assert child.running() == []

    asyncio.run(main())


def test_children_do_not_get_the_terminals_signals(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept(tmp_path, WAITS) as child:
            assert os.getsid(await child.started()) != os.getsid(0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("bound", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::", "::1"), ("::1", "::1")],
)
def test_a_listener_on_every_address_is_reached_by_loopback(bound: str, reached: str) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family) as listener:
        try:
            listener.bind((bound, 0))
        except OSError:
            pytest.skip(f"this machine has no {bound}")
        assert serve._reachable(listener) == (reached, listener.getsockname()[1])


# --- two in one folder ---


def second(service: Service, port: str) -> tuple[int | None, str]:
    """Another `walkin serve` on the same data folder: its status, None if it started, its words."""
    command = [sys.executable, "-u", "-m", "walkin.cli", "serve", "--port", port]
    with subprocess.Popen(
        command, env=service.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        said = process.stdout.readline().decode()
        if "listens" not in said:
            return process.wait(10), said
        process.terminate()
        return None, said


def is_reached(service: Service) -> bool:
    """Whether the control socket in the folder is the one that the service listens on."""
    with control.connect(service.data_dir / "run") as sock:
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert service.process
    return bool(struct.unpack("iII", peer)[0] == service.process.pid)


def test_a_second_service_that_cannot_start_does_not_hurt_the_first(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    assert is_reached(service)
    status, said = second(service, service.url.rpartition(":")[2])
    assert status == 1
    assert "walkin cannot start" in said
    assert is_reached(service)


def test_a_second_service_in_the_same_folder_is_refused(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    assert is_reached(service)
    status, said = second(service, "0")
    assert status == 1, said
    assert "walkin cannot start" in said
    assert is_reached(service)
