"""The bench: one SQLite file, opened inside the jail, run under limits and a deadline.

Runs in: cells. What SQL may do and how much of it is written down in policy.py; what a call does
with its statements, in statements.py; what comes in from outside, in intake.py.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import orjson

from sandbox import blocklist, dump, frames, intake, policy, receipts, schema
from sandbox.answers import Answer
from sandbox.calls import Call
from sandbox.failures import code_name, of_a_shortage
from sandbox.forms import Form
from sandbox.names import folded
from sandbox.refusal import Refusal
from sandbox.statements import Say, Statements

_ACTIONS = {
    number: str(name)
    for number, name in apsw.mapping_authorizer_function.items()
    if isinstance(number, int)
}
_NUMBERS = {name: number for number, name in _ACTIONS.items()}


def _by_number(rules: dict[str, policy.Rule]) -> dict[int, policy.Rule]:
    return {_NUMBERS[name]: rule for name, rule in rules.items()}


_RULES = _by_number(policy.RULES)
_VACUUM_RULES = _by_number(policy.VACUUM_RULES)
_SCRIPT_RULES = _by_number(policy.SCRIPT_RULES)
_READ_ONLY_RULES = _by_number(policy.read_only(_NUMBERS))
#: A file that somebody else has written to or cut off; all of it was there before the cell.
_DAMAGED = (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError)
#: Members of a refusal that say nothing but what the caller has sent.
_OF_THE_TEXT = {"statement", "offset", "line", "column", "token", "sqlite_code", "set"}
#: What shows the schema: a table, or the table form of a pragma.
_SCHEMA = ("sqlite_master", "sqlite_schema", "dbstat", "pragma_")


class Engine:
    """One open database."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)
        self._deadline = 0.0
        self._denials: list[policy.Denial] = []
        self._rules = _RULES
        self._is_explained: Callable[[], bool] = lambda: False
        self._left_behind = False
        #: It keeps receipts, which calls are not to see.
        self._keeps_receipts = False
        self._sees_schema = False
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
        self._close_doors(connection, policy.PRAGMAS)
        self._keeps_receipts = connection.table_exists("main", receipts.TABLE)
        return connection

    def _close_doors(self, connection: apsw.Connection, pragmas: str = "") -> None:
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
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.close()

    def run(self, call: Call, deadline: float, say: Say | None = None) -> Answer:
        """Run one call's statements and return its answer. Raises Refusal, and what `say` does.

        `deadline` is in seconds of time.monotonic(). Statements before one that fails stay done
        unless the call had opened a transaction. `say` takes what an answer in lines has already;
        without it an answer is one piece.
        """
        self._require_whole()
        keyword = blocklist.forbidden(call.sql)
        if keyword:
            raise Refusal("forbidden_keyword", keyword)
        if "\0" in call.sql:
            raise Refusal("sql_error", "the text has a NUL character")
        self._deadline = deadline
        self._denials.clear()
        statements = Statements(self._connection, call, deadline, self._denials, self._ours, say)
        is_vacuum = not call.readonly and policy.is_plain_vacuum(call.sql)
        if call.is_plain and not self._keeps_receipts and not is_vacuum:
            return statements.run()
        with contextlib.ExitStack() as after:
            if is_vacuum:
                self._prepare_vacuum(after)
            self._prepare(call, after)
            if call.readonly:
                after.callback(setattr, self, "_is_explained", self._is_explained)
                self._is_explained = statements.is_explained
            if self._keeps_receipts:
                statements.hides = lambda row: self._sees_schema and receipts.shows(row)
            if call.tables is None:
                return statements.run()
            try:
                return statements.run()
            except Refusal as refusal:  # what would mend it may be in another table
                known = {
                    name: refusal.fields[name] for name in refusal.fields.keys() & _OF_THE_TEXT
                }
                raise Refusal(refusal.code, refusal.detail, **known) from None

    def describe(
        self, form: Form, deadline: float, tables: frozenset[bytes] | None = None
    ) -> Answer:
        """Return what the database is made of, or these of its tables are. Raises Refusal."""
        with self._looking(deadline):
            if self._keeps_receipts:  # what FTS5 has prepared is prepared again, past the gate
                self._connection.set_authorizer(self._authorize)
            found = schema.Described(self._look, deadline, apsw.Error).describe()
        if tables is not None:
            found = schema.only(found, lambda name: folded(name) in tables)
        if form is Form.MARKDOWN:
            return Answer(schema.as_markdown(found).encode())
        return Answer(orjson.dumps(found))

    def measure(self, about: dict[str, Any], deadline: float) -> Answer:
        """Return what is known about the database and how large it is. Raises Refusal."""
        with self._looking(deadline):
            pages, page_bytes = self._pages()
            ((tables,),) = self._ours(
                "SELECT count(*) FROM pragma_table_list WHERE schema = 'main'"
                " AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            )
        more = {
            "bytes_used": pages * page_bytes,
            "bytes_allowed": policy.MAX_PAGES * page_bytes,
            "tables": tables,
        }
        return Answer(orjson.dumps(about | more))

    def copy_out(self, deadline: float, say: Say) -> Answer:
        """Say the database file, the WAL folded in. Raises Refusal, and what `say` does.

        It goes out with the versions of a rollback journal in its header, so that it can be opened
        where nothing can be written (https://www.sqlite.org/wal.html#readonly).
        """
        with self._looking(deadline):
            self._fold()
            pages, page_bytes = self._pages()
            length = pages * page_bytes
            digest = hashlib.sha256()
            for piece in self._pieces(length):
                digest.update(piece)
            say(frames.FILE_HEAD.pack(length, digest.digest()))
            for piece in self._pieces(length):
                say(piece)
        return Answer(b"")

    def load(self, image: bytes, deadline: float) -> Answer:
        """Have the database be what a file is, all of it or none. Raises Refusal."""
        with self._looking(deadline):
            source = intake.opened(image, self._close_doors)
            try:
                why = intake.examined(source, deadline, self._denials)
                if why:
                    raise Refusal("invalid_database", why)
                if source.table_exists("main", receipts.TABLE):  # its answers are others'
                    with self._ungated():
                        source.execute(f"DELETE FROM {receipts.TABLE}")  # noqa: S608
                # It has no statement open then, and room for all pages in its WAL.
                self._reopen()
                self._replace(source)
            finally:
                source.close()
        return self.measure({}, deadline)

    def _replace(self, source: apsw.Connection) -> None:
        try:
            with self._connection.backup("main", source, "main") as copy:
                copy.step()
        finally:
            self._reopen()  # its encoding may be another

    def add_rows(self, about: dict[str, Any], body: bytes, deadline: float) -> Answer:
        """Put rows into a table, all of them or none. Raises Refusal."""
        self._require_whole()
        self._deadline = deadline
        self._denials.clear()
        rows = intake.Rows(self._connection, self._ours, deadline, self._denials)
        return Answer(orjson.dumps(rows.put(about, body)))

    def run_script(self, text: bytes, deadline: float) -> Answer:
        """Run the statements of a long text, a dump perhaps. Raises Refusal as `run` does."""
        try:
            script = text.decode()
        except UnicodeDecodeError as error:
            raise Refusal("sql_error", f"the text is not UTF-8 at byte {error.start}") from None
        self._require_whole()
        limit = self._connection.limit
        # What SQLite writes for itself is not to be cut by a short script's length.
        limit(apsw.SQLITE_LIMIT_SQL_LENGTH, policy.LIMITS["SQL_LENGTH"] + len(text))
        self._set_rules(_SCRIPT_RULES)
        try:
            return self.run(Call(script, is_plain=True), deadline)
        finally:
            self._set_rules(_RULES)
            limit(apsw.SQLITE_LIMIT_SQL_LENGTH, policy.LIMITS["SQL_LENGTH"])

    def dump(self, deadline: float, say: Say) -> Answer:
        """Say the SQL that makes the database again. Raises Refusal, and what `say` does."""
        with self._looking(deadline):
            if self._keeps_receipts:  # what FTS5 has prepared is prepared again, past the gate
                self._connection.set_authorizer(self._authorize)
            run = self._connection.execute
            script = dump.pieces(lambda sql, *v: run(sql, v, can_cache=False), receipts.TABLE)
            for piece in script:
                say(piece)
        return Answer(b"")

    def _require_whole(self) -> None:
        if self._damage:
            raise self._damage.with_traceback(None)  # or it would grow with each call

    @contextlib.contextmanager
    def _looking(self, deadline: float) -> Iterator[None]:
        """Look at the database without a caller's SQL. Raises Refusal."""
        self._require_whole()
        self._deadline = deadline
        try:
            yield
        except apsw.Error as error:
            other = Refusal("sql_error", str(error), sqlite_code=code_name(error))
            raise of_a_shortage(error) or other from None

    def _pages(self) -> tuple[int, int]:
        """Return how many pages the file has, and how many bytes a page."""
        ((pages,),) = self._ours("PRAGMA main.page_count")
        ((page_bytes,),) = self._ours("PRAGMA main.page_size")
        return pages, page_bytes

    def _fold(self) -> None:
        """Have everything in the file and nothing in the WAL."""
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error:  # an R-Tree may have left a read open
            self._reopen()
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _pieces(self, length: int) -> Iterator[bytes]:
        for at in range(0, length, frames.PIECE_BYTES):
            amount = min(frames.PIECE_BYTES, length - at)
            _, piece = self._connection.read("main", 0, at, amount)
            yield piece if at else piece[:18] + b"\x01\x01" + piece[20:]

    def _prepare_vacuum(self, after: contextlib.ExitStack) -> None:
        """Let VACUUM attach what it needs, until the call is over."""
        after.callback(self._set_rules, _RULES)
        self._set_rules(_VACUUM_RULES)
        after.callback(self._connection.limit, apsw.SQLITE_LIMIT_ATTACHED, 0)
        self._connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)

    def _prepare(self, call: Call, after: contextlib.ExitStack) -> None:
        """Set up what only some calls need, and have it undone behind them."""
        if call.key and not self._keeps_receipts:
            self._make_receipts()
        if call.readonly:
            self._connect_rtrees()
            after.callback(self._ours, "PRAGMA query_only=OFF")
            after.callback(self._set_rules, _RULES)
            self._ours("PRAGMA query_only=ON")
            rules = _READ_ONLY_RULES
            if call.tables is not None:
                rules = rules | _by_number(policy.within(call.tables))
            self._set_rules(rules)
        if call.readonly or self._keeps_receipts:
            self._sees_schema = False
            # Statements that were prepared before are prepared again, past the rules of this call
            # (https://www.sqlite.org/c3ref/set_authorizer.html).
            self._connection.set_authorizer(self._authorize)

    def _connect_rtrees(self) -> None:
        """Have R-Trees prepare the writes that each needs, though only to be read, before a gate.

        See rtreeSqlInit in SQLite's ext/rtree/rtree.c.
        """
        found = self._ours(
            "SELECT name FROM sqlite_schema"
            " WHERE type = 'table' AND rootpage = 0 AND sql LIKE '%rtree%'"
        )
        for (name,) in found:
            with contextlib.suppress(apsw.Error):  # it is of another module, or broken
                self._ours("SELECT count(*) FROM pragma_table_info(?)", name)

    def _set_rules(self, rules: dict[int, policy.Rule]) -> None:
        self._rules = rules

    def _make_receipts(self) -> None:
        """Make the table for receipts, under a name that SQLite keeps for its own."""
        switch = self._connection.config
        switch(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        switch(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
        try:
            self._ours(receipts.MAKE)
        except apsw.FullError:
            raise Refusal("quota_exceeded") from None
        finally:
            switch(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0)
            switch(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        self._keeps_receipts = True

    def _look(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement of our own that may do what a caller's may, and return its rows."""
        return self._connection.execute(sql, values, can_cache=False).fetchall()

    def _ours(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement of our own, which nothing is forbidden, and return its rows.

        It is not cached: a caller's statement of the same words would find it prepared.
        """
        with self._ungated():
            return self._look(sql, *values)

    @contextlib.contextmanager
    def _ungated(self) -> Iterator[None]:
        rules, self._rules = self._rules, {}
        left_behind = self._left_behind
        try:
            yield
        finally:
            self._rules = rules
            self._left_behind = left_behind

    def tidy(self) -> None:
        """End what a call must not leave to the next: a transaction, temporary objects, pragmas."""
        if self._left_behind:
            self._reopen()

    def _reopen(self) -> None:
        self.close()
        self._open()

    def _is_late(self) -> bool:
        return time.monotonic() >= self._deadline

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, _: str | None
    ) -> int:
        name = _ACTIONS[action]
        if policy.lasts_beyond_the_call(name, first, second, schema):
            self._left_behind = True
        if name in ("SQLITE_READ", "SQLITE_PRAGMA"):
            self._sees_schema |= name == "SQLITE_PRAGMA" or (first or "").startswith(_SCHEMA)
        rule = self._rules.get(action)
        denial = rule(first, second) if rule else None
        if denial is None:
            return apsw.SQLITE_OK
        # Pragmas may act as soon as they are prepared, explained or not.
        if denial.code == "read_only" and name != "SQLITE_PRAGMA" and self._is_explained():
            return apsw.SQLITE_OK
        self._denials.append(denial)
        return apsw.SQLITE_DENY
