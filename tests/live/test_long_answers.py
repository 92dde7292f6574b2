"""Long answers as CSV and NDJSON: beyond every cap, whole or visibly not, and in little memory."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.handles import Client, Service, memory_kb
from tests.wire import besiege

#: Times are judged here.
pytestmark = pytest.mark.alone

MIB = 1 << 20
CSV, NDJSON = "text/csv", "application/x-ndjson"
ROWS = 200_000
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT i, printf('%0500d', i) AS text FROM n"
)
LONG = (
    f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS})"
    " SELECT i, printf('%050d', i) AS text FROM n"
)
#: Measured: none at the cell; at the front desk 2 MiB, for whoever reads slowly.
MOST_GROWTH = 6 * MIB


@contextlib.contextmanager
def asking(client: Client, sql: str, accept: str = CSV) -> Iterator[httpx.Response]:
    """An answer whose body has not been read yet."""
    headers = {"Content-Type": "application/json", "Accept": accept}
    headers["X-Walkin-Session"] = client.token or ""
    with client.http.stream("POST", "/sql", json={"sql": sql}, headers=headers) as response:
        assert response.status_code == 200
        yield response


def peak(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    return memory_kb(pid, "VmHWM") * 1024


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One whose log has nothing of other tests in it."""
    with besiege() as started:
        yield started


@pytest.fixture
def own_service(make_service: Callable[..., Service]) -> Service:
    return make_service(query_timeout_ms=500)


@pytest.fixture
def one(own_service: Service) -> Client:
    """A caller with a database and a cell."""
    client = own_service.client()
    assert client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES('safe')").status == 200
    return client


def is_well(service: Service, client: Client, cell: int) -> bool:
    """The same cell answers, and nothing was a fault."""
    asked = time.monotonic()
    assert client.sql("SELECT x FROM kept").rows == [["safe"]]
    assert time.monotonic() - asked < 0.3, "the database was not free at once"
    assert "Traceback" not in service.log()
    assert " ERROR " not in service.log()
    return service.cell(client) == cell


@pytest.mark.parametrize("accept", [CSV, NDJSON])
def test_a_long_answer_is_whole_and_takes_little_memory(service: Service, accept: str) -> None:
    client = service.client()
    client.call("SELECT 1", {"Accept": accept})
    pids = [service.cell(client), *service.pids("front desk")]
    before = [peak(pid) for pid in pids]
    count = size = 0
    with asking(client, LONG, accept) as response:
        if accept == CSV:
            expected = (f'{n},"{n:050d}"' for n in range(1, ROWS + 1))
        else:
            expected = (f'{{"i":{n},"text":"{n:050d}"}}' for n in range(1, ROWS + 1))
        lines = response.iter_lines()
        if accept == CSV:
            assert next(lines) == '"i","text"'
        for line, wanted in zip(lines, expected, strict=True):
            assert line == wanted
            count += 1
            size += len(line)
    assert count == ROWS
    assert size > 10 * MIB
    for pid, most in zip(pids, before, strict=True):
        assert peak(pid) - most < MOST_GROWTH, pid


def test_json_has_its_cap_all_the_same(client: Client) -> None:
    answer = client.sql(LONG)
    assert (len(answer.rows), answer.json["truncated"]) == (10_000, True)


@pytest.mark.parametrize("accept", [CSV, NDJSON])
def test_an_answer_out_of_time_is_broken_off_visibly(
    own_service: Service, one: Client, accept: str
) -> None:
    cell = own_service.cell(one)
    with asking(one, ENDLESS, accept) as response, pytest.raises(httpx.RemoteProtocolError):
        for _ in response.iter_raw():
            pass
    assert is_well(own_service, one, cell)


def test_an_error_in_the_middle_breaks_it_off_visibly(own_service: Service, one: Client) -> None:
    cell = own_service.cell(one)
    late = LONG.replace(
        "SELECT i, printf", "SELECT iif(i = 150000, abs(-1 - ~(1 << 63)), i), printf"
    )
    with asking(one, late) as response, pytest.raises(httpx.RemoteProtocolError):
        for _ in response.iter_raw():
            pass
    assert is_well(own_service, one, cell)


def test_a_slow_reader_runs_out_of_time_and_costs_little(own_service: Service, one: Client) -> None:
    cell = own_service.cell(one)
    pids = [cell, *own_service.pids("front desk")]
    before = [peak(pid) for pid in pids]
    with asking(one, ENDLESS) as response:
        pieces = response.iter_raw()
        next(pieces)
        other = own_service.client(one.token)
        # Answered once the slow one's time is over, though nobody has read on.
        assert other.sql("SELECT x FROM kept").rows == [["safe"]]
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    for pid, most in zip(pids, before, strict=True):
        assert peak(pid) - most < MOST_GROWTH, pid
    assert is_well(own_service, one, cell)


def test_many_slow_readers_cost_little_each(own_service: Service) -> None:
    clients = [own_service.client() for _ in range(8)]
    for client in clients:
        client.call("SELECT 1", {"Accept": CSV})
    (desk,) = own_service.pids("front desk")
    before = peak(desk)
    with contextlib.ExitStack() as open_ones:
        for client in clients:
            response = open_ones.enter_context(asking(client, ENDLESS))
            next(response.iter_raw())
        for client in clients:
            assert own_service.client(client.token).sql("SELECT 1").rows == [[1]]
    assert peak(desk) - before < len(clients) * 3 * MIB


def test_a_caller_who_leaves_in_the_middle_frees_the_database_at_once(service: Service) -> None:
    client = service.client()  # it has two seconds
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES('safe')")
    cell = service.cell(client)
    for _ in range(3):
        with asking(client, ENDLESS) as response:
            next(response.iter_raw())
        assert is_well(service, client, cell)


def test_others_wait_for_a_long_answer_and_get_theirs(service: Service) -> None:
    client = service.client()
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES('safe')")
    others = [service.client(client.token) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool, asking(client, LONG) as response:
        pieces = response.iter_raw()
        first = next(pieces)
        calls = [pool.submit(other.sql, "SELECT x FROM kept") for other in others]
        for _ in range(10):  # the front desk has had many turns when this is over
            assert client.get("/healthz").status == 200
        assert not any(call.done() for call in calls)
        whole = first + b"".join(pieces)
        assert [call.result().rows for call in calls] == [[["safe"]]] * 3
    assert whole.count(b"\n") == ROWS + 1


def test_what_writes_or_is_not_last_is_capped_and_says_so(client: Client) -> None:
    client.sql("CREATE TABLE t(a)")
    numbers = LONG.replace(str(ROWS), "20000").partition(" SELECT i, ")[0]
    for sql in (
        f"{numbers} INSERT INTO t SELECT i FROM n RETURNING a",
        f"{numbers} SELECT i FROM n; DELETE FROM t",
    ):
        answer = client.call(sql, {"Accept": NDJSON})
        assert answer.text.count("\n") == 10_000
        assert answer.headers["x-walkin-truncated"] == "max_rows"
        assert json.loads(answer.text.splitlines()[-1]).popitem()[1] == 10_000
