"""Files whose bytes lie: headers, pages, cells, chains and free lists that no SQLite would write.

The layout is that of https://www.sqlite.org/fileformat2.html.
"""

import random

from tests.hostile.files_making import (
    PAGE,
    Make,
    at,
    built,
    cell,
    changed,
    child,
    forged,
    leaf,
    number,
    pages,
    put,
    root,
    sample,
    written,
)

_MAGIC = b"SQLite format 3\0"


def _cut(length: int) -> Make:
    return lambda: sample()[:length]


def _noise(seed: int, kept: int) -> Make:
    """Make a file of noise behind so many bytes of the sample."""
    return lambda: sample()[:kept] + random.Random(seed).randbytes(16 * PAGE - kept)


def _one_bit(data: bytearray) -> None:
    for place in range(PAGE, len(data), PAGE):
        data[place] ^= 1


SIZES: dict[str, Make] = {
    "nothing": lambda: b"",
    "one byte": lambda: b"S",
    "a text": lambda: b"CREATE TABLE t(a);\n" * 100,
    "zeros": lambda: bytes(8 * PAGE),
    "only the magic": lambda: _MAGIC,
    "only the header": _cut(100),
    "cut inside the header": _cut(60),
    "cut inside the first page": _cut(PAGE - 100),
    "only the first page": _cut(PAGE),
    "cut inside a page": _cut(20 * PAGE + 77),
    "half of it": lambda: sample()[: pages(sample()) // 2 * PAGE],
    "last page missing": lambda: sample()[:-PAGE],
    "one byte short": lambda: sample()[:-1],
    "one byte long": lambda: sample() + b"\0",
    "one page long": lambda: sample() + bytes(PAGE),
    "noise": _noise(1, 0),
    "noise behind the magic": _noise(2, len(_MAGIC)),
    "noise behind the header": _noise(3, 100),
    "noise behind the first page": _noise(4, PAGE),
    "one bit in every page": changed(_one_bit),
}

HEADER: dict[str, Make] = {
    "wrong magic": written(0, ord("s"), 1),
    "magic of SQLite 2": lambda: b"** This file contains an SQLite 2.1 database **" + bytes(977),
    "page size 0": written(16, 0, 2),
    "page size 1 for 65536": written(16, 1, 2),
    "page size 3": written(16, 3, 2),
    "page size 256": written(16, 256, 2),
    "page size 513": written(16, 513, 2),
    "page size twice the real": written(16, 2 * PAGE, 2),
    "page size 32768": written(16, 32768, 2),
    "write version 3": written(18, 3, 1),
    "read version 3": written(19, 3, 1),
    "versions 3": written(18, 0x0303, 2),
    "versions 0": written(18, 0, 2),
    "reserved bytes 255": written(20, 255, 1),
    "reserved bytes 32": written(20, 32, 1),
    "reserved bytes 33": written(20, 33, 1),
    "payload fractions 0": written(21, 0, 3),
    "payload fractions 255": written(21, 0xFFFFFF, 3),
    "page count too high": changed(lambda data: put(data, 28, pages(data) + 5)),
    "page count 2^32 - 1": written(28, 0xFFFFFFFF),
    "page count too low": changed(lambda data: put(data, 28, pages(data) - 20)),
    "page count 0": written(28, 0),
    "page count 1": written(28, 1),
    "schema format 0": written(44, 0),
    "schema format 5": written(44, 5),
    "schema format 2^32 - 1": written(44, 0xFFFFFFFF),
    "encoding 0": written(56, 0),
    "encoding 4": written(56, 4),
    "UTF-16 that is not": written(56, 2),
    "auto-vacuum that is not": written(52, 3),
    "incremental vacuum alone": written(64, 1),
    "cache size of all": written(48, 0x7FFFFFFF),
    "reserved for expansion": written(72, 0xFFFFFFFF),
}


def _loop_of_trunks(data: bytearray) -> None:
    put(data, at(number(data, 32)), number(data, 32))


def _number_of_leaves(data: bytearray) -> None:
    put(data, at(number(data, 32), 4), 0x7FFFFFFF)


def _leaf_out_of_range(data: bytearray) -> None:
    put(data, at(number(data, 32), 8), pages(data) + 100)


FREE_PAGES: dict[str, Make] = {
    "free: trunk out of range": changed(lambda data: put(data, 32, pages(data) + 1)),
    "free: trunk is page 1": written(32, 1),
    "free: trunk is in use": changed(lambda data: put(data, 32, root("t"))),
    "free: no trunk but a count": written(32, 0),
    "free: count too high": changed(lambda data: put(data, 36, number(data, 36) + 1)),
    "free: count too low": changed(lambda data: put(data, 36, 1)),
    "free: count 0": written(36, 0),
    "free: trunks in a loop": changed(_loop_of_trunks),
    "free: trunk of 2^31 leaves": changed(_number_of_leaves),
    "free: leaf out of range": changed(_leaf_out_of_range),
}


def _tree(page_of: str, offset: int, value: int, size: int) -> Make:
    return changed(lambda data: put(data, at(root(page_of), offset), value, size))


def _leaf_of(offset: int, value: int, size: int) -> Make:
    return changed(lambda data: put(data, at(leaf(data), offset), value, size))


def _child_is(page: str) -> Make:
    def change(data: bytearray) -> None:
        where = {"root": root("t"), "far": pages(data) + 9, "zero": 0, "other": root("i")}[page]
        first = at(root("t"), number(data, at(root("t"), 12), 2))
        put(data, first, where)

    return changed(change)


def _swapped_rowids(data: bytearray) -> None:
    page = leaf(data)
    one, two = (number(data, at(page, 8 + 2 * which), 2) for which in (0, 1))
    put(data, at(page, 8), two, 2)
    put(data, at(page, 10), one, 2)


def _same_child_twice(data: bytearray) -> None:
    page = root("t")
    put(data, at(page, number(data, at(page, 12), 2)), child(data, page, 1))


PAGES: dict[str, Make] = {
    "tree: page of no type": _tree("t", 0, 7, 1),
    "tree: index where a table is": _tree("t", 0, 2, 1),
    "tree: table where an index is": _tree("i", 0, 5, 1),
    "tree: leaf that claims to be inner": _leaf_of(0, 5, 1),
    "tree: leaf of the other type": _leaf_of(0, 10, 1),
    "tree: cells beyond the page": _leaf_of(3, 0xFFFF, 2),
    "tree: no cells": _leaf_of(3, 0, 2),
    "tree: cell area beyond the page": _leaf_of(5, 0xFFF0, 2),
    "tree: free block in itself": _leaf_of(1, 8, 2),
    "tree: free block beyond the page": _leaf_of(1, PAGE - 1, 2),
    "tree: too many fragments": _leaf_of(7, 255, 1),
    "tree: cell pointer beyond the page": _leaf_of(8, PAGE + 40, 2),
    "tree: cell pointer into the header": _leaf_of(8, 2, 2),
    "tree: cell at the last byte": _leaf_of(8, PAGE - 1, 2),
    "tree: two cells in one place": changed(
        lambda data: put(data, at(leaf(data), 8), number(data, at(leaf(data), 10), 2), 2)
    ),
    "tree: rowids out of order": changed(_swapped_rowids),
    "tree: child is its own root": _child_is("root"),
    "tree: child out of range": _child_is("far"),
    "tree: child is page 0": _child_is("zero"),
    "tree: child is of another tree": _child_is("other"),
    "tree: one child twice": changed(_same_child_twice),
    "tree: right child is the root": changed(lambda data: put(data, at(root("t"), 8), root("t"))),
    "tree: no root page": changed(lambda data: data.__setitem__(slice(at(2), at(3)), bytes(PAGE))),
}


def _payload(value: bytes) -> Make:
    def change(data: bytearray) -> None:
        where = cell(data, leaf(data))
        data[where : where + len(value)] = value

    return changed(change)


def _record(value: bytes) -> Make:
    def change(data: bytearray) -> None:
        where = cell(data, leaf(data)) + 2  # behind the payload's size and the rowid
        data[where : where + len(value)] = value

    return changed(change)


def _overflow(data: bytearray) -> int:
    """Return where in the file the number of the first overflow page of `u` is."""
    usable, header = PAGE, cell(data, root("u"))
    size = ((data[header] & 0x7F) << 7) | data[header + 1]
    least, most = (usable - 12) * 32 // 255 - 23, usable - 35
    kept = least + (size - least) % (usable - 4)
    return header + 3 + (kept if kept <= most else least)


def _chain(value: str) -> Make:
    def change(data: bytearray) -> None:
        first = number(data, _overflow(data))
        if value == "loop":
            put(data, at(first), first)
        elif value == "short":
            put(data, at(first), 0)
        else:
            where = {"far": pages(data) + 1, "zero": 0, "root": root("t"), "all": 0xFFFFFFFF}[value]
            put(data, _overflow(data), where)

    return changed(change)


CELLS: dict[str, Make] = {
    "cell: payload of 127 bytes": _payload(b"\x7f"),
    "cell: payload of 2^31 bytes": _payload(b"\x88\x80\x80\x80\x00\x01"),
    "cell: payload of 2^63 bytes": _payload(b"\xff" * 9 + b"\x01"),
    "cell: payload of nothing": _payload(b"\x00"),
    "cell: record header longer than it": _record(b"\x7f"),
    "cell: record header of 2^31": _record(b"\x88\x80\x80\x80\x00"),
    "cell: record header of nothing": _record(b"\x00"),
    "cell: value longer than the record": _record(b"\x04\x00\x7f"),
    "cell: type reserved for later": _record(b"\x04\x00\x0b"),
    "overflow: chain in a loop": _chain("loop"),
    "overflow: chain too short": _chain("short"),
    "overflow: page out of range": _chain("far"),
    "overflow: page 0": _chain("zero"),
    "overflow: page of a tree": _chain("root"),
    "overflow: page 2^32 - 1": _chain("all"),
}


def _without_an_index(statement: str) -> bytes:
    """Change a table while SQLite does not know of its index."""
    script = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b);"
    script += "INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'three')"
    return _spliced(built(script), built(script + ";" + statement))


def _spliced(index_of: bytes, table_of: bytes) -> bytes:
    """Put the index (page 3) of one file into another."""
    size = number(table_of, 16, 2)
    return table_of[: 2 * size] + index_of[2 * size : 3 * size] + table_of[3 * size :]


INDEXES: dict[str, Make] = {
    "index: entry missing": lambda: _without_an_index("INSERT INTO t VALUES(4, 'four')"),
    "index: entry left over": lambda: _without_an_index("DELETE FROM t WHERE a = 2"),
    "index: entry of another value": lambda: _without_an_index("UPDATE t SET b = 'x' WHERE a = 2"),
    "index: entry of another row": lambda: _without_an_index("UPDATE t SET a = 9 WHERE a = 2"),
    "index: unique that is not": lambda: forged(
        "CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1), (1)",
        ("UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX i ON t(a)' WHERE name = 'i'", ()),
    ),
    "index: in another order": lambda: forged(
        "CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1), (2), (3)",
        ("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t(a DESC)' WHERE name = 'i'", ()),
    ),
    "table: NULL in a NOT NULL": lambda: forged(
        "CREATE TABLE t(a); INSERT INTO t VALUES(NULL)",
        ("UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a NOT NULL)'", ()),
    ),
    "table: text in a STRICT integer": lambda: forged(
        "CREATE TABLE t(a ANY) STRICT; INSERT INTO t VALUES('x')",
        ("UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a INT) STRICT'", ()),
    ),
    "table: row against its CHECK": lambda: forged(
        "CREATE TABLE t(a); INSERT INTO t VALUES(1)",
        ("UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a CHECK (a > 5))'", ()),
    ),
}

CASES: dict[str, Make] = {**SIZES, **HEADER, **FREE_PAGES, **PAGES, **CELLS, **INDEXES}
