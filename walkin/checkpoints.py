"""Checkpoints: named states of a database: made, listed, gone back to, dropped.

Runs in: front desk. They are the zygote's to keep (sandbox/shelf.py), out of the cell's reach.
"""

from collections.abc import Awaitable
from typing import TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.control import MOST_STATES, NAME, NAME_BYTES
from sandbox.errors import NoRoom, NoSuchState, SandboxError
from walkin.endpoints import Desk
from walkin.errors import Refused
from walkin.ledger import Call
from walkin.reply import Reply
from walkin.session import Session, made, said_in
from walkin.shelf import Shelf
from walkin.turn import Answer

_NO_ROOM_HINT = (
    f"at most {MOST_STATES}, and they count within the 10 MB, with room for the largest beside all"
    " of them: drop one, or make the database smaller (VACUUM)"
)
_Asked = TypeVar("_Asked")


class Checkpoints:
    """The coroutines of /session/checkpoints. All of them take the token for everything."""

    def __init__(self, desk: Desk, session: Session, shelf: Shelf) -> None:
        self._desk = desk
        self._session = session
        self._shelf = shelf

    async def see(self, request: Request) -> Response:
        """GET /session/checkpoints: all there are, the earliest first."""
        call = await self._begin(request)
        states = await self._done(call, self._shelf.states(call.instance))
        return Reply(200, orjson.dumps({"checkpoints": states}), {})

    async def keep(self, request: Request) -> Response:
        """PUT /session/checkpoints/{name}: keep the database as it is now."""
        call = await self._begin(request, takes_body=True)
        name = _name(request)
        asked = self._shelf.keep(call.instance, name, call.request_id)
        state = await self._done(call, asked)
        if isinstance(state, Answer):
            return Reply(state.status, state.body, {})
        return Reply(200, orjson.dumps(state), {}) if state["replaced"] else made(state, {})

    async def restore(self, request: Request) -> Response:
        """POST /session/checkpoints/{name}/restore: have the database be what it was."""
        call = await self._begin(request, takes_body=True)
        asked = self._shelf.go_back(call.instance, _name(request), call.request_id)
        return Reply(200, orjson.dumps(await self._done(call, asked)), {})

    async def drop(self, request: Request) -> Response:
        """DELETE /session/checkpoints/{name}: keep it no longer."""
        call = await self._begin(request)
        await self._done(call, self._shelf.drop(call.instance, _name(request), call.request_id))
        return Response(status_code=204)

    async def _begin(self, request: Request, *, takes_body: bool = False) -> Call:
        """Count a request; return its call, which has a database. Raises Refused."""
        call, head, _ = await self._desk.begin(request)
        if takes_body:  # but nothing can be said in it
            await said_in(request, call, head)
        call.instance = self._desk.instance_of(head.tokens)
        return call

    async def _done(self, call: Call, asked: Awaitable[_Asked]) -> _Asked:
        """Wait for what was asked. Raises Refused."""
        try:
            return await asked
        except NoRoom:
            raise Refused("quota_exceeded", hint=_NO_ROOM_HINT) from None
        except NoSuchState:
            hint = "GET /session/checkpoints tells which there are"
            raise Refused("unknown_checkpoint", hint=hint) from None
        except SandboxError as cause:
            raise self._session.refusal(call, cause) from cause


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if not NAME.fullmatch(name):
        raise Refused(
            "invalid_option",
            f"a name is 1 to {NAME_BYTES} letters, digits, `.`, `_`, `-`,"
            " a letter or a digit first",
            option="name",
        )
    return name
