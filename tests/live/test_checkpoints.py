"""Named states over HTTP: kept, gone back to, bounded, whole whatever is killed and whenever."""

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.handles import Client, Service, is_running, wait_until

RICH = """
    CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT CHECK(length(a) < 100), b BLOB);
    CREATE INDEX by_a ON t(a);
    CREATE VIRTUAL TABLE f USING fts5(words);
    CREATE VIRTUAL TABLE r USING rtree(id, x0, x1);
    CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO f VALUES(new.a); END;
    INSERT INTO t VALUES(1, 'one', x'00ff'), (2, 'two words', NULL);
    INSERT INTO r VALUES(1, 0.5, 1.5);
    PRAGMA user_version = 7
"""
#: A megabyte for each row.
MEGABYTES = "INSERT INTO big SELECT zeroblob(1000000) FROM json_each('[1,2,3,4,5,6,7,8,9]') LIMIT "


def ask(client: Client, method: str, name: str = "", **more: Any) -> httpx.Response:
    """One call: `name` is what comes behind /session/checkpoints."""
    headers = {"X-Walkin-Session": client.token or ""} | more.pop("headers", {})
    path = "/session/checkpoints" + (f"/{name}" if name else "")
    return client.http.request(method, path, headers=headers, **more)


def keep(client: Client, name: str) -> httpx.Response:
    return ask(client, "PUT", name)


def restore(client: Client, name: str) -> httpx.Response:
    return ask(client, "POST", f"{name}/restore")


def names(client: Client) -> list[str]:
    return [one["name"] for one in ask(client, "GET").json()["checkpoints"]]


def used(client: Client) -> int:
    headers = {"X-Walkin-Session": client.token or ""}
    return int(client.http.get("/session", headers=headers).json()["bytes_used"])


def dump(client: Client) -> str:
    return client.http.get("/dump.sql", headers={"X-Walkin-Session": client.token or ""}).text


@pytest.fixture
def holder(client: Client) -> Client:
    client.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    return client


def test_a_database_goes_back_to_what_it_was(client: Client) -> None:
    client.sql(RICH)
    before = dump(client)
    kept = keep(client, "rich")
    assert kept.status_code == 201
    assert kept.json() | {"created": 0, "bytes": 0} == {
        "name": "rich",
        "created": 0,
        "bytes": 0,
        "replaced": False,
    }
    assert abs(kept.json()["created"] - time.time()) < 5
    client.sql("DROP TABLE t; DROP TABLE f; CREATE TABLE x(y); PRAGMA user_version = 8")
    back = restore(client, "rich")
    told = {key: kept.json()[key] for key in ("name", "created", "bytes")}
    assert (back.status_code, back.json()) == (200, told)
    assert used(client) == 2 * kept.json()["bytes"]
    assert dump(client) == before
    assert client.sql("PRAGMA user_version").rows == [[7]]
    assert client.sql("SELECT words FROM f WHERE f MATCH 'words'").rows == [["two words"]]
    assert client.sql("PRAGMA integrity_check").rows == [["ok"]]
    client.sql("DELETE FROM t")
    assert restore(client, "rich").status_code == 200, "as often as one likes"
    assert dump(client) == before


def test_they_are_listed_replaced_and_dropped(holder: Client) -> None:
    assert ask(holder, "GET").json() == {"checkpoints": []}
    for name in ("b", "a.1", "A-2_x"):
        assert keep(holder, name).status_code == 201
    assert names(holder) == ["b", "a.1", "A-2_x"]
    holder.sql("INSERT INTO t VALUES(2)")
    again = keep(holder, "b")
    assert (again.status_code, again.json()["replaced"]) == (200, True)
    listed = ask(holder, "GET").json()["checkpoints"]
    assert listed[-1] == {key: again.json()[key] for key in ("name", "created", "bytes")}
    dropped = ask(holder, "DELETE", "a.1")
    assert (dropped.status_code, dropped.content) == (204, b"")
    assert names(holder) == ["A-2_x", "b"]
    holder.sql("DELETE FROM t")
    restore(holder, "b")
    assert holder.sql("SELECT a FROM t").rows == [[1], [2]]


def test_what_is_not_kept_is_not_found(holder: Client) -> None:
    for refused in (restore(holder, "none"), ask(holder, "DELETE", "none")):
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_checkpoint")
    assert holder.sql("SELECT a FROM t").rows == [[1]]


@pytest.mark.parametrize(
    "name", [".hidden", "%2e%2e", "a b", "%C3%A4", "-a", "a" * 65, "a%00", "a%0A"]
)
def test_a_name_is_plain(holder: Client, name: str) -> None:
    for refused in (keep(holder, name), restore(holder, name), ask(holder, "DELETE", name)):
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_option"), name
        assert refused.json()["option"] == "name"
    assert names(holder) == []


def test_a_slash_leads_to_another_path(holder: Client) -> None:
    for refused in (keep(holder, "a%2Fb"), ask(holder, "DELETE", "a/b"), keep(holder, "")):
        assert refused.status_code in (404, 405)
    assert names(holder) == []


def test_the_longest_name_is_one(holder: Client) -> None:
    assert keep(holder, "n" * 64).status_code == 201
    assert names(holder) == ["n" * 64]


def test_nothing_can_be_said_in_a_body(holder: Client) -> None:
    assert ask(holder, "PUT", "a", json={}).status_code == 201
    refused = ask(holder, "PUT", "b", json={"ttl_s": 5})
    assert (refused.status_code, refused.json()["code"]) == (400, "unknown_field")
    assert refused.json()["hint"] == "leave the body out"
    refused = ask(holder, "POST", "a/restore", content=b"now")
    assert (refused.status_code, refused.json()["code"]) == (415, "content_type")
    assert names(holder) == ["a"]


def test_other_tokens_get_nowhere(service: Service, holder: Client) -> None:
    keep(holder, "a")
    headers = {"X-Walkin-Session": holder.token or ""}
    narrow = holder.http.post("/session/tokens", json={"scope": "read"}, headers=headers).json()
    other = service.client()
    other.sql("SELECT 1")
    calls = [("GET", ""), ("PUT", "a"), ("POST", "a/restore"), ("DELETE", "a")]
    for method, name in calls:
        refused = ask(service.client(narrow["token"]), method, name)
        assert (refused.status_code, refused.json()["code"]) == (403, "token_too_narrow")
        for token in ("wkn_wrong", "", (holder.token or "")[:-4] + "AAAA"):
            refused = ask(service.client(token), method, name)
            assert (refused.status_code, refused.json()["code"]) == (404, "instance_not_found")
    assert names(other) == []
    assert restore(other, "a").json()["code"] == "unknown_checkpoint"
    assert names(holder) == ["a"]


def test_a_copy_has_none_of_them(service: Service, holder: Client) -> None:
    keep(holder, "a")
    headers = {"X-Walkin-Session": holder.token or ""}
    copy = service.client(holder.http.post("/session/fork", headers=headers).json()["token"])
    assert names(copy) == []
    keep(copy, "b")
    assert names(holder) == ["a"]


def test_an_answer_kept_for_a_retry_goes_back_too(holder: Client) -> None:
    insert, headers = "INSERT INTO t VALUES(2)", {"Idempotency_Key": "one"}
    keep(holder, "before")
    assert holder.sql(insert, **headers).headers.get("idempotency-replayed") is None
    assert holder.sql(insert, **headers).headers.get("idempotency-replayed") == "true"
    restore(holder, "before")
    assert holder.sql("SELECT a FROM t").rows == [[1]]
    assert holder.sql(insert, **headers).headers.get("idempotency-replayed") is None
    assert holder.sql("SELECT a FROM t").rows == [[1], [2]]


# --- the quota ---


def test_they_count_within_the_quota(client: Client) -> None:
    client.sql("CREATE TABLE big(x)")
    assert client.sql(MEGABYTES + "3").status == 200
    before = used(client)
    assert keep(client, "three").status_code == 201
    assert used(client) == 2 * before
    assert client.sql(MEGABYTES + "5").code == "quota_exceeded"
    assert client.sql("PRAGMA max_page_count = 2560").code == "not_authorized"
    assert client.sql(MEGABYTES + "3").status == 200
    refused = keep(client, "six")
    assert (refused.status_code, refused.json()["code"]) == (507, "quota_exceeded")
    assert "drop one" in refused.json()["hint"]
    assert client.sql("SELECT count(*) FROM big").rows == [[6]]
    assert restore(client, "three").status_code == 200
    assert client.sql("SELECT count(*) FROM big").rows == [[3]]
    assert ask(client, "DELETE", "three").status_code == 204
    assert used(client) == before
    assert client.sql(MEGABYTES + "6").status == 200


def test_half_a_database_can_be_kept_and_more_cannot(client: Client) -> None:
    client.sql("CREATE TABLE big(x)")
    client.sql(MEGABYTES + "5")
    assert keep(client, "five").status_code == 201
    ask(client, "DELETE", "five")
    client.sql(MEGABYTES + "1")
    assert keep(client, "six").json()["code"] == "quota_exceeded"


def test_going_back_always_has_room(client: Client) -> None:
    client.sql("CREATE TABLE big(x)")
    client.sql(MEGABYTES + "4")
    assert keep(client, "four").status_code == 201
    client.sql("DELETE FROM big")
    client.sql("VACUUM")
    assert keep(client, "none").status_code == 201
    client.sql(MEGABYTES + "3")
    assert keep(client, "three").status_code == 507, "there would be no room to go back to four"
    for name, count in (("four", 4), ("none", 0), ("four", 4)):
        assert restore(client, name).status_code == 200
        assert client.sql("SELECT count(*) FROM big").rows == [[count]]


def test_a_file_beyond_what_is_left_is_refused_and_changes_nothing(
    client: Client, tmp_path: Path
) -> None:
    client.sql("CREATE TABLE big(x)")
    client.sql(MEGABYTES + "3")
    keep(client, "three")
    with sqlite3.connect(tmp_path / "file.db") as plain:
        plain.execute("CREATE TABLE other AS SELECT zeroblob(8000000) AS x")
        plain.execute("UPDATE other SET x = zeroblob(900000)")
        plain.executemany("INSERT INTO other VALUES(zeroblob(?))", [(900_000,)] * 8)
    plain.close()
    file = (tmp_path / "file.db").read_bytes()
    headers = {"X-Walkin-Session": client.token or ""}
    refused = client.http.put("/database", content=file, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (507, "quota_exceeded")
    assert client.sql("SELECT count(*) FROM big").rows == [[3]]
    ask(client, "DELETE", "three")
    assert client.http.put("/database", content=file, headers=headers).status_code == 200


def test_sixteen_are_the_most(holder: Client) -> None:
    for at in range(16):
        assert keep(holder, f"n{at}").status_code == 201
    assert keep(holder, "more").json()["code"] == "quota_exceeded"
    assert keep(holder, "n3").status_code == 200


# --- beside other calls ---


def test_calls_beside_it_are_all_answered_and_what_is_kept_is_of_one_moment(
    service: Service, holder: Client
) -> None:
    stop = threading.Event()
    holder.sql("DELETE FROM t")

    def write(_: int) -> int:
        writer, done = service.client(holder.token), 0
        while not stop.is_set():
            answer = writer.sql(
                "BEGIN; INSERT INTO t SELECT count(*) FROM t; INSERT INTO t SELECT count(*) FROM t;"
                " COMMIT"
            )
            assert answer.status == 200, answer
            done += 1
        return done

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, at) for at in range(3)]
        try:
            assert all(keep(holder, f"n{at}").status_code == 201 for at in range(10))
        finally:
            stop.set()
        done = sum(one.result(20) for one in writing)
    assert holder.sql("SELECT count(*) FROM t").rows == [[2 * done]], "no call is lost or run twice"
    counts = []
    for at in range(10):
        assert restore(holder, f"n{at}").status_code == 200
        ((count, most),) = holder.sql("SELECT count(*), max(a) FROM t").rows
        assert most in (None, count - 1)
        assert count % 2 == 0
        counts.append(count)
    assert counts == sorted(counts)


def test_with_several_front_desks_all_see_what_it_went_back_to(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(workers=2)
    holder = service.client()
    holder.sql("CREATE TABLE t(a)")
    keep(holder, "empty")
    for number in range(8):
        clients = [service.client(holder.token) for _ in range(6)]
        for client in clients:
            assert client.sql("INSERT INTO t VALUES(?)", [number]).status == 200
        assert restore(clients[0], "empty").status_code == 200
        assert [client.sql("SELECT count(*) FROM t").rows for client in clients] == [[[0]]] * 6


def test_many_who_keep_and_go_back_are_told_what_was_done(service: Service, holder: Client) -> None:
    keep(holder, "one")
    stop = threading.Event()

    def others(_: int) -> None:
        other = service.client(holder.token)
        while not stop.is_set():
            assert keep(other, "other").status_code in (200, 201)

    with ThreadPoolExecutor(2) as pool:
        keeping = [pool.submit(others, at) for at in range(2)]
        try:
            for number in range(30):
                assert holder.sql("INSERT INTO t VALUES(2)").status == 200
                assert restore(holder, "one").status_code == 200, number
                assert holder.sql("SELECT a FROM t").rows == [[1]]
        finally:
            stop.set()
        for one in keeping:
            one.result(20)


def test_too_many_at_once_are_told_to_come_back(service: Service, holder: Client) -> None:
    with ThreadPoolExecutor(40) as pool:
        clients = [service.client(holder.token) for _ in range(40)]
        answers = list(pool.map(keep, clients, ["one"] * 40))
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {200, 201, 503}
    assert sum(answer.status_code != 503 for answer in answers) >= 9
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
    assert names(holder) == ["one"]


def test_one_may_be_called_restore(holder: Client) -> None:
    assert keep(holder, "restore").status_code == 201
    refused = ask(holder, "POST", "restore")
    assert (refused.status_code, refused.headers["allow"]) == (405, "PUT, DELETE, OPTIONS")
    assert restore(holder, "restore").status_code == 200


def test_what_can_only_be_refused_ends_no_cell(service: Service, holder: Client) -> None:
    cell = service.cell(holder)
    assert restore(holder, "none").status_code == 404
    assert ask(holder, "DELETE", "none").status_code == 404
    assert service.cell(holder) == cell


def test_a_long_call_is_waited_for(service: Service, holder: Client) -> None:
    long = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT 3000000)"
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            service.client(holder.token).sql, long + " INSERT INTO t SELECT max(i) FROM n"
        )
        time.sleep(0.05)
        kept = keep(holder, "after")
        assert writing.result(10).status == 200
    assert kept.status_code == 201
    restore(holder, "after")
    assert holder.sql("SELECT count(*) FROM t").rows == [[2]]


# --- the end ---


def test_they_go_when_the_database_goes(make_service: Callable[..., Service]) -> None:
    service = make_service(ttl_s=2)
    holder = service.client()
    holder.sql("CREATE TABLE t(a)")
    seen: list[tuple[int, str | None]] = []
    while not seen or seen[-1][0] != 404:
        answers = keep(holder, "a"), restore(holder, "a")
        seen += [(answer.status_code, answer.json().get("code")) for answer in answers]
    assert {status for status, _ in seen} <= {200, 201, 404}, seen
    assert seen[-1] == (404, "instance_expired")
    assert ask(holder, "GET").json()["code"] == "instance_expired"
    assert ask(holder, "DELETE", "a").json()["code"] == "instance_expired"
    wait_until(lambda: not service.traces(), 10, "nothing is left")


def test_an_ended_database_has_none(service: Service, holder: Client) -> None:
    keep(holder, "a")
    holder.http.delete("/session", headers={"X-Walkin-Session": holder.token or ""})
    assert restore(holder, "a").json()["code"] == "instance_expired"
    wait_until(lambda: not [path for path in service.traces() if path.name == holder.instance])


# --- faults ---


@pytest.mark.parametrize(("role", "rounds"), [("cell", 24), ("zygote", 8)])
def test_it_is_the_old_or_the_kept_state_whatever_is_killed(
    make_service: Callable[..., Service], role: str, rounds: int
) -> None:
    service = make_service()
    holder = service.client()
    holder.sql("CREATE TABLE big(x); CREATE TABLE kept(x)")
    holder.sql(MEGABYTES + "4")
    keep(holder, "kept")
    outcomes = set()
    with ThreadPoolExecutor(1) as pool:
        for number in range(rounds):
            holder.sql("DROP TABLE IF EXISTS kept; CREATE TABLE IF NOT EXISTS changed(x)")
            holder.sql("INSERT INTO changed VALUES(1)")
            victim = service.cell(holder) if role == "cell" else service.pid("zygote")
            going_back = pool.submit(restore, service.client(holder.token), "kept")
            time.sleep(0.012 * number / rounds)
            with contextlib.suppress(ProcessLookupError):  # it has ended for the other's sake
                os.kill(victim, signal.SIGKILL)
            status = going_back.result(20).status_code
            assert status in (200, 500, 503), status
            wait_until(lambda victim=victim: not is_running(victim), 10, "it has ended")
            if role == "zygote":
                service.pid("zygote")
            tables = wait_until(lambda: look(holder), 10, "it answers")
            assert tables in ({"big", "kept"}, {"big", "changed"})
            if status == 200:
                assert tables == {"big", "kept"}
            outcomes.add("kept" in tables)
            assert holder.sql("SELECT count(*) FROM big").rows == [[4]]
            assert holder.sql("PRAGMA integrity_check").rows == [["ok"]]
            assert names(holder) == ["kept"]
    assert True in outcomes


def look(client: Client) -> set[str] | None:
    answer = client.sql("SELECT name FROM sqlite_schema")
    assert answer.status in (200, 500, 503), answer
    return {name for (name,) in answer.rows} if answer.status == 200 else None


def test_what_is_kept_is_whole_whenever_the_zygote_is_killed(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    holder = service.client()
    holder.sql("CREATE TABLE big(x)")
    holder.sql(MEGABYTES + "3")
    assert keep(holder, "it").status_code == 201
    holder.sql("UPDATE big SET x = 'changed'")
    with ThreadPoolExecutor(1) as pool:
        for number in range(8):
            zygote = service.pid("zygote")
            keeping = pool.submit(keep, service.client(holder.token), "it")
            time.sleep(0.0006 * number)
            os.kill(zygote, signal.SIGKILL)
            assert keeping.result(20).status_code in (200, 503)
            wait_until(lambda: look(holder), 10, "it answers")
    assert names(holder) == ["it"]
    assert restore(holder, "it").status_code == 200
    assert holder.sql("PRAGMA integrity_check").rows == [["ok"]]
    assert holder.sql("SELECT DISTINCT length(x) FROM big").rows in ([[1_000_000]], [[7]])


def test_a_damaged_database_goes_back_to_a_sound_one(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    holder = service.client()
    holder.sql(RICH)
    before = dump(holder)
    keep(holder, "sound")
    holder.sql("INSERT INTO t(a) VALUES('x')")
    service.signal("zygote", signal.SIGTERM)
    wait_until(lambda: not service.pids(f"cell {holder.instance}"), 10)
    (file,) = service.data_dir.glob(f"cells/instances/*/{holder.instance}/main.db")
    file.write_bytes(os.urandom(30_000))
    file.with_name("main.db-wal").write_bytes(os.urandom(30_000))
    wait_until(lambda: holder.sql("SELECT 1").status == 400, 10, "it is damaged")
    refused = keep(holder, "spoilt")
    assert (refused.status_code, refused.json()["code"]) == (400, "sql_error")
    assert names(holder) == ["sound"]
    assert restore(holder, "sound").status_code == 200
    assert dump(holder) == before


def test_a_cell_that_was_killed_is_no_hindrance(service: Service, holder: Client) -> None:
    """It has left things out of the file; the next one takes them in."""
    holder.sql("INSERT INTO t VALUES(2)")
    os.kill(service.cell(holder), signal.SIGKILL)
    assert keep(holder, "a").status_code == 201
    holder.sql("DELETE FROM t")
    restore(holder, "a")
    assert holder.sql("SELECT a FROM t").rows == [[1], [2]]
