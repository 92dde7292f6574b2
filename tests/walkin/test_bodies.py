"""Customs: nothing over the cap comes in, and nothing but a call passes."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from sandbox.calls import decode
from sandbox.forms import Form
from sandbox.refusal import Refusal
from walkin import bodies
from walkin.bodies import MAX_BODY_BYTES, ClientDisconnect, check, receive
from walkin.errors import Refused

#: A body of this size is read to its end although it is thrown away.
READ_ON_TO = 1 << 20


class Arriving:
    """A request whose body arrives in the given pieces; then the client hangs up."""

    def __init__(self, pieces: Iterable[bytes], length: str | None = None) -> None:
        self._pieces = iter(pieces)
        self.taken = 0
        headers = [] if length is None else [(b"content-length", length.encode())]
        scope = {"type": "http", "method": "POST", "path": "/sql", "headers": headers}
        self.request = Request(scope, self._receive)

    async def _receive(self) -> dict[str, Any]:
        piece = next(self._pieces, None)
        if piece is None:
            return {"type": "http.disconnect"}
        self.taken += len(piece)
        # An empty piece ends the body, as httptools and h11 do.
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}


def whole(body: bytes) -> Arriving:
    """A body that announces its length."""
    return Arriving([body, b""], str(len(body)))


def chunked(body: bytes, step: int) -> Arriving:
    """A body that does not, in pieces."""
    return Arriving([*(body[at : at + step] for at in range(0, len(body), step)), b""])


def received(arriving: Arriving) -> bytes:
    return asyncio.run(receive(arriving.request))


def refusal(act: Any, *args: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        act(*args)
    return caught.value


def refusal_of(body: bytes) -> Refused | None:
    """The refusal of a body, None if it passes."""
    try:
        check(body)
    except Refused as refused:
        return refused
    return None


def code(body: bytes) -> str:
    """The code that a body is refused with."""
    return refusal(check, body).row.name


# --- the cap ---


@pytest.mark.parametrize("step", [1, 7, 4096, 8191, 8192])
def test_a_body_of_8192_bytes_comes_in_chunked(step: int) -> None:
    body = bytes(range(256)) * 32
    assert received(chunked(body, step)) == body


def test_a_body_of_8192_bytes_comes_in_whole() -> None:
    body = b"x" * 8192
    assert received(whole(body)) == body


@pytest.mark.parametrize("step", [1, 7, 4096, 8192, 8193])
def test_a_body_of_8193_bytes_is_too_large_chunked(step: int) -> None:
    assert refusal(received, chunked(b"x" * 8193, step)).row.status == 413


def test_a_body_of_8193_bytes_is_too_large_whole() -> None:
    assert refusal(received, whole(b"x" * 8193)).row.name == "body_too_large"


def test_the_cap_is_the_contracts() -> None:
    assert MAX_BODY_BYTES == 8192


def test_what_arrives_counts_and_not_what_is_announced() -> None:
    assert refusal(received, Arriving([b"x" * 9000, b""], "10")).row.status == 413


def test_no_body_is_an_empty_one() -> None:
    assert received(whole(b"")) == b""


def test_a_body_over_the_cap_is_read_on_so_that_its_sender_gets_the_answer() -> None:
    arriving = chunked(b"x" * READ_ON_TO, 65_536)
    assert refusal(received, arriving).row.status == 413
    assert arriving.taken == READ_ON_TO


def test_a_body_without_an_end_is_not_read_to_it() -> None:
    arriving = Arriving(b"x" * 65_536 for _ in range(10_000))
    assert refusal(received, arriving).row.status == 413
    assert arriving.taken <= READ_ON_TO + 65_536


def test_a_refused_size_closes_the_connection() -> None:
    assert refusal(received, whole(b"x" * 8193)).headers["Connection"] == "close"


def test_a_client_that_hangs_up_has_no_body() -> None:
    with pytest.raises(ClientDisconnect):
        received(Arriving([b'{"sql":']))


def test_a_body_that_comes_too_slowly_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_BODY_TIMEOUT_S", 0.02)

    async def stall() -> bytes:
        async def nothing_more() -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        return await receive(Request({"type": "http", "headers": []}, nothing_more))

    refused = refusal(asyncio.run, stall())
    assert (refused.row.name, refused.row.status) == ("body_timeout", 408)
    assert refused.headers["Connection"] == "close"


# --- what passes ---


@pytest.mark.parametrize(
    "body",
    [
        b'{"sql":"select 1"}',
        b' \t\r\n{ "sql" : "select 1" }\n',
        b'{"sql":"select 1","args":[]}',
        b'{"sql":"select ?","args":[1,2.5,"x",null,true,{"base64":"AA=="}]}',
        b'{"args":{"a":1},"sql":"select :a"}',
        b'{"sql":"select 1","args":null}',
        b'{"sql":";"}',
        b'{"sql":"-- nothing"}',
        b'{"sql":"\\u0000"}',
        '{"sql":"select \'\u00fc \U0001f600\'"}'.encode(),
        b'{"sql":"\\ud83d\\ude00"}',
        b'{"s\\u0071l":"select 1"}',
    ],
)
def test_a_call_passes(body: bytes) -> None:
    check(body)


sql_texts = st.text(min_size=1).filter(lambda text: bool(text.strip()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(sql=sql_texts, args=st.lists(st.text(), max_size=4))
def test_any_text_that_says_something_is_sql(sql: str, args: list[str]) -> None:
    check(json.dumps({"sql": sql, "args": args}).encode())
    check(json.dumps({"sql": sql, "args": args}, ensure_ascii=False).encode())


@given(sql=sql_texts)
def test_what_passes_here_reads_the_same_in_the_cell(sql: str) -> None:
    body = json.dumps({"sql": sql}).encode()
    check(body)
    assert orjson.loads(body)["sql"] == sql


#: Names and values as they may be written: twice, escaped, beyond every number, half a character.
names = st.sampled_from(
    ["sql", "s\\u0071l", "args", "arg\\u0073", "a", "\\u0000", "\\ud800", "\ufeffsql", "\u00fc"]
)
strings = st.sampled_from(
    [
        "",
        " ",
        "select 1",
        "\\u0000",
        "\\ud800",
        "\\udc00\\ud83d",
        "\\ud83d\\ude00",
        "\u00fc",
        "\0",
        "\n",
    ]
).map('"{}"'.format)
tokens = strings | st.sampled_from(
    ["null", "true", "0", "-0", "-0.0", "01", "1e999", "-1e999", "1e-999", "NaN", "Infinity"]
    + ["-Infinity", "9" * 30, "9" * 5000, "0." + "9" * 5000, "1E+2", "[]", "{}", "[" * 1010, "'x'"]
    + ["[" * depth + "]" * depth for depth in (900, 980, 1010, 1024, 2000)]
)


def written(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"


written_json = st.recursive(
    tokens,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(st.tuples(names, inner), max_size=3).map(written)
    ),
    max_leaves=6,
)
arguments = (
    st.lists(tokens, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
    | st.lists(st.tuples(names, tokens), max_size=3).map(written)
    | written_json
)
calls = st.tuples(
    arguments.map(lambda text: [("args", text)]) | st.lists(st.tuples(names, written_json)),
    st.sampled_from(["utf-8"] * 5 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"]),
    st.sampled_from([""] * 5 + [" ", "\0", "x", "{}"]),
).map(lambda call: (written([("sql", '"select 1"'), *call[0]]) + call[2]).encode(call[1]))


def is_read_alike(body: bytes) -> bool:
    """Whether a body passes; the cell must then find the same SQL in it, or refuse the call."""
    if refusal_of(body) is not None:
        return False
    try:
        sql = decode(body).sql
    except Refusal:
        return True
    assert sql == orjson.loads(body)["sql"]
    return True


@given(calls)
def test_the_cell_finds_in_a_body_what_was_checked_here_and_nothing_else(body: bytes) -> None:
    is_read_alike(body)


@given(st.integers(880, 1030), st.sampled_from(['"args":', '"a":', '"sql":']))
def test_the_cell_reads_no_deeper_than_what_passes_here(depth: int, name: str) -> None:
    for inner in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        is_read_alike(f'{{"sql":"select 1",{name}{inner}}}'.encode())


@given(st.lists(st.tuples(st.sampled_from(["a", "b", ":a", "\\u0061"]), tokens), max_size=3))
def test_no_argument_is_bound_that_another_reader_would_not_see(
    pairs: list[tuple[str, str]],
) -> None:
    body = f'{{"sql":"select 1","args":{written(pairs)}}}'.encode()
    decoded = [json.loads(f'"{name}"') for name, _ in pairs]
    if is_read_alike(body):
        assert len(set(decoded)) == len(decoded)


@pytest.mark.parametrize(
    "body",
    [
        b'{"sql":"select 1","sql":"select 2"}',
        b'{"sql":"","sql":"select 1"}',
        b'{"sql":"select 1","s\\u0071l":"select 1"}',
        b'{"\\u0073ql":"select 1","sq\\u006c":"select 2"}',
    ],
)
def test_of_two_members_of_one_name_neither_counts(body: bytes) -> None:
    refused = refusal(check, body)
    assert (refused.row.name, "'sql'" in refused.detail) == ("invalid_json", True)


@pytest.mark.parametrize(
    "args",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'[{"base64":"AA==","base64":"AQ=="}]',
        b'[[{"b":[{"a":1,"a":2}]}]]',
        b'[],"args":[1]',
    ],
)
def test_nor_do_two_of_one_name_anywhere_in_the_arguments(args: bytes) -> None:
    assert code(b'{"sql":"select 1","args":' + args + b"}") == "invalid_json"


def test_the_same_name_in_two_objects_is_fine() -> None:
    check(b'{"sql":"select ?,?","args":[{"base64":"AA=="},{"base64":"AA=="}]}')


def test_a_name_that_comes_twice_is_not_repeated_in_full() -> None:
    name = b"x" * 3000
    body = b'{"sql":"x","args":{"%s":1,"%s":2}}' % (name, name)
    assert len(orjson.dumps(refusal(check, body).body("r"))) < 500


# --- what does not ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nul",
        b"select 1",
        b"{'sql':'select 1'}",
        b'{"sql":"select 1",}',
        b'{"sql":"select 1"} {}',
        b'{"sql":"select 1"}\0',
        b'{sql:"select 1"}',
        b'{"sql":"select 1"/* x */}',
        b'{"sql":NaN}',
        b'{"sql":"select 1","args":[NaN]}',
        b'{"sql":"select 1","args":[Infinity]}',
        b'{"sql":"select 1","args":[-Infinity]}',
        b'{"sql":"select 1","args":[1e999]}',
        b'{"sql":"select 1","args":[01]}',
        b'{"sql":"\\ud800"}',
        b'{"sql":"\\udc00\\ud800"}',
        b'{"\\ud800":"x"}',
        b'{"sql":"\xed\xa0\x80"}',
        b'{"sql":"\xff"}',
        b'{"sql":"\xc0\x80"}',
        b'{"sql":"a\nb"}',
        b'{"sql":"a\0b"}',
        b'\xef\xbb\xbf{"sql":"select 1"}',
        '{"sql":"select 1"}'.encode("utf-16"),
        '{"sql":"select 1"}'.encode("utf-32-be"),
        b"[" * 4096 + b"]" * 4096,
        b'{"sql":"select 1","args":' + b"[" * 4000 + b"]" * 4000 + b"}",
        b'{"a":' * 1600,
        b"sql=select%201",
    ],
)
def test_what_is_not_json_is_invalid(body: bytes) -> None:
    assert code(body) == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b'[{"sql":"select 1"}]', b'"select 1"', b"1", b"null"])
def test_what_is_json_but_not_an_object_is_invalid_json_too(body: bytes) -> None:
    refused = refusal(check, body)
    assert refused.row.name == "invalid_json"
    assert "object" in refused.detail


@pytest.mark.parametrize(
    "sql", [b'""', b'" "', b'"\\t\\r\\n"', b"null", b"1", b"true", b'["select 1"]', b'{"a":1}']
)
def test_sql_that_is_empty_or_no_text_is_missing(sql: bytes) -> None:
    assert code(b'{"sql":' + sql + b"}") == "missing_sql"


@pytest.mark.parametrize("body", [b"{}", b'{"args":[1]}'])
def test_absent_sql_is_missing(body: bytes) -> None:
    assert code(body) == "missing_sql"


@pytest.mark.parametrize("args", [b"1", b"1.5", b'"x"', b"true", b"false", b'""', b"0"])
def test_args_are_an_array_or_an_object(args: bytes) -> None:
    assert code(b'{"sql":"select ?","args":' + args + b"}") == "invalid_args"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sqll", "`sql`"),
        ("sq", "`sql`"),
        ("arg", "`args`"),
        ("argss", "`args`"),
        ("timeout_ms", "there are sql, args, many,"),
        ("SQL", "there are sql, args, many,"),
        ("", "there are sql, args, many,"),
    ],
)
def test_a_field_that_is_not_known_is_named_with_a_hint(name: str, hint: str) -> None:
    refused = refusal(check, json.dumps({"sql": "select 1", name: 1}).encode())
    assert (refused.row.name, refused.detail) == ("unknown_field", name)
    assert hint in refused.fields["hint"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[(name, 1) for name in ("each", "atomic", "readonly", "stats", "explain")],
        *[(name, "true") for name in ("each", "atomic")],
        ("rows", "object"),
        ("rows", True),
        ("integers", "text"),
        *[
            (cap, value)
            for cap in ("max_rows", "max_bytes", "max_cell_bytes")
            for value in (0, -1, 1.0, "1", True, 1 << 21, [])
        ],
        ("many", {}),
        ("many", [1]),
        ("many", [[], "a"]),
    ],
)
def test_an_option_of_a_wrong_value_is_named(option: str, value: object) -> None:
    refused = refusal(check, json.dumps({"sql": "select 1", option: value}).encode())
    assert (refused.row.name, refused.fields["option"]) == ("invalid_option", option)
    assert f"`{option}` must be" in refused.detail


#: Options that do not go together.
APART: list[dict[str, object]] = [
    {"many": [[1]], "args": [1]},
    {"many": [[1]], "each": True},
    {"many": [[1]], "explain": True},
    {"each": True, "explain": True},
]


@pytest.mark.parametrize("options", APART)
def test_options_that_exclude_each_other_are_named(options: dict[str, object]) -> None:
    refused = refusal(check, json.dumps({"sql": "select 1", **options}).encode())
    assert refused.row.name == "invalid_option"
    assert all(f"`{name}`" in refused.detail for name in options)


@pytest.mark.parametrize("option", ["each", "stats", "explain"])
def test_what_only_json_can_carry_is_refused_in_other_forms(option: str) -> None:
    body = json.dumps({"sql": "select 1", option: True}).encode()
    check(body)
    for form in (Form.CSV, Form.NDJSON, Form.MARKDOWN):
        refused = refusal(lambda form=form: check(body, form))
        assert (refused.row.name, refused.fields["option"]) == ("invalid_option", option)


def test_an_option_that_is_null_is_none() -> None:
    names = ("args", "many", "each", "rows", "integers", "max_rows", "explain")
    check(json.dumps({"sql": "select 1", **dict.fromkeys(names)}).encode())


def test_a_name_without_an_end_is_not_repeated_in_full() -> None:
    body = refusal(check, json.dumps({"x" * 8000: 1}).encode()).body("r")
    assert len(orjson.dumps(body)) < 500


# --- whatever comes ---


def only_refused(body: bytes) -> None:
    """A body passes, or is refused in a way that can be told."""
    refused = refusal_of(body)
    if refused is not None:
        assert refused.row.status == 400
        assert len(orjson.dumps(refused.body("r"))) < 1000


@given(st.binary(max_size=MAX_BODY_BYTES))
@example(b"\xff" * MAX_BODY_BYTES)
@example(b"[" * MAX_BODY_BYTES)
@example(b'{"":' * 2048)
@example(b'"' + b"\\" * (MAX_BODY_BYTES - 1))
@example(b"1" * MAX_BODY_BYTES)
@example(b'{"sql":"x","args":[' + b"9" * 8000 + b"]}")
def test_any_bytes_pass_or_are_refused(body: bytes) -> None:
    only_refused(body)


@given(json_values)
def test_any_json_passes_or_is_refused(value: Any) -> None:
    only_refused(json.dumps(value).encode())


@given(st.dictionaries(st.sampled_from(["sql", "args", "sqlx", "", "\u00fc"]), json_values))
def test_any_object_passes_or_is_refused(value: dict[str, Any]) -> None:
    only_refused(json.dumps(value).encode())


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=18))
def test_any_bytes_inside_a_call_pass_or_are_refused(more: bytes, at: int) -> None:
    call = b'{"sql":"select 1"}'
    only_refused(call[:at] + more + call[at:])
