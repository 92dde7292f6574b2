"""What statements cost, as SQLite counts it."""

from collections.abc import Iterator
from typing import Any

import apsw
import pytest

from sandbox.stats import Stats


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    opened = apsw.Connection(":memory:")
    opened.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    opened.executemany("INSERT INTO t VALUES(?, ?)", [(n, -n) for n in range(50)])
    yield opened
    opened.close()


def cost(connection: apsw.Connection, sql: str) -> dict[str, int]:
    def ours(text: str) -> list[tuple[Any, ...]]:
        return connection.execute(text).fetchall()

    stats = Stats(connection)
    connection.execute(sql).fetchall()
    return stats.end(ours)


def test_a_scan_a_search_and_a_sort_are_told_apart(connection: apsw.Connection) -> None:
    scan = cost(connection, "SELECT sum(b) FROM t")
    assert (scan["full_scans"], scan["rows_scanned"], scan["sorts"]) == (1, 49, 0)
    search = cost(connection, "SELECT b FROM t WHERE a = 7")
    assert (search["full_scans"], search["rows_scanned"]) == (0, 0)
    assert cost(connection, "SELECT b FROM t ORDER BY b")["sorts"] == 1
    assert cost(connection, "SELECT 1")["full_scans"] == 0


def test_statements_add_up(connection: apsw.Connection) -> None:
    one = cost(connection, "SELECT sum(b) FROM t")
    two = cost(connection, "SELECT sum(b) FROM t; SELECT count(b) FROM t")
    assert two["full_scans"] == 2
    assert two["rows_scanned"] == one["rows_scanned"] * 2


def test_counting_ends_with_it(connection: apsw.Connection) -> None:
    first = cost(connection, "SELECT 1")
    connection.execute("SELECT sum(b) FROM t").fetchall()
    assert cost(connection, "SELECT 1")["vm_steps"] == first["vm_steps"]


def test_what_cannot_be_explained_is_no_scan(connection: apsw.Connection) -> None:
    assert cost(connection, "EXPLAIN SELECT * FROM t")["full_scans"] == 0
    assert cost(connection, "SELECT * FROM t; DROP TABLE t")["full_scans"] == 0
