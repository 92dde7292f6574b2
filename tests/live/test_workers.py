"""Two front desks behind one socket, counting together in a real Redis."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.handles import Client, Service, cpu_s, open_folder, wait_for_end, wait_until

#: Times are judged here.
pytestmark = pytest.mark.alone

STRAY = "SELECT instr(printf('%.*c', 1000000, 'a'), printf('%.*c', 500000, 'a') || 'b')"
COUNT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {})"
    " SELECT count(*) FROM n"
)


@pytest.fixture
def redis_url(tool: Callable[[str], str]) -> Iterator[str]:
    """A Redis of the test's own on a free loopback port, without a file on disk."""
    program = tool("redis-server")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="walkin-redis-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

        def answers() -> bool:
            assert process.poll() is None, "redis-server ended"
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), 1) as sock,
            ):
                sock.sendall(b"PING\r\n")
                return sock.recv(100) == b"+PONG\r\n"
            return False

        try:
            wait_until(answers, 10, "Redis")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def pair() -> Iterator[Service]:
    """One service with two front desks that tests share; they must not hurt it."""
    with open_folder() as made:
        service = Service(made, workers=2).start()
        yield service
        assert service.stop() == 0, service.log()


@contextlib.contextmanager
def only(service: Service, number: int) -> Iterator[None]:
    """Stop all front desks but one: what connects now is served by that one."""
    others = sorted(service.pids("front desk"))
    del others[number]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def at_each(service: Service, token: str | None = None) -> list[Client]:
    """Clients whose one connection is kept open to the first and the second front desk."""
    wait_until(lambda: len(service.pids("front desk")) == 2, 10, "two front desks")
    clients = []
    for number in range(2):
        client = service.client(token)
        with only(service, number):
            assert client.get("/healthz").status == 200
        clients.append(client)
    return clients


def test_same_token_works_at_each_worker(pair: Service) -> None:
    one, two = at_each(pair)
    made = one.sql("CREATE TABLE kept(at); INSERT INTO kept VALUES ('first')")
    assert made.status == 200
    two.token = one.token
    assert two.sql("INSERT INTO kept VALUES ('second')").json == {"rows_affected": 1}
    for client in (one, two):
        assert client.sql("SELECT at FROM kept").rows == [["first"], ["second"]]


def test_new_connections_are_spread_over_both_workers(pair: Service) -> None:
    at_each(pair)
    first = pair.client()
    first.sql("CREATE TABLE kept(n)")
    token = first.token
    before = {pid: cpu_s(pid) for pid in pair.pids("front desk")}

    def insert(n: int) -> None:
        client = Client(pair.url, token)
        assert client.sql("INSERT INTO kept VALUES (?)", [n], Connection="close").status == 200
        client.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(insert, range(300)))
    assert first.sql("SELECT count(DISTINCT n), count(*) FROM kept").rows == [[300, 300]]
    after = {pid: cpu_s(pid) for pid in pair.pids("front desk")}
    assert all(after[pid] > before[pid] for pid in before), "one of them did nothing"


def test_limits_are_counted_together_and_exactly(
    make_service: Callable[..., Service], redis_url: str
) -> None:
    service = make_service(
        workers=2, rate_limit_store=redis_url, requests_per_min=60, creations_per_min=10
    )
    wait_until(lambda: len(service.pids("front desk")) == 2, 10, "two front desks")
    statuses = []
    for number in range(2):
        with only(service, number):
            clients = [service.client() for _ in range(8)]
            answers = [client.sql("SELECT 1") for client in clients]
        statuses += [answer.status for answer in answers]
    assert statuses == [200] * 10 + [429] * 6
    assert answers[-1].json["error"] == "new-instance rate limit exceeded"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    # 16 of 60 requests are used up. The rest comes at once, over fresh connections to either.
    token = clients[0].token

    def call(_: int) -> int:
        client = Client(service.url, token)
        answer = client.sql("SELECT 1", Connection="close")
        client.close()
        if answer.status == 429:
            assert answer.json["error"] == "rate limit exceeded"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        return answer.status

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(call, range(64)))
    assert sorted(statuses) == [200] * 44 + [429] * 20
    for number in range(2):
        with only(service, number):
            assert call(0) == 429


def test_nobody_is_let_in_uncounted_when_the_store_is_away(
    make_service: Callable[..., Service],
) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    service = make_service(
        workers=2, rate_limit_store=f"redis://127.0.0.1:{port}/0", requests_per_min=60
    )
    refused = service.client().sql("SELECT 1")
    assert (refused.status, refused.code) == (503, "busy")
    assert refused.headers["retry-after"]
    assert str(port) not in refused.text
    assert service.client().get("/healthz").status == 200


def test_calls_on_one_database_through_both_workers_are_all_right(pair: Service) -> None:
    one, two = at_each(pair)
    one.sql("CREATE TABLE counter(n); INSERT INTO counter VALUES (0)")
    two.token = one.token
    extra = [pair.client(one.token) for _ in range(4)]

    def count(client: Client) -> list[int]:
        sql = "UPDATE counter SET n = n + 1; SELECT n, ? FROM counter"
        seen = []
        for mark in range(50):
            ((n, back),) = client.sql(sql, [mark]).rows
            assert back == mark, "another call's answer"
            seen.append(n)
        return seen

    clients = [one, two, *extra]
    with ThreadPoolExecutor(len(clients)) as pool:
        seen = [n for numbers in pool.map(count, clients) for n in numbers]
    assert sorted(seen) == list(range(1, 50 * len(clients) + 1)), "each call saw its own count"


def test_call_that_waits_at_the_other_worker_survives_a_timed_out_one(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(workers=2, query_timeout_ms=500)
    one, two = at_each(service)
    assert one.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)").status == 200
    two.token = one.token
    assert two.sql("SELECT 1").status == 200
    with ThreadPoolExecutor(2) as pool:
        for turn in range(6):
            stray, waiting = (one, two) if turn % 2 else (two, one)
            cell = service.cell(one)
            idle_s = cpu_s(cell)
            late = pool.submit(stray.sql, STRAY)
            wait_until(lambda: cpu_s(cell) > idle_s, 5, "the cell works")  # noqa: B023
            # Long enough to be met by whatever still reaches out for the cell that timed out.
            answer = waiting.sql(COUNT.format(50_000) + ", kept")
            assert (late.result().status, late.result().code) == (408, "query_timeout")
            assert answer.rows == [[50_000]], f"turn {turn}: {answer}"


def test_worker_that_learns_late_of_a_timeout_does_not_end_the_next_cell(pair: Service) -> None:
    one, two = at_each(pair)
    one.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    two.token = one.token
    cell = pair.cell(one)
    idle_s = cpu_s(cell)
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(one.sql, STRAY)
        wait_until(lambda: cpu_s(cell) > idle_s + 0.1, 5, "the cell works")
        with only(pair, 1):
            wait_for_end(cell)  # of its own timer
            began = time.monotonic()
            running = pool.submit(two.sql, COUNT.format(10**9))
            cell = wait_until(lambda: sum(pair.pids(f"cell {one.instance}")), 5, "the next cell")
            wait_until(lambda: cpu_s(cell) > 0.1, 5, "the next cell works")
        assert late.result().code == "query_timeout"
        # The second call is ended by its own clock, and by nothing before.
        assert running.result().code == "query_timeout"
        assert time.monotonic() - began > 1.9
    assert two.sql("SELECT x FROM kept").rows == [[1]]


def test_killed_worker_leaves_the_other_and_comes_back(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(workers=2)
    one, two = at_each(service)
    one.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    two.token = one.token
    first = min(service.pids("front desk"))
    os.kill(first, signal.SIGKILL)
    assert two.sql("SELECT x FROM kept").rows == [[1]]
    wait_until(
        lambda: first not in (now := service.pids("front desk")) and len(now) == 2, 5, "a new one"
    )
    for _ in range(20):
        assert service.client(one.token).sql("SELECT x FROM kept").rows == [[1]]
