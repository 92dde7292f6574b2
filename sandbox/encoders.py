"""Rows as bytes, in each form that an answer can have.

Runs in: cells. Integers, floats, text and null are what they are wherever a form has them; what it
has not has one way to be written:

| value             | JSON, NDJSON              | CSV                 | Markdown   |
|-------------------|---------------------------|---------------------|------------|
| null              | null                      | nothing, unquoted   | NULL       |
| text              | a string                  | always quoted       | escaped    |
| BLOB              | {"base64": "AAE="}        | base64:AAE=         | as in CSV  |
| infinite float    | {"float": "-Infinity"}    | -Infinity           | as in CSV  |
| float without fraction | 1.0                  | 1.0                 | 1.0        |

SQLite has no NaN: it is null before it gets here. In CSV (RFC 4180) nothing but text is quoted, so
each value can be read back as what it was.
"""

import math
from base64 import b64encode
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from sandbox.forms import Form

Row = tuple[Any, ...]


class Encoder(NamedTuple):
    """One form: what comes first, what batches of rows become, and what stands between those."""

    head: bytes
    encode: Callable[[list[Row]], bytes]
    between: bytes = b""


def encoder(form: Form, columns: list[str], *, objects: bool) -> Encoder:
    """Return how rows with these columns are written."""
    if form is Form.JSON and not objects:
        return _ARRAYS
    if form is Form.CSV:
        return Encoder(_csv_line(distinct(columns)), _csv)
    if form is Form.MARKDOWN:
        names = _markdown_line(distinct(columns))
        return Encoder(names + b"|" + b"---|" * len(columns) + b"\n", _markdown)
    # An object for each row: names are what makes a line be read alone.
    keys = distinct(columns)
    if form is Form.NDJSON:
        return Encoder(b"", lambda rows: _lines([_object(keys, row) for row in rows]))
    return Encoder(b"", lambda rows: _objects([_object(keys, row) for row in rows], rows), b",")


def _object(keys: list[str], row: Row) -> dict[str, Any]:
    return dict(zip(keys, row, strict=True))


def distinct(names: list[str]) -> list[str]:
    """Return the names of columns, a second `id` as `id_2`, so that none hides another."""
    if len(set(names)) == len(names):
        return names
    taken = set(names)
    found: list[str] = []
    seen: set[str] = set()
    following: dict[str, int] = {}
    for name in names:
        number = following.get(name, 2)
        free = name
        while free in seen or (free != name and free in taken):
            free = f"{name}_{number}"
            number += 1
        seen.add(free)
        following[name] = number
        found.append(free)
    return found


def _arrays(rows: list[Row]) -> bytes:
    encoded = orjson.dumps(rows, default=_blob)
    # orjson writes an infinity as null; look closer only where a null is.
    if b"null" in encoded and any(math.inf in row or -math.inf in row for row in rows):
        finite = [[_infinity(value) for value in row] for row in rows]
        encoded = orjson.dumps(finite, default=_blob)
    return encoded[1:-1]


def _objects(found: list[dict[str, Any]], rows: list[Row]) -> bytes:
    if any(math.inf in row or -math.inf in row for row in rows):
        found = [{name: _infinity(value) for name, value in one.items()} for one in found]
    return orjson.dumps(found, default=_blob)[1:-1]


def _lines(found: list[dict[str, Any]]) -> bytes:
    pieces = []
    for one in found:
        line = orjson.dumps(one, default=_blob, option=orjson.OPT_APPEND_NEWLINE)
        if b"null" in line:
            finite = {name: _infinity(value) for name, value in one.items()}
            line = orjson.dumps(finite, default=_blob, option=orjson.OPT_APPEND_NEWLINE)
        pieces.append(line)
    return b"".join(pieces)


def _blob(value: Any) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    raise TypeError(type(value).__name__)


def _infinity(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return {"float": "Infinity" if value > 0 else "-Infinity"}
    return value


def _plain(value: Any) -> str:
    """Return a value that is neither text nor null as CSV and Markdown have it."""
    if isinstance(value, bytes):
        return "base64:" + b64encode(value).decode()
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return orjson.dumps(value).decode()


def _csv(rows: list[Row]) -> bytes:
    return b"".join(map(_csv_line, rows))


def _csv_line(row: list[str] | Row) -> bytes:
    fields = [
        '"' + value.replace('"', '""') + '"'
        if isinstance(value, str)
        else ("" if value is None else _plain(value))
        for value in row
    ]
    return (",".join(fields) + "\r\n").encode()


def _markdown(rows: list[Row]) -> bytes:
    return b"".join(map(_markdown_line, rows))


def _markdown_line(row: list[str] | Row) -> bytes:
    cells = [
        value.replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("\r\n", "<br>")
        .replace("\n", "<br>")
        .replace("\r", "<br>")
        if isinstance(value, str)
        else ("NULL" if value is None else _plain(value))
        for value in row
    ]
    return ("| " + " | ".join(cells) + " |\n").encode()


_ARRAYS = Encoder(b"", _arrays, b",")
