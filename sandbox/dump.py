"""A database as SQL text: a script that makes it again, piece by piece.

Runs in: cells. Standard library only. Stock SQLite runs the script, and so does a cell under its
own gate. It is one transaction: cut off, it makes nothing. Indexes come after the rows because that
is faster, triggers last of all so that no INSERT fires one.

What the script does not bring back:

- what ANALYZE has found, and indexes on the tables in which FTS5 and R-Tree keep theirs;
- the index of a contentless FTS5 table: nothing can be read of it. That of one with the content
  elsewhere is built anew, from what the content is now;
- rowids of a table whose columns take all names that a rowid has, or that is as wide as can be;
- virtual tables of modules that cells do not have, which stand there as comments.

SQLite before 3.43 may read a float's last digit wrong, whoever wrote it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sandbox import policy, tokens
from sandbox.names import folded, quoted

#: Runs one reading statement with these values to bind, and returns its rows as they come.
Look = Callable[..., Iterator[tuple[Any, ...]]]

PIECE_BYTES = 64 << 10
#: An INSERT takes so many rows, or characters of them: more make it no faster.
_ROWS = 100
_CHARS = 16 << 10
_BETWEEN = ",\n"
#: `hidden` of a column that is an ordinary one.
_PLAIN = 0
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


class _Entry(NamedTuple):
    """A row of the schema."""

    kind: str
    name: str
    table: str
    sql: str


def pieces(look: Look, hidden: str) -> Iterator[bytes]:
    """Yield the script in UTF-8, without the table `hidden`.

    Raises what `look` does, and UnicodeDecodeError where the schema itself is no UTF-8.
    """
    buffer = bytearray()
    for text in _Dump(look, hidden).script():
        buffer += text.encode()
        while len(buffer) >= PIECE_BYTES:
            yield bytes(buffer[:PIECE_BYTES])
            del buffer[:PIECE_BYTES]
    yield bytes(buffer)


class _Dump:
    def __init__(self, look: Look, hidden: str) -> None:
        self._look = look
        listed = look("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'")
        #: Of each table what it is, and whether it has no rowid.
        self._listed: dict[bytes, tuple[str, int]] = {
            folded(name): (kind, wr) for name, kind, wr in listed
        }
        found = look(
            "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL"
            " AND tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND tbl_name <> ? ORDER BY rowid",
            hidden,
        )
        entries = [_Entry(*row) for row in found]
        self._virtual = [
            _Virtual(one) for one in entries if one.kind == "table" and self._is(one, "virtual")
        ]
        # These are called like one of FTS5's own, which has none if the content is elsewhere.
        contents = {folded(f"{one.name}_content") for one in self._virtual if one.content}
        self._entries = [
            one for one in entries if not self._is(one, "shadow") or folded(one.table) in contents
        ]

    def _is(self, entry: _Entry, kind: str) -> bool:
        """Say whether an entry's table is of this kind."""
        return self._listed[folded(entry.table)][0] == kind

    def script(self) -> Iterator[str]:
        tables = [one for one in self._of("table") if not self._is(one, "virtual")]
        yield "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
        for pragma in ("user_version", "application_id"):
            ((value,),) = self._look(f"PRAGMA main.{pragma}")
            if value:
                yield f"PRAGMA {pragma}={value};\n"
        for table in tables:
            yield _statement(table.sql)
            yield from self._rows_of_table(table.name)
        # SQLite makes it with the first such table, but lets it stand after the last.
        if any(token.text.upper() == "AUTOINCREMENT" for one in tables for token in _words(one)):
            yield "DELETE FROM sqlite_sequence;\n"
            yield from self._rows("sqlite_sequence", ["name", "seq"], "NOT INDEXED")
        for virtual in self._virtual:
            yield from self._virtual_table(virtual)
        for index in self._of("index"):
            yield _statement(index.sql)
        for view in self._of("view"):
            yield _statement(view.sql)
        for virtual in self._virtual:
            yield from self._rebuilding(virtual)
        for trigger in self._of("trigger"):
            yield _statement(trigger.sql)
        yield "COMMIT;\n"

    def _of(self, kind: str) -> Iterator[_Entry]:
        return (entry for entry in self._entries if entry.kind == kind)

    def _columns(self, table: str) -> list[tuple[str, int, int]]:
        """Return each column's name, its place in the primary key, and what hides it."""
        found = self._look("SELECT name, pk, hidden FROM pragma_table_xinfo(?, 'main')", table)
        return [(name, place, hides) for name, place, hides in found]

    def _rows_of_table(self, table: str) -> Iterator[str]:
        columns = self._columns(table)
        names = [name for name, _, hides in columns if hides == _PLAIN]
        # A key without an index is the rowid by another name; without a rowid the key has one.
        ((has_index,),) = self._look(
            "SELECT count(*) FROM pragma_index_list(?, 'main') WHERE origin = 'pk'", table
        )
        is_alias = any(place for _, place, _ in columns) and not has_index
        _, is_without_rowid = self._listed[folded(table)]
        if not is_without_rowid and not is_alias and len(columns) < policy.LIMITS["COLUMN"]:
            taken = {folded(name) for name, _, _ in columns}
            names = [name for name in _ROWID_NAMES if folded(name) not in taken][:1] + names
        # An index that has all of the columns would be read in the table's place.
        return self._rows(table, names, "NOT INDEXED")

    def _virtual_table(self, virtual: "_Virtual") -> Iterator[str]:
        name = virtual.name
        if virtual.module not in policy.MODULES:
            yield _comment(f"virtual table {name} is left out: no module {virtual.module} here")
            return
        yield _statement(virtual.sql)
        if virtual.module == "fts5":
            config = quoted(f"{name}_config")
            kept = self._look(f"SELECT k, v FROM main.{config} WHERE k <> 'version'")  # noqa: S608
            head = f"INSERT INTO {quoted(name)}({quoted(name)},rank) VALUES\n"
            yield from _inserts(head, map(_line, kept))
            if virtual.content == "":
                yield _comment(f"the content of {name} is not kept and cannot be read")
        if virtual.module == "fts5vocab" or virtual.content is not None:
            return
        names = [name for name, _, hides in self._columns(name) if hides == _PLAIN]
        if virtual.module == "fts5":
            names.insert(0, "rowid")
        # R-Tree has its rows in an order that depends on how they came.
        yield from self._rows(name, names, f"ORDER BY {quoted(names[0])}")

    def _rebuilding(self, virtual: "_Virtual") -> Iterator[str]:
        """Index content that is elsewhere, which may be a view."""
        if not virtual.content:
            return
        if virtual.content in {one.name.lower() for one in self._entries}:
            name = quoted(virtual.name)
            yield f"INSERT INTO {name}({name}) VALUES('rebuild');\n"
        else:
            yield _comment(f"the content of {virtual.name} is not there any more")

    def _rows(self, table: str, names: list[str], way: str) -> Iterator[str]:
        columns = list(map(quoted, names))
        source = f"FROM main.{quoted(table)} {way}"
        head = f"INSERT INTO {quoted(table)}({','.join(columns)}) VALUES\n"
        return _inserts(head, self._lines(columns, source))

    def _lines(self, columns: list[str], source: str) -> Iterator[str]:
        done = 0
        try:
            for row in self._look(f"SELECT {','.join(columns)} {source}"):
                yield _line(row)
                done += 1
        except UnicodeDecodeError:
            pass  # a text is no UTF-8
        else:
            return
        # By two statements: twice the columns may be more than one can have.
        kinds = [f"typeof({one})" for one in columns]
        bare = [f"iif(typeof({one}) = 'text', CAST({one} AS BLOB), {one})" for one in columns]
        found = (
            self._look(f"SELECT {','.join(each)} {source} LIMIT -1 OFFSET {done}")
            for each in (kinds, bare)
        )
        ((encoding,),) = self._look("PRAGMA main.encoding")
        for kind, row in zip(*found, strict=True):
            values = [
                _text_of(value, encoding) if what == "text" else _literal(value)
                for what, value in zip(kind, row, strict=True)
            ]
            yield f"({','.join(values)})"


class _Virtual:
    """A virtual table: its module, and where an FTS5 table has its content.

    `content` is the name of a table or view in small letters, empty if there is none, and None if
    the table has its own.
    """

    def __init__(self, entry: _Entry) -> None:
        self.name = entry.name
        self.sql = entry.sql
        # CREATE VIRTUAL TABLE name USING module(arguments)
        words = _words(entry)
        self.module = words[5].name
        self.content: str | None = None
        if self.module != "fts5":
            return
        for key, sign, value in zip(words[7:], words[8:], words[9:], strict=False):
            # FTS5 takes the beginning of an option's name for the whole of it.
            if sign.text == "=" and "content".startswith(key.name):
                plain = value.text[1:-1].replace("''", "'").lower()
                self.content = plain if value.kind == "string" else value.name


def _words(entry: _Entry) -> list[tokens.Token]:
    return tokens.tokens(entry.sql)


def _statement(sql: str) -> str:
    """Return a statement with its end, which a comment behind it would have in itself."""
    ends = (end for end in ("", "\n", "*/") if tokens.tokens(f"{sql}{end};")[-1].text == ";")
    return f"{sql}{next(ends, '')};\n"


def _comment(text: str) -> str:
    """Return a comment, on one line whatever is in it."""
    return "-- " + " ".join(text.split()) + "\n"


def _inserts(head: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield statements of some rows each."""
    batch: list[str] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if len(batch) == _ROWS or size >= _CHARS:
            yield f"{head}{_BETWEEN.join(batch)};\n"
            batch.clear()
            size = 0
    if batch:
        yield f"{head}{_BETWEEN.join(batch)};\n"


def _line(row: tuple[Any, ...]) -> str:
    return "(" + ",".join([_LITERALS[type(value)](value) for value in row]) + ")"


def _literal(value: Any) -> str:
    return _LITERALS[type(value)](value)


def _text(value: str) -> str:
    # SQL ends at a NUL, and the shell takes the "\r" from the end of a line.
    if "\0" in value or "\r\n" in value:
        return _text_of(value.encode())
    return "'" + value.replace("'", "''") + "'"


def _text_of(value: bytes, encoding: str = "UTF-8") -> str:
    """Return text that is told by its bytes, which are those of a new database's encoding."""
    if encoding != "UTF-8":
        value = value.decode(encoding, "replace").encode()
    return f"CAST(X'{value.hex()}' AS TEXT)"


def _float(value: float) -> str:
    text = repr(value)
    return text.replace("inf", "9e999") if text[-1] == "f" else text


_LITERALS: dict[type, Callable[[Any], str]] = {
    str: _text,
    int: repr,
    float: _float,
    bytes: lambda value: f"X'{value.hex()}'",
    type(None): lambda _: "NULL",
}
