"""What helps to repair a statement: bounded, of the caller's own database, never in the way."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import repair
from tests.sandbox.test_engine import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.gate.close()


def fields(bench: Bench, sql: str) -> dict[str, Any]:
    return bench.refusal(sql).fields


def test_tables_of_the_same_call_are_seen(bench: Bench) -> None:
    told = fields(bench, "CREATE TEMP TABLE people(name); SELECT * FROM poeple")
    assert told["suggestions"] == ["people"]
    told = fields(bench, "BEGIN; CREATE TABLE animals(name); SELECT nam FROM animals; COMMIT")
    assert (told["suggestions"], told["rolled_back"]) == (["name"], True)


def test_an_empty_database_is_said_to_be_empty(bench: Bench) -> None:
    assert fields(bench, "SELECT * FROM t")["hint"] == "the database has no tables yet"


def test_what_is_not_the_callers_is_not_told(bench: Bench) -> None:
    bench.run("CREATE VIRTUAL TABLE f USING fts5(a); CREATE TABLE g(a)")
    bench.call("INSERT INTO g VALUES(1)", key=b"k", print=b"p")
    told = json.dumps(fields(bench, "SELECT * FROM zzz"))
    assert "receipts" not in told
    assert "f_data" not in told
    for refused in ("load_extensio", "readfil", "fts5_local", "edi"):
        suggestions = fields(bench, f"SELECT {refused}('x')").get("suggestions", [])
        assert not {"load_extension", "readfile", "fts5_locale", "edit"} & set(suggestions)


def test_a_broken_view_takes_no_other_hint_away(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE gone(a); CREATE VIEW peple AS SELECT * FROM gone; CREATE TABLE people(a)"
    )
    bench.run("DROP TABLE gone")
    told = fields(bench, "SELECT * FROM poeple")
    assert set(told["suggestions"]) == {"people", "peple"}
    assert told["tables"] == {"people": ["a"]}


def test_names_may_hold_anything(bench: Bench) -> None:
    bench.run('CREATE TABLE "it\'s ""odd"" %"("co""l" INT, "a b" INT)')
    told = fields(bench, 'SELECT * FROM "it\'s ""od"" %"')
    assert told["suggestions"] == ['it\'s "odd" %']
    assert told["tables"] == {'it\'s "odd" %': ['co"l', "a b"]}


def test_what_is_told_is_bounded(bench: Bench) -> None:
    for table in range(30):
        columns = ", ".join(f"a_long_name_of_a_column_number_{number}" for number in range(200))
        bench.run(f"CREATE TABLE {'t' * 150}{table}({columns})")
    told = fields(bench, f"SELECT * FROM {'t' * 151}")
    assert len(json.dumps(told)) < 8192
    assert len(told["suggestions"]) == 5


def test_a_thousand_tables_cost_little_time(bench: Bench) -> None:
    for hundred in range(10):
        bench.run(
            ";".join(f"CREATE TABLE table_number_{hundred}_{one}(a, b)" for one in range(100))
        )
    began = time.monotonic()
    told = fields(bench, "SELECT * FROM table_numbr_3_7")
    assert time.monotonic() - began < 0.5
    assert told["suggestions"][0] == "table_number_3_7"


def test_a_look_that_fails_leaves_the_error_as_it_is() -> None:
    def look(*_: Any) -> list[tuple[Any, ...]]:
        raise ValueError("nothing to be seen")

    code, told = repair.explain("no such column: a", "SQLITE_ERROR", "SELECT a FROM t", look)
    assert (code, told) == ("unknown_column", {"name": "a"})


def test_without_time_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_LOOK_S", -1)

    def look(*_: Any) -> list[tuple[Any, ...]]:
        raise AssertionError("there was no time")

    code, told = repair.explain("no such function: a", "SQLITE_ERROR", "SELECT a()", look)
    assert (code, told) == ("unknown_function", {"name": "a", "suggestions": []})
