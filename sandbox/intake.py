"""What comes into a database from outside: a whole file, or rows for a table.

Runs in: cells. A file is as hostile as its sender (https://www.sqlite.org/security.html): it is
opened in memory, behind every door that a caller's SQL is behind, and looked at (inspection.py)
before it takes any place.
"""

import time
from collections.abc import Callable
from typing import Any

import apsw

from sandbox import frames, inspection, policy, readers
from sandbox.calls import Value
from sandbox.columns import Incoming
from sandbox.failures import code_name, explained, of_a_shortage
from sandbox.forms import Written
from sandbox.names import folded, nearest, quoted, short
from sandbox.ours import Ours
from sandbox.refusal import Refusal

#: https://www.sqlite.org/fileformat2.html#the_database_header
_MAGIC = b"SQLite format 3\0"
_LARGEST_PAGE = 65_536
_PRAGMAS = "PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY"
#: SQLite's rule: https://www.sqlite.org/datatype3.html#determination_of_column_affinity
_TEXT = ("CHAR", "CLOB", "TEXT")


def opened(image: bytes, close_doors: Callable[[apsw.Connection, str], None]) -> apsw.Connection:
    """Return a file as a database in memory, every door closed. Raises Refusal, apsw.Error."""
    size = int.from_bytes(image[16:18])
    size = _LARGEST_PAGE if size == 1 else size
    if not image.startswith(_MAGIC) or not size or len(image) % size:
        raise Refusal("invalid_database", "this is no SQLite file, or not all of one")
    if size != policy.PAGE_BYTES:
        raise Refusal(
            "invalid_database",
            f"it has pages of {size:,} bytes",
            hint=f"PRAGMA page_size={policy.PAGE_BYTES}; VACUUM",
        )
    if image[18:20] == b"\x02\x02":  # in memory there is no WAL
        image = image[:18] + b"\x01\x01" + image[20:]
    source = apsw.Connection(":memory:")
    try:
        source.deserialize("main", image)
        close_doors(source, _PRAGMAS)
    except apsw.Error:
        source.close()
        raise
    return source


def examined(source: apsw.Connection, deadline: float, denials: list[policy.Denial]) -> str | None:
    """Return why a database is not to be taken, None if it is. Raises apsw.InterruptError."""

    def look(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        # What is only compiled comes to no clock of SQLite's.
        if time.monotonic() >= deadline:
            raise apsw.InterruptError("interrupted")
        return source.execute(sql, values, can_cache=False).fetchall()

    denials.clear()
    try:
        return inspection.inspect(look)
    except (apsw.InterruptError, apsw.NoMemError):
        raise
    except apsw.Error as error:
        return denials[0].detail if denials else str(error)
    except UnicodeDecodeError:
        return "a name in it is not UTF-8"


class Rows:
    """Rows on their way into a table. `deadline` is in seconds of time.monotonic()."""

    def __init__(
        self,
        connection: apsw.Connection,
        ours: Ours,
        deadline: float,
        denials: list[policy.Denial],
    ) -> None:
        self._connection = connection
        self._ours = ours
        self._deadline = deadline
        self._denials = denials
        self._line = 0

    def put(self, about: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Put the rows of a body into a table, making it if there is none. Raises Refusal.

        `about` has the table's name, how the rows are written, and whether that is gzipped.
        """
        if about["gzip"]:
            body = readers.unpack(body, frames.MAX_ATTACHED_BYTES)
        incoming = readers.read(Written(about["written"]), body, self._look_at_clock)
        self._ours("BEGIN")
        try:
            told = self._put(about["name"], incoming)
            self._run("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._ours("ROLLBACK")
        return told

    def _put(self, name: str, incoming: Incoming) -> dict[str, Any]:
        if ours := policy.write(name):
            raise Refusal(*ours, rolled_back=True)
        table = quoted(name)
        found = self._ours("SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden = 0", name)
        columns = [quoted(column) for column in incoming.columns]
        as_text: frozenset[int] = frozenset()
        if found:
            types = {folded(column): kind.upper() for column, kind in found}
            for column in incoming.columns:
                if folded(column) not in types:
                    near = nearest(column, [known for known, _ in found])
                    raise Refusal(
                        "unknown_column",
                        f"table {short(name)} has no column named {short(column)}",
                        name=short(column),
                        suggestions=near,
                    )
            as_text = frozenset(
                at for at, column in enumerate(incoming.columns) if _is_text(types[folded(column)])
            )
        else:
            words = ", ".join(
                f"{column} {kind}".rstrip()
                for column, kind in zip(columns, incoming.types, strict=True)
            )
            self._run(f"CREATE TABLE {table}({words})")
        marks = ", ".join("?" * len(columns))
        insert = f"INSERT INTO {table}({', '.join(columns)}) VALUES({marks})"
        count = 0
        for self._line, values in incoming.rows(as_text):
            self._run(insert, values)
            count += 1
        self._line = 0
        return {"rows_affected": count, "created": not found, "columns": incoming.columns}

    def _run(self, sql: str, values: list[Value] | None = None) -> None:
        try:
            for _ in self._connection.execute(sql, values):
                pass
        except apsw.Error as error:
            raise self._refusal(error, sql) from None

    def _look_at_clock(self) -> None:
        if time.monotonic() >= self._deadline:
            raise Refusal("query_timeout")

    def _refusal(self, error: apsw.Error, sql: str) -> Refusal:
        """Return what to tell of an error in one of our statements, and at which line it was."""
        if shortage := of_a_shortage(error):
            return shortage
        if self._denials:
            refusal = Refusal(*self._denials[0], sqlite_code=code_name(error))
        else:
            refusal = explained(error, sql, self._ours)
        refusal.fields["rolled_back"] = True
        if self._line:
            refusal.fields["line"] = self._line
        return refusal


def _is_text(kind: str) -> bool:
    return "INT" not in kind and any(word in kind for word in _TEXT)
