"""The forms an answer, or rows that come in, can have: their numbers, their media types, caps.

Runs in: front desk and cells; standard library only. An error is JSON whatever was asked for.
"""

from enum import IntEnum


class Form(IntEnum):
    """How the rows of a 200 are written; FILE is the database itself, SQL what makes it again."""

    JSON = 0
    NDJSON = 1
    CSV = 2
    MARKDOWN = 3
    FILE = 4
    SQL = 5


class Written(IntEnum):
    """How rows are written that come in."""

    CSV = 0
    TSV = 1
    NDJSON = 2
    JSON = 3


#: What `Accept` names and `Content-Type` says. One answer has one form; the first is the default.
MEDIA_TYPES = {
    Form.JSON: "application/json",
    Form.NDJSON: "application/x-ndjson",
    Form.CSV: "text/csv",
    Form.MARKDOWN: "text/markdown",
    Form.FILE: "application/vnd.sqlite3",
    Form.SQL: "application/sql",
}
#: Those that rows can have.
FOR_ROWS = frozenset({Form.JSON, Form.NDJSON, Form.CSV, Form.MARKDOWN})
#: Those that may go out while there is more to come.
AS_THEY_COME = (Form.NDJSON, Form.CSV, Form.FILE, Form.SQL)
#: The contract's caps on the rows of one answer; a caller may set lower ones.
MAX_ROWS = 10_000
MAX_ROWS_BYTES = 1 << 20
