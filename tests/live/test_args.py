"""Bound arguments over HTTP: what goes in comes out, and is never read as SQL."""

import base64
import json
import math
from typing import Any

import pytest

from tests.handles import Answer, Client

MOST_NEGATIVE, MOST_POSITIVE = -(2**63), 2**63 - 1


def blob(content: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(content).decode()}


@pytest.fixture
def kept(client: Client) -> Client:
    """A caller with a table whose one column takes any type."""
    assert client.sql("CREATE TABLE kept(value)").status == 200
    return client


INJECTIONS = [
    "'); DROP TABLE kept; --",
    "' OR '1'='1",
    '"; DELETE FROM kept; SELECT "',
    "Robert'); DROP TABLE kept;--",
    "ATTACH DATABASE '/tmp/x' AS y",
    "load_extension('x')",
    "/* not a comment",
    "?1 :name @name $name",
    "\\'; \\\"",
    "%' UNION SELECT sql FROM sqlite_schema --",
]
TEXTS = [
    "",
    " ",
    "ümläut",
    "日本語",
    "🙂 \U0010ffff",
    "a\0b",
    "\u2028\ufeff",
    "\x01\x1f\x7f",
    "x" * 7000,
]
NUMBERS: list[int | float] = [
    0,
    -1,
    2**31,
    2**53 + 1,
    MOST_NEGATIVE,
    MOST_POSITIVE,
    0.1,
    -2.5e-7,
    1e308,
    5e-324,
    1.7976931348623157e308,
    123456789.123456789,
    2.0**63,
]


@pytest.mark.parametrize("value", [*INJECTIONS, *TEXTS, *NUMBERS, None], ids=lambda v: repr(v)[:40])
def test_value_comes_back_as_it_went_in(kept: Client, value: Any) -> None:
    assert kept.sql("INSERT INTO kept VALUES (?)", [value]).json == {"rows_affected": 1}
    read = kept.sql("SELECT value, value IS :same FROM kept WHERE value IS :same", {"same": value})
    assert read.rows == [[value, 1]]
    assert type(read.rows[0][0]) is type(value)
    assert kept.sql("SELECT count(*) FROM sqlite_schema").rows == [[1]], "nothing was run"


@pytest.mark.parametrize(
    ("value", "type_", "back"),
    [
        (True, "integer", 1),
        (False, "integer", 0),
        (1.0, "real", 1.0),
        (10**3, "integer", 1000),
        (None, "null", None),
        ("1", "text", "1"),
        (blob(b""), "blob", blob(b"")),
        (blob(b"\0\xff'--"), "blob", blob(b"\0\xff'--")),
        (blob(bytes(range(256)) * 20), "blob", blob(bytes(range(256)) * 20)),
        ({"float": "Infinity"}, "real", {"float": "Infinity"}),
        ({"float": "-Infinity"}, "real", {"float": "-Infinity"}),
    ],
    ids=lambda v: repr(v)[:40],
)
def test_type_is_sqlites_own(kept: Client, value: Any, type_: str, back: Any) -> None:
    assert kept.sql("INSERT INTO kept VALUES (?)", [value]).status == 200
    assert kept.sql("SELECT value, typeof(value) FROM kept").rows == [[back, type_]]


def test_blob_has_its_bytes_inside(kept: Client) -> None:
    kept.sql("INSERT INTO kept VALUES (?)", [blob(b"\x00\x01\xfe")])
    assert kept.sql("SELECT hex(value), length(value) FROM kept").rows == [["0001FE", 3]]


def test_negative_zero_keeps_its_sign(client: Client) -> None:
    (row,) = client.sql("SELECT ?", [-0.0]).rows
    assert math.copysign(1, row[0]) == -1


@pytest.mark.parametrize(
    ("sql", "args", "row"),
    [
        ("SELECT ?, ?, ?", [1, "two", None], [1, "two", None]),
        ("SELECT ?2, ?1, ?2", ["a", "b"], ["b", "a", "b"]),
        ("SELECT :a, @b, $c", {"a": 1, "b": 2, "c": 3}, [1, 2, 3]),
        ("SELECT :a, @b, $c", {":a": 1, "@b": 2, "$c": 3}, [1, 2, 3]),
        ("SELECT :a + :a", {"a": 21}, [42]),
        ("SELECT :ü", {"ü": "ö"}, ["ö"]),
        ("SELECT :a, :b", [1, 2], [1, 2]),
        ("SELECT 1", [], [1]),
        ("SELECT 1", {}, [1]),
        ("SELECT 1", None, [1]),
        ("SELECT value FROM json_each(?) WHERE key = ?", ['{"a": 5}', "a"], [5]),
    ],
)
def test_positional_and_named(client: Client, sql: str, args: Any, row: list[Any]) -> None:
    assert client.sql(sql, args).rows == [row]


def test_arguments_are_shared_out_over_several_statements(kept: Client) -> None:
    sql = """INSERT INTO kept VALUES (?), (?);
        DELETE FROM kept WHERE value = ?;
        SELECT value, ? FROM kept"""
    assert kept.sql(sql, ["a", "b", "a", "last"]).json == {
        "columns": ["value", "?"],
        "rows": [["b", "last"]],
        "rows_affected": 3,
    }
    named = "UPDATE kept SET value = :new; SELECT value || :new FROM kept"
    assert kept.sql(named, {"new": "c"}).rows == [["cc"]]


def is_refused(answer: Answer) -> bool:
    return answer.status == 400 and answer.code == "invalid_args" and "rows" not in answer.json


@pytest.mark.parametrize(
    ("sql", "args"),
    [
        ("SELECT ?", []),
        ("SELECT ?, ?", [1]),
        ("SELECT ?", [1, 2]),
        ("SELECT 1", [1]),
        ("SELECT :a", {"b": 1}),
        ("SELECT ?", [[1]]),
        ("SELECT ?", [{"base64": "???"}]),
        ("SELECT ?", [{"base64": 1}]),
        ("SELECT ?", [{"base64": "AA==", "more": 1}]),
        ("SELECT ?", [{"float": "NaN"}]),
        ("SELECT ?", [{}]),
        ("SELECT ?", "text"),
        ("SELECT ?", 1),
        ("SELECT ?", True),
    ],
)
def test_what_cannot_be_bound_is_refused(client: Client, sql: str, args: Any) -> None:
    assert is_refused(client.sql(sql, args))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64, -(2**64), 10**30])
def test_integer_beyond_64_bits_is_refused_not_rounded(client: Client, value: int) -> None:
    assert is_refused(client.sql("SELECT ?", [value]))
    assert is_refused(client.sql("SELECT :v", {"v": value}))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', "01", "1."])
def test_what_is_not_json_is_no_argument(client: Client, text: str) -> None:
    refused = client.post(b'{"sql": "SELECT ?", "args": [%s]}' % text.encode())
    assert refused.status == 400
    assert refused.code in ("invalid_json", "invalid_args")


def test_as_many_arguments_as_a_body_can_carry(kept: Client) -> None:
    count = 1100
    sql = f"INSERT INTO kept VALUES {','.join(['(?)'] * count)}"
    body = json.dumps({"sql": sql, "args": [n % 10 for n in range(count)]}).encode()
    assert 7000 < len(body) <= 8192
    assert kept.post(body).json == {"rows_affected": count}
    assert kept.sql("SELECT sum(value) FROM kept").rows == [[count // 10 * 45]]
    assert is_refused(kept.sql(sql, [1] * (count - 1)))
