"""The end of a database: to the second that was announced, and without a trace."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.handles import Answer, Client, Service, wait_for_end, wait_until

#: Times are judged here.
pytestmark = pytest.mark.alone

#: From expiry on, within this time nothing is left of a database.
GONE_S = 5.0
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def is_expired(answer: Answer) -> bool:
    return (
        answer.status == 404
        and answer.code == "instance_expired"
        and answer.json["error"] == "instance not found"
        and answer.json["retryable"] is False
    )


def call_over_the_end(client: Client) -> tuple[int, int]:
    """Call without a pause from before the expiry until after it; count both kinds of answer."""
    assert client.expires
    alive = expired = 0
    while time.time() < client.expires + 0.3:
        asked = time.time()
        answer = client.sql("SELECT count(*) FROM kept")
        answered = time.time()
        if answered < client.expires:
            assert answer.rows == [[1]], "ended too early"
            alive += 1
        elif asked >= client.expires:
            assert is_expired(answer), answer
            expired += 1
    return alive, expired


def test_token_ends_in_the_announced_second_without_the_reapers_help(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(ttl_s=2)
    busy, resting = service.client(), service.client()
    service.signal("reaper", signal.SIGSTOP)
    for client in (busy, resting):
        before = time.time()
        client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
        assert client.expires
        assert before + 2 <= client.expires <= time.time() + 3, "never less than the lifetime"
    alive, expired = call_over_the_end(busy)
    assert min(alive, expired) > 10, "too few calls to tell"
    assert is_expired(resting.sql("SELECT 1"))
    assert service.traces(), "only the reaper removes"

    # Neither a front desk nor a zygote that starts afresh knows the database any more.
    for role in ("front desk", "zygote"):
        wait_for_end(service.signal(role, signal.SIGKILL))
    fresh = service.client(busy.token)
    wait_until(lambda: service.pids("zygote") and service.pids("front desk"), 5, "both are back")
    assert is_expired(fresh.sql("SELECT 1"))

    service.signal("reaper", signal.SIGCONT)
    wait_until(lambda: not service.traces(), GONE_S, "removed")
    assert is_expired(fresh.sql("SELECT 1")), "also when nothing is left of it"


def test_no_folder_record_or_cell_is_left_5_seconds_after_expiry(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(ttl_s=2, cell_idle_s=1)
    clients = [service.client() for _ in range(8)]
    for client in clients:
        client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (zeroblob(500000))")
    assert len(service.traces()) == 3 * len(clients), "folder, record and turn"
    cells = [service.cell(client) for client in clients]
    last = max(client.expires or 0 for client in clients)
    wait_until(lambda: not service.traces(), last - time.time() + GONE_S, "removed")
    assert time.time() < last + GONE_S
    assert time.time() >= min(client.expires or 0 for client in clients), "removed too early"
    wait_for_end(*cells, within_s=1)


def test_call_in_flight_at_expiry_is_told_so(make_service: Callable[..., Service]) -> None:
    service = make_service(ttl_s=2, query_timeout_ms=20_000)
    client = service.client()
    client.sql("CREATE TABLE kept(x)")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.sql, ENDLESS)
        answer = call.result()
    assert is_expired(answer), answer
    assert client.expires
    assert client.expires <= time.time() < client.expires + GONE_S
    wait_until(lambda: not service.traces(), GONE_S, "removed")
    assert service.client().sql("SELECT 1").status == 200, "the others go on"
    assert "Traceback" not in service.log()


def test_what_expired_while_the_service_was_down_is_removed_at_the_next_start(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(ttl_s=1)
    clients = [service.client() for _ in range(3)]
    for client in clients:
        client.sql("CREATE TABLE kept(x)")
    tokens = [client.token for client in clients]
    reaper = service.signal("reaper", signal.SIGSTOP)
    service.kill()
    os.kill(reaper, signal.SIGKILL)
    last = max(client.expires or 0 for client in clients)
    wait_until(lambda: time.time() > last, 5, "the expiry")
    assert len(service.traces()) == 9
    service.start()
    assert all(is_expired(service.client(token).sql("SELECT 1")) for token in tokens)
    wait_until(lambda: not service.traces(), GONE_S, "removed")


def test_life_is_not_renewed_by_use_and_a_restart_keeps_the_end(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(ttl_s=3)
    client = service.client()
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    token, expires = client.token, client.expires
    assert service.stop() == 0
    service.start()
    client = service.client(token)
    client.expires = expires
    alive, expired = call_over_the_end(client)
    assert alive > 0
    assert expired > 0
