"""The promise: over HTTP the service is what section by section its callers rely on.

CORS on every answer, preflights, HEAD; the token and its expiry on the one answer that made the
database and on no other; nothing made for a call that was refused; plain answers with the members
they always had; and HTTP/1.1 itself: connections that stay, pipelines in order, bodies without
end, offers and heads that are none of ours.
"""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from sandbox.codes import CODES
from sandbox.place import Place
from tests.handles import Client, Service, wait_until
from tests.wire import SELECT_1, Raw, chunks, request
from walkin.bodies import MAX_BODY_BYTES

JSON = {"Content-Type": "application/json"}
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "access-control-allow-headers": "Content-Type, X-Walkin-Session, Idempotency-Key",
    "access-control-expose-headers": (
        "X-Walkin-Session, X-Walkin-Ttl, X-Request-Id, Retry-After, Server-Timing, RateLimit,"
        " RateLimit-Policy, X-Walkin-Truncated, Idempotency-Replayed"
    ),
    "access-control-max-age": "86400",
}
SESSION_HEADERS = {"x-walkin-session", "x-walkin-ttl"}
PATHS = [
    "/sql",
    "/schema",
    "/session",
    "/session/fork",
    "/session/tokens",
    "/session/checkpoints",
    "/session/checkpoints/a",
    "/session/checkpoints/a/restore",
    "/sql.csv",
    "/dump.sql",
    "/database",
    "/tables/t",
    "/healthz",
    "/readyz",
    "/status",
    "/openapi.json",
]


@pytest.fixture
def raw(service: Service) -> Iterator[Raw]:
    connection = Raw(service)
    yield connection
    connection.close()


@pytest.fixture
def place(service: Service) -> Place:
    return Place(service.data_dir)


def databases(place: Place) -> set[str]:
    """The ids of all databases that have been made and not reaped yet."""
    return {record.name for record in (place.cells / "expiry").glob("*/*")}


# --- CORS, preflights, HEAD, paths ---


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/sql", SELECT_1, 200),
        ("POST", "/sql", b'{"sql": "SELEC"}', 400),
        ("POST", "/sql", b"", 400),
        ("POST", "/sql", b" " * (MAX_BODY_BYTES + 1), 413),
        ("GET", "/sql", None, 400),
        ("HEAD", "/sql", None, 400),
        ("PUT", "/sql", None, 405),
        ("GET", "/sql.csv?sql=SELECT+1", None, 404),
        ("OPTIONS", "/sql", None, 204),
        ("GET", "/schema", None, 404),
        ("POST", "/schema", None, 405),
        ("OPTIONS", "/schema", None, 204),
        ("GET", "/healthz", None, 200),
        ("HEAD", "/healthz", None, 200),
        ("GET", "/openapi.json", None, 200),
        ("GET", "/nope", None, 404),
        ("OPTIONS", "/nope", None, 404),
    ],
)
def test_every_answer_may_be_read_by_a_page_of_any_origin(
    client: Client, method: str, path: str, body: bytes | None, status: int
) -> None:
    sent = {**JSON, "Origin": "https://page.example"}
    answer = client.http.request(method, path, content=body, headers=sent)
    assert answer.status_code == status
    assert {name: value for name, value in answer.headers.items() if name in CORS} == CORS
    for name in CORS:
        assert len(answer.headers.get_list(name)) == 1


@pytest.mark.parametrize("path", PATHS)
def test_a_preflight_is_answered_204_without_a_body(raw: Raw, path: str) -> None:
    lines = [
        f"OPTIONS {path} HTTP/1.1",
        "Host: walkin",
        "Origin: https://page.example",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: content-type,x-walkin-session,idempotency-key",
    ]
    raw.send("\r\n".join(lines).encode() + b"\r\n\r\n")
    answer = raw.answer()
    assert answer.status == 204
    assert CORS.items() <= answer.headers.items()
    assert not {"content-length", "transfer-encoding", "content-type"} & answer.headers.keys()
    raw.send(request())
    assert raw.answer().status == 200


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json"])
def test_head_has_the_headers_of_get_and_no_body(raw: Raw, path: str) -> None:
    raw.send(f"GET {path} HTTP/1.1\r\nHost: walkin\r\n\r\n".encode())
    got = raw.answer()
    raw.send(f"HEAD {path} HTTP/1.1\r\nHost: walkin\r\n\r\n".encode())
    head = raw.answer(has_body=False)
    changing = {"date", "x-request-id"}
    assert head.status == got.status == 200
    assert {name: head.headers[name] for name in head.headers.keys() - changing} == {
        name: got.headers[name] for name in got.headers.keys() - changing
    }
    raw.send(request())
    assert raw.answer().status == 200


def test_head_of_a_schema_has_the_headers_of_get_and_no_body(client: Client) -> None:
    client.sql("CREATE TABLE t(a)")
    sent = {"X-Walkin-Session": str(client.token)}
    got, head = (client.http.request(name, "/schema", headers=sent) for name in ("GET", "HEAD"))
    changing = {"date", "x-request-id", "server-timing"}
    assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
    assert {name: head.headers[name] for name in head.headers.keys() - changing} == {
        name: got.headers[name] for name in got.headers.keys() - changing
    }


@pytest.mark.parametrize("path", ["/sql", "/schema", "/nope"])
def test_an_error_to_head_has_no_body_either(raw: Raw, path: str) -> None:
    raw.send(f"HEAD {path} HTTP/1.1\r\nHost: walkin\r\n\r\n".encode())
    assert raw.answer(has_body=False).status in (400, 404)
    raw.send(request())
    assert raw.answer().status == 200


def test_health_is_one_member(client: Client) -> None:
    assert client.get("/healthz").json == {"status": "ok"}


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/", "/nope", "/sql/", "/schema/", "/openapi.json/", "//sql", "/SQL", "/sql%20"]
)
def test_an_unknown_path_is_404_and_never_a_redirect(
    client: Client, method: str, path: str
) -> None:
    url = str(client.http.base_url).rstrip("/") + path
    answer = client.http.request(method, url, content=b"", headers={"Host": "elsewhere.example"})
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert "elsewhere.example" not in str(answer.headers)


@pytest.mark.parametrize("path", ["/healthz?a=b", "/healthz?", "/%68ealthz", "/openapi.json?x"])
def test_a_query_string_and_escapes_do_not_change_a_path(client: Client, path: str) -> None:
    assert client.http.get(path).status_code == 200


def test_no_answer_names_the_software(client: Client) -> None:
    for answer in (client.get("/healthz"), client.get("/nope"), client.sql("SELECT 1")):
        assert not {"server", "x-powered-by", "via"} & answer.headers.keys()


# --- budgets ---


def test_health_and_preflights_cost_no_budget(make_service: Callable[..., Service]) -> None:
    client = make_service(requests_per_min=2, creations_per_min=2).client()
    wait_until(lambda: client.get("/readyz").status == 200, 10, "it is ready")

    def ask_for_free() -> set[tuple[str, int]]:
        free = [("GET", "/healthz"), ("GET", "/readyz"), ("HEAD", "/healthz"), ("OPTIONS", "/sql")]
        return {
            (method, client.http.request(method, path).status_code) for method, path in free * 10
        }

    expected = {("GET", 200), ("HEAD", 200), ("OPTIONS", 204)}
    assert ask_for_free() == expected
    assert [client.sql("SELECT 1").status for _ in range(3)] == [200, 200, 429]
    assert ask_for_free() == expected


def test_only_calls_without_a_token_are_counted_as_new_databases(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(creations_per_min=1)
    client = service.client()
    assert client.sql("SELECT 1").status == 200
    before = databases(Place(service.data_dir))
    refused = service.client().sql("SELECT 1")
    assert (refused.status, refused.code) == (429, "creation_limited")
    assert not SESSION_HEADERS & refused.headers.keys()
    assert [client.sql("SELECT 1").status for _ in range(5)] == [200] * 5
    assert databases(Place(service.data_dir)) == before
    assert len(before) == 1


# --- the token and its expiry ---


MADE = {
    "rows": ("SELECT 1", 200),
    "nothing at all": ("-- nothing at all", 200),
    "no SQL": ("SELEC 1", 400),
    "no table": ("SELECT * FROM nope", 400),
    "no argument": ("SELECT ?", 400),
    "forbidden": ("ATTACH 'x' AS y", 400),
    "fixed": ("PRAGMA journal_mode = DELETE", 400),
    "an open transaction": ("BEGIN", 400),
    "not UTF-8": ("SELECT CAST(x'ff' AS TEXT)", 400),
    "too slow": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
        408,
    ),
    "too much": (
        "CREATE TABLE t(a);"
        " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 11)"
        " INSERT INTO t SELECT randomblob(1000000) FROM n",
        507,
    ),
}


@pytest.mark.parametrize(("sql", "status"), MADE.values(), ids=MADE)
def test_the_answer_that_made_a_database_carries_its_token_whatever_became_of_the_sql(
    client: Client, place: Place, sql: str, status: int
) -> None:
    before = databases(place)
    made = client.sql(sql)
    assert made.status == status
    assert re.fullmatch("wkn_[A-Za-z0-9_-]{107}", made.headers["x-walkin-session"])
    assert databases(place) - before == {client.instance}
    later = [client.sql("SELECT 1"), client.sql("SELEC 1")]
    assert [answer.status for answer in later] == [200, 400]
    for answer in later:
        assert not SESSION_HEADERS & answer.headers.keys()
    assert databases(place) - before == {client.instance}


REFUSED: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "no body": (400, b"", JSON),
    "no JSON": (400, b"{", JSON),
    "no object": (400, b"[]", JSON),
    "no sql": (400, b"{}", JSON),
    "blank sql": (400, b'{"sql": "  "}', JSON),
    "unknown field": (400, b'{"sql": "SELECT 1", "sqll": 1}', JSON),
    "args of another type": (400, b'{"sql": "SELECT 1", "args": "x"}', JSON),
    "too large": (413, SELECT_1.ljust(MAX_BODY_BYTES + 1), JSON),
    "a wrong option": (400, b'{"sql": "SELECT 1", "each": "x"}', JSON),
    "a key that is none": (400, SELECT_1, {**JSON, "Idempotency-Key": ""}),
    "a form that there is not": (406, SELECT_1, {**JSON, "Accept": "image/png"}),
    "no content type": (415, SELECT_1, {}),
    "another content type": (415, SELECT_1, {"Content-Type": "text/plain"}),
    "a token of nobody": (404, SELECT_1, {**JSON, "X-Walkin-Session": "wkn_" + "A" * 107}),
    "an empty token": (404, SELECT_1, {**JSON, "X-Walkin-Session": ""}),
}


@pytest.mark.parametrize(("status", "body", "headers"), REFUSED.values(), ids=REFUSED)
def test_a_call_refused_before_its_sql_makes_nothing_and_carries_no_token(
    client: Client, place: Place, status: int, body: bytes, headers: dict[str, str]
) -> None:
    before = databases(place)
    refused = client.http.post("/sql", content=body, headers=headers)
    assert refused.status_code == status
    assert not SESSION_HEADERS & refused.headers.keys()
    assert databases(place) == before


def test_ttl_is_the_second_of_deletion(client: Client, place: Place) -> None:
    before = time.time()
    made = client.sql("SELECT 1")
    after = time.time()
    expires = int(made.headers["x-walkin-ttl"])
    assert before + 600 <= expires <= after + 601
    assert place.expires(bytes.fromhex(client.instance)) == expires


def test_ttl_follows_the_setting(make_service: Callable[..., Service]) -> None:
    client = make_service(ttl_s=7200).client()
    before = time.time()
    client.sql("SELECT 1")
    assert client.expires
    assert before + 7200 <= client.expires <= time.time() + 7201


def test_use_does_not_renew_a_database(client: Client, place: Place) -> None:
    client.sql("SELECT 1")
    for _ in range(3):
        client.sql("SELECT 1")
    assert place.expires(bytes.fromhex(client.instance)) == client.expires


# --- requests ---


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "Application/JSON",
        "application/json ; x=y; charset=utf-8",
    ],
)
def test_json_is_accepted_with_parameters_and_in_any_case(
    client: Client, content_type: str
) -> None:
    answer = client.http.post("/sql", content=SELECT_1, headers={"Content-Type": content_type})
    assert answer.status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_the_cap_is_served_and_one_byte_more_is_not(
    client: Client, chunked: bool
) -> None:
    for size, status in ((MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)):
        body = SELECT_1.ljust(size)
        content = chunks(body, 1000) if chunked else body
        assert client.http.post("/sql", content=content, headers=JSON).status_code == status


def test_the_cap_counts_bytes_and_not_characters(client: Client) -> None:
    body = json.dumps({"sql": f"SELECT '{'ä' * 4090}'"}, ensure_ascii=False)
    assert len(body) <= MAX_BODY_BYTES < len(body.encode())
    assert client.http.post("/sql", content=body.encode(), headers=JSON).status_code == 413


def test_a_request_in_single_bytes_is_served(raw: Raw) -> None:
    raw.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in chunks(request(), 1):
        raw.send(byte)
    assert raw.answer().json["rows"] == [[1]]


def test_a_caller_who_waits_for_100_continue_is_told_to_go_on(raw: Raw) -> None:
    head, _, body = request(SELECT_1, "Expect: 100-continue").partition(b"\r\n\r\n")
    raw.send(head + b"\r\n\r\n")
    assert raw.answer().status == 100
    raw.send(body)
    assert raw.answer().status == 200


# --- plain answers ---


def test_plain_answers_have_the_members_they_always_had(client: Client) -> None:
    said = [
        client.sql(sql).text
        for sql in (
            "CREATE TABLE kv(k TEXT, v TEXT)",
            'INSERT INTO kv VALUES("greeting", "hello")',
            "SELECT * FROM kv",
            "SELECT * FROM kv WHERE 0",
            "UPDATE kv SET v = 'bye'; SELECT v FROM kv",
            "DELETE FROM kv",
        )
    ]
    assert said == [
        '{"rows_affected":0}',
        '{"rows_affected":1}',
        '{"columns":["k","v"],"rows":[["greeting","hello"]],"rows_affected":0}',
        '{"columns":["k","v"],"rows":[],"rows_affected":0}',
        '{"columns":["v"],"rows":[["bye"]],"rows_affected":1}',
        '{"rows_affected":1}',
    ]


def test_an_answer_is_json_of_known_length_that_nobody_keeps(client: Client) -> None:
    answer = client.sql("SELECT 'ä'")
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.text.encode())
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


TIMES = "queue;dur=[0-9]+[.][0-9]{2}, sql;dur=[0-9]+[.][0-9]{2}, total;dur=[0-9]+[.][0-9]{2}"


def test_an_answer_of_a_database_says_what_it_varies_by_and_where_the_time_went(
    client: Client,
) -> None:
    made = client.sql("SELECT 1")
    sent = {"X-Walkin-Session": str(client.token)}
    described = client.http.get("/schema", headers=sent)
    for answer in (made, client.sql("SELEC 1"), client.sql("SELECT 1"), described):
        assert answer.headers["vary"] == "Accept"
        assert re.fullmatch(TIMES, answer.headers["server-timing"])
    for answer in (client.post(b"{"), client.get("/healthz"), client.get("/nope")):
        assert not {"vary", "server-timing"} & answer.headers.keys()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/jsonl", "application/x-ndjson"),
        ("text/csv, application/json;q=0.5", "text/csv; charset=utf-8"),
        ("text/markdown", "text/markdown; charset=utf-8"),
    ],
)
def test_accept_chooses_the_form_of_an_answer(
    client: Client, accept: str, content_type: str
) -> None:
    answer = client.sql("SELECT 'ä' AS a", Accept=accept)
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    assert "ä" in answer.text


def test_a_long_read_in_lines_comes_whole(client: Client) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000)"
    answer = client.sql(f"{rows} SELECT i FROM n", Accept="text/csv")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert not {"x-walkin-truncated", "server-timing"} & answer.headers.keys()
    assert answer.text.split() == ['"i"', *map(str, range(1, 50_001))]
    assert client.sql("SELECT 1").rows == [[1]]


def test_a_repeat_under_a_key_is_told_by_a_header_alone(client: Client) -> None:
    client.sql("CREATE TABLE t(a)")
    call = json.dumps({"sql": "INSERT INTO t VALUES(1) RETURNING rowid"}).encode()
    first, second = (client.post(call, Idempotency_Key="mine") for _ in range(2))
    assert (first.status, second.status, first.text) == (200, 200, second.text)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert client.sql("SELECT count(*) FROM t").rows == [[1]]


def test_a_schema_needs_a_token_and_makes_nothing(client: Client, place: Place) -> None:
    before = databases(place)
    for headers in ({}, {"X-Walkin-Session": "wkn_" + "A" * 107}):
        answer = client.http.get("/schema", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "instance_not_found")
        assert ("hint" in answer.json()) == (not headers)
    assert databases(place) == before


def test_truncated_is_there_only_when_it_is_true(client: Client) -> None:
    rows = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT i FROM n"
    )
    whole, cut = client.sql(rows.format(10_000)), client.sql(rows.format(10_001))
    assert len(whole.rows) == len(cut.rows) == 10_000
    assert list(whole.json) == ["columns", "rows", "rows_affected"]
    assert list(cut.json) == ["columns", "rows", "rows_affected", "truncated"]
    assert cut.json["truncated"] is True
    assert "truncated" not in client.sql("SELECT 1").json


@pytest.mark.parametrize("count", [4, 100, 101, 5000])
def test_a_budget_tells_how_many_rows_there_are(client: Client, count: int) -> None:
    rows = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count})"
    for sql in (f"{rows} SELECT i FROM n", f"{rows} SELECT i FROM n; CREATE TABLE t(a)"):
        cut = client.post(json.dumps({"sql": sql, "max_rows": 3}).encode()).json
        assert cut["rows"] == [[1], [2], [3]]
        assert (cut["truncated"], cut["total_rows"]) == ("max_rows", count)
    call = {"sql": f"{rows} SELECT ? FROM n", "many": [["a"], ["b"]], "max_rows": 3}
    cut = client.post(json.dumps(call).encode()).json
    assert (cut["truncated"], cut["total_rows"]) == ("max_rows", 2 * count)
    call = {"sql": f"SELECT 1; {rows} SELECT i FROM n", "each": True, "max_rows": 3}
    first, second = client.post(json.dumps(call).encode()).json["results"]
    assert "truncated" not in first
    assert (second["truncated"], second["total_rows"]) == ("max_rows", count)


def test_rows_are_cut_off_at_a_megabyte(client: Client) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20)"
    cut = client.sql(f"{rows} SELECT printf('%.*c', 100000, 'x') FROM n")
    assert cut.json["truncated"] is True
    assert 900_000 < len(cut.text) < 1_100_000
    assert all(len(text) == 100_000 for (text,) in cut.rows)


# --- connections ---


def test_a_connection_is_kept_for_the_next_request_after_errors_too(raw: Raw) -> None:
    for sent, status in (
        (request(), 200),
        (request(b"{"), 400),
        (request(b'{"sql": "SELEC"}'), 400),
        (request(SELECT_1, "X-Walkin-Session: nobody"), 404),
        (request(SELECT_1, path="/nope"), 404),
        (request(SELECT_1, path="/healthz"), 405),
        (request(), 200),
    ):
        raw.send(sent)
        answer = raw.answer()
        assert answer.status == status
        assert "connection" not in answer.headers


def test_pipelined_requests_get_their_own_answers_in_order(raw: Raw, client: Client) -> None:
    client.sql("SELECT 1")
    session = f"X-Walkin-Session: {client.token}"
    sent = b"".join(
        request(json.dumps({"sql": f"SELECT {number} AS n"}).encode(), session)
        for number in range(50)
    )
    raw.send(sent)
    answers = [raw.answer() for _ in range(50)]
    assert [answer.json["rows"] for answer in answers] == [[[number]] for number in range(50)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 50


def test_a_pipeline_of_everything_is_answered_in_order(raw: Raw) -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: walkin\r\n\r\n"
    chunked = (
        b"POST /sql HTTP/1.1\r\nHost: walkin\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(SELECT_1), SELECT_1)
    )
    slow = request(
        b'{"sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000)'
        b' SELECT max(i) FROM n"}'
    )
    raw.send(slow + get + request(b"{") + chunked + request(path="/nope") + get)
    answers = [raw.answer() for _ in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 400, 200, 404, 200]
    assert answers[0].json["rows"] == [[300_000]]
    assert answers[3].json["rows"] == [[1]]


def test_connection_close_is_honoured(raw: Raw) -> None:
    raw.send(request(SELECT_1, "Connection: close"))
    answer = raw.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert raw.is_closed()


def test_a_caller_who_says_no_more_gets_all_his_answers(raw: Raw) -> None:
    slow = (
        b'{"sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000)'
        b' SELECT max(i) FROM n"}'
    )
    raw.send(request(slow) + request() + request(path="/nope"))
    raw.sock.shutdown(socket.SHUT_WR)
    assert [raw.answer().status for _ in range(3)] == [200, 200, 404]
    assert raw.is_closed()


def test_a_caller_who_breaks_off_in_a_body_is_let_go(raw: Raw) -> None:
    raw.send(request()[:-3])
    raw.sock.shutdown(socket.SHUT_WR)
    assert raw.is_closed()


def test_an_http_1_0_caller_is_answered_and_let_go(raw: Raw) -> None:
    raw.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert raw.answer().status == 200
    assert raw.is_closed()


def test_a_body_without_end_is_refused_and_the_connection_closed(raw: Raw) -> None:
    raw.send(
        b"POST /sql HTTP/1.1\r\nHost: walkin\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with pytest.raises(ConnectionError):
        raw.send_again_and_again(chunk, times=1000)
    answer = raw.answer()
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_a_caller_who_sends_first_and_reads_later_gets_its_refusal_and_a_clean_end(
    raw: Raw, content_type: str
) -> None:
    sent = request(b" " * 900_000).replace(b"application/json", content_type.encode())
    for piece in chunks(sent, 50_000):
        raw.send(piece)
    assert raw.answer().status in (413, 415)
    assert raw.is_closed()


def test_an_offer_to_upgrade_is_passed_over(raw: Raw) -> None:
    # Java's HttpClient makes this offer with the first request of a connection by default.
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"]
    raw.send(request(SELECT_1, *offer))
    answer = raw.answer()
    assert (answer.status, answer.json.get("rows")) == (200, [[1]])
    raw.send(request())
    assert raw.answer().json["rows"] == [[1]]


JUNK = {
    "a word": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": b"GET /healthz HTTP/9.9\r\nHost: walkin\r\n\r\n",
    "a path beyond ASCII": b"GET /\xc3\xa4 HTTP/1.1\r\nHost: walkin\r\n\r\n",
    "a space in a name": b"GET /healthz HTTP/1.1\r\nHost : walkin\r\n\r\n",
    "two lengths": b"POST /sql HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": b"POST /sql HTTP/1.1\r\nContent-Length: 2, 2\r\n\r\nab",
    "a negative length": b"POST /sql HTTP/1.1\r\nContent-Length: -1\r\n\r\nab",
    "a length and chunks": (
        b"POST /sql HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_what_is_not_http_is_refused_in_the_shape_of_every_error(raw: Raw, junk: bytes) -> None:
    raw.send(junk)
    answer = raw.answer()
    assert answer.status == 400
    assert CORS.items() <= answer.headers.items()
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["code"] == "invalid_http"
    assert answer.json["error"].startswith(CODES["invalid_http"].begins)
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert raw.is_closed()


def test_a_head_without_end_is_cut_off(raw: Raw) -> None:
    raw.sock.settimeout(5)
    raw.send(b"GET /healthz HTTP/1.1\r\nHost: walkin\r\n")
    with contextlib.suppress(ConnectionError):
        raw.send_again_and_again(b"X-Filler: x\r\n" * 1000, times=300)
    # The answer may be lost on the way to a caller who does not stop; the end is not.
    with contextlib.suppress(ConnectionError, EOFError):
        assert raw.answer().status in (400, 431)


def test_a_head_of_the_usual_size_is_served(raw: Raw) -> None:
    raw.send(request(SELECT_1, f"Cookie: {'x' * 12_000}", *(f"X-{n}: y" for n in range(60))))
    assert raw.answer().status == 200


def test_a_caller_who_hangs_up_leaves_the_service_well(service: Service, client: Client) -> None:
    for part in (1, 20, -10, -1):
        leaver = Raw(service)
        leaver.send(request()[:part])
        leaver.close()
    leaver = Raw(service)
    leaver.send(request())
    leaver.close()
    assert client.get("/healthz").status == 200
