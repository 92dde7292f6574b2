"""Asking the zygote, for many at once: the front desk's side of the control socket.

Runs in: front desk; standard library only. Who has one question at a time asks by blocking.py.
"""

import asyncio
import itertools
import json
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from sandbox import control, descriptors
from sandbox.control import Op, Outcome, Reply
from sandbox.errors import ControlError, NodeBusy, SandboxError, ZygoteGone

#: So many questions wait for the zygote at most: a second's work for it. Whoever comes on top is
#: better told at once than after a time in which nothing could become of his question.
MOST_WAITING = 256
#: And so many for what has a cell end first, which may take as long as a call.
MOST_AT_THE_SHELF = 64
#: From when the zygote begins with nothing any more until its answer is waited for no longer.
_ANSWER_S = 0.25


class Opened(NamedTuple):
    """A line to a database, when that is over, and the number of its cell.

    `expires` is in Unix seconds, `ends` in seconds of CLOCK_BOOTTIME.
    """

    line: socket.socket
    expires: int
    ends: float
    cell: int


class End(NamedTuple):
    """When a database is over: in Unix seconds, and in seconds of CLOCK_BOOTTIME."""

    expires: int
    ends: float


class AsyncClient:
    """One control connection shared by all of a front desk's calls; reconnects by itself."""

    def __init__(self, run_dir: Path, patience_s: float) -> None:
        self._run_dir = run_dir
        self._patience_s = patience_s
        self._sock: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[Reply, int | None]]] = {}
        self._at_the_shelf = 0

    async def ask_create(self, instance: bytes, ttl_s: int) -> Opened:
        """Make a database that lives so many seconds. Raises NodeBusy, ZygoteGone."""
        return await self._ask_line(Op.CREATE, instance, ttl_s)

    async def ask_open(self, instance: bytes) -> Opened:
        """Ask for a line to a database. Raises InstanceMissing, NodeBusy, ZygoteGone."""
        return await self._ask_line(Op.OPEN, instance, 0)

    async def ask_extend(self, instance: bytes, seconds: int) -> End:
        """Have a database live longer. Raises InstanceMissing, TooLong, NodeBusy, ZygoteGone."""
        return await self._ask_end(Op.EXTEND, instance, seconds)

    async def ask_end_at(self, instance: bytes, second: int) -> End:
        """Have a database end at a Unix second, or now (0). Raises as `ask_extend` does.

        When it returns of an end that is now, the database has no cell any more.
        """
        return await self._ask_end(Op.END_AT, instance, second)

    async def ask_fork(self, source: bytes, instance: bytes, ttl_s: int) -> End:
        """Make `instance` a copy of `source` that lives so many seconds.

        Raises InstanceMissing (there is no source), NodeBusy, ZygoteGone.
        """
        return await self._ask_end(Op.FORK, instance, ttl_s, source)

    async def _ask_end(
        self, op: Op, instance: bytes, amount: int, source: bytes = bytes(control.ID_BYTES)
    ) -> End:
        self._require_room()
        reply, _ = await self._ask(op, instance, amount, source=source)
        if reply.outcome is not Outcome.DONE:
            raise _error(op, reply.outcome)
        return End(reply.expires, reply.ends / 1e9)

    async def ask_states(self, instance: bytes) -> list[dict[str, Any]]:
        """Return what is kept of a database, as the shelf has it, the earliest first.

        Raises InstanceMissing, NodeBusy, ZygoteGone.
        """
        states: list[dict[str, Any]] = await self._ask_state(Op.STATES, instance)
        return states

    async def ask_keep(self, instance: bytes, name: str, call_ms: int) -> dict[str, Any]:
        """Keep a state of a database; return it, and whether it has `replaced` another.

        Raises NoRoom, NotFolded, and as `ask_states` does. The database's cell ends, between two
        calls; one that is under way may last so many milliseconds.
        """
        state: dict[str, Any] = await self._ask_state(Op.KEEP, instance, name, call_ms)
        return state

    async def ask_go_back(self, instance: bytes, name: str, call_ms: int) -> dict[str, Any]:
        """Have a database be what it was; return the state.

        Raises NoSuchState; the rest is as for `ask_keep`.
        """
        state: dict[str, Any] = await self._ask_state(Op.GO_BACK, instance, name, call_ms)
        return state

    async def ask_drop(self, instance: bytes, name: str, call_ms: int) -> None:
        """Keep a state no longer. Raises NoSuchState; the rest is as for `ask_keep`."""
        await self._ask_state(Op.DROP, instance, name, call_ms)

    async def _ask_state(self, op: Op, instance: bytes, name: str = "", call_ms: int = 0) -> Any:
        """Return what the zygote tells of states, None if nothing."""
        if self._at_the_shelf >= MOST_AT_THE_SHELF:
            raise NodeBusy("too many questions wait for the shelf")
        self._at_the_shelf += 1
        try:
            reply, _ = await self._ask(op, instance, call_ms, name=name, more_s=call_ms / 1000)
        finally:
            self._at_the_shelf -= 1
        if reply.outcome is not Outcome.DONE:
            raise _error(op, reply.outcome)
        return json.loads(reply.text) if reply.text else None

    def _require_room(self) -> None:
        if len(self._waiting) - self._at_the_shelf >= MOST_WAITING:
            raise NodeBusy("too many questions wait for the zygote")

    async def ask_kill(self, instance: bytes, cell: int = 0) -> None:
        """Return when that cell of the database (0: whichever) has ended. Raises ZygoteGone."""
        await self._ask(Op.KILL, instance, cell=cell)

    async def ask_status(self) -> dict[str, Any]:
        """Return what the zygote says of itself. Raises ZygoteGone."""
        reply, _ = await self._ask(Op.STATUS)
        status: dict[str, Any] = json.loads(reply.text)
        return status

    def tell_used(self, instances: Iterable[bytes]) -> None:
        """Say which databases were called since last time; lost when the zygote is away."""
        ids = list(instances)
        for at in range(0, len(ids), control.TOUCH_MOST):
            if self._sock is None:
                return
            try:
                self._sock.send(control.encode_touch(ids[at : at + control.TOUCH_MOST]))
            except BlockingIOError:
                return
            except OSError:
                self._drop()

    def close(self) -> None:
        """Drop the connection and fail what is still waiting."""
        self._drop()

    async def _ask_line(self, op: Op, instance: bytes, amount: int) -> Opened:
        self._require_room()
        reply, fd = await self._ask(op, instance, amount)
        if reply.outcome is Outcome.DONE and fd is not None:
            return Opened(descriptors.stream(fd), reply.expires, reply.ends / 1e9, reply.cell)
        if fd is not None:
            os.close(fd)
        raise _error(op, reply.outcome)

    async def _ask(
        self,
        op: Op,
        instance: bytes = bytes(control.ID_BYTES),
        amount: int = 0,
        cell: int = 0,
        source: bytes = bytes(control.ID_BYTES),
        name: str = "",
        more_s: float = 0.0,
    ) -> tuple[Reply, int | None]:
        # A zygote that dies takes its unanswered questions with it. All of them may be asked
        # again, CREATE too: if the id exists by now it fails, and what was made expires unused.
        # Who has dropped a state already is told that there is none.
        patience_s = self._patience_s + more_s
        give_up = asyncio.get_running_loop().time() + patience_s + _ANSWER_S
        until = int((time.monotonic() + patience_s) * 1000)
        asked = (op, instance, amount, cell, until, source, name)
        while True:
            try:
                async with asyncio.timeout_at(give_up):
                    return await self._ask_once(*asked)
            except TimeoutError:
                raise ZygoteGone(f"no answer to {op.name}") from None
            except OSError as cause:
                if not isinstance(cause, BlockingIOError):  # the socket is full, and that passes
                    self._drop()
                if asyncio.get_running_loop().time() + 0.05 > give_up:
                    raise ZygoteGone(f"{op.name}: {cause}") from cause
                await asyncio.sleep(0.05)

    async def _ask_once(self, op: Op, *about: Any) -> tuple[Reply, int | None]:
        loop = asyncio.get_running_loop()
        if self._sock is None:
            self._connect(loop)
        assert self._sock is not None  # noqa: S101 - for the type checker
        number = next(self._numbers) & 0xFFFFFFFF
        answer: asyncio.Future[tuple[Reply, int | None]] = loop.create_future()
        self._waiting[number] = answer
        try:
            self._sock.send(control.encode_request(op, number, *about))
            return await answer
        except asyncio.CancelledError:
            # The answer may have come in the same turn of the loop: its line has no owner now.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                fd = answer.result()[1]
                if fd is not None:
                    os.close(fd)
            raise
        finally:
            self._waiting.pop(number, None)

    def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        sock = control.connect(self._run_dir)
        sock.setblocking(False)
        self._sock = sock
        loop.add_reader(sock.fileno(), self._read, sock)

    def _read(self, sock: socket.socket) -> None:
        # All that is there: when hundreds create at once, one reply a turn of a busy loop would
        # leave the last of them waiting for longer than they do.
        while sock is self._sock and self._take(sock):
            pass

    def _take(self, sock: socket.socket) -> bool:
        """Hand one reply to its asker; say whether there may be another."""
        try:
            packet, fd = descriptors.receive(sock, control.MAX_PACKET)
        except BlockingIOError:
            return False
        except OSError:
            packet, fd = b"", None
        try:
            if not packet:
                raise ControlError("the zygote hung up")
            reply = control.decode_reply(packet)
        except ControlError:
            if fd is not None:
                os.close(fd)
            self._drop()
            return False
        answer = self._waiting.pop(reply.number, None)
        if answer is None or answer.done():
            if fd is not None:
                os.close(fd)
        else:
            answer.set_result((reply, fd))
        return True

    def _drop(self) -> None:
        if self._sock is None:
            return
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        self._sock = None
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the zygote hung up"))


def _error(op: Op, outcome: Outcome) -> SandboxError:
    """Return what the zygote's answer means to whoever has asked."""
    if outcome in control.REFUSALS:
        return control.REFUSALS[outcome]()
    return NodeBusy(f"the zygote answered {op.name} with {outcome.name}")
