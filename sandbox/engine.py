"""The bench: one SQLite file, opened inside the jail, run under limits and a deadline.

Runs in: cells (`blank_database` in the zygote). With statements.py the only module that imports
apsw; what SQL may do and how much of it is written down in policy.py.
"""

import contextlib
import time
from pathlib import Path

import apsw

from sandbox import blocklist, policy
from sandbox.answers import Bindings, Refusal
from sandbox.statements import Statements, code_name

_RULES = {getattr(apsw, name): rule for name, rule in policy.RULES.items()}
_VACUUM_RULES = {getattr(apsw, name): rule for name, rule in policy.VACUUM_RULES.items()}
#: A file that somebody else has written to or cut off; all of it was there before the cell.
_DAMAGED = (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError)


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
            self._damage = Refusal("sql_error", words, sqlite_code=code_name(error))

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
            return Statements(self._connection, sql, deadline, self._denials).run(args)
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
