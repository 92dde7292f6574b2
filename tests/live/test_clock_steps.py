"""The machine's clock set forwards and back: no life is shorter or longer, no limit is stuck."""

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.handles import Client, Service, wait_until
from tests.machine import SteppedClock

#: Times are judged here.
pytestmark = pytest.mark.alone

HOUR = 3600
TTL_S = 4
GONE_S = 5.5


@pytest.fixture
def stepped(folder: Path) -> SteppedClock:
    return SteppedClock(folder / "clock")


def opened(service: Service) -> Client:
    client = service.client()
    assert client.sql("CREATE TABLE t(x); INSERT INTO t VALUES (1)").status == 200
    return client


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forwards", "back"])
def test_a_step_ends_no_life_early_and_none_late(
    make_service: Callable[..., Service], stepped: SteppedClock, seconds: int
) -> None:
    service = make_service(python_path=stepped.folder, ttl_s=TTL_S)
    old = opened(service)
    assert old.expires
    stepped.step(seconds)
    wait_until(lambda: f"the machine's clock was set: it is {seconds:+}" in service.log(), 5)
    new = opened(service)
    assert new.expires
    assert 0 <= new.expires - old.expires <= 2, "told by the same clock"
    for client in (old, new):
        assert client.sql("SELECT x FROM t").rows == [[1]]
    for role in ("zygote", "reaper"):  # what is started anew goes by the same clock
        before = service.signal(role, signal.SIGKILL)
        wait_until(lambda role=role, before=before: service.pids(role) not in ([], [before]), 10)
    assert time.time() < old.expires, "the machine is too slow for this test"
    assert old.sql("SELECT x FROM t").rows == [[1]]
    wait_until(lambda: time.time() >= new.expires, TTL_S + 2)
    for client in (old, new):
        assert (client.sql("SELECT 1").status, client.sql("SELECT 1").code) == (
            404,
            "instance_expired",
        )
    wait_until(lambda: not service.traces(), GONE_S, "both are removed in time")


def test_what_has_expired_does_not_come_back_with_the_time(
    make_service: Callable[..., Service], stepped: SteppedClock
) -> None:
    service = make_service(python_path=stepped.folder, ttl_s=1)
    client = opened(service)
    reaper = service.signal("reaper", signal.SIGSTOP)
    try:
        wait_until(lambda: client.sql("SELECT 1").status == 404, 4)
        stepped.step(-HOUR)
        assert service.traces(), "it is still there"
        assert client.sql("SELECT x FROM t").code == "instance_expired"
        service.signal("zygote", signal.SIGKILL)
        again = wait_until(lambda: (said := client.sql("SELECT x FROM t")).status != 503 and said)
        assert again.code == "instance_expired"
    finally:
        with contextlib.suppress(ProcessLookupError):
            service.signal("reaper", signal.SIGCONT)
    wait_until(lambda: not service.traces(), GONE_S)
    assert service.pids("reaper") == [reaper]


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forwards", "back"])
def test_a_step_locks_nobody_out(
    make_service: Callable[..., Service], stepped: SteppedClock, seconds: int
) -> None:
    service = make_service(python_path=stepped.folder, requests_per_min=5, creations_per_min=5)
    client = opened(service)
    for _ in range(5):
        answer = client.sql("SELECT 1")
    assert answer.code == "rate_limited"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    stepped.step(seconds)
    assert client.sql("SELECT 1").status == 200
    for _ in range(5):
        answer = client.sql("SELECT 1")
    assert answer.code == "rate_limited", "and the limit still holds"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
