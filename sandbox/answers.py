"""JSON in and out of a cell: results, error bodies, bound arguments.

Runs in: cells. What JSON cannot carry has the one form that rows.py says.
"""

import binascii
import json
import math
from base64 import b64decode
from typing import Any

import orjson

from sandbox.codes import CODES
from sandbox.frames import MAX_ANSWER_BYTES
from sandbox.rows import Rows

Value = None | int | float | str | bytes
Bindings = list[Value] | dict[str, Value]

_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}
_INT64 = range(-(1 << 63), 1 << 63)


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """Raised for a call that ends in an error the caller is told about.

    `code` is a row of codes.py; `detail` follows the words its `error` begins with; `fields` are
    further members of the body (`statement`, `offset`, `sqlite_code`, `hint`).
    """

    def __init__(self, code: str, detail: str = "", **fields: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fields = fields


def encode_refusal(refusal: Refusal, request_id: str) -> tuple[int, bytes]:
    """Return status and body of an error answer in the contract's one shape."""
    row = CODES[refusal.code]
    error = f"{row.begins}: {refusal.detail}" if refusal.detail else row.begins
    body = {
        "error": error,
        "code": row.name,
        "retryable": row.retryable,
        "request_id": request_id,
        **refusal.fields,
    }
    return row.status, orjson.dumps(body)


def encode_result(rows: Rows | None, rows_affected: int) -> bytes:
    """Return the body of a 200; `rows` is None if no statement returned columns."""
    affected = b'"rows_affected":%d' % rows_affected
    if rows is None:
        return b"{%b}" % affected
    shown = orjson.dumps(rows.columns), rows.json(), affected
    cut = b',"truncated":true' if rows.truncated else b""
    body = b'{"columns":%b,"rows":%b,%b%b}' % (*shown, cut)
    if len(body) > MAX_ANSWER_BYTES:
        raise Refusal("sql_error", "the names of the columns alone are too long for an answer")
    return body


def decode_call(body: bytes) -> tuple[str, Bindings | None]:
    """Return SQL and arguments of a body that the front desk has checked. Raises Refusal.

    The standard library reads it: orjson turns integers beyond 64 bits into floats.
    """
    try:
        call = json.loads(body)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError):
        raise Refusal("invalid_args", "a number too long or a value too deep") from None
    args = call.get("args")
    if isinstance(args, dict):
        named = {_bare(name): _value(item, name) for name, item in args.items()}
        if len(named) < len(args):
            raise Refusal("invalid_args", "a parameter is named twice")
        return call["sql"], named
    if args is not None:
        return call["sql"], [_value(item, at) for at, item in enumerate(args)]
    return call["sql"], None


def _bare(name: str) -> str:
    """Return a parameter's name without the mark that SQL has before it."""
    return name[1:] if name[:1] in {":", "@", "$"} else name


def _value(item: Any, where: str | int) -> Value:
    """Return what SQLite binds for one JSON value."""
    if isinstance(item, int) and item not in _INT64:
        raise Refusal("invalid_args", f"{where!r} does not fit a 64-bit integer")
    if item is None or isinstance(item, int | float | str):
        return item
    if isinstance(item, dict) and len(item) == 1:
        (form, text), *_ = item.items()
        if form == "base64" and isinstance(text, str):
            try:
                return b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise Refusal("invalid_args", f"{where!r} is not base64") from None
        if form == "float" and isinstance(text, str) and text in _INFINITIES:
            return _INFINITIES[text]
    raise Refusal(
        "invalid_args",
        f'{where!r} must be a number, a string, null, true, false, {{"base64": "..."}} or '
        '{{"float": "Infinity"}}',
    )
