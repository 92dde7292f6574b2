"""The front desk's end of one database's line: one call at a time, bounded in size and time.

Runs in: front desk. What comes from a cell is hostile: frames are checked by the decoder, the
status against a closed list, the body against one limit, and then passed on unread.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from sandbox import frames
from sandbox.codes import CELL_STATUSES
from sandbox.errors import CellLost, CellTimeout, FrameError, NodeBusy, SandboxError
from sandbox.frames import Decoder, Kind

#: After the call's own time the cell's kernel timer ends it (0.2 s); then comes the kill.
KILL_AFTER_S = 0.35
#: How long a call waits for earlier calls on the same database, and how many may wait.
QUEUE_S = 5.0
QUEUE_MOST = 64
#: What a smaller DATA frame counts as: each costs time, however little is in it.
_CRUMB_BYTES = 1024


class Answer(NamedTuple):
    """What a cell answered: a status of the contract and a JSON body, unread."""

    status: int
    body: bytes


class LineEnded(SandboxError):  # noqa: N818
    """Raised when the cell went away without having begun the call: ask for another line."""


class Line(asyncio.Protocol):
    """A stream to one cell. Made by the loop when the switchboard opens a database."""

    def __init__(self, expires: int, on_end: Callable[["Line"], None], cell: int) -> None:
        self.expires = expires
        self.cell = cell
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder(frames.FROM_CELL)
        self._turn = asyncio.Lock()
        self._queued = 0
        self._answer: asyncio.Future[Answer] | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._begun_at: float | None = None
        #: The cell was asked to say when it begins this call.
        self._announced = False
        #: It has said something of this call that only one who has begun it can say.
        self._told = False
        self._timeout_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self.ended = False
        #: The cell has answered here before: it was alive when the line was opened.
        self.proven = False

    async def call(
        self,
        body: bytes,
        request_id: bytes,
        timeout_ms: int,
        *,
        announce: bool,
        unsure: bool = False,
    ) -> Answer:
        """Run one call and return its answer.

        `announce` is for a cell that other processes use too: the clock starts when the cell says
        that it has begun. `unsure` is for a line whose cell may have been dying when it was
        opened: until the cell says so, the call has not begun. Raises LineEnded, NodeBusy (not
        begun); CellTimeout, CellLost, FrameError (begun, and the line is of no more use).
        """
        if self._queued >= QUEUE_MOST:
            raise NodeBusy("too many calls wait for this database")
        self._queued += 1
        try:
            async with asyncio.timeout(QUEUE_S):
                await self._turn.acquire()
        except TimeoutError:
            raise NodeBusy("earlier calls on this database take too long") from None
        finally:
            self._queued -= 1
        try:
            frame = frames.encode_call(timeout_ms, request_id, body, announce=announce or unsure)
            self._announced = announce or unsure
            self._timeout_s = timeout_ms / 1000
            return await self._exchange(frame, announce=announce)
        finally:
            self._turn.release()

    async def _exchange(self, frame: bytes, *, announce: bool) -> Answer:
        if self.ended or self._transport is None:
            raise LineEnded
        self._answer = asyncio.get_running_loop().create_future()
        self._body, self._body_bytes = [], 0
        self._begun_at, self._told = None, False
        self._transport.write(frame)
        if announce:
            self._set_alarm(QUEUE_S, NodeBusy("the database is busy"))
        else:
            self._begin()
        try:
            return await self._answer
        except asyncio.CancelledError:
            # Its answer must not become the next call's.
            self.close()
            raise
        finally:
            self._answer = None
            if self._alarm:
                self._alarm.cancel()

    def _begin(self) -> None:
        self._begun_at = time.monotonic()
        self._set_alarm(self._timeout_s + KILL_AFTER_S, CellTimeout("the cell did not come back"))

    def _set_alarm(self, after_s: float, error: SandboxError) -> None:
        if self._alarm:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(after_s, self._fail, error)

    def _fail(self, error: SandboxError) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    def close(self) -> None:
        """Hang up. The cell does not begin a call whose asker has hung up."""
        if not self.ended:
            self.ended = True
            self._on_end(self)
            if self._transport:
                self._transport.abort()

    # --- called by the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End the call in progress: too late, interrupted, or not begun at all."""
        if self._begun_at is None or (self._announced and not self._told):
            self._fail(LineEnded())
        elif time.monotonic() - self._begun_at >= self._timeout_s:
            self._fail(CellTimeout("the cell's own timer ended it", cell_gone=True))
        else:
            self._fail(CellLost("the cell ended during the call"))

    def data_received(self, data: bytes) -> None:
        """Take what the cell sent; anything out of order ends the line."""
        try:
            for kind, payload in self._decoder.feed(data):
                self._take(kind, payload)
        except FrameError as error:
            self._fail(error)

    def _take(self, kind: Kind, payload: bytes) -> None:
        self.proven = True
        if kind is Kind.RETIRED:
            # A call that has begun must not be run again elsewhere, whatever the cell says.
            if self._told:
                raise FrameError("RETIRED in the middle of an answer")
            self._begun_at = None
            self._fail(LineEnded())
        elif self._answer is None or self._answer.done():
            raise FrameError(f"{kind.name} frame out of turn")
        elif kind is Kind.STARTED:
            if self._told or not self._announced:
                raise FrameError("STARTED that was not asked for")
            self._told = True
            if self._begun_at is None:
                self._begin()
        elif kind is Kind.DATA:
            self._told = True
            self._body_bytes += max(len(payload), _CRUMB_BYTES)
            if self._body_bytes > frames.MAX_ANSWER_BYTES:
                raise FrameError("the answer has no end")
            self._body.append(payload)
        else:
            status = frames.decode_end(payload)
            if status not in CELL_STATUSES:
                raise FrameError(f"status {status} is not a cell's to give")
            self._answer.set_result(Answer(status, b"".join(self._body)))
