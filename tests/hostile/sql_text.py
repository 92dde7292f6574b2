"""Attacks on whoever reads text: parser, arguments, numbers, JSON, and what goes into an answer."""

from tests.hostile.sql_case import Case, harmless, numbers, refused, repeated


def _nest(before: str, after: str = "", middle: str = "1") -> str:
    times = 8000 // len(before + after)
    return f"SELECT {before * times}{middle}{after * times}"


#: Ever deeper, within 8 KB.
_DEEP = {
    "brackets": _nest("(", ")"),
    "open brackets": _nest("("),
    "closing brackets": _nest(")"),
    "minus": _nest("- "),
    "tilde": _nest("~"),
    "not": _nest("NOT "),
    "functions": _nest("abs(", ")"),
    "selects": _nest("(SELECT ", ")"),
    "tables": _nest("(SELECT * FROM ", ")", "(SELECT 1)"),
    "exists": _nest("EXISTS(SELECT ", ")"),
    "lists": _nest("1 IN (", ")"),
    "filters": _nest("sum(1) FILTER (WHERE ", ")"),
    "or": "SELECT 1" + " OR 1" * 1500,
    "concatenation": "SELECT 1" + "||1" * 2500,
    "arrows": "SELECT 1" + "->1" * 2500,
    "unions": "SELECT 1" + " UNION SELECT 1" * 510,
    "columns": "SELECT " + ",".join("1" * 2001),
    "arguments": f"SELECT coalesce({','.join('1' * 2001)})",
    "statements": "SELECT 1;" * 800 + "SELECT nosuch",
}
_BROKEN = {
    "string": "SELECT 'x",
    "identifier": 'SELECT "x',
    "brackets": "SELECT [x",
    "blob": "SELECT x'0",
    "blob, odd": "SELECT x'012'",
    "blob, letters": "SELECT x'0g'",
    "NUL": "SELECT 1\0",
    "NUL in a string": "SELECT 'a\0b'",
    "NUL in a comment": "SELECT 1 /* \0 */",
    "byte order mark": "SELECT \ufeff1\ufeff",
    "no-break space": "SELECT\u00a01",
    "full-width digit": "SELECT \uff11",
    "number with a name": "SELECT 1x",
    "number without digits": "SELECT 0x",
    "number too long": f"SELECT 0x{'f' * 7000}",
    "underscores": "SELECT 1__0",
    "operator": "SELECT 1 &&& 2",
    "nothing but a keyword": "SELECT",
    "a control character": "SELECT \x01",
    "long string": f"SELECT '{'x' * 8000}",
    "long identifier": f"SELECT {'x' * 8000}",
    "long table": f'SELECT * FROM "{"<script>" * 900}"',
    "long function": f"SELECT {'x' * 8000}()",
    "long collation": f'SELECT a FROM t ORDER BY a COLLATE "{"é" * 1000}"',
    "long pragma": f"PRAGMA table_info({'x' * 4000}",
    "parameter, zero": "SELECT ?0",
    "parameter, too high": "SELECT ?32767",
    "parameter, beyond numbers": "SELECT ?99999999999999999999",
    "number, row of another": "SELECT (1, 2) = 1",
    "commit": "COMMIT",
    "end": "END",
    "rollback": "ROLLBACK",
    "rollback to nothing": "ROLLBACK TO nosuch",
    "release": "RELEASE nosuch",
    "begin twice": "BEGIN; BEGIN",
    "checkpoint inside": "BEGIN; INSERT INTO t VALUES(1); PRAGMA wal_checkpoint(TRUNCATE); COMMIT",
    "raise of a timeout": "CREATE TRIGGER x AFTER INSERT ON t BEGIN"
    " SELECT RAISE(ABORT, 'interrupted'); END; INSERT INTO t VALUES(1)",
    "raise of a full disk": "CREATE TRIGGER x AFTER INSERT ON t BEGIN"
    " SELECT RAISE(ABORT, 'database or disk is full'); END; INSERT INTO t VALUES(1)",
    "raise of nothing": "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT RAISE(ABORT, NULL); END;"
    " INSERT INTO t VALUES(1)",
    "rollback in a trigger": "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT RAISE(ROLLBACK, 'x');"
    " END; BEGIN; INSERT INTO t VALUES(1); COMMIT",
    "raise of bytes": "CREATE TRIGGER x AFTER INSERT ON t BEGIN"
    " SELECT RAISE(ABORT, CAST(x'fffe80' AS TEXT)); END; INSERT INTO t VALUES(1)",
    "raise of 1 MB": "CREATE TRIGGER x AFTER INSERT ON t BEGIN"
    f" SELECT RAISE(ABORT, {repeated('<', 300000)}); END; INSERT INTO t VALUES(1)",
    "abs": "SELECT abs(-9223372036854775808)",
    "sum": "SELECT sum(9223372036854775807) FROM t",
    "likelihood": "SELECT likelihood(1, 2)",
    "regexp": "SELECT 'a' REGEXP 'a'",
    "match": "SELECT 'a' MATCH 'a'",
    "escape": "SELECT 'a' LIKE 'b' ESCAPE 'cd'",
    "pattern": f"SELECT 'a' LIKE {repeated('%', 1001)}",
    "frame": "SELECT sum(a) OVER (ROWS -1 PRECEDING) FROM t",
    "frame of text": "SELECT sum(a) OVER (ORDER BY a RANGE 'x' PRECEDING) FROM t",
    "json": "SELECT json('{')",
    "json, deep": f"SELECT json({repeated('[', 400000)})",
    "json, keys": f"SELECT json({repeated('{{1:', 200000)})",
    "json path": "SELECT json_extract('{}', CAST(x'24ff' AS TEXT))",
    "json path, set": "SELECT json_set('{}', 'x' || char(55296), 1)",
    "json of a blob": "SELECT json_array(x'ff')",
    "jsonb, broken": "SELECT json(x'ff00')",
    "unistr": "SELECT unistr('\\uZZZZ')",
    "search": "SELECT * FROM f('\"unterminated')",
    "search, column": "SELECT * FROM f('nosuch : x')",
    "search, bytes": "SELECT * FROM f(CAST(x'ff3a61' AS TEXT))",
    "search, near": "SELECT * FROM f('NEAR(')",
    "search, deep": f"SELECT * FROM f({repeated('(', 250000)})",
    "search, not": f"SELECT * FROM f({repeated('a NOT ', 150000)} || 'a')",
    "search, special": "SELECT * FROM f('*nosuch')",
    "highlight": "SELECT highlight(f) FROM f('one')",
    "snippet": "SELECT snippet(f, 99, '', '', '', 9) FROM f('one')",
    "rank outside": "SELECT bm25(1)",
    "names of columns": 'SELECT 1 AS "' + "\x01" * 1100 + '", ' + ", ".join(["*"] * 300) + " FROM"
    ' (SELECT 1 AS "' + "\x01" * 60 + '"), nosuch',
}
_OPEN = {
    "begin": "BEGIN",
    "begin immediate": "BEGIN IMMEDIATE; INSERT INTO t VALUES(4)",
    "begin exclusive": "BEGIN EXCLUSIVE; DELETE FROM t",
    "savepoint": "SAVEPOINT s; DELETE FROM t",
    "savepoints": "SAVEPOINT s; SAVEPOINT s; RELEASE s",
    "commit explained": "BEGIN; EXPLAIN COMMIT; SELECT 1",
    "temporary table": "CREATE TEMP TABLE x(a); BEGIN; INSERT INTO x VALUES(1)",
    "read only": "PRAGMA query_only=1; BEGIN",
    "begin again": "BEGIN; COMMIT; BEGIN",
    "rolled back to": "SAVEPOINT s; DELETE FROM t; ROLLBACK TO s",
}
_ARGS = {
    "too few": ("SELECT ?, ?", [1]),
    "too many": ("SELECT ?", [1, 2]),
    "none": ("SELECT ?", None),
    "32,766 wanted": ("SELECT ?32766", [1]),
    "too many for one statement": ("SELECT ?; SELECT ?", [1]),
    "beyond 64 bits": ("SELECT ?", [1 << 63]),
    "an array": ("SELECT ?", [[1]]),
    "an object": ("SELECT ?", [{"x": 1}]),
    "an array as base64": ("SELECT ?", [{"base64": []}]),
    "no base64": ("SELECT ?", [{"base64": "====" * 9}]),
    "base64 with a line": ("SELECT ?", [{"base64": "AA\nAA"}]),
    "another float": ("SELECT ?", [{"float": "NaN"}]),
    "another name": ("SELECT :a", {"A": 1}),
    "no name": ("SELECT :a", {"": 1}),
    "a name twice": ("SELECT :a", {":a": 1, "@a": 2}),
    "dunder": ("SELECT :__class__", {"__init__": 1}),
}
_NOT_UTF8 = {
    "byte": "SELECT CAST(x'ff' AS TEXT)",
    "surrogate": "SELECT char(55296)",
    "escaped surrogate": "SELECT unistr('\\ud800')",
    "half of a letter": "SELECT substr(CAST(x'c3a9' AS TEXT), 1) || CAST(x'c3' AS TEXT)",
    "overlong": "SELECT CAST(x'c080' AS TEXT)",
    "in the last row": f"{numbers(50)} SELECT CASE i WHEN 50 THEN CAST(x'80' AS TEXT) ELSE i END"
    " FROM n",
    "of a program": "EXPLAIN SELECT 'x' || CAST(x'ff' AS TEXT)",
    "of a snippet": "INSERT INTO f VALUES(CAST(x'c3' AS TEXT) || 'abc');"
    " SELECT highlight(f, 0, '<', '>') FROM f('abc')",
    "cut by a format": "SELECT printf('%.3s', 'ééé')",
    "of JSON": "SELECT value FROM json_each('[\"\\udc00\"]')",
    "of a returning": "INSERT INTO t VALUES(CAST(x'ff' AS TEXT)) RETURNING a",
}

CASES: list[Case] = [
    *(
        refused("sql_error", f"deep, {name}", "overflow the parser", sql)
        for name, sql in _DEEP.items()
    ),
    *(
        refused("sql_error", f"broken, {name}", "an error that breaks its reader", sql)
        for name, sql in _BROKEN.items()
    ),
    *(
        refused("transaction_open", f"open, {name}", "leave a lock behind", sql)
        for name, sql in _OPEN.items()
    ),
    *(
        refused("invalid_args", f"arguments, {name}", "bind what cannot be bound", sql, args)
        for name, (sql, args) in _ARGS.items()
    ),
    refused(
        "invalid_json", "arguments, lone surrogate", "text that is not text", "SELECT ?", ["\ud800"]
    ),
    refused(
        "invalid_json",
        "arguments, a name of it",
        "a name that is not text",
        "SELECT :a",
        {"\udfff": 1},
    ),
    refused(
        "invalid_json",
        "arguments, very long number",
        "minutes of arithmetic",
        "SELECT ?",
        [10**4000],
    ),
    harmless("arguments, a number as a name", "bind another", "SELECT ?1", {"1": 1}, rows=[[1]]),
    refused("invalid_json", "SQL, lone surrogate", "SQL that is not text", "SELECT '\ud83d'"),
    *(
        refused("text_not_utf8", f"bytes, {name}", "an answer that is not JSON", sql)
        for name, sql in _NOT_UTF8.items()
    ),
    *(
        harmless(f"blank, {name}", "no statement at all", sql)
        for name, sql in (
            ("comment", "/*" + "*" * 8000),
            ("line", "--" + "-" * 8000),
            ("semicolons", ";" * 8000),
            ("comments", "/**/" * 2000),
            ("byte order mark", "\ufeff\ufeff;"),
        )
    ),
    harmless(
        "comment that never ends", "hide the rest", "SELECT 1 /* ; DROP TABLE kept", rows=[[1]]
    ),
    harmless(
        "negative zero and infinities",
        "JSON that is none",
        "SELECT 9e999, -9e999, 9e999 - 9e999",
        rows=[[{"float": "Infinity"}, {"float": "-Infinity"}, None]],
    ),
    harmless(
        "control characters",
        "an answer six times as long",
        f"SELECT length({repeated('x', 1000)}), {repeated(chr(1), 150000)}",
    ),
    harmless(
        "control characters, many",
        "an answer six times as long",
        f"{numbers(3000)} SELECT {repeated(chr(1), 900)} FROM n",
    ),
    harmless(
        "a name of control characters",
        "an answer six times as long",
        'SELECT 1 AS "' + "\x01" * 1200 + '"',
    ),
    harmless(
        "script",
        "an answer that a browser runs",
        "SELECT '</script><script>alert(1)'",
        rows=[["</script><script>alert(1)"]],
    ),
    harmless("a line in a name", "a header of one's own", 'SELECT 1 AS "x\r\nSet-Cookie: y"'),
    harmless("text of NUL", "text that ends early", "SELECT char(65, 0, 66)", rows=[["A\0B"]]),
    harmless("printf", "read the stack", "SELECT printf('%n%p%s%x', 1, 2, 3, 4)"),
    harmless(
        "dates",
        "overflow",
        "SELECT datetime(9e999), date('now', '+9223372036854775807 days'),"
        " strftime('%s', 1e300), julianday('-4713-11-24')",
        rows=[[None, None, None, None]],
    ),
    harmless(
        "integers",
        "overflow",
        "SELECT -9223372036854775808 / -1, -9223372036854775808 % -1,"
        " 1 << 9223372036854775807, 9223372036854775807 + 1",
        rows=[[9.223372036854775808e18, 0, 0, 9.223372036854775808e18]],
    ),
    harmless(
        "numbers of JSON",
        "a number that grows",
        "SELECT json('[1e99999, -0, 1e-99999]')",
        rows=[["[1e99999,-0,1e-99999]"]],
    ),
    harmless("NaN of JSON5", "JSON that is none", "SELECT json('[NaN, Infinity]')"),
    harmless(
        "jsonb without end",
        "recursion in C",
        "SELECT json_valid(x, 4), json_type(x) FROM j",
        setup=(
            "CREATE TABLE j(x); WITH RECURSIVE b(n, x) AS (SELECT 1, x'00' UNION ALL SELECT"
            " n + 1, CAST(x'eb' || unhex(printf('%08x', length(x))) || x AS BLOB) FROM b"
            " LIMIT 5000) INSERT INTO j SELECT x FROM b WHERE n = 5000",
        ),
        rows=[[1, "array"]],
    ),
    refused(
        "sql_error",
        "jsonb without end, as text",
        "recursion in C",
        "SELECT json(x) FROM j",
        setup=(
            "CREATE TABLE j(x); WITH RECURSIVE b(n, x) AS (SELECT 1, x'00' UNION ALL SELECT"
            " n + 1, CAST(x'eb' || unhex(printf('%08x', length(x))) || x AS BLOB) FROM b"
            " LIMIT 5000) INSERT INTO j SELECT x FROM b WHERE n = 5000",
        ),
    ),
    harmless(
        "arguments as SQL",
        "an injection",
        "SELECT ?",
        ["'; DROP TABLE kept; --"],
        rows=[["'; DROP TABLE kept; --"]],
    ),
    harmless("arguments, many", "more than SQLite's default", f"SELECT {'?,' * 999}?", [0] * 1000),
    harmless(
        "arguments, infinite",
        "JSON that is none",
        "SELECT ?",
        [{"float": "-Infinity"}],
        rows=[[{"float": "-Infinity"}]],
    ),
    harmless("endless answer", "an answer without end", f"{numbers()} SELECT i FROM n"),
    harmless(
        "endless answer of text",
        "an answer without end",
        f"{numbers()} SELECT {repeated('x', 90000)} FROM n",
    ),
    harmless(
        "returning cut off",
        "rows written and not shown",
        f"INSERT INTO t {numbers(20000)} SELECT i FROM n RETURNING a",
    ),
    harmless(
        "subtypes",
        "JSON that is taken for text",
        "CREATE INDEX x ON t(json_quote(a));"
        " SELECT json_quote(a), json_array(json_quote(a)) FROM t WHERE json_quote(a) = '1'",
    ),
]
