"""`walkin serve` from outside: it greets, answers, stops, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

from tests.handles import Client, Service, wait_until


def test_first_call_makes_a_database_and_the_next_one_uses_it(client: Client) -> None:
    made = client.sql('create table kv(k, v); insert into kv values("greeting", "hello")')
    assert (made.status, made.json) == (200, {"rows_affected": 1})
    assert made.headers["x-walkin-session"].startswith("wkn_")
    read = client.sql("select * from kv")
    assert read.json == {"columns": ["k", "v"], "rows": [["greeting", "hello"]], "rows_affected": 0}
    assert "x-walkin-session" not in read.headers
    assert "x-walkin-ttl" not in read.headers


def test_stops_with_status_0_and_without_a_process_left(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    service.client().sql("select 1")
    roles = ["zygote", "reaper", "front desk", "blank cell"]
    pids = [pid for role in roles for pid in service.pids(role)]
    assert len(pids) >= len(roles)
    assert service.stop() == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5, "all gone")
