"""The promise: whatever stands in a body, it is a call, or it is refused for what it is.

What the front desk lets pass reads the same in the cell: no body says one thing to the one and
another to the other. Nothing is made for a body that is refused.
"""

import gzip
import json
from collections.abc import Iterator

import pytest

from sandbox.codes import CODES
from sandbox.place import Place
from tests.handles import Client, Service
from tests.wire import SELECT_1, besiege
from walkin.bodies import MAX_BODY_BYTES

JSON = "application/json"


@pytest.fixture(scope="module")
def besieged() -> Iterator[Service]:
    with besiege() as service:
        yield service


@pytest.fixture
def caller(besieged: Service) -> Client:
    return besieged.client()


def with_args(args: bytes) -> bytes:
    return b'{"sql": "SELECT ?", "args": [' + args + b"]}"


REFUSED: dict[str, dict[str, bytes]] = {
    "invalid_json": {
        "8 KB of brackets": b"[" * MAX_BODY_BYTES,
        "8 KB of objects": b'{"a":' * 1638,
        "deep arguments": with_args(b"[" * 4000 + b"]" * 4000),
        "sql twice": b'{"sql": "SELECT 1", "sql": "SELECT 2"}',
        "sql twice, the first empty": b'{"sql": "", "sql": "SELECT 2"}',
        "sql twice, once escaped": b'{"sql": "SELECT 1", "s\\u0071l": "SELECT 2"}',
        "args twice": b'{"sql": "SELECT ?", "args": [1], "args": [2]}',
        "an argument twice": b'{"sql": "SELECT :a", "args": {"a": 1, "\\u0061": 2}}',
        "a form twice": with_args(b'{"base64": "AA==", "base64": "AQ=="}'),
        "NaN": with_args(b"NaN"),
        "Infinity": with_args(b"Infinity"),
        "-Infinity": with_args(b"-Infinity"),
        "1e999": with_args(b"1e999"),
        "an integer of 8,000 digits": with_args(b"9" * 8000),
        "a leading zero": with_args(b"01"),
        "a plus": with_args(b"+1"),
        "hex": with_args(b"0x10"),
        "half a pair in sql": b'{"sql": "SELECT \'\\ud800\'"}',
        "half a pair in args": with_args(b'"\\udfff"'),
        "half a pair in a name": b'{"sql": "SELECT 1", "\\ud800": 1}',
        "a pair the wrong way round": b'{"sql": "SELECT \'\\ude00\\ud83d\'"}',
        "half a pair in UTF-8": b'{"sql": "SELECT \'\xed\xa0\x80\'"}',
        "an overlong slash": b'{"sql": "SELECT \'\xc0\xaf\'"}',
        "beyond Unicode": b'{"sql": "SELECT \'\xf4\x90\x80\x80\'"}',
        "Latin-1": '{"sql": "SELECT \'ä\'"}'.encode("latin-1"),
        "UTF-16": SELECT_1.decode().encode("utf-16"),
        "UTF-16 without a mark": SELECT_1.decode().encode("utf-16-le"),
        "UTF-32": SELECT_1.decode().encode("utf-32-be"),
        "a byte order mark": b"\xef\xbb\xbf" + SELECT_1,
        "NUL as it is": b'{"sql": "SELECT \'\0\'"}',
        "a line end as it is": b'{"sql": "SELECT \n1"}',
        "another control character": b'{"sql": "SELECT \x1b1"}',
        "NUL behind it": SELECT_1 + b"\0",
        "another object behind it": SELECT_1 + SELECT_1,
        "a comment": b'{"sql": "SELECT 1" /* x */}',
        "a comma too many": b'{"sql": "SELECT 1",}',
        "single quotes": b"{'sql': 'SELECT 1'}",
        "an unknown escape": b'{"sql": "SELECT \\x31"}',
    },
    "invalid_args": {
        "beyond 64 bits": with_args(b"9223372036854775808"),
        "an integer of 300 digits": with_args(b"9" * 300),
        "arguments of a thousand levels": with_args(b"[" * 1000 + b"]" * 1000),
        "an object of many members": with_args(b'{"a": 1, "b": 2}'),
    },
    "unknown_field": {
        "NUL in its name": b'{"sql": "SELECT 1", "sql\\u0000": "SELECT 2"}',
        "a letter that looks alike": '{"sql": "SELECT 1", "\u0455ql": "SELECT 2"}'.encode(),
        "__proto__": b'{"sql": "SELECT 1", "__proto__": {}}',
    },
    "missing_sql": {
        "sql in an array": b'{"sql": ["SELECT 1"]}',
        "white space of Unicode": '{"sql": "\u00a0\u2003"}'.encode(),
    },
}
_ROWS = [(code, body) for code, bodies in REFUSED.items() for body in bodies.values()]
_IDS = [f"{code}: {name}" for code, bodies in REFUSED.items() for name in bodies]


@pytest.mark.parametrize(("code", "body"), _ROWS, ids=_IDS)
def test_what_is_no_call_is_refused_for_what_it_is(
    caller: Client, besieged: Service, code: str, body: bytes
) -> None:
    made = len(list((Place(besieged.data_dir).cells / "expiry").glob("*/*")))
    refused = caller.post(body)
    assert (refused.status, refused.code) == (CODES[code].status, code)
    assert refused.json["request_id"] == refused.headers["x-request-id"]
    if code != "invalid_args":  # which may be known to the cell alone
        assert len(list((Place(besieged.data_dir).cells / "expiry").glob("*/*"))) == made
    assert caller.sql("SELECT 1").rows == [[1]]


SERVED: dict[str, tuple[bytes, list[object]]] = {
    "minus nothing": (with_args(b"-0"), [0]),
    "minus 0.0": (with_args(b"-0.0"), [0.0]),
    "too small for a double": (with_args(b"1e-999"), [0.0]),
    "the last integer": (with_args(b"-9223372036854775808"), [-(2**63)]),
    "many digits behind the point": (with_args(b"0." + b"3" * 8000), [1 / 3]),
    "an escaped name": (b'{"s\\u0071l": "SELECT 1"}', [1]),
    "a pair of halves": (with_args(b'"\\ud83d\\ude00"'), ["\U0001f600"]),
    "NUL in an argument": (with_args(b'"a\\u0000b"'), ["a\0b"]),
    "no argument": (with_args(b"null"), [None]),
    "white space around it": (b" \t\r\n" + SELECT_1 + b" \t\r\n", [1]),
}


@pytest.mark.parametrize(("body", "row"), SERVED.values(), ids=SERVED)
def test_what_is_odd_but_a_call_is_served(caller: Client, body: bytes, row: list[object]) -> None:
    assert caller.post(body).rows == [row]


def test_sql_behind_nul_is_never_run(caller: Client) -> None:
    caller.sql("CREATE TABLE t(a)")
    body = json.dumps({"sql": "INSERT INTO t VALUES(1)\0; INSERT INTO t VALUES(2)"}).encode()
    assert caller.post(body).status in (200, 400)
    assert caller.sql("SELECT count(*) FROM t WHERE a = 2").rows == [[0]]


OTHER_TYPES: dict[str, tuple[dict[str, str], bytes]] = {
    "gzip": ({"Content-Type": JSON, "Content-Encoding": "gzip"}, gzip.compress(SELECT_1)),
    "a lie about gzip": ({"Content-Type": JSON, "Content-Encoding": "gzip"}, SELECT_1),
    "two codings": ({"Content-Type": JSON, "Content-Encoding": "identity, br"}, SELECT_1),
    "a form": ({"Content-Type": "application/x-www-form-urlencoded"}, SELECT_1),
    "parts": ({"Content-Type": "multipart/form-data; boundary=application/json"}, SELECT_1),
    "plain text": ({"Content-Type": "text/plain; application/json"}, SELECT_1),
    "a suffix": ({"Content-Type": "application/json-patch+json"}, SELECT_1),
    "two in one": ({"Content-Type": "application/json, text/plain"}, SELECT_1),
    "none": ({}, SELECT_1),
}


@pytest.mark.parametrize(("headers", "body"), OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_a_body_of_another_type_or_coding_is_not_read(
    caller: Client, headers: dict[str, str], body: bytes
) -> None:
    refused = caller.http.post("/sql", content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (415, "content_type")
    assert refused.json()["error"].startswith(CODES["content_type"].begins)


def test_a_body_of_two_types_is_not_read(caller: Client) -> None:
    headers = [("Content-Type", JSON), ("Content-Type", "text/plain")]
    for fields in (headers, headers[::-1], headers[:1] * 2):
        refused = caller.http.post("/sql", content=SELECT_1, headers=fields)
        assert (refused.status_code, refused.json()["code"]) == (415, "content_type")


def test_json_is_utf8_whatever_the_type_says(caller: Client) -> None:
    headers = {"Content-Type": "application/json; charset=utf-16"}
    utf16 = SELECT_1.decode().encode("utf-16")
    for body, status in ((SELECT_1, 200), (utf16, 400)):
        assert caller.http.post("/sql", content=body, headers=headers).status_code == status
