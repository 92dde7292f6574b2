"""The gate: the one connection to the database, and what stands before everything that uses it.

Runs in: cells. What SQL may do and how much of it is written down in policy.py; here it is bound
to a connection: switches, limits, the authorizer, SQLite's own look at the clock.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

from sandbox import policy, receipts
from sandbox.failures import code_name
from sandbox.refusal import Refusal

_ACTIONS = {
    number: str(name)
    for number, name in apsw.mapping_authorizer_function.items()
    if isinstance(number, int)
}
_NUMBERS = {name: number for number, name in _ACTIONS.items()}

#: What is allowed, by the number that SQLite has for an action.
Rules = dict[int, policy.Rule]


def by_number(rules: dict[str, policy.Rule]) -> Rules:
    """Return rules by SQLite's numbers."""
    return {_NUMBERS[name]: rule for name, rule in rules.items()}


_PRAGMA = _NUMBERS["SQLITE_PRAGMA"]
RULES = by_number(policy.RULES)
READ_ONLY_RULES = by_number(policy.read_only(_NUMBERS))
#: A file that somebody else has written to or cut off; all of it was there before the cell.
_DAMAGED = (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError)
#: What shows the schema: a table, or the table form of a pragma.
_SCHEMA = ("sqlite_master", "sqlite_schema", "dbstat", "pragma_")


class Gate:
    """One open database file, of so many pages at most."""

    def __init__(self, file: Path, most_pages: int = policy.MAX_PAGES) -> None:
        self._file = str(file)
        self.most_pages = most_pages
        #: When a call must be over, in seconds of time.monotonic().
        self.deadline = 0.0
        #: What was refused since they were last cleared.
        self.denials: list[policy.Denial] = []
        #: Says whether what is being prepared is only explained.
        self.is_explained: Callable[[], bool] = lambda: False
        #: It keeps receipts, which calls are not to see.
        self.keeps_receipts = False
        #: Something was prepared, since this was last unset, that may show the schema.
        self.sees_schema = False
        self.set_rules(RULES)
        self._left_behind = False
        apsw.hard_heap_limit(policy.HEAP_BYTES)
        #: What every call is told where the file is no database any more.
        self._damage: Refusal | None = None
        self._open()

    def _open(self) -> None:
        self._left_behind = False
        try:
            self.connection = self._connect()
        except _DAMAGED as error:
            words = str(error) or "file is not a database"
            self._damage = Refusal("sql_error", words, sqlite_code=code_name(error))

    def _connect(self) -> apsw.Connection:
        if not Path(self._file).stat().st_size:  # it never was empty
            raise apsw.exception_for(apsw.SQLITE_NOTADB)
        connection = apsw.Connection(self._file, flags=apsw.SQLITE_OPEN_READWRITE)
        self.close_doors(connection, policy.pragmas(self.most_pages))
        self.keeps_receipts = connection.table_exists("main", receipts.TABLE)
        return connection

    def close_doors(self, connection: apsw.Connection, pragmas: str) -> None:
        """Let a connection do what policy.py lets it do, and no more."""
        for switch, on in policy.SWITCHES.items():
            connection.config(getattr(apsw, f"SQLITE_DBCONFIG_{switch}"), on)
        connection.drop_modules(sorted(policy.MODULES))
        connection.execute(pragmas).fetchall()
        for limit, value in policy.LIMITS.items():
            connection.limit(getattr(apsw, f"SQLITE_LIMIT_{limit}"), value)
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._is_late, policy.PROGRESS_STEPS)

    def close(self) -> None:
        """Fold the WAL into the file, empty it (the jail keeps it from being removed), close."""
        if self._damage:
            return
        # An R-Tree may leave a read open behind an error. What is not folded in now is by the next.
        with contextlib.suppress(apsw.Error):
            self._checkpoint()
        self.connection.close()

    def reopen(self) -> None:
        """Have a connection that nothing was done with."""
        self.close()
        self._open()

    def tidy(self) -> None:
        """End what a call must not leave to the next: a transaction, temporary objects, pragmas."""
        if self._left_behind:
            self.reopen()

    def fold(self) -> None:
        """Have everything in the file and nothing in the WAL."""
        try:
            self._checkpoint()
        except apsw.Error:  # an R-Tree may have left a read open
            self.reopen()
            self._checkpoint()

    def _checkpoint(self) -> None:
        self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def require_whole(self) -> None:
        """Raise Refusal if the file is no database."""
        if self._damage:
            raise self._damage.with_traceback(None)  # or it would grow with each call

    def begin(self, deadline: float) -> None:
        """Begin with something that must be over then. Raises Refusal for a damaged file."""
        self.require_whole()
        self.deadline = deadline
        self.denials.clear()

    def set_rules(self, rules: Rules) -> None:
        """Let pass what these rules let pass."""
        if self.most_pages < policy.MAX_PAGES:
            rules = rules | {_PRAGMA: policy.capped(rules[_PRAGMA])}
        self._rules = rules

    def prepare_anew(self) -> None:
        """Have statements that were prepared before prepared again, past the rules of now.

        See https://www.sqlite.org/c3ref/set_authorizer.html.
        """
        self.connection.set_authorizer(self._authorize)

    def hide_receipts(self) -> None:
        """See to it that what FTS5 has prepared shows none of them."""
        if self.keeps_receipts:
            self.prepare_anew()

    def look(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement of our own that may do what a caller's may, and return its rows.

        It is not cached: a caller's statement of the same words would find it prepared.
        """
        return self.connection.execute(sql, values, can_cache=False).fetchall()

    def ours(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement of our own, which nothing is forbidden, and return its rows."""
        with self.ungated():
            return self.look(sql, *values)

    @contextlib.contextmanager
    def ungated(self) -> Iterator[None]:
        """Forbid nothing meanwhile."""
        rules, self._rules = self._rules, {}
        left_behind = self._left_behind
        try:
            yield
        finally:
            self._rules = rules
            self._left_behind = left_behind

    def _is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, _: str | None
    ) -> int:
        name = _ACTIONS[action]
        if policy.lasts_beyond_the_call(name, first, second, schema):
            self._left_behind = True
        if name in ("SQLITE_READ", "SQLITE_PRAGMA"):
            self.sees_schema |= name == "SQLITE_PRAGMA" or (first or "").startswith(_SCHEMA)
        rule = self._rules.get(action)
        denial = rule(first, second) if rule else None
        if denial is None:
            return apsw.SQLITE_OK
        # Pragmas may act as soon as they are prepared, explained or not.
        if denial.code == "read_only" and name != "SQLITE_PRAGMA" and self.is_explained():
            return apsw.SQLITE_OK
        self.denials.append(denial)
        return apsw.SQLITE_DENY
