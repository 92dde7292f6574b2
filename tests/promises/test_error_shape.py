"""The promise: every error has one shape, and says in it what it is and whether to try again.

`error`, `code`, `retryable` and `request_id`, which is the header `X-Request-Id`; as JSON, with the
CORS headers, under the status and with the first words that sandbox.codes gives its code. Every
row of that table is provoked here over real HTTP, or named below with the test that provokes it.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from sandbox.codes import CODES
from tests.handles import ROOT, Client, Service, open_folder, wait_until
from walkin.line import QUEUE_MOST

MEMBERS = {"error", "code", "retryable", "request_id"}
HELPFUL = {"hint", "statement", "offset", "line", "column", "set", "rolled_back", "sqlite_code"}
HELPFUL |= {"option", "parameter", "argument"}
HELPFUL |= {"name", "suggestions", "tables", "token", "constraint"}
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
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def assert_error(answer: httpx.Response, code: str) -> dict[str, Any]:
    """The answer is this row of the table in the one shape; its body."""
    row = CODES[code]
    assert answer.status_code == row.status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert re.match(re.escape(row.begins) + "($|: .)", body["error"]), body
    assert body["retryable"] is row.retryable
    assert re.fullmatch("[0-9a-f]{32}", body["request_id"])
    assert answer.headers["x-request-id"] == body["request_id"]
    assert body.keys() >= MEMBERS
    assert body.keys() <= MEMBERS | HELPFUL
    assert answer.headers["content-type"] == "application/json"
    assert {name: answer.headers.get(name) for name in CORS} == CORS
    assert ("allow" in answer.headers) == (row.status == 405)
    assert ("retry-after" in answer.headers) == (row.status in (429, 503))
    assert "Traceback" not in answer.text
    assert str(ROOT) not in answer.text
    return body


def call(sql: Any, args: Any = None, **options: Any) -> bytes:
    return json.dumps({"sql": sql, "args": args, **options}).encode()


def post(client: Client, body: bytes | Iterator[bytes], **headers: str | bytes) -> httpx.Response:
    sent: dict[str, str | bytes] = {"Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return client.http.post("/sql", content=body, headers=sent)


BODIES: dict[str, dict[str, bytes]] = {
    "invalid_json": {
        "nothing": b"",
        "half": b'{"sql": "SELECT 1"',
        "two objects": b'{"sql": "SELECT 1"} {}',
        "an array": b'["SELECT 1"]',
        "a string": b'"SELECT 1"',
        "null": b"null",
        "SQL": b"SELECT 1",
        "a form": b"sql=SELECT+1",
        "not UTF-8": b'{"sql": "\xff"}',
        "half a surrogate pair": b'{"sql": "\\ud800"}',
        "NaN": b'{"sql": "SELECT ?", "args": [NaN]}',
        "too large for a double": b'{"sql": "SELECT ?", "args": [1e999]}',
        "very deep": b'{"sql": "SELECT ?", "args": ' + b"[" * 4000 + b"]" * 4000 + b"}",
    },
    "missing_sql": {
        "no member": b"{}",
        "only arguments": b'{"args": [1]}',
        "empty": call(""),
        "blank": call(" \t\r\n"),
        "a number": call(1),
        "null": call(None),
        "an array": call(["SELECT 1"]),
    },
    "unknown_field": {
        "misspelt": b'{"sql": "SELECT 1", "arg": [1]}',
        "invented": b'{"sql": "SELECT 1", "timeout": 5}',
        "another case": b'{"SQL": "SELECT 1"}',
        "empty name": b'{"sql": "SELECT 1", "": 1}',
        "very long name": b'{"sql": "SELECT 1", "%s": 1}' % (b"x" * 8000),
    },
    "invalid_args": {
        "a string": call("SELECT ?", "1"),
        "a number": call("SELECT ?", 1),
        "a boolean": call("SELECT ?", args=False),
        "too few": call("SELECT ?, ?", [1]),
        "too many": call("SELECT ?", [1, 2]),
        "none": call("SELECT ?"),
        "none by name": call("SELECT :a", {"b": 1}),
        "an array inside": call("SELECT ?", [[1]]),
        "an object inside": call("SELECT ?", [{"a": 1}]),
        "an empty object inside": call("SELECT ?", [{}]),
        "two forms at once": call("SELECT ?", [{"base64": "", "float": "Infinity"}]),
        "not base64": call("SELECT ?", [{"base64": "*"}]),
        "base64 of another alphabet": call("SELECT ?", [{"base64": "-_-_"}]),
        "base64 without padding": call("SELECT ?", [{"base64": "AA"}]),
        "base64 beyond ASCII": call("SELECT ?", [{"base64": "ÄÖ=="}]),
        "a number as base64": call("SELECT ?", [{"base64": 1}]),
        "another float": call("SELECT ?", [{"float": "NaN"}]),
        "a number as float": call("SELECT ?", [{"float": 1.5}]),
        "an array as float": call("SELECT ?", [{"float": []}]),
        "an object as float": call("SELECT :a", {"a": {"float": {}}}),
        "beyond 64 bits": call("SELECT ?", [2**63]),
        "one too many by name": call("SELECT :a", {"a": 1, "b": 2}),
        "too few in one of many": call("SELECT ?", many=[[1], []]),
        "an array inside one of many": call("SELECT ?", many=[[1], [[1]]]),
    },
    "invalid_option": {
        "a number for true": call("SELECT 1", each=1),
        "a word for true": call("SELECT 1", readonly="yes"),
        "another form of rows": call("SELECT 1", rows="columns"),
        "another form of integers": call("SELECT 1", integers="text"),
        "no rows": call("SELECT 1", max_rows=0),
        "more rows than there may be": call("SELECT 1", max_rows=10_001),
        "half a byte": call("SELECT 1", max_bytes=0.5),
        "true for a number": call("SELECT 1", max_cell_bytes=True),
        "many values and no sets": call("SELECT ?", many=[1]),
        "many as an object": call("SELECT ?", many={"a": 1}),
        "many and args": call("SELECT ?", [1], many=[[1]]),
        "each and explain": call("SELECT 1", each=True, explain=True),
        "many and a second statement": call("SELECT ?; SELECT 1", many=[[1]]),
    },
    "forbidden_keyword": {
        "attach": call("ATTACH 'x' AS y"),
        "detach": call("/* */ detach y"),
        "load_extension": call("SELECT load_extension('x')"),
        "readfile": call("SELECT readfile('/etc/passwd')"),
        "sqlite_dbpage": call("SELECT * FROM sqlite_dbpage"),
    },
    "read_only": {
        "a table": call("CREATE TABLE t(a)", readonly=True),
        "a temporary table": call("CREATE TEMP TABLE t(a)", readonly=True),
        "behind a read": call("SELECT 1; PRAGMA user_version = 1", readonly=True),
        "a maintenance pragma": call("PRAGMA optimize", readonly=True),
    },
    "not_authorized": {
        "a transaction in a transaction": call("BEGIN; COMMIT", atomic=True),
        "a fixed pragma": call("PRAGMA journal_mode = DELETE"),
        "a closed pragma": call("PRAGMA database_list"),
        "its table": call("SELECT * FROM pragma_database_list"),
        "vacuum into": call("VACUUM INTO 'x'"),
    },
    "syntax_error": {
        "a wrong word": call("SELEC 1"),
        "no end": call("SELECT (1"),
        "no token": call("SELECT 'a"),
    },
    "unknown_table": {
        "no table": call("SELECT * FROM nope"),
        "no index": call("DROP INDEX nope"),
        "no trigger": call("DROP TRIGGER nope"),
        "no view": call("DROP VIEW nope"),
    },
    "unknown_column": {
        "no column": call("SELECT nope"),
        "of a table": call("CREATE TABLE t(a); INSERT INTO t(b) VALUES(1)"),
    },
    "unknown_function": {"no function": call("SELECT nope()")},
    "ambiguous_column": {
        "of two": call("CREATE TABLE t(a); CREATE TABLE u(a); SELECT a FROM t, u"),
    },
    "already_exists": {
        "a table": call("CREATE TABLE t(a); CREATE TABLE t(a)"),
        "an index": call("CREATE TABLE t(a); CREATE INDEX i ON t(a); CREATE INDEX i ON t(a)"),
        "a column": call("CREATE TABLE t(a, a)"),
        "a table as an index": call("CREATE TABLE t(a); CREATE INDEX t ON t(a)"),
    },
    "datatype_mismatch": {
        "a key": call("CREATE TABLE t(a INTEGER PRIMARY KEY); INSERT INTO t VALUES('x')"),
        "a limit": call("SELECT 1 LIMIT 'x'"),
    },
    "constraint_failed": {
        "a check": call("CREATE TABLE t(a CHECK (a > 0)); INSERT INTO t VALUES(0)"),
        "a trigger's own words": call(
            "CREATE TABLE t(a); CREATE TRIGGER g BEFORE INSERT ON t"
            " BEGIN SELECT RAISE(ABORT, 'error: Ünï ''quoted'' \"\\ \n'); END;"
            " INSERT INTO t VALUES(1)"
        ),
    },
    "sql_error": {
        "too big": call("SELECT zeroblob(2000000)"),
        "a NUL": call("SELECT 1\0"),
        "values for columns": call("CREATE TABLE t(a); INSERT INTO t VALUES(1, 2)"),
        "arguments": call("SELECT length(1, 2)"),
    },
    "out_of_memory": {
        "a sorter": call(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200)"
            " SELECT zeroblob(900000) || i AS x FROM n ORDER BY x"
        )
    },
    "transaction_open": {
        "begin": call("BEGIN"),
        "savepoint": call("SAVEPOINT s; CREATE TABLE t(a)"),
    },
    "text_not_utf8": {"a cast": call("SELECT CAST(x'ff' AS TEXT)")},
    "quota_exceeded": {
        "eleven megabytes": call(
            "CREATE TABLE t(a);"
            " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 11)"
            " INSERT INTO t SELECT randomblob(1000000) FROM n"
        )
    },
}
TOKENS = {
    "empty": "",
    "a word": "nobody",
    "only the prefix": "wkn_",
    "too short": "wkn_" + "A" * 106,
    "too long": "wkn_" + "A" * 108,
    "never issued": "wkn_" + "A" * 107,
    "another prefix": "wdb_" + "A" * 107,
    "another alphabet": "wkn_" + "+" * 107,
    "ten thousand characters": "wkn_" + "A" * 10_000,
    "not ASCII": "wkn_\xe4",
    "SQL": "' OR 1=1 --",
    "a path": "../../etc/passwd",
}


@pytest.fixture(scope="module")
def strict() -> Iterator[Service]:
    """A service whose databases live for two seconds and whose calls end after 0.2 s."""
    with open_folder() as made:
        service = Service(made, ttl_s=2, query_timeout_ms=200).start()
        yield service
        assert service.stop() == 0, service.log()


@pytest.fixture(scope="module")
def limited() -> Iterator[Service]:
    """A service that takes three calls a minute, one of which may make a database."""
    with open_folder() as made:
        service = Service(made, requests_per_min=3, creations_per_min=1).start()
        yield service
        assert service.stop() == 0, service.log()


# --- 400 and 507: the body ---


@pytest.mark.parametrize(
    ("code", "body"),
    [(code, body) for code, bodies in BODIES.items() for body in bodies.values()],
    ids=[f"{code}: {name}" for code, bodies in BODIES.items() for name in bodies],
)
def test_a_body_that_cannot_be_served_is_refused_in_the_one_shape(
    client: Client, code: str, body: bytes
) -> None:
    assert_error(post(client, body), code)


def test_sql_that_failed_says_where(client: Client) -> None:
    answer = post(client, call("SELECT 1;\nSELECT 'ä', nope"))
    body = assert_error(answer, "unknown_column")
    assert {name: body[name] for name in body.keys() & HELPFUL} == {
        "sqlite_code": "SQLITE_ERROR",
        "statement": 1,
        "offset": 22,
        "line": 2,
        "column": 13,
        "name": "nope",
    }


def test_an_unknown_field_is_named_and_its_neighbour_hinted_at(client: Client) -> None:
    body = assert_error(post(client, b'{"sql": "SELECT 1", "arg": [1]}'), "unknown_field")
    assert body["error"] == "unknown field: arg"
    assert "`args`" in body["hint"]


def test_what_a_caller_repeats_back_to_itself_stays_short(client: Client) -> None:
    answer = post(client, b'{"sql": "SELECT 1", "%s": 1}' % (b"x" * 8000))
    assert len(assert_error(answer, "unknown_field")["error"]) < 100


def test_what_an_option_may_be_is_said_and_which_one_it_was(client: Client) -> None:
    body = assert_error(post(client, call("SELECT 1", max_rows=0)), "invalid_option")
    assert body["option"] == "max_rows"
    assert body["error"].endswith("`max_rows` must be an integer from 1 to 10,000")


def test_a_key_that_is_none_is_refused(client: Client) -> None:
    for key in ("", '""', "x" * 256, "caf\u00e9"):
        answer = post(client, call("SELECT 1"), Idempotency_Key=key.encode("latin-1"))
        assert_error(answer, "invalid_option")


def test_a_value_without_a_parameter_is_named_and_so_is_a_parameter_without_a_value(
    client: Client,
) -> None:
    body = assert_error(post(client, call("SELECT :city", {"cty": 1})), "invalid_args")
    assert (body["parameter"], body["statement"]) == (":city", 0)
    assert "'cty'" in body["hint"]
    body = assert_error(post(client, call("SELECT ?", [1, 2])), "invalid_args")
    assert body["argument"] == 1


def test_a_set_that_failed_is_named_and_the_others_are_undone(client: Client) -> None:
    body = assert_error(post(client, call("SELECT json(?)", many=[["1"], ["{"]])), "sql_error")
    assert (body["set"], body["rolled_back"]) == (1, True)


# --- 404, 405, 406, 409 ---


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_token_that_is_not_ours_is_not_found(client: Client, token: str) -> None:
    sent = {b"Content-Type": b"application/json", b"X-Walkin-Session": token.encode("latin-1")}
    answer = client.http.post("/sql", content=call("SELECT 1"), headers=sent)
    body = assert_error(answer, "instance_not_found")
    assert body["error"] == "instance not found"
    assert body.keys() == MEMBERS


def test_a_token_changed_in_any_one_place_is_not_found(client: Client) -> None:
    client.sql("SELECT 1")
    token = client.token
    assert token
    for at in (0, 4, 20, 30, 67, 68, 90, 109, 110):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        answer = post(client, call("SELECT 1"), X_Walkin_Session=changed)
        assert_error(answer, "instance_not_found")


def test_two_tokens_are_not_found(client: Client) -> None:
    client.sql("SELECT 1")
    assert client.token
    twice = [("Content-Type", "application/json"), *[("X-Walkin-Session", client.token)] * 2]
    assert_error(
        client.http.post("/sql", content=call("SELECT 1"), headers=twice), "instance_not_found"
    )


def test_a_token_whose_time_is_over_says_so_in_the_code_alone(strict: Service) -> None:
    client = strict.client()
    assert client.sql("SELECT 1").status == 200
    assert client.token

    def ended() -> httpx.Response | None:
        answer = post(client, call("SELECT 1"), X_Walkin_Session=client.token or "")
        return answer if answer.status_code != 200 else None

    body = assert_error(wait_until(ended, 5, "the database's end"), "instance_expired")
    assert body["error"] == "instance not found"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/nope", "/sql/x", "/sqlx", "/SQL", "/%00", "/..%2fsql"])
def test_a_path_that_is_not_there_is_not_found(client: Client, method: str, path: str) -> None:
    assert_error(client.http.request(method, path), "path_not_found")


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/sql", "PUT", "GET, HEAD, POST, OPTIONS"),
        ("/sql", "PATCH", "GET, HEAD, POST, OPTIONS"),
        ("/sql", "DELETE", "GET, HEAD, POST, OPTIONS"),
        ("/sql.csv", "POST", "GET, HEAD, OPTIONS"),
        ("/session/fork", "GET", "POST, OPTIONS"),
        ("/session/checkpoints", "POST", "GET, HEAD, OPTIONS"),
        ("/session/checkpoints/a", "GET", "PUT, DELETE, OPTIONS"),
        ("/session/checkpoints/a/restore", "GET", "POST, OPTIONS"),
        ("/healthz", "POST", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "PUT", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(
    client: Client, path: str, method: str, allow: str
) -> None:
    answer = client.http.request(method, path)
    assert_error(answer, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("accept", ["application/pdf", "text/csv;q=0", "image/*, nonsense"])
def test_a_form_that_there_is_not_is_refused_with_those_there_are(
    client: Client, accept: str
) -> None:
    for answer in (
        post(client, call("SELECT 1"), Accept=accept),
        client.http.get("/schema", headers={"Accept": accept}),
    ):
        body = assert_error(answer, "not_acceptable")
        assert "application/json" in body["hint"]
        assert "x-walkin-session" not in answer.headers


def test_an_error_is_json_whatever_form_was_asked_for(client: Client) -> None:
    for accept in ("text/csv", "text/markdown", "application/x-ndjson"):
        assert_error(post(client, call("SELEC 1"), Accept=accept), "syntax_error")


def test_a_key_of_another_call_is_refused(client: Client) -> None:
    client.sql("CREATE TABLE t(a)")
    sent = {"X_Walkin_Session": str(client.token), "Idempotency_Key": "mine"}
    assert post(client, call("INSERT INTO t VALUES(1)"), **sent).status_code == 200
    body = assert_error(post(client, call("INSERT INTO t VALUES(2)"), **sent), "key_reused")
    assert body["hint"] == "take a new key for each call"
    assert client.sql("SELECT a FROM t").rows == [[1]]


# --- 408 ---


def test_a_call_that_runs_too_long_times_out(strict: Service) -> None:
    assert_error(post(strict.client(), call(ENDLESS)), "query_timeout")


# --- 413, 415 ---


def test_a_body_over_the_cap_is_refused(client: Client) -> None:
    padded = call("SELECT 1").ljust(8193)
    assert_error(post(client, padded), "body_too_large")
    assert_error(post(client, iter([padded[:8000], padded[8000:]])), "body_too_large")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/problem+json",
        "charset=utf-8; application/json",
    ],
)
def test_another_content_type_is_refused(client: Client, content_type: str | None) -> None:
    sent = {} if content_type is None else {"Content-Type": content_type}
    answer = client.http.post("/sql", content=call("SELECT 1"), headers=sent)
    assert_error(answer, "content_type")


# --- 429 ---


def test_who_asks_too_often_is_told_how_long_to_wait(limited: Service) -> None:
    client = limited.client()
    assert client.sql("SELECT 1").status == 200
    second = post(client, call("SELECT 1"))
    assert_error(second, "creation_limited")
    assert client.sql("SELECT 1").status == 200
    fourth = post(client, call("SELECT 1"), X_Walkin_Session=client.token or "")
    assert_error(fourth, "rate_limited")
    for answer in (second, fourth):
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_no_two_answers_have_the_same_request_id(client: Client) -> None:
    answers = [client.http.get("/nope", headers={"X-Request-Id": "mine"}) for _ in range(20)]
    assert len({assert_error(answer, "path_not_found")["request_id"] for answer in answers}) == 20


# --- 503 ---


def test_who_comes_when_too_many_wait_is_told_to_come_back(strict: Service) -> None:
    client = strict.client()
    client.sql("SELECT 1")
    assert client.token
    sent = {"Content-Type": "application/json", "X-Walkin-Session": client.token}

    async def crowd() -> httpx.Response:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=strict.url, limits=limits, trust_env=False, verify=False
        ) as http:
            async with asyncio.timeout(5):
                calls = [
                    asyncio.create_task(http.post("/sql", content=call(ENDLESS), headers=sent))
                    for _ in range(QUEUE_MOST + 2)
                ]
                first, others = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            return first.pop().result()

    answer = asyncio.run(crowd())
    assert_error(answer, "busy")
    assert int(answer.headers["retry-after"]) >= 1


# --- the table ---


def test_a_token_for_reading_is_too_narrow_for_all_else(client: Client) -> None:
    client.sql("SELECT 1")
    headers = {"X-Walkin-Session": client.token or ""}
    made = client.http.post("/session/tokens", json={"scope": "read"}, headers=headers)
    headers["X-Walkin-Session"] = made.json()["token"]
    assert_error(client.http.delete("/session", headers=headers), "token_too_narrow")


def test_a_file_that_is_none_is_refused(client: Client) -> None:
    client.sql("SELECT 1")
    headers = {"X-Walkin-Session": client.token or ""}
    refused = client.http.put("/database", content=b"text", headers=headers)
    assert_error(refused, "invalid_database")


def test_rows_that_are_none_are_refused(client: Client) -> None:
    client.sql("SELECT 1")
    headers = {"X-Walkin-Session": client.token or "", "Content-Type": "text/csv"}
    refused = client.http.post("/tables/t", content=b"a,b\n1\n", headers=headers)
    assert_error(refused, "invalid_rows")


def test_a_full_token_may_not_be_in_a_url(client: Client) -> None:
    client.sql("SELECT 1")
    parameters = {"sql": "SELECT 1", "token": client.token or ""}
    refused = client.http.get("/sql", params=parameters)
    assert_error(refused, "token_in_url")
    assert parameters["token"] not in refused.text


def test_what_was_never_kept_is_not_found(client: Client) -> None:
    client.sql("SELECT 1")
    headers = {"X-Walkin-Session": str(client.token)}
    answer = client.http.post("/session/checkpoints/none/restore", headers=headers)
    body = assert_error(answer, "unknown_checkpoint")
    assert "GET /session/checkpoints" in body["hint"]


PROVOKED: dict[str, Callable[..., None]] = {
    **dict.fromkeys(BODIES, test_a_body_that_cannot_be_served_is_refused_in_the_one_shape),
    "instance_not_found": test_a_token_that_is_not_ours_is_not_found,
    "instance_expired": test_a_token_whose_time_is_over_says_so_in_the_code_alone,
    "token_too_narrow": test_a_token_for_reading_is_too_narrow_for_all_else,
    "invalid_database": test_a_file_that_is_none_is_refused,
    "invalid_rows": test_rows_that_are_none_are_refused,
    "unknown_checkpoint": test_what_was_never_kept_is_not_found,
    "token_in_url": test_a_full_token_may_not_be_in_a_url,
    "path_not_found": test_a_path_that_is_not_there_is_not_found,
    "method_not_allowed": test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has,
    "not_acceptable": test_a_form_that_there_is_not_is_refused_with_those_there_are,
    "key_reused": test_a_key_of_another_call_is_refused,
    "query_timeout": test_a_call_that_runs_too_long_times_out,
    "body_too_large": test_a_body_over_the_cap_is_refused,
    "content_type": test_another_content_type_is_refused,
    "rate_limited": test_who_asks_too_often_is_told_how_long_to_wait,
    "creation_limited": test_who_asks_too_often_is_told_how_long_to_wait,
    "busy": test_who_comes_when_too_many_wait_is_told_to_come_back,
}
#: Rows that take ten seconds, a killed worker or a fault of ours: the files that provoke them.
ELSEWHERE = {
    "invalid_http": "tests/promises/test_http_surface.py",
    "body_timeout": "tests/walkin/test_bodies.py",
    "cell_lost": "tests/live/test_kills.py",
    "internal": "tests/walkin/test_envelope.py",
}


def test_every_row_of_the_table_is_provoked_here_or_where_it_says() -> None:
    assert PROVOKED.keys() | ELSEWHERE.keys() == CODES.keys()
    assert PROVOKED.keys() & ELSEWHERE.keys() == set()
    for code, file in ELSEWHERE.items():
        assert f'"{code}"' in (ROOT / file).read_text(), file
