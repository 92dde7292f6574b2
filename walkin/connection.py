"""The doorstep: uvicorn's HTTP/1.1 connection, with bounds on what a caller may make it hold.

Runs in: front desk. uvicorn bounds neither the length of a request's head nor the time it takes,
nor how many requests wait behind one another; it keeps the trailers of a body, answers what is
not HTTP in plain text, and loses the body behind an offer to upgrade.
"""

import asyncio
import os
import re
import socket
import struct
from typing import Any

from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from walkin.addresses import connection_key
from walkin.crowd import Crowd
from walkin.envelope import HEADERS
from walkin.errors import Refused, busy
from walkin.ledger import Call, Ledger
from walkin.patience import Patience
from walkin.pen import with_pen
from walkin.reply import refusal
from walkin.settings import Network

#: Request line and headers together; and what may come between two bytes of a body, which is
#: chunk sizes, extensions and trailers.
MAX_HEAD_BYTES = 65_536
#: Hardly any browser sends more; the crowd keeps an eye on those who do.
_LONG_HEAD_BYTES = 8192
#: Each costs far more memory than the four bytes it can be written with.
MAX_FIELDS = 256
#: The rest of a body whose request has its answer is passed over, so that a caller who sends
#: first and reads later gets the answer; beyond this the connection is closed.
_MAX_REST_BYTES = 1 << 20
#: So much is parsed at a time. What comes behind a whole request waits unparsed for its turn: a
#: parsed request takes a hundred times the memory of the 18 bytes it can be written with.
_PIECE_BYTES = 512

#: How long an idle connection stays when the server stops, for what its caller may be sending.
_LAST_CALL_S = 0.5

#: An offer to change protocols, under a name of the same length that nobody knows.
_OFFER = re.compile(rb"\r\nUpgrade(?=:)", re.IGNORECASE)
_NO_OFFER = b"\r\nX-Offer"


class _Flow(FlowControl):
    """Reading stays paused while something is held: uvicorn goes on with every look at a body."""

    holds = False

    def resume_reading(self) -> None:
        if not self.holds:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """One client's connection; uvicorn makes it."""

    #: What came behind a request that has no answer yet. No more is read meanwhile.
    _held = b""
    #: Bytes since the head began, or since the body last went on.
    _bare = 0
    _in_head = False
    _in_body = False
    #: Of the head that is coming in: how many Hosts it names, and which transfer codings.
    _hosts = 0
    _codings: list[bytes]
    _has_said_all = False
    #: Why the parser was stopped.
    _fault = ""
    #: What cannot be said before the answers to earlier requests have been.
    _last_word: Refused | None = None
    _running: RequestResponseCycle | None = None
    #: The server stops: the next answer is the last.
    _is_last = False
    flow: _Flow
    _patience: Patience | None = None

    def __init__(
        self,
        *args: Any,
        crowd: Crowd,
        ledger: Ledger,
        trusted: tuple[Network, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._crowd = crowd
        self._ledger = ledger
        self._trusted = trusted
        self._codings = []

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head, but not for ever."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        peer = self.client[0] if self.client else ""
        if not self._crowd.admit(self, connection_key(peer, self._trusted)):
            self._hang_up(busy())
            return
        self._patience = Patience(transport, self.drop)
        self._patience.wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks; tell the request in work, which need not be the last that came."""
        self._crowd.leave(self)
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        if self._patience:
            self._patience.end()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The caller says no more (shutdown(2)), and still gets the answers to what he has said."""
        self._has_said_all = True
        in_work = self.cycle is not None and not self.cycle.response_complete
        return bool(self._held) or (in_work and not self.cycle.more_body)

    def shutdown(self) -> None:
        """Let the next answer be the last (the server stops).

        Whoever keeps a connection may be sending at this moment, and would lose that call if it
        were closed at once; he has a moment to be told with an answer.
        """
        self._is_last = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            asyncio.get_running_loop().call_later(_LAST_CALL_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def leave(self) -> None:
        """Make room for another: close."""
        self.transport.close()

    def drop(self) -> None:
        """Close at once, and let the kernel forget what has not been sent (socket(7))."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # --- bytes ---

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent."""
        # An offer is passed over (RFC 9110, section 7.8). The parser would stop at it and lose
        # the body (https://github.com/Kludex/uvicorn/issues/2722).
        self._held += _OFFER.sub(_NO_OFFER, data)
        self._parse()

    def _parse(self) -> None:
        """Parse what is held up to the end of a request that has no answer yet."""
        held, at = self._held, 0
        while at < len(held) and self._is_ready():
            piece = held[at : at + _PIECE_BYTES]
            at += len(piece)
            self._bare += len(piece)
            super().data_received(piece)
            self._bound()
        self._held = held[at:]
        self.flow.holds = bool(self._held)
        if self.transport.is_closing():
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if self._in_head and is_idle:
            self._clocks.wait_for_head()
        if self._held:
            # Its time comes with an answer that is written, or taken: both have their clocks.
            self._unset_keepalive_if_required()
            self.flow.pause_reading()
        elif is_idle and self._has_said_all:
            self.transport.close()
        elif is_idle:
            self.flow.resume_reading()

    def _is_ready(self) -> bool:
        """Say whether the parser may go on."""
        cycle = self.cycle
        if self.transport.is_closing() or self._last_word:
            return False
        if cycle is None or cycle.response_complete:
            return not self.flow.write_paused
        return cycle.more_body

    def _bound(self) -> None:
        if self.transport.is_closing():
            return
        is_answered = self.cycle is not None and self.cycle.response_complete
        if is_answered and self._in_body:
            if self._bare > _MAX_REST_BYTES:
                self.transport.close()
        elif self._bare > MAX_HEAD_BYTES:
            what = "what surrounds the body" if self._in_body else "the head of the request"
            self.send_400_response(f"{what} is too long")
        elif self._in_head and self._bare > _LONG_HEAD_BYTES:
            self._crowd.has_long_head(self)
        if is_answered and not self._in_head and self.timeout_keep_alive_task is None:
            # What belongs to no request is passed over, but not for ever.
            self._clocks.wait_for_head()

    # --- requests, as the parser finds them ---

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._bare = self._hosts = 0
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; those behind a body say nothing that we would heed."""
        if not self._in_head:
            return
        if len(self.headers) >= MAX_FIELDS:
            raise self._refusal(f"the head has more than {MAX_FIELDS} fields")
        # White space around a value is not part of it; the parser leaves what is behind it.
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._codings.append(value.lower())
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._in_head, self._in_body = False, True
        self._bare = 0
        self._clocks.head_is_here()
        self._crowd.has_head(self)
        if self.parser.should_upgrade():
            # Its name came in two pieces. Behind it the parser would take the body for the next
            # request; raised here, it refuses the connection.
            raise self._refusal("an offer to change protocols")
        self._check_head()
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False
        if not self.pipeline:
            self._running = self.cycle

    def _check_head(self) -> None:
        """Refuse what the parser lets pass and HTTP does not (RFC 9112, sections 2.3, 3.2, 6.1)."""
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise self._refusal("the version must be 1.0 or 1.1")
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise self._refusal("a request has one Host")
        codings, self._codings = self._codings, []
        if codings and (version == "1.0" or codings != [b"chunked"]):
            raise self._refusal("the only transfer coding is chunked, in HTTP/1.1")

    def on_body(self, body: bytes) -> None:
        """The body goes on."""
        if not self.cycle.response_complete:
            self._bare = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_body = False
        self._bare = 0
        super().on_message_complete()
        if not self.cycle.response_complete:
            self._crowd.works(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        super()._start_asgi_task(cycle, with_pen(app, cycle))  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """An answer is written: go on with what came behind its request."""
        if self.pipeline:
            self._running, _ = self.pipeline[-1]
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._last_word and not self.pipeline:
            self._hang_up(self._last_word)
            return
        if self.cycle.response_complete:
            self._crowd.waits(self)
        if self._held or self._in_head or self._has_said_all:
            self._parse()

    # --- who does not read ---

    def pause_writing(self) -> None:
        """The caller takes less than is written."""
        super().pause_writing()
        self._crowd.is_unread(self)
        self._clocks.wait_for_reader()

    def resume_writing(self) -> None:
        """The caller has taken almost all."""
        super().resume_writing()
        self._clocks.has_read()
        self._crowd.has_read(self)
        self._parse()

    @property
    def _clocks(self) -> Patience:
        assert self._patience is not None  # noqa: S101 - whoever was let in has some
        return self._patience

    # --- what is not HTTP ---

    def _refusal(self, why: str) -> ValueError:
        """Return what stops the parser when a callback raises it."""
        self._fault = why
        return ValueError(why)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and hang up; whole requests before it get their answers."""
        cycle = self.cycle
        refused = Refused("invalid_http", self._fault or msg)
        is_next = not self.pipeline
        if cycle is None or cycle.response_complete or (cycle.more_body and is_next):
            self._hang_up(refused)
            return
        if cycle.more_body:
            self._last_word = refused
        else:
            cycle.keep_alive = False
        self.flow.pause_reading()

    def _hang_up(self, refused: Refused) -> None:
        call = Call(os.urandom(16), "none")
        reply = refusal(refused, call.request_id.hex())
        call.status, call.code, call.sent = reply.status_code, refused.row.name, len(reply.body)
        self._ledger.note(call)
        own = ((b"x-request-id", call.request_id.hex().encode()), (b"connection", b"close"))
        fields = [b"%b: %b\r\n" % field for field in (*HEADERS, *own, *reply.raw_headers)]
        self.transport.write(
            b"".join([STATUS_LINE[reply.status_code], *fields, b"\r\n", reply.body])
        )
        self.transport.close()
