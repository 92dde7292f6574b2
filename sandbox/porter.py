"""The porter: carries a database in and out, and says what it is made of. No caller's SQL.

Runs in: cells. How a file or rows that come in are read is in intake.py, how a database is written
as SQL in dump.py.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import apsw
import orjson

from sandbox import dump, frames, intake, policy, receipts, schema
from sandbox.answers import Answer
from sandbox.failures import code_name, of_a_shortage
from sandbox.forms import Form
from sandbox.gate import Gate
from sandbox.names import folded
from sandbox.refusal import Refusal
from sandbox.statements import Say


class Porter:
    """Works behind a gate. Every `deadline` is in seconds of time.monotonic()."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def describe(
        self, form: Form, deadline: float, tables: frozenset[bytes] | None = None
    ) -> Answer:
        """Return what the database is made of, or these of its tables are. Raises Refusal."""
        with self._looking(deadline):
            self._gate.hide_receipts()
            found = schema.Described(self._gate.look, deadline, apsw.Error).describe()
        if tables is not None:
            found = schema.only(found, lambda name: folded(name) in tables)
        if form is Form.MARKDOWN:
            return Answer(schema.as_markdown(found).encode())
        return Answer(orjson.dumps(found))

    def measure(self, about: dict[str, Any], deadline: float) -> Answer:
        """Return what is known about the database and how large it is. Raises Refusal."""
        with self._looking(deadline):
            pages = self._pages()
            ((tables,),) = self._gate.ours(
                "SELECT count(*) FROM pragma_table_list WHERE schema = 'main'"
                " AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            )
        more = {
            # What the gate lacks of all pages is taken by kept states.
            "bytes_used": (pages + policy.MAX_PAGES - self._gate.most_pages) * policy.PAGE_BYTES,
            "bytes_allowed": policy.MAX_PAGES * policy.PAGE_BYTES,
            "tables": tables,
        }
        return Answer(orjson.dumps(about | more))

    def copy_out(self, deadline: float, say: Say) -> Answer:
        """Say the database file, the WAL folded in. Raises Refusal, and what `say` does.

        It goes out with the versions of a rollback journal in its header, so that it can be opened
        where nothing can be written (https://www.sqlite.org/wal.html#readonly).
        """
        with self._looking(deadline):
            self._gate.fold()
            length = self._pages() * policy.PAGE_BYTES
            digest = hashlib.sha256()
            for piece in self._pieces(length):
                digest.update(piece)
            say(frames.FILE_HEAD.pack(length, digest.digest()))
            for piece in self._pieces(length):
                say(piece)
        return Answer(b"")

    def dump(self, deadline: float, say: Say) -> Answer:
        """Say the SQL that makes the database again. Raises Refusal, and what `say` does."""
        with self._looking(deadline):
            self._gate.hide_receipts()
            run = self._gate.connection.execute
            script = dump.pieces(lambda sql, *v: run(sql, v, can_cache=False), receipts.TABLE)
            for piece in script:
                say(piece)
        return Answer(b"")

    def load(self, image: bytes, deadline: float) -> Answer:
        """Have the database be what a file is, all of it or none. Raises Refusal."""
        gate = self._gate
        with self._looking(deadline):
            source = intake.opened(image, gate.close_doors)
            try:
                why = intake.examined(source, deadline, gate.denials)
                if why:
                    raise Refusal("invalid_database", why)
                if source.table_exists("main", receipts.TABLE):  # its answers are others'
                    with gate.ungated():
                        source.execute(f"DELETE FROM {receipts.TABLE}")  # noqa: S608
                # It has no statement open then, and room for all pages in its WAL.
                gate.reopen()
                self._replace(source)
            finally:
                source.close()
        return self.measure({}, deadline)

    def _replace(self, source: apsw.Connection) -> None:
        try:
            with self._gate.connection.backup("main", source, "main") as copy:
                copy.step()
        finally:
            self._gate.reopen()  # its encoding may be another

    def add_rows(self, about: dict[str, Any], body: bytes, deadline: float) -> Answer:
        """Put rows into a table, all of them or none. Raises Refusal."""
        gate = self._gate
        gate.begin(deadline)
        rows = intake.Rows(gate.connection, gate.ours, deadline, gate.denials)
        return Answer(orjson.dumps(rows.put(about, body)))

    @contextlib.contextmanager
    def _looking(self, deadline: float) -> Iterator[None]:
        """Have SQLite's errors told as such. Raises Refusal."""
        self._gate.begin(deadline)
        try:
            yield
        except apsw.Error as error:
            other = Refusal("sql_error", str(error), sqlite_code=code_name(error))
            raise of_a_shortage(error) or other from None

    def _pages(self) -> int:
        ((pages,),) = self._gate.ours("PRAGMA main.page_count")
        return int(pages)

    def _pieces(self, length: int) -> Iterator[bytes]:
        for at in range(0, length, frames.PIECE_BYTES):
            amount = min(frames.PIECE_BYTES, length - at)
            _, piece = self._gate.connection.read("main", 0, at, amount)
            yield piece if at else piece[:18] + b"\x01\x01" + piece[20:]
