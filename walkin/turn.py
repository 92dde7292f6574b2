"""One call on its way to a cell and back: what is wanted, its turn, what was answered.

Runs in: front desk. A line (line.py) has many, one after the other.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from sandbox import frames
from sandbox.errors import CellLost, FrameError, SandboxError
from sandbox.forms import Form
from sandbox.frames import Ask, Ended
from walkin.stream import Stream

#: After the call's own time the cell's kernel timer ends it (0.2 s); then comes the kill.
KILL_AFTER_S = 0.3
#: What a smaller DATA frame counts as: each costs time, however little is in it.
_CRUMB_BYTES = 1024


class Wanted(NamedTuple):
    """What is asked of a cell beside the body: what for, the answer's form, a key or none.

    `reach` is what it may only read (frames.py), `until` the Unix second from which not even that;
    `attached` is what a database is filled from.
    """

    ask: Ask = Ask.SQL
    form: Form = Form.JSON
    key: bytes = b""
    reach: bytes = b""
    until: int = 0
    attached: bytes | None = None


#: What most calls want.
ROWS = Wanted()


class Answer(NamedTuple):
    """What a cell answered: a status of the contract and a body, unread.

    `marks` are those of frames.py. Where there is a `stream`, the body comes by it.
    """

    status: int
    body: bytes
    marks: int = 0
    #: Seconds that the call waited for its turn, and that the cell spent on it by its own word.
    waited_s: float = 0.0
    took_s: float = 0.0
    stream: Stream | None = None


class Turn:
    """One call's turn: waited for, taken, over."""

    def __init__(
        self,
        answer: asyncio.Future[Answer],
        frame: bytes,
        timeout_s: float,
        *,
        announced: bool,
        in_lines: bool,
        leave: Callable[[], None],
    ) -> None:
        self.answer = answer
        self.frame = frame
        self.timeout_s = timeout_s
        #: The cell was asked to say when it begins this call.
        self.announced = announced
        #: Its answer may come while there is more of it to be made.
        self.in_lines = in_lines
        self._leave = leave
        self._stream: Stream | None = None
        self._asked_at = time.monotonic()
        self._waited_s = 0.0
        #: It has said something of this call that only one who has begun it can say.
        self.told = False
        self.begun_at: float | None = None
        #: When somebody must have an end of it (time of the loop).
        self.deadline = 0.0
        self.body: list[bytes] = []
        self.body_bytes = 0

    def begin(self, now: float) -> None:
        """Its turn has come (time of the loop)."""
        self.begun_at = now
        self.deadline = now + self.timeout_s + KILL_AFTER_S
        self._waited_s = time.monotonic() - self._asked_at

    def take(self, piece: bytes) -> None:
        """Take a piece of its answer. Raises FrameError when there are too many."""
        if self._stream is not None:
            raise FrameError("a piece of an answer that is a stream already")
        self._count(max(len(piece), _CRUMB_BYTES))
        self.body.append(piece)

    def take_streamed(self, piece: bytes, transport: asyncio.Transport) -> None:
        """Take a piece of an answer that goes out as it comes. Raises FrameError."""
        if not self.in_lines or self.body:
            raise FrameError("a stream that was not asked for")
        if len(piece) < _CRUMB_BYTES:  # the others are counted where they wait
            self._count(_CRUMB_BYTES)
        if self._stream is None:
            self._stream = Stream(transport.pause_reading, transport.resume_reading, self._leave)
            if not self.answer.done():
                stream = self._stream
                self.answer.set_result(Answer(200, b"", waited_s=self._waited_s, stream=stream))
        self._stream.put(piece)

    def _count(self, size: int) -> None:
        self.body_bytes += size
        if self.body_bytes > frames.MAX_ANSWER_BYTES:
            raise FrameError("the answer has no end")

    def finish(self, ended: Ended) -> None:
        """Its answer is whole. Raises FrameError when there is too much of it."""
        if self._stream is not None:
            if ended.piece:
                self._stream.put(ended.piece)
            whole = ended.status == 200  # noqa: PLR2004 - OK
            self._stream.end(None if whole else CellLost("the answer broke off"))
            return
        status, marks, took_us, body = ended
        if self.body:
            self.take(body)
            body = b"".join(self.body)
        if not self.answer.done():  # its caller may have left
            took_s = took_us / 1_000_000
            self.answer.set_result(Answer(status, body, marks, self._waited_s, took_s))

    def end(self, error: SandboxError) -> None:
        """End it with an error, unless it has ended."""
        if self._stream is not None:
            self._stream.end(error)
        # The error knows where it was raised, and so keeps all of this for the collector to find.
        self.body.clear()
        if not self.answer.done():
            self.answer.set_exception(error)
