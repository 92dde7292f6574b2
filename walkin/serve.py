"""`walkin serve`: starts zygote, reaper and front desks, keeps them running, stops them in order.

Runs in: the supervisor. It binds both sockets, so that neither is lost with a child that dies,
and touches no request. Zygote and reaper get an environment with nothing in it but what they
need: the token keys are not theirs.
"""

import asyncio
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from setproctitle import setproctitle

from sandbox import control
from sandbox.client import AsyncClient
from sandbox.errors import ZygoteGone
from sandbox.notify import Notifier
from sandbox.place import Place
from sandbox.settings import ROWS as SANDBOX_ROWS
from walkin import keys
from walkin.program import Ear, Program
from walkin.settings import ROWS, Settings

log = logging.getLogger("walkin.serve")

#: What a program needs of the starter's environment besides its own settings.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONWARNINGS")
_START_S = 20.0
_STOP_S = 6.0


class StartError(Exception):
    """Raised when the service cannot be started, with the reason."""


class Sockets(NamedTuple):
    """What is bound once, so that no child that dies takes it along."""

    #: The callers', and the metrics' of each front desk, if they are wanted.
    listener: socket.socket
    metrics: list[socket.socket]
    control: socket.socket


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
        sockets = _bind_all(settings, place)
    except (OSError, keys.KeysError) as cause:
        raise StartError(str(cause)) from cause
    ear = Ear()
    zygote, reaper, *fronts = programs = _programs(settings, environ, sockets, ear)
    notifier = Notifier(environ)
    tasks = [asyncio.create_task(program.keep()) for program in programs]
    helpers = [
        asyncio.create_task(_say_alive(notifier)),
        asyncio.create_task(_obey(fronts, settings.drain_s)),
    ]
    try:
        fatal = asyncio.create_task(_first_fatal(programs))
        ready = asyncio.create_task(_until_ready(place, sockets.listener))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({fatal, ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            print(_greeting(settings, sockets.listener, ready.result()), flush=True)
            notifier.ready()
            await asyncio.wait({fatal, stopped}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        stopped.cancel()
        # The program that cannot go on has said why.
        return fatal.result() if fatal.done() else 0
    finally:
        notifier.stopping()
        for helper in helpers:
            helper.cancel()
        # No new connections; then the calls in flight; then what they need.
        for sock in (sockets.listener, *sockets.metrics):
            sock.close()
        await asyncio.gather(*(front.stop(settings.drain_s + 1) for front in fronts))
        await asyncio.gather(reaper.stop(_STOP_S), zygote.stop(_STOP_S))
        await asyncio.gather(*tasks, *helpers, return_exceptions=True)
        ear.close()
        sockets.control.close()
        os.close(claim)


def _bind_all(settings: Settings, place: Place) -> Sockets:
    ports = range(settings.metrics_port, settings.metrics_port + settings.workers)
    return Sockets(
        _bind(settings.host, settings.port),
        [_bind(settings.metrics_host, port) for port in ports if settings.metrics_port],
        control.listen(place.run),
    )


def _programs(
    settings: Settings, environ: Mapping[str, str], sockets: Sockets, ear: Ear
) -> list[Program]:
    """Return zygote, reaper and front desks, in this order."""
    base = {name: environ[name] for name in _PASSED_ON if name in environ}
    inner = base | _settings_of(SANDBOX_ROWS, environ)
    outer = dict(environ) | _settings_of(ROWS, environ)
    programs = [
        Program("zygote", "sandbox", inner, {"--listen-fd": sockets.control.fileno()}, ear),
        Program("reaper", "reaper", inner, {}, ear),
    ]
    for number in range(settings.workers):
        fds = {"--listen-fd": sockets.listener.fileno()}
        if sockets.metrics:
            fds["--metrics-fd"] = sockets.metrics[number].fileno()
        programs.append(Program(f"front desk {number + 1}", "walkin", outer, fds, ear))
    return programs


async def _say_alive(notifier: Notifier) -> None:
    while True:
        notifier.alive()
        await asyncio.sleep(1)


async def _obey(fronts: list[Program], drain_s: int) -> None:
    """Do what signals ask for: SIGHUP new keys, SIGUSR2 new front desks, one after the other."""
    asked: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for wish in (signal.SIGHUP, signal.SIGUSR2):
        asyncio.get_running_loop().add_signal_handler(wish, asked.put_nowait, wish)
    while True:
        number = await asked.get()
        for front in fronts:
            if number is signal.SIGHUP:
                front.send(number)
            else:
                await front.replace(drain_s + 1)


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


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as cause:
        raise StartError(f"cannot listen on {host} port {port}: {cause.strerror}") from cause
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
