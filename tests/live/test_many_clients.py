"""200 callers at once, each with a database of its own; and nothing is left once they expire."""

import contextlib
import http.client
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.handles import Service, wait_until

CALLERS = 200
CALLS = 50
#: Long enough for the crowd on a busy machine, short enough to wait for its end.
TTL_S = 25
BLANK_CELLS = 4


class Caller:
    """One database, called over one connection; the lightest client there is."""

    def __init__(self, service: Service, number: int) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)
        self._headers = {"Content-Type": "application/json"}
        self.marker = f"caller {number}"
        self.token = ""

    def sql(self, sql: str, *args: Any) -> dict[str, Any]:
        body = json.dumps({"sql": sql, "args": args})
        self._connection.request("POST", "/sql", body, self._headers)
        response = self._connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        assert response.status == 200, answer
        if not self.token:
            self.token = self._headers["X-Walkin-Session"] = response.headers["X-Walkin-Session"]
        return answer

    def run(self, together: threading.Barrier) -> None:
        """Make all the calls; every answer must be what this caller's own writes imply."""
        together.wait(TTL_S)
        made = self.sql("CREATE TABLE rows(n INTEGER PRIMARY KEY, marker TEXT, twice INT)")
        assert made == {"rows_affected": 0}
        together.wait(TTL_S)
        for n in range((CALLS - 2) // 2):
            added = self.sql("INSERT INTO rows VALUES (?, ?, ? * 2)", n, self.marker, n)
            assert added == {"rows_affected": 1}
            if n % 2:
                read = self.sql("SELECT count(*), sum(twice), max(n) FROM rows")["rows"]
                assert read == [[n + 1, n * (n + 1), n]]
            else:
                read = self.sql("SELECT marker, n FROM rows WHERE n = :n", n)["rows"]
                assert read == [[self.marker, n]]
        everything = self.sql("SELECT * FROM rows ORDER BY n")["rows"]
        assert everything == [[n, self.marker, 2 * n] for n in range((CALLS - 2) // 2)]

    def close(self) -> None:
        self._connection.close()


def descriptors(service: Service) -> dict[str, int]:
    """How many descriptors each of the standing processes has open, where they may be counted."""
    found = {}
    for role in ("front desk", "zygote", "reaper"):
        (pid,) = service.pids(role)
        with contextlib.suppress(PermissionError):  # a front desk shows its own to root alone
            found[role] = len(os.listdir(f"/proc/{pid}/fd"))
    return found


def cells(service: Service) -> list[str]:
    return [title for title in service.family() if title.startswith("walkin: cell ")]


def test_each_of_200_callers_sees_its_own_rows_and_nothing_is_left_of_them(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(
        ttl_s=TTL_S, max_live_cells=CALLERS, blank_cells=BLANK_CELLS, cell_idle_s=3600
    )
    wait_until(lambda: len(service.pids("blank cell")) == BLANK_CELLS, 10, "blank cells")
    # A node that is ready has its control connections, of the front desk and of the reaper.
    probe = service.client()
    wait_until(lambda: probe.get("/readyz").status == 200, 10, "the node is ready")
    asked = descriptors(service)
    probe.close()
    wait_until(lambda: descriptors(service) != asked, 5, "the probe's connection is closed")
    before = descriptors(service)
    family = sorted(service.family())

    callers = [Caller(service, number) for number in range(CALLERS)]
    together = threading.Barrier(CALLERS)  # all create at once, then all call at once
    with ThreadPoolExecutor(CALLERS) as pool:
        for done in [pool.submit(caller.run, together) for caller in callers]:
            done.result()
    assert len({caller.token for caller in callers}) == CALLERS
    # One process each: nobody's rows were ever in the memory of another's process.
    assert len(cells(service)) == CALLERS
    for caller in callers:
        caller.close()

    wait_until(lambda: not service.traces(), TTL_S + 5, "no folder and no record is left")
    wait_until(lambda: not cells(service), 5, "no cell is left")
    wait_until(lambda: descriptors(service) == before, 10, f"descriptors: {before} at first")
    assert sorted(service.family()) == family
    assert "Traceback" not in service.log()
    assert not list(Path(service.data_dir, "cells", "due").glob("*/*"))
