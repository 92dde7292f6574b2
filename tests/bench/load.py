"""The load: wrk for what is asked again and again, and callers of our own for what comes in steps.

Both are closed loops: a connection asks again in the moment it has its answer. Latencies are those
that the asker sees.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import uvloop

from tests.bench.packages import AbsentError

_T = TypeVar("_T")

#: What one run found: rate in 1/s, p50_ms, p90_ms, p99_ms, requests, errors.
Figures = dict[str, float]

_LUA = """
local requests = {%s}
local at = 0
function request()
  at = at %% #requests + 1
  return requests[at]
end
%s
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "us": %%d, "errors": %%d, "p50": %%d, "p90": %%d, "p99": %%d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""


def http(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request as it goes over the wire."""
    sent = {"Host": "localhost", **headers}
    if method == "POST":
        sent |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{name.replace('_', '-')}: {text}" for name, text in sent.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body


class Wrk:
    """wrk at work: the requests are sent in turn, whichever connection is free."""

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        connections: int,
        seconds: float,
        pause_ms: int = 0,
    ) -> None:
        program = shutil.which("wrk")
        if program is None:
            raise AbsentError("wrk is not installed")
        self._folder = tempfile.TemporaryDirectory()
        script = Path(self._folder.name) / "load.lua"
        texts = ("".join(f"\\{byte:03d}" for byte in request) for request in requests)
        pause = f"function delay() return {pause_ms} end" if pause_ms else ""
        script.write_text(_LUA % (", ".join(f'"{text}"' for text in texts), pause))
        # One thread: it has cores enough for all that these servers do, and leaves them the rest.
        command = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        self._process = subprocess.Popen(
            [*command, "--timeout", "10s", "-s", str(script), f"http://127.0.0.1:{port}/"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stop(self) -> None:
        """End it before its time; what it found until then counts."""
        self._process.send_signal(signal.SIGINT)

    def figures(self) -> Figures:
        """Wait for its end and return what it found."""
        with self._folder:
            said, _ = self._process.communicate(timeout=900)
        last = said.strip().splitlines()[-1] if said.strip() else ""
        if self._process.returncode or not last.startswith("{"):
            raise RuntimeError(f"wrk: {said[-500:]}")
        found = json.loads(last)
        return {
            "rate": found["requests"] / (found["us"] / 1e6),
            **{f"{name}_ms": found[name] / 1000 for name in ("p50", "p90", "p99")},
            "requests": found["requests"],
            "errors": found["errors"],
        }


def wrk(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Figures:
    """Have wrk send these requests over that many connections."""
    return Wrk(port, requests, connections, seconds).figures()


class Answer(NamedTuple):
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def short(self) -> str:
        """What a reader of a failure wants to see."""
        return f"{self.status} {self.body[:200].decode(errors='replace')}"


class Caller:
    """One caller: asks, waits for the answer, asks again; a connection for each port."""

    def __init__(self) -> None:
        self._streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def ask(self, port: int, request: bytes) -> Answer:
        if port not in self._streams:
            self._streams[port] = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        reader, writer = self._streams[port]
        writer.write(request)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): text.strip() for name, _, text in fields}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in _chunks(reader)])
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    def close(self) -> None:
        for _, writer in self._streams.values():
            writer.close()


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)


def once(act: Callable[[Caller], Awaitable[_T]]) -> _T:
    """Have one caller do one thing."""

    async def run() -> _T:
        with contextlib.closing(Caller()) as caller:
            return await act(caller)

    return uvloop.run(run())


def closed_loop(
    act: Callable[[Caller], Awaitable[object]], callers: int, seconds: float, most: float = 1e9
) -> tuple[Figures, str]:
    """Have callers do it again and again; return what was found and the text of one error."""
    took_s: list[float] = []
    faults: list[str] = []

    async def go_on(until: float) -> None:
        with contextlib.closing(Caller()) as caller:
            while (began := time.perf_counter()) < until and len(took_s) < most:
                try:
                    await act(caller)
                except Exception as fault:  # any is an error of the row, told in the report
                    faults.append(str(fault)[:300] or repr(fault))
                    return
                took_s.append(time.perf_counter() - began)

    async def run() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(go_on(until) for _ in range(callers)))

    began = time.perf_counter()
    uvloop.run(run())
    found = percentiles(took_s) if took_s else {}
    rate = len(took_s) / (time.perf_counter() - began)
    return {"rate": rate, **found, "errors": len(faults)}, faults[0] if faults else ""


def percentiles(took_s: Sequence[float]) -> Figures:
    """Return the percentiles of what was timed."""
    cuts = statistics.quantiles(took_s, n=100, method="inclusive") if len(took_s) > 1 else []
    cuts = cuts or [took_s[0]] * 99
    named = {f"p{at}_ms": cuts[at - 1] * 1000 for at in (50, 90, 99)}
    return {**named, "requests": len(took_s)}
