"""The rows of one answer: JSON in batches, cut at the contract's caps.

Runs in: cells. JSON carries integers, floats, text and null as they are. What it cannot carry has
one form, the same in arguments (answers.py) and in rows: a BLOB is {"base64": "..."}, an infinite
float is {"float": "Infinity"} or {"float": "-Infinity"}.
"""

import math
import re
from base64 import b64encode
from sys import getsizeof
from typing import Any

import orjson

Row = tuple[Any, ...]

MAX_ROWS = 10_000
MAX_ROWS_BYTES = 1 << 20
#: Rows encoded in one go, and how much memory they may take till then. One by one, each would cost
#: three times as much.
_BATCH_ROWS = 100
_BATCH_BYTES = 65_536

#: How EXPLAIN writes where a virtual table lies in memory; all cells have the same layout.
_ADDRESS = re.compile("vtab:[0-9A-F]+")


class Rows:
    """Takes a statement's rows one by one and holds what of them an answer has room for."""

    def __init__(self, columns: list[str], *, explained: bool = False) -> None:
        self.columns = columns
        #: They are EXPLAIN's, which tells more than a caller is to know.
        self._explained = explained
        self._waiting: list[Row] = []
        self._weight = 0
        self._pieces: list[bytes] = []
        self._count = 0
        self._bytes = 0
        self.truncated = False

    def add(self, row: Row) -> bool:
        """Take the next row; say whether there may be room for another."""
        if self._explained:
            row = _without_addresses(row)
        self._waiting.append(row)
        # More than their letters, and a wide row's at once: JSON may grow it sixfold.
        self._weight += sum(map(getsizeof, row))
        if self._weight > _BATCH_BYTES or len(self._waiting) == _BATCH_ROWS:
            self._flush()
        return not self.truncated

    def json(self) -> bytes:
        """Return the rows, an array of arrays. Only now is `truncated` the last word."""
        self._flush()
        return b"[%s]" % b",".join(self._pieces)

    def _flush(self) -> None:
        rows, weight = self._waiting, self._weight
        self._waiting, self._weight = [], 0
        if not rows or self.truncated:
            return
        if weight <= MAX_ROWS_BYTES and self._keep(_encode(rows)[1:-1], len(rows)):
            return
        for row in rows:
            if is_too_long(row) or not self._keep(_encode([row])[1:-1], 1):
                self.truncated = True
                return

    def _keep(self, piece: bytes, count: int) -> bool:
        size = self._bytes + len(piece) + 1
        if size > MAX_ROWS_BYTES or self._count + count > MAX_ROWS:
            return False
        self._pieces.append(piece)
        self._bytes = size
        self._count += count
        return True


def _encode(rows: list[Row]) -> bytes:
    encoded = orjson.dumps(rows, default=_blob)
    # orjson writes an infinity as null; look closer only where a null is.
    if b"null" in encoded and any(math.inf in row or -math.inf in row for row in rows):
        finite = [[_infinity(value) for value in row] for row in rows]
        encoded = orjson.dumps(finite, default=_blob)
    return encoded


def is_too_long(row: Row) -> bool:
    """Say whether a row cannot fit an answer, before it is encoded."""
    return sum(len(value) for value in row if isinstance(value, str | bytes)) > MAX_ROWS_BYTES


def _without_addresses(row: Row) -> Row:
    """Return a row of EXPLAIN without what it tells about the process."""
    return tuple(
        "vtab" if isinstance(value, str) and _ADDRESS.fullmatch(value) else value for value in row
    )


def _blob(value: Any) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    raise TypeError(type(value).__name__)


def _infinity(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return {"float": "Infinity" if value > 0 else "-Infinity"}
    return value
