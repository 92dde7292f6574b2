"""The reply on its way out: an answer of a cell's or of our own, or a refusal.

Runs in: front desk. A Response of Starlette's that knows what it is.
"""

from collections.abc import Mapping

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.forms import MEDIA_TYPES, Form
from walkin.errors import Refused

#: By the number of the form.
CONTENT_TYPES = [
    (b"content-type", (name + ("; charset=utf-8" if name.startswith("text/") else "")).encode())
    for _, name in sorted(MEDIA_TYPES.items())
]
#: Another `Accept` would have had another answer (RFC 9110, section 12.5.5).
VARIES = (b"vary", b"Accept")


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return fields as ASGI has them."""
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
            CONTENT_TYPES[form],
        ]
        if varies:
            self.raw_headers.append(VARIES)
        if headers:
            self.raw_headers += encoded(headers)

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send it."""
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


def refusal(refused: Refused, request_id: str) -> Reply:
    """Return a refusal in the one error shape."""
    return Reply(refused.row.status, orjson.dumps(refused.body(request_id)), refused.headers)
