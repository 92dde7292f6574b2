"""The gauges: what Prometheus reads, in its text form, at a port that is not the callers'.

Runs in: front desk. The front desk's own numbers are counted where they arise (ledger.py) and
read here; those of the node are the zygote's word. With several workers each shows its own calls
and the same node, at a port of its own.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.errors import ZygoteGone
from walkin.crowd import Crowd
from walkin.ledger import BOUNDS_S, Ledger
from walkin.status import Status
from walkin.switchboard import Switchboard


class Metrics(Collector):
    """All that is shown, gathered when it is asked for."""

    def __init__(
        self,
        ledger: Ledger,
        crowd: Crowd,
        switchboard: Switchboard,
        status: Status,
        data_dir: Path,
    ) -> None:
        self._ledger = ledger
        self._crowd = crowd
        self._switchboard = switchboard
        self._status = status
        self._data_dir = data_dir
        self._node: dict[str, Any] | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def read(self) -> bytes:
        """Return the page."""
        try:
            self._node = await self._status.node()
        except ZygoteGone:
            self._node = None
        # The loop must not wait for a disk.
        return await asyncio.to_thread(generate_latest, self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric (called by the registry)."""
        yield from self._calls()
        yield GaugeMetricFamily(
            "walkin_connections", "Connections of callers.", value=len(self._crowd)
        )
        yield GaugeMetricFamily(
            "walkin_lines", "Open lines to cells.", value=self._switchboard.line_count
        )
        yield GaugeMetricFamily(
            "walkin_queued_calls",
            "Calls that wait for an earlier call on their database.",
            value=self._switchboard.queued,
        )
        yield from self._disk()
        yield GaugeMetricFamily(
            "walkin_zygote_up", "Whether the zygote answers.", value=self._node is not None
        )
        if self._node is not None:
            yield from _of_node(self._node)

    def _calls(self) -> Iterator[Metric]:
        ledger = self._ledger
        calls = CounterMetricFamily(
            "walkin_calls",
            "Requests by status; 0: the caller left.",
            labels=["path", "status"],
        )
        for (path, status), count in ledger.calls.items():
            calls.add_metric([path, str(status)], count)
        yield calls
        refusals = CounterMetricFamily(
            "walkin_refusals", "Requests that the front desk refused, by code.", labels=["code"]
        )
        for code, count in ledger.refusals.items():
            refusals.add_metric([code], count)
        yield refusals
        reached = 0
        buckets = []
        for bound, count in zip((*BOUNDS_S, float("inf")), ledger.durations, strict=True):
            reached += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), float(reached)))
        took = HistogramMetricFamily("walkin_call_duration_seconds", "From head to answer.")
        took.add_metric([], buckets, sum_value=ledger.seconds)
        yield took
        for name, words, count in (
            ("walkin_creations", "Databases made.", ledger.creations),
            ("walkin_received_bytes", "Bytes of request bodies.", ledger.received),
            ("walkin_sent_bytes", "Bytes of answers' bodies.", ledger.sent),
            ("walkin_lost_log_lines", "Lines of the log that nobody took.", ledger.lost_lines),
        ):
            yield CounterMetricFamily(name, words, value=count)

    def _disk(self) -> Iterator[Metric]:
        disk = os.statvfs(self._data_dir)
        for name, words, value in (
            ("size_bytes", "Size of the file system with the data.", disk.f_blocks * disk.f_frsize),
            ("free_bytes", "What is free on it.", disk.f_bavail * disk.f_frsize),
            ("files", "Files that it can have (inodes).", disk.f_files),
            ("free_files", "Files that it can still take.", disk.f_favail),
        ):
            yield GaugeMetricFamily(f"walkin_disk_{name}", words, value=value)


class SideDoor:
    """Sends what came in by the metrics' own port to them, and all else in front.

    There is no CORS at this door: a web page in the operator's browser must not read it.
    """

    def __init__(self, front: ASGIApp, metrics: Metrics, port: int) -> None:
        self._front = front
        self._metrics = metrics
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["server"][1] != self._port:
            await self._front(scope, receive, send)
            return
        if (scope["method"], scope["path"]) == ("GET", "/metrics"):
            page = await self._metrics.read()
            response = Response(page, headers={"content-type": CONTENT_TYPE_LATEST})
        else:
            response = Response("GET /metrics\n", 404, media_type="text/plain")
        await response(scope, receive, send)


def _of_node(node: dict[str, Any]) -> Iterator[Metric]:
    yield GaugeMetricFamily("walkin_instances", "Live databases.", value=node["instances"])
    cells = GaugeMetricFamily("walkin_cells", "Cells, by state.", labels=["state"])
    cells.add_metric(["live"], node["live_cells"])
    cells.add_metric(["blank"], node["blank_cells"])
    yield cells
    yield GaugeMetricFamily(
        "walkin_cells_most", "The most live cells there may be.", value=node["max_live_cells"]
    )
    yield GaugeMetricFamily(
        "walkin_waiting_for_cells", "Questions put off until a cell is free.", value=node["waiting"]
    )
    deaths = CounterMetricFamily(
        "walkin_cell_deaths", "Cells that ended against our will, by cause.", labels=["cause"]
    )
    for cause, count in node["deaths_by_cause"].items():
        deaths.add_metric([cause], count)
    yield deaths
    yield CounterMetricFamily("walkin_reaped", "Databases removed.", value=node["reaped"])
