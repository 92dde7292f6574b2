"""Customs: the request body, received under a cap and checked before anything is created.

Runs in: front desk. A body that passes goes on to the cell as it came.
"""

import asyncio
import difflib
import json
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from sandbox.forms import MAX_ROWS, MAX_ROWS_BYTES, Form
from walkin.errors import Refused

#: In a request's scope: its body is here, and receive() does not wait for it.
WHOLE = "walkin.whole"

MAX_BODY_BYTES = 8192
#: So much of a body that is over its cap is read on and thrown away, so that a caller who sends
#: first and reads later gets the answer and not a reset connection.
_DISCARD_BYTES = (1 << 20) - MAX_BODY_BYTES
#: From the end of the headers to the end of the body.
_BODY_TIMEOUT_S = 10.0

#: What may be in a body beside `sql` and `args`, and what each may be (openapi.json has the words).
_SWITCHES = frozenset({"each", "atomic", "readonly", "stats", "explain"})
_CHOICES = {"rows": ("arrays", "objects"), "integers": ("number", "string")}
_CAPS = {
    "max_rows": MAX_ROWS,
    "max_bytes": MAX_ROWS_BYTES,
    "max_cell_bytes": MAX_ROWS_BYTES,
}
_JSON_ALONE = frozenset({"each", "stats", "explain"})
_APART = (("many", "args"), ("many", "each"), ("explain", "many"), ("explain", "each"))
_FIELDS = ("sql", "args", "many", *sorted(_SWITCHES), *_CHOICES, *_CAPS)


async def receive(
    request: Request,
    most: int = MAX_BODY_BYTES,
    within_s: float | None = None,
    hold: Callable[[int], object] | None = None,
) -> bytes:
    """Return the body. Raises Refused (413, 408), ClientDisconnect, and what `hold` does.

    `hold` is told how many bytes of it are to be held now.
    """
    pieces: list[bytes] = []
    if request.scope.get(WHOLE):
        # Here already, as most bodies are: a clock would cost more than all the rest.
        size = await _collect(request, pieces, most, hold)
    else:
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S if within_s is None else within_s):
                size = await _collect(request, pieces, most, hold)
        except TimeoutError:
            raise Refused("body_timeout", headers={"Connection": "close"}) from None
    if size > most:
        raise Refused("body_too_large", f"at most {most} bytes", headers={"Connection": "close"})
    return b"".join(pieces)


async def _collect(
    request: Request, pieces: list[bytes], most: int, hold: Callable[[int], object] | None
) -> int:
    """Gather the body, or what of it is below the cap; return how long it is."""
    size = 0
    more = True
    while more and size <= most + _DISCARD_BYTES:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(piece)
        if size <= most:
            if hold is not None:
                hold(len(piece))
            pieces.append(piece)
    return size


def members(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the members of an object that has no others than these. Raises Refused."""
    said = _object(body)
    for name in said:
        if name not in known:
            hint = f"there are {', '.join(known)}" if known else "leave the body out"
            raise Refused("unknown_field", name[:64], hint=hint)
    return {name: value for name, value in said.items() if value is not None}


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused("invalid_json", str(error)) from None
    if not isinstance(said, dict):
        raise Refused("invalid_json", "the body must be an object")
    # Every member has a colon: where there are no more colons, none was lost to its namesake.
    if body.count(b":") != len(said):
        _check_names(body)
    return said


def check(body: bytes, form: Form = Form.JSON) -> None:
    """Raise Refused unless the body is a call: an object with `sql` and perhaps options.

    `form` is the one of the answer: some options are for JSON alone.
    """
    call = _object(body)
    sql = call.get("sql")
    is_bare = sql is not None and len(call) == 1
    if not is_bare:
        _check_known(call)
    if not isinstance(sql, str) or not sql.strip():
        raise Refused("missing_sql", "`sql` must be a non-empty string")
    if is_bare:
        return
    args = call.get("args")
    if args is not None and not isinstance(args, list | dict):
        raise Refused("invalid_args", "`args` must be an array or an object")
    if len(call) > 1 + ("args" in call):
        _check_options(call, form)


def _check_known(call: dict[str, Any]) -> None:
    """Raise Refused for a member that means nothing here."""
    for name in call:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name[:64], _FIELDS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(_FIELDS)}"
            raise Refused("unknown_field", name[:64], hint=hint)


def _check_options(call: dict[str, Any], form: Form) -> None:
    """Raise Refused for an option with a wrong value; null is none."""
    for name, value in call.items():
        if value is None or name in ("sql", "args"):
            continue
        if name in _SWITCHES:
            wanted = "" if isinstance(value, bool) else "true or false"
        elif name in _CHOICES:
            choices = _CHOICES[name]
            wanted = "" if value in choices else " or ".join(f'"{one}"' for one in choices)
        elif name in _CAPS:
            fits = type(value) is int and 1 <= value <= _CAPS[name]
            wanted = "" if fits else f"an integer from 1 to {_CAPS[name]:,}"
        else:
            wanted = "" if _is_sets(value) else "an array of arrays or of objects"
        if wanted:
            raise Refused("invalid_option", f"`{name}` must be {wanted}", option=name)
        if value is True and form is not Form.JSON and name in _JSON_ALONE:
            raise Refused("invalid_option", f"`{name}` is answered as JSON alone", option=name)
    for first, second in _APART:
        if call.get(first) and call.get(second):
            raise Refused(
                "invalid_option", f"`{first}` and `{second}` do not go together", option=second
            )


def _is_sets(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, list | dict) for one in value)


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


__all__ = ["MAX_BODY_BYTES", "WHOLE", "ClientDisconnect", "check", "members", "receive"]
