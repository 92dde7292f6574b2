"""The rows of one answer: taken one by one, written in batches, cut at caps.

Runs in: cells. The caps are the contract's, or lower ones of the caller's.
"""

import re
from collections.abc import Callable
from sys import getsizeof
from typing import Any

from sandbox.calls import Shape
from sandbox.encoders import Row, encoder
from sandbox.forms import MAX_ROWS_BYTES

#: Rows encoded in one go, and how much memory they may take till then. One by one, each would cost
#: three times as much.
_BATCH_ROWS = 100
_BATCH_BYTES = 65_536

#: How EXPLAIN writes where a virtual table lies in memory; all cells have the same layout.
_ADDRESS = re.compile("vtab:[0-9A-F]+")


class Rows:
    """Takes a statement's rows one by one and holds what of them an answer has room for.

    With `say`, what is encoded is said as soon as it is enough for a piece, and no cap but the
    clock ends it: rows that go on their way take no room here.
    """

    def __init__(
        self,
        columns: list[str],
        shape: Shape = Shape(),  # noqa: B008 - it cannot be changed
        *,
        explained: bool = False,
        say: Callable[[bytes], None] | None = None,
    ) -> None:
        self.columns = columns
        self._shape = shape
        #: They are EXPLAIN's, which tells more than a caller is to know.
        self._explained = explained
        self._say = say
        self._encoder = encoder(shape.form, columns, objects=shape.objects)
        self._is_plain = not (explained or shape.integers_as_text or shape.max_cell_bytes)
        self._waiting: list[Row] = []
        self._weight = 0
        self._pieces: list[bytes] = []
        self._bytes = 0
        self.count = 0
        #: How many there were, kept or not; at least so many, if they are not all counted.
        self.taken = 0
        #: Whether those are all that there are.
        self.is_counted = True
        #: The cap that cut them: `max_rows`, `max_bytes`, or none.
        self.cut = ""
        #: Values that were too long for `max_cell_bytes`.
        self.cells_cut = 0
        #: Whether some are on their way already.
        self.said = False

    @property
    def size(self) -> int:
        """How many bytes are held of them."""
        return self._bytes

    def add(self, row: Row) -> bool:
        """Take the next row; say whether there may be room for another."""
        self.taken += 1
        if not self._is_plain:
            row = tuple(map(self._prepare, row))
        self._waiting.append(row)
        # More than their letters, and a wide row's at once: JSON may grow it sixfold.
        self._weight += sum(map(getsizeof, row))
        if self._weight > _BATCH_BYTES or len(self._waiting) == _BATCH_ROWS:
            self._flush()
        return not self.cut

    def end(self) -> bytes:
        """Return the rows, or what of them has not been said. Only now is `cut` the last word."""
        self._flush()
        head = b"" if self.said else self._encoder.head
        return head + self._encoder.between.join(self._pieces)

    def _flush(self) -> None:
        rows, weight = self._waiting, self._weight
        self._waiting, self._weight = [], 0
        if not rows or self.cut:
            return
        if weight <= MAX_ROWS_BYTES and self._keep(self._encoder.encode(rows), len(rows)):
            return
        for row in rows:
            if self._say is None and is_too_long(row):
                self.cut = "max_bytes"
            elif not self._keep(self._encoder.encode([row]), 1):
                is_many = self.count >= self._shape.max_rows
                self.cut = "max_rows" if is_many else "max_bytes"
            if self.cut:
                return

    def _keep(self, piece: bytes, count: int) -> bool:
        size = self._bytes + len(piece) + 1
        if self._say is None and (
            size > self._shape.max_bytes or self.count + count > self._shape.max_rows
        ):
            return False
        self._pieces.append(piece)
        self._bytes = size
        self.count += count
        if self._say is not None and size > _BATCH_BYTES:
            self._say((b"" if self.said else self._encoder.head) + b"".join(self._pieces))
            self.said = True
            self._pieces.clear()
            self._bytes = 0
        return True

    def _prepare(self, value: Any) -> Any:
        """Return a value as the caller wants it: short enough, an integer as text."""
        if self._explained and isinstance(value, str) and _ADDRESS.fullmatch(value):
            return "vtab"
        if isinstance(value, int):
            return str(value) if self._shape.integers_as_text else value
        most = self._shape.max_cell_bytes
        if most is None or not isinstance(value, str | bytes) or len(value) * 4 <= most:
            return value
        return self._shortened(value, most)

    def _shortened(self, value: str | bytes, most: int) -> str | bytes:
        is_text = isinstance(value, str)
        content = value.encode() if isinstance(value, str) else value
        if len(content) <= most:
            return value
        self.cells_cut += 1
        if not is_text:
            return content[:most]
        kept = content[:most].decode(errors="ignore")
        return f"{kept}… ({len(content) - len(kept.encode()):,} bytes more)"


def is_too_long(row: Row) -> bool:
    """Say whether a row cannot fit an answer, before it is encoded."""
    return sum(len(value) for value in row if isinstance(value, str | bytes)) > MAX_ROWS_BYTES
