"""The counter: one short coroutine for each operation in openapi.json.

Runs in: front desk.
"""

import logging
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import (
    CellLost,
    CellTimeout,
    FrameError,
    InstanceMissing,
    NodeBusy,
    SandboxError,
    ZygoteGone,
)
from walkin import bodies, heads
from walkin.addresses import client_address, rate_key
from walkin.envelope import REQUEST_ID
from walkin.errors import Refused, busy
from walkin.heads import Head
from walkin.reply import Reply
from walkin.settings import Settings
from walkin.status import Status
from walkin.switchboard import Switchboard
from walkin.throttle import Throttle
from walkin.tokens import Seal, TokenInvalid

log = logging.getLogger("walkin.front")

_HEALTHY = b'{"status":"ok"}'


def read_openapi() -> bytes:
    """Return openapi.json: beside the package in a wheel, at the root in a checkout."""
    here = Path(__file__).parent
    for folder in (here, here.parent):
        file = folder / "openapi.json"
        if file.is_file():
            return file.read_bytes()
    raise FileNotFoundError("openapi.json")


class Desk:
    """What the coroutines share."""

    def __init__(
        self,
        settings: Settings,
        seal: Seal,
        throttle: Throttle,
        switchboard: Switchboard,
        status: Status,
    ) -> None:
        self._trusted = settings.trusted_proxies
        self._seal = seal
        self._throttle = throttle
        self._switchboard = switchboard
        self._status = status
        self._openapi = read_openapi()

    async def run_sql(self, request: Request) -> Reply:
        """POST /sql: run statements in a new database or in the token's own."""
        head = heads.read(request.scope)
        client = self._client(request, head)
        await self._throttle.count_request(client)
        body = await bodies.receive(request)
        heads.check_type(head)
        bodies.check(body)
        request_id: bytes = request.scope[REQUEST_ID]
        if head.tokens:
            return await self._call(self._verify(head.tokens), body, request_id, {})
        await self._throttle.count_creation(client)
        try:
            instance, expires = await self._switchboard.create()
        except SandboxError as cause:
            log.error("request %s: no database made: %r", request_id.hex(), cause)
            raise busy() from cause
        headers = {"X-Walkin-Session": self._seal.issue(instance), "X-Walkin-Ttl": str(expires)}
        return await self._call(instance, body, request_id, headers)

    async def health(self, _: Request) -> Reply:
        """GET /healthz: the front desk is here."""
        return Reply(200, _HEALTHY, {})

    async def status(self, request: Request) -> Reply:
        """GET /status: the walls that stand here, the cells, how many databases."""
        try:
            return Reply(200, await self._status.read(), {})
        except ZygoteGone as cause:
            log.error("request %s: no status: %s", request.scope[REQUEST_ID].hex(), cause)
            raise busy() from cause

    async def openapi(self, _: Request) -> Reply:
        """GET /openapi.json: the contract, the same bytes as in the repository."""
        return Reply(200, self._openapi, {})

    async def preflight(self, _: Request) -> Response:
        """OPTIONS on any path: the envelope has the headers a browser asks for."""
        return Response(status_code=204)

    def _client(self, request: Request, head: Head) -> str:
        peer, _ = request.scope["client"] or ("", 0)
        return rate_key(client_address(peer, ",".join(head.forwarded_for), self._trusted))

    def _verify(self, tokens: list[str]) -> bytes:
        try:
            if len(tokens) > 1:
                raise TokenInvalid
            return self._seal.verify(tokens[0])
        except TokenInvalid:
            raise Refused("instance_not_found") from None

    async def _call(
        self, instance: bytes, body: bytes, request_id: bytes, headers: dict[str, str]
    ) -> Reply:
        """Run the call; whatever becomes of it, the answer carries `headers`."""
        try:
            answer = await self._switchboard.call(instance, body, request_id)
        except InstanceMissing:
            raise Refused("instance_expired", headers=headers) from None
        except CellTimeout as cause:
            log.warning("request %s on %s: %s", request_id.hex(), instance.hex(), cause)
            raise Refused("query_timeout", headers=headers) from cause
        except (NodeBusy, ZygoteGone) as cause:
            log.info("request %s on %s: %r", request_id.hex(), instance.hex(), cause)
            refusal = busy()
            refusal.headers.update(headers)
            raise refusal from cause
        except (CellLost, FrameError) as cause:
            log.error("request %s on %s: %s", request_id.hex(), instance.hex(), cause)
            raise Refused("cell_lost", headers=headers) from cause
        return Reply(answer.status, answer.body, headers)
