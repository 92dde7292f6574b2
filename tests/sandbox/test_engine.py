"""The engine on a real file: what comes back, what is counted, what is refused, what is left."""

import contextlib
import json
import math
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import blocklist, policy
from sandbox.calls import Bindings, Call
from sandbox.engine import Engine
from sandbox.gate import Gate
from sandbox.place import DATABASE, FILES
from sandbox.refusal import Refusal, encode
from sandbox.sqlite import blank_database

NUMBERS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


class Bench:
    """An engine and its file."""

    def __init__(self, folder: Path) -> None:
        for name in FILES:
            (folder / name).write_bytes(blank_database() if name == DATABASE else b"")
        self.folder = folder
        self.file = folder / DATABASE
        self.gate = Gate(self.file)
        self.engine = Engine(self.gate)

    def run(self, sql: str, args: Bindings | None = None, within_s: float = 30) -> Any:
        """Run one call and return its answer."""
        return self.call(sql, args, within_s)

    def call(self, sql: str, args: Bindings | None = None, within_s: float = 30, **how: Any) -> Any:
        """Run one call with options and return its answer."""
        call = Call(sql, args, **how)
        return json.loads(self.engine.run(call, time.monotonic() + within_s).body)

    def rows(self, sql: str, args: Bindings | None = None) -> Any:
        return self.run(sql, args)["rows"]

    def value(self, sql: str, args: Bindings | None = None) -> Any:
        ((found,),) = self.rows(sql, args)
        return found

    def affected(self, sql: str) -> int:
        return int(self.run(sql)["rows_affected"])

    def refusal(self, sql: str, args: Bindings | None = None, within_s: float = 30) -> Refusal:
        """Run one call that must be refused and return the refusal."""
        with pytest.raises(Refusal) as raised:
            self.run(sql, args, within_s)
        # Nothing of a refused call may disturb the next.
        assert self.value("SELECT 1") == 1
        return raised.value

    def next_call(self) -> None:
        """What a cell does between two calls."""
        self.gate.tidy()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    with contextlib.suppress(Exception):
        made.gate.close()


# --- the blank database ---


def test_a_blank_database_is_whole_and_in_wal_mode(tmp_path: Path) -> None:
    file = tmp_path / DATABASE
    file.write_bytes(blank_database())
    with contextlib.closing(sqlite3.connect(file)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert plain.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert plain.execute("PRAGMA page_size").fetchall() == [(4096,)]
        assert plain.execute("SELECT count(*) FROM sqlite_master").fetchall() == [(0,)]


def test_a_blank_database_is_one_page() -> None:
    assert len(blank_database()) == 4096
    assert struct.unpack_from(">16sH", blank_database()) == (b"SQLite format 3\0", 4096)


def test_a_new_database_has_no_version_and_no_application_of_its_own(bench: Bench) -> None:
    assert bench.value("PRAGMA user_version") == 0
    assert bench.value("PRAGMA application_id") == 0


def test_a_closed_database_is_all_in_its_file(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    assert (bench.folder / FILES[1]).stat().st_size > 0
    bench.gate.close()
    wal = bench.folder / FILES[1]
    assert not wal.exists() or wal.stat().st_size == 0
    with contextlib.closing(sqlite3.connect(bench.file)) as plain:
        assert plain.execute("SELECT a FROM t").fetchall() == [("kept",)]
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_database_that_was_not_closed_is_recovered(bench: Bench, tmp_path: Path) -> None:
    bench.run("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    other = tmp_path / "other"
    other.mkdir()
    for name in FILES:
        (other / name).write_bytes((bench.folder / name).read_bytes())
    gate = Gate(other / DATABASE)
    try:
        body = Engine(gate).run(Call("SELECT a FROM t"), time.monotonic() + 5).body
        assert json.loads(body)["rows"] == [["kept"]]
    finally:
        gate.close()


def test_no_file_but_the_two_is_ever_made(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a); INSERT INTO t VALUES(1); CREATE TEMP TABLE u(a)")
    bench.run("BEGIN; INSERT INTO t VALUES(2); SAVEPOINT s; INSERT INTO t VALUES(3); COMMIT")
    bench.run("SELECT * FROM t ORDER BY random()")
    bench.run("VACUUM")
    assert {path.name for path in bench.folder.iterdir()} == set(FILES)


# --- results ---


def test_a_statement_without_columns_leaves_columns_and_rows_out(bench: Bench) -> None:
    assert bench.run("CREATE TABLE t(a)") == {"rows_affected": 0}
    assert bench.run("INSERT INTO t VALUES(1)") == {"rows_affected": 1}


def test_altering_a_table_shows_no_columns_of_sqlites_own(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a)")
    assert bench.run("ALTER TABLE t ADD CONSTRAINT c CHECK (a < 9)") == {"rows_affected": 0}
    assert bench.run("ALTER TABLE t ALTER a SET NOT NULL") == {"rows_affected": 0}


def test_a_select_of_no_rows_has_columns_and_no_rows(bench: Bench) -> None:
    answer = bench.run("SELECT 1 AS a, 2 AS b WHERE 0")
    assert answer == {"columns": ["a", "b"], "rows": [], "rows_affected": 0}


def test_the_last_statement_with_columns_is_the_one_shown(bench: Bench) -> None:
    answer = bench.run("SELECT 1 AS a; SELECT 2 AS b; CREATE TABLE t(x); INSERT INTO t VALUES(3)")
    assert answer == {"columns": ["b"], "rows": [[2]], "rows_affected": 1}


def test_a_later_select_of_no_rows_replaces_an_earlier_one_with_rows(bench: Bench) -> None:
    answer = bench.run("SELECT 1 AS a; SELECT 2 AS b WHERE 0")
    assert answer == {"columns": ["b"], "rows": [], "rows_affected": 0}


def test_the_references_own_example_in_double_quotes_works(bench: Bench) -> None:
    bench.run('CREATE TABLE kv(k, v); INSERT INTO kv VALUES("greeting", "hello")')
    assert bench.rows("SELECT * FROM kv") == [["greeting", "hello"]]


def test_columns_of_the_same_name_are_all_shown(bench: Bench) -> None:
    answer = bench.run("SELECT 1 AS a, 2 AS a, 3")
    assert (answer["columns"], answer["rows"]) == (["a", "a", "3"], [[1, 2, 3]])


@pytest.mark.parametrize("sql", ["", " ", ";", ";;;", "-- nothing", "/* nothing", "\ufeff", "\n\t"])
def test_no_statement_at_all_is_an_empty_answer(bench: Bench, sql: str) -> None:
    assert bench.run(sql) == {"rows_affected": 0}


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("NULL", None),
        ("9223372036854775807", (1 << 63) - 1),
        ("-9223372036854775808", -(1 << 63)),
        ("9223372036854775808", 9223372036854775808.0),
        ("0.1", 0.1),
        ("'\u00e9\U0001f600'", "\u00e9\U0001f600"),
        ("x'00ff'", {"base64": "AP8="}),
        ("x''", {"base64": ""}),
        ("9e999", {"float": "Infinity"}),
        ("-9e999", {"float": "-Infinity"}),
        ("9e999 - 9e999", None),
        ("1.0 / 0", None),
        ("char(0)", "\0"),
        ("CAST(x'ff' AS BLOB)", {"base64": "/w=="}),
        ("1 = 1", 1),
        ("json('{\"a\": 1}')", '{"a":1}'),
    ],
)
def test_a_value_comes_back_in_its_one_form(bench: Bench, sql: str, value: object) -> None:
    found = bench.value(f"SELECT {sql}")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("sql", ["CAST(x'ff' AS TEXT)", "char(55296)", "CAST(x'61e2' AS TEXT)"])
def test_text_that_is_not_utf8_is_refused_with_a_hint(bench: Bench, sql: str) -> None:
    refusal = bench.refusal(f"SELECT 1; SELECT {sql}")
    assert refusal.code == "text_not_utf8"
    assert "BLOB" in refusal.fields["hint"]
    assert refusal.fields["statement"] == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT json_extract('{}', CAST(x'ff' AS TEXT))",
        "CREATE TABLE t(a); CREATE TRIGGER r BEFORE INSERT ON t BEGIN "
        "SELECT RAISE(ABORT, CAST(x'fffe' AS TEXT)); END; INSERT INTO t VALUES(1)",
    ],
)
def test_an_error_message_that_is_not_utf8_is_an_error_all_the_same(bench: Bench, sql: str) -> None:
    refusal = bench.refusal(sql)
    assert refusal.code in ("sql_error", "constraint_failed", "text_not_utf8")
    assert encode(refusal, "")[0] == 400


@pytest.mark.parametrize("sql", ["SELECT '\0'", "SELECT 1;\0", "\0", "SELECT 1 /* \0"])
def test_a_nul_in_the_sql_is_refused(bench: Bench, sql: str) -> None:
    refusal = bench.refusal(sql)
    assert refusal.code == "sql_error"
    assert "NUL" in refusal.detail


# --- truncation ---


def test_10000_rows_are_not_truncated(bench: Bench) -> None:
    answer = bench.run(NUMBERS.format(10_000) + "SELECT i FROM n")
    assert len(answer["rows"]) == 10_000
    assert "truncated" not in answer


def test_the_10001st_row_is_cut_off(bench: Bench) -> None:
    answer = bench.run(NUMBERS.format(10_001) + "SELECT i FROM n")
    assert len(answer["rows"]) == 10_000
    assert answer["rows"][-1] == [10_000]
    assert answer["truncated"] is True


def test_rows_are_cut_off_at_about_1_mib(bench: Bench) -> None:
    call = Call(NUMBERS.format(3000) + "SELECT i, hex(zeroblob(500)) FROM n")
    body = bench.engine.run(call, time.monotonic() + 30).body
    assert json.loads(body)["truncated"] is True
    assert 0.98 * (1 << 20) < len(body) <= (1 << 20) + 1000


def test_what_counts_is_the_size_as_it_is_sent(bench: Bench) -> None:
    # A control character takes six bytes in JSON.
    sql = NUMBERS.format(3000) + "SELECT replace(hex(zeroblob(500)), '0', char(1)) FROM n"
    body = bench.engine.run(Call(sql), time.monotonic() + 30).body
    assert json.loads(body)["truncated"] is True
    assert len(body) <= (1 << 20) + 10_000


def test_a_single_row_too_large_is_cut_off_too(bench: Bench) -> None:
    answer = bench.run("SELECT zeroblob(1000000)")
    assert answer["rows"] == []
    assert answer["truncated"] is True


@pytest.mark.parametrize("end", ["", ";", " ; -- end", "; /* end", "\n;\ufeff", ";;"])
def test_an_endless_read_that_nothing_follows_is_cut_off_quickly(bench: Bench, end: str) -> None:
    began = time.monotonic()
    answer = bench.run(ENDLESS + end)
    assert time.monotonic() - began < 2
    assert len(answer["rows"]) == 10_000
    assert answer["truncated"] is True


def test_statements_after_a_truncated_read_are_run(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a)")
    answer = bench.run(NUMBERS.format(20_000) + "SELECT i FROM n; INSERT INTO t VALUES(1)")
    assert answer["truncated"] is True
    assert answer["rows_affected"] == 1
    assert bench.rows("SELECT a FROM t") == [[1]]


def test_a_later_result_is_not_truncated_because_an_earlier_was(bench: Bench) -> None:
    answer = bench.run(NUMBERS.format(20_000) + "SELECT i FROM n; SELECT 1 AS one")
    assert answer == {"columns": ["one"], "rows": [[1]], "rows_affected": 0}


def test_a_write_whose_rows_are_truncated_is_done_whole(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a)")
    answer = bench.run("INSERT INTO t " + NUMBERS.format(10_050) + "SELECT i FROM n RETURNING a")
    assert len(answer["rows"]) == 10_000
    assert answer["truncated"] is True
    assert answer["rows_affected"] == 10_050
    assert bench.value("SELECT count(*) FROM t") == 10_050


# --- rows_affected ---

SCHEMA = """
    CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE);
    CREATE TABLE log(what);
    INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'three');
"""


@pytest.mark.parametrize(
    ("sql", "affected"),
    [
        ("INSERT INTO t(a) VALUES('x')", 1),
        ("INSERT INTO t(a) VALUES('x'), ('y')", 2),
        ("INSERT INTO t(a) VALUES('x'); INSERT INTO t(a) VALUES('y'), ('z')", 3),
        ("INSERT INTO t(a) SELECT a || id FROM t", 3),
        ("INSERT INTO t(a) SELECT a FROM t WHERE 0", 0),
        ("UPDATE t SET a = a || '!'", 3),
        ("UPDATE t SET a = a WHERE id = 99", 0),
        ("DELETE FROM t WHERE id < 3", 2),
        ("DELETE FROM t", 3),
        ("REPLACE INTO t VALUES(1, 'new')", 1),
        ("INSERT OR REPLACE INTO t VALUES(1, 'new')", 1),
        ("INSERT OR IGNORE INTO t VALUES(1, 'new')", 0),
        ("INSERT INTO t VALUES(1, 'x') ON CONFLICT(id) DO UPDATE SET a = 'y'", 1),
        ("INSERT INTO t VALUES(1, 'x') ON CONFLICT DO NOTHING", 0),
        ("INSERT INTO t(a) VALUES('x') RETURNING id", 1),
        ("UPDATE t SET a = a || '!' RETURNING id, a", 3),
        ("DELETE FROM t RETURNING id", 3),
        ("WITH w(x) AS (VALUES('p'), ('q')) INSERT INTO t(a) SELECT x FROM w", 2),
        ("WITH w AS (SELECT 1 AS i) UPDATE t SET a = 'w' WHERE id IN (SELECT i FROM w)", 1),
        ("WITH w AS (SELECT 1 AS i) DELETE FROM t WHERE id IN (SELECT i FROM w)", 1),
        ("WITH w AS (SELECT 1) SELECT * FROM w", 0),
        ("/* a */ -- b\n\ufeff insert into t(a) values('x')", 1),
        ("SELECT * FROM t", 0),
        ("INSERT INTO t(a) VALUES('x'); SELECT * FROM t", 1),
        ("SELECT * FROM t; INSERT INTO t(a) VALUES('x')", 1),
        ("BEGIN; INSERT INTO t(a) VALUES('x'); DELETE FROM t WHERE id = 1; COMMIT", 2),
        ("INSERT INTO t(a) VALUES('x'); CREATE TABLE u(a)", 1),
        ("CREATE TABLE u(a)", 0),
        ("CREATE TABLE u AS SELECT * FROM t", 0),
        ("CREATE INDEX i ON t(a)", 0),
        ("ALTER TABLE t ADD COLUMN b", 0),
        ("ALTER TABLE t RENAME COLUMN a TO b", 0),
        ("DROP TABLE t", 0),
        ("PRAGMA user_version = 7", 0),
        ("ANALYZE", 0),
        ("REINDEX", 0),
        ("VACUUM", 0),
        ("EXPLAIN DELETE FROM t", 0),
        ("EXPLAIN QUERY PLAN DELETE FROM t", 0),
    ],
)
def test_rows_affected_is_what_each_statement_itself_changed(
    bench: Bench, sql: str, affected: int
) -> None:
    bench.run(SCHEMA)
    assert bench.affected(sql) == affected


def test_rows_that_triggers_change_are_not_counted(bench: Bench) -> None:
    bench.run(SCHEMA)
    bench.run(
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO log VALUES(1), (2), (3); END;"
        "CREATE TRIGGER d AFTER DELETE ON t BEGIN DELETE FROM log; END"
    )
    assert bench.affected("INSERT INTO t(a) VALUES('x')") == 1
    assert bench.affected("DELETE FROM t WHERE a = 'x'") == 1
    assert bench.value("SELECT count(*) FROM log") == 0


def test_rows_that_an_instead_of_trigger_changes_are_not_counted(bench: Bench) -> None:
    bench.run(SCHEMA)
    bench.run(
        "CREATE VIEW v AS SELECT a FROM t;"
        "CREATE TRIGGER r INSTEAD OF INSERT ON v BEGIN INSERT INTO t(a) VALUES(new.a); END"
    )
    assert bench.affected("INSERT INTO v VALUES('x')") == 0
    assert bench.value("SELECT count(*) FROM t WHERE a = 'x'") == 1


def test_rows_that_foreign_keys_delete_are_not_counted(bench: Bench) -> None:
    bench.run(SCHEMA)
    bench.run("CREATE TABLE c(t REFERENCES t ON DELETE CASCADE); INSERT INTO c SELECT 1 FROM t")
    assert bench.affected("DELETE FROM t WHERE id = 1") == 1
    assert bench.value("SELECT count(*) FROM c") == 0


def test_shadow_rows_of_full_text_search_are_not_counted(bench: Bench) -> None:
    assert bench.affected("CREATE VIRTUAL TABLE f USING fts5(a)") == 0
    assert bench.affected("INSERT INTO f VALUES('one'), ('two')") == 2
    assert bench.affected("UPDATE f SET a = 'three' WHERE a MATCH 'one'") == 1
    assert bench.affected("DELETE FROM f") == 2


def test_shadow_rows_of_an_r_tree_are_not_counted(bench: Bench) -> None:
    assert bench.affected("CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)") == 0
    assert bench.affected("INSERT INTO r VALUES(1, 0, 1), (2, 5, 6)") == 2


def test_the_count_starts_anew_with_each_call(bench: Bench) -> None:
    bench.run(SCHEMA)
    assert bench.affected("DELETE FROM t") == 3
    assert bench.affected("SELECT 1") == 0
    assert bench.affected("UPDATE t SET a = 1") == 0


# --- time ---


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS + " ORDER BY i",
        "CREATE TABLE t AS " + ENDLESS,
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i FROM n) SELECT count(*) FROM n",
        ENDLESS + "; SELECT 1",
    ],
)
def test_a_call_that_outruns_its_clock_is_ended(bench: Bench, sql: str) -> None:
    began = time.monotonic()
    refusal = bench.refusal(sql, within_s=0.2)
    assert refusal.code in ("query_timeout", "quota_exceeded")
    if "CREATE" not in sql:
        assert refusal.code == "query_timeout"
        assert 0.2 <= time.monotonic() - began < 2


def test_the_clock_is_looked_at_between_statements_too(bench: Bench) -> None:
    # Each of these takes a moment and too few steps for SQLite's own look at the clock.
    slow = "SELECT length(replace(hex(zeroblob(200000)), '0', '1'));"
    began = time.monotonic()
    assert bench.refusal(slow * 500, within_s=0.2).code == "query_timeout"
    assert time.monotonic() - began < 2


def test_a_call_whose_time_is_over_already_is_not_begun(bench: Bench) -> None:
    assert bench.refusal("CREATE TABLE t(a)", within_s=-1).code == "query_timeout"
    assert bench.rows("SELECT * FROM sqlite_schema") == []


def test_a_transaction_that_outruns_its_clock_is_rolled_back(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a)")
    sql = f"BEGIN; INSERT INTO t VALUES(1); {ENDLESS} ORDER BY i; COMMIT"
    assert bench.refusal(sql, within_s=0.2).code == "query_timeout"
    assert bench.rows("SELECT * FROM t") == []
    assert bench.affected("INSERT INTO t VALUES(2)") == 1


def test_statements_before_the_one_that_ran_late_are_kept(bench: Bench) -> None:
    sql = f"CREATE TABLE t(a); INSERT INTO t VALUES(1); {ENDLESS} ORDER BY i"
    assert bench.refusal(sql, within_s=0.3).code == "query_timeout"
    assert bench.rows("SELECT * FROM t") == [[1]]


# --- room ---

FILL = "INSERT INTO t " + NUMBERS.format(12) + "SELECT zeroblob(1000000) FROM n"


def test_a_database_holds_10_mib_and_no_more(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a)")
    assert bench.refusal(FILL).code == "quota_exceeded"
    for _ in range(9):
        bench.run("INSERT INTO t VALUES(zeroblob(1000000))")
    assert bench.refusal(FILL).code == "quota_exceeded"
    assert bench.value("SELECT count(*) FROM t") == 9
    assert bench.file.stat().st_size <= 10 << 20


def test_a_full_database_can_be_read_and_emptied_and_used_again(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a)")
    for _ in range(9):
        bench.run("INSERT INTO t VALUES(zeroblob(1000000))")
    assert bench.refusal(FILL).code == "quota_exceeded"
    assert bench.value("SELECT length(a) FROM t LIMIT 1") == 1_000_000
    assert bench.affected("DELETE FROM t") == 9
    assert bench.affected("INSERT INTO t VALUES(zeroblob(1000000))") == 1


def test_a_transaction_that_fills_the_database_is_rolled_back(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a)")
    assert bench.refusal(f"BEGIN; INSERT INTO t VALUES(1); {FILL}; COMMIT").code == "quota_exceeded"
    assert bench.value("SELECT count(*) FROM t") == 0
    assert bench.affected("INSERT INTO t VALUES(2)") == 1


def test_temporary_tables_are_bounded_too(bench: Bench) -> None:
    refusal = bench.refusal("CREATE TEMP TABLE t(a);" + FILL)
    assert refusal.code in ("quota_exceeded", "out_of_memory")


def test_a_query_that_wants_too_much_memory_is_refused(bench: Bench) -> None:
    refusal = bench.refusal(
        NUMBERS.format(200) + "SELECT count(*) FROM (SELECT DISTINCT i || hex(zeroblob(400000)) "
        "FROM n ORDER BY 1 DESC)"
    )
    assert refusal.code == "out_of_memory"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT zeroblob(2000000)",
        "SELECT printf('%.*c', 2000000, 'x')",
        "SELECT hex(zeroblob(900000))",
    ],
)
def test_a_value_over_1_mib_is_refused(bench: Bench, sql: str) -> None:
    refusal = bench.refusal(sql)
    assert (refusal.code, refusal.detail) == ("sql_error", "string or blob too big")


# --- transactions ---


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN; INSERT INTO t VALUES(1)",
        "BEGIN",
        "SAVEPOINT s; INSERT INTO t VALUES(1)",
        "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); SAVEPOINT s; RELEASE s",
        "BEGIN; COMMIT; BEGIN; INSERT INTO t VALUES(1)",
        f"BEGIN; INSERT INTO t VALUES(1); {ENDLESS}",
    ],
)
def test_an_open_transaction_is_rolled_back_and_said_so(bench: Bench, sql: str) -> None:
    bench.run("CREATE TABLE t(a)")
    refusal = bench.refusal(sql)
    assert refusal.code == "transaction_open"
    assert "rolled back" in refusal.detail
    assert refusal.fields["hint"]
    assert bench.rows("SELECT * FROM t") == []
    assert bench.refusal("COMMIT").detail == "cannot commit - no transaction is active"


def test_a_transaction_within_a_call_is_kept(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1); COMMIT")
    bench.run("BEGIN; INSERT INTO t VALUES(2); ROLLBACK")
    bench.run("SAVEPOINT s; INSERT INTO t VALUES(3); RELEASE s")
    assert bench.rows("SELECT a FROM t") == [[1], [3]]


def test_an_error_within_a_transaction_rolls_it_back_and_is_the_one_told(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a UNIQUE)")
    refusal = bench.refusal("BEGIN; INSERT INTO t VALUES(1); INSERT INTO t VALUES(1); COMMIT")
    assert refusal.code == "constraint_failed"
    assert refusal.fields["rolled_back"] is True
    assert refusal.fields["sqlite_code"] == "SQLITE_CONSTRAINT_UNIQUE"
    assert refusal.fields["statement"] == 2
    assert bench.rows("SELECT * FROM t") == []


def test_statements_before_one_that_fails_are_kept_without_a_transaction(bench: Bench) -> None:
    bench.refusal("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1); INSERT INTO t VALUES(1)")
    assert bench.rows("SELECT * FROM t") == [[1]]


# --- where an error is ---


@pytest.mark.parametrize(
    ("sql", "statement", "word"),
    [
        ("SELEKT 1", 0, "SELEKT"),
        ("SELECT nope", 0, "nope"),
        ("SELECT 1; SELECT nope", 1, "nope"),
        ("SELECT 1;SELECT 2;SELECT nope", 2, "nope"),
        ("SELECT 1;;; SELECT nope", 1, "nope"),
        ("SELECT 1\n;\n  SELECT\n nope ;\n SELECT 2", 1, "nope"),
        ("-- \u00e9\nSELECT 1 /* \U0001f600 */ ;\n\tSELECT '\u00e9\U0001f600', nope", 1, "nope"),
        ("SELECT '\u00e9'; SELECT '\u00e9'; SELECT '\U0001f600', nope FROM t", 2, "nope"),
        ("\u00e9", 0, "\u00e9"),
        ("SELECT 1; SELECT \U0001f600", 1, "\U0001f600"),
        ("SELECT 1;\u00a0", 1, "\u00a0"),
        ("SELECT 1;\x0b", 1, "\x0b"),
        ("SELECT 1; SELECT 1 +; SELECT 2", 1, "; SELECT 2"),
        ("CREATE TABLE u(a); SELECT b FROM u", 1, "b FROM"),
    ],
)
def test_an_error_while_preparing_names_its_statement_and_its_place(
    bench: Bench, sql: str, statement: int, word: str
) -> None:
    bench.run("CREATE TABLE t(a)")
    fields = bench.refusal(sql).fields
    assert fields["sqlite_code"] == "SQLITE_ERROR"
    assert fields["statement"] == statement
    assert sql[fields["offset"] :].startswith(word)
    before = sql[: fields["offset"]].split("\n")
    assert fields["line"] == len(before)
    assert fields["column"] == len(before[-1]) + 1


@pytest.mark.parametrize(
    ("sql", "statement"),
    [
        ("INSERT INTO t VALUES(1)", 0),
        ("SELECT 1; INSERT INTO t VALUES(1)", 1),
        ("SELECT 1; SELECT 2; INSERT INTO t VALUES(1); SELECT 3", 2),
        ("SELECT 1; INSERT INTO t VALUES(1); SELECT 3; SELECT 4", 1),
        ("SELECT 1; INSERT INTO t VALUES(1); -- end", 1),
        ("SELECT 1; INSERT INTO t VALUES(1); SELECT ?", 1),
        # What follows is wrong in itself, but it was not its turn yet.
        ("SELECT 1; INSERT INTO t VALUES(1); SELECT nope", 1),
        ("INSERT INTO t VALUES(1); SELEKT", 0),
        ("INSERT INTO t VALUES(1); SELECT * FROM pragma_database_list", 0),
    ],
)
def test_an_error_while_running_names_its_statement(bench: Bench, sql: str, statement: int) -> None:
    bench.run("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1)")
    refusal = bench.refusal(sql)
    assert refusal.detail == "UNIQUE constraint failed: t.a"
    assert refusal.fields == {
        "statement": statement,
        "sqlite_code": "SQLITE_CONSTRAINT_UNIQUE",
        "constraint": {"kind": "unique", "table": "t", "columns": ["a"]},
    }


def test_an_error_in_the_middle_of_a_result_names_its_statement(bench: Bench) -> None:
    sql = 'SELECT 1; SELECT json(value) FROM json_each(\'["1", "2", "{"]\'); SELECT 2'
    refusal = bench.refusal(sql)
    assert (refusal.detail, refusal.fields["statement"]) == ("malformed JSON", 1)


def test_a_denial_names_its_statement(bench: Bench) -> None:
    refusal = bench.refusal("SELECT 1; PRAGMA journal_mode = DELETE; SELECT 2")
    assert refusal.code == "not_authorized"
    assert refusal.detail == "PRAGMA journal_mode is fixed here and can only be read"
    assert refusal.fields["statement"] == 1


def test_an_error_is_not_taken_for_the_denial_of_what_follows(bench: Bench) -> None:
    refusal = bench.refusal("SELECT json('{'); PRAGMA journal_mode = DELETE")
    assert (refusal.code, refusal.detail) == ("sql_error", "malformed JSON")
    assert refusal.fields["statement"] == 0


def test_a_table_that_was_not_there_when_the_call_began_is_no_error(bench: Bench) -> None:
    answer = bench.run("CREATE TABLE t(a); INSERT INTO t VALUES(1); SELECT a FROM t")
    assert answer["rows"] == [[1]]


# --- arguments ---


@pytest.mark.parametrize(
    ("sql", "args", "row"),
    [
        ("SELECT ?, ?", [1, "a"], [1, "a"]),
        ("SELECT ?2, ?1", [1, 2], [2, 1]),
        ("SELECT ?1, ?1", [7], [7, 7]),
        ("SELECT :a, @b, $c", {"a": 1, "b": 2, "c": 3}, [1, 2, 3]),
        ("SELECT :a, :a", {"a": 1}, [1, 1]),
        ("SELECT 1", [], [1]),
        ("SELECT 1", {}, [1]),
        ("SELECT ?", [None], [None]),
        ("SELECT ?", [True], [1]),
        ("SELECT typeof(?)", [False], ["integer"]),
        ("SELECT ?", [(1 << 63) - 1], [(1 << 63) - 1]),
        ("SELECT ?", [-(1 << 63)], [-(1 << 63)]),
        ("SELECT typeof(?)", [b"\0\xff"], ["blob"]),
        ("SELECT ?", [b"\0\xff"], [{"base64": "AP8="}]),
        ("SELECT ?", [math.inf], [{"float": "Infinity"}]),
        ("SELECT ?", [-math.inf], [{"float": "-Infinity"}]),
        ("SELECT ?", ["a\0b"], ["a\0b"]),
        ("SELECT ?", ["'; ATTACH 'x' AS y"], ["'; ATTACH 'x' AS y"]),
        ("SELECT ?; SELECT ?, ?", [1, 2, 3], [2, 3]),
        ("SELECT :a; SELECT :b", {"a": 1, "b": 2}, [2]),
    ],
)
def test_arguments_are_bound(bench: Bench, sql: str, args: Bindings, row: list[object]) -> None:
    assert bench.rows(sql, args) == [row]


@pytest.mark.parametrize(
    ("sql", "args", "statement"),
    [
        ("SELECT ?", None, 0),
        ("SELECT ?", [], 0),
        ("SELECT ?, ?", [1], 0),
        ("SELECT ?", [1, 2], 0),
        ("SELECT 1", [1], 0),
        ("SELECT ?", {"a": 1}, 0),
        ("SELECT :a, :b", {"a": 1}, 0),
        ("SELECT 1; SELECT ?", [], 1),
        ("SELECT ?; SELECT ?", [1], 1),
        ("SELECT ?; SELECT ?", [1, 2, 3], 1),
        ("SELECT 1; SELECT 2; SELECT :a", {"b": 1}, 2),
        ("SELECT ?5", [1, 2], 0),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_statement(
    bench: Bench, sql: str, args: Bindings | None, statement: int
) -> None:
    refusal = bench.refusal(sql, args)
    assert refusal.code == "invalid_args"
    assert refusal.fields["statement"] == statement
    assert refusal.detail


def test_a_missing_name_is_told(bench: Bench) -> None:
    refusal = bench.refusal("SELECT 1; SELECT @colour", {"color": 1})
    assert refusal.detail == "no value for parameter @colour"
    assert refusal.fields == {
        "parameter": "@colour",
        "statement": 1,
        "hint": "of the values, 'color' is next to it",
    }


def test_a_name_that_no_parameter_has_is_told_before_anything_is_run(bench: Bench) -> None:
    refusal = bench.refusal("CREATE TABLE t(a); SELECT :city", {"city": 1, "citty": 2})
    assert refusal.detail == "the value 'citty' has no parameter in the SQL"
    assert refusal.fields["argument"] == "citty"
    assert bench.run("CREATE TABLE t(a)") == {"rows_affected": 0}, "it was not made before"


# --- what a call leaves behind ---


@pytest.mark.parametrize(
    ("made", "used"),
    [
        ("CREATE TEMP TABLE x(a)", "SELECT * FROM x"),
        ("CREATE TABLE temp.x(a)", "SELECT * FROM x"),
        ("CREATE TEMPORARY TABLE x AS SELECT 1 AS a", "SELECT * FROM x"),
        ("CREATE TEMP VIEW x AS SELECT 1", "SELECT * FROM x"),
        ("CREATE VIRTUAL TABLE temp.x USING fts5(a)", "SELECT * FROM x"),
        ("CREATE VIRTUAL TABLE temp.x USING rtree(id, a, b)", "SELECT * FROM x"),
        ("CREATE VIRTUAL TABLE temp.x USING fts5vocab(main, f, row)", "SELECT * FROM x"),
    ],
)
def test_temporary_objects_last_for_one_call(bench: Bench, made: str, used: str) -> None:
    bench.run("CREATE VIRTUAL TABLE f USING fts5(a); CREATE TABLE t(a)")
    bench.run(f"{made}; {used}")
    bench.next_call()
    assert "no such table" in bench.refusal(used).detail


def test_a_temporary_trigger_lasts_for_one_call(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a); CREATE TABLE log(a)")
    bench.run(
        "CREATE TEMP TRIGGER r AFTER INSERT ON main.t BEGIN INSERT INTO log VALUES(1); END;"
        "INSERT INTO t VALUES(1)"
    )
    bench.next_call()
    bench.run("INSERT INTO t VALUES(2)")
    assert bench.value("SELECT count(*) FROM log") == 1


CALL_PRAGMAS = sorted(policy.PRAGMAS_OF_A_CALL - {"case_sensitive_like"})


@pytest.mark.parametrize(
    "spelling", [str, str.upper, lambda name: f'"{name}"', lambda name: f"main.{name}"]
)
@pytest.mark.parametrize("name", [*CALL_PRAGMAS, "defer_foreign_keys"])
def test_a_pragma_of_a_call_lasts_for_one_call(
    bench: Bench, name: str, spelling: Callable[[str], str]
) -> None:
    before = bench.value(f"PRAGMA {name}")
    other = 0 if before else 1
    found = bench.value(f"PRAGMA {spelling(name)} = {other}; PRAGMA {name}")
    assert found == other
    bench.next_call()
    assert bench.value(f"PRAGMA {name}") == before


@pytest.mark.parametrize("name", ["case_sensitive_like", "CASE_SENSITIVE_LIKE"])
def test_like_is_as_it_was_in_the_next_call(bench: Bench, name: str) -> None:
    assert bench.value(f"PRAGMA {name} = ON; SELECT 'A' LIKE 'a'") == 0
    bench.next_call()
    assert bench.value("SELECT 'A' LIKE 'a'") == 1


def test_deferred_foreign_keys_do_not_reach_the_next_call(bench: Bench) -> None:
    bench.run("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p)")
    bench.run("PRAGMA defer_foreign_keys = ON")
    bench.next_call()
    sql = "BEGIN; INSERT INTO c VALUES(1); INSERT INTO p VALUES(1); COMMIT"
    assert bench.refusal(sql).detail == "FOREIGN KEY constraint failed"


def test_what_a_call_leaves_in_the_file_survives_the_tidying(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a); INSERT INTO t VALUES(1); CREATE TEMP TABLE x(a)")
    bench.run("PRAGMA user_version = 7; PRAGMA application_id = 8")
    bench.next_call()
    assert bench.rows("SELECT a FROM t") == [[1]]
    assert bench.value("PRAGMA user_version") == 7
    assert bench.value("PRAGMA application_id") == 8


def test_every_wall_stands_again_after_the_tidying(bench: Bench) -> None:
    bench.run("CREATE TEMP TABLE x(a)")
    bench.next_call()
    assert bench.refusal("PRAGMA max_page_count = 9999").code == "not_authorized"
    assert bench.refusal(ENDLESS + " ORDER BY 1", within_s=0.1).code == "query_timeout"
    assert bench.value("PRAGMA max_page_count") == policy.MAX_PAGES
    assert bench.refusal("SELECT zeroblob(2000000)").code == "sql_error"


def test_tidying_after_a_plain_call_reopens_nothing(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a); INSERT INTO t VALUES(1); PRAGMA user_version = 1")
    before = bench.gate.connection
    bench.next_call()
    assert bench.gate.connection is before


def test_a_read_that_an_r_tree_leaves_open_behind_an_error_is_tidied_away(bench: Bench) -> None:
    bench.run("CREATE VIRTUAL TABLE r USING rtree(a, b, c); INSERT INTO r VALUES(1, 0, 1)")
    assert bench.refusal("INSERT INTO r VALUES(7, 0, 0), (8, 1, 0)").code == "constraint_failed"
    bench.run("PRAGMA recursive_triggers = 1")
    bench.next_call()
    assert bench.rows("SELECT a FROM r") == [[1]]
    bench.refusal("INSERT INTO r VALUES(7, 0, 0), (8, 1, 0)")
    bench.gate.close()


# --- pragmas ---

FIXED = {
    "busy_timeout": 1000,
    "journal_mode": "wal",
    "max_page_count": 2560,
    "foreign_keys": 1,
    "synchronous": 0,
    "locking_mode": "exclusive",
    "mmap_size": 0,
    "page_size": 4096,
    "temp_store": 2,
    "trusted_schema": 0,
    "writable_schema": 0,
    "wal_autocheckpoint": 1000,
    "encoding": "UTF-8",
    "hard_heap_limit": policy.HEAP_BYTES,
    "threads": 0,
}


@pytest.mark.parametrize(("name", "value"), FIXED.items())
def test_a_fixed_pragma_can_be_read(bench: Bench, name: str, value: object) -> None:
    assert bench.rows(f"PRAGMA {name}") in ([[value]], [])
    if name != "mmap_size":
        assert bench.value(f"PRAGMA {name.upper()}") == value


@pytest.mark.parametrize(
    "form",
    [
        "PRAGMA {} = {}",
        "PRAGMA {}({})",
        "PRAGMA main.{} = {}",
        'PRAGMA main."{}" = {}',
        "PRAGMA [{}]({})",
        "pragma/**/{}/**/=/**/{}",
        "EXPLAIN PRAGMA {} = {}",
        "SELECT * FROM pragma_{}({})",
        "SELECT * FROM pragma_{}('{}')",
    ],
)
@pytest.mark.parametrize(("name", "value"), FIXED.items())
def test_a_fixed_pragma_cannot_be_set(bench: Bench, name: str, value: object, form: str) -> None:
    other = {"journal_mode": "delete", "locking_mode": "normal", "encoding": "'UTF-16'"}
    with contextlib.suppress(Refusal):
        bench.run(form.format(name, str(other.get(name, 12_345)).strip("'" * ("'" in form))))
    bench.next_call()
    assert bench.rows(f"PRAGMA {name}") in ([[value]], [])


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA foreign_keys = ON",
        "PRAGMA foreign_keys = 1",
        "PRAGMA foreign_keys(true)",
        "PRAGMA journal_mode = WAL",
        "PRAGMA main.journal_mode = 'wal'",
        "PRAGMA busy_timeout = 1000",
        "PRAGMA max_page_count = 2560",
        "PRAGMA encoding = 'UTF-8'",
    ],
)
def test_a_fixed_pragma_may_be_set_to_what_it_is(bench: Bench, sql: str) -> None:
    bench.run(sql)
    for name in ("foreign_keys", "journal_mode", "busy_timeout", "max_page_count"):
        assert bench.value(f"PRAGMA {name}") == FIXED[name]


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA table_info(t)",
        "PRAGMA table_list",
        "PRAGMA index_list(t)",
        "PRAGMA foreign_key_list(t)",
        "PRAGMA integrity_check",
        "PRAGMA quick_check",
        "PRAGMA compile_options",
        "PRAGMA function_list",
        "SELECT * FROM pragma_table_info('t')",
        "SELECT name FROM pragma_table_xinfo('t')",
        "SELECT * FROM sqlite_schema JOIN pragma_table_info(sqlite_schema.name)",
    ],
)
def test_pragmas_that_look_at_the_schema_work(bench: Bench, sql: str) -> None:
    bench.run("CREATE TABLE t(a, b UNIQUE, c REFERENCES t)")
    assert bench.rows(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA database_list",
        "PRAGMA main.database_list",
        "pragma DATABASE_LIST",
        'PRAGMA "database_list"',
        "PRAGMA/**/[database_list]",
        "EXPLAIN PRAGMA database_list",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_database_list()",
        "SELECT * FROM PRAGMA_Database_List",
        'SELECT * FROM "pragma_database_list"',
        "SELECT * FROM main.pragma_database_list",
        "SELECT p.file FROM pragma_database_list AS p",
        "SELECT count(*) FROM pragma_database_list",
        "SELECT (SELECT file FROM pragma_database_list)",
        "SELECT json_group_array(file) FROM pragma_database_list",
        "WITH w AS (SELECT * FROM pragma_database_list) SELECT * FROM w",
        "CREATE TABLE x AS SELECT * FROM pragma_database_list",
        "CREATE VIEW x AS SELECT * FROM pragma_database_list; SELECT * FROM x",
        "CREATE TEMP VIEW x AS SELECT * FROM pragma_database_list; SELECT * FROM x",
        "CREATE VIRTUAL TABLE x USING fts5(file, content='pragma_database_list', "
        "content_rowid='seq'); SELECT * FROM x",
        "CREATE VIRTUAL TABLE x USING fts5(file, content='pragma_database_list', "
        "content_rowid='seq'); INSERT INTO x(x) VALUES('rebuild'); SELECT * FROM x",
        "PRAGMA temp_store_directory",
        "PRAGMA data_store_directory",
    ],
)
def test_no_answer_shows_where_the_file_lies(bench: Bench, sql: str) -> None:
    with pytest.raises(Refusal) as raised:
        bench.engine.run(Call(sql), time.monotonic() + 5)
    shown = f"{raised.value.detail} {raised.value.fields}"
    # A view and FTS5's own SQL are stopped by SQLite itself already: schemas are not trusted.
    assert raised.value.code in ("not_authorized", "unknown_table", "sql_error")
    assert str(bench.folder) not in shown


# --- VACUUM ---


@pytest.mark.parametrize("sql", ["VACUUM", "vacuum ;", "VACUUM main", "-- a\nVACUUM"])
def test_vacuum_alone_shrinks_the_file_and_keeps_the_data(bench: Bench, sql: str) -> None:
    bench.run("CREATE TABLE t(a); CREATE TABLE kept(a); INSERT INTO kept VALUES('kept')")
    bench.run("INSERT INTO t " + NUMBERS.format(500) + "SELECT zeroblob(4000) FROM n")
    bench.run("DROP TABLE t")
    before = bench.value("PRAGMA page_count")
    assert bench.run(sql) == {"rows_affected": 0}
    assert bench.value("PRAGMA page_count") < before / 10
    assert bench.rows("SELECT a FROM kept") == [["kept"]]
    assert bench.value("PRAGMA integrity_check") == "ok"


def test_a_nearly_full_database_can_be_vacuumed(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a)")
    for _ in range(9):
        bench.run("INSERT INTO t VALUES(randomblob(1000000))")
    bench.run("VACUUM")
    assert bench.value("SELECT sum(length(a)) FROM t") == 9_000_000


@pytest.mark.parametrize(
    "sql",
    ["VACUUM; SELECT 1", "SELECT 1; VACUUM", "VACUUM; VACUUM", "; VACUUM"],
)
def test_vacuum_in_company_is_refused_and_says_why(bench: Bench, sql: str) -> None:
    refusal = bench.refusal(sql)
    assert (refusal.code, refusal.detail) == ("not_authorized", "VACUUM must be a call of its own")


@pytest.mark.parametrize("file", ["'{}'", "'file:{}'", "'{}' || ''", "(SELECT '{}')"])
def test_vacuum_into_a_file_is_refused_and_makes_none(bench: Bench, file: str) -> None:
    target = bench.folder / "copy"
    for sql in ("VACUUM INTO ", "VACUUM main INTO "):
        assert bench.refusal(sql + file.format(target)).code == "not_authorized"
    assert not target.exists()


def test_nothing_can_be_attached_after_a_vacuum(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocklist, "forbidden", lambda _: None)
    bench.run("VACUUM")
    assert bench.refusal("ATTACH '' AS x").code == "not_authorized"
    assert bench.refusal("ATTACH ':memory:' AS x").code == "not_authorized"


@pytest.mark.parametrize("table", ["f('a')", "json_each('[1]')"])
def test_an_explained_query_does_not_tell_an_address(bench: Bench, table: str) -> None:
    bench.run("CREATE VIRTUAL TABLE f USING fts5(a)")
    (opened,) = (row for row in bench.rows(f"EXPLAIN SELECT * FROM {table}") if row[1] == "VOpen")
    assert opened[5] == "vtab"
    assert bench.value("SELECT 'vtab:0F'") == "vtab:0F"


# --- what is refused ---


@pytest.mark.parametrize(
    ("sql", "keyword"),
    [
        ("ATTACH 'x' AS y", "ATTACH"),
        ("SELECT 1; detach y", "DETACH"),
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT * FROM sqlite_dbpage", "sqlite_dbpage"),
    ],
)
def test_the_blocklist_comes_first(bench: Bench, sql: str, keyword: str) -> None:
    refusal = bench.refusal(sql)
    assert (refusal.code, refusal.detail) == ("forbidden_keyword", keyword)


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH '{}' AS x",
        "ATTACH ':memory:' AS x",
        "ATTACH '' AS x",
        "ATTACH DATABASE 'file:{}?mode=rwc' AS x",
        "ATTACH '{}' || '' AS x",
        "EXPLAIN ATTACH '{}' AS x",
        "DETACH main",
        "DETACH temp",
        "SELECT load_extension('{}')",
        "SELECT load_extension('{}', 'x')",
        "SELECT fts5_source_id()",
        "SELECT fts5_locale('a', 'b')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT sqlite_log(1, 'x')",
        "CREATE VIRTUAL TABLE x USING fts4(a)",
        "CREATE VIRTUAL TABLE x USING fts3(a)",
        "CREATE VIRTUAL TABLE x USING geopoly(a)",
        "CREATE VIRTUAL TABLE x USING dbstat",
    ],
)
def test_the_authorizer_holds_without_the_blocklist(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.setattr(blocklist, "forbidden", lambda _: None)
    before = {path.name for path in bench.folder.iterdir()}
    target = bench.folder / "target"
    refusal = bench.refusal(sql.format(target))
    assert refusal.code in ("not_authorized", "forbidden_keyword")
    assert {path.name for path in bench.folder.iterdir()} == before


@pytest.mark.parametrize(
    "table", ["dbstat", "sqlite_dbpage", "sqlite_stmt", "bytecode('x')", "csv"]
)
def test_tables_that_show_raw_pages_or_programs_are_not_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(blocklist, "forbidden", lambda _: None)
    assert "no such table" in bench.refusal(f"SELECT * FROM {table}").detail


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO sqlite_schema VALUES('table', 'x', 'x', 0, '')",
        "UPDATE sqlite_schema SET sql = ''",
        "DELETE FROM sqlite_schema",
        "DROP TABLE sqlite_schema",
        "DELETE FROM f_data",
        "INSERT INTO f_content VALUES(9, 'x')",
        "DROP TABLE f_data",
        "PRAGMA writable_schema = ON",
        "PRAGMA writable_schema = RESET",
    ],
)
def test_the_schema_cannot_be_spoiled_by_hand(bench: Bench, sql: str) -> None:
    bench.run("CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('one')")
    assert bench.refusal(sql).code in ("sql_error", "not_authorized")
    assert bench.rows("SELECT * FROM f WHERE f MATCH 'one'") == [["one"]]
    assert bench.value("PRAGMA integrity_check") == "ok"


def test_sqlites_own_words_and_code_are_passed_on(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a NOT NULL)")
    refusal = bench.refusal("INSERT INTO t VALUES(NULL)")
    assert refusal.code == "constraint_failed"
    assert refusal.detail == "NOT NULL constraint failed: t.a"
    assert refusal.fields["sqlite_code"] == "SQLITE_CONSTRAINT_NOTNULL"


# --- everything SQLite does ---


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        (
            "CREATE VIRTUAL TABLE f USING fts5(a, tokenize='porter'); "
            "INSERT INTO f VALUES('running dogs'), ('a cat'); "
            "SELECT highlight(f, 0, '<', '>') FROM f WHERE f MATCH 'dog' ORDER BY bm25(f)",
            [["running <dogs>"]],
        ),
        (
            "CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('x y x'); "
            "CREATE VIRTUAL TABLE v USING fts5vocab(f, 'row'); SELECT * FROM v",
            [["x", 1, 2], ["y", 1, 1]],
        ),
        (
            "CREATE TABLE d(id INTEGER PRIMARY KEY, a); "
            "CREATE VIRTUAL TABLE f USING fts5(a, content='d', content_rowid='id'); "
            "CREATE TRIGGER r AFTER INSERT ON d BEGIN "
            "INSERT INTO f(rowid, a) VALUES(new.id, new.a); END; "
            "INSERT INTO d(a) VALUES('one two'); SELECT rowid FROM f('two')",
            [[1]],
        ),
        (
            "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1); "
            "INSERT INTO r VALUES(1, 0, 1, 0, 1), (2, 5, 6, 5, 6); "
            "SELECT id FROM r WHERE x0 >= 4",
            [[2]],
        ),
        ("SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]'), '[7]' ->> 0", [[2, 7]]),
        ("SELECT json(jsonb('{\"a\": 1}'))", [['{"a":1}']]),
        ("SELECT value FROM json_each('[1, 2]')", [[1], [2]]),
        (
            "WITH v(i) AS (VALUES(1), (2), (3)) SELECT i, sum(i) OVER (ORDER BY i) FROM v",
            [[1, 1], [2, 3], [3, 6]],
        ),
        (
            "CREATE TABLE t(a, b AS (a * 2) STORED, c AS (a * 3)); "
            "INSERT INTO t VALUES(2); SELECT b, c FROM t",
            [[4, 6]],
        ),
        (
            "CREATE TABLE t(a INTEGER PRIMARY KEY, n) WITHOUT ROWID; "
            "INSERT INTO t VALUES(1, 1) ON CONFLICT(a) DO UPDATE SET n = n + 1; "
            "INSERT INTO t VALUES(1, 1) ON CONFLICT(a) DO UPDATE SET n = n + 1; SELECT n FROM t",
            [[2]],
        ),
        ("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2) RETURNING a * 10", [[10], [20]]),
        ("CREATE VIEW v AS SELECT 1 AS a; SELECT a FROM v", [[1]]),
        (NUMBERS.format(3) + "SELECT i FROM n", [[1], [2], [3]]),
        ("CREATE TABLE t(a); ANALYZE; SELECT count(*) FROM sqlite_schema WHERE name = 't'", [[1]]),
        (
            "SELECT upper(substr('abc', 2)), round(sqrt(16)), date(0, 'unixepoch')",
            [["BC", 4.0, "1970-01-01"]],
        ),
        (
            "SELECT a.x, b.y FROM (SELECT 1 AS x) a FULL JOIN (SELECT 2 AS y) b ON a.x = b.y",
            [[1, None], [None, 2]],
        ),
    ],
)
def test_everything_sqlite_does_works(bench: Bench, sql: str, rows: object) -> None:
    assert bench.rows(sql) == rows


def test_strict_tables_are_strict(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a INTEGER) STRICT")
    assert "cannot store TEXT value" in bench.refusal("INSERT INTO t VALUES('x')").detail


def test_foreign_keys_are_on(bench: Bench) -> None:
    bench.run("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p)")
    assert bench.refusal("INSERT INTO c VALUES(1)").detail == "FOREIGN KEY constraint failed"


# --- honest SQL that tighter limits would break ---


@pytest.mark.parametrize(
    ("sql", "args"),
    [
        ("SELECT " + " OR ".join(f"1 = {i}" for i in range(60)), None),
        ("SELECT " + " OR ".join(f"1 = {i}" for i in range(700)), None),
        (" UNION ALL ".join(f"SELECT {i}" for i in range(11)), None),
        (" UNION ALL ".join(f"SELECT {i}" for i in range(450)), None),
        ("SELECT json_object(" + ", ".join(f"'k{i}', {i}" for i in range(10)) + ")", None),
        ("SELECT json_object(" + ", ".join(f"'k{i}', {i}" for i in range(400)) + ")", None),
        ("SELECT " + ", ".join("?" * 200), list(range(200))),
        ("SELECT * FROM (VALUES " + ", ".join(["(?, ?)"] * 900) + ")", list(range(1800))),
        ("SELECT 1 IN (" + ", ".join(str(i) for i in range(1500)) + ")", None),
        ("SELECT " + "(" * 90 + "1" + ")" * 90, None),
        ("SELECT 'x' LIKE '" + "%" * 900 + "'", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_honest_sql_is_not_broken_by_a_limit(bench: Bench, sql: str, args: Bindings | None) -> None:
    assert bench.rows(sql, args)


def test_a_chain_of_cascades_is_followed_for_90_steps(bench: Bench) -> None:
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, p REFERENCES t ON DELETE CASCADE)")
    bench.run("INSERT INTO t " + NUMBERS.format(90) + "SELECT i, nullif(i - 1, 0) FROM n")
    bench.run("DELETE FROM t WHERE id = 1")
    assert bench.value("SELECT count(*) FROM t") == 0


# --- randomness ---


def test_random_values_differ_from_call_to_call(bench: Bench) -> None:
    assert bench.value("SELECT hex(randomblob(16))") != bench.value("SELECT hex(randomblob(16))")


# --- anything at all ---

WORDS = """
    SELECT * FROM t f r x temp.x sqlite_schema WHERE a = 1 'x' "y" NULL ? ?1 :a ( ) , ; . + || IN
    INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE TEMP VIEW INDEX ON TRIGGER AFTER BEGIN END
    DROP IF EXISTS ALTER RENAME TO ADD COLUMN COMMIT ROLLBACK SAVEPOINT s RELEASE VACUUM ANALYZE
    REINDEX EXPLAIN QUERY PLAN PRAGMA user_version query_only table_info journal_mode = WITH AS
    RECURSIVE UNION ALL ORDER BY LIMIT 9e999 x'ff' CAST TEXT count zeroblob 9223372036854775807
    json_extract RAISE ABORT VIRTUAL USING fts5 rtree MATCH RETURNING ATTACH DETACH 'f' optimize
    integrity_check wal_checkpoint incremental_vacuum pragma_table_info pragma_database_list
""".split()
STARTS = [
    "SELECT ",
    "INSERT INTO t VALUES(",
    "CREATE TABLE x(",
    "CREATE TEMP TABLE x AS SELECT ",
    "BEGIN; ",
    "PRAGMA ",
    "UPDATE t SET a = ",
    "EXPLAIN ",
    "DELETE FROM ",
    "WITH w(a) AS (SELECT ",
    "SELECT CAST(x'ff' AS TEXT), ",
    "INSERT INTO f(f) VALUES(",
    "",
]
pieces = st.sampled_from(WORDS) | st.sampled_from([" ", "\n", "-- c\n", "/*", "'", '"', "\0", "é"])
any_sql = st.builds(
    lambda start, rest: start + " ".join(rest),
    st.sampled_from(STARTS),
    st.lists(pieces, max_size=10),
) | st.text(max_size=40)
any_args = (
    st.none()
    | st.lists(
        st.none() | st.integers(-5, 5) | st.text(max_size=3) | st.binary(max_size=3), max_size=3
    )
    | st.dictionaries(st.sampled_from(["a", "1", "b", ""]), st.integers(), max_size=2)
)


@given(calls=st.lists(st.tuples(any_sql, any_args), min_size=1, max_size=4))
def test_any_sql_is_answered_or_refused_and_the_engine_goes_on(
    calls: list[tuple[str, Bindings | None]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        bench.run(
            "CREATE TABLE t(a); CREATE VIRTUAL TABLE f USING fts5(a); "
            "CREATE VIRTUAL TABLE r USING rtree(id, a, b)"
        )
        for sql, args in calls:
            try:
                bench.run(sql, args, 2)
            except Refusal as refusal:
                status, body = encode(refusal, "")
                assert status in (400, 408, 507)
                assert folder not in body.decode()
                at = refusal.fields.get("offset", 0)
                assert 0 <= at <= len(sql)
            bench.next_call()
            assert bench.value("SELECT 1") == 1
        bench.gate.close()
        with contextlib.closing(sqlite3.connect(bench.file)) as plain:
            assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_damaged_file_costs_no_more_with_each_call(tmp_path: Path) -> None:
    """An exception that is raised again keeps the way it went before, unless that is dropped."""
    (tmp_path / "main.db").write_bytes(b"\xff" * 8192)
    engine = Engine(Gate(tmp_path / "main.db"))

    def steps() -> int:
        with pytest.raises(Refusal) as raised:
            engine.run(Call("SELECT 1"), time.monotonic() + 2)
        return len(raised.traceback)

    assert len({steps() for _ in range(5)}) == 1
