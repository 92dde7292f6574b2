"""How the files of the corpus are made: databases built by SQLite, and bytes changed behind it."""

import functools
from collections.abc import Callable
from typing import Any

import apsw

Make = Callable[[], bytes]
Change = Callable[[bytearray], None]

#: The size of a page of `sample`: small, so that a few rows make a tree.
PAGE = 512


def built(*scripts: str) -> bytes:
    """Run scripts in an empty database and return its file."""
    connection = apsw.Connection(":memory:")
    try:
        for script in scripts:
            connection.execute(script).fetchall()
        return connection.serialize("main")
    finally:
        connection.close()


def forged(script: str, *changes: tuple[str, tuple[Any, ...]]) -> bytes:
    """Run a script, then statements that change the schema as no SQL of a caller's may."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(script).fetchall()
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
        for statement, values in changes:
            connection.execute(statement, values).fetchall()
        return connection.serialize("main")
    finally:
        connection.close()


def reworded(script: str, old: str, new: str) -> bytes:
    """Run a script and replace words in the schema, which SQLite would not have let in."""
    return forged(script, ("UPDATE sqlite_schema SET sql = replace(sql, ?, ?)", (old, new)))


@functools.cache
def sample() -> bytes:
    """Return a sound database: trees of two levels, an index, overflow pages and free pages."""
    return built(
        f"PRAGMA page_size={PAGE}; PRAGMA auto_vacuum=NONE;"
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c); CREATE INDEX i ON t(b);"
        "CREATE TABLE u(x UNIQUE, y); CREATE TABLE gone(z);"
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
        " INSERT INTO t SELECT i, printf('row %05d', i), i * i FROM n;"
        "INSERT INTO u VALUES(1, hex(zeroblob(1500))), (2, 'short');"
        "INSERT INTO gone VALUES(hex(zeroblob(4000))); DROP TABLE gone"
    )


def pages(data: bytes | bytearray) -> int:
    """Return how many pages the sample, or what was made of it, has."""
    return len(data) // PAGE


@functools.cache
def root(name: str) -> int:
    """Return the root page of a table or an index of the sample."""
    connection = apsw.Connection(":memory:")
    try:
        connection.deserialize("main", sample())
        found: Any = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)
        ).fetchall()
        return int(found[0][0])
    finally:
        connection.close()


def at(page: int, offset: int = 0) -> int:
    """Return where in the file a byte of a page is; the first page is number 1."""
    return (page - 1) * PAGE + offset


def number(data: bytes | bytearray, where: int, size: int = 4) -> int:
    """Return the big-endian number there."""
    return int.from_bytes(data[where : where + size], "big")


def put(data: bytearray, where: int, value: int, size: int = 4) -> None:
    """Write a big-endian number."""
    data[where : where + size] = value.to_bytes(size, "big")


def child(data: bytes | bytearray, page: int, which: int = 0) -> int:
    """Return the page that a cell of an inner page points to."""
    return number(data, at(page, number(data, at(page, 12 + 2 * which), 2)))


def leaf(data: bytes | bytearray, name: str = "t") -> int:
    """Return the first leaf of a tree of the sample."""
    page = root(name)
    while data[at(page)] in (2, 5):
        page = child(data, page)
    return page


def cell(data: bytes | bytearray, page: int, which: int = 0) -> int:
    """Return where in the file a cell of a leaf begins."""
    return at(page, number(data, at(page, 8 + 2 * which), 2))


def changed(change: Change) -> Make:
    """Make a file by changing the bytes of the sample."""

    def make() -> bytes:
        data = bytearray(sample())
        change(data)
        return bytes(data)

    return make


def written(where: int, value: int, size: int = 4) -> Make:
    """Make a file by writing one number into the sample."""
    return changed(lambda data: put(data, where, value, size))
