"""`readonly`: a call that can read everything and change nothing, whatever its SQL says."""

import json
import os
import re
import signal
from typing import Any

import pytest

from tests.handles import Answer, Client, Service, wait_for_end
from tests.hostile.sql import QUICK
from tests.hostile.sql_case import FURNITURE

MORE = """
    CREATE TABLE u(id INTEGER PRIMARY KEY, n UNIQUE, parent REFERENCES u(id));
    CREATE INDEX by_n ON u(n); INSERT INTO u VALUES(1, 10, NULL), (2, 20, 1);
    CREATE VIEW v AS SELECT * FROM t;
    CREATE TRIGGER into_v INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES(new.a); END;
    CREATE TRIGGER out_of_v INSTEAD OF DELETE ON v BEGIN DELETE FROM t; END;
    PRAGMA user_version=7
"""


def names(client: Client) -> list[str]:
    sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    return [str(name) for (name,) in client.sql(sql).rows]


def dump(client: Client) -> list[Any]:
    """All that a caller can see of a database."""
    tables = [name.replace('"', '""') for name in names(client)]
    looks = ["SELECT * FROM sqlite_schema", "PRAGMA user_version", "PRAGMA application_id"]
    looks += ["PRAGMA page_count", "PRAGMA freelist_count", "PRAGMA schema_version"]
    found: list[Any] = [client.sql(look).rows for look in looks]
    for start in range(0, len(tables), 20):
        sql = "; ".join(f'SELECT * FROM "{name}"' for name in tables[start : start + 20])
        found.append(client.call(sql, each=True).json.get("results"))
    return found


def look(client: Client, sql: str, args: Any = None, **options: Any) -> Answer:
    return client.call(sql, args=args, readonly=True, **options)


def furnished(service: Service) -> Client:
    """A caller with a database that has something of everything."""
    client = service.client()
    assert client.sql(FURNITURE).status == 200
    assert client.sql(MORE).status == 200
    return client


@pytest.fixture(scope="module")
def shown(service: Service) -> Client:
    """A caller whose database nothing in this module may change."""
    return furnished(service)


@pytest.fixture(scope="module")
def before(shown: Client) -> list[Any]:
    return dump(shown)


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT count(*) FROM u", [[2]]),
        ("WITH x AS (SELECT n FROM u) SELECT sum(n) FROM x", [[30]]),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5)"
            " SELECT sum(i) FROM n",
            [[15]],
        ),
        ("VALUES(1), (2)", [[1], [2]]),
        ("SELECT rank() OVER (ORDER BY n DESC) FROM u ORDER BY n", [[2], [1]]),
        ("PRAGMA user_version", [[7]]),
        ("PRAGMA foreign_keys", [[1]]),
        ("PRAGMA query_only", [[1]]),
        ("PRAGMA integrity_check", [["ok"]]),
        ("PRAGMA quick_check(u)", [["ok"]]),
        ("PRAGMA foreign_key_check", []),
        ("SELECT name FROM pragma_table_info('u')", [["id"], ["n"], ["parent"]]),
        ("SELECT name FROM pragma_index_list('u') WHERE origin = 'c'", [["by_n"]]),
        ("SELECT a FROM f WHERE f MATCH 'two'", [["one two"]]),
        ("SELECT highlight(f, 0, '[', ']') FROM f('three') ORDER BY rank", [["one [three]"]]),
        ("SELECT id FROM r WHERE a < 1 AND b > 0", [[1]]),
        ("SELECT value FROM json_each('[4]')", [[4]]),
        ("SELECT * FROM v ORDER BY a", [[1], [2], [3]]),
        ("BEGIN; SELECT 1; COMMIT", [[1]]),
        ("SAVEPOINT s; SELECT 1; ROLLBACK TO s; RELEASE s", [[1]]),
        ("SELECT 'DELETE FROM u'", [["DELETE FROM u"]]),
    ],
)
def test_what_reads_is_run(shown: Client, sql: str, rows: list[Any]) -> None:
    assert look(shown, sql).rows == rows


@pytest.mark.parametrize(
    "sql", ["SELECT id FROM r", "SELECT a FROM f('two')", "PRAGMA integrity_check"]
)
def test_the_first_call_of_a_new_cell_may_be_read_only(
    service: Service, shown: Client, sql: str
) -> None:
    cell = service.cell(shown)
    os.kill(cell, signal.SIGKILL)
    wait_for_end(cell)
    assert len(look(shown, sql).rows) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO u VALUES(3, 3, 3)",
        "INSERT INTO f VALUES('x')",
        "DELETE FROM r",
        "UPDATE u SET n = 1",
        "CREATE TABLE w(a)",
        "DROP TABLE u",
        "ALTER TABLE u ADD COLUMN z",
    ],
)
def test_a_write_may_be_explained(shown: Client, before: list[Any], sql: str) -> None:
    assert look(shown, f"EXPLAIN {sql}").rows
    assert look(shown, f"EXPLAIN QUERY PLAN {sql}").status == 200
    assert len(look(shown, sql, explain=True).json["plans"]) == 1
    assert dump(shown) == before


WRITES = [
    "INSERT INTO u VALUES(3, 30, NULL)",
    "INSERT INTO u DEFAULT VALUES",
    "INSERT INTO u SELECT 9, 9, NULL WHERE 0",
    "REPLACE INTO u VALUES(1, 1, NULL)",
    "INSERT INTO u VALUES(1, 1, 1) ON CONFLICT DO UPDATE SET n = 5",
    "INSERT OR IGNORE INTO u VALUES(1, 1, 1)",
    "UPDATE u SET n = n + 1",
    "UPDATE u SET n = 0 WHERE 0",
    "DELETE FROM u",
    "DELETE FROM u WHERE id = 2 RETURNING *",
    "WITH x AS (SELECT 1) DELETE FROM u",
    "WITH x(i) AS (SELECT 5) INSERT INTO t SELECT i FROM x RETURNING a",
    "CREATE TABLE w(a)",
    "CREATE TABLE IF NOT EXISTS u(a)",
    "CREATE TABLE w AS SELECT * FROM u",
    "CREATE TEMP TABLE w(a)",
    "CREATE TEMP VIEW w AS SELECT 1",
    "CREATE TEMP TRIGGER w AFTER INSERT ON u BEGIN SELECT 1; END",
    "CREATE INDEX w ON u(parent)",
    "CREATE VIEW w AS SELECT 1",
    "CREATE TRIGGER w AFTER INSERT ON u BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE w USING fts5(a)",
    "CREATE VIRTUAL TABLE w USING rtree(id, a, b)",
    "CREATE VIRTUAL TABLE temp.w USING fts5vocab(main, f, row)",
    "DROP TABLE u",
    "DROP TABLE IF EXISTS u",
    "DROP TABLE f",
    "DROP INDEX by_n",
    "DROP VIEW v",
    "DROP TRIGGER into_v",
    "ALTER TABLE u RENAME TO w",
    "ALTER TABLE u RENAME COLUMN n TO m",
    "ALTER TABLE u ADD COLUMN z",
    "ALTER TABLE u DROP COLUMN parent",
    "REINDEX",
    "REINDEX by_n",
    "ANALYZE",
    "ANALYZE u",
    "VACUUM",
    "PRAGMA user_version=8",
    "PRAGMA user_version(8)",
    "PRAGMA application_id=8",
    "PRAGMA query_only=0",
    "PRAGMA main.query_only=off",
    "PRAGMA query_only=0; DELETE FROM u",
    "EXPLAIN PRAGMA query_only=0; DELETE FROM u",
    "PRAGMA optimize",
    "PRAGMA optimize(0x10002)",
    "SELECT * FROM pragma_optimize",
    "PRAGMA incremental_vacuum",
    "PRAGMA incremental_vacuum(1)",
    "PRAGMA wal_checkpoint",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA shrink_memory",
    "PRAGMA foreign_keys=ON",
    "PRAGMA foreign_keys=OFF",
    "PRAGMA journal_mode=wal",
    "PRAGMA journal_mode=delete",
    "PRAGMA recursive_triggers=1",
    "PRAGMA case_sensitive_like=1",
    "PRAGMA writable_schema=1",
    "PRAGMA auto_vacuum=1",
    "INSERT INTO f(f) VALUES('rebuild')",
    "INSERT INTO f(f) VALUES('optimize')",
    "INSERT INTO f(f, rank) VALUES('merge', 1)",
    "INSERT INTO f(f, rank) VALUES('rank', 'bm25(10.0)')",
    "INSERT INTO f VALUES('x')",
    "DELETE FROM f WHERE f MATCH 'one'",
    "UPDATE r SET a = 0",
    "DELETE FROM r",
    "INSERT INTO f_config VALUES('a', 1)",
    "INSERT INTO v VALUES(9)",
    "DELETE FROM v",
    "SAVEPOINT s; DELETE FROM u; RELEASE s",
    "SAVEPOINT s; DELETE FROM u; ROLLBACK TO s",
    "BEGIN; DELETE FROM u; COMMIT",
    "BEGIN IMMEDIATE; DELETE FROM u",
    "SELECT 1; DELETE FROM u; SELECT 2",
    "EXPLAIN SELECT 1; DELETE FROM u; EXPLAIN SELECT 2",
    "SELECT 1; /* EXPLAIN */ DELETE FROM u",
]


@pytest.mark.parametrize("sql", WRITES)
def test_what_writes_is_refused_and_changes_nothing(
    shown: Client, before: list[Any], sql: str
) -> None:
    called = look(shown, sql)
    assert called.status == 400
    assert called.code in ("read_only", "not_authorized"), called
    assert dump(shown) == before


def test_options_beside_it_open_nothing(shown: Client, before: list[Any]) -> None:
    for options in ({"atomic": True}, {"each": True}, {"stats": True}, {"many": [[], []]}):
        assert look(shown, "DELETE FROM u", **options).code == "read_only"
    keyed = shown.call("DELETE FROM u", {"Idempotency-Key": "k"}, readonly=True)
    assert keyed.code == "read_only"
    assert dump(shown) == before


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES(4)",
        "UPDATE t SET a = a + 1",
        "DELETE FROM t",
        "INSERT INTO f VALUES('x')",
        "INSERT INTO r VALUES(NULL, 1, 2)",
        "CREATE TABLE IF NOT EXISTS t(a)",
        "ANALYZE",
        "PRAGMA user_version=5",
        "PRAGMA case_sensitive_like=1",
        "PRAGMA wal_checkpoint",
        "PRAGMA optimize",
        "VACUUM",
    ],
)
@pytest.mark.parametrize("after", ["", "; EXPLAIN SELECT 1"])
def test_what_was_just_run_and_so_is_prepared_is_refused_too(
    client: Client, sql: str, after: str
) -> None:
    assert client.sql(FURNITURE).status == 200
    for _ in range(2):
        assert client.sql(sql).status == 200
        then = dump(client)
        assert look(client, sql + after).code == "read_only"
        assert dump(client) == then


def test_the_next_ordinary_call_writes_again(client: Client) -> None:
    client.sql(FURNITURE)
    for sql in ("SELECT 1", "DELETE FROM t", "PRAGMA query_only=0", "SELEC", "SELECT ?"):
        look(client, sql)
        assert client.sql("INSERT INTO t VALUES(0)").json == {"rows_affected": 1}
        assert client.sql("INSERT INTO r VALUES(NULL, 1, 2)").json["rows_affected"] == 1


def test_a_new_database_may_be_read_only_at_once(client: Client) -> None:
    assert look(client, "SELECT 1").rows == [[1]]
    assert client.sql("CREATE TABLE t(a)").status == 200


#: Those that SQLite would run at least in part, and that do not only read.
WRITING = [
    name
    for name, case in QUICK.items()
    if case.code in (None, "transaction_open", "quota_exceeded")
    and re.search(
        "INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER|PRAGMA|VACUUM", case.sql, re.IGNORECASE
    )
]


@pytest.mark.parametrize("name", WRITING)
def test_no_attack_changes_anything_when_it_may_only_read(service: Service, name: str) -> None:
    case = QUICK[name]
    client = service.client()
    for sql in (FURNITURE, *case.setup):
        assert client.sql(sql).status == 200
    then = dump(client)
    body = json.dumps({"sql": case.sql, "args": case.args, "readonly": True}).encode()
    answer = client.post(body)
    assert answer.status in (200, 400, 413), answer
    assert dump(client) == then
    client.close()
