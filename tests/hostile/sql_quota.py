"""Attacks on the 10 MB: every way to make the two files larger, and to leave them full."""

from tests.hostile.sql_case import Case, harmless, numbers, refused

#: Larger than the cap, row by row.
_TOO_MUCH = f"{numbers(4000)} SELECT zeroblob(4000) FROM n"
_FILL = f"INSERT INTO t {_TOO_MUCH}"
#: 8 MB that stay below the cap.
_MUCH = f"INSERT INTO t {numbers(2000)} SELECT zeroblob(4000) FROM n"
_REWRITE = "UPDATE t SET a = randomblob(4000);"
#: A table that is full: what does not fit is undone, what did fit stays.
_FULL = (
    f"INSERT INTO t {numbers(9)} SELECT zeroblob(1000000) FROM n",
    f"INSERT OR IGNORE INTO t {numbers(90)} SELECT zeroblob(4000) FROM n",
)

CASES: list[Case] = [
    *(
        refused("quota_exceeded", name, "more than 10 MB", sql)
        for name, sql in (
            ("insert", _FILL),
            ("insert or ignore", _FILL.replace("INSERT", "INSERT OR IGNORE")),
            ("insert or replace", _FILL.replace("INSERT", "INSERT OR REPLACE")),
            ("insert or rollback", f"BEGIN; {_FILL.replace('INSERT', 'INSERT OR ROLLBACK')}"),
            ("insert or fail", _FILL.replace("INSERT", "INSERT OR FAIL")),
            ("transaction", f"BEGIN; {_FILL}; COMMIT"),
            ("savepoint", f"SAVEPOINT s; {_FILL}; RELEASE s"),
            ("returning", f"{_FILL} RETURNING 1"),
            ("copy", f"CREATE TABLE x AS {_TOO_MUCH}"),
            (
                "WITHOUT ROWID",
                f"CREATE TABLE x(a PRIMARY KEY) WITHOUT ROWID; INSERT INTO x "
                f"{numbers(4000)} SELECT randomblob(4000) FROM n",
            ),
            ("temporary table", f"CREATE TEMP TABLE x AS {_TOO_MUCH}"),
            (
                "temporary table in steps",
                "CREATE TEMP TABLE x(a);"
                + f"INSERT INTO x {numbers(900)} SELECT zeroblob(4000) FROM n;" * 4,
            ),
            (
                "update",
                f"INSERT INTO t {numbers(4000)} SELECT 1 FROM n; UPDATE t SET a = zeroblob(4000)",
            ),
            ("index", f"{_MUCH}; CREATE INDEX x ON t(a)"),
            (
                "unique",
                f"CREATE TABLE x(a UNIQUE); INSERT INTO x {numbers(2000)}"
                " SELECT randomblob(4000) FROM n",
            ),
            (
                "generated",
                "CREATE TABLE x(a, b AS (zeroblob(4000)) STORED);"
                f" INSERT INTO x {numbers(4000)} SELECT i FROM n",
            ),
            (
                "default",
                "CREATE TABLE x(a, b DEFAULT (zeroblob(4000)));"
                f" INSERT INTO x(a) {numbers(4000)} SELECT i FROM n",
            ),
            (
                "trigger",
                "CREATE TABLE x(a); CREATE TRIGGER y AFTER INSERT ON x BEGIN"
                " INSERT INTO t VALUES(zeroblob(1000000)); END;"
                f" INSERT INTO x {numbers(20)} SELECT i FROM n",
            ),
            ("fts5", f"INSERT INTO f {numbers(40)} SELECT hex(zeroblob(400000)) FROM n"),
            (
                "fts5 contents",
                f"CREATE VIRTUAL TABLE g USING fts5(a UNINDEXED); INSERT INTO g {_TOO_MUCH}",
            ),
            (
                "rtree",
                "CREATE VIRTUAL TABLE g USING rtree(id, a, b, +c);"
                f" INSERT INTO g {numbers(4000)} SELECT i, i, i, zeroblob(4000) FROM n",
            ),
            ("many large rows", f"INSERT INTO t {numbers(20)} SELECT zeroblob(1000000) FROM n"),
            (
                "statistics",
                f"ANALYZE; INSERT INTO sqlite_stat1 {numbers(4000)}"
                " SELECT 'x', 'y', zeroblob(4000) FROM n",
            ),
        )
    ),
    refused(
        "quota_exceeded",
        "full, one row more",
        "write into a full file",
        "INSERT INTO t VALUES(zeroblob(1000000)), (zeroblob(1000000))",
        setup=_FULL,
    ),
    harmless(
        "full, emptied",
        "a file that stays full",
        "DELETE FROM t; SELECT count(*) FROM t",
        setup=_FULL,
        rows=[[0]],
    ),
    harmless(
        "full, dropped",
        "a file that stays full",
        "DROP TABLE t; CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(1000000))",
        setup=_FULL,
    ),
    harmless("full, vacuumed", "a second copy beside the first", "VACUUM", setup=_FULL),
    harmless(
        "full, then vacuumed empty", "a WAL of all pages", "VACUUM", setup=(*_FULL, "DELETE FROM t")
    ),
    harmless(
        "WAL of one transaction",
        "the same pages again and again",
        f"BEGIN; {_MUCH}; {_REWRITE * 12} COMMIT",
        rows=None,
    ),
    harmless(
        "WAL of many transactions",
        "the same pages again and again",
        f"{_MUCH}; {_REWRITE * 12} SELECT count(*) FROM t",
        rows=[[2003]],
    ),
    harmless(
        "WAL undone",
        "frames that nobody takes back",
        f"BEGIN; {_MUCH}; ROLLBACK;" * 6 + "SELECT count(*) FROM t",
        rows=[[3]],
    ),
    harmless(
        "savepoints undone",
        "frames that nobody takes back",
        f"BEGIN; {f'SAVEPOINT s; {_MUCH}; ROLLBACK TO s; RELEASE s;' * 6} COMMIT",
    ),
    refused(
        "out_of_memory",
        "savepoints kept",
        "a copy of each page for each savepoint",
        f"BEGIN; {_MUCH};" + "".join(f"SAVEPOINT s{n}; {_REWRITE}" for n in range(20)),
    ),
    refused(
        "quota_exceeded",
        "row numbers used up",
        "have a full file reported wrongly",
        "INSERT INTO x VALUES(9223372036854775807, 1); INSERT INTO x(b) VALUES(1)",
        setup=("CREATE TABLE x(a INTEGER PRIMARY KEY AUTOINCREMENT, b)",),
    ),
    harmless(
        "row numbers used up by hand",
        "an overflow of the counter",
        "UPDATE sqlite_sequence SET seq = 'x' || zeroblob(9); INSERT INTO x(b) VALUES(2);"
        " SELECT count(*) FROM x",
        setup=(
            "CREATE TABLE x(a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
            "INSERT INTO x(b) VALUES(1)",
        ),
        rows=[[2]],
    ),
    harmless(
        "pages set free",
        "a file that never shrinks",
        f"{_MUCH}; DELETE FROM t; PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)",
    ),
    harmless(
        "schema that is all tables",
        "a root page for each",
        "".join(f"CREATE TABLE x{n}(a);" for n in range(350)) + "SELECT 1",
        rows=[[1]],
    ),
]
