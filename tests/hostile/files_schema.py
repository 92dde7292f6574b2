"""Files whose schema is the attack: rows that describe nothing, and what must never be named."""

from sandbox import receipts
from tests.hostile.files_making import Make, built, forged, reworded

_INSERT = "INSERT INTO sqlite_schema VALUES(?, ?, ?, ?, ?)"


def _row(*values: object) -> Make:
    return lambda: forged("CREATE TABLE t(a); INSERT INTO t VALUES(1)", (_INSERT, values))


def _set(assignment: str, *values: object) -> Make:
    return lambda: forged(
        "CREATE TABLE t(a); CREATE TABLE u(b); INSERT INTO t VALUES(1)",
        (f"UPDATE sqlite_schema SET {assignment} WHERE name = 't'", values),
    )


ROWS: dict[str, Make] = {
    "schema: garbage for SQL": _set("sql = 'it was a dark and stormy night'"),
    "schema: SQL of nothing": _set("sql = ''"),
    "schema: no SQL": _set("sql = NULL"),
    "schema: a number for SQL": _set("sql = 7"),
    "schema: bytes for SQL": _set("sql = x'00ff00ff'"),
    "schema: DROP for SQL": _set("sql = 'DROP TABLE u'"),
    "schema: SELECT for SQL": _set("sql = 'SELECT 1'"),
    "schema: ATTACH for SQL": _set("sql = 'ATTACH ''/etc/passwd'' AS x'"),
    "schema: a second statement": _set("sql = 'CREATE TABLE t(a); ATTACH ''x'' AS y'"),
    "schema: too long SQL": _set("sql = 'CREATE TABLE t(a ' || hex(zeroblob(600000)) || ')'"),
    "schema: 1,500 columns": _set(
        "sql = 'CREATE TABLE t(c' || (WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL"
        " SELECT i + 1 FROM n WHERE i < 1500) SELECT group_concat(i, ',c') FROM n) || ')'"
    ),
    "schema: garbage for a type": _set("type = 'tabel'"),
    "schema: no type": _set("type = NULL"),
    "schema: a type of another": _set("type = 'view'"),
    "schema: no name": _set("name = NULL"),
    "schema: another name": _set("name = 'x'"),
    "schema: a name of bytes": _set("name = x'74'"),
    "schema: a name that is no text": _set(
        "name = CAST(x'ff' AS TEXT), tbl_name = CAST(x'ff' AS TEXT),"
        " sql = 'CREATE TABLE \"' || CAST(x'ff' AS TEXT) || '\"(a)'"
    ),
    "schema: another table's name": _set("tbl_name = 'u'"),
    "schema: a name twice": _row("table", "t", "t", 2, "CREATE TABLE t(a)"),
    "schema: root page 0": _set("rootpage = 0"),
    "schema: root page 1": _set("rootpage = 1"),
    "schema: root page -1": _set("rootpage = -1"),
    "schema: no root page": _set("rootpage = NULL"),
    "schema: root page out of range": _set("rootpage = 5000"),
    "schema: root page 2^40": _set("rootpage = 1099511627776"),
    "schema: root page of text": _set("rootpage = 'x'"),
    "schema: shared root page": _set("rootpage = 3"),
    "schema: table as an index": _row("index", "i", "t", 2, "CREATE INDEX i ON t(a)"),
    "schema: index of no table": _row("index", "i", "x", 2, "CREATE INDEX i ON x(a)"),
    "schema: index without SQL": _row("index", "sqlite_autoindex_t_1", "t", 2, None),
    "schema: trigger of no table": _row(
        "trigger", "r", "x", 0, "CREATE TRIGGER r INSERT ON x BEGIN SELECT 1; END"
    ),
    "schema: itself as a table": _row(
        "table", "sqlite_schema", "sqlite_schema", 1, "CREATE TABLE sqlite_schema(a)"
    ),
    "schema: view of itself": lambda: forged(
        "CREATE TABLE t(a)", (_INSERT, ("view", "v", "v", 0, "CREATE VIEW v AS SELECT * FROM v"))
    ),
    "schema: view of what is gone": lambda: built("CREATE VIEW v AS SELECT * FROM gone"),
    "schema: columns generated in a ring": lambda: forged(
        "CREATE TABLE t(a, b AS (a), c AS (a))",
        ("UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a, b AS (c), c AS (b))'", ()),
    ),
}

_CALLS = {
    "load_extension": "load_extension('x')",
    "readfile": "readfile('/etc/passwd')",
    "writefile": "writefile('x', 'y')",
    "edit": "edit('x')",
    "zipfile": "zipfile('x')",
    "fts3_tokenizer": "fts3_tokenizer('simple')",
    "sqlite_log": "sqlite_log(1, 'x')",
    "fts5_source_id": "fts5_source_id()",
    "unknown function": "no_such_function(1)",
}
#: Where an expression is kept; abs(-7) is replaced behind SQLite's back.
_KEPT = {
    "view": "CREATE VIEW v AS SELECT 1 UNION ALL SELECT abs(-7)",
    "view, inside": "CREATE VIEW v AS SELECT 1 WHERE EXISTS (SELECT 1 FROM (SELECT abs(-7)))",
    "view, WITH": "CREATE VIEW v AS WITH x AS (SELECT abs(-7) AS a) SELECT 1 FROM x",
    "default": "CREATE TABLE t(a, b DEFAULT (abs(-7)))",
    "check": "CREATE TABLE t(a CHECK (a > abs(-7)))",
    "table check": "CREATE TABLE t(a, b, CHECK (b > abs(-7)))",
    "generated column": "CREATE TABLE t(a, b AS (abs(-7)))",
    "stored column": "CREATE TABLE t(a, b AS (abs(-7)) STORED)",
    "index": "CREATE TABLE t(a); CREATE INDEX i ON t(a, abs(-7))",
    "partial index": "CREATE TABLE t(a); CREATE INDEX i ON t(a) WHERE a > abs(-7)",
    "insert trigger": "CREATE TABLE t(a); CREATE TRIGGER r AFTER INSERT ON t"
    " BEGIN SELECT abs(-7); END",
    "update trigger": "CREATE TABLE t(a, b); CREATE TRIGGER r BEFORE UPDATE OF b ON t"
    " BEGIN SELECT abs(-7); END",
    "delete trigger": "CREATE TABLE t(a); CREATE TRIGGER r AFTER DELETE ON t"
    " BEGIN INSERT INTO t VALUES(abs(-7)); END",
    "trigger condition": "CREATE TABLE t(a); CREATE TRIGGER r AFTER DELETE ON t WHEN abs(-7)"
    " BEGIN SELECT 1; END",
    "trigger of a view": "CREATE VIEW v AS SELECT 1 AS a; CREATE TRIGGER r INSTEAD OF UPDATE ON v"
    " BEGIN SELECT abs(-7); END",
    "trigger of a trigger": "CREATE TABLE t(a); CREATE TABLE u(a);"
    "CREATE TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM u; END;"
    "CREATE TRIGGER s AFTER DELETE ON u BEGIN SELECT abs(-7); END",
}


def _call(script: str, call: str) -> Make:
    return lambda: reworded(script, "abs(-7)", call)


_CALLED: dict[str, Make] = {
    f"{where}: {name}": _call(script, call)
    for where, script in _KEPT.items()
    for name, call in _CALLS.items()
}


def _view_on(name: str) -> Make:
    return lambda: built(f"CREATE VIEW v AS SELECT 1 FROM {name}")


_READ = [
    "pragma_database_list",
    "sqlite_dbpage",
    "dbstat",
    "csv",
    "fsdir",
    "zipfile",
    "bytecode",
    "sqlite_stmt",
    "generate_series",
    receipts.TABLE,
]
READS: dict[str, Make] = {
    **{f"view on {name}": _view_on(name) for name in _READ},
    "trigger on pragma_database_list": lambda: built(
        "CREATE TABLE t(a); CREATE TRIGGER r AFTER INSERT ON t"
        " BEGIN INSERT INTO t SELECT file FROM pragma_database_list; END"
    ),
    "trigger on the receipts": lambda: built(
        f"CREATE TABLE t(a); CREATE TRIGGER r AFTER INSERT ON t"
        f" BEGIN DELETE FROM {receipts.TABLE}; END"
    ),
}

_MODULES = ["csv", "dbstat", "fts3", "fts4", "geopoly", "zipfile", "sqlite_dbpage", "no_such"]
MODULES: dict[str, Make] = {
    f"module {name}": _row("table", "x", "x", 0, f"CREATE VIRTUAL TABLE x USING {name}(a)")
    for name in _MODULES
}

_FTS5 = "CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('one two'), ('three four');"
_RTREE = (
    "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1);"
    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    " INSERT INTO r SELECT i, i, i + 1 FROM n;"
)


def _plain(script: str, change: str) -> Make:
    """Make a file by changing shadow tables."""
    return lambda: forged(script, (change, ()))


def _dropped(script: str, table: str) -> Make:
    return _plain(script, f"DROP TABLE {table}")


SHADOWS: dict[str, Make] = {
    **{f"fts5: no {part}": _dropped(_FTS5, f"f_{part}") for part in ("data", "idx", "config")},
    "fts5: no content": _dropped(_FTS5, "f_content"),
    "fts5: no docsize": _dropped(_FTS5, "f_docsize"),
    "fts5: shadow tables only by name": _row(
        "table", "f", "f", 0, "CREATE VIRTUAL TABLE f USING fts5(a)"
    ),
    "fts5: data of zeros": _plain(_FTS5, "UPDATE f_data SET block = zeroblob(length(block))"),
    "fts5: data of noise": _plain(_FTS5, "UPDATE f_data SET block = x'ffffffffffffffffffff'"),
    "fts5: data of nothing": _plain(_FTS5, "DELETE FROM f_data"),
    "fts5: data of text": _plain(_FTS5, "UPDATE f_data SET block = 'abc'"),
    "fts5: version 99": _plain(_FTS5, "UPDATE f_config SET v = 99"),
    "fts5: content without its words": _plain(_FTS5, "UPDATE f_content SET c0 = 'five'"),
    "fts5: words without content": _plain(_FTS5, "DELETE FROM f_content"),
    "fts5: sizes of noise": _plain(_FTS5, "UPDATE f_docsize SET sz = x'ffff'"),
    "fts5: unknown tokenizer": lambda: reworded(_FTS5, "fts5(a)", "fts5(a, tokenize=no_such)"),
    "fts5: unknown option": lambda: reworded(_FTS5, "fts5(a)", "fts5(a, no_such=1)"),
    "fts5: content of a forbidden table": lambda: reworded(
        _FTS5, "fts5(a)", "fts5(a, content=pragma_database_list)"
    ),
    "fts5: of a forbidden table, written oddly": lambda: reworded(
        _FTS5,
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        f"create /*{'x' * 100}*/ virtual table f using fts5(a, content=pragma_database_list)",
    ),
    "fts5vocab: of nothing": lambda: built("CREATE VIRTUAL TABLE x USING fts5vocab(gone, row)"),
    "rtree: no nodes": _dropped(_RTREE, "r_node"),
    "rtree: no parents": _dropped(_RTREE, "r_parent"),
    "rtree: nodes of noise": _plain(_RTREE, "UPDATE r_node SET data = x'ffffffff'"),
    "rtree: nodes of zeros": _plain(_RTREE, "UPDATE r_node SET data = zeroblob(length(data))"),
    "rtree: depth of 2^16": _plain(
        _RTREE, "UPDATE r_node SET data = x'ffff' || substr(data, 3) WHERE nodeno = 1"
    ),
    "rtree: too many cells": _plain(
        _RTREE,
        "UPDATE r_node SET data = CAST(substr(data, 1, 2) || x'7fff' || substr(data, 5) AS BLOB)",
    ),
    "rtree: root of nothing": _plain(_RTREE, "DELETE FROM r_node WHERE nodeno = 1"),
    "rtree: rows of another node": _plain(_RTREE, "UPDATE r_rowid SET nodeno = 1"),
    "rtree: a parent of itself": _plain(_RTREE, "UPDATE r_parent SET parentnode = nodeno"),
}


def _own(sql: str, *more: tuple[str, tuple[object, ...]]) -> Make:
    def make() -> bytes:
        script = "CREATE TABLE t(a); CREATE TABLE stand_in(number INTEGER PRIMARY KEY)"
        rename = "UPDATE sqlite_schema SET name = ?, tbl_name = ?, sql = ? WHERE name = 'stand_in'"
        return forged(script, (rename, (receipts.TABLE, receipts.TABLE, sql)), *more)

    return make


_TABLE = f"CREATE TABLE {receipts.TABLE}"
OWN: dict[str, Make] = {
    "receipts: another shape": _own(f"{_TABLE}(number INTEGER PRIMARY KEY)"),
    "receipts: upper case": lambda: forged(
        "CREATE TABLE stand_in(a)",
        (
            "UPDATE sqlite_schema SET name = ?1, tbl_name = ?1, sql = ?2",
            (receipts.TABLE.upper(), f"CREATE TABLE {receipts.TABLE.upper()}(a)"),
        ),
    ),
    "receipts: a view": lambda: forged(
        "CREATE TABLE t(a)",
        (
            _INSERT,
            (
                "view",
                receipts.TABLE,
                receipts.TABLE,
                0,
                f"CREATE VIEW {receipts.TABLE} AS SELECT 1",
            ),
        ),
    ),
    "receipts: with a default": _own(
        receipts.MAKE.replace("IF NOT EXISTS ", "").replace("key BLOB", "key BLOB DEFAULT 1")
    ),
    "receipts: with a trigger": _own(
        receipts.MAKE.replace("IF NOT EXISTS ", ""),
        (
            _INSERT,
            (
                "trigger",
                "r",
                receipts.TABLE,
                0,
                f"CREATE TRIGGER r AFTER INSERT ON {receipts.TABLE} BEGIN DELETE FROM t; END",
            ),
        ),
    ),
}


def _views(most: int, text: str) -> bytes:
    script = ";".join(text.format(this=at + 1, before=at) for at in range(most))
    return built("CREATE VIEW v0 AS SELECT 1 AS a", script)


HUGE: dict[str, Make] = {
    "3,000 views, each on the one before": lambda: _views(
        3000, "CREATE VIEW v{this} AS SELECT a FROM v{before}"
    ),
    "40 views, each twice the one before": lambda: _views(
        40, "CREATE VIEW v{this} AS SELECT x.a FROM v{before} x, v{before} y"
    ),
    "20 views, each ten times the one before": lambda: _views(
        20,
        "CREATE VIEW v{this} AS " + " UNION ALL ".join(["SELECT a + 1 AS a FROM v{before}"] * 10),
    ),
    "a check that takes forever": lambda: forged(
        "CREATE TABLE t(a); INSERT INTO t VALUES(1)",
        (
            "UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a, b AS (length(hex(zeroblob("
            "100000000)))) CHECK (b > 0))'",
            (),
        ),
    ),
}

CASES: dict[str, Make] = {**ROWS, **_CALLED, **READS, **MODULES, **SHADOWS, **OWN, **HUGE}
