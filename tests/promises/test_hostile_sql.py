"""The promise: no SQL hurts anybody, not even the database that it is run in.

Every attack of tests.hostile.sql gets its one answer over real HTTP. After it the same database
answers and is sound, its files are within their bounds, the neighbour's rows are untouched, and
no cell has died of anything but its own timer.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from sandbox.codes import CODES
from tests.handles import Answer, Client, Service
from tests.hostile.sql import CASES, GROUPS, QUICK, SLOW
from tests.hostile.sql_case import ANY_SQL_ERROR, FURNITURE, Case

#: Times are judged here.
pytestmark = pytest.mark.alone

MIB = 1 << 20
MAIN_BYTES = 2560 * 4096
FILES = ["main.db", "main.db-wal"]
#: Rows of at most 1 MiB, and around them the names of columns and the words of an error.
ANSWER_BYTES = 4 * MIB
AT_ONCE = 4
ROWS = [[n, f"mine {n}"] for n in range(5)]


class Outcome(NamedTuple):
    """What came of one attack: its answer, and what was found wrong afterwards."""

    answer: Answer
    faults: list[str]


@pytest.fixture(scope="module")
def neighbour(service: Service) -> Client:
    """Another tenant, with rows that must stay as they are."""
    client = service.client()
    client.sql("CREATE TABLE mine(n INTEGER PRIMARY KEY, x)")
    rows = [value for row in ROWS for value in row]
    assert client.sql(f"INSERT INTO mine VALUES{', '.join(['(?, ?)'] * 5)}", rows).status == 200
    return client


@pytest.fixture(scope="module", autouse=True)
def deaths(service: Service) -> Iterator[None]:
    """All in all, no cell died of anything but its timer, and nothing was logged as a fault."""
    before = len(service.log())
    yield
    log = service.log()[before:]
    assert set(re.findall(r"died of (\w+)", log)) <= {"SIGALRM"}, log
    assert "Traceback" not in log
    assert " ERROR " not in log


def folder(service: Service, client: Client) -> Path:
    (found,) = service.data_dir.glob(f"cells/instances/*/{client.instance}")
    return found


def faults(service: Service, client: Client, neighbour: Client) -> Iterator[str]:
    """What an attack must not leave behind."""
    for sql, rows in (
        ("SELECT 1", [[1]]),
        ("SELECT x FROM kept", [["safe"]]),
        ("PRAGMA integrity_check", [["ok"]]),
    ):
        health = client.sql(sql)
        if health.status != 200 or health.rows != rows:
            yield f"{sql}: {health}"
    sizes = {path.name: path.stat().st_size for path in folder(service, client).iterdir()}
    if sorted(sizes) != FILES:
        yield f"files: {sizes}"
    if sizes["main.db"] > MAIN_BYTES or max(sizes.values()) > 16 * MIB:
        yield f"sizes: {sizes}"
    health = neighbour.sql("SELECT n, x FROM mine ORDER BY n")
    if health.status != 200 or health.rows != ROWS:
        yield f"neighbour: {health}"


def attack(service: Service, neighbour: Client, case: Case) -> Outcome:
    """Run one attack on a new database."""
    client = service.client()
    for sql in (FURNITURE, *case.setup):
        made = client.sql(sql)
        assert made.status == 200, (sql[:200], made)
    answer = client.sql(case.sql, case.args)
    outcome = Outcome(answer, list(faults(service, client, neighbour)))
    client.close()
    return outcome


def assert_held(service: Service, case: Case, outcome: Outcome) -> None:
    answer = outcome.answer
    code = answer.json.get("code")
    told = "sql_error" if code in ANY_SQL_ERROR else code
    assert (answer.status, told) == (case.status, case.code), answer
    assert outcome.faults == []
    if case.rows is not None:
        assert answer.rows == case.rows
    if case.code is not None:
        assert answer.json["error"].startswith(CODES[code].begins)
        assert answer.json["retryable"] is False
    assert len(answer.text) < ANSWER_BYTES
    assert json.loads(answer.text.encode()) == answer.json
    for secret in (str(service.data_dir), "main.db", "Traceback"):
        assert secret in case.sql or secret not in answer.text
    assert not re.search("vtab:[0-9A-F]+", answer.text), "an address of the process"


@pytest.mark.parametrize("name", QUICK)
def test_an_attack_gets_its_one_answer(service: Service, neighbour: Client, name: str) -> None:
    assert_held(service, QUICK[name], attack(service, neighbour, QUICK[name]))


@pytest.fixture(scope="module")
def slow(service: Service, neighbour: Client) -> Iterator[dict[str, Outcome]]:
    """The outcome of every attack that takes two seconds, some of them at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        neighbours = Client(service.url, neighbour.token)
        run = pool.map(lambda case: attack(service, neighbours, case), SLOW.values())
        yield dict(zip(SLOW, run, strict=True))
        neighbours.close()


@pytest.mark.parametrize("name", SLOW)
def test_an_attack_on_time_is_ended(service: Service, slow: dict[str, Outcome], name: str) -> None:
    assert_held(service, SLOW[name], slow[name])


def test_the_list_is_long_and_every_name_is_there_once() -> None:
    assert len(CASES) >= 150
    assert len(CASES) == sum(map(len, GROUPS.values()))
    assert all(case.attack for case in CASES.values())
