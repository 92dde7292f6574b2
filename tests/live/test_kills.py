"""Any process may die at any time: one clean error at most, and no acknowledged row is lost."""

import contextlib
import itertools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from tests.handles import (
    Answer,
    Client,
    Service,
    cpu_s,
    free_port,
    wait_for_end,
    wait_until,
)

#: Times are judged here.
pytestmark = pytest.mark.alone

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
#: Slow enough not to reach the page cap before it is stopped.
ENDLESS_WRITE = f"INSERT INTO kept {ENDLESS.replace('count(*)', 'i')} WHERE i % 1000 = 0"
ROWS = 10
PROMISED_TIMEOUT_S = 2.5
PROMISED_ZYGOTE_S = 2.0


def fill(client: Client) -> Client:
    """Give the client a database with ROWS rows, each acknowledged by itself."""
    assert client.sql("CREATE TABLE kept(x INTEGER)").status == 200
    for n in range(ROWS):
        assert client.sql("INSERT INTO kept VALUES (?)", [n]).json == {"rows_affected": 1}
    return client


def is_whole(client: Client) -> bool:
    """All acknowledged rows are there, no other, and the file is sound."""
    return (
        client.sql("SELECT x FROM kept ORDER BY x").rows == [[n] for n in range(ROWS)]
        and client.sql("PRAGMA integrity_check").rows == [["ok"]]
        and client.sql("SELECT count(*) FROM kept WHERE x = ?", [ROWS - 1]).rows == [[1]]
    )


def begin(pool: ThreadPoolExecutor, service: Service, client: Client, sql: str) -> Future[Answer]:
    """Start a long call and return once its cell is at work on it."""
    cell = service.cell(client)
    idle_s = cpu_s(cell)
    call = pool.submit(client.sql, sql)
    wait_until(lambda: cpu_s(cell) > idle_s + 0.1, 5, "the cell works")
    return call


@pytest.mark.parametrize("sql", [ENDLESS, ENDLESS_WRITE], ids=["read", "write"])
def test_cell_killed_during_a_call_costs_one_clean_error(service: Service, sql: str) -> None:
    client, neighbour = fill(service.client()), fill(service.client())
    with ThreadPoolExecutor(1) as pool:
        call = begin(pool, service, client, sql)
        os.kill(service.cell(client), signal.SIGKILL)
        killed = time.monotonic()
        lost = call.result()
    assert time.monotonic() - killed < 1, "the caller waited for nothing"
    assert (lost.status, lost.code) == (500, "cell_lost")
    assert lost.json["error"] == "internal error"
    assert lost.json["retryable"] is False, "nobody knows whether it took effect"
    assert lost.json["request_id"] == lost.headers["x-request-id"]
    assert is_whole(client)
    assert is_whole(neighbour)


def test_call_right_after_a_lost_one_is_not_lost_too(service: Service) -> None:
    client = service.client()
    client.sql("SELECT 1")
    with ThreadPoolExecutor(1) as pool:
        for _ in range(10):
            call = begin(pool, service, client, ENDLESS)
            os.kill(service.cell(client), signal.SIGKILL)
            assert call.result().code == "cell_lost"
            assert client.sql("SELECT 1").rows == [[1]]


def test_cell_killed_between_two_calls_is_not_noticed(service: Service) -> None:
    client = fill(service.client())
    for turn in range(20):
        cell = service.cell(client)
        os.kill(cell, signal.SIGKILL)
        if turn % 2:  # else the next call may still reach it: it does not read it
            wait_for_end(cell)
        assert is_whole(client)


def test_call_that_a_killed_cell_had_not_read_is_not_lost(service: Service) -> None:
    client = fill(service.client())
    client.sql("CREATE TABLE copies(x)")
    with ThreadPoolExecutor(1) as pool:
        for turn in range(1, 11):
            cell = service.cell(client)
            os.kill(cell, signal.SIGSTOP)
            call = pool.submit(client.sql, "INSERT INTO copies VALUES (?)", [turn])
            for _ in range(10):  # the front desk has had many turns when this is over
                assert client.get("/healthz").status == 200
            assert not call.done()
            os.kill(cell, signal.SIGKILL)
            assert call.result().json == {"rows_affected": 1}
            assert client.sql("SELECT count(*) FROM copies").rows == [[turn]]


def test_cell_killed_again_and_again_under_many_callers_runs_nothing_twice(
    service: Service,
) -> None:
    """Calls sent together to one cell share its end: each is answered, lost, or run by the next."""
    first = service.client()
    first.sql("CREATE TABLE kept(x)")
    is_over = threading.Event()

    def insert(caller: int) -> dict[int, Answer]:
        client = service.client(first.token)
        answers = {}
        for number in itertools.count(caller, 8):
            if is_over.is_set():
                return answers
            answers[number] = client.sql("INSERT INTO kept VALUES (?)", [number])
        raise AssertionError

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(insert, caller) for caller in range(8)]
        kills = 0
        for _ in range(40):
            for cell in service.pids(f"cell {first.instance}"):
                os.kill(cell, signal.SIGKILL)
                kills += 1
            time.sleep(random.uniform(0, 0.1))
        is_over.set()
        answers = {number: end for caller in callers for number, end in caller.result().items()}
    kept = [x for (x,) in first.sql("SELECT x FROM kept").rows]
    assert len(kept) == len(set(kept)), "an insert was run twice"
    done = {number for number, answer in answers.items() if answer.status == 200}
    others = [answer for answer in answers.values() if answer.status != 200]
    assert kills > 10
    assert done <= set(kept)
    assert {answer.code for answer in others} <= {"cell_lost"}
    assert len(others) <= kills, "each end costs one call at most"
    assert set(kept) - done <= answers.keys() - done


def test_cell_killed_with_an_open_transaction_leaves_nothing_of_it(service: Service) -> None:
    client = fill(service.client())
    with ThreadPoolExecutor(1) as pool:
        call = begin(pool, service, client, f"BEGIN; DELETE FROM kept; {ENDLESS}; COMMIT")
        os.kill(service.cell(client), signal.SIGKILL)
        assert call.result().code == "cell_lost"
    assert is_whole(client)


def test_service_goes_on_within_2_seconds_of_the_zygotes_death(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    clients = [fill(service.client()) for _ in range(3)]
    newcomer = service.client()
    for _ in range(2):  # the second time the new zygote has not lived long
        cells = [service.cell(client) for client in clients]
        killed = time.monotonic()
        wait_for_end(service.signal("zygote", signal.SIGKILL), *cells, within_s=1)
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(client.sql, "SELECT count(*) FROM kept") for client in clients]
            made = pool.submit(newcomer.sql, f"SELECT {ROWS}")
            assert [call.result().rows for call in [*calls, made]] == [[[ROWS]]] * 4
        assert time.monotonic() - killed < PROMISED_ZYGOTE_S
        assert all(is_whole(client) for client in clients)
    assert service.stop() == 0
    assert "Traceback" not in service.log()


def test_database_refused_for_want_of_time_is_not_made_later(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    zygote = service.signal("zygote", signal.SIGSTOP)
    refused = service.client().sql("CREATE TABLE t(x)")
    os.kill(zygote, signal.SIGCONT)
    assert (refused.status, refused.code) == (503, "busy")
    assert "x-walkin-session" not in refused.headers
    before = len(service.traces())
    assert service.client().sql("SELECT 1").status == 200
    assert (before, len(service.traces())) == (0, 3), "a folder, a record and a turn"


def test_call_in_flight_when_the_zygote_dies_gets_one_clean_error(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    client = fill(service.client())
    with ThreadPoolExecutor(1) as pool:
        call = begin(pool, service, client, ENDLESS_WRITE)
        service.signal("zygote", signal.SIGKILL)
        assert call.result().code == "cell_lost"
    assert is_whole(client)


def test_killed_reaper_comes_back_and_reaps(make_service: Callable[..., Service]) -> None:
    service = make_service(ttl_s=2)
    client = fill(service.client())
    wait_for_end(service.signal("reaper", signal.SIGKILL))
    wait_until(lambda: service.pids("reaper"), 5, "a new reaper")
    assert client.expires
    wait_until(lambda: not service.traces(), client.expires - time.time() + 5, "removed")


def test_killed_front_desk_comes_back(make_service: Callable[..., Service]) -> None:
    service = make_service()
    client = fill(service.client())
    wait_for_end(service.signal("front desk", signal.SIGKILL))
    # The listening socket is the supervisor's: a caller waits and is not refused.
    again = service.client(client.token)
    assert is_whole(again)
    assert service.client().sql("SELECT 1").status == 200
    assert service.stop() == 0


def test_everything_ends_with_the_supervisor_and_starts_again_with_the_data(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(port=free_port())
    client = fill(service.client())
    roles = ["zygote", "reaper", "front desk", "blank cell", f"cell {client.instance}"]
    pids = [pid for role in roles for pid in service.pids(role)]
    service.kill()
    wait_for_end(*pids, within_s=6)
    service.start()
    assert is_whole(service.client(client.token)), "on the same port, with the same key"


def test_everything_killed_at_once_starts_again_with_the_data(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(port=free_port())
    client = fill(service.client())
    roles = ["zygote", "reaper", "front desk", "blank cell", f"cell {client.instance}"]
    with ThreadPoolExecutor(1) as pool:
        call = begin(pool, service, client, ENDLESS_WRITE)
        pids = [pid for role in roles for pid in service.pids(role)]
        service.kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        # Its cell may have ended a moment before the front desk did.
        assert call.exception() or call.result().code == "cell_lost"
    service.start()
    assert is_whole(service.client(client.token))


def test_orderly_restart_keeps_live_databases(make_service: Callable[..., Service]) -> None:
    service = make_service()
    client = fill(service.client())
    token = client.token
    assert service.stop() == 0
    service.start()
    assert is_whole(service.client(token))


#: SQLite looks at its clock between opcodes; each of these spends its time inside one. All take
#: ten times the deadline, so that no machine is quick enough to end one in time.
STRAYS = {
    "endless query": ENDLESS,
    "endless write": ENDLESS_WRITE,
    "instr": "SELECT sum(instr(printf('%.*c', 1000000, 'a'), printf('%.*c', 500000, 'a') || value))"
    " FROM json_each('[1, 2, 3, 4]')",
    "replace": "SELECT sum(length(replace(printf('%.*c', 1000000, 'a'),"
    " printf('%.*c', 500000, 'a') || value, ''))) FROM json_each('[1, 2, 3, 4]')",
    "trim": "SELECT trim(printf('%.*c', 1000000, 'a'), printf('%.*c', 80000, 'b') || 'a')",
    "like": "SELECT count(*) FROM (SELECT printf('%.*c', 1000000, 'a') || value AS t FROM"
    " json_each('[1, 2, 3, 4, 5, 6]')) WHERE t LIKE '%' || printf('%.*c', 990, 'a') || 'b%'",
    "glob": "SELECT count(*) FROM (SELECT printf('%.*c', 1000000, 'a') || value AS t FROM"
    " json_each('[1, 2, 3, 4, 5, 6]')) WHERE t GLOB '*' || printf('%.*c', 990, 'a') || 'b*'",
    "json_patch": """
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
        SELECT length(json_patch(json_group_object('a' || i, i), json_group_object('b' || i, i)))
        FROM n""",
    "fts5 snippet": """
        CREATE VIRTUAL TABLE f USING fts5(t);
        INSERT INTO f SELECT replace(printf('%.*c', 150000, 'x'), 'x', 'a ');
        SELECT snippet(f, 0, '<', '>', '..', 64) FROM f WHERE f MATCH 'a'""",
    "fts5 near": """
        CREATE VIRTUAL TABLE f USING fts5(t);
        INSERT INTO f SELECT replace(printf('%.*c', 150000, 'x'), 'x', 'a ');
        SELECT (SELECT count(*) FROM f
                WHERE f MATCH 'NEAR(' || replace(printf('%.*c', 100, 'x'), 'x', 'a ') || value)
        FROM json_each('[", 100)", ", 200)", ", 300)", ", 400)"]')""",
}


def test_call_that_never_ends_is_told_408_in_time_and_harms_nothing(service: Service) -> None:
    def stray(sql: str) -> str | None:
        client = fill(service.client())
        asked = time.monotonic()
        answer = client.sql(sql)
        took_s = time.monotonic() - asked
        if (answer.status, answer.code) != (408, "query_timeout"):
            return f"{answer} after {took_s:.2f} s"
        if not 1.9 < took_s < PROMISED_TIMEOUT_S:
            return f"408 after {took_s:.2f} s"
        assert answer.json["error"] == "query timed out"
        return None if is_whole(client) else "damaged"

    with ThreadPoolExecutor(2) as pool:
        mistakes = dict(zip(STRAYS, pool.map(stray, STRAYS.values()), strict=True))
    assert not {about: mistake for about, mistake in mistakes.items() if mistake}


def test_call_right_after_a_timed_out_one_is_not_lost(make_service: Callable[..., Service]) -> None:
    service = make_service(query_timeout_ms=100)
    clients = [service.client() for _ in range(4)]

    def alternate(client: Client) -> list[tuple[int, int]]:
        client.sql("SELECT 1")
        return [
            (client.sql(STRAYS["instr"]).status, client.sql("SELECT 1").status) for _ in range(10)
        ]

    with ThreadPoolExecutor(len(clients)) as pool:
        pairs = [pair for pairs in pool.map(alternate, clients) for pair in pairs]
    assert pairs == [(408, 200)] * len(pairs)


def test_service_stays_awake_beside_calls_that_never_end(service: Service) -> None:
    bystander = fill(service.client())
    strays = [fill(service.client()) for _ in range(6)]
    with ThreadPoolExecutor(len(strays)) as pool:
        calls = [pool.submit(client.sql, STRAYS["instr"]) for client in strays]
        answers = 0
        while not all(call.done() for call in calls):
            asked = time.monotonic()
            assert bystander.get("/healthz").status == 200
            assert bystander.sql("SELECT count(*) FROM kept").rows == [[ROWS]]
            assert time.monotonic() - asked < 1
            answers += 1
        assert answers > 10
        assert [call.result().status for call in calls] == [408] * len(strays)


def test_connection_dropped_during_a_call_does_not_mix_up_answers(service: Service) -> None:
    client = fill(service.client())
    url = urlsplit(service.url)
    body = b'{"sql": "%s"}' % ENDLESS.encode()
    with socket.create_connection((url.hostname or "", url.port or 0), 5) as sock:
        sock.sendall(
            b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"X-Walkin-Session: %s\r\nContent-Length: %d\r\n\r\n%s"
            % ((client.token or "").encode(), len(body), body)
        )
        cell = service.cell(client)
        idle_s = cpu_s(cell)
        wait_until(lambda: cpu_s(cell) > idle_s + 0.1, 5, "the cell works")
    assert client.sql("SELECT 'mine'").rows == [["mine"]]
    assert is_whole(client)


def test_row_that_json_would_grow_beyond_memory_is_cut_off_and_the_cell_lives(
    service: Service, client: Client
) -> None:
    client.sql("SELECT 1")
    cell = service.cell(client)
    columns = ", ".join(f"x || '{number}'" for number in range(50))
    control = "SELECT replace(hex(zeroblob(500000)), '0', char(1))"
    answer = client.sql(f"WITH t(x) AS MATERIALIZED ({control}) SELECT {columns} FROM t")
    assert answer.status in (200, 400)
    assert answer.status == 400 or answer.json["truncated"] is True
    assert client.sql("SELECT 1").rows == [[1]]
    assert service.cell(client) == cell


def test_what_a_call_changed_on_the_connection_ends_with_it_though_nobody_took_its_answer(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    client = service.client()
    client.sql("CREATE TABLE kept(x)")
    cell = service.cell(client)
    idle_s = cpu_s(cell)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(
            client.sql,
            "CREATE TEMP TABLE z(a); PRAGMA query_only=1; WITH RECURSIVE c(x) AS"
            " (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000000) SELECT sum(x) FROM c",
        )
        wait_until(lambda: cpu_s(cell) > idle_s + 0.05, 5, "the call runs")
        service.signal("front desk", signal.SIGKILL)
        # Its cell may have ended a moment before the front desk did.
        assert call.exception() or call.result().code == "cell_lost"

    def answers_again() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return service.client(client.token).sql("SELECT 1").status == 200
        return False

    wait_until(answers_again, 10, "a new front desk")
    later = service.client(client.token)
    assert later.sql("SELECT * FROM z").code == "unknown_table"
    assert later.sql("INSERT INTO kept VALUES (1)").status == 200
