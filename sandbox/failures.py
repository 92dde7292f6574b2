"""A call that failed: where in its SQL, and what its caller is told of it.

Runs in: cells. SQLite's errors come as apsw's exceptions.
"""

from typing import NamedTuple

import apsw

from sandbox import parameters, repair, tokens
from sandbox.calls import Bindings, Call
from sandbox.ours import Ours
from sandbox.policy import Denial
from sandbox.refusal import Refusal

#: A write that the file size limit stopped, not the page cap.
_DISK_FULL = (apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_TRUNCATE)


class Where(NamedTuple):
    """Where a call stands: the statement in work and its text, from where to where in the SQL."""

    connection: apsw.Connection
    call: Call
    #: What the gate had refused of it till then.
    denial: Denial | None
    ours: Ours
    statement: int
    text: str
    at: int
    next_at: int
    #: Of `many`, and what is bound.
    set: int
    values: Bindings | None


def _place(error: Exception, where: Where, *, ahead: bool) -> dict[str, int]:
    """Return which statement failed and, where SQLite says so, where in the call's SQL."""
    sql = where.call.sql
    at = where.next_at if ahead else where.at
    place = {"statement": where.statement + 1 if ahead else where.statement}
    if where.call.many is not None and where.set >= 0:  # a plan is made for none of them
        place["set"] = where.set
    offset_bytes = getattr(error, "error_offset", -1)
    if offset_bytes >= 0:
        offset = at + len(sql[at:].encode()[:offset_bytes].decode(errors="ignore"))
        place["offset"] = offset
        place["line"] = sql.count("\n", 0, offset) + 1
        place["column"] = offset - sql.rfind("\n", 0, offset)
    return place


def _is_ahead(error: Exception, where: Where) -> bool:
    """Say whether it was the statement after the current one that failed."""
    return isinstance(error, apsw.BindingsError | KeyError) or _next_fails_with(error, where)


def _next_fails_with(error: Exception, where: Where) -> bool:
    """Say whether the statement after the current one fails with that error.

    SQLite's errors do not tell preparing from running, so the rest is prepared once more;
    the tracer stops it before it runs.
    """
    if tokens.is_blank(where.call.sql, where.next_at):
        return False
    cursor = where.connection.cursor()
    cursor.exec_trace = lambda *_: False
    try:
        cursor.execute(where.call.sql[where.next_at :])
    except (apsw.ExecTraceAbort, apsw.BindingsError):
        return False
    except apsw.Error as again:
        return str(again) == str(error)
    finally:
        cursor.close(force=True)
    return False


def of_a_shortage(error: Exception) -> Refusal | None:
    """Return the refusal for want of time or room, None for an error of another kind."""
    if isinstance(error, apsw.InterruptError):
        return Refusal("query_timeout")
    if isinstance(error, apsw.FullError) or _extended(error) in _DISK_FULL:
        return Refusal("quota_exceeded")
    return None


def refusal(error: Exception, where: Where) -> Refusal:
    """Return what the caller is told of an error while running."""
    if shortage := of_a_shortage(error):
        return shortage
    ahead = _is_ahead(error, where)
    refused = _explain(error, where, ahead=ahead)
    refused.fields.update(_place(error, where, ahead=ahead))
    return refused


def _explain(error: Exception, where: Where, *, ahead: bool) -> Refusal:
    match error:
        case apsw.AuthError() | apsw.SQLError() if where.denial:
            return Refusal(*where.denial)
        case apsw.NoMemError() | MemoryError():
            return Refusal("out_of_memory", "out of memory")
        case apsw.BindingsError():
            return parameters.fault(where.call.sql, where.values)
        case KeyError():
            return Refusal("invalid_args", f"no value for parameter {error.args[0]!r}")
        case UnicodeDecodeError():
            return Refusal(
                "text_not_utf8",
                "a text value in the result is not valid UTF-8",
                hint="CAST it to BLOB to read its bytes",
            )
        case _:
            # What was not begun has no text of its own: it and what follows.
            text = where.call.sql[where.next_at :] if ahead else where.text
            return explained(error, text, where.ours)


def explained(error: Exception, text: str, ours: Ours) -> Refusal:
    """Return the refusal for an error of SQLite's in a statement, with what would mend it."""
    name = code_name(error)
    code, fields = repair.explain(str(error), name, text, ours)
    return Refusal(code, str(error), sqlite_code=name, **fields)


def _extended(error: Exception) -> int:
    """Return SQLite's extended result code, 0 for an error of apsw's own."""
    return int(getattr(error, "extendedresult", 0))


def code_name(error: Exception) -> str:
    """Return SQLite's name of an error, the extended one where there is one."""
    name = apsw.mapping_extended_result_codes.get(_extended(error))
    return str(name or apsw.mapping_result_codes[_extended(error) & 0xFF])
