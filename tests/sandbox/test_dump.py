"""The SQL that makes a database again: what comes back is what there was, value by value."""

import math
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import dump, policy, receipts

SCRIPTS = {
    "nothing": "",
    "tables": "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'x'), (2.5, NULL), (x'00ff', 'it''s')",
    "names": 'CREATE TABLE "a b""c\n"("select" INTEGER, "x,y" TEXT); '
    'INSERT INTO "a b""c\n" VALUES(1, \'one\')',
    "without rowid": "CREATE TABLE t(k TEXT PRIMARY KEY, v) WITHOUT ROWID;"
    " INSERT INTO t VALUES('b', 1), ('a', 2)",
    "strict": "CREATE TABLE t(a INTEGER, b ANY) STRICT; INSERT INTO t VALUES(1, 'x'), (2, 3)",
    "generated": "CREATE TABLE t(a, b AS (a * 2), c AS (a + 1) STORED); INSERT INTO t VALUES(4)",
    "sequence": "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a);"
    " INSERT INTO t(a) VALUES(1), (2); DELETE FROM t WHERE a = 2",
    "rowids": "CREATE TABLE t(a); INSERT INTO t(rowid, a) VALUES(7, 'x'), (3, 'y')",
    "hidden rowid": "CREATE TABLE t(rowid, _ROWID_, oid); INSERT INTO t VALUES(1, 2, 3)",
    "keys": "CREATE TABLE child(p REFERENCES parent(id)); INSERT INTO child VALUES(1);"
    " CREATE TABLE parent(id INTEGER PRIMARY KEY); INSERT INTO parent VALUES(1)",
    "triggers": "CREATE TABLE t(a); CREATE TABLE log(a); CREATE TRIGGER g AFTER INSERT ON t"
    " BEGIN INSERT INTO log VALUES(new.a); END; INSERT INTO t VALUES(1)",
    "views": "CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM t;"
    " CREATE VIEW w AS SELECT * FROM v; CREATE INDEX i ON t(a) WHERE a > 0;"
    " CREATE UNIQUE INDEX u ON t(a + 1)",
    "fts5": "CREATE VIRTUAL TABLE f USING fts5(a, b UNINDEXED);"
    " INSERT INTO f(rowid, a, b) VALUES(5, 'brown fox', 'x'), (9, 'lazy dog', NULL)",
    "external": "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(3, 'brown fox');"
    " CREATE VIRTUAL TABLE f USING fts5(a, content='t', content_rowid='id');"
    " INSERT INTO f(f) VALUES('rebuild')",
    "vocabulary": "CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('one two');"
    " CREATE VIRTUAL TABLE v USING fts5vocab(f, row)",
    "rtree": "CREATE VIRTUAL TABLE r USING rtree(id, a, b, +c); INSERT INTO r VALUES(4, 1, 2, 'c')",
    "not utf-8": "CREATE TABLE t(a, b); INSERT INTO t VALUES('first', 1),"
    " (CAST(x'ff00fe' AS TEXT), x'ff'), ('last', CAST(x'80' AS TEXT)), ('ü', NULL)",
    "nul": "CREATE TABLE t(a); INSERT INTO t VALUES('a' || char(0) || 'b')",
    "versions": "PRAGMA user_version=7; PRAGMA application_id=-3",
    "many": "CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n"
    " WHERE i < 2500) INSERT INTO t SELECT i, 'row ' || i FROM n",
}


def opened(script: str = "") -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    for switch, on in policy.SWITCHES.items():
        connection.config(getattr(apsw, f"SQLITE_DBCONFIG_{switch}"), on)
    connection.drop_modules(sorted(policy.MODULES))
    connection.execute(script)
    return connection


def dumped(connection: apsw.Connection) -> str:
    def look(sql: str, *values: Any) -> Iterator[Any]:
        return connection.execute(sql, values)

    return b"".join(dump.pieces(look, receipts.TABLE)).decode()


def content(connection: Any) -> dict[str, Any]:
    """All tables with their rows, their types and the bytes of their text."""
    found: dict[str, Any] = {}
    schema = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'"
    found["schema"] = sorted(map(repr, connection.execute(schema + " ORDER BY name")))
    for kind, name, _ in list(connection.execute(schema)):
        if kind == "table" and "_" not in name.removeprefix("sqlite_"):
            quoted = dump.quoted(name)
            columns = [
                row[0]
                for row in connection.execute(
                    "SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", (name,)
                )
            ]
            words = ", ".join(
                f"typeof({dump.quoted(c)}), CAST({dump.quoted(c)} AS BLOB)" for c in columns
            )
            found[name] = list(map(tuple, connection.execute(f"SELECT {words} FROM {quoted}")))
    for pragma in ("user_version", "application_id"):
        found[pragma] = list(map(tuple, connection.execute(f"PRAGMA {pragma}")))
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_made_again_is_what_there_was(name: str) -> None:
    first = opened(SCRIPTS[name])
    text = dumped(first)
    again = opened(text)
    assert content(again) == content(first)
    assert dumped(again) == text, "and stays so"
    plain = sqlite3.connect(":memory:")
    plain.executescript(text)
    assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_rowids_stay_and_full_text_is_found() -> None:
    again = opened(dumped(opened(SCRIPTS["rowids"])))
    assert again.execute("SELECT rowid, a FROM t").fetchall() == [(3, "y"), (7, "x")]
    again = opened(dumped(opened(SCRIPTS["fts5"])))
    assert again.execute("SELECT rowid FROM f('fox')").fetchall() == [(5,)]
    again = opened(dumped(opened(SCRIPTS["external"])))
    assert again.execute("SELECT rowid FROM f('fox')").fetchall() == [(3,)]


def test_no_trigger_fires_while_rows_are_put_in() -> None:
    again = opened(dumped(opened(SCRIPTS["triggers"])))
    assert again.execute("SELECT count(*) FROM log").fetchall() == [(1,)]
    again.execute("INSERT INTO t VALUES(2)")
    assert again.execute("SELECT count(*) FROM log").fetchall() == [(2,)]


def test_what_keeps_no_content_is_told() -> None:
    text = dumped(opened("CREATE VIRTUAL TABLE f USING fts5(a, content='')"))
    assert "keeps no content" in text
    assert "INSERT" not in text
    opened(text).execute("SELECT * FROM f")


def test_the_services_own_table_is_left_out() -> None:
    connection = apsw.Connection(":memory:")
    connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
    connection.execute(receipts.MAKE)
    connection.execute(f"INSERT INTO {receipts.TABLE}(key) VALUES('k'); CREATE TABLE t(a)")
    assert receipts.TABLE not in dumped(connection)


def test_a_long_one_comes_in_pieces_and_quickly() -> None:
    connection = opened("CREATE TABLE t(a INTEGER PRIMARY KEY, b, c, d)")
    connection.executemany(
        "INSERT INTO t VALUES(?, ?, ?, ?)",
        ((n, f"the text of row {n}", n * 1.5, None) for n in range(150_000)),
    )
    began = time.process_time()
    pieces = list(dump.pieces(lambda sql, *values: connection.execute(sql, values), ""))
    took = time.process_time() - began
    print(f"{sum(map(len, pieces)) / 1e6:.1f} MB in {took:.2f} s")
    assert len(pieces) > 20
    assert max(map(len, pieces)) < 200_000
    assert took < 2


values = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.binary(max_size=30),
)


@given(rows=st.lists(st.tuples(values, values), max_size=8))
@settings(deadline=None, max_examples=200)
def test_every_value_comes_back(rows: list[Any]) -> None:
    first = opened("CREATE TABLE t(a, b)")
    first.executemany("INSERT INTO t VALUES(?, ?)", rows)
    again = opened(dumped(first))
    found = again.execute("SELECT * FROM t").fetchall()
    assert found == rows
    for row, was in zip(found, rows, strict=True):
        for value, before in zip(row, was, strict=True):
            assert type(value) is type(before)
            if isinstance(value, float):
                assert math.copysign(1, value) == math.copysign(1, before)
