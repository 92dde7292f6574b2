"""Patience: how long one caller may keep a connection waiting, for a head or for its reading.

Runs in: front desk.
"""

import asyncio
from collections.abc import Callable

#: From the connection's start, or a head's first byte, to the head's end. Then it is closed.
HEAD_S = 10.0
#: In each such time a caller must take so much of what was written to it, or all that is left.
#: Else the connection is dropped.
STALL_S = 10.0
_STALL_BYTES = 16_384


class Patience:
    """The two clocks of one connection."""

    def __init__(self, transport: asyncio.Transport, drop: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._drop = drop
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._has_read = False
        self._watch(0)

    def wait_for_head(self) -> None:
        """Close the connection unless a head is here in time."""
        if self._head is None:
            self._head = self._loop.call_later(HEAD_S, self._transport.close)

    def head_is_here(self) -> None:
        """Wait for it no longer."""
        if self._head:
            self._head.cancel()
            self._head = None

    def wait_for_reader(self) -> None:
        """Begin anew to look whether the caller takes what is written."""
        if self._reading:
            self._reading.cancel()
            self._watch(0)

    def has_read(self) -> None:
        """Note that the caller has taken almost all."""
        self._has_read = True

    def end(self) -> None:
        """Stop both clocks: there is no connection any more."""
        self.head_is_here()
        if self._reading:
            self._reading.cancel()

    def _watch(self, before: int) -> None:
        left = self._transport.get_write_buffer_size()
        if before and not self._has_read and left > max(0, before - _STALL_BYTES):
            self._drop()
        else:
            self._has_read = False
            self._reading = self._loop.call_later(STALL_S, self._watch, left)
