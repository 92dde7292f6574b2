"""An answer in lines comes while more of it is being made; and what a turn tells of itself."""

import asyncio
from typing import Any

import pytest

from sandbox import frames
from sandbox.errors import CellLost, CellTimeout, FrameError
from sandbox.forms import Form
from sandbox.frames import Ask, Kind, encode, encode_answer, encode_data
from tests.walkin.fakes import Run, until
from tests.walkin.test_line import AMPLE_MS, REQUEST_ID, Wire, open_wire
from walkin.line import LineEnded
from walkin.stream import MOST_BYTES, Stream
from walkin.turn import Answer, Wanted

LINES = Wanted(Ask.SQL, Form.CSV)


def ask(wire: Wire, wanted: Wanted = LINES, timeout_ms: int = AMPLE_MS) -> asyncio.Task[Answer]:
    calling = wire.line.call(b"{}", REQUEST_ID, timeout_ms, wanted, announce=False)
    wire.calls.append(asyncio.create_task(calling))
    return wire.calls[-1]


async def begun(wire: Wire, **how: Any) -> Stream:
    """Have an answer begin with one piece; return its stream."""
    calling = ask(wire, **how)
    await wire.cell.take()
    await wire.cell.say(encode_data(b"a\r\n", Kind.STREAM))
    answer = await calling
    assert answer.status == 200
    assert answer.stream is not None
    return answer.stream


async def rest(stream: Stream) -> bytes:
    return b"".join([piece async for piece in stream.pieces()])


async def whole(calling: asyncio.Task[Answer]) -> bytes:
    """The body of an answer, however it comes."""
    answer = await calling
    return answer.body if answer.stream is None else await rest(answer.stream)


def test_form_key_and_purpose_reach_the_cell(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            ask(wire, Wanted(Ask.SCHEMA, Form.MARKDOWN, b"key"))
            asked = await wire.cell.take()
            assert (asked.ask, asked.form, asked.key) == (Ask.SCHEMA, Form.MARKDOWN, b"key")
            assert asked.body == b"{}"

    run(main())


def test_a_short_answer_in_lines_comes_whole_with_its_marks_and_times(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = ask(wire)
            await wire.cell.take()
            await wire.cell.say(encode_answer(200, b"a\r\n", frames.CUT_ROWS, 1500))
            answer = await calling
            assert answer[:3] == (200, b"a\r\n", frames.CUT_ROWS)
            assert answer.stream is None
            assert answer.took_s == 0.0015
            assert 0 <= answer.waited_s < 5

    run(main())


def test_a_long_one_is_there_before_it_ends(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            stream = await begun(wire)
            await wire.cell.say(encode_data(b"b\r\n", Kind.STREAM) + encode_answer(200, b"c\r\n"))
            assert await rest(stream) == b"a\r\nb\r\nc\r\n"
            calling = ask(wire)
            await wire.cell.answer(200, b"next")
            assert (await calling).body == b"next"

    run(main())


def test_other_calls_wait_until_it_has_ended(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            stream = await begun(wire)
            waiting = wire.call()
            assert not wire.cell.has_call()
            await wire.cell.say(encode_answer(200, b""))
            await wire.cell.answer(200, b"{}")
            assert (await waiting).body == b"{}"
            assert await rest(stream) == b"a\r\n"

    run(main())


def test_an_error_behind_its_beginning_breaks_it_off(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            stream = await begun(wire)
            await wire.cell.say(encode_answer(408, b'{"error":"query timed out"}'))
            with pytest.raises(CellLost):
                await rest(stream)
            assert not wire.ended, "the cell is well"

    run(main())


@pytest.mark.parametrize(
    ("said", "error"),
    [(None, CellLost), (b"\xff\xff\xff\xff\xff", FrameError)],
    ids=["end", "rubbish"],
)
def test_a_cell_that_goes_away_breaks_it_off(
    run: Run, said: bytes | None, error: type[Exception]
) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            stream = await begun(wire)
            if said is None:
                wire.cell.close()
            else:
                await wire.cell.say(said)
            with pytest.raises(error):
                await rest(stream)
            assert wire.ended

    run(main())


def test_its_time_ends_it(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            stream = await begun(wire, timeout_ms=50)
            with pytest.raises(CellTimeout):
                await rest(stream)
            assert await wire.cell.sees_hang_up()

    run(main())


def test_whoever_leaves_it_frees_the_cell_and_those_who_wait(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            stream = await begun(wire)
            waiting = wire.call()
            await asyncio.sleep(0)
            stream.leave()
            with pytest.raises(LineEnded):
                await waiting
            assert await wire.cell.sees_hang_up()

    run(main())


def test_a_cell_is_not_listened_to_while_nobody_takes_what_it_says(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            stream = await begun(wire)
            piece = encode(Kind.STREAM, b"x" * 100_000)
            said = 0

            async def speak() -> None:
                nonlocal said
                for _ in range(100):
                    await wire.cell.say(piece)
                    said += 100_000

            speaking = asyncio.create_task(speak())
            await until(lambda: stream._is_paused)
            before = -1
            while before != said:  # until what the kernel keeps is full too
                before = said
                await asyncio.sleep(0.05)
            assert said < 100 * 100_000
            assert stream._bytes < MOST_BYTES + (1 << 20)
            taking = asyncio.create_task(rest(stream))
            await speaking
            await wire.cell.say(encode_answer(200, b""))
            assert len(await taking) == 100 * 100_000 + 3

    run(main())


@pytest.mark.parametrize("wanted", [LINES, Wanted()], ids=["lines", "json"])
def test_a_stream_of_crumbs_or_one_that_nobody_wants_ends_the_line(
    run: Run, wanted: Wanted
) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = ask(wire, wanted)
            await wire.cell.take()
            crumbs = encode(Kind.STREAM, b"") * 1000
            for _ in range(6):
                if wire.ended:
                    break
                await wire.cell.say(crumbs)
                await asyncio.sleep(0.01)
            assert wire.ended
            with pytest.raises(FrameError):
                await whole(calling)

    run(main())


def test_a_finished_answer_in_many_pieces_is_no_stream(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = ask(wire)
            await wire.cell.take()
            await wire.cell.say(encode_answer(400, b"x" * 600_000))
            answer = await calling
            assert (answer.status, len(answer.body), answer.stream) == (400, 600_000, None)

    run(main())
