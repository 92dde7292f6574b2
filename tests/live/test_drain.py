"""An orderly stop: what is in flight is answered, what is new is refused, the exit status is 0."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.handles import Client, Service, cpu_s, is_running, wait_until

COUNT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :most)"
    " SELECT count(*), sum(i) FROM n"
)
ENDLESS = COUNT.replace("LIMIT :most", "")


def steps_in(client: Client, seconds: float) -> int:
    """How far this machine counts in that time."""
    trial = 200_000
    began = time.monotonic()
    assert client.sql(COUNT, {"most": trial}).status == 200
    return int(trial * seconds / (time.monotonic() - began))


def accepts(service: Service) -> bool:
    url = urlsplit(service.url)
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((url.hostname or "", url.port or 0), 1).close()
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_call_in_flight_gets_its_answer_and_new_ones_are_refused(
    make_service: Callable[..., Service], number: int
) -> None:
    service = make_service(query_timeout_ms=10_000)
    client = service.client()
    most = steps_in(client, 1.2)
    resting = service.client()
    assert resting.get("/healthz").status == 200  # an idle connection must not hold up the stop
    cell = service.cell(client)
    idle_s = cpu_s(cell)
    assert service.process is not None
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.sql, COUNT, {"most": most})
        wait_until(lambda: cpu_s(cell) > idle_s + 0.1, 5, "the call is in flight")
        service.process.send_signal(number)
        wait_until(lambda: not accepts(service), 5, "new connections are refused")
        assert not call.done(), "refused before the call in flight has its answer"
        assert call.result().rows == [[most, most * (most + 1) // 2]]
    assert service.process.wait(10) == 0
    assert "Traceback" not in service.log()
    assert not is_running(cell)


def test_both_workers_answer_what_they_have_in_flight(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(workers=2, query_timeout_ms=10_000)
    clients = [service.client() for _ in range(6)]
    most = steps_in(clients[0], 0.2)
    for client in clients[1:]:
        client.sql("SELECT 1")
    cells = [service.cell(client) for client in clients]
    idle_s = [cpu_s(cell) for cell in cells]
    assert service.process is not None
    with ThreadPoolExecutor(len(clients)) as pool:
        calls = [pool.submit(client.sql, COUNT, {"most": most}) for client in clients]
        wait_until(
            lambda: all(cpu_s(cell) > idle_s[at] for at, cell in enumerate(cells)), 5, "in flight"
        )
        service.process.send_signal(signal.SIGTERM)
        for call in calls:
            assert call.result().rows == [[most, most * (most + 1) // 2]]
    assert service.process.wait(10) == 0


def test_call_that_outlasts_the_drain_does_not_hold_up_the_stop(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(query_timeout_ms=60_000, drain_s=1)
    client = service.client()
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    cell = service.cell(client)
    idle_s = cpu_s(cell)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.sql, f"INSERT INTO kept VALUES (2); {ENDLESS}")
        wait_until(lambda: cpu_s(cell) > idle_s + 0.1, 5, "the call is in flight")
        began = time.monotonic()
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(15) == 0
        assert time.monotonic() - began < 10
        answer = call.result()
    assert answer.status in (500, 503)
    assert answer.json.keys() >= {"error", "code", "request_id"}
    assert answer.json["retryable"] is False, "what came before the end was done"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "Traceback" not in service.log()
    assert not is_running(cell)
    token = client.token
    service.start()
    assert service.client(token).sql("SELECT x FROM kept").rows == [[1], [2]]


def test_connection_kept_alive_is_closed_with_the_answer_that_drains(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(query_timeout_ms=10_000)
    client = service.client()
    most = steps_in(client, 1.0)
    cell = service.cell(client)
    idle_s = cpu_s(cell)
    url = urlsplit(service.url)
    body = json.dumps({"sql": COUNT, "args": {"most": most}}).encode()
    with socket.create_connection((url.hostname or "", url.port or 0), 10) as sock:
        sock.sendall(
            b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"X-Walkin-Session: %s\r\nContent-Length: %d\r\n\r\n%s"
            % ((client.token or "").encode(), len(body), body)
        )
        wait_until(lambda: cpu_s(cell) > idle_s + 0.1, 5, "the call is in flight")
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, answer = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer)["rows"] == [[most, most * (most + 1) // 2]]
    assert service.process.wait(10) == 0
