"""What a call may say beside its SQL, over HTTP: how it is run, and how it is answered."""

import json
from typing import Any

import pytest

from tests.handles import Answer, Client

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT i FROM n"


@pytest.fixture
def kept(client: Client) -> Client:
    """A caller with one table of one row."""
    made = client.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE); INSERT INTO t VALUES(1, 2)")
    assert made.status == 200
    return client


def table(client: Client) -> list[list[Any]]:
    return client.sql("SELECT a, b FROM t ORDER BY a").rows


def is_refused(answer: Answer, code: str, **fields: Any) -> bool:
    told = answer.json
    return answer.status == 400 and told["code"] == code and fields.items() <= told.items()


# --- each ---


def test_each_statement_has_its_own_result(kept: Client) -> None:
    sql = """INSERT INTO t VALUES(7, 8); SELECT a FROM t; UPDATE t SET b = b + 10;
        DELETE FROM t WHERE a = 7 RETURNING b; CREATE TABLE u(x)"""
    assert kept.call(sql, each=True).json == {
        "results": [
            {"rows_affected": 1, "last_insert_rowid": 7},
            {"columns": ["a"], "rows": [[1], [7]], "rows_affected": 0},
            {"rows_affected": 2},
            {"columns": ["b"], "rows": [[18]], "rows_affected": 1},
            {"rows_affected": 0},
        ]
    }


@pytest.mark.parametrize("sql", ["-- nothing", "; ;", "/* */;"])
def test_what_is_no_statement_has_no_result(client: Client, sql: str) -> None:
    assert client.call(sql, each=True).json == {"results": []}
    both = client.call(f"{sql}\n; SELECT 1 AS x; {sql}", each=True).json["results"]
    assert both == [{"columns": ["x"], "rows": [[1]], "rows_affected": 0}]


def test_each_result_has_the_callers_caps_and_form(kept: Client) -> None:
    sql = f"{NUMBERS.format(3)}; SELECT 'abcdef' AS x; SELECT 1 AS x, 2 AS x"
    called = kept.call(sql, each=True, rows="objects", max_rows=2, max_cell_bytes=3)
    first, second, third = called.json["results"]
    assert (first["rows"], first["truncated"]) == ([{"i": 1}, {"i": 2}], "max_rows")
    assert (second["rows"], second["cells_cut"]) == ([{"x": "abc… (3 bytes more)"}], 1)
    assert (third["columns"], third["rows"]) == (["x", "x"], [{"x": 1, "x_2": 2}])


# --- atomic ---


def test_an_atomic_call_is_all_or_nothing(kept: Client) -> None:
    half = "INSERT INTO t VALUES(2, 3); INSERT INTO t VALUES(3, 2)"
    failed = kept.call(half, atomic=True)
    assert is_refused(failed, "constraint_failed", statement=1, rolled_back=True)
    assert table(kept) == [[1, 2]]
    assert "rolled_back" not in kept.call(half).json
    assert table(kept) == [[1, 2], [2, 3]], "without it the first statement stays done"


def test_an_atomic_call_that_succeeds_is_kept_and_answered_as_any_other(kept: Client) -> None:
    called = kept.call("INSERT INTO t VALUES(2, 3); SELECT a FROM t", atomic=True)
    assert called.json == {"columns": ["a"], "rows": [[1], [2]], "rows_affected": 1}
    assert table(kept) == [[1, 2], [2, 3]]


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "begin immediate",
        "COMMIT",
        "END",
        "ROLLBACK",
        "/**/ROLLBACK TRANSACTION",
        ";COMMIT",
    ],
)
def test_a_transaction_in_an_atomic_call_is_refused(kept: Client, sql: str) -> None:
    called = kept.call(f"DELETE FROM t; {sql}; SELECT 1", atomic=True)
    assert is_refused(called, "not_authorized", rolled_back=True, statement=1)
    assert table(kept) == [[1, 2]]


def test_savepoints_work_inside_an_atomic_call(kept: Client) -> None:
    sql = """SAVEPOINT s; INSERT INTO t VALUES(2, 3); ROLLBACK TO s; RELEASE s;
        SAVEPOINT u; INSERT INTO t VALUES(4, 5); ROLLBACK TRANSACTION TO SAVEPOINT u;
        INSERT INTO t VALUES(6, 7)"""
    assert kept.call(sql, atomic=True).status == 200
    assert table(kept) == [[1, 2], [6, 7]]


def test_an_atomic_call_out_of_time_is_rolled_back(kept: Client) -> None:
    endless = NUMBERS.replace(" LIMIT {}", "").replace("SELECT i FROM", "SELECT count(*) FROM")
    called = kept.call(f"DELETE FROM t; {endless}", atomic=True)
    assert (called.status, called.json["rolled_back"]) == (408, True)
    assert table(kept) == [[1, 2]]


# --- many ---


def test_many_sets_of_values_are_one_statement_each(kept: Client) -> None:
    arrays = kept.call("INSERT INTO t VALUES(?, ?)", many=[[2, "x"], [3, None]])
    assert arrays.json == {"rows_affected": 2}
    objects = kept.call(
        "UPDATE t SET b = :b WHERE a = @a", many=[{"a": 2, "b": 1.5}, {":a": 3, "b": 9}]
    )
    assert objects.json == {"rows_affected": 2}
    assert table(kept) == [[1, 2], [2, 1.5], [3, 9]]


def test_many_sets_return_the_rows_of_all_of_them(kept: Client) -> None:
    sql = "INSERT INTO t VALUES(?, ?) RETURNING a, b"
    called = kept.call(sql, many=[[n, n * 10] for n in range(2, 500)])
    assert called.json["rows_affected"] == 498
    assert called.rows == [[n, n * 10] for n in range(2, 500)]
    assert kept.call("SELECT ? AS x", many=[[1], [2]]).json["rows"] == [[1], [2]]


@pytest.mark.parametrize(
    ("sql", "many", "code", "at"),
    [
        ("INSERT INTO t VALUES(?, ?)", [[2, 3], [3, 2]], "constraint_failed", 1),
        ("INSERT INTO t VALUES(?, ?)", [[2, 3], [3]], "invalid_args", 1),
        ("INSERT INTO t VALUES(?, ?)", [[2, 3], [3, 4], [5, 6, 7]], "invalid_args", 2),
        ("INSERT INTO t VALUES(?, ?)", [[2, 3], [3, [4]]], "invalid_args", 1),
        ("INSERT INTO t VALUES(?, ?)", [[2, 3], [3, 2**63]], "invalid_args", 1),
        ("INSERT INTO t VALUES(:a, :b)", [{"a": 2, "b": 3}, {"a": 3, "c": 4}], "invalid_args", 1),
        ("INSERT INTO t VALUES(:a, :b)", [{"a": 2, "b": 3, "c": 4}], "invalid_args", 0),
        ("INSERT INTO t VALUES(:a, 9)", [{"a": 3}, {"a": 4, "A": 5}], "invalid_args", 1),
        ("INSERT INTO nosuch VALUES(?)", [[1]], "unknown_table", 0),
    ],
)
def test_a_wrong_set_is_named_and_nothing_is_kept(
    kept: Client, sql: str, many: list[Any], code: str, at: int
) -> None:
    assert is_refused(kept.call(sql, many=many), code, set=at)
    assert table(kept) == [[1, 2]]


def test_a_second_statement_beside_many_is_refused(kept: Client) -> None:
    called = kept.call("INSERT INTO t VALUES(?, ?); DELETE FROM t", many=[[2, 3]])
    assert is_refused(called, "invalid_option", rolled_back=True)
    assert kept.call("-- a\nINSERT INTO t VALUES(?, ?);; -- b", many=[[4, 5]]).status == 200
    assert table(kept) == [[1, 2], [4, 5]]


def test_many_with_no_sets_does_nothing(kept: Client) -> None:
    assert kept.call("DELETE FROM t", many=[]).json == {"rows_affected": 0}
    assert table(kept) == [[1, 2]]


def test_a_transaction_of_many_is_refused(kept: Client) -> None:
    assert is_refused(kept.call("COMMIT", many=[[]]), "not_authorized", statement=0)
    assert table(kept) == [[1, 2]]


# --- the answer's form and caps ---


def test_rows_may_be_objects_in_which_no_name_hides_another(client: Client) -> None:
    called = client.call('SELECT 1 AS id, 2 AS id, 3 AS id_2, 4 AS ""', rows="objects")
    assert called.json["columns"] == ["id", "id", "id_2", ""]
    assert called.json["rows"] == [{"id": 1, "id_3": 2, "id_2": 3, "": 4}]
    assert client.call("SELECT 1 WHERE 0", rows="objects").rows == []


def test_integers_may_be_strings_and_nothing_else_is(client: Client) -> None:
    sql = "SELECT 9223372036854775807, -1, 1.0, 'x', NULL, x'00'"
    called = client.call(sql, integers="string")
    assert called.rows == [["9223372036854775807", "-1", 1.0, "x", None, {"base64": "AA=="}]]
    assert client.call(sql, integers="number").rows[0][:2] == [2**63 - 1, -1]


def test_a_cap_on_rows_says_what_it_cut_and_of_how_many(client: Client) -> None:
    called = client.call(NUMBERS.format(20_000), max_rows=3).json
    assert called["rows"] == [[1], [2], [3]]
    assert (called["truncated"], called["total_rows"]) == ("max_rows", 20_000)
    assert "LIMIT" in called["hint"]


def test_a_cap_that_cuts_nothing_says_nothing(client: Client) -> None:
    called = client.call(NUMBERS.format(3), max_rows=3, max_bytes=100, max_cell_bytes=10)
    assert called.json == {"columns": ["i"], "rows": [[1], [2], [3]], "rows_affected": 0}


def test_rows_that_a_write_returns_and_those_of_earlier_statements_are_counted_too(
    kept: Client,
) -> None:
    sql = f"{NUMBERS.format(50)}; {NUMBERS.format(300).replace(') S', ') INSERT INTO u S')}"
    kept.sql("CREATE TABLE u(a)")
    called = kept.call(f"{sql} RETURNING a; SELECT 1", each=True, max_rows=2)
    assert [one.get("total_rows") for one in called.json["results"]] == [50, 300, None]
    many = kept.call("SELECT ? UNION ALL SELECT 2", many=[[1]] * 3, max_rows=1).json
    assert (many["rows"], many["total_rows"]) == ([[1]], 6)


def test_a_total_that_cannot_be_counted_soon_is_left_out(client: Client) -> None:
    called = client.call(NUMBERS.format(-1), max_rows=1).json
    assert called["truncated"] == "max_rows"
    assert "total_rows" not in called


@pytest.mark.parametrize("most", [1, 20, 1000, 100_000])
def test_a_cap_on_bytes_is_kept(client: Client, most: int) -> None:
    called = client.call(NUMBERS.format(20_000), max_bytes=most, max_rows=10_000).json
    assert called["truncated"] == ("max_bytes" if most < 50_000 else "max_rows")
    size = len(json.dumps(called["rows"], separators=(",", ":"))) - 2
    assert size <= most
    assert called["rows"] == [[n + 1] for n in range(len(called["rows"]))]


def test_a_cap_on_cells_cuts_text_between_letters_and_counts(client: Client) -> None:
    called = client.call("SELECT 'ääää', 'abcd', x'0001020304', 12345678", max_cell_bytes=5).json
    cut = ["ää… (4 bytes more)", "abcd", {"base64": "AAECAwQ="}, 12345678]
    assert (called["rows"], called["cells_cut"]) == ([cut], 1)
    assert "truncated" not in called


def test_a_plain_call_is_only_told_that_it_was_cut(client: Client) -> None:
    called = client.sql(NUMBERS.format(10_001)).json
    assert called["truncated"] is True
    assert (len(called["rows"]), sorted(called)) == (
        10_000,
        ["columns", "rows", "rows_affected", "truncated"],
    )


# --- stats and explain ---


def test_stats_tell_a_scan_from_a_search(kept: Client) -> None:
    kept.call("INSERT INTO t VALUES(?, ?)", many=[[n, n] for n in range(10, 110)])
    scan = kept.call("SELECT sum(b + 0) FROM t", stats=True).json["stats"]
    search = kept.call("SELECT b FROM t WHERE a = 50", stats=True).json["stats"]
    assert (scan["full_scans"], search["full_scans"]) == (1, 0)
    assert scan["rows_scanned"] >= 100 > search["rows_scanned"]
    assert scan["vm_steps"] > search["vm_steps"] > 0
    assert scan["memory_bytes"] > 0
    assert kept.call("SELECT b + 0 FROM t ORDER BY 1", stats=True).json["stats"]["sorts"] == 1


def test_a_plan_is_a_tree_and_nothing_is_run(kept: Client) -> None:
    sql = "SELECT a FROM t WHERE a = 1 UNION ALL SELECT b FROM t; DELETE FROM t WHERE b = 2"
    select, delete = kept.call(sql, explain=True).json["plans"]
    (compound,) = select
    assert compound["detail"] == "COMPOUND QUERY"
    left, right = compound["children"]
    assert left["children"][0]["detail"].startswith("SEARCH t USING INTEGER PRIMARY KEY")
    assert right["children"][0]["detail"].startswith("SCAN t")
    assert delete[0]["detail"].startswith("SEARCH t USING")
    assert table(kept) == [[1, 2]]
