"""The other side of the wall, played by the test: a cell's end of a line, and a zygote."""

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sandbox import control, frames
from sandbox.control import Op, Outcome, Request
from sandbox.errors import ZygoteGone
from sandbox.frames import Asked, Decoder

#: A runner of one coroutine: asyncio.run or uvloop.run.
Run = Callable[[Any], Any]


class Clock:
    """Time that passes when the test says so."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        """Be time.time()."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeCell:
    """A cell that says whatever the test tells it to, and STARTED by itself if it `announces`."""

    def __init__(self, sock: socket.socket, *, announces: bool = False) -> None:
        self.sock = sock
        self._announces = announces
        sock.setblocking(False)
        self._decoder = Decoder(frames.TO_CELL)
        self._calls: list[bytes] = []

    async def take(self) -> Asked:
        """Wait for the next call, begin it and return it."""
        while not self._calls:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
            assert data, "the front desk hung up"
            self._calls += [payload for _, payload in self._decoder.feed(data)]
        payload = self._calls.pop(0)
        asked = frames.decode_call(payload)
        if self._announces and asked.announce:
            await self.say(frames.encode(frames.Kind.STARTED))
        return asked

    def has_call(self) -> bool:
        """Whether another call has come already."""
        try:
            return bool(self._calls) or bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    async def say(self, data: bytes) -> None:
        """Send bytes, as fast as they are taken."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def answer(self, status: int = 200, body: bytes = b"{}") -> Asked:
        """Take one call and answer it as an honest cell does."""
        call = await self.take()
        await self.say(frames.encode_answer(status, body))
        return call

    def is_connected(self) -> bool:
        """Whether the front desk has not hung up."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False

    async def sees_hang_up(self) -> bool:
        """Wait until the front desk has hung up."""
        try:
            async with asyncio.timeout(5):
                while await asyncio.get_running_loop().sock_recv(self.sock, 65_536):
                    pass
        except ConnectionResetError:
            return True
        return True

    def close(self) -> None:
        """End, without a word."""
        self.sock.close()


def boottime() -> float:
    """Return what lifetimes are measured by, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Told(NamedTuple):
    """How the zygote answers one question; `line` goes along as a descriptor."""

    outcome: Outcome
    expires: int = 0
    line: socket.socket | None = None
    text: bytes = b""


class FakeZygote:
    """Answers the control socket of `run_dir` by one function of the test's."""

    def __init__(self, run_dir: Path, tell: "Tell") -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.asked: list[Request] = []
        self.touched: list[bytes] = []
        self.cells: list[FakeCell] = []
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        listener = control.listen(run_dir)
        listener.setblocking(False)
        #: The listener and the connections that came in by it.
        self._socks = [listener]
        self._loop.add_reader(listener.fileno(), self._accept, listener)

    def change(self, tell: "Tell") -> None:
        """Have it answer otherwise from now on."""
        self._tell = tell

    def ops(self) -> list[Op]:
        """What was asked so far."""
        return [request.op for request in self.asked]

    def line(self, expires: int, first_words: bytes = b"") -> Told:
        """An answer that brings a line to a new cell, which may have spoken already."""
        mine, theirs = socket.socketpair()
        if first_words:
            mine.send(first_words)
        self.cells.append(FakeCell(mine, announces=True))
        return Told(Outcome.DONE, expires, theirs)

    def _accept(self, listener: socket.socket) -> None:
        asker, _ = listener.accept()
        self._socks.append(asker)
        self._loop.add_reader(asker.fileno(), self._read, asker)

    def _read(self, asker: socket.socket) -> None:
        packet = asker.recv(control.MAX_PACKET)
        if not packet:
            self._loop.remove_reader(asker.fileno())
            self._socks.remove(asker)
            asker.close()
            return
        ids = control.decode_touch(packet)
        if ids is not None:
            self.touched += ids
            return
        request = control.decode_request(packet)
        self.asked.append(request)
        told = self._tell(self, request)
        if told is None:
            return
        ends = max(0, int((told.expires - time.time() + boottime()) * 1e9))
        reply = control.encode_reply(
            told.outcome, request.number, told.expires, told.text, ends=ends
        )
        fds = [told.line.fileno()] if told.line else []
        socket.send_fds(asker, [reply], fds)
        if told.line:
            told.line.close()

    def close(self) -> None:
        """Leave, with all cells."""
        for sock in self._socks:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._socks.clear()
        for cell in self.cells:
            cell.close()


async def until(state: Callable[[], Any], within_s: float = 5.0) -> None:
    """Let the loop run until `state()` is true."""
    async with asyncio.timeout(within_s):
        while not state():
            await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let the loop go round a few times: what is ready to happen has happened then."""
    for _ in range(count):
        await asyncio.sleep(0)


Tell = Callable[[FakeZygote, Request], Told | None]


def lines_for(*first_words: bytes) -> Tell:
    """A zygote that gives a line to everyone; the first cells may have spoken already."""

    def tell(zygote: FakeZygote, request: Request) -> Told:
        if request.op in (Op.CREATE, Op.OPEN):
            number = len(zygote.cells)
            words = first_words[number] if number < len(first_words) else b""
            expires = math.ceil(time.time() + (request.amount or 600))
            return zygote.line(expires, words)
        return Told(Outcome.DONE)

    return tell


def always(outcome: Outcome) -> Tell:
    """A zygote with one answer to everything."""
    return lambda _, __: Told(outcome)


@asynccontextmanager
async def zygote_at(run_dir: Path, tell: Tell) -> AsyncIterator[FakeZygote]:
    """A fake zygote for the length of a block."""
    zygote = FakeZygote(run_dir, tell)
    try:
        yield zygote
    finally:
        zygote.close()
        await turns()


class FakeStatus:
    """What the zygote says of its node; None: it does not answer."""

    def __init__(self, node: dict[str, Any] | None) -> None:
        self._node = node

    async def node(self) -> dict[str, Any]:
        if self._node is None:
            raise ZygoteGone("no answer to STATUS")
        return self._node
