"""A long answer on its way from a cell to its caller: a few pieces wait here, and no more.

Runs in: front desk.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from sandbox.errors import SandboxError

#: Beyond so many bytes the cell is not listened to until the caller has taken half of them.
MOST_BYTES = 1 << 20


class Stream:
    """Pieces of one answer.

    `pause` stops them from coming, `resume` lets them come again, `leave` ends it all.
    """

    def __init__(
        self, pause: Callable[[], None], resume: Callable[[], None], leave: Callable[[], None]
    ) -> None:
        self._pause = pause
        self._resume = resume
        self._leave = leave
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._is_paused = False
        self._is_over = False
        self._error: SandboxError | None = None
        self._news = asyncio.Event()

    def put(self, piece: bytes) -> None:
        """Take the next piece."""
        self._pieces.append(piece)
        self._bytes += len(piece)
        self._news.set()
        if self._bytes > MOST_BYTES and not self._is_paused:
            self._is_paused = True
            self._pause()

    def end(self, error: SandboxError | None) -> None:
        """No more will come: it is whole, or an error has broken it off."""
        self._is_over = True
        self._error = error
        if self._is_paused:  # what comes now is for others
            self._is_paused = False
            self._resume()
        self._news.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces as they come. Raises SandboxError where the answer breaks off."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._bytes -= len(piece)
                if self._is_paused and self._bytes <= MOST_BYTES // 2:
                    self._is_paused = False
                    self._resume()
                yield piece
            if self._is_over:
                if self._error:
                    raise self._error
                return
            self._news.clear()
            await self._news.wait()

    def leave(self) -> None:
        """Nobody takes it any more: if it is not over, it ends."""
        if not self._is_over:
            self._leave()
