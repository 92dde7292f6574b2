"""The life of a database as its holder sees it: made without SQL, looked at, extended, ended.

Runs in: front desk. One short coroutine for each method of /session.
"""

import logging
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import InstanceMissing, NodeBusy, SandboxError, TooLong, ZygoteGone
from sandbox.frames import Ask
from walkin import bodies, heads
from walkin.endpoints import Desk, about
from walkin.errors import Refused, busy
from walkin.ledger import Call
from walkin.reply import Reply
from walkin.settings import Settings
from walkin.turn import Wanted

log = logging.getLogger("walkin.front")

_SIZE = Wanted(Ask.SIZE)
_MOST_SECOND = 0xFFFF_FFFF


class Session:
    """The coroutines of /session, beside those of the desk."""

    def __init__(self, desk: Desk, settings: Settings) -> None:
        self._desk = desk
        #: Nobody's usual lifetime is too long.
        self._most_s = max(settings.max_life_s, settings.ttl_s)

    async def create(self, request: Request) -> Response:
        """POST /session: make a database, and run nothing in it."""
        call, head, client = await self._desk.begin(request)
        body = await bodies.receive(request)
        call.received = len(body)
        said: dict[str, Any] = {}
        if body:
            heads.check_type(head)
            said = bodies.members(body, ("ttl_s",))
        ttl_s = said.get("ttl_s")
        if ttl_s is not None:
            _check_seconds("ttl_s", ttl_s, self._most_s)
        headers = await self._desk.create(call, client, ttl_s)
        expires = int(headers["X-Walkin-Ttl"])
        told = {"token": headers["X-Walkin-Session"], **await self._life(call, expires)}
        return Reply(201, orjson.dumps(told), headers)

    async def see(self, request: Request) -> Response:
        """GET /session: when it was made, when it ends, how large it is."""
        call, head, _ = await self._desk.begin(request)
        call.instance = self._desk.instance_of(head.tokens)
        return await self._tell(call)

    async def change(self, request: Request) -> Response:
        """PATCH /session: have it end later, or at a given second."""
        call, head, _ = await self._desk.begin(request)
        body = await bodies.receive(request)
        call.received = len(body)
        heads.check_type(head)
        said = bodies.members(body, ("extend_s", "expires_at"))
        if len(said) != 1:
            raise Refused("invalid_option", "one of `extend_s` and `expires_at` is needed")
        ((option, value),) = said.items()
        _check_seconds(option, value, self._most_s if option == "extend_s" else _MOST_SECOND)
        call.instance = self._desk.instance_of(head.tokens)
        by, to = (value, 0) if option == "extend_s" else (0, value)
        try:
            await self._desk.switchboard.change_end(call.instance, by=by, to=to)
        except SandboxError as cause:
            raise self._refusal(call, cause, option) from cause
        return await self._tell(call)

    async def end(self, request: Request) -> Response:
        """DELETE /session: end it now."""
        call, head, _ = await self._desk.begin(request)
        call.instance = self._desk.instance_of(head.tokens)
        try:
            await self._desk.switchboard.end(call.instance)
        except SandboxError as cause:
            raise self._refusal(call, cause, "") from cause
        return Response(status_code=204)

    async def _tell(self, call: Call) -> Response:
        """Answer with what is known here; the cell adds how large the database is."""
        try:
            known = await self._life(call)
        except SandboxError as cause:
            raise self._refusal(call, cause, "") from cause
        return await self._desk.run(call, orjson.dumps(known), _SIZE, {})

    async def _life(self, call: Call, expires: int = 0) -> dict[str, Any]:
        told, left_s = await self._desk.switchboard.life(call.instance)
        return {
            # The first 48 bits of the id (RFC 9562, section 5.7).
            "created": int.from_bytes(call.instance[:6]) // 1000,
            "expires": expires or told,
            "seconds_left": int(left_s),
            "scope": "full",
        }

    def _refusal(self, call: Call, cause: SandboxError, option: str) -> Refused:
        if isinstance(cause, InstanceMissing):
            return Refused("instance_expired")
        if isinstance(cause, TooLong):
            return Refused(
                "invalid_option",
                f"`{option}` is too much: a database may live for {self._most_s:,} s in all",
                option=option,
            )
        if not isinstance(cause, NodeBusy | ZygoteGone):
            raise cause
        log.info("not done: %r", cause, extra=about(call))
        return busy()


def _check_seconds(option: str, value: Any, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise Refused(
            "invalid_option", f"`{option}` must be an integer from 1 to {most:,}", option=option
        )
