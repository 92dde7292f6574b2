"""The promise: whatever bytes a caller sends, he gets an answer of the contract or is let go.

What is almost HTTP, targets that lead nowhere, and heads, bodies and pipelines without end: none
is misread, none costs more than a little memory, and others are served meanwhile.
"""

import contextlib
import statistics
from collections.abc import Iterator

import pytest

from tests.handles import Service
from tests.wire import (
    CHUNKED,
    GET,
    HEALTH,
    HOST,
    POST,
    SELECT_1,
    Raw,
    besiege,
    health_delay_s,
    most_memory_mb,
    request,
)
from walkin.connection import MAX_FIELDS, MAX_HEAD_BYTES

#: Times are judged here.
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def besieged() -> Iterator[Service]:
    with besiege() as service:
        yield service


@pytest.fixture
def raw(besieged: Service) -> Iterator[Raw]:
    connection = Raw(besieged)
    yield connection
    connection.close()


# --- what is almost HTTP ---

NOT_HTTP = {
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": GET + HOST + b"\r\n",
    "a folded field": GET + b"X: a\r\n b\r\n\r\n",
    "a folded request line": b"GET /healthz HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n",
    "NUL in a value": GET + b"X: a\0b\r\n\r\n",
    "NUL in a name": GET + b"X\0: ab\r\n\r\n",
    "CR in a value": GET + b"X: a\rb\r\n\r\n",
    "LF alone": b"GET /healthz HTTP/1.1\nHost: walkin\n\n",
    "CR alone": b"GET /healthz HTTP/1.1\rHost: walkin\r\r",
    "a space before the colon": b"GET /healthz HTTP/1.1\r\nHost : walkin\r\n\r\n",
    "no name": GET + b": x\r\n\r\n",
    "no colon": GET + b"hello\r\n\r\n",
    "a name beyond ASCII": GET + b"\xc3\xa4: x\r\n\r\n",
    "too many fields": GET + b"a:\r\n" * MAX_FIELDS + b"\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n",
    "tabs in the request line": b"GET\t/healthz\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "a method of 1,000 letters": b"A" * 1000 + b" /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in small letters": b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT other.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an authority as target": b"GET other.example:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without a slash": b"GET healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL without a path": b"GET http://other.example HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL with a broken host": b"GET http://[/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, chunked": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "quoted chunked": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked behind VT": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /sql HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length, chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "the same length twice": POST + b"Content-Length: 5\r\n" * 2 + b"\r\n12345",
    "a length with a plus": POST + b"Content-Length: +5\r\n\r\n12345",
    "a length with a space": POST + b"Content-Length: 1 5\r\n\r\n12345",
    "a length in hex": POST + b"Content-Length: 0x5\r\n\r\n12345",
    "a length without end": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n12345",
    "no length": POST + b"Content-Length: \r\n\r\n12345",
    "a chunk of no length": CHUNKED + b"zz\r\n",
    "a chunk of negative length": CHUNKED + b"-1\r\n",
    "a chunk of 2**68 bytes": CHUNKED + b"f" * 17 + b"\r\n",
    "a chunk of 0x1": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "a chunk with LF alone": CHUNKED + b"1\na\n0\n\n",
    "a chunk longer than it says": CHUNKED + b"1\r\nab0\r\n\r\n",
}


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_almost_http_is_refused_and_nothing_behind_it_is_read(
    raw: Raw, sent: bytes
) -> None:
    raw.send(sent + HEALTH)
    answer = raw.answer()
    assert (answer.status, answer.json["code"]) == (400, "invalid_http")
    assert answer.headers["connection"] == "close"
    assert raw.is_closed()


ODD = {
    "a URL as target": (b"GET http://other.example/healthz", 200),
    "a fragment": (b"GET /healthz#x", 200),
    "a query of 60 KB": (b"GET /healthz?" + b"a" * 60_000, 200),
    "a path of 60 KB": (b"GET /" + b"a" * 60_000, 404),
    "the server itself": (b"OPTIONS *", 404),
    "NUL in the path": (b"GET /healthz%00", 404),
    "a path that is not UTF-8": (b"GET /%ff%fe", 404),
    "half a surrogate pair": (b"GET /%ed%a0%80", 404),
    "broken escapes": (b"GET /%zz%", 404),
    "a way out": (b"GET /../../etc/passwd", 404),
    "an escaped way out": (b"GET /healthz/..%2f..%2fetc/passwd", 404),
    "two slashes and a broken host": (b"GET //[/sql", 404),
    "a method of WebDAV": (b"PROPFIND /sql", 405),
    "TRACE": (b"TRACE /sql", 405),
    "an escaped path": (b"PUT /%73ql", 405),
}


@pytest.mark.parametrize(
    "host", [b"walkin", b"", b"a/b", b"a?b#c", b"[::1", b"a:99999999", b"\xff"]
)
@pytest.mark.parametrize(("line", "status"), ODD.values(), ids=ODD)
def test_odd_targets_are_answered_by_the_contract(
    raw: Raw, host: bytes, line: bytes, status: int
) -> None:
    sent = line + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
    raw.send(sent)
    answer = raw.answer()
    assert answer.status == status
    if status != 200:
        assert answer.json["request_id"] == answer.headers["x-request-id"]
    raw.send(HEALTH)
    assert raw.answer().status == 200


def test_fields_up_to_their_bound_are_served(raw: Raw) -> None:
    raw.send(GET + b"a:\r\n" * (MAX_FIELDS - 1) + b"\r\n")
    assert raw.answer().status == 200


def test_the_fields_behind_a_body_say_nothing(besieged: Service, raw: Raw) -> None:
    client = besieged.client()
    client.sql("SELECT 1")
    trailers = f"X-Walkin-Session: {client.token}\r\nHost: other\r\nExpect: 100-continue\r\n\r\n"
    raw.send(CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(SELECT_1), SELECT_1) + trailers.encode())
    made = raw.answer()
    assert (made.status, "x-walkin-session" in made.headers) == (200, True)
    raw.send(HEALTH)
    assert raw.answer().status == 200


@pytest.mark.parametrize(
    "field", ["Content-Length: 500", "Transfer-Encoding: chunked", "Upgrade: h2c", "Connection: x"]
)
def test_no_field_behind_a_body_frames_what_comes_next(raw: Raw, field: str) -> None:
    raw.send(CHUNKED + b"0\r\n" + field.encode() + b"\r\n\r\n" + HEALTH)
    assert raw.answer().status == 400
    with contextlib.suppress(EOFError):
        assert raw.answer().status == 200


def test_a_pipeline_ends_with_what_is_not_http_and_every_request_before_it_is_answered(
    raw: Raw,
) -> None:
    raw.send(request() + HEALTH * 3 + CHUNKED + b"no length\r\n" + HEALTH)
    assert [raw.answer().status for _ in range(5)] == [200, 200, 200, 200, 400]
    assert raw.is_closed()


def test_two_thousand_requests_at_once_are_answered_in_order(raw: Raw) -> None:
    for number in range(20):
        raw.send(b"".join(HEALTH if at % 10 else request(b"{") for at in range(100)))
        assert [raw.answer().status for _ in range(100)] == ([400] + [200] * 9) * 10, number


# --- without end ---

#: More than that no single caller can make the front desk grow by.
_GROWTH_MB = 12
WITHOUT_END = {
    "a head": (GET, b"X-Filler: x\r\n" * 1000),
    "one name": (GET, b"x" * 50_000),
    "one value": (GET + b"X: ", b"x" * 50_000),
    "a target": (b"GET /", b"x" * 50_000),
    "empty lines": (HEALTH, b"\r\n" * 25_000),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 8000),
    "one trailer": (CHUNKED + b"0\r\nX: ", b"x" * 50_000),
    "trailers of what has no body": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
        b"a: b\r\n" * 8000,
    ),
    "a chunk's extension": (CHUNKED + b"1;", b"x" * 50_000),
    "a chunk's length": (CHUNKED, b"0" * 50_000),
    "chunks": (CHUNKED, b"1\r\n \r\n" * 8000),
    "a body": (POST + b"Content-Length: 99999999999\r\n\r\n", b" " * 50_000),
    "a body that is not asked for": (
        b"POST /nope HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999\r\n\r\n",
        b" " * 50_000,
    ),
    "a body that may not be": (GET + b"Content-Length: 99999999999\r\n\r\n", b"\r\n\r\n" * 12_000),
}


@pytest.mark.parametrize(("begin", "again"), WITHOUT_END.values(), ids=WITHOUT_END)
def test_nothing_may_go_on_without_end(
    besieged: Service, raw: Raw, begin: bytes, again: bytes
) -> None:
    before = most_memory_mb(besieged)
    raw.send(begin)
    assert raw.send_while_it_is_taken(again) < 16_000_000
    # The answer may be lost on the way to a caller who does not stop; the end is not.
    try:
        answers = iter(lambda: raw.answer().status, None)
        assert set(answers) <= {200, 400, 404, 413, 415}
    except (OSError, EOFError):
        pass
    assert health_delay_s(besieged) < 1
    assert most_memory_mb(besieged) - before < _GROWTH_MB


def test_callers_who_send_and_do_not_read_cost_little_however_many_requests_they_send() -> None:
    tiny = b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * 10_000
    with besiege() as service:
        before = most_memory_mb(service)
        crowd = [Raw(service) for _ in range(100)]
        for caller in crowd:
            caller.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    caller.sock.send(tiny)
        delays = [health_delay_s(service) for _ in range(20)]
        for caller in crowd:
            caller.close()
        # What each may have waiting is 64 KiB; parsed, it would be a hundred times as much.
        assert most_memory_mb(service) - before < 14
    assert statistics.median(delays) < 1


def test_heads_of_thousands_of_fields_cost_little_before_they_are_refused(
    besieged: Service,
) -> None:
    before = most_memory_mb(besieged)
    crowd = [Raw(besieged) for _ in range(50)]
    for caller in crowd:
        caller.send(GET + b"a:\r\n" * (MAX_HEAD_BYTES // 4 - 100))
    assert health_delay_s(besieged) < 1
    for caller in crowd:
        caller.close()
    assert most_memory_mb(besieged) - before < _GROWTH_MB
