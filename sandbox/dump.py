"""A database as the SQL that makes it again, piece by piece.

Runs in: cells. Standard library only. Tables come with their rows, then what is virtual, then
indexes, views and triggers, so that no trigger fires while rows are put in. It is a script for any
SQLite and for a walkin of its own: nothing in it writes the schema table. What ANALYZE has gathered
is left out, and so is the content of an FTS5 table that keeps none
(https://www.sqlite.org/fts5.html#contentless_tables).
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

Row = tuple[Any, ...]
#: Runs one statement that reads and returns its rows one by one. Raises SQLite's errors.
Look = Callable[..., Iterator[Row]]

_PIECE_BYTES = 65_536
#: Rows of one INSERT, and how long it may get.
_ROWS_MOST = 100
_INSERT_LETTERS = 16_384
_CONTENT = re.compile(
    r"""\bcontent\s*=\s*('(?:[^']|'')*'|"(?:[^"]|"")*"|[^\s,)]*)""", re.IGNORECASE
)
_MODULE = re.compile(r"\busing\s+(\w+)", re.IGNORECASE)
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


def pieces(look: Look, hidden: str) -> Iterator[bytes]:
    """Yield the script in UTF-8. `hidden` is a table that is nobody's. Raises what `look` does."""
    held: list[str] = []
    size = 0
    for text in _script(look, hidden):
        held.append(text)
        size += len(text)
        if size >= _PIECE_BYTES:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join(held).encode()


def _script(look: Look, hidden: str) -> Iterator[str]:
    for pragma in ("user_version", "application_id"):
        ((value,),) = look(f"PRAGMA main.{pragma}")
        if value:
            yield f"PRAGMA {pragma}={value};\n"
    yield "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
    kinds = {
        name: (kind, without_rowid)
        for name, kind, without_rowid in look(
            "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'"
        )
    }
    schema = [
        (kind, name, sql)
        for kind, name, table, sql in look(
            "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL"
        )
        if table != hidden and kinds.get(table, ("", 0))[0] != "shadow"
    ]
    tables = [(name, sql) for kind, name, sql in schema if kind == "table"]
    yield from _tables(look, kinds, tables)
    for wanted in ("index", "view", "trigger"):
        for kind, _, sql in schema:
            if kind == wanted:
                yield f"{sql};\n"
    yield "COMMIT;\n"


def _tables(
    look: Look, kinds: dict[str, tuple[str, int]], tables: list[tuple[str, str]]
) -> Iterator[str]:
    """Make the tables and put in their rows; those that are virtual come last."""
    own = [(name, sql) for name, sql in tables if not name.startswith("sqlite_")]
    for name, sql in own:
        kind, without_rowid = kinds[name]
        if kind == "table":
            yield f"{sql};\n"
            yield from _rows(look, name, keeps_rowids=not without_rowid)
    if len(own) < len(tables) and "sqlite_sequence" in dict(tables):
        yield "DELETE FROM sqlite_sequence;\n"
        yield from _rows(look, "sqlite_sequence", keeps_rowids=False)
    for name, sql in own:
        if kinds[name][0] == "virtual":
            yield f"{sql};\n"
            yield from _content(look, name, sql)


def _content(look: Look, name: str, sql: str) -> Iterator[str]:
    """Fill a virtual table again."""
    module = _MODULE.search(sql)
    kind = module[1].lower() if module else ""
    if kind == "fts5vocab":
        return
    found = _CONTENT.search(sql) if kind == "fts5" else None
    if found is None:
        yield from _rows(look, name, keeps_rowids=kind == "fts5")
    elif found[1].strip("'\""):
        table = quoted(name)
        yield f"INSERT INTO {table}({table}) VALUES('rebuild');\n"
    else:
        yield "-- the table before this keeps no content that could be put in again\n"


def _rows(look: Look, name: str, *, keeps_rowids: bool) -> Iterator[str]:
    """Put in the rows of a table."""
    info = list(look("SELECT name, hidden, type, pk FROM pragma_table_xinfo(?)", name))
    columns = [column for column, is_hidden, _, _ in info if not is_hidden]
    keys = [kind for _, _, kind, pk in info if pk]
    taken = {column.lower() for column, *_ in info}
    rowid = next((word for word in _ROWID_NAMES if word not in taken), None)
    order = ""
    if keeps_rowids and rowid:
        order = f" ORDER BY {rowid}"
        if [kind.upper() for kind in keys] != ["INTEGER"]:  # or a column is the rowid already
            columns.insert(0, rowid)
    names = ", ".join(column if column == rowid else quoted(column) for column in columns)
    begin = f"INSERT INTO {quoted(name)}({names}) VALUES"
    held: list[str] = []
    size = 0
    for row in _read(look, name, columns, rowid, order):
        text = "(" + ",".join(row) + ")"
        held.append(text)
        size += len(text)
        if len(held) == _ROWS_MOST or size > _INSERT_LETTERS:
            yield begin + ",\n".join(held) + ";\n"
            held, size = [], 0
    if held:
        yield begin + ",\n".join(held) + ";\n"


def _read(
    look: Look, name: str, columns: list[str], rowid: str | None, order: str
) -> Iterator[list[str]]:
    """Yield the rows of a table as literals."""
    words = [column if column == rowid else quoted(column) for column in columns]
    table = f"FROM main.{quoted(name)}{order}"
    count = 0
    try:
        for row in look(f"SELECT {', '.join(words)} {table}"):
            yield [_literal(value) for value in row]
            count += 1
        return
    except UnicodeDecodeError:
        pass
    # Text that is no UTF-8: from here on all text is read as bytes.
    words = [f"CASE typeof({w}) WHEN 'text' THEN CAST({w} AS BLOB) ELSE {w} END" for w in words] + [
        f"typeof({w}) = 'text'" for w in words
    ]
    rest = f"SELECT {', '.join(words)} {table} LIMIT -1 OFFSET {count}"
    for row in look(rest):
        values, are_text = row[: len(columns)], row[len(columns) :]
        yield [
            _text(value) if is_text else _literal(value)
            for value, is_text in zip(values, are_text, strict=True)
        ]


def _literal(value: Any) -> str:
    """Return a value as SQL has it."""
    if isinstance(value, str):
        return _text(value.encode()) if "\0" in value else "'" + value.replace("'", "''") + "'"
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, float) and math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    return repr(value)


def _text(value: bytes) -> str:
    """Return text as a literal that a quoted string may not be: it has a NUL, or is no UTF-8."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    return f"CAST(X'{value.hex()}' AS TEXT)" if "\0" in text else _literal(text)


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
