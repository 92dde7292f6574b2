"""Every call on a database's life: with wrong tokens, narrow ones, at its end, in a crowd, killed.

What each does is in the files of its own; here is what none of them may do.
"""

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.handles import Client, Service, wait_until

SQLITE = {"Content-Type": "application/vnd.sqlite3"}
CSV = {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What PUT /database sends: a table with other rows."""
    path: Path = tmp_path_factory.mktemp("file") / "file.db"
    with contextlib.closing(sqlite3.connect(path)) as plain:
        plain.executescript("CREATE TABLE t(a); CREATE TABLE u(b); INSERT INTO t VALUES(7), (8)")
    return path.read_bytes()


#: By name: method, path, what is sent beside.
Call = tuple[str, str, dict[str, Any]]
READING: dict[str, Call] = {
    "see": ("GET", "/session", {}),
    "read by url": ("GET", "/sql?sql=SELECT+a+FROM+t", {}),
    "table": ("GET", "/tables/t", {}),
    "schema": ("GET", "/schema", {}),
    "file": ("GET", "/database", {}),
    "dump": ("GET", "/dump.sql", {}),
}
#: Not for a token for some tables.
OF_ALL_TABLES = {"file", "dump"}
WRITING: dict[str, Call] = {
    "extend": ("PATCH", "/session", {"json": {"extend_s": 1}}),
    "fork": ("POST", "/session/fork", {"json": {"ttl_s": 5}}),
    "narrow": ("POST", "/session/tokens", {"json": {"scope": "read"}}),
    "list": ("GET", "/session/checkpoints", {}),
    "keep": ("PUT", "/session/checkpoints/one", {}),
    "restore": ("POST", "/session/checkpoints/one/restore", {}),
    "load": ("PUT", "/database", {"headers": SQLITE}),
    "rows": ("POST", "/tables/t", {"content": b"a\n1\n2\n", "headers": CSV}),
}
ENDING: dict[str, Call] = {
    "drop": ("DELETE", "/session/checkpoints/one", {}),
    "end": ("DELETE", "/session", {}),
}
CALLS = READING | WRITING | ENDING


def ask(client: Client, name: str, file: bytes, token: str | None = None) -> httpx.Response:
    method, path, sent = CALLS[name]
    sent = {"content": file} | sent if name == "load" else dict(sent)
    token = client.token or "" if token is None else token
    headers = sent.pop("headers", {}) | {"X-Walkin-Session": token}
    return client.http.request(method, path, headers=headers, **sent)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["code"]) if answer.is_error else "ok"


@pytest.fixture
def holder(client: Client, file: bytes) -> Client:
    return furnished(client, file)


def furnished(client: Client, file: bytes) -> Client:
    client.sql("CREATE TABLE t(a); CREATE TABLE u(b); INSERT INTO t VALUES(7), (8)")
    assert ask(client, "keep", file).status_code == 201
    return client


@pytest.fixture
def look(holder: Client) -> Iterator[Callable[[], Any]]:
    """What the database holds; the test is to leave it so."""

    def rows() -> Any:
        return holder.sql("SELECT (SELECT group_concat(a) FROM t), (SELECT count(*) FROM u)").rows

    before = rows()
    yield rows
    assert rows() == before
    assert holder.sql("PRAGMA integrity_check").rows == [["ok"]]


@pytest.mark.parametrize("name", CALLS)
def test_no_other_token_opens_it(
    service: Service, holder: Client, look: Callable[[], Any], file: bytes, name: str
) -> None:
    token = holder.token or ""
    other = furnished(service.client(), file).token or ""
    wrong = [
        "",
        "wkn_wrong",
        token[:-1],
        token + "A",
        token[:-20] + other[-20:],
        "wkr_" + token[4:],
    ]
    wrong += [token.swapcase(), other[:26] + token[26:]]
    for one in wrong:
        refused = ask(holder, name, file, one)
        assert (refused.status_code, code(refused)) == (404, "instance_not_found"), one


@pytest.mark.parametrize("name", CALLS)
def test_a_token_for_reading_reads(
    holder: Client, look: Callable[[], Any], file: bytes, name: str
) -> None:
    headers = {"X-Walkin-Session": holder.token or ""}
    for tables in ([], ["t"]):
        said = {"scope": "read", "tables": tables}
        token = holder.http.post("/session/tokens", json=said, headers=headers).json()["token"]
        answer = ask(holder, name, file, token)
        if name in READING and not (tables and name in OF_ALL_TABLES):
            assert answer.status_code == 200, answer.text
        else:
            assert (answer.status_code, code(answer)) == (403, "token_too_narrow")


def test_at_its_end_each_is_done_or_told_that_it_is_over(
    make_service: Callable[..., Service], file: bytes
) -> None:
    service = make_service(ttl_s=2, max_life_s=5)
    seen: dict[str, list[tuple[int, str]]] = {}

    def go_on(name: str) -> None:
        holder = furnished(service.client(), file)
        answers = seen.setdefault(name, [])
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            try:
                answer = ask(holder, name, file)
                answers.append((answer.status_code, code(answer)))
            except httpx.RemoteProtocolError:  # a long answer that broke off has no end
                answers.append((200, "broken off"))
            if answers[-1][0] == 404:
                return

    repeated = [name for name in CALLS if name not in ENDING]
    with ThreadPoolExecutor(len(repeated)) as pool:
        list(pool.map(go_on, repeated))
    for name, answers in seen.items():
        assert answers[-1] == (404, "instance_expired"), (name, answers[-3:])
        statuses = {status for status, _ in answers[:-1]}
        told = {code for _, code in answers[:-1]} - {"ok", "broken off", "cell_lost", "busy"}
        # No life is made longer than the longest.
        assert told <= ({"invalid_option"} if name == "extend" else set()), (name, told)
        assert statuses, name
    wait_until(lambda: not service.traces(), 15, "nothing is left")


def test_all_at_once_are_answered_and_the_database_is_whole(
    service: Service, holder: Client, file: bytes
) -> None:
    names = [*READING, *WRITING] * 4
    random.Random(7).shuffle(names)
    clients = threading.local()

    def one(name: str) -> tuple[str, str]:
        if not hasattr(clients, "own"):
            clients.own = service.client(holder.token)
        return name, code(ask(clients.own, name, file))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, names))
    assert {told for _, told in answers} <= {"ok", "busy"}, answers
    assert sum(told == "ok" for _, told in answers) > len(answers) // 2
    rows = [row[0] for row in holder.sql("SELECT a FROM t").rows]
    assert rows[:2] == [7, 8], "of the table that it had or was loaded with"
    assert rows[2:] == [1, 2] * ((len(rows) - 2) // 2), "rows come all or not at all"
    assert holder.sql("PRAGMA integrity_check").rows == [["ok"]]


def test_killed_in_the_middle_each_is_done_or_not_and_the_database_is_whole(
    make_service: Callable[..., Service], file: bytes
) -> None:
    service = make_service()
    holder = furnished(service.client(), file)
    names = [*READING, *WRITING]
    chance = random.Random(11)
    seen = set()
    for number in range(6 * len(names)):
        name = names[number % len(names)]
        timer = threading.Timer(chance.uniform(0, 0.012), _kill_cell, (service, holder))
        timer.start()
        try:
            seen.add(code(ask(holder, name, file)))
        except httpx.RemoteProtocolError:
            seen.add("broken off")
        timer.join()
        found = wait_until(lambda: _rows(holder), 10)
        assert found[:2] == [7, 8], name
        assert found[2:] == [1, 2] * ((len(found) - 2) // 2), name
        assert holder.sql("PRAGMA integrity_check").rows == [["ok"]]
    assert "ok" in seen
    assert seen <= {"ok", "broken off", "cell_lost", "busy"}


def _kill_cell(service: Service, holder: Client) -> None:
    for pid in service.pids(f"cell {holder.instance}"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _rows(holder: Client) -> list[int] | None:
    answer = holder.sql("SELECT a FROM t")
    return [row[0] for row in answer.rows] if answer.status == 200 else None
