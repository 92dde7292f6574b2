"""The counter: one short coroutine for each operation in openapi.json.

Runs in: front desk.
"""

import logging
from pathlib import Path

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox import frames
from sandbox.errors import (
    CellLost,
    CellTimeout,
    FrameError,
    InstanceMissing,
    NodeBusy,
    SandboxError,
    ZygoteGone,
)
from sandbox.forms import Form
from sandbox.frames import Ask
from walkin import bodies, heads, negotiation
from walkin.addresses import client_address, rate_key
from walkin.errors import Refused, busy
from walkin.heads import Head
from walkin.ledger import CALL, Call, Ledger
from walkin.long_reply import FileReply, LongReply
from walkin.readiness import OK, Readiness
from walkin.reply import Reply
from walkin.settings import Settings
from walkin.status import Status
from walkin.switchboard import Switchboard
from walkin.throttle import Throttle
from walkin.tokens import Grant, Seal, TokenInvalid
from walkin.turn import ROWS, Wanted

log = logging.getLogger("walkin.front")

_INSUFFICIENT_STORAGE = 507
_DISK_RETRY_S = "5"
_OK = 200
_CUTS = frames.CUT_ROWS | frames.CUT_BYTES
#: How a cut is told where the body has no place for it.
_MARKED = {
    frames.CUT_ROWS: {"X-Walkin-Truncated": "max_rows"},
    frames.CUT_BYTES: {"X-Walkin-Truncated": "max_bytes"},
    _CUTS: {"X-Walkin-Truncated": "max_rows, max_bytes"},
}
_SCHEMA_FORMS = frozenset({Form.JSON, Form.MARKDOWN})
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
        self.seal = seal
        self.throttle = throttle
        self.switchboard = switchboard
        self._status = status
        self._ledger = ledger
        self._readiness = Readiness(status, throttle, settings.data_dir)
        self._openapi = read_openapi()

    async def run_sql(self, request: Request) -> Response:
        """POST /sql: run statements in a new database or in the token's own."""
        call, head, client = await self.begin(request)
        body = await bodies.receive(request)
        call.received = len(body)
        heads.check_type(head)
        form = negotiation.choose(head.accept)
        key = heads.key(head)
        bodies.check(body, form)
        wanted = Wanted(Ask.SQL, form, key) if form or key else ROWS
        if head.tokens:
            return await self.run(call, body, self.admit(call, head.tokens, wanted), {})
        return await self.run(call, body, wanted, await self.create(call, client))

    async def create(self, call: Call, client: str, ttl_s: int | None = None) -> dict[str, str]:
        """Make a database and return the headers that tell of it. Raises Refused (429, 503)."""
        await self.throttle.count_creation(client, call.standing)
        try:
            call.instance, expires = await self.switchboard.create(ttl_s)
        except SandboxError as cause:
            log.error("no database can be made: %r", cause, extra=about(call))
            raise busy() from cause
        self._ledger.creations += 1
        token = self.seal.issue(call.instance)
        return {"X-Walkin-Session": token, "X-Walkin-Ttl": str(expires)}

    async def schema(self, request: Request) -> Response:
        """GET /schema: the tables and all else that the token's database is made of."""
        call, head, _ = await self.begin(request)
        form = negotiation.choose(head.accept, offered=_SCHEMA_FORMS)
        wanted = self.admit(call, head.tokens, Wanted(Ask.SCHEMA, form))
        return await self.run(call, b"", wanted, {})

    async def health(self, _: Request) -> Reply:
        """GET /healthz: the front desk is here."""
        return Reply(200, _HEALTHY, {})

    async def status(self, request: Request) -> Reply:
        """GET /status: the walls that stand here, the cells, how many databases."""
        try:
            return Reply(200, await self._status.read(), {})
        except ZygoteGone as cause:
            log.error("no status: %s", cause, extra=about(request.scope[CALL]))
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

    async def begin(self, request: Request) -> tuple[Call, Head, str]:
        """Count a request; return its call, its head and by what its caller is counted.

        Raises Refused (429, 503).
        """
        head = heads.read(request.scope)
        call: Call = request.scope[CALL]
        peer, _ = request.scope["client"] or ("", 0)
        client = rate_key(client_address(peer, ",".join(head.forwarded_for), self._trusted))
        await self.throttle.count_request(client, call.standing)
        return call, head, client

    def admit(
        self, call: Call, tokens: list[str], wanted: Wanted, *, takes_all: bool = False
    ) -> Wanted:
        """Note the token's database as that of the call; return what is wanted within its grant.

        Raises Refused (404), and (403) if it `takes_all` tables and the token is for some.
        """
        grant = self.grant_of(tokens)
        if takes_all and grant.tables:
            raise Refused("token_too_narrow", "it is for some tables, and this is all of them")
        call.instance = grant.instance
        if grant.tables is None:
            return wanted
        return wanted._replace(reach=orjson.dumps(grant.tables), until=grant.expires)

    def instance_of(self, tokens: list[str]) -> bytes:
        """Return the database that the one token is good for in full. Raises Refused (404, 403)."""
        grant = self.grant_of(tokens)
        if grant.tables is not None:
            raise Refused("token_too_narrow", "this takes the token that has made it")
        return grant.instance

    def grant_of(self, tokens: list[str]) -> Grant:
        """Return what the one token is good for. Raises Refused (404)."""
        try:
            if len(tokens) != 1:
                raise TokenInvalid
            return self.seal.verify(tokens[0])
        except TokenInvalid:
            refused = Refused("instance_not_found")
            if not tokens:
                refused.fields["hint"] = "the token goes into X-Walkin-Session"
            raise refused from None

    async def run(
        self,
        call: Call,
        body: bytes,
        wanted: Wanted,
        headers: dict[str, str],
        known: list[str] | None = None,
    ) -> Response:
        """Run the call; whatever becomes of it, the answer carries `headers`.

        `known` are the tags of the file that the caller has, if it is a file that is wanted.
        """
        try:
            answer = await self.switchboard.call(call.instance, body, call.request_id, wanted)
        except InstanceMissing:
            raise Refused("instance_expired", headers=headers) from None
        except CellTimeout as cause:
            log.warning("out of time: %s", cause, extra=about(call))
            raise Refused("query_timeout", headers=headers) from cause
        except (NodeBusy, ZygoteGone) as cause:
            log.info("not begun: %r", cause, extra=about(call))
            refusal = busy()
            refusal.headers.update(headers)
            raise refusal from cause
        except (CellLost, FrameError) as cause:
            log.error("lost: %s", cause, extra=about(call))
            raise Refused("cell_lost", headers=headers) from cause
        call.waited_s, call.took_s = answer.waited_s, answer.took_s
        if answer.stream and wanted.form is Form.FILE:
            return FileReply(answer.stream, headers, known or [])
        if answer.stream:
            return LongReply(answer.stream, headers, wanted.form)
        if answer.status == _INSUFFICIENT_STORAGE and self._readiness.disk() != OK:
            # Not the database is full but the node: that passes.
            headers["Retry-After"] = _DISK_RETRY_S
        if answer.marks:
            headers.update(_MARKED.get(answer.marks & _CUTS, {}))
            if answer.marks & frames.REPLAYED:
                headers["Idempotency-Replayed"] = "true"
        form = wanted.form if answer.status == _OK else Form.JSON
        return Reply(answer.status, answer.body, headers, form, varies=True)


def about(call: Call) -> dict[str, str]:
    """Return the fields by which lines of the log that belong to a call are found."""
    about = {"request_id": call.request_id.hex()}
    return about | {"instance": call.instance.hex()} if call.instance else about
