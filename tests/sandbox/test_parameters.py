"""Parameters and values without a counterpart are named as SQLite numbers them."""

from typing import Any

import pytest

from sandbox import parameters
from sandbox.refusal import Refusal


@pytest.mark.parametrize(
    ("sql", "values", "name", "statement"),
    [
        ("SELECT ?", 0, "?1", 0),
        ("SELECT ?, ?5", 3, "?4", 0),
        ("SELECT ?; SELECT ?2, ?", 2, "?2", 1),
        ("SELECT :a, :a, @b", 1, "@b", 0),
        ("SELECT '?', /* ? */ ?", 0, "?1", 0),
        ("SELECT ?99999", 0, "?1", 0),
    ],
)
def test_the_first_parameter_without_a_value_is_named(
    sql: str, values: int, name: str, statement: int
) -> None:
    fields = parameters.fault(sql, [None] * values).fields
    assert (fields["parameter"], fields["statement"]) == (name, statement)


@pytest.mark.parametrize(("sql", "bound"), [("SELECT 1", 0), ("SELECT ?3; SELECT :a", 4)])
def test_the_first_value_without_a_parameter_is_named(sql: str, bound: int) -> None:
    assert parameters.fault(sql, [None] * (bound + 2)).fields["argument"] == bound


@pytest.mark.parametrize(
    ("sql", "args", "fields"),
    [
        ("SELECT :a", {}, {"parameter": ":a", "statement": 0}),
        ("SELECT 1; SELECT $a", {"A": 1}, {"parameter": "$a", "statement": 1}),
        ("SELECT @a", {"a": 1, "b": 2}, {"argument": "b"}),
    ],
)
def test_names_are_checked_both_ways(sql: str, args: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        parameters.check_names(sql, args)
    assert fields.items() <= refused.value.fields.items()


def test_names_that_match_are_no_fault() -> None:
    parameters.check_names("SELECT :a, @b; SELECT $a", {"a": 1, "b": 2})
