"""The bench: one SQLite file, opened inside the jail, run under limits and a deadline.

Runs in: cells (`blank_database` in the zygote). The only module that imports apsw; what SQL may
do and how much of it is written down in policy.py.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

import apsw

from sandbox import answers, blocklist, policy
from sandbox.answers import Bindings, Refusal
from sandbox.rows import Rows

_RULES = {getattr(apsw, name): rule for name, rule in policy.RULES.items()}
_VACUUM_RULES = {getattr(apsw, name): rule for name, rule in policy.VACUUM_RULES.items()}
#: A write that the file size limit stopped, not the page cap.
_DISK_FULL = (apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_TRUNCATE)
#: A file that somebody else has written to or cut off; all of it was there before the cell.
_DAMAGED = (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError)
_COUNTED = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE", "WITH"})


def blank_database() -> bytes:
    """Return an empty database file that is in WAL mode already.

    Bytes 18 and 19 of the header are the file format versions; 2 means WAL
    (https://www.sqlite.org/fileformat2.html#file_format_version_numbers). Made once in the
    zygote, it saves each new database the switch and the rollback journal that it takes.
    """
    connection = apsw.Connection(":memory:")
    try:
        connection.execute("PRAGMA page_size=4096; PRAGMA user_version=1; PRAGMA user_version=0")
        image = bytearray(connection.serialize("main"))
    finally:
        connection.close()
    image[18:20] = b"\x02\x02"
    return bytes(image)


def versions() -> dict[str, str]:
    """Return which SQLite runs the statements, and which binding."""
    return {"sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}


def seed_randomness() -> None:
    """Draw SQLite's random seed now: it comes from /dev/urandom, which the jail closes."""
    apsw.randomness(0)
    apsw.randomness(1)


class Engine:
    """One open database."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)
        self._deadline = 0.0
        self._denials: list[policy.Denial] = []
        self._rules = _RULES
        self._left_behind = False
        apsw.hard_heap_limit(policy.HEAP_BYTES)
        #: What every call is told where the file is no database any more.
        self._damage: Refusal | None = None
        self._open()

    def _open(self) -> None:
        self._left_behind = False
        try:
            self._connection = self._connect()
        except _DAMAGED as error:
            words = str(error) or "file is not a database"
            self._damage = Refusal("sql_error", words, sqlite_code=_code_name(error))

    def _connect(self) -> apsw.Connection:
        if not Path(self._file).stat().st_size:  # it never was empty
            raise apsw.exception_for(apsw.SQLITE_NOTADB)
        connection = apsw.Connection(self._file, flags=apsw.SQLITE_OPEN_READWRITE)
        for switch, on in policy.SWITCHES.items():
            connection.config(getattr(apsw, f"SQLITE_DBCONFIG_{switch}"), on)
        connection.drop_modules(sorted(policy.MODULES))
        connection.execute(policy.PRAGMAS).fetchall()
        for limit, value in policy.LIMITS.items():
            connection.limit(getattr(apsw, f"SQLITE_LIMIT_{limit}"), value)
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._is_late, policy.PROGRESS_STEPS)
        return connection

    def close(self) -> None:
        """Fold the WAL into the file, empty it (the jail keeps it from being removed), close."""
        if self._damage:
            return
        # An R-Tree may leave a read open behind an error. What is not folded in now is by the next.
        with contextlib.suppress(apsw.Error):
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.close()

    def run(self, sql: str, args: Bindings | None, deadline: float) -> bytes:
        """Run one call's statements and return the body of its 200. Raises Refusal.

        `deadline` is in seconds of time.monotonic(). Statements before one that fails stay done
        unless the call had opened a transaction.
        """
        if self._damage:
            raise self._damage.with_traceback(None)  # or it would grow with each call
        keyword = blocklist.forbidden(sql)
        if keyword:
            raise Refusal("forbidden_keyword", keyword)
        if "\0" in sql:
            raise Refusal("sql_error", "the text has a NUL character")
        self._deadline = deadline
        self._denials.clear()
        vacuum = policy.is_plain_vacuum(sql) if "vacuum" in sql.lower() else False
        if vacuum:
            self._rules = _VACUUM_RULES
            self._connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)
        try:
            return _Call(self._connection, sql, deadline, self._denials).run(args)
        finally:
            if vacuum:
                self._rules = _RULES
                self._connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)

    def tidy(self) -> None:
        """End what a call must not leave to the next: a transaction, temporary objects, pragmas."""
        if self._left_behind:
            self.close()
            self._open()

    def _is_late(self) -> bool:
        return time.monotonic() >= self._deadline

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, _: str | None
    ) -> int:
        name = apsw.mapping_authorizer_function[action]
        if policy.lasts_beyond_the_call(str(name), first, second, schema):
            self._left_behind = True
        rule = self._rules.get(action)
        denial = rule(first, second) if rule else None
        if denial is None:
            return apsw.SQLITE_OK
        self._denials.append(denial)
        return apsw.SQLITE_DENY


class _Call:
    """One call's way through its statements: what came back, what changed, where it stands."""

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
                return Refusal("sql_error", str(error), sqlite_code=_code_name(error))


def _extended(error: Exception) -> int:
    """Return SQLite's extended result code, 0 for an error of apsw's own."""
    return int(getattr(error, "extendedresult", 0))


def _code_name(error: Exception) -> str:
    """Return SQLite's name of an error, the extended one where there is one."""
    name = apsw.mapping_extended_result_codes.get(_extended(error))
    return str(name or apsw.mapping_result_codes[_extended(error) & 0xFF])
