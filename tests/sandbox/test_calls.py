"""A call as it came: what JSON says is what is bound, and options are what they say."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import calls
from sandbox.calls import Call, Shape
from sandbox.forms import Form
from sandbox.refusal import Refusal

texts = st.text(st.characters(exclude_categories=["Cs"]))


def decode_body(body: bytes) -> tuple[str, Any]:
    """SQL and values of a call without options."""
    call = calls.decode(body)
    assert call == Call(call.sql, call.args, is_plain=True)
    return call.sql, call.args


def decode(**call: Any) -> tuple[str, Any]:
    return decode_body(json.dumps(call).encode())


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
        decode_body(b'{"sql": "s", "args": [%s]}' % number.encode())
    assert raised.value.code == "invalid_args"


def test_a_value_too_deep_is_refused() -> None:
    depth = 4000
    with pytest.raises(Refusal) as raised:
        decode_body(b'{"sql": "s", "args": [%s%s]}' % (b"[" * depth, b"]" * depth))
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
        decode_body(body)
    assert raised.value.code == "invalid_args"


@pytest.mark.parametrize(("given", "bare"), [("a", "a"), (":a", "a"), ("@a", "a"), ("::a", ":a")])
def test_one_mark_before_a_name_is_passed_over(given: str, bare: str) -> None:
    _, args = decode_body(json.dumps({"sql": "SELECT 1", "args": {given: 1}}).encode())
    assert args == {bare: 1}


# --- options ---


def with_options(form: Form = Form.JSON, **call: Any) -> Call:
    return calls.decode(json.dumps({"sql": "s", **call}).encode(), form)


@pytest.mark.parametrize("name", ["each", "atomic", "readonly", "stats", "explain"])
def test_a_switch_is_on_or_off(name: str) -> None:
    assert getattr(with_options(**{name: True}), name) is True
    assert with_options(**{name: False}) == with_options(**{name: None}) == Call("s")


def test_sets_of_values_are_bound_as_one_set_is() -> None:
    many = with_options(many=[[1, {"base64": "AA=="}], {":a": True}, []]).many
    assert many == [[1, b"\0"], {"a": 1}, []]
    assert with_options(many=[]).many == []


def test_a_value_of_no_form_is_named_with_its_set() -> None:
    with pytest.raises(Refusal, match="1 must be") as raised:
        with_options(many=[[1], [2, []]])
    assert raised.value.fields == {"set": 1}


def test_caps_and_forms_make_the_shape() -> None:
    assert with_options(rows="objects", integers="string").shape == Shape(
        objects=True, integers_as_text=True
    )
    assert with_options(rows="arrays", integers="number").shape == Shape()
    assert with_options(max_rows=5).shape == Shape(max_rows=5, budgeted=True)
    assert with_options(max_bytes=6, max_cell_bytes=7).shape == Shape(
        max_bytes=6, max_cell_bytes=7, budgeted=True
    )
    assert with_options(Form.CSV).shape == Shape(Form.CSV)


def test_a_page_for_a_model_has_caps_of_its_own_that_can_be_set() -> None:
    page = with_options(Form.MARKDOWN).shape
    assert page.budgeted
    assert (page.max_rows, page.max_bytes, page.max_cell_bytes) == (200, 32_768, 1000)
    assert with_options(Form.MARKDOWN, max_rows=3).shape == page._replace(max_rows=3)
