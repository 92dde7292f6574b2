"""Short of descriptors or processes: callers wait or are told to, and then all is well again."""

import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.handles import Client, Service, wait_until
from tests.machine import HUNGRY, little_memory, short_of

#: Times are judged here.
pytestmark = pytest.mark.alone


@pytest.mark.parametrize(
    ("role", "what", "room"),
    [
        ("zygote", resource.RLIMIT_NOFILE, 1),
        ("zygote", resource.RLIMIT_NPROC, 1),
        ("front desk", resource.RLIMIT_NOFILE, 1),
    ],
    ids=[
        "zygote without descriptors",
        "zygote without processes",
        "front desk without descriptors",
    ],
)
def test_a_shortage_is_told_and_passes(
    make_service: Callable[..., Service], role: str, what: int, room: int
) -> None:
    if what == resource.RLIMIT_NPROC and os.geteuid() != 0:
        pytest.skip("this user has other processes")
    service = make_service(creations_per_min=0, requests_per_min=0, blank_cells=1)
    client = service.client()
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    newcomers = [service.client() for _ in range(12)]
    for newcomer in newcomers:
        assert newcomer.get("/healthz").status == 200  # connected before there is none to be had
    (pid,) = service.pids(role)
    with short_of(pid, what, room):
        answers = [newcomer.sql("SELECT 1") for newcomer in newcomers]
        assert {answer.status for answer in answers} <= {200, 503}
        refused = [answer for answer in answers if answer.status == 503]
        assert refused, "there was a shortage"
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert client.sql("SELECT x FROM kept").rows == [[1]], "who has a line is not touched"
        assert client.get("/healthz").status == 200
    assert wait_until(lambda: service.client().sql("SELECT 1").status == 200, 10)
    assert client.sql("SELECT x FROM kept").rows == [[1]]
    # A child has its parent's title for a moment.
    wait_until(lambda: service.pids(role) == [pid], 5, "it has lived through it")
    assert "Traceback" not in service.log()


def test_callers_beyond_the_descriptors_wait_and_are_not_refused(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    known = service.client()
    assert known.get("/healthz").status == 200
    (pid,) = service.pids("front desk")
    with short_of(pid, resource.RLIMIT_NOFILE, 0):
        assert known.get("/healthz").status == 200
    late = Client(service.url)
    assert late.get("/healthz").status == 200
    late.close()


def test_when_memory_runs_out_cells_are_what_the_kernel_ends(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(creations_per_min=0, requests_per_min=0)
    client = service.client()
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    assert client.sql(HUNGRY).rows == [[400]]
    hungry = [service.client() for _ in range(4)]
    for one in hungry:
        one.sql("SELECT 1")
    parts = ("front desk", "zygote", "reaper")
    before = [service.pids(part) for part in parts]
    with little_memory([pid for pid, _ in service._family()], 32 << 20) as done:
        if not done:
            pytest.skip("no memory group can be made here")
        with ThreadPoolExecutor(len(hungry)) as callers:
            answers = list(callers.map(lambda one: one.sql(HUNGRY), hungry))
        assert {(answer.status, answer.code) for answer in answers} == {(500, "cell_lost")}
        assert service.client().get("/healthz").status == 200
        assert client.sql("SELECT x FROM kept").rows == [[1]]
    assert [service.pids(part) for part in parts] == before, "they have lived through it"
    assert client.sql(HUNGRY).rows == [[400]]
    for one in hungry:
        assert one.sql(HUNGRY).rows == [[400]], "each database is there, and its calls work"
    assert "of memory" in service.log()
    assert "Traceback" not in service.log()
