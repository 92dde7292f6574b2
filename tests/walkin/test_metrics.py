"""The metrics: Prometheus' own parser reads them, and only the side door leads to them."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import Response

from tests.walkin.fakes import FakeStatus
from walkin.crowd import Crowd
from walkin.ledger import BOUNDS_S, Call, Ledger
from walkin.metrics import Metrics, SideDoor
from walkin.settings import Settings

NODE = {
    "instances": 5,
    "live_cells": 3,
    "blank_cells": 2,
    "max_live_cells": 9,
    "waiting": 1,
    "deaths_by_cause": {"SIGSYS": 2, "exit": 1},
    "reaped": 40,
}


class FakeSwitchboard:
    line_count = 4
    queued = 7


Make = Callable[..., Metrics]


@pytest.fixture
def make(make_settings: Callable[..., Settings]) -> Make:
    data_dir = make_settings().data_dir
    data_dir.mkdir(parents=True, exist_ok=True)

    def build(ledger: Ledger | None = None, node: dict[str, Any] | None = NODE) -> Metrics:
        parts: Any = (FakeSwitchboard(), FakeStatus(node))
        return Metrics(ledger or Ledger(), Crowd(10), *parts, data_dir)

    return build


def samples(page: bytes) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values."""
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            found[sample.name, *sample.labels.values()] = sample.value
    return found


def test_what_the_zygote_says_is_shown(make: Make) -> None:
    found = samples(asyncio.run(make().read()))
    assert found["walkin_zygote_up",] == 1
    assert found["walkin_instances",] == 5
    assert (found["walkin_cells", "live"], found["walkin_cells", "blank"]) == (3, 2)
    assert found["walkin_cells_most",] == 9
    assert found["walkin_waiting_for_cells",] == 1
    assert found["walkin_cell_deaths_total", "SIGSYS"] == 2
    assert found["walkin_reaped_total",] == 40


def test_without_a_zygote_the_front_desks_own_numbers_are_shown(make: Make) -> None:
    found = samples(asyncio.run(make(node=None).read()))
    assert found["walkin_zygote_up",] == 0
    assert (found["walkin_lines",], found["walkin_queued_calls",]) == (4, 7)
    assert ("walkin_instances",) not in found


def test_calls_are_counted_and_their_durations_add_up(make: Make) -> None:
    ledger = Ledger()
    for status, code in ((200, ""), (200, ""), (503, "busy")):
        call = Call(bytes(16), "/sql")
        call.status, call.code, call.sent = status, code, 10
        ledger.note(call)
    ledger.creations = 1
    found = samples(asyncio.run(make(ledger).read()))
    assert found["walkin_calls_total", "/sql", "200"] == 2
    assert found["walkin_refusals_total", "busy"] == 1
    assert found["walkin_creations_total",] == 1
    assert found["walkin_sent_bytes_total",] == 30
    buckets = [found["walkin_call_duration_seconds_bucket", str(bound)] for bound in BOUNDS_S]
    assert buckets == sorted(buckets)
    assert found["walkin_call_duration_seconds_bucket", "+Inf"] == 3
    assert found["walkin_call_duration_seconds_count",] == 3


@pytest.mark.parametrize(
    ("port", "path", "status", "words"),
    [
        (9180, "/metrics", 200, "walkin_zygote_up 1.0"),
        (9180, "/sql", 404, "GET /metrics"),
        (8080, "/metrics", 200, "the front"),
        (8080, "/sql", 200, "the front"),
    ],
)
def test_only_the_side_door_leads_to_them(
    make: Make, port: int, path: str, status: int, words: str
) -> None:
    async def ask() -> httpx.Response:
        door = SideDoor(Response("the front"), make(), 9180)
        transport = httpx.ASGITransport(door)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(transport=transport, base_url=url) as client:
            return await client.get(path)

    response = asyncio.run(ask())
    assert response.status_code == status
    assert words in response.text
    assert "access-control-allow-origin" not in response.headers
