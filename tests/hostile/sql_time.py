"""Attacks on time: each would run for minutes, most of them without a look at SQLite's clock.

Every one outlasts the 2 s several times over on any machine.
"""

from tests.hostile.sql_case import Case, numbers, refused, repeated

_MATCHES = f"INSERT INTO f {numbers(2)} SELECT {repeated('a ', 500000)} FROM n"
_TEXT = repeated("aa", 500000)
_NEEDLE = repeated("a", 500000)
_ENDLESS = {
    "endless CTE": f"{numbers()} SELECT count(*) FROM n",
    "endless CTE without rows": f"{numbers()} SELECT i FROM n WHERE i < 0",
    "endless CTE, limit of none": f"{numbers()} SELECT count(*) FROM n LIMIT 1",
    "cross joins": f"{numbers(1000)} SELECT count(*) FROM n, n, n, n, n, n, n",
    "endless CTE written": f"{numbers()} INSERT INTO t SELECT i FROM n WHERE i % 1000000 = 0",
    "endless update": f"UPDATE t SET a = ({numbers()} SELECT count(*) FROM n)",
    "endless delete": f"DELETE FROM t WHERE a = ({numbers()} SELECT max(i) FROM n)",
    "endless returning": f"INSERT INTO t {numbers()} SELECT i FROM n WHERE i < 0 RETURNING a",
    "endless view": f"CREATE VIEW v AS {numbers()} SELECT i FROM n; SELECT count(*) FROM v",
    "endless check": "PRAGMA foreign_key_check; SELECT * FROM pragma_integrity_check, "
    f"({numbers()} SELECT i FROM n) WHERE i < 0",
    "endless json": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n, json_each('[1]'))"
    " SELECT count(*) FROM n",
    "endless explain of another": f"EXPLAIN SELECT 1; {numbers()} SELECT count(*) FROM n",
    "endless fts5": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n, f('one'))"
    " SELECT count(*) FROM n WHERE i < 0",
    "endless rtree": f"{numbers()} SELECT count(*) FROM n, r WHERE r.a <= i AND r.b >= -i",
    "endless window": f"{numbers(20000)} SELECT max(x) FROM (SELECT group_concat(1, '') OVER"
    " (ORDER BY i ROWS BETWEEN 9000 PRECEDING AND 9000 FOLLOWING EXCLUDE TIES) AS x FROM n)",
    "endless trigger": "CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE t SET a ="
    f" ({numbers().replace('n(', 'm(').replace('FROM n', 'FROM m')} SELECT count(*) FROM m);"
    " END; INSERT INTO t VALUES(1)",
    "endless generated column": "CREATE TABLE x(a, b AS (length(replace(hex(zeroblob(250000)),"
    " '0', a)))); INSERT INTO x VALUES('a'); "
    f"{numbers()} SELECT count(b) FROM n, x",
    **{
        name: f"{numbers(1000)} SELECT count({call}) FROM n,"
        f" (SELECT {_TEXT} AS h), (SELECT {_NEEDLE} AS p)"
        for name, call in (
            ("instr", "instr(h, p || 'b' || i)"),
            ("replace", "replace(h, p || 'b' || i, '')"),
        )
    },
    **{
        name: f"{numbers(1000)} SELECT count(h {name} '{any_}' || {repeated('a', 980)} || 'b' || i)"
        f" FROM n, (SELECT {_TEXT} AS h)"
        for name, any_ in (("LIKE", "%"), ("GLOB", "*"))
    },
    "trim": f"SELECT trim({_TEXT}, {repeated('bcdefghij', 8000)} || 'a')",
    "json_patch": "WITH j(x) AS (SELECT json_group_object(i, i) FROM "
    f"({numbers(60000)} SELECT i FROM n)) SELECT length(json_patch(x, replace(x, ':', ':1')))"
    " FROM j",
    "fts5 highlight": "SELECT length(highlight(f, 0, '', '')) FROM f WHERE f MATCH 'a'",
    "fts5 snippet": "SELECT length(snippet(f, 0, '', '', '', 64)) FROM f WHERE f MATCH 'a'",
    "fts5 expression": f"SELECT * FROM f WHERE f MATCH {repeated('a OR ', 150000)} || 'a'",
}
_WITH_MATCHES = {"fts5 highlight", "fts5 snippet"}
_SLOW = f"SELECT instr({_TEXT}, {repeated('a', 100000)} || 'b');"

CASES: list[Case] = [
    *(
        refused(
            "query_timeout",
            name,
            "hold the cell",
            sql,
            setup=(_MATCHES,) if name in _WITH_MATCHES else (),
        )
        for name, sql in _ENDLESS.items()
    ),
    refused("query_timeout", "many statements", "a clock for each", _SLOW * 60),
    refused(
        "query_timeout",
        "transaction",
        "leave a lock behind",
        f"BEGIN; INSERT INTO t VALUES(4); {numbers()} SELECT count(*) FROM n; COMMIT",
    ),
]
