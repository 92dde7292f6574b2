"""A database as a script: what SQLite makes of it is the database, outside a cell and inside."""

import contextlib
import math
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import blocklist, dump, policy, receipts
from sandbox.calls import Call
from sandbox.engine import Engine
from sandbox.gate import RULES, Gate
from sandbox.place import DATABASE, FILES
from sandbox.sqlite import blank_database

Rows = list[tuple[Any, ...]]
#: Runs one statement and returns its rows.
Ask = Callable[..., Rows]

FOREIGN_KEYS = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
NUMBERS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {}) "


@pytest.fixture
def source() -> Iterator[apsw.Connection]:
    opened = apsw.Connection(":memory:")
    yield opened
    opened.close()


def look_into(connection: apsw.Connection) -> dump.Look:
    return lambda sql, *values: connection.execute(sql, values, can_cache=False)


def script_of(connection: apsw.Connection) -> str:
    return b"".join(dump.pieces(look_into(connection), receipts.TABLE)).decode()


@contextlib.contextmanager
def stock(script: str) -> Iterator[Ask]:
    """What Python's own SQLite makes of a script."""
    with contextlib.closing(sqlite3.connect(":memory:")) as made:
        made.text_factory = lambda text: text.decode(errors="surrogateescape")
        made.execute("PRAGMA foreign_keys=ON")
        made.executescript(script)
        assert not made.in_transaction
        yield lambda sql, *values: made.execute(sql, values).fetchall()


class Script:
    """An engine that lets a script say `foreign_keys`, and be long; no more than that."""

    def __init__(self, folder: Path) -> None:
        for name in FILES:
            (folder / name).write_bytes(blank_database() if name == DATABASE else b"")
        self.gate = Gate(folder / DATABASE)
        self.engine = Engine(self.gate)
        self.connection.limit(apsw.SQLITE_LIMIT_SQL_LENGTH, 1 << 30)

    def fill(self, script: str) -> None:
        pragma = apsw.SQLITE_PRAGMA
        usual = RULES[pragma]
        self.gate.set_rules(
            RULES
            | {pragma: lambda name, value: None if name == "foreign_keys" else usual(name, value)}
        )
        self.engine.run(Call(script, is_plain=True), time.monotonic() + 30)

    @property
    def connection(self) -> apsw.Connection:
        return self.gate.connection


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[Script]:
    made = Script(tmp_path)
    yield made
    made.gate.close()


def schema_of(ask: Ask) -> set[tuple[str, ...]]:
    """What there is, without SQLite's own tables and those in which virtual tables keep theirs."""
    shadows = ask("SELECT name FROM pragma_table_list WHERE type = 'shadow'")
    found = ask("SELECT type, name, tbl_name, sql FROM sqlite_schema")
    return {row for row in found if row[2][:7] != "sqlite_" and (row[2],) not in shadows}


def contents(ask: Ask, table: str, columns: list[str]) -> Rows:
    """Every value of a table, text as its bytes, floats bit by bit."""
    quoted = ['"' + one.replace('"', '""') + '"' for one in columns]
    each = [f"iif(typeof({one}) = 'text', CAST({one} AS BLOB), {one})" for one in quoted]
    each += [f"typeof({one})" for one in quoted]
    name = '"' + table.replace('"', '""') + '"'
    found = ask(f"SELECT {', '.join(each)} FROM {name}")
    return sorted((tuple(map(bits, row)) for row in found), key=repr)


def bits(value: Any) -> Any:
    return struct.pack("d", value) if isinstance(value, float) else value


def compare(source: apsw.Connection, ask: Ask) -> None:
    """Hold a database that a script has made against the one that it tells of."""

    def ours(sql: str, *values: Any) -> Rows:
        return source.execute(sql, values).fetchall()

    assert schema_of(ask) == schema_of(ours)
    assert ask("PRAGMA integrity_check")[0][0] == "ok"
    tables = ours("SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
    for table, kind in tables:
        if kind in ("table", "virtual") and not table.startswith("sqlite_s"):
            found = ours("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", table)
            columns = [name for (name,) in found]
            assert contents(ask, table, columns) == contents(ours, table, columns), table


def as_in_both(source: apsw.Connection, cell: Script) -> str:
    """The script, which makes the same of stock SQLite and of a cell, and of itself."""
    script = script_of(source)
    assert blocklist.forbidden(script) is None
    with stock(script) as ask:
        compare(source, ask)
    cell.fill(script)
    compare(source, lambda sql, *values: cell.connection.execute(sql, values).fetchall())
    assert script_of(cell.connection) == script
    return script


# --- whole databases ---

DATABASES = {
    "empty": "SELECT 1",
    "a table without rows": "CREATE TABLE t(a)",
    "many rows": f"CREATE TABLE t(a, b); INSERT INTO t {NUMBERS.format(1234)} SELECT i, -i FROM n",
    "long rows": f"CREATE TABLE t(a); INSERT INTO t {NUMBERS.format(9)}"
    " SELECT hex(zeroblob(i * 9000)) FROM n",
    "names": """
        CREATE TABLE "select"("from", "a b", "c""d", "e]", "f
        g", "é", "");
        INSERT INTO "select" VALUES(1, 2, 3, 4, 5, 6, 7);
        CREATE TABLE "a""b'c
        d;e"(x); INSERT INTO "a""b'c
        d;e" VALUES(1);
        CREATE TABLE 'Ünï'(a); INSERT INTO Ünï VALUES(1);
        CREATE TABLE üNï(a); INSERT INTO üNï VALUES(2);
        CREATE TABLE sqliteX(a); INSERT INTO sqliteX VALUES(1);
        CREATE TABLE fts5(fts5, attach); INSERT INTO fts5 VALUES('ATTACH ; fts5(1)', 2);
        CREATE INDEX "i ""n" ON "select"("a b")""",
    "without rowid": """
        CREATE TABLE t(a, b, c TEXT, PRIMARY KEY(b DESC, a)) WITHOUT ROWID;
        INSERT INTO t VALUES(1, 2, 'x'), (2, 1, 'y'), (1, 1, 'z')""",
    "strict": """
        CREATE TABLE t(a INT, b REAL, c TEXT, d BLOB, e ANY) STRICT;
        INSERT INTO t VALUES(1, 2, '3', x'04', '5'), (1, 2.5, '', x'', 5)""",
    "affinities": """
        CREATE TABLE t(a INTEGER, b REAL, c TEXT, d BLOB, e NUMERIC, f);
        INSERT INTO t VALUES('1', '1', 1, 1, '1', '1'), (1.5, 1, 1.5, '1', 1.5, 1.5),
            ('x', 'x', x'01', NULL, 1e300, ''), (x'31', x'31', x'31', x'31', x'31', x'')""",
    "generated columns": """
        CREATE TABLE t(a, b AS (a * 2) STORED, c AS (b + 1) VIRTUAL, d);
        INSERT INTO t(a, d) VALUES(1, 2), (3, 4); CREATE INDEX i ON t(c)""",
    "foreign keys": """
        CREATE TABLE child(a REFERENCES parent(a), b REFERENCES later(x));
        CREATE TABLE parent(a PRIMARY KEY, b REFERENCES child(rowid));
        CREATE TABLE later(x); CREATE UNIQUE INDEX i ON later(x);
        INSERT INTO child VALUES(1, 2); INSERT INTO parent VALUES(1, NULL);
        INSERT INTO later VALUES(2); CREATE TABLE orphan(a REFERENCES nobody)""",
    "altered": """
        CREATE TABLE t(a); INSERT INTO t VALUES(1); ALTER TABLE t ADD COLUMN b DEFAULT 'new';
        ALTER TABLE t RENAME COLUMN a TO "old a"; ALTER TABLE t RENAME TO "t 2";
        INSERT INTO "t 2" VALUES(2, 3); ALTER TABLE "t 2" ADD COLUMN c; CREATE TABLE u(x, y);
        INSERT INTO u VALUES(1, 2); ALTER TABLE u DROP COLUMN x""",
    "made of a query": "CREATE TABLE t AS SELECT 1 AS a, 'x' AS \"b c\", x'00' AS d",
    "indexes": """
        CREATE TABLE t(a UNIQUE, b, PRIMARY KEY(b)); INSERT INTO t VALUES(2, 1), (1, 2);
        CREATE INDEX i ON t(a, b); CREATE UNIQUE INDEX u ON t(b COLLATE NOCASE) WHERE a > 1;
        CREATE INDEX e ON t(abs(a)); ANALYZE""",
    "views on views": """
        CREATE VIEW w AS SELECT a + 1 AS b FROM v; CREATE VIEW v(a) AS SELECT x FROM t;
        CREATE TABLE t(x); INSERT INTO t VALUES(1); CREATE VIEW broken AS SELECT * FROM missing""",
    "comments": """
        CREATE TABLE t(a PRIMARY KEY) WITHOUT ROWID -- behind
        ; CREATE INDEX i ON t(a) -- behind
        ; CREATE VIEW v AS SELECT ';' AS a -- behind
        ; CREATE VIEW w AS SELECT 1 /* behind */""",
    "rtree": """
        CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, +name, +data);
        INSERT INTO r VALUES(9, 0.5, 1.25, 'nine', x'09'), (-1, -2, 1e30, NULL, 'x');
        CREATE VIRTUAL TABLE i USING rtree_i32("the id", a, b);
        INSERT INTO i VALUES(5, -2147483648, 2147483647)""",
    "fts5": """
        CREATE VIRTUAL TABLE f USING fts5(title, "a body", tokenize = 'porter');
        INSERT INTO f(rowid, title, "a body") VALUES(7, 'running', 'it''s'), (-2, 5, NULL),
            (3, 'x', x'79');
        ALTER TABLE f RENAME TO "f 2"; CREATE VIRTUAL TABLE words USING fts5vocab('f 2', row)""",
    "many rows of fts5": f"""CREATE VIRTUAL TABLE f USING fts5(a);
        INSERT INTO f {NUMBERS.format(500)} SELECT 'word' || i FROM n""",
}


@pytest.mark.parametrize("sql", DATABASES.values(), ids=DATABASES)
def test_a_script_makes_the_database_again(source: apsw.Connection, cell: Script, sql: str) -> None:
    source.execute(sql)
    as_in_both(source, cell)


def test_a_script_is_one_transaction_with_foreign_keys_off(source: apsw.Connection) -> None:
    source.execute("CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'it''s'), (NULL, x'00ff')")
    assert script_of(source) == (
        f"{FOREIGN_KEYS}CREATE TABLE t(a, b);\n"
        'INSERT INTO "t"("rowid","a","b") VALUES\n'
        "(1,1,'it''s'),\n(2,NULL,X'00ff');\nCOMMIT;\n"
    )


def test_a_comment_that_was_left_open_is_closed(source: apsw.Connection, cell: Script) -> None:
    source.execute("CREATE VIEW v AS SELECT 1 AS a /* -- open")
    script = script_of(source)
    assert "CREATE VIEW v AS SELECT 1 AS a /* -- open*/;\n" in script
    cell.fill(script)
    assert script_of(cell.connection) == script


@pytest.mark.parametrize(("rows", "length", "statements"), [(1000, 1, 10), (40, 5000, 10)])
def test_an_insert_takes_some_rows(
    source: apsw.Connection, rows: int, length: int, statements: int
) -> None:
    source.execute("CREATE TABLE t(a)")
    source.executemany("INSERT INTO t VALUES(?)", [("x" * length,)] * rows)
    assert script_of(source).count("INSERT INTO") == statements


def test_a_script_that_is_cut_off_makes_nothing(source: apsw.Connection, cell: Script) -> None:
    source.execute("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    with contextlib.suppress(Exception):
        cell.fill(script_of(source).removesuffix("COMMIT;\n"))
    assert schema_of(lambda sql: cell.connection.execute(sql).fetchall()) == set()


def test_versions_are_kept(source: apsw.Connection, cell: Script) -> None:
    source.execute("PRAGMA user_version=-7; PRAGMA application_id=252006674")
    script = as_in_both(source, cell)
    with stock(script) as ask:
        assert (ask("PRAGMA user_version"), ask("PRAGMA application_id")) == (
            [(-7,)],
            [(252006674,)],
        )


def test_the_services_own_table_is_left_out(cell: Script) -> None:
    cell.engine.run(Call("CREATE TABLE t(a)", key=b"k", print=b"p"), time.monotonic() + 5)
    assert cell.connection.table_exists("main", receipts.TABLE)
    script = script_of(cell.connection)
    assert "CREATE TABLE t(a)" in script
    assert receipts.TABLE not in script


def test_any_table_can_be_left_out_with_all_that_is_its(source: apsw.Connection) -> None:
    source.execute("""
        CREATE TABLE t(a); CREATE TABLE u(a); INSERT INTO u VALUES('secret');
        CREATE INDEX secret ON u(a); CREATE TRIGGER s AFTER INSERT ON u BEGIN SELECT 1; END""")
    script = b"".join(dump.pieces(look_into(source), "u"))
    assert script == f"{FOREIGN_KEYS}CREATE TABLE t(a);\nCOMMIT;\n".encode()


def test_a_script_comes_in_pieces(source: apsw.Connection) -> None:
    source.execute(f"CREATE TABLE t(a); INSERT INTO t {NUMBERS.format(30_000)} SELECT 'é' FROM n")
    found = list(dump.pieces(look_into(source), receipts.TABLE))
    assert len(found) > 3
    assert {len(piece) for piece in found[:-1]} == {dump.PIECE_BYTES}
    with stock(b"".join(found).decode()) as ask:
        assert ask("SELECT count(*), count(DISTINCT a) FROM t") == [(30_000, 1)]


def test_rows_are_not_read_before_they_are_asked_for(source: apsw.Connection) -> None:
    source.execute(f"CREATE TABLE t(a); INSERT INTO t {NUMBERS.format(30_000)} SELECT i FROM n")
    read = 0

    def counted(sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        nonlocal read
        for row in source.execute(sql, values):
            read += 1
            yield row

    next(dump.pieces(counted, receipts.TABLE))
    assert 0 < read < 10_000


# --- rows ---


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("t(a)", '"rowid","a"'),
        ("t(a INTEGER PRIMARY KEY)", '"a"'),
        ("t(a INTEGER PRIMARY KEY DESC)", '"rowid","a"'),
        ("t(a INT PRIMARY KEY)", '"rowid","a"'),
        ("t(a PRIMARY KEY) WITHOUT ROWID", '"a"'),
        ("t(a, RowID)", '"_rowid_","a","RowID"'),
        ("t(a, rowid, _rowid_)", '"oid","a","rowid","_rowid_"'),
        ("t(a, rowid, _rowid_, oid)", '"a","rowid","_rowid_","oid"'),
        ("t(a, rowid AS (a))", '"_rowid_","a"'),
    ],
)
def test_rows_are_kept_under_their_rowids(
    source: apsw.Connection, cell: Script, table: str, columns: str
) -> None:
    source.execute(f"CREATE TABLE {table}; INSERT INTO t(a) VALUES(7), (8), (9)")
    source.execute("DELETE FROM t WHERE a = 8")
    script = as_in_both(source, cell)
    assert f'INSERT INTO "t"({columns}) VALUES' in script
    name = columns.split(",", maxsplit=1)[0]
    if name != '"a"':
        rows = source.execute(f"SELECT {name}, a FROM t").fetchall()
        with stock(script) as ask:
            assert ask(f"SELECT {name}, a FROM t") == rows
            assert rows[1][0] == 3


def test_a_table_may_be_as_wide_as_can_be(source: apsw.Connection, cell: Script) -> None:
    most = policy.LIMITS["COLUMN"]
    source.limit(apsw.SQLITE_LIMIT_COLUMN, most)
    names = ", ".join(f"c{number}" for number in range(most))
    source.execute(f"CREATE TABLE t({names}); INSERT INTO t(c0, c9) VALUES('x', ?)", [1.5])
    source.execute("INSERT INTO t(c0) VALUES(CAST(x'ff' AS TEXT))")
    script = script_of(source)
    cell.fill(script)
    assert script_of(cell.connection) == script
    found = cell.connection.execute("SELECT CAST(c0 AS BLOB), c9 FROM t").fetchall()
    assert found == [(b"x", 1.5), (b"\xff", None)]


def test_an_index_with_all_columns_does_not_change_the_order(
    source: apsw.Connection, cell: Script
) -> None:
    source.execute("""
        CREATE TABLE t(rowid, _rowid_, oid, more TEXT AS ('more and more') STORED);
        CREATE INDEX i ON t(oid, rowid, _rowid_);
        INSERT INTO t VALUES(1, 1, 3), (1, 1, 2), (1, 1, 1)""")
    assert "(1,1,3),\n(1,1,2),\n(1,1,1);" in as_in_both(source, cell)


def test_numbering_goes_on_where_it_was(source: apsw.Connection, cell: Script) -> None:
    source.execute("""
        CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b);
        INSERT INTO t VALUES(5, 'x'), (90, 'y'); DELETE FROM t WHERE a = 90;
        CREATE TABLE empty(a INTEGER PRIMARY KEY AUTOINCREMENT);
        CREATE TABLE gone(a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO gone VALUES(3);
        DROP TABLE gone; UPDATE sqlite_sequence SET seq = 99""")
    script = as_in_both(source, cell)
    with stock(script) as ask:
        assert ask("SELECT name, seq FROM sqlite_sequence") == [("t", 99)]
        ask("INSERT INTO t(b) VALUES('z')")
        assert ask("SELECT max(a) FROM t") == [(100,)]


def test_a_sequence_without_its_tables_is_left_out(source: apsw.Connection, cell: Script) -> None:
    source.execute("""
        CREATE TABLE "AUTOINCREMENT"(a INTEGER PRIMARY KEY AUTOINCREMENT);
        DROP TABLE "AUTOINCREMENT"; INSERT INTO sqlite_sequence VALUES('nobody', 1);
        CREATE TABLE t("AUTOINCREMENT" DEFAULT 'AUTOINCREMENT')""")
    assert "sqlite_sequence" not in as_in_both(source, cell)


def test_triggers_are_there_and_have_not_fired(source: apsw.Connection, cell: Script) -> None:
    source.execute("""
        CREATE TABLE t(a); CREATE TABLE log(a);
        CREATE TRIGGER first AFTER INSERT ON t BEGIN
            INSERT INTO log VALUES(new.a); SELECT ';'; END;
        CREATE VIEW v AS SELECT a FROM t;
        CREATE TRIGGER second INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES(new.a); END;
        INSERT INTO v VALUES(1); DELETE FROM log; INSERT INTO log VALUES('one')""")
    script = as_in_both(source, cell)
    with stock(script) as ask:
        assert ask("SELECT a FROM log") == [("one",)]
        ask("INSERT INTO v VALUES(2)")
        assert ask("SELECT a FROM log") == [("one",), (2,)]


# --- virtual tables ---


def matches(ask: Ask, table: str, word: str) -> list[int]:
    found = ask(f'SELECT rowid FROM "{table}" WHERE "{table}" MATCH ? ORDER BY rowid', word)
    return [number for (number,) in found]


def test_words_are_found_as_before(source: apsw.Connection, cell: Script) -> None:
    source.execute(DATABASES["fts5"])
    script = as_in_both(source, cell)
    assert "f 2_content" not in script
    with stock(script) as ask:
        assert matches(ask, "f 2", "runs") == [7]
        assert matches(ask, "f 2", "5") == [-2]
        assert len(ask("SELECT term FROM words")) == 6
    assert len(cell.connection.execute("SELECT term FROM words").fetchall()) == 6


def test_settings_of_fts5_are_kept(source: apsw.Connection, cell: Script) -> None:
    source.execute("""
        CREATE VIRTUAL TABLE f USING fts5(a, b); INSERT INTO f(f, rank) VALUES('pgsz', 500);
        INSERT INTO f(f, rank) VALUES('rank', 'bm25(10.0, 5.0)')""")
    script = as_in_both(source, cell)
    with stock(script) as ask:
        found = ask("SELECT k, v FROM f_config WHERE k <> 'version'")
    assert found == [("pgsz", 500), ("rank", "bm25(10.0, 5.0)")]


@pytest.mark.parametrize(
    "content",
    [
        "content='docs'",
        "content='DOCS'",
        "content='it''s', content_rowid=id",
        "content=docs, content_rowid=id",
        'prefix=2, CONTENT = "DOCS"',
        "cont=[docs]",
        "content=seen, content_rowid='id'",
    ],
)
def test_content_that_is_elsewhere_is_indexed_anew(
    source: apsw.Connection, cell: Script, content: str
) -> None:
    source.execute(f"""
        CREATE VIRTUAL TABLE IF NOT EXISTS main.f USING FTS5(body, {content});
        CREATE TABLE Docs(id INTEGER PRIMARY KEY, body); CREATE VIEW seen AS SELECT * FROM docs;
        CREATE VIEW "it's" AS SELECT * FROM docs;
        CREATE TRIGGER t AFTER INSERT ON docs BEGIN
            INSERT INTO f(rowid, body) VALUES(new.id, new.body); END;
        INSERT INTO docs VALUES(4, 'four'), (9, 'nine four')""")
    script = as_in_both(source, cell)
    assert "VALUES('rebuild');" in script
    with stock(script) as ask:
        assert matches(ask, "f", "four") == [4, 9]
        assert matches(ask, "f", "nine") == [9]
    assert matches(lambda *a: cell.connection.execute(a[0], a[1:]).fetchall(), "f", "nine") == [9]


def test_content_is_found_under_the_rowids_it_had(source: apsw.Connection, cell: Script) -> None:
    source.execute("""
        CREATE TABLE docs(body); INSERT INTO docs(rowid, body) VALUES(4, 'a'), (9, 'b');
        CREATE VIRTUAL TABLE f USING fts5(body, content=docs); INSERT INTO f(f) VALUES('rebuild')
        """)
    with stock(as_in_both(source, cell)) as ask:
        assert matches(ask, "f", "b") == [9]


def test_content_may_be_called_as_if_it_were_fts5s_own(
    source: apsw.Connection, cell: Script
) -> None:
    source.execute("""
        CREATE TABLE docs_content(id INTEGER PRIMARY KEY, a);
        INSERT INTO docs_content VALUES(1, 'one'), (2, 'two');
        CREATE VIRTUAL TABLE Docs USING fts5(a, content='docs_content', content_rowid=id);
        INSERT INTO docs(docs) VALUES('rebuild')""")
    with stock(as_in_both(source, cell)) as ask:
        assert matches(ask, "Docs", "two") == [2]
        assert ask("SELECT count(*) FROM docs_content") == [(2,)]


def test_content_that_is_gone_stops_no_script(source: apsw.Connection) -> None:
    source.execute("""
        CREATE TABLE docs(a); CREATE VIRTUAL TABLE f USING fts5(a, content=docs); DROP TABLE docs
        """)
    script = script_of(source)
    assert "\n-- the content of f is not there any more\n" in script
    with stock(script) as ask:
        assert len(schema_of(ask)) == len(schema_of(lambda sql: source.execute(sql).fetchall()))


@pytest.mark.parametrize("more", ["", ", contentless_delete=1", ", contentless_unindexed=1"])
def test_a_contentless_table_is_told_without_its_rows(
    source: apsw.Connection, cell: Script, more: str
) -> None:
    source.execute(f"CREATE VIRTUAL TABLE \"f\n;\" USING fts5(a, b UNINDEXED, content=''{more})")
    source.execute("INSERT INTO \"f\n;\"(rowid, a) VALUES(1, 'word')")
    script = script_of(source)
    assert "\n-- the content of f ; is not kept and cannot be read\n" in script
    cell.fill(script)
    assert script_of(cell.connection) == script
    assert cell.connection.execute('SELECT count(*) FROM "f\n;"').fetchall() == [(0,)]


def test_modules_that_cells_do_not_have_are_told_of(source: apsw.Connection, cell: Script) -> None:
    source.execute('CREATE TABLE t(a); CREATE VIRTUAL TABLE "f\n;" USING fts4(a, content="t")')
    script = script_of(source)
    assert "\n-- virtual table f ; is left out: no module fts4 here\n" in script
    cell.fill(script)
    assert cell.connection.table_exists("main", "t")
    assert not cell.connection.table_exists("main", "f\n;")


def test_rectangles_come_in_the_order_of_their_numbers(
    source: apsw.Connection, cell: Script
) -> None:
    source.execute(f"""
        CREATE VIRTUAL TABLE r USING rtree_i32(id, a, b);
        INSERT INTO r {NUMBERS.format(300)} SELECT 301 - i, i * 7919 % 300, 400 FROM n""")
    script = as_in_both(source, cell)
    numbers = [int(line[1:].split(",")[0]) for line in script.split("\n") if line.startswith("(")]
    assert numbers == list(range(1, 301))


# --- values ---

VALUES = {
    "text": ["", "a", "it's", "''", "line\nline", "\r", "a\r\nb", "\u2028 é 𝄞 \ufeff", "\\n;--/*"],
    "NUL": ["\0", "a\0b", "'\0'", "é\0"],
    "integers": [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1],
    "floats": [0.0, -0.0, 1.0, -1.5, 0.1, 1 / 3, 1e16, 1e-5, 123456789.123, 5e-324, 1e308],
    "infinities": [math.inf, -math.inf],
    "null": [None],
    "BLOBs": [b"", b"\0", b"'", bytes(range(256)), "é".encode()],
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_values_are_what_they_were(
    source: apsw.Connection, cell: Script, values: list[Any]
) -> None:
    source.execute("CREATE TABLE t(a)")
    source.executemany("INSERT INTO t VALUES(?)", [[value] for value in values])
    script = as_in_both(source, cell)
    assert "\0" not in script
    assert "\r\n" not in script
    for made in (cell.connection, source):
        found = [bits(value) for (value,) in made.execute("SELECT a FROM t")]
        assert found == list(map(bits, values))
    with stock(script) as ask:
        found = [bits(value) for (value,) in ask("SELECT a FROM t")]
    assert found == list(map(bits, values))


_SURE = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
_FLOATS = st.floats(allow_nan=False)


@given(st.lists(st.tuples(_SURE, st.one_of(_SURE, _FLOATS)), max_size=5))
def test_any_values_are_what_they_were(rows: Rows) -> None:
    with (
        contextlib.closing(apsw.Connection(":memory:")) as source,
        contextlib.closing(apsw.Connection(":memory:")) as made,
    ):
        source.execute("CREATE TABLE t(a, b)")
        source.executemany("INSERT INTO t VALUES(?, ?)", rows)
        script = script_of(source)
        made.execute(script)
        found = made.execute("SELECT a, b FROM t").fetchall()
        assert [tuple(map(bits, row)) for row in found] == [tuple(map(bits, row)) for row in rows]
        with stock(script) as ask:
            found = ask("SELECT a, b FROM t")
        # It may read the last digit of a float wrong.
        assert [a for a, _ in found] == [a for a, _ in rows]
        assert [type(b) for _, b in found] == [type(b) for _, b in rows]


ROWS_OF_BYTES = [b"good", b"\xff", b"\xc3", b"a\0\xfe", "é".encode(), b"\xed\xa0\x80", b""]


@pytest.mark.parametrize(
    "table",
    [
        "TABLE t(a, b)",
        "TABLE t(a PRIMARY KEY, b) WITHOUT ROWID",
        "VIRTUAL TABLE t USING fts5(a, b)",
    ],
)
def test_text_that_is_no_utf8_stays_as_it_is(
    source: apsw.Connection, cell: Script, table: str
) -> None:
    source.execute(f"CREATE {table}")
    others = [1, 2.5, None, b"\xff", "text", "\0", -1]
    source.executemany(
        "INSERT INTO t(a, b) VALUES(CAST(? AS TEXT), ?)", zip(ROWS_OF_BYTES, others, strict=True)
    )
    script = as_in_both(source, cell)
    assert "CAST(X'ff' AS TEXT)" in script
    assert "X'ff'" in script.replace("CAST(X'ff' AS TEXT)", "")


def test_rows_behind_text_that_is_no_utf8_are_neither_lost_nor_doubled(
    source: apsw.Connection, cell: Script
) -> None:
    source.execute(f"CREATE TABLE t(a); INSERT INTO t {NUMBERS.format(1000)} SELECT i FROM n")
    source.execute("UPDATE t SET a = CAST(x'ff' AS TEXT) WHERE a IN (555, 777)")
    script = as_in_both(source, cell)
    assert script.count("CAST(") == 2


def test_text_of_another_encoding_is_text_of_utf8(source: apsw.Connection) -> None:
    source.execute(
        "PRAGMA encoding='UTF-16le'; CREATE TABLE t(a); INSERT INTO t VALUES('é'), ('x')"
    )
    source.execute("INSERT INTO t VALUES(CAST(x'6100d800' AS TEXT)), (CAST(x'610000d8' AS TEXT))")
    with stock(script_of(source)) as ask:
        found = [value for (value,) in ask("SELECT a FROM t")]
    assert found[:3] == ["é", "x", "aØ"]
    assert found[3] == "a\ufffd"
