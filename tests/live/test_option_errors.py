"""Options and values that are wrong are refused before anything is run, and named."""

from typing import Any

import pytest

from tests.handles import Client
from tests.walkin.test_bodies import APART

CAPS = {"max_rows": 10_000, "max_bytes": 1 << 20, "max_cell_bytes": 1 << 20}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((name, 1) for name in ("each", "atomic", "readonly", "stats", "explain")),
        ("each", "true"),
        ("rows", "object"),
        ("rows", True),
        ("integers", "text"),
        *((name, wrong) for name in CAPS for wrong in (0, -1, 1.0, "1", True, 2**70)),
        *((name, most + 1) for name, most in CAPS.items()),
        ("many", {}),
        ("many", [1]),
        ("many", "x"),
    ],
)
def test_a_wrong_value_is_refused_by_its_options_name(
    client: Client, option: str, value: Any
) -> None:
    called = client.call("SELECT 1", **{option: value})
    assert (called.status, called.code) == (400, "invalid_option")
    assert called.json["option"] == option
    assert f"`{option}` must be" in called.json["error"]
    assert client.token is None, "no database was made"


@pytest.mark.parametrize(("option", "most"), CAPS.items())
def test_a_cap_may_be_the_contracts_own(client: Client, option: str, most: int) -> None:
    assert client.call("SELECT 1", **{option: most}).rows == [[1]]


def test_an_option_that_is_null_is_none(client: Client) -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        (
            "args",
            "many",
            "each",
            "atomic",
            "readonly",
            "stats",
            "explain",
            "rows",
            "integers",
            *CAPS,
        )
    )
    answer = client.call("SELECT 1 AS one", **nothing)
    assert answer.json == {"columns": ["one"], "rows": [[1]], "rows_affected": 0}


@pytest.mark.parametrize("options", APART)
def test_what_does_not_go_together_is_refused(client: Client, options: dict[str, Any]) -> None:
    assert client.call("SELECT ?", **options).code == "invalid_option"


@pytest.mark.parametrize("option", ["each", "stats", "explain"])
@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson", "text/markdown"])
def test_what_only_json_can_hold_is_refused_elsewhere(
    client: Client, option: str, accept: str
) -> None:
    called = client.call("SELECT 1", {"Accept": accept}, **{option: True})
    assert (called.code, called.json["option"]) == ("invalid_option", option)


@pytest.mark.parametrize(
    ("name", "near"),
    [("max_row", "max_rows"), ("arg", "args"), ("read_only", "readonly"), ("query", None)],
)
def test_an_unknown_field_is_told_its_nearest_name(
    client: Client, name: str, near: str | None
) -> None:
    called = client.call("SELECT 1", **{name: 1})
    assert (called.status, called.code) == (400, "unknown_field")
    assert (f"`{near}`" if near else "max_cell_bytes") in called.json["hint"]


@pytest.mark.parametrize(
    ("sql", "args", "fields"),
    [
        ("SELECT ?, ?", [1], {"parameter": "?2", "statement": 0}),
        ("SELECT ?1, ?3", [1, 2], {"parameter": "?3", "statement": 0}),
        ("SELECT ?; SELECT ?, ?", [1, 2], {"parameter": "?2", "statement": 1}),
        ("SELECT :a, @b", [1], {"parameter": "@b", "statement": 0}),
        ("SELECT 1; SELECT :city", {"citi": 1}, {"parameter": ":city", "statement": 1}),
        ("SELECT $a", {}, {"parameter": "$a", "statement": 0}),
        ("SELECT ?", [1, 2], {"argument": 1}),
        ("SELECT 1", [1], {"argument": 0}),
        ("SELECT :a", {"a": 1, "b": 2}, {"argument": "b"}),
    ],
)
def test_a_value_or_a_parameter_without_its_counterpart_is_named(
    client: Client, sql: str, args: Any, fields: dict[str, Any]
) -> None:
    called = client.sql(sql, args)
    assert (called.status, called.code) == (400, "invalid_args")
    assert fields.items() <= called.json.items(), called.json


def test_a_misspelt_name_is_told_what_is_next_to_it(client: Client) -> None:
    assert "'town'" in client.sql("SELECT :towns", {"town": 1}).json["hint"]
    assert "'towns'" in client.sql("SELECT :towns", {"towns": 1, "townz": 2}).json["hint"]


def test_names_are_checked_before_anything_is_run(client: Client) -> None:
    called = client.sql("CREATE TABLE t(a); INSERT INTO t VALUES(:a)", {"b": 1})
    assert called.code == "invalid_args"
    assert client.sql("SELECT count(*) FROM sqlite_schema").rows == [[0]]


def test_an_error_of_a_plan_names_no_set(client: Client) -> None:
    refused = client.call("SELEC", many=[], explain=True)
    assert refused.code == "syntax_error"
    assert "set" not in refused.json
