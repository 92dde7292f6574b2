"""The life of a database over HTTP: made without SQL, looked at, extended, ended at once."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.handles import Client, Service, cpu_s, wait_until

GONE_S = 6
ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


class Holder:
    """Whoever has a token, or none."""

    def __init__(self, service: Service, token: str | None = None) -> None:
        self.client = service.client(token)
        self.url = service.url

    def ask(self, method: str, said: Any = None) -> httpx.Response:
        headers = {"X-Walkin-Session": self.client.token} if self.client.token else {}
        if said is not None:
            return self.client.http.request(method, "/session", json=said, headers=headers)
        return self.client.http.request(method, "/session", headers=headers)


@pytest.fixture
def holder(service: Service) -> Iterator[Holder]:
    made = Holder(service)
    made.client.token = made.ask("POST").json()["token"]
    yield made
    made.ask("DELETE")


# --- make ---


def test_a_database_is_made_without_sql(service: Service) -> None:
    before = time.time()
    made = Holder(service).ask("POST")
    told = made.json()
    assert made.status_code == 201
    assert told["token"] == made.headers["x-walkin-session"]
    assert str(told["expires"]) == made.headers["x-walkin-ttl"]
    assert before + 600 <= told["expires"] <= time.time() + 601
    assert int(before) <= told["created"] <= time.time()
    assert 598 <= told["seconds_left"] <= 600
    assert told["scope"] == "full"
    assert service.client(told["token"]).sql("SELECT 1").rows == [[1]]


def test_its_lifetime_can_be_said(service: Service) -> None:
    before = time.time()
    made = Holder(service).ask("POST", {"ttl_s": 30}).json()
    assert before + 30 <= made["expires"] <= time.time() + 31
    longest = Holder(service).ask("POST", {"ttl_s": 3600}).json()
    assert before + 3600 <= longest["expires"] <= time.time() + 3601


@pytest.mark.parametrize("ttl_s", [0, -1, 3601, 1.5, "30", True, [30]])
def test_a_lifetime_of_a_wrong_value_is_named(service: Service, ttl_s: object) -> None:
    refused = Holder(service).ask("POST", {"ttl_s": ttl_s})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_option")
    assert refused.json()["option"] == "ttl_s"
    assert "x-walkin-session" not in refused.headers


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b'{"ttl": 1}', "application/json", 400, "unknown_field"),
        (b"[]", "application/json", 400, "invalid_json"),
        (b"{", "application/json", 400, "invalid_json"),
        (b'{"ttl_s": 1, "ttl_s": 2}', "application/json", 400, "invalid_json"),
        (b"{}", "text/plain", 415, "content_type"),
        (b" " * 9000, "application/json", 413, "body_too_large"),
    ],
)
def test_a_wrong_body_makes_nothing(
    client: Client, body: bytes, content_type: str, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type}
    refused = client.http.post("/session", content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert "x-walkin-session" not in refused.headers


def test_a_database_made_so_counts_as_one(make_service: Callable[..., Service]) -> None:
    service = make_service(creations_per_min=2)
    asked = [Holder(service).ask("POST") for _ in range(3)]
    assert [answer.status_code for answer in asked] == [201, 201, 429]
    assert int(asked[2].headers["retry-after"]) > 0


# --- see ---


def test_it_tells_how_large_it_is(holder: Holder) -> None:
    empty = holder.ask("GET").json()
    assert (empty["bytes_used"], empty["tables"]) == (4096, 0)
    assert empty["bytes_allowed"] == 10 * (1 << 20)
    holder.client.sql(
        "CREATE TABLE t(a); CREATE VIEW v AS SELECT 1; CREATE VIRTUAL TABLE f USING fts5(a);"
        " INSERT INTO t VALUES (zeroblob(100000))"
    )
    full = holder.ask("GET").json()
    assert full["tables"] == 2, "neither a view nor what is FTS5's own"
    assert full["bytes_used"] > 100_000
    assert full["expires"] == empty["expires"], "looking is no use"


def test_without_a_token_or_with_a_wrong_one_there_is_nothing(service: Service) -> None:
    for token in (None, "wkn_wrong"):
        stranger = Holder(service, token)
        for method, said in (("GET", None), ("DELETE", None), ("PATCH", {"extend_s": 1})):
            refused = stranger.ask(method, said)
            assert (refused.status_code, refused.json()["code"]) == (404, "instance_not_found")


# --- extend ---


def test_an_extended_database_lives_on_and_ends_then(make_service: Callable[..., Service]) -> None:
    service = make_service(ttl_s=1)
    holder = Holder(service)
    made = holder.ask("POST").json()
    holder.client.token = made["token"]
    holder.client.sql("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
    longer = holder.ask("PATCH", {"extend_s": 3}).json()
    assert longer["expires"] == made["expires"] + 3
    wait_until(lambda: time.time() > made["expires"] + 1.5, 6)
    assert holder.client.sql("SELECT x FROM t").rows == [[1]], "beyond its first end"
    wait_until(lambda: time.time() >= longer["expires"], 6)
    assert holder.client.sql("SELECT x FROM t").code == "instance_expired"
    wait_until(lambda: not service.traces(), GONE_S, "all of it is gone")


def test_an_extended_database_outlives_zygote_and_restart(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(ttl_s=2)
    holder = Holder(service)
    made = holder.ask("POST").json()
    token = holder.client.token = made["token"]
    holder.client.sql("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
    assert holder.ask("PATCH", {"extend_s": 60}).status_code == 200
    service.signal("zygote", signal.SIGKILL)
    wait_until(lambda: time.time() > made["expires"] + 1, 6)
    assert holder.client.sql("SELECT x FROM t").rows == [[1]]
    service.stop()
    service.start()
    again = Holder(service, token)
    assert again.client.sql("SELECT x FROM t").rows == [[1]]
    assert again.ask("GET").json()["expires"] == made["expires"] + 60


def test_every_worker_learns_of_the_later_end(make_service: Callable[..., Service]) -> None:
    service = make_service(workers=2, ttl_s=2)
    made = Holder(service).ask("POST").json()
    holders = [Holder(service, made["token"]) for _ in range(12)]  # at both workers, most likely
    for one in holders:
        assert one.client.sql("SELECT 1").status == 200
    assert holders[0].ask("PATCH", {"extend_s": 30}).status_code == 200
    wait_until(lambda: time.time() > made["expires"] + 0.5, 6)
    assert {one.client.sql("SELECT 1").status for one in holders} == {200}


def test_nothing_lives_longer_than_the_longest_life(make_service: Callable[..., Service]) -> None:
    service = make_service(max_life_s=700)
    holder = Holder(service)
    holder.client.token = holder.ask("POST").json()["token"]
    assert holder.ask("PATCH", {"extend_s": 90}).status_code == 200
    for said in ({"extend_s": 20}, {"expires_at": int(time.time()) + 710}):
        refused = holder.ask("PATCH", said)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_option")
        assert "700 s" in refused.json()["error"]
    assert holder.ask("GET").json()["seconds_left"] <= 691


def test_only_who_says_a_second_makes_it_shorter(holder: Holder) -> None:
    at = int(time.time()) + 100
    assert holder.ask("PATCH", {"expires_at": at}).json()["expires"] == at
    assert holder.ask("PATCH", {"extend_s": 1}).json()["expires"] == at + 1


@pytest.mark.parametrize(
    "said",
    [{}, {"extend_s": 0}, {"extend_s": "1"}, {"expires_at": -1}, {"extend_s": 1, "expires_at": 9}],
)
def test_a_wrong_change_changes_nothing(holder: Holder, said: dict[str, object]) -> None:
    before = holder.ask("GET").json()["expires"]
    refused = holder.ask("PATCH", said)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_option")
    assert holder.ask("GET").json()["expires"] == before


# --- end ---


def test_an_ended_database_is_gone_at_once(make_service: Callable[..., Service]) -> None:
    service = make_service()
    holder, neighbour = Holder(service), service.client()
    holder.client.token = holder.ask("POST").json()["token"]
    neighbour.sql("CREATE TABLE kept(x)")
    cell = service.cell(holder.client)
    ended = holder.ask("DELETE")
    assert (ended.status_code, ended.content) == (204, b"")
    assert not service.pids(f"cell {holder.client.instance}"), cell
    assert holder.client.sql("SELECT 1").code == "instance_expired"
    for method, said in (("DELETE", None), ("GET", None), ("PATCH", {"extend_s": 9})):
        assert holder.ask(method, said).status_code == 404
    instance = holder.client.instance
    wait_until(
        lambda: not any(instance in str(path) for path in service.traces()), GONE_S, "its traces"
    )
    assert neighbour.sql("SELECT * FROM kept").rows == []
    assert neighbour.get("/status").json["instances"] == 1


def test_an_end_in_the_middle_of_a_call_tells_the_call(service: Service) -> None:
    holder = Holder(service)
    holder.client.token = holder.ask("POST").json()["token"]
    slow = Holder(service, holder.client.token)
    cell = service.cell(holder.client)
    spent = cpu_s(cell)
    with ThreadPoolExecutor(1) as caller:
        calling = caller.submit(lambda: slow.client.sql(ENDLESS))
        wait_until(lambda: cpu_s(cell) > spent + 0.1, 5, "it is at work")
        assert holder.ask("DELETE").status_code == 204
        answer = calling.result(10)
    assert (answer.status, answer.code) in ((404, "instance_expired"), (500, "cell_lost")), answer


def test_an_end_is_kept_though_the_zygote_dies_right_after(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    holder = Holder(service)
    holder.client.token = holder.ask("POST").json()["token"]
    assert holder.ask("DELETE").status_code == 204
    service.signal("zygote", signal.SIGKILL)
    wait_until(lambda: holder.client.sql("SELECT 1").status != 503, 10)
    assert holder.client.sql("SELECT 1").code == "instance_expired"
    wait_until(lambda: not service.traces(), GONE_S)


def test_a_path_of_many_methods_tells_them_all(client: Client) -> None:
    refused = client.http.put("/session")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
    assert client.http.options("/session").status_code == 204
