"""The bodies of a cell's 200s: what a call's statements came to.

Runs in: cells.
"""

from typing import Any, NamedTuple

import orjson

from sandbox import frames
from sandbox.forms import Form
from sandbox.frames import MAX_ANSWER_BYTES
from sandbox.refusal import Refusal
from sandbox.rows import Rows

_HINT = "aggregate, or page with ORDER BY, LIMIT and OFFSET"


class Result(NamedTuple):
    """What one statement came to; `rows` is None if it returned no columns."""

    rows: Rows | None
    affected: int
    #: Of an INSERT that made a row.
    rowid: int | None = None
    #: How many rows there were, where they were cut and that was soon counted.
    total: int | None = None


class Answer(NamedTuple):
    """The body of a 200, or the rest of it, and its marks (frames.py)."""

    body: bytes
    marks: int = 0


def encode_result(result: Result, *, budgeted: bool = False, **more: Any) -> bytes:
    """Return a result as JSON; `more` are further members of its object.

    To a caller with a budget of his own `truncated` says which cap it was.
    """
    rows = result.rows
    body = b'"rows_affected":%d' % result.affected
    if rows is not None:
        # The rows first: only then is it known whether they were cut.
        body = b'"rows":[%b],%b' % (rows.end(), body)
        body = b'"columns":%b,%b' % (orjson.dumps(rows.columns), body)
        if budgeted:
            more = _told(result, rows) | more
        elif rows.cut:
            body += b',"truncated":true'
    if result.rowid is not None:
        more = {"last_insert_rowid": result.rowid} | more
    if more:
        body += b"," + orjson.dumps(more)[1:-1]
    return _fitting(b"{%b}" % body, "the names of the columns alone are")


def _fitting(body: bytes, what: str) -> bytes:
    if len(body) > MAX_ANSWER_BYTES:
        raise Refusal("sql_error", f"{what} too long for an answer")
    return body


def _told(result: Result, rows: Rows) -> dict[str, Any]:
    """Return what a caller with a budget is told of what it cut."""
    told: dict[str, Any] = {}
    if rows.cut:
        told = {"truncated": rows.cut, "hint": _HINT}
    if rows.cut and result.total is not None:
        told["total_rows"] = result.total
    if rows.cells_cut:
        told["cells_cut"] = rows.cells_cut
    return told


def encode_each(results: list[Result], *, budgeted: bool = False, **more: Any) -> Answer:
    """Return the body that has every statement's result."""
    pieces = [encode_result(one, budgeted=budgeted) for one in results]
    body = b'"results":[%b]' % b",".join(pieces)
    if more:
        body += b"," + orjson.dumps(more)[1:-1]
    body = _fitting(b"{%b}" % body, "the results together are")
    return Answer(body, sum({marks(one.rows) for one in results}))


def encode_plans(trees: list[list[dict[str, Any]]]) -> bytes:
    """Return the body that has every statement's plan."""
    body = orjson.dumps({"plans": trees, "rows_affected": 0})
    return _fitting(body, "the plans are")


def encode_lines(result: Result, form: Form) -> Answer:
    """Return a result in a form that has rows and nothing else, or the rest of it.

    What returned no columns has one: how many rows it changed.
    """
    rows = result.rows
    assert rows is not None  # noqa: S101 - statements.py makes some of what has none
    body = rows.end()
    if form is Form.MARKDOWN and rows.cut:
        total = "more" if result.total is None else f"{result.total:,}"
        body += f"\n*Cut by {rows.cut}: {rows.count:,} of {total} rows; {_HINT}.*\n".encode()
    return Answer(_fitting(body, "the rows are"), marks(rows))


def marks(rows: Rows | None) -> int:
    """Return the mark for the cap that has cut the rows."""
    if rows is None or not rows.cut:
        return 0
    return frames.CUT_ROWS if rows.cut == "max_rows" else frames.CUT_BYTES
