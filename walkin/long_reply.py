"""Answers that go out as they come: rows in lines, and a whole database.

Runs in: front desk. One that breaks off is left without its end, and so is the connection (RFC
9112, section 8).
"""

import logging
from collections.abc import AsyncIterator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox import frames
from sandbox.errors import FrameError, SandboxError
from sandbox.forms import Form
from walkin.ledger import CALL
from walkin.reply import CONTENT_TYPES, VARIES, encoded
from walkin.stream import Stream

log = logging.getLogger("walkin.front")

#: What a browser saves it as, where it has a form of its own.
_NAMES = {Form.FILE: "walkin.db", Form.SQL: "walkin.sql"}
_NOT_MODIFIED = 304


def _attachment(name: str) -> tuple[bytes, bytes]:
    return b"content-disposition", f'attachment; filename="{name}"'.encode()


class LongReply(Response):
    """Lines, as many as come."""

    def __init__(self, stream: Stream, headers: Mapping[str, str], form: Form) -> None:
        self._stream = stream
        self.status_code = 200
        self.background = None
        name = _NAMES.get(form)
        own = VARIES if name is None else _attachment(name)
        self.raw_headers = [CONTENT_TYPES[form], own, *encoded(headers)]

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send it."""
        try:
            await self._send(self._stream.pieces(), send)
        except SandboxError as cause:
            request_id = scope[CALL].request_id.hex()
            log.warning("an answer broke off: %s", cause, extra={"request_id": request_id})
            return
        finally:
            self._stream.leave()
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, pieces: AsyncIterator[bytes], send: Send) -> None:
        """Send all but the end. Raises SandboxError where it breaks off."""
        await self._send_head(send)
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _send_head(self, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)


class FileReply(LongReply):
    """A database: its length and its tag, and then the file, unless the caller has it.

    `known` are the lines of `If-None-Match` (RFC 9110, section 13.1.2). What the cell says of the
    length is held to: HTTP would not bear another.
    """

    def __init__(self, stream: Stream, headers: Mapping[str, str], known: list[str]) -> None:
        super().__init__(stream, headers, Form.FILE)
        self._known = {tag.strip() for line in known for tag in line.split(",")}

    async def _send(self, pieces: AsyncIterator[bytes], send: Send) -> None:
        head = await anext(pieces, b"")
        if len(head) != frames.FILE_HEAD.size:
            raise FrameError("a file without its length")
        left, digest = frames.FILE_HEAD.unpack(head)
        tag = f'"{digest.hex()}"'
        self.raw_headers.append((b"etag", tag.encode()))
        if self._known & {tag, "*"}:
            self.status_code = _NOT_MODIFIED
            await self._send_head(send)
            return
        self.raw_headers.append((b"content-length", b"%d" % left))
        await self._send_head(send)
        async for piece in pieces:
            left -= len(piece)
            if left < 0:
                raise FrameError("more of a file than was announced")
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if left:
            raise FrameError("less of a file than was announced")
