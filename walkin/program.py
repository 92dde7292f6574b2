"""One program that the supervisor keeps: started, listened to, started again, replaced, stopped.

Runs in: the supervisor. A child says that it is ready and that its loop goes round in systemd's
way (sandbox/notify.py); one that falls silent without ending, stopped or stuck, is killed and
started again like one that has ended.
"""

import array
import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping

from sandbox.notify import READY

log = logging.getLogger("walkin.serve")

#: A child that ends with one of these would only do so again (wrong settings, missing wall).
_FATAL = (2, 3)
_START_S = 20.0
#: How long a child may say nothing; each says something every second.
SILENCE_S = 20.0
_LOOK_S = 1.0
_LONG_LIFE_S = 5.0
_MOST_REST_S = 1.0
_CREDENTIALS = struct.Struct("3i")


class Ear:
    """A socket that children speak to, and who of them has said what (sd_notify(3))."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._sock.bind("")  # the kernel chooses an abstract address (unix(7), autobind)
        self.address = "@" + self._sock.getsockname()[1:].decode()
        #: Who has said something since it was last asked about him.
        self._spoke: dict[int, bool] = {}
        self._ready: dict[int, asyncio.Event] = {}
        asyncio.get_running_loop().add_reader(self._sock, self._hear)

    def expect(self, pid: int) -> None:
        """Listen to a child; it has just been started."""
        self._spoke[pid] = False
        self._ready[pid] = asyncio.Event()

    def forget(self, pid: int) -> None:
        """Listen to it no more."""
        self._spoke.pop(pid, None)
        self._ready.pop(pid, None)

    def has_spoken(self, pid: int) -> bool:
        """Say whether a child has said anything since this was last asked."""
        spoke, self._spoke[pid] = self._spoke[pid], False
        return spoke

    async def until_ready(self, pid: int) -> None:
        """Return once the child is ready."""
        await self._ready[pid].wait()

    def close(self) -> None:
        """Close the socket."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                word, ancillary, _, _ = self._sock.recvmsg(
                    4096, socket.CMSG_LEN(_CREDENTIALS.size) + socket.CMSG_SPACE(64)
                )
                pid = _sender(ancillary)
                # Anybody on the machine may send something here; the kernel says who did.
                if pid in self._spoke:
                    self._spoke[pid] = True
                    if READY in word.split(b"\n"):
                        self._ready[pid].set()


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    pid = 0
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid, _, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds = array.array("i", data[: len(data) // 4 * 4])
            for fd in fds:
                os.close(fd)
    return pid


class Program:
    """One child. `fds` are descriptors that it gets, by the flag that names them to it."""

    def __init__(
        self,
        name: str,
        module: str,
        env: Mapping[str, str],
        fds: Mapping[str, int],
        ear: Ear,
    ) -> None:
        self.name = name
        self._module = module
        self._fds = fds
        self._ear = ear
        self._env = {**env, "NOTIFY_SOCKET": ear.address}
        self._process: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()
        #: Set to the exit status when the child ended in a way that no restart mends.
        self.fatal: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def keep(self) -> None:
        """Start the child, and again whenever it ends: at once after a long life, else rested."""
        rest_s = 0.0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._process = await self._start()
                status = await self._end()
            except OSError as cause:
                log.error("%s cannot be started: %s", self.name, cause)
                status = None
            if self._stop.is_set():
                return
            if status in _FATAL:
                self.fatal.set_result(status)
                return
            log.error("%s ended with status %s; starting it again", self.name, status)
            lived_long = time.monotonic() - began > _LONG_LIFE_S
            rest_s = 0.0 if lived_long else min(_MOST_REST_S, rest_s * 2 + 0.05)
            await asyncio.sleep(rest_s)

    async def _start(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-P", "-m", self._module]
        for flag, fd in self._fds.items():
            command += [flag, str(fd)]
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=tuple(self._fds.values()),
            # Ctrl-C reaches the supervisor alone; it stops the others in order.
            start_new_session=True,
        )
        self._ear.expect(process.pid)
        return process

    async def _end(self) -> int:
        """Wait for the end of the child, and of any that has taken its place."""
        while True:
            process = self._process
            assert process is not None  # noqa: S101 - started by the caller
            if self._stop.is_set():  # told to while it was being started
                process.kill()
            status = await self._end_of(process)
            if self._process is process:
                return status

    async def _end_of(self, process: asyncio.subprocess.Process) -> int:
        # Counted in turns of our own: when all of us stood still, nobody was silent.
        silent_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    status = await process.wait()
                    self._ear.forget(process.pid)
                    return status
            silent_s = 0.0 if self._ear.has_spoken(process.pid) else silent_s + _LOOK_S
            if silent_s > SILENCE_S:
                log.error("%s has said nothing for %.0f s; killed", self.name, SILENCE_S)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    async def replace(self, within_s: float) -> None:
        """Start another, and stop the first once the other is ready; else keep the first."""
        first = self._process
        if first is None or first.returncode is not None or self._stop.is_set():
            return  # about to be started anew anyway
        try:
            other = await self._start()
        except OSError as cause:
            log.error("%s is not replaced: %s", self.name, cause)
            return
        ready = asyncio.create_task(self._ear.until_ready(other.pid))
        ended = asyncio.create_task(other.wait())
        await asyncio.wait({ready, ended}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        is_ready = ready.done() and other.returncode is None
        # One that has ended meanwhile is started anew by itself.
        if not is_ready or self._process is not first or first.returncode is not None:
            ready.cancel()
            log.error("%s is not replaced: the new one is not ready", self.name)
            await _stop(other, self.name, 0)
            self._ear.forget(other.pid)
            return
        self._process = other
        await _stop(first, self.name, within_s)
        log.info("%s was replaced", self.name)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child, if there is one."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, within_s: float) -> None:
        """Send SIGTERM, wait, then SIGKILL."""
        self._stop.set()
        if self._process is not None:
            await _stop(self._process, self.name, within_s)


async def _stop(process: asyncio.subprocess.Process, name: str, within_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), within_s)
        except TimeoutError:
            if within_s:
                log.error("%s did not stop in %.0f s; killed", name, within_s)
            process.kill()
            await process.wait()
