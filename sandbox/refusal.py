"""A cell's refusal: a call that ends in an error, in the contract's one shape.

Runs in: cells.
"""

from typing import Any

import orjson

from sandbox.codes import CODES

#: Of an error's words.
_MOST_LETTERS = 4000


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


def encode(refusal: Refusal, request_id: str) -> tuple[int, bytes]:
    """Return status and body of an error answer."""
    row = CODES[refusal.code]
    detail = refusal.detail
    if len(detail) > _MOST_LETTERS:  # SQLite's words may hold a value of the caller's
        detail = detail[:_MOST_LETTERS] + "…"
    return row.status, orjson.dumps(row.body(detail, request_id, refusal.fields))
