"""A database described: what is asked of SQLite, and what is made of it."""

import time
from collections.abc import Iterator
from typing import Any

import apsw
import pytest

from sandbox import schema
from sandbox.schema import Described, as_markdown


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    opened = apsw.Connection(":memory:")
    opened.execute("CREATE TABLE t(a DEFAULT 1); INSERT INTO t VALUES(1), (2)")
    yield opened
    opened.close()


def described(connection: apsw.Connection, within_s: float = 30) -> dict[str, Any]:
    def ours(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return connection.execute(sql, values).fetchall()

    return Described(ours, time.monotonic() + within_s, apsw.Error).describe()


def test_a_table_is_told(connection: apsw.Connection) -> None:
    assert described(connection) == {
        "tables": [
            {
                "name": "t",
                "sql": "CREATE TABLE t(a DEFAULT 1)",
                "columns": [{"name": "a", "type": "", "default": "1"}],
                "foreign_keys": [],
                "indexes": [],
                "rows": 2,
            }
        ],
        "views": [],
    }


def test_sqlites_own_tables_and_indexes_are_not_told(connection: apsw.Connection) -> None:
    connection.execute("CREATE TABLE u(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE); ANALYZE")
    assert [one["name"] for one in described(connection)["tables"]] == ["t", "u"]
    assert described(connection)["tables"][1]["indexes"] == []


def test_out_of_time_rows_are_not_counted(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_COUNT_S", -1)
    assert described(connection)["tables"][0]["rows"] is None


def test_out_of_time_only_the_sql_is_told(connection: apsw.Connection) -> None:
    late = described(connection, within_s=-1)
    assert late["tables"][0].keys() == {"name", "sql"}
    assert late["truncated"] is True


@pytest.mark.parametrize(("name", "most"), [("_MOST", 1), ("_MOST_BYTES", 200)])
def test_there_is_an_end_of_it(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(schema, name, most)
    connection.execute("CREATE TABLE u(a)")
    found = described(connection)
    assert ([one["name"] for one in found["tables"]], found["truncated"]) == (["t"], True)


def test_a_page_says_what_a_writer_of_queries_needs() -> None:
    table = {"name": "t", "sql": "CREATE TABLE t(a)", "rows": 1234}
    view = {"name": "v", "sql": "CREATE VIEW v AS SELECT 1", "error": "oh"}
    page = as_markdown({"tables": [table], "views": [view], "truncated": True})
    assert page.startswith("## table t (1,234 rows)\n\n```sql\nCREATE TABLE t(a)\n```\n")
    assert "## view v\n\n```sql\nCREATE VIEW v AS SELECT 1\n```\n\n*It cannot be read: oh.*" in page
    assert "There is more" in page
