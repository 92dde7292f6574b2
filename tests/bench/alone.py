"""What only walkin is asked: a cold database, the memory of a cell, neighbours who mean harm."""

import base64
import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial

from tests.bench import gauges
from tests.bench.load import Caller, Figures, closed_loop, http, once, percentiles, wrk
from tests.bench.peers import Walkin
from tests.bench.run import Run
from tests.bench.workloads import WALKIN
from tests.handles import Client, Service, open_folder, wait_until

BOMBS = 16
_ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
_TABLE = "CREATE TABLE kv(k INTEGER PRIMARY KEY, v TEXT)"


@contextlib.contextmanager
def own_service(**settings: object) -> Iterator[tuple[Service, Walkin]]:
    """A service of one's own, and how it is asked."""
    with open_folder() as folder:
        service = Service(folder, **settings).start()
        try:
            yield service, Walkin().use(service)
        finally:
            service.stop()


def reopen(run: Run) -> None:
    """The first call on databases whose cells were given up, one after the other."""
    with own_service(cell_idle_s=1) as (service, walkin):
        for _ in range(run.size.rounds):
            tokens: list[str] = []

            run.attempt("creation", WALKIN, partial(_create, walkin, tokens, run.size.cold))
            run.attempt("reopen", WALKIN, partial(_come_back, service, walkin, tokens))


def _create(walkin: Walkin, tokens: list[str], most: int) -> Figures:
    async def create(caller: Caller) -> None:
        tokens.append(await walkin.create(caller, _TABLE))

    figures, fault = closed_loop(create, 1, 60, most=most)
    assert not fault, fault
    return figures


def _come_back(service: Service, walkin: Walkin, tokens: list[str]) -> Figures:
    wait_until(lambda: not gauges.cells(service), 20, "all cells given up")
    return percentiles(once(lambda caller: _first_calls(walkin, caller, tokens)))


async def _first_calls(walkin: Walkin, caller: Caller, tokens: list[str]) -> list[float]:
    took_s = []
    for token in tokens:
        began = time.perf_counter()
        assert await walkin.sql(caller, token, "SELECT count(*) FROM kv") == [[0]]
        took_s.append(time.perf_counter() - began)
    return took_s


def weigh_cells(run: Run) -> None:
    """The memory of cells that have a table and have answered."""
    if os.geteuid() != 0:
        run.left_out["cell"] = "only root may ask the kernel"
        return

    def weigh() -> Figures:
        with own_service() as (service, walkin):
            tokens = [once(walkin.furnished) for _ in range(run.size.cells)]
            ids = {base64.urlsafe_b64decode(token[4:68])[:16].hex() for token in tokens}
            wait_until(lambda: gauges.cells(service).keys() >= ids, 10, "the cells")
            weights = [gauges.proportional_mb(pid) for pid in gauges.cells(service).values()]
            return {"pss_mb": statistics.median(weights), "cells": len(weights)}

    run.attempt("cell", WALKIN, weigh)


class Bomber(threading.Thread):
    """A tenant who burns processor time without a pause."""

    def __init__(self, service: Service, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.statuses: list[int] = []
        self._client = Client(service.url)
        self._over = over

    def run(self) -> None:
        with contextlib.closing(self._client):
            while not self._over.is_set():
                self.statuses.append(self._client.sql(_ENDLESS).status)


def beside_bombs(run: Run) -> None:
    """`SELECT 1` and `/healthz` of somebody else while all cores are wanted by others."""
    with own_service() as (service, walkin):
        token = once(walkin.furnished)
        over = threading.Event()
        bombers = [Bomber(service, over) for _ in range(BOMBS)]
        for bomber in bombers:
            bomber.start()
        try:
            wait_until(lambda: len(gauges.cells(service)) > BOMBS, 10, "every bomb's cell")
            asked = {
                "beside_bombs": walkin.request(token, "SELECT 1"),
                "healthz": http("GET", "/healthz"),
            }
            for _ in range(run.size.rounds):
                for row, request in asked.items():
                    ask = partial(wrk, walkin.port, [request], 1, run.size.seconds)
                    run.attempt(row, WALKIN, ask)
        finally:
            over.set()
            for bomber in bombers:
                bomber.join(10)
        run.attempt("bombs", WALKIN, lambda: _blasts(bombers, service))


def _blasts(bombers: list[Bomber], service: Service) -> Figures:
    statuses = [status for bomber in bombers for status in bomber.statuses]
    assert all(bomber.statuses for bomber in bombers), "a bomber had no answer"
    return {
        "calls": len(statuses),
        "timeouts": statuses.count(408),
        "server_errors": sum(status >= 500 for status in statuses),
        "errors": sum(status not in (200, 408, 503) for status in statuses),
    }
