"""The gate on a real file: how many pages it lets through, what passes it, what is left behind."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from sandbox import policy
from sandbox.calls import Call
from sandbox.engine import Engine
from sandbox.gate import READ_ONLY_RULES, RULES, Gate
from sandbox.place import DATABASE, WAL
from sandbox.refusal import Refusal
from sandbox.sqlite import blank_database


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / DATABASE).write_bytes(blank_database())
    (tmp_path / WAL).write_bytes(b"")
    return tmp_path / DATABASE


@pytest.fixture
def gate(file: Path) -> Iterator[Gate]:
    made = Gate(file)
    made.begin(time.monotonic() + 30)
    yield made
    made.close()


@contextlib.contextmanager
def small(file: Path, pages: int) -> Iterator[Engine]:
    made = Gate(file, pages)
    try:
        yield Engine(made)
    finally:
        made.close()


def run(engine: Engine, sql: str) -> bytes:
    return bytes(engine.run(Call(sql, is_plain=True), time.monotonic() + 30).body)


def refused(engine: Engine, sql: str) -> str:
    """Return the code by which it is refused."""
    with pytest.raises(Refusal) as raised:
        run(engine, sql)
    return raised.value.code


# --- how much ---


def test_a_database_has_so_many_pages_and_no_more(file: Path) -> None:
    with small(file, 100) as engine:
        run(engine, "CREATE TABLE t(a)")
        assert refused(engine, "INSERT INTO t VALUES(zeroblob(500000))") == "quota_exceeded"
        run(engine, "INSERT INTO t VALUES(zeroblob(300000))")
        assert b"[[100]]" in run(engine, "PRAGMA max_page_count")
    assert file.stat().st_size <= 100 * policy.PAGE_BYTES


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA max_page_count = 2560",
        "PRAGMA max_page_count(2560)",
        "PRAGMA main.max_page_count = 2560",
        "PRAGMA MAX_PAGE_COUNT = '2560'",
        "PRAGMA max_page_count = 101",
        "SELECT * FROM pragma_max_page_count(2560)",
    ],
)
def test_nobody_lifts_its_cap(file: Path, sql: str) -> None:
    with small(file, 100) as engine:
        assert refused(engine, sql) in ("not_authorized", "unknown_table", "sql_error")
        assert b"[[100]]" in run(engine, "PRAGMA max_page_count")


def test_one_that_is_larger_than_its_cap_can_be_emptied(file: Path) -> None:
    """As after a cell that was taken over."""
    with small(file, policy.MAX_PAGES) as engine:
        run(engine, "CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(900000))")
    with small(file, 10) as engine:
        assert refused(engine, "INSERT INTO t VALUES(zeroblob(9000))") == "quota_exceeded"
        run(engine, "DELETE FROM t")
        run(engine, "VACUUM")
        assert b"[[2]]" in run(engine, "PRAGMA page_count")


# --- what passes ---


def test_a_statement_of_our_own_passes_what_a_callers_does_not(gate: Gate) -> None:
    gate.set_rules(READ_ONLY_RULES)
    with pytest.raises(apsw.AuthError):
        gate.look("CREATE TABLE t(a)")
    assert [denial.code for denial in gate.denials] == ["read_only"]
    gate.ours("CREATE TABLE t(a)")
    with pytest.raises(apsw.AuthError):
        gate.look("DROP TABLE t")
    gate.set_rules(RULES)
    gate.look("DROP TABLE t")


def test_denials_are_those_since_the_beginning(gate: Gate) -> None:
    with pytest.raises(apsw.AuthError):
        gate.look("PRAGMA journal_mode = DELETE")
    assert len(gate.denials) == 1
    gate.begin(time.monotonic() + 30)
    assert gate.denials == []


def test_nothing_of_ours_outruns_the_clock(gate: Gate) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    )
    gate.begin(time.monotonic() + 0.05)
    with pytest.raises(apsw.InterruptError):
        gate.ours(endless)


# --- what is left ---


def test_it_is_opened_anew_only_where_something_was_left_behind(gate: Gate) -> None:
    before = gate.connection
    gate.look("CREATE TABLE t(a)")
    gate.tidy()
    assert gate.connection is before
    gate.look("CREATE TEMP TABLE u(a)")
    gate.tidy()
    assert gate.connection is not before
    with pytest.raises(apsw.SQLError, match="no such table: u"):
        gate.look("SELECT * FROM u")


def test_folded_all_of_it_is_in_the_file(gate: Gate, file: Path) -> None:
    gate.look("CREATE TABLE t(a)")
    assert file.with_name(WAL).stat().st_size > 0
    gate.fold()
    assert file.with_name(WAL).stat().st_size == 0
    assert file.stat().st_size == 2 * policy.PAGE_BYTES


@pytest.mark.parametrize("content", [b"", b"\xff" * 8192])
def test_what_is_no_database_is_told_to_every_call(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    damaged = Gate(file)
    for _ in range(2):
        with pytest.raises(Refusal, match="not a database"):
            damaged.begin(time.monotonic() + 5)
    damaged.tidy()
    damaged.close()
    assert file.read_bytes() == content


def test_one_that_cannot_be_opened_is_told_too(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(Refusal, match="not a database"):
        Gate(file).begin(time.monotonic() + 5)
