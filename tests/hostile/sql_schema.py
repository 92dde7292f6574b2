"""Attacks on the schema: tables that are SQLite's own, and objects that bite whoever uses them."""

from tests.hostile.sql_case import Case, harmless, numbers, refused

_SHADOWS = ["f_data", "f_idx", "f_content", "f_docsize", "f_config", "r_node", "r_parent"]
_SPOILT = {
    "insert": "INSERT INTO sqlite_schema VALUES('table', 'x', 'x', 0, '')",
    "insert, old name": "INSERT INTO sqlite_master VALUES('table', 'x', 'x', 2, 'CREATE')",
    "update": "UPDATE sqlite_schema SET sql = ''",
    "update, quoted": 'UPDATE main."SQLITE_MASTER" SET rootpage = 1',
    "delete": "DELETE FROM sqlite_schema",
    "drop": "DROP TABLE sqlite_schema",
    "alter": "ALTER TABLE sqlite_schema RENAME TO x",
    "add": "ALTER TABLE sqlite_schema ADD COLUMN x",
    "index": "CREATE INDEX x ON sqlite_schema(name)",
    "trigger": "CREATE TRIGGER x AFTER INSERT ON sqlite_schema BEGIN SELECT 1; END",
    "temporary": "INSERT INTO sqlite_temp_schema VALUES('table', 'x', 'x', 0, '')",
    "of a trigger": "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM sqlite_schema; END;"
    " INSERT INTO t VALUES(1)",
    "upsert": "INSERT INTO sqlite_schema(name) VALUES('x') ON CONFLICT DO NOTHING",
    "reserved table": "CREATE TABLE sqlite_x(a)",
    "reserved index": "CREATE INDEX sqlite_x ON t(a)",
    "reserved view": "CREATE VIEW sqlite_x AS SELECT 1",
    "reserved trigger": "CREATE TRIGGER sqlite_x AFTER INSERT ON t BEGIN SELECT 1; END",
    "reserved name": "ALTER TABLE t RENAME TO sqlite_x",
    "statistics by hand": "CREATE TABLE sqlite_stat1(tbl, idx, stat)",
    "sequence dropped": "CREATE TABLE x(a INTEGER PRIMARY KEY AUTOINCREMENT);"
    " DROP TABLE sqlite_sequence",
    "sequence indexed": "CREATE TABLE x(a INTEGER PRIMARY KEY AUTOINCREMENT);"
    " CREATE INDEX y ON sqlite_sequence(name)",
    "automatic index dropped": "CREATE TABLE x(a UNIQUE); DROP INDEX sqlite_autoindex_x_1",
    "shadow of a table to come": "CREATE TABLE g_data(a); CREATE VIRTUAL TABLE g USING fts5(a)",
    "shadow to come, rtree": "CREATE TABLE g_node(a); CREATE VIRTUAL TABLE g USING rtree(i, a, b)",
    "trigger on a shadow": "CREATE TRIGGER x AFTER INSERT ON f_content BEGIN SELECT 1; END",
    "statistics renamed": "ANALYZE; ALTER TABLE sqlite_stat1 RENAME TO x",
    "statistics, trigger": "ANALYZE;"
    " CREATE TRIGGER x AFTER INSERT ON sqlite_stat1 BEGIN SELECT 1; END",
    "view of memory": "CREATE VIEW v AS SELECT * FROM carray(4096, 9); SELECT * FROM v",
    "shadow made": "CREATE TABLE f_spare(a); CREATE TABLE f_docsize(a)",
    "last column": "ALTER TABLE t DROP COLUMN a",
    "column in use": "CREATE TABLE x(a, b AS (a)); ALTER TABLE x DROP COLUMN a",
    "column of a virtual table": "ALTER TABLE f DROP COLUMN a",
    "virtual table indexed": "CREATE INDEX x ON f(a)",
    "virtual table, trigger": "CREATE TRIGGER x AFTER INSERT ON f BEGIN SELECT 1; END",
    "view altered": "CREATE VIEW v AS SELECT 1; ALTER TABLE v ADD COLUMN x",
    "no such database": "CREATE TABLE nosuch.x(a)",
    "circular views": "CREATE VIEW v AS SELECT * FROM w; CREATE VIEW w AS SELECT * FROM v;"
    " SELECT * FROM v",
    "circular columns": "CREATE TABLE x(a AS (b), b AS (a))",
    "view of a pragma": "CREATE VIEW v AS SELECT * FROM pragma_journal_mode; SELECT * FROM v",
    "temp view of temp": "CREATE VIEW v AS SELECT * FROM temp.x",
    "raise outside": "SELECT RAISE(ABORT, 'x')",
    "WITHOUT ROWID": "CREATE TABLE x(a) WITHOUT ROWID",
    "too many columns": f"CREATE TABLE x({', '.join(f'c{n}' for n in range(1001))})",
    "too many joins": f"SELECT 1 FROM {', '.join(f't AS t{n}' for n in range(65))}",
    "recursive triggers": "PRAGMA recursive_triggers=1; CREATE TRIGGER x AFTER INSERT ON t"
    " BEGIN INSERT INTO t VALUES(1); END; INSERT INTO t VALUES(1)",
    "mutual triggers": "CREATE TABLE x(a); CREATE TRIGGER y AFTER INSERT ON t BEGIN"
    " INSERT INTO x VALUES(1); END; CREATE TRIGGER z AFTER INSERT ON x BEGIN"
    " INSERT INTO t VALUES(1); END; PRAGMA recursive_triggers=1; INSERT INTO t VALUES(1)",
    "fts5 of itself": "CREATE VIRTUAL TABLE g USING fts5(a, content='g');"
    " INSERT INTO g(rowid, a) VALUES(1, 'x'); SELECT * FROM g",
    "fts5 of its own view": "CREATE VIRTUAL TABLE g USING fts5(a, content='v');"
    " CREATE VIEW v AS SELECT rowid, a FROM g; SELECT * FROM g",
    "fts5 in a ring": "CREATE VIRTUAL TABLE g USING fts5(a, content='v'); CREATE VIRTUAL TABLE h"
    " USING fts5(a, content='w'); CREATE VIEW v AS SELECT rowid, a FROM h; CREATE VIEW w AS"
    " SELECT rowid, a FROM g; INSERT INTO g(rowid, a) VALUES(1, 'x'); DELETE FROM g",
    "rtree beyond order": "INSERT INTO r VALUES(2, 9e999, -9e999)",
    "rtree of six": "CREATE VIRTUAL TABLE g USING rtree(i, a, b, c, d, e, f, g, h, j, k, l, m)",
    "rtree of one": "CREATE VIRTUAL TABLE g USING rtree(i)",
    "vocabulary of no index": "CREATE VIRTUAL TABLE g USING fts5vocab(sqlite_schema, row);"
    " SELECT * FROM g",
    "vocabulary of itself": "CREATE VIRTUAL TABLE g USING fts5vocab(g, row); SELECT * FROM g",
    "vocabulary of another database": "CREATE VIRTUAL TABLE g USING fts5vocab(temp, f, row)",
    "two primary keys": "CREATE TABLE x(a PRIMARY KEY, b PRIMARY KEY)",
    "foreign key": "CREATE TABLE x(a PRIMARY KEY); CREATE TABLE y(a REFERENCES x);"
    " INSERT INTO y VALUES(1)",
    "key on nothing": "CREATE TABLE x(a); CREATE TABLE y(a REFERENCES x(a));"
    " INSERT INTO y VALUES(1)",
    "strict": "CREATE TABLE x(a INTEGER) STRICT; INSERT INTO x VALUES('x')",
}
_FTS5_SETTINGS = {
    "rank": "'bm25('",
    "pgsz": "2147483647",
    "hashsize": "-1",
    "automerge": "2147483647",
    "usermerge": "-1",
    "crisismerge": "-1",
    "secure-delete": "-1",
    "nosuch": "1",
    "delete-all": "1",
}
_FTS5_OPTIONS = {
    "tokenizer": "tokenize = 'nosuch'",
    "tokenizer, arguments": "tokenize = 'unicode61 remove_diacritics 9'",
    "tokenizer, conflict": "tokenize = 'trigram case_sensitive 1 remove_diacritics 1'",
    "prefix": "prefix = '0'",
    "prefixes": f"prefix = '{' '.join(map(str, range(1, 33)))}'",
    "detail": "detail = 'x'",
    "contentless": "content = '', contentless_delete = 1, columnsize = 0",
    "reserved": "rank",
    "row number": "rowid",
    "twice": "content = 't', content = 't'",
    "unknown": "nosuch = 1",
    "unterminated": "content = 'x",
}
#: A chain of tables, each of which deletes the next.
_CASCADE = "CREATE TABLE x0(a INTEGER PRIMARY KEY);" + "".join(
    f"CREATE TABLE x{n}(a INTEGER PRIMARY KEY REFERENCES x{n - 1} ON DELETE CASCADE);"
    for n in range(1, 110)
)

CASES: list[Case] = [
    *(refused("sql_error", name, "a schema that bites", sql) for name, sql in _SPOILT.items()),
    *(
        refused("sql_error", f"shadow, {name}, {verb}", "corrupt an index by hand", sql)
        for name in _SHADOWS
        for verb, sql in (("delete", f"DELETE FROM {name}"), ("drop", f"DROP TABLE {name}"))
    ),
    refused("sql_error", "shadow, update", "a wrong structure", "UPDATE f_data SET block = x'ff'"),
    refused("sql_error", "shadow, node", "a wrong node", "UPDATE r_node SET data = zeroblob(9)"),
    refused(
        "sql_error",
        "shadow, insert",
        "a wrong setting",
        "INSERT INTO f_config VALUES('version', 99)",
    ),
    refused("sql_error", "shadow, alter", "a wrong column", "ALTER TABLE f_data ADD COLUMN x"),
    refused(
        "sql_error",
        "shadow, trigger",
        "corrupt it later",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM f_data; END; INSERT INTO t VALUES(1)",
    ),
    *(
        refused(
            "sql_error",
            f"fts5 setting, {name}",
            "a size out of bounds",
            f"INSERT INTO f(f, rank) VALUES('{name}', {value})",
        )
        for name, value in _FTS5_SETTINGS.items()
    ),
    *(
        refused(
            "sql_error",
            f"fts5 option, {name}",
            "a constructor that fails",
            f"CREATE VIRTUAL TABLE g USING fts5(a, {option})",
        )
        for name, option in _FTS5_OPTIONS.items()
    ),
    *(
        harmless(
            f"fts5 setting, {name} {value}",
            "a size that is taken",
            f"INSERT INTO f(f, rank)"
            f" VALUES('{name}', {value}); INSERT INTO f VALUES('nine'); SELECT a FROM f('nine')",
            rows=[["nine"]],
        )
        for name, value in (
            ("hashsize", 2147483647),
            ("crisismerge", 2147483647),
            ("merge", -2147483648),
            ("merge", 9223372036854775807),
            ("deletemerge", -2147483648),
            ("integrity-check", 1),
            ("pgsz", 32),
        )
    ),
    refused(
        "forbidden_keyword",
        "fts5 rank as a call",
        "data that becomes SQL",
        "SELECT * FROM f('one') ORDER BY rank",
        setup=("INSERT INTO f(f, rank) VALUES('rank', 'load_extension()')",),
    ),
    refused(
        "forbidden_keyword",
        "fts5 rank as an inner call",
        "data that becomes SQL",
        "SELECT * FROM f('one') ORDER BY rank",
        setup=("INSERT INTO f(f, rank) VALUES('rank', 'fts5_insttoken()')",),
    ),
    refused(
        "sql_error",
        "fts5 rank as another function",
        "data that becomes SQL",
        "SELECT * FROM f('one') ORDER BY rank",
        setup=("INSERT INTO f(f, rank) VALUES('rank', 'readfile(''x'')')",),
    ),
    refused(
        "sql_error",
        "fts5 rank as bytes",
        "a name that is not UTF-8",
        "SELECT * FROM f('one') ORDER BY rank",
        setup=("INSERT INTO f(f, rank) VALUES('rank', CAST(x'ff2829' AS TEXT))",),
    ),
    harmless(
        "fts5 rank with more SQL",
        "data that becomes SQL",
        "SELECT * FROM f('one') ORDER BY rank",
        setup=("INSERT INTO f(f, rank) VALUES('rank', 'bm25(1)) UNION SELECT x FROM kept --')",),
        rows=[["one two"], ["one three"]],
    ),
    refused(
        "sql_error",
        "cascade",
        "recursion in C",
        "INSERT INTO x0 VALUES(1); "
        + "".join(f"INSERT INTO x{n} VALUES(1);" for n in range(1, 110))
        + "DELETE FROM x0",
        setup=(_CASCADE,),
    ),
    harmless(
        "shadow, indexed",
        "have the table's own writes fail",
        "CREATE INDEX x ON f_data(block); INSERT INTO f VALUES('nine'); SELECT a FROM f('nine')",
        rows=[["nine"]],
    ),
    harmless(
        "renamed virtual table",
        "shadows that stay behind",
        "ALTER TABLE f RENAME TO g; SELECT count(*) FROM g('one')",
        rows=[[2]],
    ),
    harmless(
        "temporary virtual table",
        "an index that outlives the call",
        "CREATE VIRTUAL TABLE temp.f USING fts5(b); SELECT b FROM f",
        rows=[],
    ),
    harmless(
        "statistics dropped",
        "a planner that still reads them",
        "ANALYZE; DROP TABLE sqlite_stat1; SELECT count(*) FROM t",
        rows=[[3]],
    ),
    harmless(
        "schema as content",
        "read what is hidden",
        "CREATE VIRTUAL TABLE g USING"
        " fts5(name, content='sqlite_schema'); SELECT name FROM g LIMIT 1",
        rows=[["kept"]],
    ),
    harmless(
        "statistics poisoned",
        "a planner that divides by them",
        "SELECT count(*) FROM t, t AS s WHERE t.a = s.a",
        setup=(
            "CREATE INDEX x ON t(a); ANALYZE",
            "UPDATE sqlite_stat1 SET stat = '-1 0 x 99999999999999999999 unordered sz=-5'",
            "INSERT INTO sqlite_stat1 VALUES('t', 'nosuch', x'ff'), (NULL, NULL, 1e999)",
            "ANALYZE sqlite_schema; PRAGMA optimize(-1)",
        ),
        rows=[[3]],
    ),
    harmless(
        "sequence poisoned",
        "a counter that is no number",
        "INSERT INTO x(b) VALUES(1); SELECT a FROM x",
        setup=(
            "CREATE TABLE x(a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
            "INSERT INTO sqlite_sequence VALUES('x', 'y'), (NULL, NULL), ('x', -9)",
        ),
        rows=[[1]],
    ),
    harmless(
        "temp shadows main",
        "the next call reads another table",
        "SELECT x FROM kept",
        setup=("CREATE TEMP TABLE kept(x); INSERT INTO kept VALUES(1)",),
        rows=[["safe"]],
    ),
    harmless(
        "temp trigger on main",
        "act in the next call",
        "INSERT INTO t VALUES(4); SELECT count(*) FROM t",
        setup=("CREATE TEMP TRIGGER x AFTER INSERT ON main.t BEGIN DELETE FROM t; END",),
        rows=[[4]],
    ),
    harmless(
        "double-quoted schema",
        "a view whose text cannot be read again",
        'CREATE VIEW v AS SELECT "nosuch" AS a; SELECT a FROM v',
        rows=[["nosuch"]],
    ),
    harmless(
        "rename behind a trigger",
        "a schema that cannot be read again",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t(a) VALUES(NEW.a || 'y'); END;"
        ' ALTER TABLE t RENAME COLUMN a TO "b\'\'""]"; ALTER TABLE t RENAME TO "t ;--";'
        ' SELECT count(*) FROM "t ;--"',
        rows=[[3]],
    ),
    harmless(
        "column name of a line",
        "break the stored text",
        'ALTER TABLE t ADD COLUMN "x) ; --\n/*" DEFAULT 1; SELECT * FROM t LIMIT 1',
        rows=[[1, 1]],
    ),
    harmless(
        "constraint added",
        "columns of inner SQL",
        "ALTER TABLE t ADD CONSTRAINT c CHECK (a < 100); SELECT count(*) FROM t",
        rows=[[3]],
    ),
    harmless(
        "rtree with infinities",
        "a box without bounds",
        "INSERT INTO r VALUES(2, -9e999, 9e999); SELECT b FROM r WHERE id = 2",
        rows=[[{"float": "Infinity"}]],
    ),
    harmless(
        "rtree with other types",
        "a box of text",
        "INSERT INTO r VALUES('x', NULL, x'00'); SELECT count(*) FROM r",
        rows=[[2]],
    ),
    harmless(
        "rtree node of nothing",
        "read past a blob",
        "SELECT rtreenode(5, x'0000ffff'), rtreenode(-1, zeroblob(99999)), rtreedepth(x'ffff')",
        rows=[[None, None, 65535]],
    ),
    harmless(
        "reindex and analyze", "run what is stored", "REINDEX; ANALYZE; ANALYZE sqlite_schema"
    ),
    harmless(
        "program of a virtual table", "an address of the process", "EXPLAIN SELECT * FROM f('a')"
    ),
    harmless(
        "program of a json table",
        "an address of the process",
        "EXPLAIN SELECT * FROM json_each('[1]')",
    ),
    harmless(
        "column by column",
        "views whose names are computed again and again",
        "SELECT count(*) FROM pragma_table_list AS l, pragma_table_xinfo(l.name)",
    ),
    harmless(
        "trigger on a view of itself",
        "recursion",
        "CREATE VIEW v AS SELECT a FROM t;"
        " CREATE TRIGGER x INSTEAD OF INSERT ON v BEGIN INSERT INTO v VALUES(NEW.a); END;"
        " SELECT count(*) FROM v",
        rows=[[3]],
    ),
    refused(
        "sql_error",
        "trigger on a view that inserts into itself",
        "recursion",
        "CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER x INSTEAD OF INSERT ON v BEGIN"
        " INSERT INTO v VALUES(NEW.a); END; PRAGMA recursive_triggers=1;"
        f" INSERT INTO v {numbers(3)} SELECT i FROM n",
    ),
]
