"""The doorstep: uvicorn's HTTP/1.1 connection, with an end to heads and the one error shape.

Runs in: front desk. uvicorn bounds neither the length of a request's head nor the time it takes,
answers what is not HTTP in plain text, and loses the body behind an offer to upgrade.
"""

import asyncio
import os
import re

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from walkin.envelope import HEADERS
from walkin.errors import Refused

#: Request line and headers together.
MAX_HEAD_BYTES = 65_536
#: From the connection's start, or a head's first byte, to the head's end. Then it is closed.
HEAD_S = 10.0

#: How long a caller may take none of what was written to it. Then the connection is dropped.
STALL_S = 10.0

#: An offer to change protocols, under a name of the same length that nobody knows.
_OFFER = re.compile(rb"\r\nUpgrade(?=:)", re.IGNORECASE)
_NO_OFFER = b"\r\nX-Offer"


class Connection(HttpToolsProtocol):
    """One client's connection; uvicorn makes it."""

    #: Length of the head that is coming in, None between heads.
    _head_bytes: int | None = None
    _clock: asyncio.TimerHandle | None = None
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head, but not for ever."""
        super().connection_made(transport)
        self._start_clock()
        self._watch_writes(0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        if self._watch:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent; let a head grow to its bound and no further."""
        # A piece counts if it belongs to a head from its first byte on.
        was_head = self._head_bytes is not None or (
            self.cycle is None or self.cycle.response_complete
        )
        # An offer is passed over (RFC 9110, section 7.8). The parser would stop at it and lose
        # the body (https://github.com/Kludex/uvicorn/issues/2722).
        super().data_received(_OFFER.sub(_NO_OFFER, data))
        if was_head and self._head_bytes is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("the head of the request is too long")
        elif (
            self._head_bytes is None
            and self.timeout_keep_alive_task is None
            and self.cycle is not None
            and self.cycle.response_complete
        ):
            # The rest of a body whose request has its answer: passed over, but not for ever.
            self._start_clock()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_bytes = 0
        self._start_clock()

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._head_bytes = None
        self._stop_clock()
        if self.parser.should_upgrade():
            # Its name came in two pieces. Behind it the parser would take the body for the next
            # request; raised here, it refuses the connection.
            raise ValueError("an offer to change protocols")
        super().on_headers_complete()

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_clock(self) -> None:
        if self._clock:
            self._clock.cancel()
            self._clock = None

    def _watch_writes(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if before and left >= before:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(STALL_S, self._watch_writes, left)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and hang up; whole requests before it get their answers."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
            self.flow.pause_reading()
            return
        refused = Refused("invalid_http", msg)
        request_id = os.urandom(16).hex()
        body = orjson.dumps(refused.body(request_id))
        headers = (
            *HEADERS,
            (b"x-request-id", request_id.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        )
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[refused.row.status], *lines, b"\r\n", body]))
        self.transport.close()
