"""`walkin serve`: starts zygote, reaper and front desks, keeps them running, stops them in order.

Runs in: the supervisor. It binds both sockets, so that neither is lost with a child that dies,
and touches no request. Zygote and reaper get an environment with nothing in it but what they
need: the token keys are not theirs.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from setproctitle import setproctitle

from sandbox import control
from sandbox.client import AsyncClient
from sandbox.errors import ZygoteGone
from sandbox.place import Place
from sandbox.settings import ROWS as SANDBOX_ROWS
from walkin import keys
from walkin.settings import ROWS, Settings

log = logging.getLogger("walkin.serve")

#: What a program needs of the starter's environment besides its own settings.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONWARNINGS")
#: A child that ends with one of these would only do so again (wrong settings, missing wall).
_FATAL = (2, 3)
_START_S = 20.0
_STOP_S = 6.0
_LONG_LIFE_S = 5.0
_MOST_REST_S = 1.0


class StartError(Exception):
    """Raised when the service cannot be started, with the reason."""


class Program:
    """One child: started, restarted when it dies, stopped."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], fd: int | None) -> None:
        self.name = name
        self._command = command
        self._env = env
        self._fd = fd
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
                status = await self._end_of(self._process)
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

    async def _end_of(self, process: asyncio.subprocess.Process) -> int:
        if self._stop.is_set():  # told to while it was being started
            process.kill()
        return await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-P", "-m", *self._command]
        if self._fd is not None:
            command += ["--listen-fd", str(self._fd)]
        return await asyncio.create_subprocess_exec(
            *command,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=() if self._fd is None else (self._fd,),
            # Ctrl-C reaches the supervisor alone; it stops the others in order.
            start_new_session=True,
        )

    async def stop(self, within_s: float) -> None:
        """Send SIGTERM, wait, then SIGKILL."""
        self._stop.set()
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), within_s)
            except TimeoutError:
                log.error("%s did not stop in %.0f s; killed", self.name, within_s)
                self._process.kill()
                await self._process.wait()


async def serve(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run the service until SIGTERM or SIGINT; return the exit status. Raises StartError."""
    setproctitle("walkin: serve")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    place = Place(settings.data_dir)
    try:
        keys.ensure(settings)
        keys.load(settings)
        place.prepare(settings.cell_user.uid, settings.cell_user.gid)
        claim = _claim(place)
        listener = _bind(settings)
        control_listener = control.listen(place.run)
    except (OSError, keys.KeysError) as cause:
        raise StartError(str(cause)) from cause
    base = {name: environ[name] for name in _PASSED_ON if name in environ}
    inner = base | _settings_of(SANDBOX_ROWS, environ)
    outer = dict(environ) | _settings_of(ROWS, environ)
    zygote = Program("zygote", ["sandbox"], inner, control_listener.fileno())
    reaper = Program("reaper", ["reaper"], inner, None)
    fronts = [
        Program(f"front desk {number}", ["walkin"], outer, listener.fileno())
        for number in range(1, settings.workers + 1)
    ]
    programs = [zygote, reaper, *fronts]
    keeping = [asyncio.create_task(program.keep()) for program in programs]
    try:
        fatal = asyncio.create_task(_first_fatal(programs))
        ready = asyncio.create_task(_until_ready(place, listener))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({fatal, ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            print(_greeting(settings, listener, ready.result()), flush=True)
            await asyncio.wait({fatal, stopped}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        stopped.cancel()
        # The program that cannot go on has said why.
        return fatal.result() if fatal.done() else 0
    finally:
        # No new connections; then the calls in flight; then what they need.
        listener.close()
        await asyncio.gather(*(front.stop(settings.drain_s + 1) for front in fronts))
        await asyncio.gather(reaper.stop(_STOP_S), zygote.stop(_STOP_S))
        await asyncio.gather(*keeping, return_exceptions=True)
        control_listener.close()
        os.close(claim)


def _settings_of(rows: tuple[Any, ...], environ: Mapping[str, str]) -> dict[str, str]:
    return {row.variable: environ[row.variable] for row in rows if row.variable in environ}


def _claim(place: Place) -> int:
    """Hold the data folder for this service alone until the descriptor is closed (flock(2))."""
    fd = os.open(place.run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StartError(f"another walkin serves from {place.data_dir}") from None
    return fd


def _bind(settings: Settings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as cause:
        where = f"{settings.host} port {settings.port}"
        raise StartError(f"cannot listen on {where}: {cause.strerror}") from cause
    return listener


async def _first_fatal(programs: list[Program]) -> int:
    """Return the exit status of the first program that no restart mends."""
    done, _ = await asyncio.wait(
        {program.fatal for program in programs}, return_when=asyncio.FIRST_COMPLETED
    )
    return done.pop().result()


async def _until_ready(place: Place, listener: socket.socket) -> dict[str, Any]:
    """Return the zygote's status once it and a front desk answer. Raises StartError."""
    client = AsyncClient(place.run, _START_S)
    try:
        status = await client.ask_status()
        async with asyncio.timeout(_START_S):
            await _health(listener)
    except (ZygoteGone, OSError, TimeoutError) as cause:
        raise StartError(f"not ready after {_START_S:.0f} s: {cause!r}") from cause
    finally:
        client.close()
    return status


async def _health(listener: socket.socket) -> None:
    host, port = _reachable(listener)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        if b" 200 " not in await reader.readline():
            raise OSError("the front desk is not healthy")
    finally:
        writer.close()


def _reachable(listener: socket.socket) -> tuple[str, int]:
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def _greeting(settings: Settings, listener: socket.socket, status: dict[str, Any]) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    walls = status["walls"]
    return (
        f"walkin listens on http://{shown}:{port}, data in {settings.data_dir}, "
        f"walls up: Landlock ABI {walls['landlock_abi']}, seccomp, "
        f"{len(walls['rlimits'])} rlimits, cells as user {walls['user']}"
    )


def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run the service from plain code."""
    os.umask(0o022)
    return asyncio.run(serve(settings, environ))
