"""Customs: the request body, received under a cap and checked before anything is created.

Runs in: front desk. A body that passes goes on to the cell as it came.
"""

import asyncio
import difflib
import json
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from walkin.errors import Refused

#: In a request's scope: its body is here, and receive() does not wait for it.
WHOLE = "walkin.whole"

MAX_BODY_BYTES = 8192
#: A body over the cap is read on and thrown away up to here, so that a caller who sends first
#: and reads later gets the answer and not a reset connection.
_DISCARD_BYTES = 1 << 20
#: From the end of the headers to the end of the body.
_BODY_TIMEOUT_S = 10.0

_FIELDS = ("sql", "args")


async def receive(request: Request) -> bytes:
    """Return the body. Raises Refused (413, 408), ClientDisconnect."""
    if request.scope.get(WHOLE):
        # Here already, as most bodies are: a clock would cost more than all the rest.
        body, size = await _collect(request)
    else:
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                body, size = await _collect(request)
        except TimeoutError:
            raise Refused("body_timeout", headers={"Connection": "close"}) from None
    if size > MAX_BODY_BYTES:
        raise Refused(
            "body_too_large", f"at most {MAX_BODY_BYTES} bytes", headers={"Connection": "close"}
        )
    return body


async def _collect(request: Request) -> tuple[bytes, int]:
    """Return the body, or what of it is below the cap, and how long it is."""
    body = b""
    size = 0
    more = True
    while more and size <= _DISCARD_BYTES:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(piece)
        if size <= MAX_BODY_BYTES:
            body += piece
    return body, size


def check(body: bytes) -> None:
    """Raise Refused unless the body is a call: an object with `sql` and perhaps `args`."""
    try:
        call = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused("invalid_json", str(error)) from None
    if not isinstance(call, dict):
        raise Refused("invalid_json", "the body must be an object")
    # Every member has a colon: where there are no more colons, none was lost to its namesake.
    if body.count(b":") != len(call):
        _check_names(body)
    for name in call:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name[:64], _FIELDS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "a call has `sql` and `args`"
            raise Refused("unknown_field", name[:64], hint=hint)
    sql = call.get("sql")
    if not isinstance(sql, str) or not sql.strip():
        raise Refused("missing_sql", "`sql` must be a non-empty string")
    if not isinstance(call.get("args"), list | dict | None):
        raise Refused("invalid_args", "`args` must be an array or an object")


def _check_names(body: bytes) -> None:
    """Raise Refused if an object has two members of one name: readers differ on which counts."""

    def look(members: list[tuple[str, Any]]) -> None:
        names: set[str] = set()
        for name, _ in members:
            if name in names:
                raise Refused("invalid_json", f"two members are named {name[:64]!r}")
            names.add(name)

    try:
        # Numbers stay text: int() refuses some, and none is needed here.
        json.loads(body, object_pairs_hook=look, parse_int=str, parse_float=str)
    except RecursionError:
        raise Refused("invalid_args", "a value too deep") from None


__all__ = ["MAX_BODY_BYTES", "WHOLE", "ClientDisconnect", "check", "receive"]
