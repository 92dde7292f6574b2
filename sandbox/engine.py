"""The bench: one SQLite file, opened inside the jail, run under limits and a deadline.

Runs in: cells (`blank_database` in the zygote). The only module that imports apsw. SQLite's own
advice for hostile SQL is followed (https://www.sqlite.org/security.html); where our limits are
wider it is because honest SQL within 8 KB needs them, and the heap and the clocks still hold.
"""

import re
import time
from pathlib import Path
from typing import Any

import apsw

from sandbox import answers, blocklist, policy
from sandbox.answers import Bindings, Refusal

#: 10 MB: pages of 4,096 bytes (https://www.sqlite.org/pragma.html#pragma_max_page_count).
MAX_PAGES = 2560
HEAP_BYTES = 64 << 20
#: Opcodes between two looks at the clock: a third of the cost of looking every 100.
PROGRESS_STEPS = 250

LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: 1 << 20,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 65_536,
    apsw.SQLITE_LIMIT_COLUMN: 1000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 1000,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 500,
    apsw.SQLITE_LIMIT_VDBE_OP: 1_000_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 1000,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    # LIKE and GLOB are quadratic in the pattern and never look at the clock.
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: 32_766,
    # Bounds chains of ON DELETE CASCADE too, so not too low.
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 100,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_SWITCHES = {
    apsw.SQLITE_DBCONFIG_DEFENSIVE: 1,
    apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA: 0,
    apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION: 0,
    apsw.SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER: 0,
    apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA: 0,
}
# Exclusive locking before the first read keeps the WAL index in memory: no third file
# (https://www.sqlite.org/wal.html#noshm). Nobody asks a disposable database to survive the
# machine: synchronous=OFF.
_PRAGMAS = f"""
    PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL;
    PRAGMA max_page_count={MAX_PAGES}; PRAGMA temp_store=MEMORY;
    PRAGMA temp.max_page_count={MAX_PAGES}; PRAGMA foreign_keys=ON; PRAGMA mmap_size=0;
    PRAGMA cell_size_check=ON; PRAGMA wal_autocheckpoint=1000; PRAGMA journal_size_limit=0;
    PRAGMA busy_timeout=1000; SELECT count(*) FROM sqlite_schema;
"""  # noqa: S608 - nothing in it comes from outside
_CREATES_TEMP = {
    getattr(apsw, f"SQLITE_CREATE_TEMP_{kind}") for kind in ("INDEX", "TABLE", "TRIGGER", "VIEW")
}
_RULES = {getattr(apsw, name): rule for name, rule in policy.RULES.items()}
_VACUUM_RULES = {getattr(apsw, name): rule for name, rule in policy.VACUUM_RULES.items()}
#: A write that the file size limit stopped, not the page cap.
_DISK_FULL = (apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_TRUNCATE)
_COUNTED = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE", "WITH"})
_NOTHING_MORE = re.compile(r"(?:\s|;|--[^\n]*(?:\n|\Z)|/\*(?:.*?\*/|.*\Z))*", re.DOTALL)


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
        apsw.hard_heap_limit(HEAP_BYTES)
        self._open()

    def _open(self) -> None:
        connection = apsw.Connection(self._file, flags=apsw.SQLITE_OPEN_READWRITE)
        for switch, on in _SWITCHES.items():
            connection.config(switch, on)
        connection.drop_modules(["fts5", "fts5vocab", "rtree", "rtree_i32"])
        connection.execute(_PRAGMAS).fetchall()
        for limit, value in LIMITS.items():
            connection.limit(limit, value)
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._is_late, PROGRESS_STEPS)
        self._connection = connection
        self._left_behind = False

    def close(self) -> None:
        """Fold the WAL into the file, empty it (the jail keeps it from being removed), close."""
        self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.close()

    def run(self, sql: str, args: Bindings | None, deadline: float) -> bytes:
        """Run one call's statements and return the body of its 200. Raises Refusal.

        `deadline` is in seconds of time.monotonic(). Statements before one that fails stay done
        unless the call had opened a transaction.
        """
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
        self, action: int, first: str | None, second: str | None, _: str | None, __: str | None
    ) -> int:
        if action in _CREATES_TEMP or (
            action == apsw.SQLITE_PRAGMA and second and first in policy.PRAGMAS_OF_A_CALL
        ):
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
        self._columns: list[str] | None = None
        self._rows: list[bytes] = []
        self._rows_bytes = 0
        self._truncated = False
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
        return answers.encode_result(
            self._columns, self._rows, self._affected, truncated=self._truncated
        )

    def _collect(self, args: Bindings | None) -> None:
        for row in self._cursor.execute(self._sql, args):
            if self._truncated:
                continue
            encoded = answers.encode_row(row)
            self._rows_bytes += len(encoded) + 1
            if len(self._rows) < answers.MAX_ROWS and self._rows_bytes <= answers.MAX_ROWS_BYTES:
                self._rows.append(encoded)
                continue
            self._truncated = True
            # A read that nothing follows need not be run to its end; anything else must be.
            if self._cursor.is_readonly and _NOTHING_MORE.fullmatch(self._sql, self._next_at):
                return

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
        if columns:
            self._columns = [column[0] for column in columns]
            self._rows = []
            self._rows_bytes = 0
            self._truncated = False
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
        ahead = isinstance(error, apsw.BindingsError | KeyError) or self._next_does_not_prepare()
        at = self._next_at if ahead else self._at
        place = {"statement": self._statement + 1 if ahead else self._statement}
        offset_bytes = getattr(error, "error_offset", -1)
        if offset_bytes >= 0:
            offset = at + len(self._sql[at:].encode()[:offset_bytes].decode(errors="ignore"))
            place["offset"] = offset
            place["line"] = self._sql.count("\n", 0, offset) + 1
            place["column"] = offset - self._sql.rfind("\n", 0, offset)
        return place

    def _next_does_not_prepare(self) -> bool:
        """Say whether it was the statement after the current one that failed.

        SQLite's errors do not tell preparing from running, so the rest is prepared once more;
        the tracer stops it before it runs.
        """
        rest = self._sql[self._next_at :]
        if _NOTHING_MORE.fullmatch(rest):
            return False
        cursor = self._connection.cursor()
        cursor.exec_trace = lambda *_: False
        try:
            cursor.execute(rest)
        except (apsw.ExecTraceAbort, apsw.BindingsError):
            return False
        except apsw.Error:
            return True
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
            case apsw.AuthError() if self._denials:
                return Refusal(*self._denials[-1])
            case apsw.NoMemError() | MemoryError():
                return Refusal("out_of_memory", "out of memory")
            case apsw.BindingsError():
                return Refusal("invalid_args", str(error))
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
