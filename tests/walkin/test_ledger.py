"""The ledger: each call once, in the counts and as a line, with nothing that a caller made up."""

import asyncio
import json
import os
import re
from collections.abc import Iterator

import pytest

from sandbox.logs import FORMS, Writer
from walkin.ledger import BOUNDS_S, Call, Ledger


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


def call(status: int = 200, code: str = "", path: str = "/sql") -> Call:
    made = Call(bytes(range(16)), path)
    made.instance = b"\xab" * 16
    made.status, made.code, made.received, made.sent = status, code, 18, 64
    return made


def test_a_text_line_says_what_became_of_it(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        ledger = Ledger(Writer(pipe[1]), "text")
        ledger.note(call(429, "rate_limited"))
        ledger.flush()

    asyncio.run(main())
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO walkin\.calls: call"
        r" request_id=000102030405060708090a0b0c0d0e0f instance=(ab){16} path=/sql status=429"
        r" code=rate_limited ms=\d+\.\d{3} received=18 sent=64\n",
        os.read(pipe[0], 10_000).decode(),
    )


def test_a_json_line_says_the_same(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        ledger = Ledger(Writer(pipe[1]), "json")
        ledger.note(call())
        ledger.flush()

    asyncio.run(main())
    said = json.loads(os.read(pipe[0], 10_000))
    assert said.pop("time").endswith("Z")
    assert 0 <= said.pop("ms") < 1000
    assert said == {
        "level": "info",
        "logger": "walkin.calls",
        "message": "call",
        "request_id": "000102030405060708090a0b0c0d0e0f",
        "instance": "ab" * 16,
        "path": "/sql",
        "status": 200,
        "code": "",
        "received": 18,
        "sent": 64,
    }


@pytest.mark.parametrize("form", FORMS)
def test_lines_are_gathered_and_come_by_themselves(pipe: tuple[int, int], form: str) -> None:
    async def main() -> None:
        ledger = Ledger(Writer(pipe[1]), form)
        for _ in range(10):
            ledger.note(call())
        with pytest.raises(BlockingIOError):
            os.read(pipe[0], 10_000)
        async with asyncio.timeout(5):
            while True:
                await asyncio.sleep(0.01)
                try:
                    lines = os.read(pipe[0], 65_536)
                except BlockingIOError:
                    continue
                break
        assert lines.count(b"\n") == 10

    asyncio.run(main())


def test_a_crowd_of_lines_is_not_kept_for_long(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        ledger = Ledger(Writer(pipe[1]))
        for _ in range(500):
            ledger.note(call())
        assert os.read(pipe[0], 65_536)

    asyncio.run(main())


def test_everything_is_counted_with_or_without_lines() -> None:
    ledger = Ledger(None)
    for one in (call(), call(), call(400), call(503, "busy"), call(0), call(404, "x", "other")):
        ledger.note(one)
    assert ledger.calls == {
        ("/sql", 200): 2,
        ("/sql", 400): 1,
        ("/sql", 503): 1,
        ("/sql", 0): 1,
        ("other", 404): 1,
    }
    assert ledger.refusals == {"busy": 1, "x": 1}
    assert (ledger.received, ledger.sent) == (6 * 18, 6 * 64)
    assert sum(ledger.durations) == 6
    assert ledger.seconds > 0


def test_a_duration_is_counted_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(None)
    for took_s in (0.0, 0.0005, 0.0011, 10.5):
        one = call()
        one.began = 100.0
        monkeypatch.setattr("walkin.ledger.time.perf_counter", lambda took_s=took_s: 100.0 + took_s)
        ledger.note(one)
    assert ledger.durations == [2, 1, *[0] * (len(BOUNDS_S) - 2), 1]
