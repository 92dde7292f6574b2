"""Rows become bytes: one way to write each value in each form."""

import math

import pytest

from sandbox.encoders import Row, distinct, encoder
from sandbox.forms import Form

ROW: Row = (1, -0.0, 2.0, math.inf, None, 'a"|\n', b"\0\1", "")


@pytest.mark.parametrize(
    ("form", "objects", "written"),
    [
        (
            Form.JSON,
            False,
            b'[1,-0.0,2.0,{"float":"Infinity"},null,"a\\"|\\n",{"base64":"AAE="},""]',
        ),
        (
            Form.JSON,
            True,
            b'{"a":1,"b":-0.0,"c":2.0,"d":{"float":"Infinity"},"e":null,"f":"a\\"|\\n",'
            b'"g":{"base64":"AAE="},"h":""}',
        ),
        (
            Form.NDJSON,
            False,
            b'{"a":1,"b":-0.0,"c":2.0,"d":{"float":"Infinity"},"e":null,"f":"a\\"|\\n",'
            b'"g":{"base64":"AAE="},"h":""}\n',
        ),
        (Form.CSV, False, b'1,-0.0,2.0,Infinity,,"a""|\n",base64:AAE=,""\r\n'),
        (
            Form.MARKDOWN,
            False,
            b'| 1 | -0.0 | 2.0 | Infinity | NULL | a"\\|<br> | base64:AAE= |  |\n',
        ),
    ],
)
def test_each_form_has_one_way_for_each_value(form: Form, objects: bool, written: bytes) -> None:
    found = encoder(form, list("abcdefgh"), objects=objects)
    assert found.encode([ROW]) == written
    assert found.between.join([found.encode([ROW])] * 2) == found.encode([ROW, ROW])


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_no_end_of_a_line_breaks_a_row_of_markdown(end: str) -> None:
    assert encoder(Form.MARKDOWN, ["a"], objects=False).encode([(f"x{end}y",)]) == b"| x<br>y |\n"


def test_names_come_first_where_there_is_a_place() -> None:
    assert encoder(Form.CSV, ["a", "a"], objects=False).head == b'"a","a_2"\r\n'
    assert encoder(Form.MARKDOWN, ["a|b"], objects=False).head == b"| a\\|b |\n|---|\n"
    assert encoder(Form.NDJSON, ["a"], objects=False).head == b""


@pytest.mark.parametrize(
    ("names", "free"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_2", "a_3"]),
        (["a", "a", "a_2"], ["a", "a_3", "a_2"]),
        (["a_2", "a", "a"], ["a_2", "a", "a_3"]),
        (["", ""], ["", "_2"]),
    ],
)
def test_no_name_hides_another(names: list[str], free: list[str]) -> None:
    assert distinct(names) == free
