"""A call's way through its statements, one after the other, and where it was when one failed.

Runs in: cells. What a statement may do is not decided here: the engine has set that up.
"""

import time
from typing import Any

import apsw

from sandbox import answers, blocklist, policy
from sandbox.answers import Bindings, Refusal
from sandbox.rows import Rows

#: A write that the file size limit stopped, not the page cap.
_DISK_FULL = (apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_TRUNCATE)
_COUNTED = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE", "WITH"})


class Statements:
    """One call's statements: what came back, what changed, where it stands."""

    def __init__(
        self,
        connection: apsw.Connection,
        sql: str,
        deadline: float,
        denials: list[policy.Denial],
    ) -> None:
        self._connection = connection
        self._denials = denials
        self._cursor = connection.cursor()
        self._cursor.exec_trace = self._begin_statement
        self._sql = sql
        self._deadline = deadline
        self._statement = -1
        self._text = ""
        self._at = 0
        self._next_at = 0
        self._changes_before = 0
        #: Of the last statement that returned columns.
        self._rows: Rows | None = None
        self._affected = 0

    def run(self, args: Bindings | None) -> bytes:
        """Run the statements and return the body of a 200. Raises Refusal."""
        try:
            try:
                self._collect(args)
                self._count_changes()
            except (apsw.Error, KeyError, MemoryError, UnicodeDecodeError) as error:
                raise self._refusal(error) from None
        finally:
            self._cursor.close(force=True)
            was_open = self._connection.in_transaction
            if was_open:
                self._connection.execute("ROLLBACK")
        if was_open:
            raise Refusal(
                "transaction_open",
                "the call ended inside a transaction, which was rolled back",
                hint="put BEGIN and COMMIT into one call",
            )
        return answers.encode_result(self._rows, self._affected)

    def _collect(self, args: Bindings | None) -> None:
        for row in self._cursor.execute(self._sql, args):
            rows = self._rows
            if rows is None or rows.truncated:
                continue
            # A read that nothing follows need not be run to its end; anything else must be.
            if not rows.add(row) and self._cursor.is_readonly and self._is_last():
                return

    def _is_last(self) -> bool:
        return blocklist.is_blank(self._sql, self._next_at)

    def _begin_statement(self, cursor: apsw.Cursor, text: str, _: Any) -> bool:
        """Called by apsw before each statement with its piece of the call's SQL."""
        self._count_changes()
        if time.monotonic() >= self._deadline:
            raise apsw.InterruptError("interrupted")
        self._statement += 1
        self._text = text
        self._at = self._next_at
        self._next_at += len(text)
        self._changes_before = self._connection.total_changes()
        columns = cursor.get_description()
        # ALTER TABLE ... ADD CONSTRAINT shows the column of a query of SQLite's own.
        if columns and blocklist.first_word(text) != "ALTER":
            names = [column[0] for column in columns]
            self._rows = Rows(names, explained=bool(cursor.is_explain))
        return True

    def _count_changes(self) -> None:
        # changes() keeps its value over statements that change nothing, total_changes() counts
        # triggers and shadow tables too; together, and by the first word, they tell.
        if (
            self._statement >= 0
            and self._connection.total_changes() != self._changes_before
            and blocklist.first_word(self._text) in _COUNTED
        ):
            self._affected += self._connection.changes()

    def place(self, error: Exception) -> dict[str, int]:
        """Return which statement failed and, where SQLite says so, where in the call's SQL."""
        ahead = isinstance(error, apsw.BindingsError | KeyError) or self._next_fails_with(error)
        at = self._next_at if ahead else self._at
        place = {"statement": self._statement + 1 if ahead else self._statement}
        offset_bytes = getattr(error, "error_offset", -1)
        if offset_bytes >= 0:
            offset = at + len(self._sql[at:].encode()[:offset_bytes].decode(errors="ignore"))
            place["offset"] = offset
            place["line"] = self._sql.count("\n", 0, offset) + 1
            place["column"] = offset - self._sql.rfind("\n", 0, offset)
        return place

    def _next_fails_with(self, error: Exception) -> bool:
        """Say whether it was the statement after the current one that failed.

        SQLite's errors do not tell preparing from running, so the rest is prepared once more;
        the tracer stops it before it runs.
        """
        if self._is_last():
            return False
        cursor = self._connection.cursor()
        cursor.exec_trace = lambda *_: False
        try:
            cursor.execute(self._sql[self._next_at :])
        except (apsw.ExecTraceAbort, apsw.BindingsError):
            return False
        except apsw.Error as again:
            return str(again) == str(error)
        finally:
            cursor.close(force=True)
        return False

    def _refusal(self, error: Exception) -> Refusal:
        """Return what the caller is told of an error while running."""
        if isinstance(error, apsw.InterruptError):
            return Refusal("query_timeout")
        if isinstance(error, apsw.FullError) or _extended(error) in _DISK_FULL:
            return Refusal("quota_exceeded")
        refusal = self._explain(error)
        refusal.fields.update(self.place(error))
        return refusal

    def _explain(self, error: Exception) -> Refusal:
        match error:
            case apsw.AuthError() | apsw.SQLError() if self._denials:
                return Refusal(*self._denials[0])
            case apsw.NoMemError() | MemoryError():
                return Refusal("out_of_memory", "out of memory")
            case apsw.BindingsError():
                return Refusal(
                    "invalid_args", "the number of values or their form is not the statement's"
                )
            case KeyError():
                return Refusal("invalid_args", f"no value for parameter {error.args[0]!r}")
            case UnicodeDecodeError():
                return Refusal(
                    "text_not_utf8",
                    "a text value in the result is not valid UTF-8",
                    hint="CAST it to BLOB to read its bytes",
                )
            case _:
                return Refusal("sql_error", str(error), sqlite_code=code_name(error))


def _extended(error: Exception) -> int:
    """Return SQLite's extended result code, 0 for an error of apsw's own."""
    return int(getattr(error, "extendedresult", 0))


def code_name(error: Exception) -> str:
    """Return SQLite's name of an error, the extended one where there is one."""
    name = apsw.mapping_extended_result_codes.get(_extended(error))
    return str(name or apsw.mapping_result_codes[_extended(error) & 0xFF])
