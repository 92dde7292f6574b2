"""Uploads on their way in: received whole, and no more of them held than there is room for.

Runs in: front desk. A body of 8 KB is nothing to hold; one of 10 MB is, and may come slowly.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from sandbox.frames import MAX_ATTACHED_BYTES
from walkin import bodies
from walkin.errors import busy
from walkin.ledger import CALL

#: All that one front desk holds, and what of it may be one client's.
MOST_BYTES = 64 << 20
MOST_ALIKE = 2 * MAX_ATTACHED_BYTES
#: From the end of the head to the end of the body.
UPLOAD_S = 60.0


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
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            self._take(client, size)
            held += size

        try:
            cargo = await bodies.receive(request, MAX_ATTACHED_BYTES, UPLOAD_S, hold)
            request.scope[CALL].received = len(cargo)
            yield cargo
        finally:
            self._bytes -= held
            self._by_client[client] -= held
            if not self._by_client[client]:
                del self._by_client[client]

    def _take(self, client: str, size: int) -> None:
        alike = self._by_client[client] + size
        if self._bytes + size > MOST_BYTES or alike > MOST_ALIKE:
            refusal = busy()
            refusal.headers["Connection"] = "close"
            raise refusal
        self._bytes += size
        self._by_client[client] = alike
