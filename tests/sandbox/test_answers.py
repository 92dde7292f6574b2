"""The bodies of 200s: the contract's shape, and what is added for those who ask for more."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import answers, frames
from sandbox.answers import Result
from sandbox.calls import Shape
from sandbox.forms import MAX_ROWS_BYTES, Form
from sandbox.frames import MAX_ANSWER_BYTES
from sandbox.refusal import Refusal
from sandbox.rows import Rows
from tests.sandbox.rows import taken

texts = st.text(st.characters(exclude_categories=["Cs"]))
rows = st.lists(st.tuples(st.integers(0, 9), texts))


def test_columns_and_rows_are_left_out_when_no_statement_returned_any() -> None:
    assert answers.encode_result(Result(None, 3)) == b'{"rows_affected":3}'


def test_columns_without_rows_are_shown() -> None:
    body = answers.encode_result(Result(Rows(["a", "b"]), 0))
    assert json.loads(body) == {"columns": ["a", "b"], "rows": [], "rows_affected": 0}


def test_truncated_appears_only_when_true() -> None:
    rows = taken([(1,), (2,), ("x" * MAX_ROWS_BYTES,)], ["a"])
    body = answers.encode_result(Result(rows, 0))
    assert json.loads(body) == {
        "columns": ["a"],
        "rows": [[1], [2]],
        "rows_affected": 0,
        "truncated": True,
    }


@given(columns=st.lists(texts, min_size=1), found=rows, affected=st.integers(0, 1 << 62))
def test_a_result_is_json_of_the_contracts_shape(
    columns: list[str], found: list[tuple[Any, ...]], affected: int
) -> None:
    body = json.loads(answers.encode_result(Result(taken(found, columns), affected)))
    assert body["columns"] == columns
    assert len(body["rows"]) == len(found)
    assert body["rows_affected"] == affected
    assert list(body) == ["columns", "rows", "rows_affected"]


def test_the_names_of_columns_alone_cannot_make_an_answer_too_long() -> None:
    columns = ["x" * 10_000] * (MAX_ANSWER_BYTES // 10_000 + 1)
    with pytest.raises(Refusal, match="names of the columns") as raised:
        answers.encode_result(Result(Rows(columns), 0))
    assert raised.value.code == "sql_error"


# --- for those who ask for more ---


def cut(shape: Shape, count: int = 3) -> Rows:
    return taken([(at,) for at in range(count)], ["a"], shape)


def test_to_a_caller_with_a_budget_a_cut_is_told_by_its_cap() -> None:
    few = Shape(max_rows=2, budgeted=True)
    body = json.loads(answers.encode_result(Result(cut(few), 0, total=3), budgeted=True))
    assert body["rows"] == [[0], [1]]
    assert (body["truncated"], body["total_rows"]) == ("max_rows", 3)
    assert "LIMIT" in body["hint"]
    small = Shape(max_bytes=4, budgeted=True)
    body = json.loads(answers.encode_result(Result(cut(small), 0), budgeted=True))
    assert body["truncated"] == "max_bytes"
    assert "total_rows" not in body


def test_nothing_is_told_of_what_was_not_cut() -> None:
    shape = Shape(max_rows=3, budgeted=True)
    body = json.loads(answers.encode_result(Result(cut(shape), 0), budgeted=True))
    assert list(body) == ["columns", "rows", "rows_affected"]


def test_each_result_has_a_place_of_its_own() -> None:
    results = [Result(None, 1, rowid=7), Result(taken([(1,)], ["a"]), 0)]
    answer = answers.encode_each(results, stats={"vm_steps": 3})
    assert json.loads(answer.body) == {
        "results": [
            {"rows_affected": 1, "last_insert_rowid": 7},
            {"columns": ["a"], "rows": [[1]], "rows_affected": 0},
        ],
        "stats": {"vm_steps": 3},
    }
    assert answer.marks == 0


def test_a_cut_is_marked_for_the_head_of_the_answer() -> None:
    by_rows, by_bytes = cut(Shape(max_rows=1)), cut(Shape(max_bytes=4))
    for one in (by_rows, by_bytes):
        one.end()
    assert answers.marks(by_rows) == frames.CUT_ROWS
    assert answers.marks(by_bytes) == frames.CUT_BYTES
    assert answers.marks(None) == answers.marks(Rows(["a"])) == 0


def test_a_page_says_at_its_end_that_it_was_cut() -> None:
    page = Shape(Form.MARKDOWN, max_rows=2)
    answer = answers.encode_lines(Result(cut(page), 0, total=1234), Form.MARKDOWN)
    assert answer.body.decode().splitlines() == [
        "| a |",
        "|---|",
        "| 0 |",
        "| 1 |",
        "",
        "*Cut by max_rows: 2 of 1,234 rows; aggregate, or page with ORDER BY, LIMIT and OFFSET.*",
    ]
    whole = answers.encode_lines(Result(cut(page, 2), 0), Form.MARKDOWN)
    assert b"Cut" not in whole.body
