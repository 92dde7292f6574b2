"""Files that are sound, however unusual, and must be taken."""

from sandbox import receipts
from tests.hostile.files_making import Make, built, forged, sample

_ROWS = (
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE, c REAL DEFAULT 1.5, d BLOB);"
    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    " INSERT INTO t(a, b, d) SELECT i, printf('häß %d ☃', i), zeroblob(i) FROM n;"
)


def _with(pragma: str) -> Make:
    return lambda: built(f"PRAGMA {pragma};" + _ROWS)


def _wal() -> bytes:
    data = built(_ROWS)
    return data[:18] + b"\x02\x02" + data[20:]


CASES: dict[str, Make] = {
    "plain": lambda: built(_ROWS),
    "the sample": sample,
    "an empty table": lambda: built("CREATE TABLE t(a)"),
    "no table": lambda: built("PRAGMA user_version=1"),
    "WAL": _wal,
    **{f"pages of {size}": _with(f"page_size={size}") for size in (512, 1024, 8192, 65536)},
    "auto-vacuum": _with("auto_vacuum=FULL"),
    "incremental auto-vacuum": _with("auto_vacuum=INCREMENTAL"),
    "UTF-16le": _with("encoding='UTF-16le'"),
    "UTF-16be": _with("encoding='UTF-16be'"),
    "FTS5 of its own": lambda: built(
        "CREATE VIRTUAL TABLE f USING fts5(a, tokenize='porter unicode61', prefix='2 3');"
        "INSERT INTO f VALUES('one two'), ('drei vier'); DELETE FROM f WHERE a MATCH 'two';"
        "CREATE VIRTUAL TABLE words USING fts5vocab(f, row)"
    ),
    "FTS5 of a table, with triggers": lambda: built(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a);"
        "CREATE VIRTUAL TABLE f USING fts5(a, content=t, content_rowid=id);"
        "CREATE TRIGGER i AFTER INSERT ON t BEGIN"
        " INSERT INTO f(rowid, a) VALUES(new.id, new.a); END;"
        "CREATE TRIGGER d AFTER DELETE ON t BEGIN"
        " INSERT INTO f(f, rowid, a) VALUES('delete', old.id, old.a); END;"
        "CREATE TRIGGER u AFTER UPDATE ON t BEGIN"
        " INSERT INTO f(f, rowid, a) VALUES('delete', old.id, old.a);"
        " INSERT INTO f(rowid, a) VALUES(new.id, new.a); END;"
        "INSERT INTO t(a) VALUES('one two'), ('three'); UPDATE t SET a = 'four' WHERE id = 2"
    ),
    "FTS5 of no content": lambda: built(
        "CREATE VIRTUAL TABLE f USING fts5(a, content=''); INSERT INTO f VALUES('one two')"
    ),
    "virtual tables, written oddly": lambda: built(
        "create /* a long word about it, and more of the same */ virtual -- x\n table f"
        " using fts5(a); INSERT INTO f VALUES('x')"
    ),
    "R-Tree": lambda: built(
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1, +label);"
        "CREATE VIRTUAL TABLE s USING rtree_i32(id, x0, x1);"
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        " INSERT INTO r SELECT i, i, i + 1, i, i + 2, 'at ' || i FROM n"
    ),
    "WITHOUT ROWID": lambda: built(
        "CREATE TABLE t(a TEXT, b, c, PRIMARY KEY(a, b)) WITHOUT ROWID; CREATE INDEX i ON t(c);"
        "INSERT INTO t VALUES('x', 1, 2), ('y', 2, 1)"
    ),
    "STRICT": lambda: built("CREATE TABLE t(a INT, b ANY) STRICT; INSERT INTO t VALUES(1, 'x')"),
    "generated columns": lambda: built(
        "CREATE TABLE t(a, b AS (a * 2), c AS (b + 1) STORED, CHECK (c > 0));"
        "INSERT INTO t VALUES(1), (2); CREATE INDEX i ON t(b) WHERE c > 3;"
        "CREATE INDEX j ON t(lower(a), json_extract(a, '$.x'))"
    ),
    "AUTOINCREMENT and ANALYZE": lambda: built(
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b); CREATE INDEX i ON t(b);"
        "INSERT INTO t(b) VALUES(1), (2), (2); ANALYZE"
    ),
    "numbers of its own": lambda: built(
        _ROWS + "PRAGMA user_version=42; PRAGMA application_id=1196444487"
    ),
    "free pages": lambda: built(_ROWS + "DELETE FROM t WHERE a > 5"),
    "names to be quoted": lambda: built(
        'CREATE TABLE "a ""b"" [c] \'d\'"("select" DEFAULT \'x\', "" TEXT, "é;--" INT);'
        'CREATE VIEW "from" AS SELECT "select" FROM "a ""b"" [c] \'d\'"'
    ),
    "a view that can be written to": lambda: built(
        "CREATE TABLE t(a, b); CREATE VIEW v AS SELECT a FROM t;"
        "CREATE TRIGGER r INSTEAD OF INSERT ON v BEGIN INSERT INTO t(a) VALUES(new.a); END"
    ),
    "names of functions as data": lambda: built(
        "CREATE TABLE readfile(edit, load_extension TEXT DEFAULT 'load_extension(1)');"
        "INSERT INTO readfile(edit) VALUES('readfile(1)'); CREATE INDEX zipfile ON readfile(edit)"
    ),
    "foreign keys": lambda: built(
        "CREATE TABLE p(a INTEGER PRIMARY KEY); CREATE TABLE c(a REFERENCES p ON DELETE CASCADE);"
        "INSERT INTO p VALUES(1); INSERT INTO c VALUES(1)"
    ),
    "500 tables": lambda: built(
        ";".join(f"CREATE TABLE t{at}(a PRIMARY KEY, b, c)" for at in range(500))
    ),
    "receipts of the service": lambda: forged(
        "CREATE TABLE t(a)",
        (receipts.MAKE, ()),
        (f"INSERT INTO {receipts.TABLE}(key, marks, body) VALUES(x'01', 0, x'02')", ()),
    ),
}
