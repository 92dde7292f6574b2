"""The envelope of every answer: request id and CORS headers, and the last net under a fault.

Runs in: front desk. Plain ASGI, outside everything else.
"""

import asyncio
import logging
import os

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from walkin.errors import Refused, busy

log = logging.getLogger("walkin.front")

REQUEST_ID = "walkin.request_id"

HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type, X-Walkin-Session"),
    (
        b"access-control-expose-headers",
        b"X-Walkin-Session, X-Walkin-Ttl, X-Request-Id, Retry-After",
    ),
    (b"access-control-max-age", b"86400"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


class Envelope:
    """Gives each request an id, each answer its headers, and a fault of ours a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = os.urandom(16)
        headers = (*HEADERS, (b"x-request-id", request_id.hex().encode()))
        begun = ended = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun, ended
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *headers]
            elif not message.get("more_body"):
                ended = True
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The drain is over and this call is not. It ends here, with an answer.
            if begun:
                raise
            await _send(busy(), request_id.hex(), send_with_headers)
        except Exception:
            # Starlette raises a fault once more after its handler (app.py) has answered it.
            log.exception("request %s failed", request_id.hex())
            if not begun:
                await _send(Refused("internal"), request_id.hex(), send_with_headers)
            elif not ended:
                raise


async def _send(refused: Refused, request_id: str, send: Send) -> None:
    body = orjson.dumps(refused.body(request_id))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), text.encode()) for name, text in refused.headers.items()),
    ]
    await send({"type": "http.response.start", "status": refused.row.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
