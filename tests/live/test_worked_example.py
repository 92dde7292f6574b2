"""The reference's worked example, by real curl: every line that the contract promises."""

import base64
import json
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.handles import Service

Tool = Callable[[str], str]

TOKEN = re.compile(r"wkn_[A-Za-z0-9_-]{107}")
CORS = {
    "access-control-allow-origin": "*",
    "access-control-max-age": "86400",
}


class Shown(NamedTuple):
    """What `curl -i` printed."""

    status_line: str
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def curl(service: Service, tool: Tool) -> Callable[..., Shown]:
    """`curl -i` on the shared service's /sql, with further arguments."""
    path = tool("curl")

    def run(*arguments: str, of: str = "/sql") -> Shown:
        done = subprocess.run(
            [
                path,
                "-q",
                "-sSi",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                *arguments,
                service.url + of,
            ],
            capture_output=True,
            check=True,
        )
        assert done.stderr == b""
        head, _, body = done.stdout.decode().partition("\r\n\r\n")
        status_line, *lines = head.split("\r\n")
        pairs = [line.partition(": ")[::2] for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), "a header came twice"
        return Shown(status_line, headers, body)

    return run


def as_json(sql: str) -> list[str]:
    return ["-H", "Content-Type: application/json", "-d", json.dumps({"sql": sql})]


def test_worked_example(curl: Callable[..., Shown]) -> None:
    before = time.time()
    made = curl(*as_json("CREATE TABLE kv (k TEXT PRIMARY KEY, v TEXT)"))
    after = time.time()
    assert made.status_line == "HTTP/1.1 200 OK"
    assert made.headers["content-type"] == "application/json"
    assert made.headers["content-length"] == str(len(made.body))
    assert made.json == {"rows_affected": 0}
    assert made.headers.items() >= CORS.items()
    token = made.headers["x-walkin-session"]
    assert TOKEN.fullmatch(token)
    assert before + 600 <= int(made.headers["x-walkin-ttl"]) <= after + 601

    session = ["-H", f"X-Walkin-Session: {token}"]
    filled = curl(*session, *as_json('INSERT INTO kv VALUES("greeting", "hello")'))
    assert filled.status_line == "HTTP/1.1 200 OK"
    assert filled.json == {"rows_affected": 1}

    read = curl(*session, *as_json("SELECT * FROM kv"))
    assert read.status_line == "HTTP/1.1 200 OK"
    assert read.headers["content-type"] == "application/json"
    assert read.json == {
        "columns": ["k", "v"],
        "rows": [["greeting", "hello"]],
        "rows_affected": 0,
    }
    for later in (filled, read):
        assert later.headers.items() >= CORS.items()
        assert "x-walkin-session" not in later.headers
        assert "x-walkin-ttl" not in later.headers


def test_token_is_a_uuid_of_now_a_nonce_and_a_mac(curl: Callable[..., Shown]) -> None:
    token = curl(*as_json("select 1")).headers["x-walkin-session"]
    raw = base64.urlsafe_b64decode(token.removeprefix("wkn_") + "=")
    assert len(raw) == 16 + 32 + 32
    assert abs(int.from_bytes(raw[:6], "big") / 1000 - time.time()) < 20
    assert raw[6] >> 4 == 7, "the UUID's version"
    assert raw[8] >> 6 == 0b10, "the UUID's variant"


def test_failing_first_call_carries_both_headers(curl: Callable[..., Shown]) -> None:
    refused = curl(*as_json("SELECT * FROM nowhere"))
    assert refused.status_line == "HTTP/1.1 400 Bad Request"
    assert refused.json["error"] == "invalid sql: no such table: nowhere"
    forbidden = curl(*as_json("ATTACH 'x' AS y"))
    assert forbidden.status_line == "HTTP/1.1 400 Bad Request"
    assert forbidden.json["error"] == "forbidden sql keyword: ATTACH"
    token = refused.headers["x-walkin-session"]
    assert refused.headers["x-walkin-ttl"].isdigit()
    again = curl("-H", f"X-Walkin-Session: {token}", *as_json("SELECT 1 AS one"))
    assert again.json == {"columns": ["one"], "rows": [[1]], "rows_affected": 0}


@pytest.mark.parametrize(
    ("arguments", "status", "begins"),
    [
        (["-H", "Content-Type: application/json", "-d", "{"], "400", "invalid json"),
        (["-H", "Content-Type: application/json", "-d", "{}"], "400", "missing sql"),
        (
            ["-H", "X-Walkin-Session: wkn_forged", *as_json("select 1")],
            "404",
            "instance not found",
        ),
        (
            ["-d", "sql=select 1"],
            "415",
            "content type must be application/json",
        ),
        (
            as_json("select 1" + " " * 8192),
            "413",
            "request body too large",
        ),
        (
            ["-H", "Transfer-Encoding: chunked", *as_json("select 1" + " " * 8192)],
            "413",
            "request body too large",
        ),
    ],
)
def test_errors_in_the_contracts_words(
    curl: Callable[..., Shown], arguments: list[str], status: str, begins: str
) -> None:
    refused = curl(*arguments)
    # Reason phrases differ between Python versions; the number is what is promised.
    assert refused.status_line.startswith(f"HTTP/1.1 {status} ")
    assert refused.json["error"].startswith(begins)
    assert refused.json.keys() >= {"error", "code", "retryable", "request_id"}
    assert refused.headers["x-request-id"] == refused.json["request_id"]
    assert refused.headers.items() >= CORS.items()
    assert "x-walkin-session" not in refused.headers, "nothing was made"


@pytest.mark.parametrize(
    "manner",
    [
        ["-H", "Transfer-Encoding: chunked"],
        ["-H", "Expect: 100-continue"],
        ["--http1.0"],
        ["--http2"],  # offers an upgrade to h2c, as Java's own client always does
        ["-H", "Connection: close"],
    ],
    ids=" ".join,
)
def test_each_manner_of_sending_is_understood(
    curl: Callable[..., Shown], manner: list[str]
) -> None:
    shown = curl(*manner, *as_json("select 40 + 2 as answer"))
    body = shown.body.rpartition("\r\n\r\n")[2]  # after "100 Continue" comes the answer's own head
    assert json.loads(body) == {"columns": ["answer"], "rows": [[42]], "rows_affected": 0}


def test_preflight_and_other_paths(curl: Callable[..., Shown]) -> None:
    asked = curl("-X", "OPTIONS")
    assert asked.status_line == "HTTP/1.1 204 No Content"
    allowed = {
        word.strip().lower() for word in asked.headers["access-control-allow-headers"].split(",")
    }
    assert {"content-type", "x-walkin-session"} <= allowed
    healthy = curl(of="/healthz")
    assert healthy.json == {"status": "ok"}
    wrong = curl("-X", "PUT")
    assert wrong.status_line == "HTTP/1.1 405 Method Not Allowed"
    assert "POST" in wrong.headers["allow"]
    unknown = curl(of="/nowhere")
    assert unknown.status_line == "HTTP/1.1 404 Not Found"
    assert unknown.json["error"] == "path not found"
