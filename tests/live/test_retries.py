"""Idempotency-Key: a call that is sent again under its key is not run again."""

import itertools
import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.handles import Answer, Client, Service

TABLE = "sqlite_walkin_receipts"


def send(client: Client, key: str, sql: str, accept: str = "*/*", **options: Any) -> Answer:
    return client.call(sql, {"Idempotency-Key": key, "Accept": accept}, **options)


def is_replay(answer: Answer) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


@pytest.fixture
def kept(client: Client) -> Client:
    """A caller with a table, a view made before the first key, and one kept answer."""
    sql = "CREATE TABLE t(a); CREATE VIEW early AS SELECT * FROM sqlite_schema"
    assert client.sql(sql).status == 200
    assert send(client, "first", "INSERT INTO t VALUES(1)").json == {"rows_affected": 1}
    return client


def count(client: Client) -> int:
    ((found,),) = client.sql("SELECT count(*) FROM t").rows
    return int(found)


@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/x-ndjson"])
def test_a_repeat_is_answered_the_same_and_changes_nothing(kept: Client, accept: str) -> None:
    sql = "INSERT INTO t VALUES(random()) RETURNING a"
    once = send(kept, "k", sql, accept)
    assert not is_replay(once)
    for _ in range(3):
        again = send(kept, "k", sql, accept)
        assert is_replay(again)
        assert (again.status, again.text) == (once.status, once.text)
        assert again.headers["content-type"] == once.headers["content-type"]
    assert count(kept) == 2


def test_what_a_cut_answer_said_in_its_header_is_kept_too(kept: Client) -> None:
    sql = "INSERT INTO t VALUES(1), (2), (3) RETURNING a"
    answers = [send(kept, "k", sql, "text/csv", max_rows=2) for _ in range(2)]
    assert [answer.headers["x-walkin-truncated"] for answer in answers] == ["max_rows"] * 2
    assert [is_replay(answer) for answer in answers] == [False, True]


def test_the_first_call_of_a_database_may_have_a_key(service: Service) -> None:
    client = service.client()
    assert send(client, "k", "CREATE TABLE t(a)").status == 200
    assert is_replay(send(client, "k", "CREATE TABLE t(a)"))


def test_a_key_is_as_good_in_quotes(kept: Client) -> None:
    assert is_replay(send(kept, '"first"', "INSERT INTO t VALUES(1)"))


def test_another_call_under_the_same_key_is_refused(kept: Client) -> None:
    insert = "INSERT INTO t VALUES(1)"
    for other in (
        send(kept, "first", "INSERT INTO t VALUES(2)"),
        send(kept, "first", insert, atomic=True),
        send(kept, "first", insert, "text/csv"),
    ):
        assert (other.status, other.code) == (409, "key_reused")
        assert other.json["retryable"] is False
    assert count(kept) == 1
    assert is_replay(send(kept, "first", insert))


def test_another_database_knows_nothing_of_a_key(service: Service, kept: Client) -> None:
    other = service.client()
    other.sql("CREATE TABLE t(a)")
    assert not is_replay(send(other, "first", "INSERT INTO t VALUES(1)"))


@pytest.mark.parametrize("key", ["", "ü", "x" * 256, "a\tb"])
def test_what_is_no_key_is_refused(client: Client, key: str) -> None:
    body = json.dumps({"sql": "SELECT 1"}).encode()
    headers = [("Idempotency-Key", key.encode()), ("Content-Type", b"application/json")]
    answer = Answer(client.http.post("/sql", content=body, headers=headers))
    assert (answer.status, answer.code) == (400, "invalid_option")


def test_two_keys_are_refused(client: Client) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    headers.append(("Content-Type", "application/json"))
    answer = Answer(client.http.post("/sql", content=b'{"sql": "SELECT 1"}', headers=headers))
    assert answer.code == "invalid_option"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES(2); SELEC",
        "INSERT INTO t VALUES(2); SELECT nope",
        "INSERT INTO t VALUES(2); COMMIT",
        "INSERT INTO t VALUES(2) RETURNING abs(-9223372036854775807 - 1)",
    ],
)
def test_an_error_is_rolled_back_and_keeps_no_receipt(kept: Client, sql: str) -> None:
    for _ in range(2):
        failed = send(kept, "k", sql)
        assert (failed.status, failed.json["rolled_back"]) == (400, True)
        assert not is_replay(failed)
    assert count(kept) == 1
    assert send(kept, "k", "INSERT INTO t VALUES(2)").json == {"rows_affected": 1}


def test_a_call_that_only_reads_is_run_each_time(kept: Client) -> None:
    sql = "SELECT count(*) FROM t"
    assert send(kept, "k", sql, readonly=True).rows == [[1]]
    kept.sql("INSERT INTO t VALUES(2)")
    assert send(kept, "k", sql, readonly=True).rows == [[2]]


# --- bounds ---


def test_the_oldest_of_more_than_100_is_forgotten_and_runs_again(kept: Client) -> None:
    for number in range(100):
        assert send(kept, f"k{number}", "INSERT INTO t VALUES(1)").status == 200
    assert is_replay(send(kept, "k0", "INSERT INTO t VALUES(1)"))
    assert not is_replay(send(kept, "first", "INSERT INTO t VALUES(1)"))
    assert count(kept) == 102


def test_an_answer_too_long_to_be_kept_is_refused_and_rolled_back(kept: Client) -> None:
    sql = "INSERT INTO t VALUES(1) RETURNING printf('%0{}d', 1) AS a"
    long = send(kept, "k", sql.format(65_500))
    assert (long.status, long.code) == (400, "invalid_option")
    assert long.json["rolled_back"] is True
    assert count(kept) == 1
    assert send(kept, "k", sql.format(65_000)).status == 200
    assert is_replay(send(kept, "k", sql.format(65_000)))


def test_all_of_them_together_are_bounded(kept: Client) -> None:
    sql = "SELECT printf('%060000d', 1)"
    for number in range(40):
        assert send(kept, f"k{number}", sql).status == 200
    assert is_replay(send(kept, "k32", sql)), "eight of them have room"
    assert not is_replay(send(kept, "k0", sql))
    ((pages,),) = kept.sql("PRAGMA page_count").rows
    assert pages * 4096 < 1 << 20


def test_a_full_database_leaves_nothing_half(kept: Client) -> None:
    fill = "INSERT INTO t VALUES(zeroblob(900000)), (zeroblob(90000))"
    full = next(one for n in itertools.count() if (one := send(kept, f"f{n}", fill)).status != 200)
    assert (full.status, full.code, full.json["rolled_back"]) == (507, "quota_exceeded", True)
    before = count(kept)
    again = [send(kept, "full", fill) for _ in range(2)]
    assert [(one.status, is_replay(one)) for one in again] == [(507, False)] * 2
    assert count(kept) == before
    assert is_replay(send(kept, "f0", fill))
    kept.sql("DELETE FROM t")
    assert send(kept, "full", fill).json == {"rows_affected": 2}


# --- what may end in the middle ---


def test_every_row_is_there_once_however_often_the_cell_is_killed(service: Service) -> None:
    first = service.client()
    first.sql("CREATE TABLE t(a)")
    is_over = threading.Event()

    def insert(caller: int) -> list[int]:
        client = service.client(first.token)
        done = []
        for number in itertools.count(caller, 4):
            if is_over.is_set():
                return done
            while send(client, f"k{number}", f"INSERT INTO t VALUES({number})").status != 200:
                pass
            done.append(number)
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(insert, caller) for caller in range(4)]
        kills = 0
        while kills < 30 and not any(caller.done() for caller in callers):
            for cell in service.pids(f"cell {first.instance}"):
                os.kill(cell, signal.SIGKILL)
                kills += 1
        is_over.set()
        done = sorted(number for caller in callers for number in caller.result())
    assert len(done) > 10
    assert first.sql("SELECT a FROM t ORDER BY a").rows == [[number] for number in done]
    assert first.sql("PRAGMA integrity_check").rows == [["ok"]]


def test_receipts_outlive_a_restart(make_service: Callable[..., Service]) -> None:
    service = make_service()
    client = service.client()
    send(client, "k", "CREATE TABLE t(a)")
    assert service.stop() == 0
    client = service.start().client(client.token)
    assert is_replay(send(client, "k", "CREATE TABLE t(a)"))
