"""Rows become JSON in batches: the same bytes as one by one, and cut at the same place."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox import calls
from sandbox.encoders import Row
from sandbox.forms import MAX_ROWS, MAX_ROWS_BYTES
from sandbox.rows import Rows, is_too_long
from tests.sandbox.rows import taken

int64 = st.integers(-(1 << 63), (1 << 63) - 1)
floats = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.none() | int64 | floats | texts | st.binary()
a_row = st.lists(values, max_size=6).map(tuple)


def shown(found: list[Row]) -> list[Any]:
    return list(json.loads(b"[%b]" % taken(found).end()))


def one(row: Row) -> bytes:
    """The JSON of one row alone."""
    return taken([row]).end()


# --- values ---


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, "null"),
        (0, "0"),
        (-1, "-1"),
        ((1 << 63) - 1, "9223372036854775807"),
        (-(1 << 63), "-9223372036854775808"),
        (1.5, "1.5"),
        (-0.25, "-0.25"),
        ("", '""'),
        ("é\n\"'", '"é\\n\\"\'"'),
        ("\0", '"\\u0000"'),
        ("\U0001f600", '"\U0001f600"'),
        (b"", '{"base64":""}'),
        (b"\x00\xff", '{"base64":"AP8="}'),
        (math.inf, '{"float":"Infinity"}'),
        (-math.inf, '{"float":"-Infinity"}'),
    ],
)
def test_a_value_has_one_form(value: object, encoded: str) -> None:
    assert one((value,)).decode() == f"[{encoded}]"


def test_an_infinity_beside_others_changes_none_of_them() -> None:
    row = (None, math.inf, b"a", "null", 1, -math.inf, None)
    assert json.loads(one(row)) == [
        None,
        {"float": "Infinity"},
        {"base64": "YQ=="},
        "null",
        1,
        {"float": "-Infinity"},
        None,
    ]


def test_a_row_without_columns_is_an_empty_array() -> None:
    assert one(()) == b"[]"


@given(row=a_row)
def test_every_row_is_strict_json_that_comes_back_as_arguments(row: tuple[Any, ...]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    back = json.loads(one(row), parse_constant=refuse)
    call = json.dumps({"sql": "select", "args": back}).encode()
    bound = calls.decode(call).args
    assert isinstance(bound, list)
    assert bound == list(row)
    assert [type(value) for value in bound] == [type(value) for value in row]


# --- batches ---


@given(found=st.lists(a_row), times=st.integers(1, 150))
@example(found=[(1, None), (math.inf, None)], times=101)
def test_many_rows_are_the_rows_one_after_the_other(found: list[Row], times: int) -> None:
    rows = taken(found * times)
    if not rows.cut:
        assert rows.end() == b",".join([one(row) for row in found] * times)


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250, MAX_ROWS - 1, MAX_ROWS])
def test_so_many_rows_are_not_cut(count: int) -> None:
    rows = taken([(at,) for at in range(count)])
    assert json.loads(b"[%b]" % rows.end()) == [[at] for at in range(count)]
    assert not rows.cut


@pytest.mark.parametrize("more", [1, 99, 100, 101])
def test_rows_beyond_the_most_are_cut_off(more: int) -> None:
    rows = taken([(at,) for at in range(MAX_ROWS + more)])
    assert json.loads(b"[%b]" % rows.end()) == [[at] for at in range(MAX_ROWS)]
    assert rows.cut == "max_rows"


@pytest.mark.parametrize("letters", [1, 50, 500, 5000, 50_000])
@pytest.mark.parametrize("letter", ["x", "\0", "é"])
def test_rows_are_cut_at_the_byte(letter: str, letters: int) -> None:
    row = (letter * letters,)
    size = len(one(row)) + 1
    fit = MAX_ROWS_BYTES // size
    if fit < MAX_ROWS:
        exact, over = taken([row] * fit), taken([row] * (fit + 1))
        assert (
            len(json.loads(b"[%b]" % exact.end())) == len(json.loads(b"[%b]" % over.end())) == fit
        )
        assert (exact.cut, over.cut) == ("", "max_bytes")


def test_nothing_comes_behind_a_row_that_did_not_fit() -> None:
    long = ("x" * MAX_ROWS_BYTES,)
    assert shown([(1,), long, (2,)]) == [[1]]
    assert shown([(1,)] * 99 + [long] + [(2,)] * 200) == [[1]] * 99


def test_a_row_is_too_long_by_the_length_of_its_texts_and_blobs() -> None:
    assert not is_too_long(("x" * MAX_ROWS_BYTES, 1, None, 1.5))
    assert is_too_long(("x" * MAX_ROWS_BYTES, b"y"))


def test_what_waits_is_small_however_wide_the_rows() -> None:
    rows = Rows(["text", "number"])
    for _ in range(20):
        rows.add(("x" * 40_000, 1))
        assert sum(len(row[0]) for row in rows._waiting) <= 2 * 40_000
