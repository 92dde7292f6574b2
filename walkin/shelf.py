"""Kept states of databases, asked of the zygote: in turn with the calls, one thing at a time.

Runs in: front desk. To see to one, the zygote has the database's cell end. Asked in turn, that
takes no cell from calls that came before; one at a time, many who ask are no burden to others.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sandbox.client import AsyncClient
from sandbox.errors import CellLost, CellTimeout, FrameError, NodeBusy, NotFolded
from walkin.settings import Settings
from walkin.switchboard import Switchboard

#: So many wait for their turn with the states of one database.
_MOST_WAITING = 8
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

    async def keep(self, instance: bytes, name: str, request_id: bytes) -> dict[str, Any]:
        """Keep a state and return it. Raises NoRoom."""
        async with self._turn(instance):
            # A cell that was killed has left things out of the file. The next one takes them in.
            await self._wait_for_calls(instance, request_id)
            try:
                return await self._zygote.ask_keep(instance, name, self._call_ms)
            except NotFolded:
                await self._wait_for_calls(instance, request_id)
            try:
                return await self._zygote.ask_keep(instance, name, self._call_ms)
            except NotFolded as cause:
                raise NodeBusy("its cell leaves things out of its file") from cause

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
            async with lock:
                yield
        finally:
            self._askers[instance] -= 1
            if not self._askers[instance]:
                del self._askers[instance], self._locks[instance]

    async def _wait_for_calls(self, instance: bytes, request_id: bytes) -> None:
        """Return when the calls that came before are answered, whatever of them has become."""
        try:
            await self._switchboard.call(instance, _NOTHING, request_id)
        except (CellLost, CellTimeout, FrameError):  # it has ended: so much the better
            return
