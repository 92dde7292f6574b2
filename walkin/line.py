"""The front desk's end of one database's line: one call at a time, bounded in size and time.

Runs in: front desk. What comes from a cell is hostile: frames are checked by the decoder, the
status against a closed list, the body against one limit, and then passed on unread.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, cast

from sandbox import frames
from sandbox.codes import CELL_STATUSES
from sandbox.errors import CellLost, CellTimeout, FrameError, NodeBusy, SandboxError
from sandbox.frames import Decoder, Kind

#: After the call's own time the cell's kernel timer ends it (0.2 s); then comes the kill.
KILL_AFTER_S = 0.3
#: How long a call waits for earlier calls on the same database, and how many may wait.
QUEUE_S = 5.0
QUEUE_MOST = 128
#: How often a line with calls on it looks at its clock.
_TICK_S = 0.05
#: What a smaller DATA frame counts as: each costs time, however little is in it.
_CRUMB_BYTES = 1024


class Answer(NamedTuple):
    """What a cell answered: a status of the contract and a JSON body, unread."""

    status: int
    body: bytes


class LineEnded(SandboxError):  # noqa: N818
    """Raised when the cell went away without having begun the call: ask for another line."""


class _Call:
    """One call on its way: waiting for its turn, then at the cell."""

    def __init__(
        self, answer: asyncio.Future[Answer], frame: bytes, timeout_s: float, *, announced: bool
    ) -> None:
        self.answer = answer
        self.frame = frame
        self.timeout_s = timeout_s
        #: The cell was asked to say when it begins this call.
        self.announced = announced
        #: It has said something of this call that only one who has begun it can say.
        self.told = False
        self.begun_at: float | None = None
        #: When somebody must have an end of it (time of the loop).
        self.deadline = 0.0
        self.body: list[bytes] = []
        self.body_bytes = 0

    def take(self, piece: bytes) -> None:
        """Take a piece of its answer. Raises FrameError when there are too many."""
        self.body_bytes += max(len(piece), _CRUMB_BYTES)
        if self.body_bytes > frames.MAX_ANSWER_BYTES:
            raise FrameError("the answer has no end")
        self.body.append(piece)

    def end(self, error: SandboxError) -> None:
        """End it with an error, unless it has ended."""
        # The error knows where it was raised, and so keeps all of this for the collector to find.
        self.body.clear()
        if not self.answer.done():
            self.answer.set_exception(error)


class Line(asyncio.Protocol):
    """A stream to one cell. Made by the loop when the switchboard opens a database."""

    def __init__(self, expires: int, on_end: Callable[["Line"], None], cell: int) -> None:
        self.expires = expires
        self.cell = cell
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder(frames.FROM_CELL)
        #: The call at the cell, and those that wait for it to end.
        self._call: _Call | None = None
        self._queue: deque[_Call] = deque()
        self._clock: asyncio.TimerHandle | None = None
        self.ended = False

    async def call(
        self, body: bytes, request_id: bytes, timeout_ms: int, *, announce: bool
    ) -> Answer:
        """Run one call and return its answer.

        `announce` is for a cell that other processes use too: the clock starts when the cell says
        that it has begun. Raises LineEnded, NodeBusy (not begun); CellTimeout, CellLost,
        FrameError (begun, and the line is of no more use).
        """
        if self.ended:
            raise LineEnded
        if len(self._queue) >= QUEUE_MOST:
            raise NodeBusy("too many calls wait for this database")
        frame = frames.encode_call(timeout_ms, request_id, body, announce=announce)
        call = _Call(self._loop.create_future(), frame, timeout_ms / 1000, announced=announce)
        if self._call is None:
            self._send(call)
        else:
            call.deadline = self._loop.time() + QUEUE_S
            self._queue.append(call)
        if self._clock is None:
            self._clock = self._loop.call_later(_TICK_S, self._tick)
        try:
            return await call.answer
        except asyncio.CancelledError:
            if call is self._call:
                # Its answer must not become the next call's.
                self.close()
            elif call in self._queue:
                self._queue.remove(call)
            raise

    def _send(self, call: _Call) -> None:
        assert self._transport is not None  # noqa: S101 - connection_made comes before any call
        self._call = call
        self._transport.write(call.frame)
        if call.announced:
            call.deadline = self._loop.time() + QUEUE_S
        else:
            self._begin(call)

    def _begin(self, call: _Call) -> None:
        call.begun_at = self._loop.time()
        call.deadline = call.begun_at + call.timeout_s + KILL_AFTER_S

    def _send_next(self) -> None:
        """Let the next call have its turn as soon as the one before it has its answer."""
        if self.ended or (self._call and not self._call.answer.done()):
            return
        if self._call and self._call.answer.cancelled():
            # The rest of its answer is still to come, and must not become the next call's.
            self.close()
            return
        self._call = None
        while self._queue and self._call is None:
            following = self._queue.popleft()
            if not following.answer.done():  # its caller may have left in this turn of the loop
                self._send(following)

    def _tick(self) -> None:
        """Look who waits for too long. A timer for each call would cost more than most calls."""
        self._clock = None
        now = self._loop.time()
        while self._queue and self._queue[0].deadline <= now:
            late = NodeBusy("earlier calls on this database take too long")
            self._queue.popleft().end(late)
        call = self._call
        if call and call.deadline <= now and not call.answer.done():
            if call.begun_at is None:
                self._fail(NodeBusy("the database is busy"))
            else:
                self._fail(CellTimeout("the cell did not come back"))
        if not self.ended and self._call:
            self._clock = self._loop.call_later(_TICK_S, self._tick)

    def _fail(self, error: SandboxError) -> None:
        if self._call:
            self._call.end(error)
        self.close()

    def close(self) -> None:
        """Hang up. The cell does not begin a call whose asker has hung up."""
        if not self.ended:
            self.ended = True
            self._on_end(self)
            for call in self._queue:
                call.end(LineEnded())
            self._queue.clear()
            if self._clock:
                self._clock.cancel()
            if self._transport:
                self._transport.abort()

    # --- called by the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> None:
        """End at once: what is sent from now on does not reach the cell, and raises nothing."""
        assert self._transport is not None  # noqa: S101 - connection_made comes before
        self._end(unread=self._transport.get_write_buffer_size() > 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, if the cell has not said so before."""
        # A stream socket that is closed before all that was sent to it has been read gives its
        # peer ECONNRESET (Linux: unix_release_sock), and EPIPE if it is sent to afterwards.
        self._end(unread=isinstance(exc, ConnectionError))

    def _end(self, *, unread: bool) -> None:
        """End the call in progress: too late, interrupted, or not begun at all."""
        call = self._call
        if call is None or call.begun_at is None or (unread and not call.told):
            self._fail(LineEnded())
        elif self._loop.time() - call.begun_at >= call.timeout_s:
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
        # Not before all of it is taken: what comes behind an answer is no answer to the next.
        self._send_next()

    def _take(self, kind: Kind, payload: bytes) -> None:
        call = self._call
        if kind is Kind.RETIRED:
            # A call that has begun must not be run again elsewhere, whatever the cell says.
            if call and call.told:
                raise FrameError("RETIRED in the middle of an answer")
            self._fail(LineEnded())
        elif call is None or call.answer.done():
            raise FrameError(f"{kind.name} frame out of turn")
        elif kind is Kind.STARTED:
            if call.told or not call.announced:
                raise FrameError("STARTED that was not asked for")
            call.told = True
            if call.begun_at is None:
                self._begin(call)
        elif kind is Kind.DATA:
            call.told = True
            call.take(payload)
        else:
            status, piece = frames.decode_end(payload)
            if status not in CELL_STATUSES:
                raise FrameError(f"status {status} is not a cell's to give")
            call.take(piece)
            call.answer.set_result(Answer(status, b"".join(call.body)))
