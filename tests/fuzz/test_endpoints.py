"""The promise: no request makes a 500 and every error has the one shape, whatever is sent.

schemathesis makes requests from openapi.json, mostly such as do not fit it; hypothesis makes
requests that are barely HTTP, or not at all.
"""

import collections
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig

from sandbox.codes import CODES
from tests.fuzz import clock
from tests.handles import Service, wait_until
from tests.promises.test_openapi_matches import DOCUMENT, METHODS
from tests.wire import Raw, RawAnswer

#: A row of the table that no caller can be the cause of.
_OURS = {500}
#: How long a server that says nothing is taken to be waiting for more.
_SILENCE_S = 0.1

_API = schemathesis.openapi.from_dict(DOCUMENT, config=SchemathesisConfig.from_dict({}))
_OPERATIONS = [
    _API[path][method.upper()]
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method in METHODS
]
_ERROR = Draft202012Validator(
    {"$ref": "#/components/schemas/Error", "components": DOCUMENT["components"]}
)


def check(status: int, body: Any, request_id: str | None) -> str:
    """The status is of the table and an error has its shape; returns its code."""
    assert status not in _OURS, body
    if status < 400:
        return str(status)
    _ERROR.validate(body)
    row = CODES[body["code"]]
    assert status == row.status
    assert body["error"].startswith(row.begins)
    assert body["request_id"] == request_id
    return row.name


# --- requests made from openapi.json ---


def _known_cases() -> list[schemathesis.Case]:
    """Some whose answers are known: what a few seconds come upon besides is chance."""
    sql = _API["/sql"]["POST"]
    return [
        _API["/healthz"]["GET"].Case(),
        _API["/sql"]["OPTIONS"].Case(),
        _API["/schema"]["GET"].Case(headers={"X-Walkin-Session": "nobody"}),
        sql.Case(body=[1], media_type="application/json"),
        sql.Case(body={"sql": "SELECT 1", "max_rows": 0}, media_type="application/json"),
    ]


@clock.timeout
def test_requests_that_do_not_fit_openapi_json_make_no_500(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    holder = service.client()
    holder.sql("CREATE TABLE t(a)")
    wait_until(lambda: holder.get("/readyz").status == 200, 10, "it is ready")
    codes: collections.Counter[str] = collections.Counter()

    def send(made: tuple[schemathesis.Case, bool]) -> None:
        case, as_holder = made
        if as_holder and case.method not in ("DELETE", "PATCH"):  # its database is to last
            case.headers["X-Walkin-Session"] = str(holder.token)
        response = case.call(base_url=service.url)
        case.validate_response(response, checks=[not_a_server_error])
        body = None if case.method == "HEAD" or response.status_code < 400 else response.json()
        if case.method != "HEAD":
            codes[check(response.status_code, body, response.headers["x-request-id"][0])] += 1

    operations = [
        operation.as_strategy(generation_mode=mode)
        for operation in _OPERATIONS
        # Most cannot be called wrongly: they take nothing.
        for mode in (GenerationMode.NEGATIVE, GenerationMode.POSITIVE)
    ]
    sql = [_API["/sql"]["POST"].as_strategy(generation_mode=GenerationMode.NEGATIVE)] * 16
    for case in _known_cases():
        send((case, False))
    count = clock.run_rounds(
        st.tuples(st.one_of(*sql, *operations), st.booleans()), send, share=1 / 3
    )
    print(f"{count} requests: {dict(codes.most_common())}")
    assert holder.sql("SELECT count(*) FROM t").rows == [[0]]
    assert "Traceback" not in service.log(), service.log()
    assert {"200", "204", "invalid_json", "invalid_option", "instance_not_found"} <= codes.keys()


# --- bytes on a socket ---

_ODD = [b"", b"\0", b"\r", b"\n", b"\xff\xfe", b"%00", b"%", b"..", b"//", b"?", b"#", b"a" * 9000]
_ODD += [b"\xf0\x9f\x98\x80", b" ", b"\t", b"0x10", b"-1", b"99999999999999999999", b"\x80"]
_odd = st.sampled_from(_ODD) | st.binary(max_size=20)
_methods = st.sampled_from(b"GET POST PUT HEAD OPTIONS PATCH DELETE CONNECT TRACE get PRI".split())
_paths = st.sampled_from(
    b"/sql /schema /healthz /status /openapi.json / * /sql/ //sql /sql?a=1 /%73ql /sql%00 /../sql "
    b"sql http://127.0.0.1/sql http://[/sql /SQL /sql;a /sql#b".split()
)
_versions = st.sampled_from([b"HTTP/1.1"] * 20 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"", b"X"])
_names = st.sampled_from(
    b"Content-Type X-Walkin-Session X-Forwarded-For Transfer-Encoding Content-Length Expect Host "
    b"Connection Upgrade Origin Accept Cookie Content-Encoding Range Access-Control-Request-Method "
    b"Idempotency-Key X-Request-Id TE Trailer X-Http-Method-Override Forwarded "
    b"HTTP2-Settings".split()
)
_settings = st.sampled_from(
    [
        b"application/json",
        b"application/json; charset=utf-16",
        b"text/plain",
        b"text/csv",
        b"text/markdown;q=0.5, application/x-ndjson;q=x",
        b"chunked",
        b"gzip",
        b"gzip, chunked",
        b"identity",
        b"0",
        b"5",
        b"19",
        b"100-continue",
        b"close",
        b"keep-alive",
        b"websocket",
        b"h2c",
        b"wkn_",
        b"wkn_" + b"A" * 107,
        b"wkn_" + b"A" * 106 + b"\xff",
        b"*",
        b"127.0.0.1",
        b"::1, 1.2.3.4",
        b"bytes=0-",
        b"http://evil",
        b"Upgrade, HTTP2-Settings",
    ]
)
_bodies = st.sampled_from(
    [
        b'{"sql": "SELECT 1"}',
        b'{"sql": "SELECT ?", "args": [1]}',
        b'{"sql": "SELECT ?", "many": [[1], {"a": 2}], "rows": "objects"}',
        b'{"sql": "SELECT 1; SELECT 2", "each": true, "stats": true, "max_rows": 1}',
        b'{"sql": "SELECT 1", "explain": true, "readonly": true, "atomic": true}',
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b'{"sql": 1}',
        b'{"sql": "SELECT 1", "sql": "SELECT 2"}',
        b'{"sql": "SELECT 1"',
        b"[" * 5000,
        b'{"sql": "\\ud800"}',
        b'{"sql": "\\u0000"}',
        b'{"sql": NaN}',
        b'\xef\xbb\xbf{"sql": "1"}',
        b'{"sql": "SELECT ?", "args": [1e400]}',
        b'{"sql": "SELECT ?", "args": [' + b"9" * 5000 + b"]}",
        b'{"sql": "SELECT ?", "args": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'"' * 8192,
        b"x" * 9000,
        b'{"sql": "SELECT :a", "args": {"a": {"base64": "?"}}}',
        b"5\r\nhello\r\n0\r\n\r\n",
        b'13\r\n{"sql": "SELECT 1"}\r\n0\r\n\r\n',
        b"fffffffff\r\n",
        b"-1\r\n\r\n",
        b"0\r\n\r\n",
    ]
)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """A request in which a few things are wrong."""
    body = draw(_bodies) if draw(st.integers(0, 4)) else draw(st.binary(max_size=60))
    method, path = draw(st.just(b"POST") | _methods), draw(st.just(b"/sql") | _paths)
    if draw(st.integers(0, 7)) == 0:
        path += draw(_odd)
    lines = [b" ".join([method, path, draw(_versions)])]
    headers = {
        b"Host": b"walkin",
        b"Content-Type": b"application/json",
        b"Content-Length": b"%d" % len(body),
        # Otherwise one would have to wait to know that nothing more comes.
        b"Connection": b"close",
    }
    for _ in range(draw(st.integers(0, 2))):
        name = draw(_names) if draw(st.integers(0, 5)) else draw(_odd)
        headers[name] = draw(_settings) if draw(st.integers(0, 3)) else draw(_odd)
    lines += [b"%s: %s" % header for header in headers.items()]
    if draw(st.integers(0, 9)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(_odd))
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    match draw(st.integers(0, 15)):
        case 0:
            return whole[: draw(st.integers(0, len(whole)))]
        case 1:
            at = draw(st.integers(0, len(whole)))
            return whole[:at] + draw(_odd) + whole[at:]
        case 2:
            return whole + draw(st.binary(max_size=30))
    return whole


def _answers(raw: Raw) -> list[RawAnswer]:
    """Every answer up to the end of the connection, or until the server waits for more."""
    raw.sock.settimeout(_SILENCE_S)
    found = []
    try:
        while True:
            found.append(raw.answer())
    except (EOFError, OSError):
        return found


#: Some whose answers are known: what a few seconds come upon besides is chance.
_KNOWN = [
    b"GET /healthz HTTP/1.1\r\nHost: walkin\r\nConnection: close\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: walkin\r\nConnection: close\r\n\r\n",
    b"PUT /healthz HTTP/1.1\r\nHost: walkin\r\nConnection: close\r\n\r\n",
    b"this is no HTTP\r\n\r\n",
]


@clock.timeout
def test_what_is_barely_http_or_not_at_all_makes_no_500(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    codes: collections.Counter[str] = collections.Counter()

    def send(data: bytes) -> None:
        raw = Raw(service)
        try:
            raw.send(data)
            for answer in _answers(raw):
                # Only HEAD and 204 have no body, and what a HEAD announces does not come.
                if answer.status >= 400 and answer.body:
                    body, request_id = answer.json, answer.headers["x-request-id"]
                    codes[check(answer.status, body, request_id)] += 1
                else:
                    codes[str(answer.status)] += 1
                    assert answer.status not in _OURS
        except ConnectionError:
            codes["closed"] += 1
        finally:
            raw.close()

    for known in _KNOWN:
        send(known)
    requests = st.one_of(*[_requests()] * 7, st.binary(max_size=200))
    count = clock.run_rounds(requests, send, share=1 / 3)
    print(f"{count} requests: {dict(codes.most_common())}")
    assert service.client().sql("SELECT 1").rows == [[1]]
    assert "Traceback" not in service.log(), service.log()
    assert {"200", "invalid_http", "path_not_found", "method_not_allowed"} <= codes.keys()


@pytest.mark.parametrize("body", [{"error": "no"}, {}, None, "internal error"])
def test_an_error_of_another_shape_would_be_seen(body: Any) -> None:
    with pytest.raises(Exception, match=r"required|not of type"):
        check(400, body, None)
