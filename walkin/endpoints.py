"""The counter: one short coroutine for each operation in openapi.json.

Runs in: front desk.
"""

import logging
from pathlib import Path

import orjson
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
from walkin.envelope import CALL
from walkin.errors import Refused, busy
from walkin.heads import Head
from walkin.ledger import Call, Ledger
from walkin.readiness import OK, Readiness
from walkin.reply import Reply
from walkin.settings import Settings
from walkin.status import Status
from walkin.switchboard import Switchboard
from walkin.throttle import Throttle
from walkin.tokens import Seal, TokenInvalid

log = logging.getLogger("walkin.front")

_INSUFFICIENT_STORAGE = 507
_DISK_RETRY_S = "5"
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
        ledger: Ledger,
    ) -> None:
        self._trusted = settings.trusted_proxies
        self._seal = seal
        self._throttle = throttle
        self._switchboard = switchboard
        self._status = status
        self._ledger = ledger
        self._readiness = Readiness(status, throttle, settings.data_dir)
        self._openapi = read_openapi()

    async def run_sql(self, request: Request) -> Reply:
        """POST /sql: run statements in a new database or in the token's own."""
        head = heads.read(request.scope)
        client = self._client(request, head)
        await self._throttle.count_request(client)
        body = await bodies.receive(request)
        call: Call = request.scope[CALL]
        call.received = len(body)
        heads.check_type(head)
        bodies.check(body)
        if head.tokens:
            call.instance = self._verify(head.tokens)
            return await self._run(call, body, {})
        await self._throttle.count_creation(client)
        try:
            call.instance, expires = await self._switchboard.create()
        except SandboxError as cause:
            log.error("no database can be made: %r", cause, extra=_about(call))
            raise busy() from cause
        self._ledger.creations += 1
        token = self._seal.issue(call.instance)
        return await self._run(
            call, body, {"X-Walkin-Session": token, "X-Walkin-Ttl": str(expires)}
        )

    async def health(self, _: Request) -> Reply:
        """GET /healthz: the front desk is here."""
        return Reply(200, _HEALTHY, {})

    async def status(self, request: Request) -> Reply:
        """GET /status: the walls that stand here, the cells, how many databases."""
        try:
            return Reply(200, await self._status.read(), {})
        except ZygoteGone as cause:
            log.error("no status: %s", cause, extra=_about(request.scope[CALL]))
            raise busy() from cause

    async def ready(self, _: Request) -> Reply:
        """GET /readyz: whether every part can do its work, and if not, which cannot."""
        parts = await self._readiness.parts()
        if set(parts.values()) == {OK}:
            return Reply(200, orjson.dumps({"status": "ready", "parts": parts}), {})
        refusal = busy()
        refusal.fields["parts"] = parts
        raise refusal

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

    async def _run(self, call: Call, body: bytes, headers: dict[str, str]) -> Reply:
        """Run the call; whatever becomes of it, the answer carries `headers`."""
        try:
            answer = await self._switchboard.call(call.instance, body, call.request_id)
        except InstanceMissing:
            raise Refused("instance_expired", headers=headers) from None
        except CellTimeout as cause:
            log.warning("out of time: %s", cause, extra=_about(call))
            raise Refused("query_timeout", headers=headers) from cause
        except (NodeBusy, ZygoteGone) as cause:
            log.info("not begun: %r", cause, extra=_about(call))
            refusal = busy()
            refusal.headers.update(headers)
            raise refusal from cause
        except (CellLost, FrameError) as cause:
            log.error("lost: %s", cause, extra=_about(call))
            raise Refused("cell_lost", headers=headers) from cause
        if answer.status == _INSUFFICIENT_STORAGE and self._readiness.disk() != OK:
            # Not the database is full but the node: that passes.
            headers["Retry-After"] = _DISK_RETRY_S
        return Reply(answer.status, answer.body, headers)


def _about(call: Call) -> dict[str, str]:
    """Return the fields by which lines of the log that belong to a call are found."""
    about = {"request_id": call.request_id.hex()}
    return about | {"instance": call.instance.hex()} if call.instance else about
