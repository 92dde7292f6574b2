"""Uploads on their way in: received whole, and no more of them held than there is room for.

Runs in: front desk. A body of 8 KB is nothing to hold; one of 10 MB is, and may come slowly.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from sandbox.frames import MAX_ATTACHED_BYTES
from walkin.errors import Refused, busy

#: All that one front desk holds, and what of it may be one client's.
MOST_BYTES = 64 << 20
MOST_ALIKE = 2 * MAX_ATTACHED_BYTES
#: From the end of the head to the end of the body.
UPLOAD_S = 60.0
#: A body over the cap is read on and thrown away up to here, as bodies.py does.
_DISCARD_BYTES = 1 << 20


class Hold:
    """What one front desk has of uploads that are not with a cell yet."""

    def __init__(self) -> None:
        self._bytes = 0
        self._by_client: Counter[str] = Counter()

    @asynccontextmanager
    async def cargo(self, request: Request, client: str) -> AsyncIterator[bytes]:
        """Receive a body and count it until it is done with.

        Raises Refused (413, 408, 503), ClientDisconnect.
        """
        taken = bytearray()
        try:
            try:
                async with asyncio.timeout(UPLOAD_S):
                    await self._receive(request, client, taken)
            except TimeoutError:
                raise Refused("body_timeout", headers={"Connection": "close"}) from None
            yield bytes(taken)
        finally:
            self._bytes -= len(taken)
            self._by_client[client] -= len(taken)
            if not self._by_client[client]:
                del self._by_client[client]

    async def _receive(self, request: Request, client: str, taken: bytearray) -> None:
        size = 0
        more = True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            if size > MAX_ATTACHED_BYTES:
                if more and size < MAX_ATTACHED_BYTES + _DISCARD_BYTES:
                    continue
                raise Refused(
                    "body_too_large",
                    f"at most {MAX_ATTACHED_BYTES:,} bytes",
                    headers={"Connection": "close"},
                )
            self._take(client, piece)
            taken += piece

    def _take(self, client: str, piece: bytes) -> None:
        alike = self._by_client[client] + len(piece)
        if self._bytes + len(piece) > MOST_BYTES or alike > MOST_ALIKE:
            refusal = busy()
            refusal.headers["Connection"] = "close"
            raise refusal
        self._bytes += len(piece)
        self._by_client[client] = alike
