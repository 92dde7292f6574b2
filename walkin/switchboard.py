"""The operator: which line serves which database. Opens lines, drops dead ones, tells the zygote.

Runs in: front desk.
"""

import asyncio
import logging

from sandbox.client import AsyncClient, Opened
from sandbox.errors import (
    CellTimeout,
    FrameError,
    InstanceMissing,
    NodeBusy,
    SandboxError,
    ZygoteGone,
)
from walkin.line import Line, LineEnded, seconds_until
from walkin.settings import Settings
from walkin.tokens import new_instance_id
from walkin.turn import ROWS, Answer, Wanted

log = logging.getLogger("walkin.switchboard")

#: So many cells may end under a call that they have not begun, and so many in order: they were told
#: to go, or the call was never sent to them. More is what a cell would do that is taken over.
_OPEN_TRIES = 3
_TRIES_IN_ORDER = 12
_KILL_WAIT_S = 0.1


class Switchboard:
    """The lines of one front desk process."""

    def __init__(self, zygote: AsyncClient, settings: Settings) -> None:
        self._zygote = zygote
        self._ttl_s = settings.ttl_s
        self._timeout_ms = settings.query_timeout_ms
        #: With several front desks a cell has several lines, and says when it begins a call.
        self._announce = settings.workers > 1
        self._lines: dict[bytes, Line] = {}
        self._opening: dict[bytes, asyncio.Task[Line]] = {}
        self._used: set[bytes] = set()

    @property
    def line_count(self) -> int:
        """Open lines to cells."""
        return len(self._lines)

    @property
    def queued(self) -> int:
        """Calls that wait for an earlier one on their database."""
        return sum(line.queued for line in list(self._lines.values()))

    async def create(self, ttl_s: int | None = None) -> tuple[bytes, int]:
        """Make a database; return its id and its expiry (Unix seconds). Raises SandboxError.

        `ttl_s` is its lifetime, if it is not to be the usual one.
        """
        instance = new_instance_id()
        opened = await self._zygote.ask_create(instance, ttl_s or self._ttl_s)
        await self._attach(instance, opened)
        return instance, opened.expires

    async def fork(self, source: bytes, ttl_s: int | None = None) -> tuple[bytes, int, float]:
        """Copy a database; return the copy's id, its expiry (Unix seconds) and its seconds left.

        Raises InstanceMissing, NodeBusy, ZygoteGone. The copy has no cell until it is called.
        """
        instance = new_instance_id()
        expires, ends = await self._zygote.ask_fork(source, instance, ttl_s or self._ttl_s)
        return instance, expires, seconds_until(ends)

    async def call(
        self, instance: bytes, body: bytes, request_id: bytes, wanted: Wanted = ROWS
    ) -> Answer:
        """Run one call on a database. Raises InstanceMissing, NodeBusy, CellTimeout, CellLost..."""
        tries_left = {False: _OPEN_TRIES, True: _TRIES_IN_ORDER}
        while all(tries_left.values()):
            line = await self._line(instance)
            if wanted.until and line.now >= wanted.until:
                raise InstanceMissing
            self._used.add(instance)
            try:
                return await line.call(
                    body, request_id, self._timeout_ms, wanted, announce=self._announce
                )
            except LineEnded as ended:
                tries_left[ended.in_order] -= 1
            except CellTimeout as late:
                if not late.cell_gone:
                    await self._kill(instance, line.cell)
                raise
            except FrameError:
                # It has shown what it is: the next call gets another cell.
                await self._kill(instance, line.cell)
                raise
            except SandboxError:
                # The reaper may have come in the middle of the call.
                if line.is_over:
                    raise InstanceMissing from None
                raise
        raise NodeBusy("the database's cell keeps going away")

    async def life(self, instance: bytes) -> tuple[int, float]:
        """Return when a database is over (Unix seconds) and how many seconds it has yet.

        Raises InstanceMissing, NodeBusy, ZygoteGone.
        """
        line = await self._line(instance)
        return line.expires, line.left_s

    async def change_end(self, instance: bytes, *, by: int = 0, to: int = 0) -> None:
        """Have a database end so many seconds later, or at a Unix second.

        Raises InstanceMissing, TooLong, NodeBusy, ZygoteGone.
        """
        ask = self._zygote.ask_extend if by else self._zygote.ask_end_at
        end = await ask(instance, by or to)
        line = self._lines.get(instance)
        if line is not None:
            line.change_end(*end)

    async def end(self, instance: bytes) -> None:
        """End a database now. Raises as `change_end` does."""
        await self._zygote.ask_end_at(instance, 0)
        line = self._lines.get(instance)
        if line is not None:
            line.close()

    def has_line(self, instance: bytes) -> bool:
        """Say whether there is a line to a database, or one is on its way."""
        return instance in self._lines or instance in self._opening

    def tell_used(self) -> None:
        """Tell the zygote which databases were called since last time."""
        used, self._used = self._used, set()
        self._zygote.tell_used(used)

    def close(self) -> None:
        """Hang up everywhere."""
        for line in list(self._lines.values()):
            line.close()
        self._zygote.close()

    async def _line(self, instance: bytes) -> Line:
        line = self._lines.get(instance)
        if line is not None:
            if not line.is_over:
                return line
            # Another front desk may have given it a later end.
            line.close()
        task = self._opening.get(instance)
        if task is None:
            task = asyncio.create_task(self._open(instance))
            self._opening[instance] = task
            task.add_done_callback(lambda _: self._opening.pop(instance, None))
        return await asyncio.shield(task)

    async def _open(self, instance: bytes) -> Line:
        return await self._attach(instance, await self._zygote.ask_open(instance))

    async def _attach(self, instance: bytes, opened: Opened) -> Line:
        def drop(ended: Line) -> None:
            if self._lines.get(instance) is ended:
                del self._lines[instance]

        opened.line.setblocking(False)
        _, line = await asyncio.get_running_loop().create_unix_connection(
            lambda: Line(opened.expires, opened.ends, drop, opened.cell), sock=opened.line
        )
        if not line.ended:  # it may have been, in the same turn of the loop
            self._lines[instance] = line
        return line

    async def _kill(self, instance: bytes, cell: int) -> None:
        try:
            async with asyncio.timeout(_KILL_WAIT_S):
                await self._zygote.ask_kill(instance, cell)
        except (TimeoutError, ZygoteGone) as cause:
            log.warning("cell of %s: kill not confirmed yet: %r", instance.hex(), cause)
