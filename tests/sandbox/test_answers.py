"""JSON in and out: what SQLite has, JSON gets; what JSON cannot carry has one form."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import answers
from sandbox.answers import Refusal
from sandbox.codes import CODES
from sandbox.frames import MAX_ANSWER_BYTES
from sandbox.rows import MAX_ROWS_BYTES, Rows
from tests.sandbox.rows import taken

texts = st.text(st.characters(exclude_categories=["Cs"]))
rows = st.lists(st.tuples(st.integers(0, 9), texts))


def decode(**call: Any) -> Any:
    return answers.decode_call(json.dumps(call).encode())


# --- results ---


def test_columns_and_rows_are_left_out_when_no_statement_returned_any() -> None:
    assert answers.encode_result(None, 3) == b'{"rows_affected":3}'


def test_columns_without_rows_are_shown() -> None:
    body = answers.encode_result(Rows(["a", "b"]), 0)
    assert json.loads(body) == {"columns": ["a", "b"], "rows": [], "rows_affected": 0}


def test_truncated_appears_only_when_true() -> None:
    rows = taken([(1,), (2,), ("x" * MAX_ROWS_BYTES,)], ["a"])
    body = answers.encode_result(rows, 0)
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
    body = json.loads(answers.encode_result(taken(found, columns), affected))
    assert body["columns"] == columns
    assert len(body["rows"]) == len(found)
    assert body["rows_affected"] == affected
    assert list(body) == ["columns", "rows", "rows_affected"]


def test_the_names_of_columns_alone_cannot_make_an_answer_too_long() -> None:
    columns = ["x" * 10_000] * (MAX_ANSWER_BYTES // 10_000 + 1)
    with pytest.raises(Refusal, match="names of the columns") as raised:
        answers.encode_result(Rows(columns), 0)
    assert raised.value.code == "sql_error"


# --- refusals ---


def test_a_refusal_has_the_contracts_one_shape() -> None:
    refusal = Refusal("forbidden_keyword", "ATTACH", hint="no", statement=2)
    status, body = answers.encode_refusal(refusal, "ab" * 16)
    assert status == 400
    assert json.loads(body) == {
        "error": "forbidden sql keyword: ATTACH",
        "code": "forbidden_keyword",
        "retryable": False,
        "request_id": "ab" * 16,
        "hint": "no",
        "statement": 2,
    }


def test_a_refusal_without_detail_is_the_codes_first_words() -> None:
    status, body = answers.encode_refusal(Refusal("query_timeout"), "")
    assert (status, json.loads(body)["error"]) == (408, "query timed out")


@pytest.mark.parametrize("code", CODES)
def test_every_code_can_be_a_refusal(code: str) -> None:
    status, body = answers.encode_refusal(Refusal(code, "why"), "")
    assert status == CODES[code].status
    assert json.loads(body)["error"] == f"{CODES[code].begins}: why"


# --- calls ---


def test_a_call_without_args_binds_nothing() -> None:
    assert decode(sql="select 1") == ("select 1", None)
    assert decode(sql="select 1", args=None) == ("select 1", None)


def test_an_array_binds_by_position() -> None:
    assert decode(sql="s", args=[]) == ("s", [])
    assert decode(sql="s", args=[1, "a", None, 1.5]) == ("s", [1, "a", None, 1.5])


@pytest.mark.parametrize("name", ["a", ":a", "@a", "$a"])
def test_an_object_binds_by_name_with_or_without_its_mark(name: str) -> None:
    assert decode(sql="s", args={name: 1}) == ("s", {"a": 1})


def test_truth_is_bound_as_one_and_zero() -> None:
    _, bound = decode(sql="s", args=[True, False])
    assert bound == [1, 0]


def test_bytes_and_infinities_have_the_same_form_as_in_rows() -> None:
    args = [{"base64": "AP8="}, {"float": "Infinity"}, {"float": "-Infinity"}]
    assert decode(sql="s", args=args) == ("s", [b"\0\xff", math.inf, -math.inf])


@pytest.mark.parametrize("number", [-(1 << 63), (1 << 63) - 1])
def test_64_bits_are_bound_as_they_are(number: int) -> None:
    assert decode(sql="s", args=[number]) == ("s", [number])


BAD = [
    1 << 63,
    (1 << 64) - 1,
    1 << 64,
    10**30,
    -(1 << 63) - 1,
    -(10**30),
    [],
    [1],
    {},
    {"a": 1},
    {"base64": "YQ==", "more": 1},
    {"base64": "Y"},
    {"base64": "Y Q=="},
    {"base64": "YQ"},
    {"base64": "Y-_="},
    {"base64": "\u00e9"},
    {"base64": 1},
    {"base64": None},
    {"base64": ["YQ=="]},
    {"base64": {}},
    {"float": "NaN"},
    {"float": "infinity"},
    {"float": 1},
    {"float": None},
    {"float": []},
    {"float": {}},
    {"float": ["Infinity"]},
    {"Float": "Infinity"},
]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_value_of_no_form_is_refused_by_its_place(value: object) -> None:
    for args, where in (([1, value], "1"), ({":x": value}, "':x'")):
        with pytest.raises(Refusal) as raised:
            decode(sql="s", args=args)
        assert raised.value.code == "invalid_args"
        assert raised.value.detail.startswith(where)


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000])
def test_a_number_of_thousands_of_digits_is_refused(number: str) -> None:
    with pytest.raises(Refusal) as raised:
        answers.decode_call(b'{"sql": "s", "args": [%s]}' % number.encode())
    assert raised.value.code == "invalid_args"


def test_a_value_too_deep_is_refused() -> None:
    depth = 4000
    with pytest.raises(Refusal) as raised:
        answers.decode_call(b'{"sql": "s", "args": [%s%s]}' % (b"[" * depth, b"]" * depth))
    assert raised.value.code == "invalid_args"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["base64", "float", "a", ""]), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(args=st.lists(json_values, max_size=3) | st.dictionaries(texts, json_values, max_size=3))
def test_any_arguments_are_bound_or_refused(args: Any) -> None:
    code = "invalid_args"
    bound: Any = []
    try:
        _, bound = decode(sql="s", args=args)
    except Refusal as refusal:
        code = refusal.code
    assert code == "invalid_args"
    for value in bound.values() if isinstance(bound, dict) else bound:
        assert value is None or isinstance(value, int | float | str | bytes)


@pytest.mark.parametrize("names", [("a", ":a"), ("@a", "$a"), (":a", "a")])
def test_a_parameter_named_twice_is_refused(names: tuple[str, str]) -> None:
    body = json.dumps({"sql": "SELECT :a", "args": dict.fromkeys(names, 1)}).encode()
    with pytest.raises(Refusal) as raised:
        answers.decode_call(body)
    assert raised.value.code == "invalid_args"


@pytest.mark.parametrize(("given", "bare"), [("a", "a"), (":a", "a"), ("@a", "a"), ("::a", ":a")])
def test_one_mark_before_a_name_is_passed_over(given: str, bare: str) -> None:
    _, args = answers.decode_call(json.dumps({"sql": "SELECT 1", "args": {given: 1}}).encode())
    assert args == {bare: 1}
