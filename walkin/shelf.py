"""Kept states of databases, asked of the zygote: in turn with the calls, one thing at a time.

Runs in: front desk. For each the zygote has the database's cell end. So a question waits for the
calls that came before it, and there is one such question at a time for a database.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from sandbox.client import AsyncClient
from sandbox.errors import CellLost, CellTimeout, FrameError, NodeBusy, NotFolded
from walkin.line import QUEUE_S
from walkin.settings import Settings
from walkin.switchboard import Switchboard
from walkin.turn import Answer

#: So many wait for their turn with the states of one database.
_MOST_WAITING = 8
#: A cell that was killed has left things out of the file. The next one takes them in.
_KEEP_TRIES = 2
_OK = 200
#: No statement at all: answered when all calls before it are.
_NOTHING = b'{"sql": ""}'


class Shelf:
    """What one front desk asks. Raises InstanceMissing, NodeBusy, ZygoteGone, as they come."""

    def __init__(self, switchboard: Switchboard, zygote: AsyncClient, settings: Settings) -> None:
        self._switchboard = switchboard
        self._zygote = zygote
        self._call_ms = settings.query_timeout_ms
        self._askers: Counter[bytes] = Counter()
        self._locks: dict[bytes, asyncio.Lock] = {}

    async def states(self, instance: bytes) -> list[dict[str, Any]]:
        """Return what is kept of a database, the earliest first."""
        return await self._zygote.ask_states(instance)

    async def keep(self, instance: bytes, name: str, request_id: bytes) -> dict[str, Any] | Answer:
        """Keep a state and return it, or the cell's answer where the database is none any more.

        Raises NoRoom.
        """
        async with self._turn(instance):
            for _ in range(_KEEP_TRIES):
                answer = await self._wait_for_calls(instance, request_id)
                if answer is not None and answer.status != _OK:
                    return answer
                with suppress(NotFolded):
                    return await self._zygote.ask_keep(instance, name, self._call_ms)
        raise NodeBusy("its cells leave things out of its file")

    async def go_back(self, instance: bytes, name: str, request_id: bytes) -> dict[str, Any]:
        """Have a database be what it was, and return the state. Raises NoSuchState."""
        async with self._turn(instance):
            if self._switchboard.has_line(instance):
                await self._wait_for_calls(instance, request_id)
            return await self._zygote.ask_go_back(instance, name, self._call_ms)

    async def drop(self, instance: bytes, name: str, request_id: bytes) -> None:
        """Keep a state no longer. Raises NoSuchState."""
        async with self._turn(instance):
            if self._switchboard.has_line(instance):
                await self._wait_for_calls(instance, request_id)
            await self._zygote.ask_drop(instance, name, self._call_ms)

    @asynccontextmanager
    async def _turn(self, instance: bytes) -> AsyncIterator[None]:
        if self._askers[instance] > _MOST_WAITING:
            raise NodeBusy("too many wait for the states of this database")
        self._askers[instance] += 1
        lock = self._locks.setdefault(instance, asyncio.Lock())
        try:
            try:
                async with asyncio.timeout(QUEUE_S):
                    await lock.acquire()
            except TimeoutError:
                raise NodeBusy("others take too long with the states of this database") from None
            try:
                yield
            finally:
                lock.release()
        finally:
            self._askers[instance] -= 1
            if not self._askers[instance]:
                del self._askers[instance], self._locks[instance]

    async def _wait_for_calls(self, instance: bytes, request_id: bytes) -> Answer | None:
        """Return when the calls that came before are answered, whatever of them has become.

        The answer is that of a call that does nothing, None if its cell has ended under it.
        """
        try:
            return await self._switchboard.call(instance, _NOTHING, request_id)
        except (CellLost, CellTimeout, FrameError):
            return None
