"""Copies of a database over HTTP: of one moment, independent, bounded, whole whatever is killed."""

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.handles import Client, Service, wait_until


def fork(client: Client, said: Any = None, token: str | None = None) -> httpx.Response:
    headers = {"X-Walkin-Session": token or client.token or ""}
    if said is None:
        return client.http.post("/session/fork", headers=headers)
    return client.http.post("/session/fork", json=said, headers=headers)


@pytest.fixture
def holder(client: Client) -> Client:
    client.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    return client


def test_a_copy_is_a_database_of_its_own(service: Service, holder: Client) -> None:
    made = fork(holder)
    told = made.json()
    assert made.status_code == 201
    assert (told["token"], str(told["expires"])) == (
        made.headers["x-walkin-session"],
        made.headers["x-walkin-ttl"],
    )
    assert 598 <= told["seconds_left"] <= 600
    assert (told["scope"], told["token"] != holder.token) == ("full", True)
    copy = service.client(told["token"])
    copy.sql("INSERT INTO t VALUES(2)")
    holder.sql("INSERT INTO t VALUES(3)")
    assert copy.sql("SELECT a FROM t").rows == [[1], [2]]
    assert holder.sql("SELECT a FROM t").rows == [[1], [3]]
    holder.http.delete("/session", headers={"X-Walkin-Session": holder.token or ""})
    assert copy.sql("SELECT a FROM t").rows == [[1], [2]], "it outlives its source"


def test_many_at_once_are_of_one_moment(service: Service, holder: Client) -> None:
    stop = threading.Event()

    def write() -> None:
        writer = service.client(holder.token)
        while not stop.is_set():
            writer.sql("INSERT INTO t SELECT max(a) + 1 FROM t")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            made = fork(holder, {"count": 32, "ttl_s": 30})
        finally:
            stop.set()
        writing.result(10)
    forks = made.json()["forks"]
    assert len({one["token"] for one in forks}) == len(forks) == 32
    assert "x-walkin-session" not in made.headers
    assert all(28 <= one["seconds_left"] <= 30 for one in forks)
    seen = [service.client(one["token"]).sql("SELECT count(*), max(a) FROM t") for one in forks]
    assert all(one.rows == seen[0].rows for one in seen)
    ((count, most),) = seen[0].rows
    assert count == most


def test_one_by_count_is_answered_as_many(holder: Client) -> None:
    assert [sorted(one) for one in fork(holder, {"count": 1}).json()["forks"]] == [
        ["created", "expires", "scope", "seconds_left", "token"]
    ]


@pytest.mark.parametrize(
    ("said", "option"),
    [
        ({"count": 0}, "count"),
        ({"count": 33}, "count"),
        ({"count": True}, "count"),
        ({"count": "2"}, "count"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": 3601}, "ttl_s"),
    ],
)
def test_a_wrong_option_is_named(holder: Client, said: dict[str, Any], option: str) -> None:
    refused = fork(holder, said)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_option")
    assert refused.json()["option"] == option


def test_without_a_good_token_nothing_is_copied(client: Client) -> None:
    for token in ("wkn_wrong", ""):
        refused = fork(client, token=token)
        assert (refused.status_code, refused.json()["code"]) == (404, "instance_not_found")


def test_what_has_expired_is_not_copied(make_service: Callable[..., Service]) -> None:
    service = make_service(ttl_s=1)
    holder = service.client()
    holder.sql("CREATE TABLE t(a)")
    wait_until(lambda: holder.sql("SELECT 1").code == "instance_expired", 5)
    assert fork(holder).json()["code"] == "instance_expired"


def test_a_call_in_work_does_not_tear_it_and_goes_on(service: Service, holder: Client) -> None:
    holder.sql(
        "INSERT INTO t SELECT zeroblob(1000) FROM json_each('[' || ltrim(replace(hex("
        "zeroblob(499)), '00', ',0'), ',') || ']')"
    )
    total = "SELECT count(*) FROM t"
    ((before,),) = holder.sql(total).rows
    assert before == 500
    writer = service.client(holder.token)
    long = (
        "BEGIN; DELETE FROM t; INSERT INTO t SELECT 1 FROM (WITH RECURSIVE n(i) AS (VALUES(1)"
        " UNION ALL SELECT i + 1 FROM n WHERE i < 700000) SELECT i FROM n); COMMIT"
    )
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(writer.sql, long)
        seen = set()
        while not writing.done():
            copy = service.client(fork(holder).json()["token"])
            ((count,),) = copy.sql(total).rows
            assert copy.sql("PRAGMA integrity_check").rows == [["ok"]]
            seen.add(count)
        assert writing.result().status == 200, "it was not ended by standing still"
    assert 500 in seen
    assert seen <= {500, 700_000}, "all of a transaction or nothing"


def test_a_copy_is_as_whole_as_its_source_when_the_cell_is_killed(
    service: Service, holder: Client
) -> None:
    for number in range(20):
        assert holder.sql("INSERT INTO t VALUES(?)", [number]).status == 200
        os.kill(service.cell(holder), signal.SIGKILL)
        copy = service.client(fork(holder).json()["token"])
        assert copy.sql("SELECT count(*) FROM t").rows == [[number + 2]]
        assert copy.sql("PRAGMA integrity_check").rows == [["ok"]]


def test_copies_have_a_limit_of_their_own(make_service: Callable[..., Service]) -> None:
    service = make_service(forks_per_min=4, creations_per_min=1)
    holder = service.client()
    holder.sql("CREATE TABLE t(a)")
    assert fork(holder, {"count": 3}).status_code == 201
    refused = fork(holder, {"count": 2})
    assert (refused.status_code, refused.json()["code"]) == (429, "creation_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert '"forks";r=1' in refused.headers["ratelimit"]
    assert fork(holder).status_code == 201, "what was refused has not counted"
    assert len([path for path in service.traces() if "instances" in str(path)]) == 5


def test_copies_go_when_their_time_is_over(make_service: Callable[..., Service]) -> None:
    service = make_service()
    holder = service.client()
    holder.sql("CREATE TABLE t(a)")
    made = fork(holder, {"count": 8, "ttl_s": 1}).json()["forks"]
    assert holder.get("/status").json["instances"] == 9
    kept = holder.instance
    wait_until(
        lambda: all(kept in str(path) for path in service.traces()), 8, "the copies are gone"
    )
    assert service.client(made[0]["token"]).sql("SELECT 1").code == "instance_expired"
    assert holder.sql("SELECT count(*) FROM t").rows == [[0]]


def test_a_megabyte_is_copied_within_20_ms(holder: Client) -> None:
    holder.sql("INSERT INTO t VALUES(randomblob(1000000))")
    took = []
    for _ in range(21):
        began = time.perf_counter()
        assert fork(holder).status_code == 201
        took.append(time.perf_counter() - began)
    print(f"p50 {statistics.median(took) * 1000:.1f} ms")
    assert statistics.median(took) < 0.020
