"""The crowd: 100,000 databases alive at once, what they weigh, and how they go.

The reaper is held (SIGSTOP) until the last of them has expired. So all are due at once and it is
the reaper that sets the pace, not the order in which they were made.
"""

import os
import signal
import time
from pathlib import Path

from tests.bench import gauges
from tests.bench.load import Caller, Figures, Wrk, closed_loop, once
from tests.bench.peers import Walkin
from tests.bench.run import Run
from tests.bench.workloads import WALKIN
from tests.handles import Service, wait_until

_TABLE = "CREATE TABLE kv(k INTEGER PRIMARY KEY, v TEXT)"
_CALLERS = 8
#: A caller who asks without a pause would take the reaper's turn on a small machine.
_PAUSE_MS = 5
#: How slow the reaper may be before it is given up, in databases per second.
_LEAST_PER_S = 400


class Crowd:
    """The two ends of their life; in between they lie there, and something else can be done."""

    def __init__(self, run: Run) -> None:
        self._run = run
        folder = run.folder / "crowd"
        folder.mkdir()
        # The first must live until the last is made.
        ttl_s = run.size.crowd_s + 2 + run.size.crowd_s // 20
        self._service = Service(folder, ttl_s=ttl_s, cell_idle_s=run.size.crowd_idle_s)
        self._walkin = Walkin()
        self._made = 0
        self._expires = 0

    def gather(self) -> None:
        """Make them all and let them come to rest; measure what they cost."""
        self._walkin.use(self._service.start())
        self._run.attempt("crowd", WALKIN, self._gather)

    def _gather(self) -> Figures:
        size = self._run.size
        once(self._walkin.create)  # opens what stays open
        before_mb = gauges.standing_mb(self._service)
        before_kb = gauges.disk_kb(self._cells)

        async def make(caller: Caller) -> None:
            request = self._walkin.request("", _TABLE)
            answer = await caller.ask(self._walkin.port, request)
            assert answer.status == 200, answer.short
            assert "x-walkin-session" in answer.headers, answer.short
            self._made += 1
            self._expires = max(self._expires, int(answer.headers["x-walkin-ttl"]))

        figures, fault = closed_loop(make, _CALLERS, size.crowd_s, most=size.crowd)
        grown_mb = gauges.standing_mb(self._service) - before_mb
        # The supervisor too, or it would take the reaper for stuck and start another.
        assert self._service.process is not None
        self._service.process.send_signal(signal.SIGSTOP)
        self._service.signal("reaper", signal.SIGSTOP)
        if fault:
            print(f"  a creation failed: {fault}", flush=True)
        wait_until(lambda: not self._live_cells(), size.crowd_idle_s + 30, "all cells given up")
        return {
            **figures,
            "count": self._made,
            "wanted": size.crowd,
            "grown_mb": grown_mb,
            "disk_kb": (gauges.disk_kb(self._cells) - before_kb) / max(1, self._made),
        }

    def _live_cells(self) -> int:
        return sum(title.startswith("walkin: cell ") for title in self._service.family())

    def disperse(self) -> None:
        """Wait until the last has expired, let the reaper go, ask a live one meanwhile."""
        if self._made:
            self._run.attempt("removal", WALKIN, self._disperse)

    def stop(self) -> None:
        """End the service, whatever has become of them."""
        if self._service.process is not None and self._service.process.poll() is None:
            self._resume()
            self._service.stop()

    def _disperse(self) -> Figures:
        wait_until(lambda: time.time() > self._expires, self._expires, "the last one's end")
        token = once(self._walkin.furnished)
        select_1 = [self._walkin.request(token, "SELECT 1")]
        load = Wrk(self._walkin.port, select_1, 1, 3600, pause_ms=_PAUSE_MS)
        # The one that is asked has its own second; all the others go.
        last = self._expires
        began = time.monotonic()
        try:
            self._resume()
            give_up = began + 10 + self._made / _LEAST_PER_S
            wait_until(lambda: not self._due(last) or time.monotonic() > give_up, 3600)
            took_s = time.monotonic() - began
            wait_until(lambda: time.monotonic() > began + 1)  # a shorter run has no percentiles
        finally:
            load.stop()
            figures = load.figures()
        left = sum(1 for _ in (self._cells / "instances").glob("*/*")) - 1
        assert not left or self._due(last), f"{left} folders left of what was removed"
        rate = (self._made - left) / took_s
        return {**figures, "removed_per_s": rate, "took_s": took_s, "left": left}

    def _due(self, last: int) -> bool:
        return any(int(name) <= last for name in os.listdir(self._cells / "due"))

    def _resume(self) -> None:
        for pid in self._service.pids("reaper"):
            os.kill(pid, signal.SIGCONT)
        if self._service.process is not None:
            self._service.process.send_signal(signal.SIGCONT)

    @property
    def _cells(self) -> Path:
        return self._service.data_dir / "cells"
