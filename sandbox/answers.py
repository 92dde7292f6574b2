"""JSON in and out of a cell: rows, values, error bodies, bound arguments.

Runs in: cells. JSON carries integers, floats, text and null as they are. What it cannot carry has
one form, the same in arguments and in rows: a BLOB is {"base64": "..."}, an infinite float is
{"float": "Infinity"} or {"float": "-Infinity"}.
"""

import binascii
import json
import math
import re
from base64 import b64decode, b64encode
from typing import Any

import orjson

from sandbox.codes import CODES
from sandbox.frames import MAX_ANSWER_BYTES

Value = None | int | float | str | bytes
Bindings = list[Value] | dict[str, Value]

MAX_ROWS = 10_000
MAX_ROWS_BYTES = 1 << 20

_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}
_INT64 = range(-(1 << 63), 1 << 63)
#: How EXPLAIN writes where a virtual table lies in memory; all cells have the same layout.
_ADDRESS = re.compile("vtab:[0-9A-F]+")


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


def is_too_long(row: tuple[Any, ...]) -> bool:
    """Say whether a row cannot fit an answer, before it is encoded: JSON grows it up to sixfold."""
    return sum(len(value) for value in row if isinstance(value, str | bytes)) > MAX_ROWS_BYTES


def without_addresses(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of EXPLAIN without what it tells about the process."""
    return tuple(
        "vtab" if isinstance(value, str) and _ADDRESS.fullmatch(value) else value for value in row
    )


def encode_row(row: tuple[Any, ...]) -> bytes:
    """Return one row as a JSON array."""
    encoded = orjson.dumps(row, default=_blob)
    # orjson writes an infinity as null; look closer only where a null is.
    if b"null" in encoded and (math.inf in row or -math.inf in row):
        encoded = orjson.dumps([_infinity(value) for value in row], default=_blob)
    return encoded


def encode_result(
    columns: list[str] | None, rows: list[bytes], rows_affected: int, *, truncated: bool
) -> bytes:
    """Return the body of a 200: columns and rows only if a statement returned columns."""
    end = b'"rows_affected":%d%s}' % (rows_affected, b',"truncated":true' if truncated else b"")
    if columns is None:
        return b"{" + end
    body = b'{"columns":%s,"rows":[%s],%s' % (orjson.dumps(columns), b",".join(rows), end)
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


def _blob(value: Any) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    raise TypeError(type(value).__name__)


def _infinity(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return {"float": "Infinity" if value > 0 else "-Infinity"}
    return value


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
