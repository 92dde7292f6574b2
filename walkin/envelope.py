"""The envelope of every answer: request id and CORS headers, and the last net under a fault.

Runs in: front desk. Plain ASGI, outside everything else.
"""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Container

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from walkin import paths
from walkin.errors import Refused
from walkin.ledger import CALL, Call, Ledger
from walkin.reply import refusal

log = logging.getLogger("walkin.front")

REQUEST_ID = "walkin.request_id"

HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type, X-Walkin-Session, Idempotency-Key"),
    (
        b"access-control-expose-headers",
        b"X-Walkin-Session, X-Walkin-Ttl, X-Request-Id, Retry-After, Server-Timing, RateLimit,"
        b" RateLimit-Policy, X-Walkin-Truncated, Idempotency-Replayed",
    ),
    (b"access-control-max-age", b"86400"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)
#: Milliseconds: until the call's turn, in its cell, in all (https://www.w3.org/TR/server-timing).
_TIMES = b"queue;dur=%.2f, sql;dur=%.2f, total;dur=%.2f"


class Envelope:
    """Gives requests an id and a place in the ledger, answers their headers, and faults a 500."""

    def __init__(
        self, app: ASGIApp, ledger: Ledger, paths: Container[str], policy: bytes = b""
    ) -> None:
        self._app = app
        self._ledger = ledger
        self._paths = paths
        self._policy = policy
        # An id is nobody's secret. It is never given twice: half of it is this process' own, and
        # the other half is counted.
        self._mine = os.urandom(8)
        self._numbers = itertools.count(int.from_bytes(os.urandom(7)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = self._mine + next(self._numbers).to_bytes(8)
        call = scope[CALL] = Call(request_id, paths.named(scope["path"], self._paths))
        answer = _Answer(call, send, self._policy)
        try:
            await self._serve(scope, receive, answer)
        finally:
            self._ledger.note(call)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        about = {"request_id": answer.request_id}
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            log.info("the caller is gone", extra=about)
        except asyncio.CancelledError:
            # The drain is over and this call is not: it ends here. It may have begun its work, so
            # nobody is invited to send it again.
            if answer.begun:
                raise
            await answer.refuse(Refused("cell_lost"))
        except Exception as fault:
            if answer.gone and isinstance(fault, RuntimeError):
                # Starlette has an answer for a caller that is gone, and fails to send it.
                log.info("the caller is gone", extra=about)
                return
            # Starlette raises a fault once more after its handler (app.py) has answered it.
            log.exception("a request failed", extra=about)
            if not answer.begun:
                await answer.refuse(Refused("internal"))
            elif not answer.ended:
                raise


class _Answer:
    """One answer on its way out, in its envelope."""

    def __init__(self, call: Call, send: Send, policy: bytes) -> None:
        self.request_id = call.request_id.hex()
        self._call = call
        self._send = send
        self._policy = policy
        self.begun = False
        self.ended = False
        self.gone = False

    async def send(self, message: Message) -> None:
        """Send a part of the answer. Raises ClientDisconnect when nobody takes it any more."""
        if message["type"] == "http.response.start":
            self.begun = True
            call = self._call
            call.status = message["status"]
            headers = [*message["headers"], *HEADERS]
            headers.append((b"x-request-id", self.request_id.encode()))
            if call.standing:
                headers.append((b"ratelimit-policy", self._policy))
                headers.append((b"ratelimit", b", ".join(call.standing)))
            if call.took_s:
                total_s = time.perf_counter() - call.began
                times = (call.waited_s * 1000, call.took_s * 1000, total_s * 1000)
                headers.append((b"server-timing", _TIMES % times))
            message["headers"] = headers
        else:
            self.ended = not message.get("more_body")
            self._call.sent += len(message.get("body", b""))
        try:
            await self._send(message)
        except (RuntimeError, OSError) as cause:
            self.gone = True
            raise ClientDisconnect from cause

    async def refuse(self, refused: Refused) -> None:
        """Send a whole error answer."""
        self._call.code = refused.row.name
        reply = refusal(refused, self.request_id)
        await reply({}, _nothing, self.send)


async def _nothing() -> Message:
    raise AssertionError("a refusal reads nothing")
