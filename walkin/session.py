"""The life of a database as its holder sees it: made, looked at, extended, copied, ended.

Runs in: front desk. One short coroutine for each method of /session.
"""

import logging
import math
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import InstanceMissing, NodeBusy, SandboxError, TooLong, ZygoteGone
from sandbox.frames import Ask
from walkin import bodies, heads
from walkin.endpoints import Desk, about
from walkin.errors import Refused, busy
from walkin.heads import Head
from walkin.ledger import Call
from walkin.reply import Reply
from walkin.settings import Settings
from walkin.tokens import Grant
from walkin.turn import Wanted

log = logging.getLogger("walkin.front")

_SIZE = Wanted(Ask.SIZE)
_MOST_SECOND = 0xFFFF_FFFF
_MOST_FORKS = 32
#: Beyond so many digits it is no lifetime, however many there are.
_DIGITS = 12


class Session:
    """The coroutines of /session, beside those of the desk."""

    def __init__(self, desk: Desk, settings: Settings) -> None:
        self._desk = desk
        #: Nobody's usual lifetime is too long.
        self._most_s = max(settings.max_life_s, settings.ttl_s)

    async def create(self, request: Request) -> Response:
        """POST /session: make a database, and run nothing in it."""
        call, head, client = await self._desk.begin(request)
        said = await said_in(request, call, head, "ttl_s")
        ttl_s = self.lifetime(request.query_params)
        if "ttl_s" in said:
            ttl_s = said["ttl_s"]
            _check_whole("ttl_s", ttl_s, self._most_s)
        return made(*await self.make(call, client, ttl_s))

    def lifetime(self, parameters: QueryParams) -> int | None:
        """Return the lifetime that a URL says, where the body is something else. Raises Refused."""
        for name in parameters:
            if name != "ttl_s":
                raise Refused("unknown_field", name[:64], hint="there is ttl_s")
        text = parameters.get("ttl_s")
        if text is None:
            return None
        ttl_s = int(text) if text.isascii() and text.isdecimal() and len(text) < _DIGITS else 0
        _check_whole("ttl_s", ttl_s, self._most_s)
        return ttl_s

    async def make(
        self, call: Call, client: str, ttl_s: int | None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Make a database; return what its holder is told, and the headers. Raises Refused."""
        headers = await self._desk.create(call, client, ttl_s)
        expires = int(headers["X-Walkin-Ttl"])
        _, left_s = await self._desk.switchboard.life(call.instance)
        grant = Grant(call.instance)
        told = {"token": headers["X-Walkin-Session"], **_life(grant, expires, left_s)}
        return told, headers

    async def fork(self, request: Request) -> Response:
        """POST /session/fork: make copies of it, all alike."""
        call, head, client = await self._desk.begin(request)
        said = await said_in(request, call, head, "ttl_s", "count")
        for option, most in (("ttl_s", self._most_s), ("count", _MOST_FORKS)):
            if option in said:
                _check_whole(option, said[option], most)
        ttl_s, count = said.get("ttl_s"), said.get("count", 1)
        call.instance = self._desk.instance_of(head.tokens)
        await self._desk.throttle.count_forks(client, count, call.standing)
        try:
            forks = [await self._fork(call.instance, ttl_s)]
            # Of the copy, which nobody knows yet: so all are of one moment.
            source, one = forks[0]
            forks += [await self._fork(source, ttl_s) for _ in range(count - 1)]
        except SandboxError as cause:
            raise self.refusal(call, cause) from cause
        if "count" in said:
            return made({"forks": [told for _, told in forks]}, {})
        headers = {"X-Walkin-Session": one["token"], "X-Walkin-Ttl": str(one["expires"])}
        return made(one, headers)

    async def _fork(self, source: bytes, ttl_s: int | None) -> tuple[bytes, dict[str, Any]]:
        """Make one copy; return its id, and what its holder is told."""
        instance, expires, left_s = await self._desk.switchboard.fork(source, ttl_s)
        life = _life(Grant(instance), expires, left_s)
        return instance, {"token": self._desk.seal.issue(instance), **life}

    async def see(self, request: Request) -> Response:
        """GET /session: when it was made, when it ends, how large it is."""
        call, head, _ = await self._desk.begin(request)
        grant = self._desk.grant_of(head.tokens)
        call.instance = grant.instance
        return await self._tell(call, grant)

    async def narrow(self, request: Request) -> Response:
        """POST /session/tokens: make a token for reading, which may be in a URL."""
        call, head, _ = await self._desk.begin(request)
        said = await said_in(request, call, head, "scope", "ttl_s", "tables", needed=True)
        if said.get("scope") != "read":
            raise Refused("invalid_option", '`scope` must be "read"', option="scope")
        tables = said.get("tables", [])
        ttl_s = said.get("ttl_s", self._most_s)
        _check_whole("ttl_s", ttl_s, self._most_s)
        if not isinstance(tables, list) or not all(isinstance(one, str) and one for one in tables):
            raise Refused("invalid_option", "`tables` must be an array of names", option="tables")
        call.instance = self._desk.instance_of(head.tokens)
        try:
            ends, left_s = await self._desk.switchboard.life(call.instance)
        except SandboxError as cause:
            raise self.refusal(call, cause) from cause
        # Rounded up, as the end of a database is, and never later than that.
        expires = min(ends, math.ceil(ends - left_s + ttl_s))
        grant = Grant(call.instance, tuple(tables), expires)
        try:
            token = self._desk.seal.narrow(grant)
        except ValueError as cause:
            raise Refused("invalid_option", f"`tables` has {cause}", option="tables") from None
        return made({"token": token, **_life(grant, ends, left_s)}, {})

    async def change(self, request: Request) -> Response:
        """PATCH /session: have it end later, or at a given second."""
        call, head, _ = await self._desk.begin(request)
        said = await said_in(request, call, head, "extend_s", "expires_at", needed=True)
        if len(said) != 1:
            raise Refused("invalid_option", "one of `extend_s` and `expires_at` is needed")
        ((option, value),) = said.items()
        _check_whole(option, value, self._most_s if option == "extend_s" else _MOST_SECOND)
        call.instance = self._desk.instance_of(head.tokens)
        by, to = (value, 0) if option == "extend_s" else (0, value)
        try:
            await self._desk.switchboard.change_end(call.instance, by=by, to=to)
        except SandboxError as cause:
            raise self.refusal(call, cause, option) from cause
        return await self._tell(call, Grant(call.instance))

    async def end(self, request: Request) -> Response:
        """DELETE /session: end it now."""
        call, head, _ = await self._desk.begin(request)
        call.instance = self._desk.instance_of(head.tokens)
        try:
            await self._desk.switchboard.end(call.instance)
        except SandboxError as cause:
            raise self.refusal(call, cause) from cause
        return Response(status_code=204)

    async def _tell(self, call: Call, grant: Grant) -> Response:
        """Answer with what is known here; the cell adds how large the database is."""
        try:
            known = _life(grant, *await self._desk.switchboard.life(grant.instance))
        except SandboxError as cause:
            raise self.refusal(call, cause) from cause
        wanted = _SIZE._replace(until=grant.expires)
        return await self._desk.run(call, orjson.dumps(known), wanted, {})

    def refusal(self, call: Call, cause: SandboxError, option: str = "") -> Refused:
        """Return what a caller is told when something was not done. Raises what is our fault."""
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


def made(told: dict[str, Any], headers: dict[str, str]) -> Reply:
    """Return the answer that something is there now."""
    return Reply(201, orjson.dumps(told), headers)


async def said_in(
    request: Request, call: Call, head: Head, *known: str, needed: bool = False
) -> dict[str, Any]:
    """Return the members of a body, none if it may be left out and is. Raises Refused."""
    body = await bodies.receive(request)
    call.received = len(body)
    if not body and not needed:
        return {}
    heads.check_type(head)
    return bodies.members(body, known)


def _life(grant: Grant, expires: int, left_s: float) -> dict[str, Any]:
    """Return what a token's holder is told, of a database that ends in so many seconds."""
    sooner_s = max(0, expires - grant.expires) if grant.expires else 0
    life = {
        # The first 48 bits of the id (RFC 9562, section 5.7).
        "created": int.from_bytes(grant.instance[:6]) // 1000,
        "expires": expires - sooner_s,
        "seconds_left": max(0, int(left_s - sooner_s)),
        "scope": grant.scope,
    }
    return life | {"only_tables": grant.tables} if grant.tables else life


def _check_whole(option: str, value: Any, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise Refused(
            "invalid_option", f"`{option}` must be an integer from 1 to {most:,}", option=option
        )
