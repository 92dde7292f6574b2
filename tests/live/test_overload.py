"""Four times as much as can be done: the rest is told to come back, and nobody else notices."""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.bench.load import Answer, Caller, Wrk, closed_loop, http, percentiles
from tests.handles import Service

#: Times are judged here.
pytestmark = pytest.mark.alone

#: The long form is a minute.
SECONDS = float(os.environ.get("OVERLOAD_S") or 5)
TIMES = 4
CREATE = http("POST", "/sql", b'{"sql": "CREATE TABLE t(x)"}')
_MOST_MEMORY = 64 << 20
#: A question waits for the zygote as long as a front desk has patience, and then there is the call.
_LATEST_S = 5.5


async def create(port: int, caller: Caller) -> Answer:
    answer = await caller.ask(port, CREATE)
    assert answer.status == 200, answer.short
    return answer


def memory(service: Service) -> int:
    """What front desk and zygote take, in bytes."""
    pids = service.pids("front desk") + service.pids("zygote")
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


async def pour(port: int, rate: float, seconds: float) -> list[tuple[Answer, float]]:
    """Ask so often, whether or not there were answers; return every answer and how long it took."""
    idle: list[Caller] = []
    found: list[tuple[Answer, float]] = []

    async def ask() -> None:
        caller = idle.pop() if idle else Caller()
        began = time.perf_counter()
        try:
            answer = await caller.ask(port, CREATE)
        except (asyncio.IncompleteReadError, ConnectionError):
            # It was idle for so long that it was closed, as HTTP has it: asked again by another.
            caller.close()
            caller = Caller()
            answer = await caller.ask(port, CREATE)
        found.append((answer, time.perf_counter() - began))
        idle.append(caller)

    began = time.perf_counter()
    tasks: list[asyncio.Task[None]] = []
    while (elapsed := time.perf_counter() - began) < seconds:
        due = int(elapsed * rate) - len(tasks)
        tasks += [asyncio.create_task(ask()) for _ in range(due)]
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    with contextlib.ExitStack() as all_of_them:
        for caller in idle:
            all_of_them.callback(caller.close)
    await asyncio.sleep(0.1)  # the loop closes them, if it goes on
    return found


def test_what_is_too_much_is_shed_and_it_passes(
    make_service: Callable[..., Service], tool: Callable[[str], str]
) -> None:
    tool("wrk")
    service = make_service(requests_per_min=0, creations_per_min=0, ttl_s=20, log_calls="no")
    port = int(service.url.rpartition(":")[2])
    sustained, fault = closed_loop(lambda caller: create(port, caller), 8, 3)
    assert not fault
    before = memory(service)
    bystander = Wrk(port, [http("GET", "/healthz")], 1, SECONDS, pause_ms=20)
    found = uvloop.run(pour(port, TIMES * sustained["rate"], SECONDS))
    healthy = bystander.figures()
    grown = memory(service) - before
    statuses = Counter(answer.status for answer, _ in found)
    accepted = percentiles([took for answer, took in found if answer.status == 200])
    print(
        f"sustained {sustained}, then {statuses}, accepted {accepted}, healthz {healthy}, {grown}"
    )
    assert set(statuses) <= {200, 503}
    assert statuses[503] > 0, "it was not too much"
    assert statuses[200] > sustained["rate"] * SECONDS * 0.3, "most of the work goes on"
    assert all(
        int(answer.headers["retry-after"]) > 0 for answer, _ in found if answer.status == 503
    )
    assert healthy["errors"] == 0
    assert healthy["p99_ms"] <= 100
    assert max(took for _, took in found) < _LATEST_S
    assert grown < _MOST_MEMORY
    time.sleep(5)  # the promise: five seconds later all is as before
    after, fault = closed_loop(lambda caller: create(port, caller), 8, 3)
    assert not fault
    assert after["rate"] > sustained["rate"] * 0.5
    assert "Traceback" not in service.log()


def test_one_database_that_is_called_too_often_sheds_its_own_calls_alone(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(requests_per_min=0, creations_per_min=0)
    port = int(service.url.rpartition(":")[2])
    client, neighbour = service.client(), service.client()
    client.sql("SELECT 1")
    neighbour.sql("SELECT 1")
    slow = (
        b'{"sql": "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n'
        b' WHERE i < 300000) SELECT count(*) FROM n"}'
    )
    request = http("POST", "/sql", slow, X_Walkin_Session=client.token or "")

    async def crowd() -> Counter[int]:
        async def ask() -> int:
            with contextlib.closing(Caller()) as caller:
                return (await caller.ask(port, request)).status

        asking = [asyncio.create_task(ask()) for _ in range(200)]
        for _ in range(20):
            began = time.perf_counter()
            answer = await asyncio.to_thread(neighbour.sql, "SELECT 1")
            assert answer.rows == [[1]]
            assert time.perf_counter() - began < 2
        return Counter(await asyncio.gather(*asking))

    statuses = uvloop.run(crowd())
    assert set(statuses) <= {200, 503}
    assert statuses[200] > 0
    assert statuses[503] >= 200 - 1 - 128 - 8
