"""What a node says of itself: its walls as the kernel has them, its numbers, no secrets."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from sandbox import kernel, limits, proof
from tests.handles import Client, Service, wait_until


def test_walls_are_those_that_the_kernel_shows_around_a_live_cell(
    service: Service, client: Client
) -> None:
    client.sql("SELECT 1")
    walls = client.get("/status").json["walls"]
    assert walls.pop("landlock_abi") == kernel.landlock_abi() >= 6
    assert walls == proof.look_at(service.cell(client))
    assert walls["user"] not in (0, None)
    assert len(walls["rlimits"]) == len(limits.RLIMITS)


def test_numbers_follow_what_happens(make_service: Callable[..., Service]) -> None:
    service = make_service(ttl_s=4, blank_cells=2, max_live_cells=7)

    def numbers() -> tuple[int, int, int, int, int]:
        said = client.get("/status").json
        cells = said["cells"]
        return said["instances"], cells["live"], cells["blank"], cells["most"], cells["died"]

    client = service.client()
    wait_until(lambda: numbers() == (0, 0, 2, 7, 0), 10, "nobody is here")
    for _ in range(3):
        service.client().sql("SELECT 1")
    client.sql("SELECT 1")
    wait_until(lambda: numbers() == (4, 4, 2, 7, 0), 3, "four are here")
    os.kill(service.cell(client), signal.SIGKILL)
    wait_until(lambda: numbers() == (4, 3, 2, 7, 1), 3, "a cell was killed")
    wait_until(lambda: numbers() == (0, 0, 2, 7, 1), 10, "all have expired")


def test_status_says_nothing_of_who_uses_the_node(service: Service, client: Client) -> None:
    client.sql("CREATE TABLE secret_table(x)")
    text = client.get("/status").text
    assert client.token
    for word in (client.token, client.instance, "secret_table", str(service.data_dir)):
        assert word not in text
    assert str(Path.cwd()) not in text


def test_status_costs_no_budget(make_service: Callable[..., Service]) -> None:
    client = make_service(requests_per_min=1).client()
    assert {client.get("/status").status for _ in range(20)} == {200}
    assert [client.sql("SELECT 1").status for _ in range(2)] == [200, 429]
    assert client.get("/status").status == 200


def test_without_a_zygote_status_is_busy_and_comes_back(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    client = service.client()
    assert client.get("/status").status == 200
    zygote = service.signal("zygote", signal.SIGSTOP)
    try:
        refused = wait_until(
            lambda: (answer := client.get("/status")).status != 200 and answer, 10, "busy"
        )
        assert (refused.status, refused.code) == (503, "busy")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/healthz").status == 200
    finally:
        os.kill(zygote, signal.SIGCONT)
    wait_until(lambda: client.get("/status").status == 200, 10, "status is back")
