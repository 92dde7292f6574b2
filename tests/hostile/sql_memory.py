"""Attacks on memory: few letters that ask for more than 64 MiB, or for a value over 1 MiB."""

from tests.hostile.sql_case import Case, harmless, numbers, refused, repeated

_WIDE = ", ".join(f"zeroblob(900000) || {n} AS c{n}" for n in range(150))
#: Two of the one before, and so on: 2^30 selects.
_VIEWS = "CREATE VIEW v0 AS SELECT 1 AS a;" + "".join(
    f"CREATE VIEW v{n} AS SELECT x.a FROM v{n - 1} AS x, v{n - 1} AS y;" for n in range(1, 31)
)
_TRIGGERS = "".join(f"CREATE TABLE x{n}(a);" for n in range(31)) + "".join(
    f"CREATE TRIGGER y{n} AFTER INSERT ON x{n} BEGIN INSERT INTO x{n + 1} VALUES(1);"
    f"INSERT INTO x{n + 1} SELECT 1;END;"
    for n in range(30)
)
_GENERATED = (
    "CREATE TABLE x(c0, "
    + ", ".join(f"c{n} AS (c{n - 1} + c{n - 1})" for n in range(1, 31))
    + "); INSERT INTO x VALUES(1); SELECT c30 FROM x"
)
_DEEP = 250, 64
#: 16,000 selects, one inside the other, spread over views: recursion in C.
_NESTED = (
    "CREATE VIEW v0 AS SELECT 1 AS a",
    *(
        f"CREATE VIEW v{n} AS SELECT 1 AS a FROM {'(SELECT DISTINCT 1 FROM ' * _DEEP[0]}v{n - 1}"
        f"{')' * _DEEP[0]}; PRAGMA table_info(v{n})"
        for n in range(1, _DEEP[1] + 1)
    ),
)

_TOO_BIG = {
    "zeroblob": "SELECT zeroblob(1048577)",
    "zeroblob, extreme": "SELECT zeroblob(9223372036854775807)",
    "randomblob": "SELECT randomblob(2147483647)",
    "width": "SELECT printf('%2147483647d', 1)",
    "width as an argument": "SELECT printf('%*d', 2147483647, 1)",
    "width beyond numbers": "SELECT printf('%99999999999999999999s', 'x')",
    "precision": "SELECT printf('%.*f', 2147483647, 1.5)",
    "precision, general": "SELECT printf('%.9999999g', 1e308)",
    "hex": "SELECT hex(zeroblob(1000000))",
    "quote": "SELECT quote(zeroblob(1000000))",
    "unistr_quote": "SELECT unistr_quote(zeroblob(1000000))",
    "replace": f"SELECT replace({repeated('a', 400000)}, 'a', 'aaaaaaaa')",
    "concat": "SELECT zeroblob(900000) || zeroblob(900000)",
    "concat_ws": "SELECT concat_ws(zeroblob(500000), 1, 2, 3, 4)",
    "doubling": "WITH RECURSIVE n(i) AS (SELECT 'a' UNION ALL SELECT i || i FROM n)"
    " SELECT 1 FROM n",
    "group_concat": f"{numbers(2000000)} SELECT group_concat(i) FROM n",
    "string_agg": f"{numbers(2000000)} SELECT string_agg(i, 'xxxxxxxx') FROM n",
    "json array": f"SELECT json_array({repeated('a', 900000)}, {repeated('a', 900000)})",
    "json pretty": f"SELECT json_pretty({repeated('[', 900)} || {repeated(']', 900)})",
    "json of many": f"{numbers(1000)} SELECT json_group_array({repeated('a', 900000)}) FROM n",
    "strftime": f"SELECT strftime({repeated('%Y', 400000)}, 0)",
    "row": "INSERT INTO t SELECT zeroblob(900000);"
    " CREATE TABLE x AS SELECT a, a AS b, a AS c FROM t",
}
_TOO_MUCH = {
    "sorter": f"{numbers(200)} SELECT zeroblob(900000) || i AS x FROM n ORDER BY x",
    "materialised": f"{numbers()}, m AS MATERIALIZED (SELECT zeroblob(900000) || i FROM n)"
    " SELECT count(*) FROM m",
    "distinct": f"{numbers()} SELECT count(*) FROM (SELECT DISTINCT zeroblob(900000) || i FROM n)",
    "union": "WITH RECURSIVE n(i, b) AS (SELECT 1, '' UNION SELECT i + 1, zeroblob(900000)"
    " FROM n) SELECT count(*) FROM n",
    "grouping": f"{numbers()} SELECT count(*) FROM n GROUP BY zeroblob(900000) || i",
    "in": f"SELECT 'x' IN ({numbers(200)} SELECT randomblob(900000) || i FROM n)",
    "wide row": f"SELECT {_WIDE}",
    "wide subquery": f"SELECT count(*) FROM (SELECT DISTINCT {_WIDE})",
    "window": f"{numbers(200)} SELECT count(*) OVER (), b FROM"
    " (SELECT i, zeroblob(900000) || i AS b FROM n)",
    "order by random of the endless": f"{numbers()} SELECT zeroblob(900000) || i, i FROM n"
    " ORDER BY random()",
    "triggers, 2 to the 30th": f"{_TRIGGERS} INSERT INTO x0 VALUES(1)",
    "recursive CTE of blobs": "WITH RECURSIVE n(i, b) AS (SELECT 1, zeroblob(900000) UNION ALL"
    " SELECT i + 1, zeroblob(900000) FROM n ORDER BY 1) SELECT max(n.i) FROM n, n AS m",
}

CASES: list[Case] = [
    *(refused("sql_error", f"value, {name}", "over 1 MiB", sql) for name, sql in _TOO_BIG.items()),
    *(
        refused("out_of_memory", f"query, {name}", "over 64 MiB", sql)
        for name, sql in _TOO_MUCH.items()
    ),
    refused(
        "out_of_memory", "generated columns, 2 to the 30th", "a program without end", _GENERATED
    ),
    refused(
        "sql_error",
        "views, 2 to the 30th",
        "a query without end",
        f"{_VIEWS} SELECT count(*) FROM v30",
    ),
    refused(
        "out_of_memory",
        "nested views",
        "overflow the stack of C: the cell dies of it",
        f"SELECT * FROM v{_DEEP[1]}",
        setup=_NESTED,
    ),
    harmless("empty width", "overflow", "SELECT length(printf('%-2147483648d', 1))"),
    harmless("substr, extreme", "overflow", "SELECT substr('abc', -9223372036854775808, 9)"),
    harmless("negative blob", "underflow", "SELECT length(zeroblob(-1)), length(randomblob(-5))"),
    harmless(
        "a value a thousand times",
        "answer that outgrows the process",
        "SELECT " + ", ".join(["x"] * 900) + " FROM (SELECT zeroblob(1000) AS x)",
    ),
]
