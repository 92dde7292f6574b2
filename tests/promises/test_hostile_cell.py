"""The promise: a cell that was taken over spoils its own tenant's answer and nothing else.

Every treason of tests/hostile/traitor.py is committed by a real cell behind a real front desk. Its
own caller gets one clean error in time and goes on with the next call; meanwhile a neighbour's
calls are all answered right and soon, and in the end front desk and zygote are the same processes
with the descriptors they had and memory within bounds.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox import frames, limits
from sandbox.codes import CELL_STATUSES
from sandbox.place import FILES
from tests.handles import ROOT, Answer, Client, Service, memory_kb, open_folder, wait_until
from tests.hostile.traitor import ANSWER, BODY, CUT, EXIT, STATUS, TREASON, TREASONS

#: Times are judged here.
pytestmark = pytest.mark.alone

#: 2 s of clock and 0.5 s until the kill from outside; the rest is for a busy machine.
TIMELY_S = 2.5 + 1.0
LOST = (500, "cell_lost")
LATE = (408, "query_timeout")
BUSY = (503, "busy")
#: Passed on unread: the tenant gets what its own cell says.
ANSWERED = (200, None)

OUTCOMES: dict[str, tuple[int, str | None]] = {
    **dict.fromkeys(TREASONS, LOST),
    **dict.fromkeys(("silence", "half an answer", "half a header", "a dribble"), LATE),
    "all its memory": LATE,
    # It says each time that it has not begun, so each time the call is tried elsewhere.
    "retired": BUSY,
    **dict.fromkeys(
        (
            "two answers",
            "an answer unasked",
            "an answer of nothing",
            "the longest answer",
            "no JSON",
            "a loop after the answer",
            "all its disk",
            "descriptors",
            "descriptors to the zygote",
            "lies to the zygote",
        ),
        ANSWERED,
    ),
    **{f"{CUT}{at}": LOST for at in range(len(ANSWER))},
    f"{CUT}{len(ANSWER)}": ANSWERED,
    **{f"{EXIT}{status}": LOST for status in (0, 1, 2, 3, 4, 42, 127, 255)},
    **{
        f"{STATUS}{status}": LOST
        for status in (0, 1, 100, 101, 199, 201, 204, 301, 304, 404, 429, 503, 599, 999, 65_535)
    },
    **{f"{STATUS}{status}": (status, None) for status in CELL_STATUSES},
}
#: Their own database is of no more use, for them alone.
RUINED = {"all its disk"}
#: What comes back for the next call: the cell is still at it, or has its answer ready.
NEXT = {"a loop after the answer": LATE, "an answer unasked": ANSWERED}


class Neighbour:
    """Calls its own database without pause and remembers what was wrong and how long it took."""

    def __init__(self, service: Service) -> None:
        self._client = service.client()
        self._client.sql("CREATE TABLE mine(x); INSERT INTO mine VALUES(1), (2), (3)")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self.took_s: list[float] = []
        self.mistakes: list[Answer] = []

    def _call(self) -> None:
        while not self._stop.is_set():
            asked = time.monotonic()
            answer = self._client.sql("SELECT sum(x) FROM mine")
            self.took_s.append(time.monotonic() - asked)
            if answer.status != 200 or answer.rows != [[6]]:
                self.mistakes.append(answer)

    def __enter__(self) -> "Neighbour":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def traitors() -> Iterator[Service]:
    """A service whose cells commit treason on demand."""
    with open_folder() as made:
        service = Service(made, blank_cells=2)
        service.env["PYTHONPATH"] = f"{ROOT / 'tests' / 'hostile' / 'build'}:{ROOT}"
        service.start()
        try:
            yield service
            assert service.stop() == 0, service.log()
            assert "Traceback" not in service.log()
        finally:
            if service.process and service.process.poll() is None:
                service.kill()


def descriptors(pid: int) -> int | None:
    with contextlib.suppress(PermissionError):  # a front desk shows its own to root alone
        return len(os.listdir(f"/proc/{pid}/fd"))
    return None


def betray(service: Service, treason: str) -> str | None:
    """Have a cell commit a treason; return what was wrong with what its caller saw."""
    client = service.client()
    made = client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES(1)")
    assert made.status == 200, made
    asked = time.monotonic()
    answer = client.sql(TREASON + treason)
    took_s = time.monotonic() - asked
    status, code = OUTCOMES[treason]
    if answer.status != status or (code and answer.code != code):
        return f"{answer}"
    if took_s > TIMELY_S:
        return f"took {took_s:.1f} s"
    if code and answer.json["error"] not in ("internal error", "query timed out", "server busy"):
        return f"too many words: {answer}"
    return _go_on(client, treason)


def _go_on(client: Client, treason: str) -> str | None:
    if treason in RUINED:
        return None
    if treason in NEXT:
        again = client.sql("SELECT x FROM kept")
        if (again.status, again.json.get("code")) != NEXT[treason]:
            return f"next: {again}"
    later = client.sql("SELECT x FROM kept")
    return None if later.status == 200 and later.rows == [[1]] else f"afterwards: {later}"


def test_every_treason_hurts_its_own_caller_alone(traitors: Service) -> None:
    (front,), (zygote,) = traitors.pids("front desk"), traitors.pids("zygote")
    with Neighbour(traitors) as neighbour:
        before = descriptors(zygote)
        with ThreadPoolExecutor(6) as pool:
            wrong = dict(
                zip(OUTCOMES, pool.map(lambda name: betray(traitors, name), OUTCOMES), strict=True)
            )
    assert {name: mistake for name, mistake in wrong.items() if mistake} == {}
    assert neighbour.mistakes == []
    assert len(neighbour.took_s) > 50
    assert max(neighbour.took_s) < 1, "the neighbour noticed"
    assert (traitors.pids("front desk"), traitors.pids("zygote")) == ([front], [zygote])
    # One for each cell that is still there.
    cells = [title for title in traitors.family() if "cell" in title]
    now = descriptors(zygote)
    assert before is None or now is None or now <= before + len(cells)


def test_endless_answers_do_not_fill_the_front_desks_memory(traitors: Service) -> None:
    (front,) = traitors.pids("front desk")
    greedy = ["data for ever", "crumbs for ever", "garbage for ever", "a frame of 4 GiB"] * 6

    def storm() -> None:
        with ThreadPoolExecutor(12) as pool:
            assert set(pool.map(lambda name: betray(traitors, name), greedy)) == {None}

    storm()
    before = memory_kb(front, "VmRSS")
    for _ in range(3):
        storm()
    # What one line may hold, for each of those at work at once: the answer so far, the piece just
    # read, the frame that is coming, and a copy of each of the two.
    most = 12 * (frames.MAX_ANSWER_BYTES + 4 * frames.LIMITS[frames.Kind.DATA]) >> 10
    assert memory_kb(front, "VmHWM") - before < most


def test_a_cell_fills_its_two_files_and_no_more_of_the_disk(traitors: Service) -> None:
    client = traitors.client()
    client.sql("CREATE TABLE kept(x)")
    client.sql(TREASON + "all its disk")
    folder = next(Path(traitors.data_dir, "cells", "instances").glob(f"*/{client.instance}"))
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    most = limits.RLIMITS[limits.resource.RLIMIT_FSIZE]
    assert sizes == dict.fromkeys(FILES, most)


def test_a_cells_words_cannot_forge_the_log(traitors: Service) -> None:
    client = traitors.client()
    client.sql("SELECT 1")
    assert client.sql(TREASON + "lies to the zygote").text.encode() == BODY
    wait_until(lambda: client.instance in traitors.log(), 5, "the lie is logged")
    lines = traitors.log().splitlines()
    assert not any(line.startswith("ERROR walkin.zygote: forged") for line in lines)
    assert "\x1b" not in traitors.log()


def test_a_flood_of_reports_ends_the_cell_and_not_the_log(traitors: Service) -> None:
    client = traitors.client()
    client.sql("SELECT 1")
    assert client.sql(TREASON + "reports for ever").status == 500
    said = [line for line in traitors.log().splitlines() if f"of {client.instance}: " in line]
    assert 0 < len(said) <= 5
    assert max(map(len, said)) < 10_000


@pytest.mark.parametrize(
    ("treason", "signal"), [("a forbidden call", "SIGSYS"), ("a crash", "SIGSEGV")]
)
def test_a_death_is_logged_with_its_cause(traitors: Service, treason: str, signal: str) -> None:
    client = traitors.client()
    client.sql("SELECT 1")
    assert client.sql(TREASON + treason).code == "cell_lost"
    died = re.compile(f"cell \\d+ of {client.instance} died of {signal}: ")
    wait_until(lambda: died.search(traitors.log()), 5, "the death is logged")
    lost = re.compile(f" lost: .* request_id=[0-9a-f]{{32}} instance={client.instance}\n")
    assert lost.search(traitors.log()), "and so is the call that it cost"
