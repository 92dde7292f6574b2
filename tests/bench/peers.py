"""The peers: how one is started on a free port, how it is asked, how its answers are read.

Here are what they have in common, ourselves and the ceiling; guests.py has the others. All have
their data in the same folder. One that cannot take part raises AbsentError with the reason.
"""

import contextlib
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.load import Answer, Caller, http, once
from tests.bench.packages import AbsentError
from tests.handles import ROOT, Service, free_port, wait_until

Args = Sequence[int | str]

ITEMS = 1000
#: What every database is furnished with, for reading and for writing.
TABLES = (
    "CREATE TABLE IF NOT EXISTS kv(k INTEGER PRIMARY KEY, v TEXT)",
    "CREATE TABLE IF NOT EXISTS item(id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INTEGER,"
    " note TEXT)",
    "INSERT OR IGNORE INTO item WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n"
    f" WHERE i < {ITEMS}) SELECT i, 'item ' || i, i * 1.25, i % 100, 'a note on ' || i FROM n",
)


class Peer:
    """One server: `port` is where it is asked. A database is named by a text of its own kind."""

    name = ""
    #: How it was run, for the report.
    how = ""
    #: Whether there is a database behind it.
    runs_sql = True

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path, *, fetch: bool) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:  # its data is thrown away anyway
                self._process.kill()
                self._process.wait(5)

    async def create(self, caller: Caller, sql: str = "") -> str:
        """Make a database, run the statement in it, return its name."""
        return ""

    def request(self, database: str, sql: str, args: Args = ()) -> bytes:
        """Return the request that runs one statement."""
        raise NotImplementedError

    def rows(self, answer: Answer) -> list[Any]:
        """Return the rows of an answer. Raises whatever it likes if it is none."""
        raise NotImplementedError

    async def sql(self, caller: Caller, database: str, sql: str, args: Args = ()) -> list[Any]:
        return self.rows(await caller.ask(self.port, self.request(database, sql, args)))

    async def furnished(self, caller: Caller) -> str:
        """Return the name of a database that has the tables."""
        database = await self.create(caller)
        for sql in TABLES:
            await self.sql(caller, database, sql)
        return database

    def _run(self, folder: Path, *command: str, ready: bytes) -> None:
        """Start the program and wait until it answers the request with 200."""
        folder.mkdir()
        log = folder / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        # sqld keeps several files open for each namespace, and would be out of them in mid-run.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            most = int(Path("/proc/sys/fs/nr_open").read_text())
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (most, most))

        def is_ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AbsentError(f"it ended at once: {log.read_text(errors='replace')[-300:]}")
            with contextlib.suppress(OSError, EOFError):
                return once(lambda caller: caller.ask(self.port, ready)).status == 200
            return False

        try:
            wait_until(is_ready, 20, "an answer")
        except AssertionError as fault:
            raise AbsentError(f"it did not start: {fault}") from None


class Walkin(Peer):
    """Ourselves: no rate limits, every wall up."""

    name = "walkin"
    how = "rate limits off, every wall up"

    def __init__(self, workers: int = 1) -> None:
        super().__init__()
        self.service: Service | None = None
        self._workers = workers
        if workers > 1:
            self.name, self.how = f"walkin, {workers} workers", f"{self.how}, `--workers {workers}`"

    def start(self, folder: Path, *, fetch: bool) -> None:
        folder.mkdir()
        self.use(Service(folder, ttl_s=7200, workers=self._workers).start())

    def use(self, service: Service) -> "Walkin":
        """Ask a service that somebody else has started."""
        self.service, self.port = service, int(service.url.rpartition(":")[2])
        return self

    def stop(self) -> None:
        if self.service is not None and self.service.process is not None:
            self.service.stop()

    async def create(self, caller: Caller, sql: str = "") -> str:
        answer = await caller.ask(self.port, self.request("", sql or "SELECT 1"))
        self.rows(answer)
        return answer.headers["x-walkin-session"]

    def request(self, database: str, sql: str, args: Args = ()) -> bytes:
        call = {"sql": sql, "args": list(args)} if args else {"sql": sql}
        headers = {"X_Walkin_Session": database} if database else {}
        return http("POST", "/sql", json.dumps(call).encode(), **headers)

    def rows(self, answer: Answer) -> list[Any]:
        assert answer.status == 200, answer.short
        rows: list[Any] = json.loads(answer.body).get("rows", [])
        return rows


class Bare(Walkin):
    """The ceiling (bare.py): one answer, whatever it is asked."""

    name = "bare Starlette"
    how = "one route, one fixed answer; uvicorn, uvloop, httptools, one process"
    runs_sql = False

    def __init__(self) -> None:
        super().__init__()

    def start(self, folder: Path, *, fetch: bool) -> None:
        self.port = free_port()
        command = (sys.executable, "-m", "tests.bench.bare", str(self.port))
        self._run(folder, *command, ready=self.request("", "SELECT 1"))

    stop = Peer.stop
    create = Peer.create

    async def furnished(self, caller: Caller) -> str:
        return ""
