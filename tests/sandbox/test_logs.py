"""The log: a line for each event in either form, and a pipe that nobody reads holds nobody up."""

import json
import logging
import os
import re
import time
from collections.abc import Iterator

import pytest

from sandbox import logs
from sandbox.logs import FORMS, Lines, Writer

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def record(message: str, *args: object, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "walkin.zygote", "levelname": "ERROR", "msg": message, "args": args}
    )
    vars(made).update(fields)
    return made


def written(pipe: tuple[int, int], form: str, *records: logging.LogRecord) -> str:
    read, write = pipe
    handler = Lines(Writer(write), form)
    for one in records:
        handler.emit(one)
    return os.read(read, 65_536).decode()


def test_a_text_line_has_time_level_name_message_and_fields(pipe: tuple[int, int]) -> None:
    line = written(pipe, "text", record("no %s", "room", instance="ab12", ms=1.5))
    assert re.fullmatch(STAMP + r" ERROR walkin\.zygote: no room instance=ab12 ms=1\.5\n", line)


def test_a_json_line_has_the_same(pipe: tuple[int, int]) -> None:
    line = written(pipe, "json", record('no "%s"\n', "room", instance="ab12", ms=1.5))
    said = json.loads(line)
    assert re.fullmatch(STAMP, said.pop("time"))
    assert said == {
        "level": "error",
        "logger": "walkin.zygote",
        "message": 'no "room"\n',
        "instance": "ab12",
        "ms": 1.5,
    }
    assert line.count("\n") == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\x0b", "\x85"])
def test_whatever_is_in_it_it_is_one_line(pipe: tuple[int, int], form: str, end: str) -> None:
    said = written(pipe, form, record("a%sb", end, field=f"c{end}d"), record("next"))
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize("form", FORMS)
def test_a_fault_is_one_line_with_its_cause(pipe: tuple[int, int], form: str) -> None:
    try:
        raise ZeroDivisionError("the cause")
    except ZeroDivisionError as error:
        line = written(pipe, form, record("failed", exc_info=(type(error), error, None)))
    assert line.count("\n") == 1
    assert "ZeroDivisionError: the cause" in line


def test_a_lone_surrogate_is_written_too(pipe: tuple[int, int]) -> None:
    assert "\\udc80" in written(pipe, "text", record("\udc80"))


def test_a_record_that_cannot_be_written_stops_nobody(
    pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    Lines(Writer(pipe[1]), "text").emit(record("%d", "not a number"))
    assert "not a number" in capsys.readouterr().err


def test_a_pipe_that_nobody_reads_is_not_waited_for(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = Writer(write)
    line = b"x" * 99 + b"\n"
    began = time.monotonic()
    for _ in range(20_000):  # 2 MB: what the pipe takes, what is kept, and more
        writer.write([line])
    assert time.monotonic() - began < 5
    assert writer.lost > 0
    taken = 0
    while taken < 20_000 - writer.lost:
        piece = os.read(read, 65_536)
        assert set(piece.splitlines()) == {line.rstrip()}, "lines stay whole"
        taken += piece.count(b"\n")
        writer.flush()
    assert taken == 20_000 - writer.lost
    writer.write([b"again\n"])
    assert os.read(read, 100) == b"again\n"


def test_a_reader_that_is_gone_is_no_fault() -> None:
    read, write = os.pipe()
    os.close(read)
    Writer(write).write([b"nobody\n"])
    os.close(write)


def test_lines_of_two_processes_do_not_mix(pipe: tuple[int, int]) -> None:
    """Each write is of whole lines and no longer than a pipe takes in one piece."""
    read, write = pipe
    lines = [b"%d" % number * 700 + b"\n" for number in range(8)]
    Writer(write).write(lines)
    assert os.read(read, 65_536) == b"".join(lines)


def test_a_stamp_is_utc_to_the_millisecond() -> None:
    assert logs.stamp(0.0019) == "1970-01-01T00:00:00.001Z"
    assert logs.stamp(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
