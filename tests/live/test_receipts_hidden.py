"""Where kept answers lie is the service's own: no caller sees it, reads it or changes it."""

import os
import signal

import pytest

from tests.handles import Client, Service, wait_for_end
from tests.hostile.sql_case import ANY_SQL_ERROR

TABLE = "sqlite_walkin_receipts"
KEY = {"Idempotency-Key": "first"}
INSERT = "INSERT INTO t VALUES(1)"


@pytest.fixture
def kept(client: Client) -> Client:
    """A caller with objects that were made before the first key, and one kept answer."""
    sql = f"""CREATE TABLE t(a); CREATE VIEW early AS SELECT * FROM sqlite_schema;
        CREATE VIEW reader AS SELECT * FROM {TABLE};
        CREATE TABLE u(a);
        CREATE TRIGGER thief AFTER INSERT ON u BEGIN INSERT INTO t SELECT body FROM {TABLE}; END"""
    assert client.sql(sql).status == 200
    assert client.call(INSERT, KEY).json == {"rows_affected": 1}
    return client


def is_still_kept(client: Client) -> bool:
    return client.call(INSERT, KEY).headers.get("idempotency-replayed") == "true"


def restart_cell(service: Service, client: Client) -> None:
    cell = service.cell(client)
    os.kill(cell, signal.SIGKILL)
    wait_for_end(cell)


LOOKS = [
    "SELECT * FROM sqlite_schema",
    "SELECT name FROM sqlite_master",
    "SELECT sql FROM main.sqlite_schema",
    "SELECT tbl_name FROM sqlite_schema WHERE type = 'index'",
    "SELECT rowid, * FROM sqlite_schema ORDER BY name DESC",
    "SELECT * FROM early",
    "SELECT name FROM (SELECT name, count(*) FROM sqlite_schema GROUP BY name)",
    "WITH x AS (SELECT sql FROM sqlite_schema) SELECT * FROM x",
    "PRAGMA table_list",
    "SELECT name FROM pragma_table_list",
]


@pytest.mark.parametrize("sql", LOOKS)
def test_it_is_not_in_the_schema(service: Service, client: Client, sql: str) -> None:
    client.sql("CREATE TABLE t(a); CREATE VIEW early AS SELECT * FROM sqlite_schema")
    before = client.sql(sql).json
    client.call(INSERT, KEY)
    for _ in range(2):
        assert client.sql(sql).json == before
        assert client.call(sql, readonly=True).json == before
        assert TABLE not in client.call(sql, {"Accept": "text/csv"}).text
        assert client.call(sql, max_rows=1).json.get("total_rows", 1) == max(1, len(before["rows"]))
        restart_cell(service, client)


def test_its_neighbours_in_the_schema_are_all_there(kept: Client) -> None:
    names = [["t"], ["early"], ["reader"], ["u"], ["thief"]]
    assert kept.sql("SELECT name FROM sqlite_schema").rows == names
    # What is glued together is nobody's row to leave out.
    ((glued,),) = kept.sql("SELECT group_concat(name) FROM sqlite_schema").rows
    assert glued.startswith("t,early,reader,u,thief")
    described = kept.http.get("/schema", headers={"X-Walkin-Session": kept.token or ""}).json()
    told = [one["name"] for kind in ("tables", "views") for one in described[kind]]
    assert told == ["t", "u", "early", "reader"]


REACHES = [
    f"SELECT * FROM {TABLE}",
    f"SELECT 1 FROM main.[{TABLE.upper()}]",
    f"SELECT count(*) FROM {TABLE}",
    f"SELECT EXISTS(SELECT 1 FROM {TABLE})",
    f"EXPLAIN SELECT * FROM {TABLE}",
    f"EXPLAIN QUERY PLAN SELECT * FROM {TABLE}",
    f"WITH x AS (SELECT body FROM {TABLE}) SELECT * FROM x",
    f"INSERT INTO t SELECT body FROM {TABLE}",
    f"CREATE TABLE stolen AS SELECT * FROM {TABLE}",
    "SELECT * FROM reader",
    "INSERT INTO u VALUES(1)",
    f"CREATE VIEW late AS SELECT * FROM {TABLE}; SELECT * FROM late",
    f"DELETE FROM {TABLE}",
    f"DELETE FROM {TABLE} WHERE 1",
    f"UPDATE {TABLE} SET body = 'x'",
    f"INSERT INTO {TABLE} DEFAULT VALUES",
    f"INSERT INTO {TABLE} VALUES(9, 'k', 'p', 0, 'b')",
    f"REPLACE INTO {TABLE}(number) VALUES(1)",
    f"EXPLAIN DELETE FROM {TABLE}",
    f"CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM {TABLE}; END; {INSERT}",
    f"CREATE TRIGGER x AFTER INSERT ON {TABLE} BEGIN SELECT 1; END",
    f"CREATE TEMP TRIGGER x AFTER INSERT ON {TABLE} BEGIN SELECT 1; END",
    f"CREATE INDEX x ON {TABLE}(key)",
    f"DROP TABLE {TABLE}",
    f"ALTER TABLE {TABLE} RENAME TO x",
    f"ALTER TABLE {TABLE} ADD COLUMN x",
    f"ALTER TABLE {TABLE} DROP COLUMN body",
    f"ALTER TABLE t RENAME TO {TABLE}",
    f"CREATE TABLE {TABLE}(a)",
    f"CREATE TEMP TABLE {TABLE}(a)",
    f"PRAGMA table_info({TABLE})",
    f"SELECT * FROM pragma_table_xinfo('{TABLE}')",
    f"PRAGMA integrity_check({TABLE})",
    f"CREATE VIRTUAL TABLE x USING fts5(body, content='{TABLE}'); SELECT * FROM x",
    f"CREATE VIRTUAL TABLE x USING fts5(a, content={TABLE}); INSERT INTO x(x) VALUES('rebuild')",
    f"CREATE VIRTUAL TABLE x USING fts5vocab('{TABLE}', 'row'); SELECT * FROM x",
    f"CREATE TABLE x(a REFERENCES {TABLE}(number)); INSERT INTO x VALUES(1)",
    "PRAGMA writable_schema=1",
    "DELETE FROM sqlite_schema WHERE name LIKE '%walkin%'",
    "SELECT * FROM dbstat",
]


@pytest.mark.parametrize("sql", REACHES)
def test_it_can_be_neither_read_nor_changed(service: Service, kept: Client, sql: str) -> None:
    for _ in range(2):
        answer = kept.sql(sql)
        assert answer.status == 400
        assert answer.code in {"not_authorized", *ANY_SQL_ERROR}, answer
        assert is_still_kept(kept)
    restart_cell(service, kept)
    assert kept.sql(sql).status == 400
    assert kept.sql("SELECT a FROM t").rows == [[1]]


@pytest.mark.parametrize(
    "sql",
    ["VACUUM", "REINDEX", f"REINDEX {TABLE}", "ANALYZE", f"ANALYZE {TABLE}", "PRAGMA optimize"],
)
def test_what_acts_on_all_tables_keeps_it(kept: Client, sql: str) -> None:
    assert kept.sql(sql).status == 200
    assert is_still_kept(kept)
    assert kept.sql("PRAGMA integrity_check").rows == [["ok"]]
    assert kept.sql("SELECT count(*) FROM t").rows == [[1]]
