"""`walkin serve` from outside: it greets, answers, stops, and leaves nothing behind."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.handles import ROOT, Client, Service, open_folder, wait_until


def test_first_call_makes_a_database_and_the_next_one_uses_it(client: Client) -> None:
    made = client.sql('create table kv(k, v); insert into kv values("greeting", "hello")')
    assert (made.status, made.json) == (200, {"rows_affected": 1})
    assert made.headers["x-walkin-session"].startswith("wkn_")
    read = client.sql("select * from kv")
    assert read.json == {"columns": ["k", "v"], "rows": [["greeting", "hello"]], "rows_affected": 0}
    assert "x-walkin-session" not in read.headers
    assert "x-walkin-ttl" not in read.headers


def test_stops_with_status_0_and_without_a_process_left(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    service.client().sql("select 1")
    roles = ["zygote", "reaper", "front desk", "blank cell"]
    pids = [pid for role in roles for pid in service.pids(role)]
    assert len(pids) >= len(roles)
    assert service.stop() == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5, "all gone")


@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    ],
    ids=["HTTP/2", "WebSocket"],
)
def test_offer_to_upgrade_is_passed_over(service: Service, offer: bytes) -> None:
    url = urlsplit(service.url)
    head = b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + offer
    with socket.create_connection((url.hostname or "", url.port or 0), 10) as sock:
        for number in range(3):  # the connection is as good as new after each
            body = json.dumps({"sql": f"SELECT {number}"}).encode()
            sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
            sock.sendall(body[:5])
            sock.sendall(body[5:])
            answer = http.client.HTTPResponse(sock, method="POST")
            answer.begin()
            assert answer.status == 200
            assert json.loads(answer.read())["rows"] == [[number]]
            answer.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["CONNECT", "HTTP/2", "TLS", "two lengths", "length and chunks", "endless path"],
)
def test_what_is_not_our_http_gets_a_4xx_and_harms_nothing(
    service: Service, request_: bytes
) -> None:
    url = urlsplit(service.url)
    with socket.create_connection((url.hostname or "", url.port or 0), 15) as sock:
        sock.sendall(request_)
        received = sock.recv(65536)
    assert received.startswith(b"HTTP/1.1 4"), received
    assert service.client().sql("SELECT 1").status == 200


def test_make_serve_serves(tool: Callable[[str], str]) -> None:
    with open_folder() as folder:
        log = folder / "log"
        with log.open("wb") as out:
            make = subprocess.Popen(
                [tool("make"), "serve"],
                cwd=ROOT,
                env={**os.environ, "WALKIN_PORT": "0", "WALKIN_DATA_DIR": str(folder / "data")},
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            greeting = re.compile("walkin listens on (http://[^,]+),")
            url = wait_until(lambda: greeting.search(log.read_text()), 60, "the greeting").group(1)
            client = Client(url)
            assert client.sql("SELECT 1").rows == [[1]]
            client.close()
        finally:
            os.killpg(make.pid, signal.SIGTERM)
            make.wait(30)
