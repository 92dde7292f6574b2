"""A child is kept: started again when it ends or falls silent, replaced by one that is ready."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.handles import ROOT
from tests.walkin.fakes import until
from walkin import program
from walkin.program import Ear, Program

#: A child that writes its number down and waits.
CHILD = """
import os, pathlib, signal, sys
pathlib.Path(__file__).with_name("pids").open("a").write(f"{os.getpid()}\\n")
"""
WAITS = CHILD + "signal.pause()\n"
#: One that says what systemd's services say.
SPEAKS = (
    CHILD
    + """
import time
from sandbox.notify import Notifier
notifier = Notifier(os.environ)
notifier.ready()
while True:
    notifier.alive()
    time.sleep(0.05)
"""
)
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS


class Kept:
    """A program of the test's that is being kept running."""

    def __init__(self, folder: Path, source: str) -> None:
        (folder / "child.py").write_text(source)
        (folder / "pids").touch()
        self._pids = folder / "pids"
        self.ear = Ear()
        env = {"PYTHONPATH": f"{folder}:{ROOT}"}
        self.program = Program("child", "child", env, {}, self.ear)
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

    async def spoken(self) -> int:
        """Wait for the first child to say that it is ready and return its number."""
        first = await self.started()
        async with asyncio.timeout(10):
            await self.ear.until_ready(first)
        return first


@contextlib.asynccontextmanager
async def kept(folder: Path, source: str) -> AsyncIterator[Kept]:
    child = Kept(folder, source)
    try:
        yield child
    finally:
        await child.program.stop(1)
        child.keeping.cancel()
        await asyncio.gather(child.keeping, return_exceptions=True)
        child.ear.close()
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


# --- signs of life ---


def test_one_that_falls_silent_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "SILENCE_S", 1.5)

    async def main() -> None:
        async with kept(tmp_path, SPEAKS) as child:
            first = await child.spoken()
            os.kill(first, signal.SIGSTOP)
            await child.started(2)
            assert first not in child.running()

    asyncio.run(main())


def test_one_that_speaks_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "SILENCE_S", 1.5)

    async def main() -> None:
        async with kept(tmp_path, SPEAKS) as child:
            await child.started()
            await asyncio.sleep(3.5)  # longer than it may be silent, and looked at in between
            assert len(child.pids()) == 1

    asyncio.run(main())


def test_after_a_pause_of_all_nobody_is_taken_for_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that sleeps, or a frozen group of processes: the clock has gone on, nobody else."""
    monkeypatch.setattr(program, "SILENCE_S", 1.5)

    async def main() -> None:
        async with kept(tmp_path, SPEAKS) as child:
            first = await child.spoken()
            os.kill(first, signal.SIGSTOP)
            time.sleep(3)  # the supervisor stands still as well
            os.kill(first, signal.SIGCONT)
            await asyncio.sleep(2.5)
            assert child.pids() == [first]

    asyncio.run(main())


def test_a_replacement_takes_over_when_it_is_ready(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept(tmp_path, SPEAKS) as child:
            first = await child.started()
            await child.program.replace(5)
            assert child.running() == [await child.started(2)] != [first]
            os.kill(await child.started(2), signal.SIGKILL)
            await child.started(3)

    asyncio.run(main())


def test_one_that_does_not_get_ready_replaces_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_START_S", 1.0)

    async def main() -> None:
        async with kept(tmp_path, WAITS) as child:
            first = await child.started()
            await child.program.replace(5)
            assert child.running() == [first]

    asyncio.run(main())


def test_one_that_ends_at_once_replaces_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept(tmp_path, WAITS) as child:
            first = await child.started()
            (tmp_path / "child.py").write_text("raise SystemExit(2)")
            async with asyncio.timeout(10):
                await child.program.replace(5)
            assert child.running() == [first]
            assert not child.program.fatal.done()

    asyncio.run(main())


def test_one_that_ends_while_its_successor_starts_is_not_there_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with kept(tmp_path, SPEAKS) as child:
            first = await child.started()
            replacing = asyncio.create_task(child.program.replace(5))
            await child.started(2)
            os.kill(first, signal.SIGKILL)
            async with asyncio.timeout(10):
                await replacing
            await until(lambda: len(child.running()) == 1, 10)
            assert child.program._process is not None
            await until(lambda: child.running() == [child.program._process.pid], 10)  # type: ignore[union-attr]

    asyncio.run(main())


def test_what_a_stranger_says_is_not_heard() -> None:
    """Anybody on the machine can send to the address; the kernel tells who it was."""

    async def main() -> None:
        ear = Ear()
        try:
            ear.expect(1)
            read, write = os.pipe()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(ear.address.replace("@", "\0", 1))
                socket.send_fds(sock, [b"READY=1"], [read])
            os.close(read)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await ear.until_ready(1)
            # The descriptor that came along is closed: nobody reads the pipe any more.
            with pytest.raises(BrokenPipeError):
                os.write(write, b"x")
            os.close(write)
        finally:
            ear.close()

    asyncio.run(main())
