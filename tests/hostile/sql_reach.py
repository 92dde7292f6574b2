"""Attacks that reach out of the database: other files, extensions, the server's own paths."""

from tests.hostile.sql_case import Case, harmless, refused

_ATTACH = {
    "plain": "ATTACH 'x' AS y",
    "lower case": "attach database 'x' as y",
    "URI": "ATTACH 'file:/etc/passwd?mode=ro&immutable=1' AS y",
    "memory": "ATTACH ':memory:' AS y",
    "nameless": "ATTACH '' AS y",
    "comments": "/* */ -- x\n ATTACH/**/'x'/**/AS/**/y",
    "byte order mark": "\ufeffATTACH 'x' AS y",
    "EXPLAIN": "EXPLAIN ATTACH 'x' AS y",
    "EXPLAIN QUERY PLAN": "EXPLAIN QUERY PLAN ATTACH 'x' AS y",
    "second statement": "SELECT 1;;;ATTACH 'x' AS y",
    "in a transaction": "BEGIN; ATTACH 'x' AS y; COMMIT",
    "expression": "ATTACH (SELECT 'x') || '' AS y",
    "of itself": "ATTACH 'main.db' AS y",
    "KEY": "ATTACH 'x' AS y KEY 'z'",
    "detach": "DETACH main",
    "detach temp": "DETACH DATABASE temp",
}
_NAMED = ["load_extension", "readfile", "writefile", "edit", "zipfile", "unzip"]
_SPELLINGS = {
    "bare": "{}('x')",
    "upper case": "{}/* */('x')",
    "double quotes": "\"{}\"('x')",
    "brackets": "[{}] ('x')",
    "backticks": "`{}`--\n('x')",
}
#: Where an expression is stored, to be run later by whoever uses the table.
_STORED = {
    "view": "CREATE VIEW v AS SELECT {}; SELECT * FROM v",
    "default": "CREATE TABLE x(a DEFAULT ({}))",
    "check": "CREATE TABLE x(a CHECK ({}))",
    "generated column": "CREATE TABLE x(a, b AS ({}))",
    "stored column": "CREATE TABLE x(a, b AS ({}) STORED)",
    "added column": "ALTER TABLE t ADD COLUMN b DEFAULT ({})",
    "added check": "ALTER TABLE t ADD CHECK ({})",
    "index": "CREATE INDEX x ON t({})",
    "partial index": "CREATE INDEX x ON t(a) WHERE {}",
    "trigger": "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT {}; END; INSERT INTO t VALUES(1)",
    "trigger condition": "CREATE TRIGGER x AFTER INSERT ON t WHEN {} BEGIN SELECT 1; END;"
    " INSERT INTO t VALUES(1)",
    "raise": "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT RAISE(ABORT, {}); END;"
    " INSERT INTO t VALUES(1)",
    "upsert": "CREATE TABLE x(a UNIQUE); INSERT INTO x VALUES(1) ON CONFLICT(a)"
    " DO UPDATE SET a = {}",
    "returning": "INSERT INTO t VALUES(1) RETURNING {}",
    "limit": "SELECT 1 LIMIT {}",
    "window": "SELECT sum(a) OVER (ORDER BY {}) FROM t",
    "filter": "SELECT count(*) FILTER (WHERE {}) FROM t",
    "argument of a table": "SELECT * FROM json_each({})",
    "temporary view": "CREATE TEMP VIEW v AS SELECT {}; SELECT * FROM v",
}
_INTERNAL = {
    "tokenizer": "fts3_tokenizer('simple')",
    "tokenizer set": "fts3_tokenizer('x', x'4141414141414141')",
    "server log": "sqlite_log(1, 'x')",
    "fts5 pointer": "fts5(1)",
    "fts5 source": "fts5_source_id()",
    "fts5 locale": "fts5_locale('a', 'b')",
    "fts5 token": "fts5_insttoken('a')",
    "fts5 decode": "fts5_decode(1, x'00')",
    "matchinfo": "matchinfo(x'00')",
    "offsets": "offsets(x'00')",
    "optimize": "optimize(x'00')",
    "rtree check": "rtreecheck('r')",
}
#: Functions that SQLite keeps for itself, and those that it was built without.
_ABSENT = """
    sqlite_rename_column sqlite_rename_table sqlite_rename_test sqlite_rename_quotefix
    sqlite_drop_column sqlite_fail sqlite_add_constraint sqlite_drop_constraint
    sqlite_find_constraint implies_nonnull_row expr_compare expr_implies_expr affinity parseuri
    sqlite_offset stat_init stat_push stat_get regexp sha3 eval fsdir lsmode system
""".split()
_TABLES = {
    "raw pages": ("forbidden_keyword", "sqlite_dbpage"),
    "raw pages quoted": ("forbidden_keyword", '"sqlite_dbpage"'),
    "statistics of pages": ("sql_error", "dbstat"),
    "statements": ("sql_error", "sqlite_stmt"),
    "programs": ("sql_error", "bytecode('SELECT 1')"),
    "tables used": ("sql_error", "tables_used('SELECT 1')"),
    "folders": ("sql_error", "fsdir('/')"),
    "series": ("sql_error", "generate_series(1, 10)"),
    "completion": ("sql_error", "completion('')"),
    "files of the VFS": ("sql_error", "pragma_vfs_list"),
}
_MODULES = ["fts3", "fts4", "fts4aux", "geopoly", "dbstat", "csv", "fts3tokenize", "json_each"]
_DATABASE_LIST = {
    "pragma": "PRAGMA database_list",
    "quoted": 'PRAGMA "DATABASE_LIST"',
    "of a schema": "PRAGMA main.database_list",
    "explained": "EXPLAIN PRAGMA database_list",
    "table": "SELECT * FROM pragma_database_list",
    "table quoted": 'SELECT * FROM main."PRAGMA_DATABASE_LIST"',
    "table called": "SELECT file FROM pragma_database_list()",
    "table counted": "SELECT count(*) FROM pragma_database_list",
    "table explained": "EXPLAIN SELECT * FROM pragma_database_list",
    "table joined": "SELECT * FROM t NATURAL JOIN pragma_database_list",
    "table in a CTE": "WITH x AS (SELECT * FROM pragma_database_list) SELECT * FROM x",
    "table copied": "CREATE TABLE x AS SELECT * FROM pragma_database_list",
    "table shadowed": "CREATE TABLE pragma_database_list(a); SELECT * FROM pragma_database_list",
    "subquery": "SELECT (SELECT group_concat(file) FROM pragma_database_list)",
    "content of fts5": (
        "CREATE VIRTUAL TABLE g USING fts5(file, content='pragma_database_list',"
        " content_rowid='seq'); SELECT * FROM g"
    ),
}

CASES: list[Case] = [
    *(
        refused("forbidden_keyword", f"attach, {name}", "open another file", sql)
        for name, sql in _ATTACH.items()
    ),
    refused("forbidden_keyword", "attach, parameter", "hide the name", "ATTACH ? AS y", ["x"]),
    refused("sql_error", "attach, quoted", "an identifier as a keyword", "\"ATTACH\" 'x' AS y"),
    refused(
        "sql_error",
        "attach, trigger",
        "open a file later",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN ATTACH 'x' AS y; END",
    ),
    harmless(
        "attach, as data",
        "have honest text refused",
        "CREATE TABLE edit(attach); INSERT INTO edit VALUES('ATTACH ''x'' AS y');"
        " SELECT attach FROM edit",
        rows=[["ATTACH 'x' AS y"]],
    ),
    *(
        refused("not_authorized", f"vacuum into, {name}", "write another file", sql, args)
        for name, sql, args in (
            ("literal", "VACUUM INTO '/tmp/x'", None),
            ("schema", "VACUUM main INTO 'x'", None),
            ("expression", "VACUUM INTO '/tmp/' || 'x'", None),
            ("subquery", "VACUUM INTO (SELECT 'x')", None),
            ("parameter", "VACUUM INTO ?", ["/tmp/x"]),
            ("URI", "VACUUM INTO 'file:x?mode=memory'", None),
            ("memory", "VACUUM INTO ':memory:'", None),
            ("behind a plain one", "VACUUM; VACUUM INTO 'x'", None),
        )
    ),
    refused("not_authorized", "vacuum, twice", "use what it was lent", "VACUUM; VACUUM"),
    refused("forbidden_keyword", "vacuum, attach", "use its slot", "VACUUM; ATTACH '' AS y"),
    *(
        refused(
            "forbidden_keyword",
            f"{function}, {spelling}",
            "read or run a file",
            "SELECT " + form.format(function.upper() if "upper" in spelling else function),
        )
        for function in _NAMED
        for spelling, form in _SPELLINGS.items()
    ),
    *(
        refused(
            "forbidden_keyword",
            f"stored, {place}, {call[:4]}",
            "have it run later",
            sql.format(call),
        )
        for place, sql in _STORED.items()
        for call in ("load_extension('x')", "sqlite_log(1, 'x')")
        if (place, call[:4]) != ("view", "sqli")
    ),
    *(
        refused("forbidden_keyword", f"function, {name}", "inner workings", f"SELECT {call}")
        for name, call in _INTERNAL.items()
    ),
    *(
        refused("sql_error", f"no {name}", "SQLite's own functions", f"SELECT {name}(1, 2)")
        for name in _ABSENT
    ),
    *(
        refused(code, f"table, {name}", "tables that show the inside", f"SELECT * FROM {table}")
        for name, (code, table) in _TABLES.items()
    ),
    *(
        refused(
            "not_authorized",
            f"module, {module}",
            "a module with more reach",
            f"CREATE VIRTUAL TABLE x USING {module}(a)",
        )
        for module in _MODULES
    ),
    harmless("pointer", "read memory", "SELECT * FROM carray(4096, 9, 'char*')", rows=[]),
    *(
        refused("not_authorized", f"path, {name}", "learn a path of the server", sql)
        for name, sql in _DATABASE_LIST.items()
    ),
    *(
        refused("sql_error", f"path, {name}", "learn it by a detour", sql)
        for name, sql in (
            (
                "view",
                "CREATE VIEW v AS SELECT * FROM pragma_database_list; SELECT * FROM v",
            ),
            (
                "trigger",
                "CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO kept"
                " SELECT file FROM pragma_database_list; END; INSERT INTO t VALUES(1)",
            ),
            (
                "rebuild of fts5",
                "CREATE VIRTUAL TABLE g USING fts5(file, content='pragma_database_list',"
                " content_rowid='seq'); INSERT INTO g(g) VALUES('rebuild')",
            ),
            (
                "injection into fts5",
                "CREATE VIRTUAL TABLE g USING fts5(a, content='t',"
                " content_rowid='a FROM pragma_database_list --'); SELECT * FROM g",
            ),
            ("log", "CREATE VIEW v AS SELECT sqlite_log(1, 'x'); SELECT * FROM v"),
            ("folder", "SELECT * FROM pragma_temp_store_directory"),
        )
    ),
    harmless(
        "path, a table of that name",
        "confuse the rule",
        "CREATE TABLE pragma_filename(a); SELECT * FROM pragma_filename",
        rows=[],
    ),
]
