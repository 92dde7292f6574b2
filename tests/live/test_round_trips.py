"""Every value comes back exactly as it went in, its type included, through every form."""

import base64
import json
import math
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.handles import Client, Service

Value = None | int | float | str | bytes
INT64 = (-(2**63), 2**63 - 1)
#: As much as surely fits a body of 8,192 bytes with what JSON puts around it.
MOST_BYTES = 3000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
floats = st.floats(allow_nan=False, allow_infinity=True, allow_subnormal=True)
integers = st.integers(*INT64) | st.sampled_from([*INT64, 0, -1, 2**53 + 1, -(2**53) - 1])
values: st.SearchStrategy[Value] = st.one_of(
    st.none(), integers, floats, texts, st.binary(max_size=60)
)
EDGES: list[Value] = [
    None,
    *INT64,
    -0.0,
    0.0,
    1.0,
    1e15,
    1e16,
    1e22,
    2.0**63,
    5e-324,
    -2.2250738585072014e-308,
    1.7976931348623157e308,
    math.inf,
    -math.inf,
    "",
    "\0",
    "a\0b",
    "\r\n",
    "\n",
    '"',
    '""',
    ",",
    "1",
    "null",
    "Infinity",
    "base64:AAE=",
    "\u2028\ufeff\ufffe",
    "\U0010ffff",
    b"",
    b"\0\xff",
    b"text",
]


def written(value: Value) -> Any:
    """A value as `args` has it."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and math.isinf(value):
        return {"float": "Infinity" if value > 0 else "-Infinity"}
    return value


def read(value: Any) -> Value:
    """A value of JSON's."""
    if isinstance(value, dict):
        ((form, text),) = value.items()
        return base64.b64decode(text) if form == "base64" else float(text)
    assert value is None or isinstance(value, int | float | str)
    return value


_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)')


def read_csv(text: str) -> Iterator[list[Value]]:
    """Rows of typed values: what is quoted is text, what is nothing null, the rest says itself."""
    row: list[Value] = []
    at = 0
    while at < len(text):
        found = _FIELD.match(text, at)
        assert found, text[at : at + 100]
        quoted, bare, end = found.groups()
        row.append(_typed(bare) if quoted is None else quoted.replace('""', '"'))
        if end == "\r\n":
            yield row
            row = []
        at = found.end()
    assert not row


def _typed(bare: str) -> Value:
    if not bare:
        return None
    if bare.startswith("base64:"):
        return base64.b64decode(bare.removeprefix("base64:"), validate=True)
    return int(bare) if re.fullmatch("-?[0-9]+", bare) else float(bare)


def bits(value: Value) -> Any:
    """What two values share only if they are the same, type and sign of zero included."""
    return struct.pack("d", value) if isinstance(value, float) else (type(value), value)


def batches(found: list[Value]) -> Iterator[list[Value]]:
    batch: list[Value] = []
    for value in found:
        if len(json.dumps([written(one) for one in [*batch, value]])) > MOST_BYTES:
            yield batch
            batch = []
        batch.append(value)
    yield batch


@pytest.fixture(scope="module")
def kept(service: Service) -> Client:
    client = service.client()
    assert client.sql("CREATE TABLE kept(n INTEGER PRIMARY KEY, value)").status == 200
    return client


def put(client: Client, found: list[Value]) -> None:
    """Empty the table, and insert the values in their order."""
    sql = "DELETE FROM kept"
    for batch in batches(found):
        assert client.sql(sql).status == 200
        sql = "SELECT 1"
        if batch:
            many = [[written(value)] for value in batch]
            stored = client.call("INSERT INTO kept(value) VALUES(?)", many=many)
            assert stored.json == {"rows_affected": len(batch)}, stored


@given(st.lists(values, max_size=60))
@example(EDGES)
@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_value_comes_back_through_every_form(kept: Client, found: list[Value]) -> None:
    put(kept, found)
    sql = "SELECT value, typeof(value) AS type FROM kept ORDER BY n"
    names = {type(None): "null", int: "integer", float: "real", str: "text", bytes: "blob"}
    went_in = [(bits(value), names[type(value)]) for value in found]

    arrays = kept.call(sql).rows
    assert [(bits(read(value)), name) for value, name in arrays] == went_in
    objects: Any = kept.call(sql, rows="objects").rows
    assert [(bits(read(one["value"])), one["type"]) for one in objects] == went_in
    lines = kept.call(sql, {"Accept": "application/x-ndjson"}).text.split("\n")
    assert lines.pop() == ""
    told = [json.loads(line) for line in lines]
    assert [(bits(read(one["value"])), one["type"]) for one in told] == went_in
    head, *rows = read_csv(kept.call(sql, {"Accept": "text/csv"}).text)
    assert head == ["value", "type"]
    assert [(bits(value), name) for value, name in rows] == went_in


@given(st.lists(integers, min_size=1, max_size=100))
@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_integers_come_back_as_text_where_they_are_asked_for_so(
    kept: Client, found: list[int]
) -> None:
    many = kept.call("SELECT ?", many=[[one] for one in found], integers="string")
    assert many.rows == [[str(one)] for one in found]


@given(st.lists(values, min_size=1, max_size=30))
@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_names_of_parameters_carry_the_same_values(kept: Client, found: list[Value]) -> None:
    for batch in batches(found):
        sql = "SELECT " + ", ".join(f":v{at}" for at in range(len(batch)))
        if batch:
            args = {f"v{at}": written(value) for at, value in enumerate(batch)}
            (row,) = kept.sql(sql, args).rows
            assert [bits(read(value)) for value in row] == [bits(value) for value in batch]
