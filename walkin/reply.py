"""The reply on its way out: an answer of a cell's or of our own, whole or as it comes; a refusal.

Runs in: front desk. A Response of Starlette's that knows what it is.
"""

import logging
from collections.abc import Mapping

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.errors import SandboxError
from sandbox.forms import MEDIA_TYPES, Form
from walkin.errors import Refused
from walkin.ledger import CALL
from walkin.stream import Stream

log = logging.getLogger("walkin.front")

#: By the number of the form.
_CONTENT_TYPES = [
    (b"content-type", (name + ("; charset=utf-8" if name.startswith("text/") else "")).encode())
    for _, name in sorted(MEDIA_TYPES.items())
]
#: Another `Accept` would have had another answer (RFC 9110, section 12.5.5).
_VARIES = (b"vary", b"Accept")


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


class Reply(Response):
    """Status, fields and body of one answer; called, it sends itself (ASGI)."""

    def __init__(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        form: Form = Form.JSON,
        *,
        varies: bool = False,
    ) -> None:
        # What a Response does here, it does for any body and any field: it takes thrice as long.
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            _CONTENT_TYPES[form],
        ]
        if varies:
            self.raw_headers.append(_VARIES)
        if headers:
            self.raw_headers += _encoded(headers)

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send it."""
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


class LongReply(Response):
    """An answer that goes out as it comes.

    One that breaks off is left without its end, and so is the connection: RFC 9112, section 8.
    """

    def __init__(self, stream: Stream, headers: Mapping[str, str], form: Form) -> None:
        self._stream = stream
        self.status_code = 200
        self.background = None
        self.raw_headers = [
            _CONTENT_TYPES[form],
            _VARIES,
            *_encoded(headers),
        ]

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            async for piece in self._stream.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except SandboxError as cause:
            request_id = scope[CALL].request_id.hex()
            log.warning("an answer broke off: %s", cause, extra={"request_id": request_id})
            return
        finally:
            self._stream.leave()
        await send({"type": "http.response.body", "body": b""})


def refusal(refused: Refused, request_id: str) -> Reply:
    """Return a refusal in the one error shape."""
    return Reply(refused.row.status, orjson.dumps(refused.body(request_id)), refused.headers)
