"""The front desk's end of one database's line: one call after the other, bounded in size and time.

Runs in: front desk. What comes from a cell is hostile: frames are checked by the decoder, the
status against a closed list, the body against one limit, and then passed on unread.

Calls that wait while another is at the cell are sent together once it has its answer, if the cell
is quick. Nothing is ever sent while an answer is to come: so the line's end tells of each call
whether it can have begun, and one that has not is run by the next cell.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from sandbox import frames
from sandbox.codes import CELL_STATUSES
from sandbox.errors import CellLost, CellTimeout, FrameError, NodeBusy, SandboxError
from sandbox.forms import AS_THEY_COME
from sandbox.frames import Decoder, Ended, Kind
from walkin.turn import ROWS, Answer, Turn, Wanted

#: How long a call waits for earlier calls on the same database, and how many may wait.
QUEUE_S = 5.0
QUEUE_MOST = 128
#: So many calls, and bytes, are sent together at most. The bytes must fit what the kernel keeps in
#: one piece: a cell has then read all of them or none (Linux: unix_stream_sendmsg, 32 KiB).
TOGETHER_MOST = 16
_TOGETHER_BYTES = 16_384
#: A cell is quick that answered all that was last sent to it within this time.
_QUICK_S = 0.01
#: How often a line with calls on it looks at its clock.
_TICK_S = 0.05


class LineEnded(SandboxError):  # noqa: N818
    """Raised when the cell went away without having begun the call: ask for another line.

    `in_order`: it was told to, or the call was never sent to it.
    """

    def __init__(self, *, in_order: bool = False) -> None:
        super().__init__("the cell went away")
        self.in_order = in_order


def seconds_until(ends: float) -> float:
    """Return how long it is until that second of CLOCK_BOOTTIME; 0 if it has passed."""
    return max(0.0, ends - time.clock_gettime(time.CLOCK_BOOTTIME))


class Line(asyncio.Protocol):
    """A stream to one cell. Made by the loop when the switchboard opens a database.

    `expires` is when the database is over, in Unix seconds, `ends` in those of CLOCK_BOOTTIME.
    """

    def __init__(
        self, expires: int, ends: float, on_end: Callable[["Line"], None], cell: int
    ) -> None:
        #: When the database is over, in Unix seconds.
        self.expires = expires
        self._ends = ends
        self.cell = cell
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder(frames.FROM_CELL)
        #: The calls at the cell, the first of them in work, and those that wait.
        self._sent: deque[Turn] = deque()
        self._queue: deque[Turn] = deque()
        self._sent_at = 0.0
        self._clock: asyncio.TimerHandle | None = None
        self.ended = False
        #: The cell has ended because it was told to.
        self._in_order = False

    @property
    def is_over(self) -> bool:
        """Whether the database has expired: asked with every call, so without a detour."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) >= self._ends

    @property
    def now(self) -> float:
        """The time by the clock that databases live by, in Unix seconds."""
        return self.expires - self.left_s

    @property
    def left_s(self) -> float:
        """For how many seconds it is there yet."""
        return seconds_until(self._ends)

    def change_end(self, expires: int, ends: float) -> None:
        """Take note of another end."""
        self.expires, self._ends = expires, ends

    @property
    def queued(self) -> int:
        """Calls that wait for an earlier one to end."""
        return len(self._queue)

    async def call(
        self,
        body: bytes,
        request_id: bytes,
        timeout_ms: int,
        wanted: Wanted = ROWS,
        *,
        announce: bool,
    ) -> Answer:
        """Run one call and return its answer.

        `announce` is for a cell that other processes use too: the clock starts when the cell says
        that it has begun. Raises LineEnded, NodeBusy (not begun); CellTimeout, CellLost,
        FrameError (begun, and the line is of no more use).
        """
        if self.ended:
            raise LineEnded(in_order=self._in_order)
        if len(self._queue) >= QUEUE_MOST:
            raise NodeBusy("too many calls wait for this database")
        ask, form, key, reach, _, attached = wanted
        frame = frames.encode_call(
            timeout_ms,
            request_id,
            body,
            announce=announce,
            ask=ask,
            form=form,
            key=key,
            reach=reach,
            attached=attached,
        )
        call = Turn(
            self._loop.create_future(),
            frame,
            timeout_ms / 1000,
            announced=announce,
            in_lines=form in AS_THEY_COME,
            leave=self.close,
        )
        if self._sent:
            call.deadline = self._loop.time() + QUEUE_S
            self._queue.append(call)
        else:
            self._send([call])
        if self._clock is None:
            self._clock = self._loop.call_later(_TICK_S, self._tick)
        try:
            return await call.answer
        except asyncio.CancelledError:
            if call in self._queue:
                self._queue.remove(call)
            elif [*self._sent] == [call]:
                # Nobody waits for its answer, which must not become the next call's.
                self.close()
            raise

    def _send(self, calls: list[Turn]) -> None:
        assert self._transport is not None  # noqa: S101 - connection_made comes before any call
        self._transport.write(b"".join([call.frame for call in calls]))
        self._sent.extend(calls)
        self._sent_at = self._loop.time()
        if calls[0].announced:
            calls[0].deadline = self._sent_at + QUEUE_S
        else:
            calls[0].begin(self._sent_at)

    def _send_next(self) -> None:
        """Send the next calls as soon as all that were sent have their answers."""
        if self.ended or self._sent:
            return
        is_quick = self._loop.time() - self._sent_at < _QUICK_S
        calls: list[Turn] = []
        size = 0
        while self._queue and len(calls) < (TOGETHER_MOST if is_quick else 1):
            call = self._queue[0]
            size += len(call.frame)
            if calls and (call.announced or size > _TOGETHER_BYTES):
                break
            self._queue.popleft()
            if not call.answer.done():  # its caller may have left in this turn of the loop
                calls.append(call)
                if call.in_lines:  # its reader may hold up, or end, whatever is behind it
                    break
        if calls:
            self._send(calls)

    def _tick(self) -> None:
        """Look who waits for too long. A timer for each call would cost more than most calls."""
        self._clock = None
        now = self._loop.time()
        while self._queue and self._queue[0].deadline <= now:
            late = NodeBusy("earlier calls on this database take too long")
            self._queue.popleft().end(late)
        if self._sent and self._sent[0].deadline <= now:
            if self._sent[0].begun_at is None:
                self._fail(NodeBusy("the database is busy"))
            else:
                self._fail(CellTimeout("the cell did not come back"))
        if not self.ended and self._sent:
            self._clock = self._loop.call_later(_TICK_S, self._tick)

    def _fail(self, error: SandboxError, *, is_over: bool = False) -> None:
        """End the call in work with an error, and hang up.

        `is_over`: the cell has said its last word, so calls behind that one have not begun.
        """
        if self._sent:
            self._sent.popleft().end(error)
        in_order = isinstance(error, LineEnded) and error.in_order
        self._in_order |= in_order
        while self._sent:
            rest = LineEnded(in_order=in_order) if is_over else CellLost("the line was given up")
            self._sent.popleft().end(rest)
        self.close()

    def close(self) -> None:
        """Hang up. The cell does not begin a call whose asker has hung up."""
        if not self.ended:
            self.ended = True
            self._on_end(self)
            for call in self._queue:
                call.end(LineEnded(in_order=True))
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
        """End the call in work: too late, interrupted, or not begun at all."""
        call = self._sent[0] if self._sent else None
        error: SandboxError
        if call is None or call.begun_at is None or (unread and not call.told):
            error = LineEnded()
        elif self._loop.time() - call.begun_at >= call.timeout_s:
            error = CellTimeout("the cell's own timer ended it", cell_gone=True)
        else:
            error = CellLost("the cell ended during the call")
        self._fail(error, is_over=not self.ended)

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
        call = self._sent[0] if self._sent else None
        if kind is Kind.RETIRED:
            # A call that has begun must not be run again elsewhere, whatever the cell says.
            if call and call.told:
                raise FrameError("RETIRED in the middle of an answer")
            self._fail(LineEnded(in_order=True), is_over=True)
        elif call is None:
            raise FrameError(f"{kind.name} frame out of turn")
        elif kind is Kind.STARTED:
            if call.told or not call.announced:
                raise FrameError("STARTED that was not asked for")
            call.told = True
            if call.begun_at is None:
                call.begin(self._loop.time())
        elif kind is Kind.DATA:
            call.told = True
            call.take(payload)
        elif kind is Kind.STREAM:
            call.told = True
            assert self._transport is not None  # noqa: S101 - something came by it
            call.take_streamed(payload, self._transport)
        else:
            self._finish(call, frames.decode_end(payload))

    def _finish(self, call: Turn, ended: Ended) -> None:
        if ended.status not in CELL_STATUSES:
            raise FrameError(f"status {ended.status} is not a cell's to give")
        call.finish(ended)
        self._sent.popleft()
        if self._sent:
            self._sent[0].begin(self._loop.time())
