"""One database's line: whatever a cell sends, a call ends in time, and in one of a few ways."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox import frames
from sandbox.codes import CELL_STATUSES
from sandbox.errors import CellLost, CellTimeout, FrameError, NodeBusy, SandboxError
from sandbox.frames import END_HEAD, HEADER, MAX_ANSWER_BYTES, Kind, encode, encode_answer
from tests.walkin.fakes import FakeCell, Run, turns, until
from walkin import line as line_module
from walkin.line import QUEUE_MOST, TOGETHER_MOST, Line, LineEnded
from walkin.turn import KILL_AFTER_S, Answer

REQUEST_ID = bytes(range(16))
#: The time given to calls of which none is to run out.
AMPLE_MS = 20_000
END_200 = encode(Kind.END, END_HEAD.pack(200, 0, 0))


@pytest.fixture(autouse=True, scope="module")
def ample_quickness() -> Iterator[None]:
    """A busy machine must not make a quick cell a slow one."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(line_module, "_QUICK_S", 0.5)
        yield


class Wire:
    """A line, the cell at its other end, and how often the line was said to have ended."""

    def __init__(self, line: Line, cell: FakeCell, ended: list[Line]) -> None:
        self.line = line
        self.cell = cell
        self.ended = ended
        self.calls: list[asyncio.Task[Answer]] = []

    def call(
        self, timeout_ms: int = AMPLE_MS, body: bytes = b"{}", *, announce: bool = False
    ) -> asyncio.Task[Answer]:
        """Begin a call."""
        calling = self.line.call(body, REQUEST_ID, timeout_ms, announce=announce)
        self.calls.append(asyncio.create_task(calling))
        return self.calls[-1]


@contextlib.asynccontextmanager
async def open_wire() -> AsyncIterator[Wire]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ended: list[Line] = []
    _, line = await asyncio.get_running_loop().create_unix_connection(
        lambda: Line(0, 0, ended.append, 1), sock=ours
    )
    wire = Wire(line, FakeCell(theirs), ended)
    try:
        yield wire
    finally:
        for call in wire.calls:
            call.cancel()
        await asyncio.gather(*wire.calls, return_exceptions=True)
        line.close()
        wire.cell.close()
        await turns()


# --- good answers ---


def test_a_call_reaches_the_cell_as_it_is(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(1234, b'{"sql":"select 1"}')
            asked = await wire.cell.answer()
            assert (asked.timeout_ms, asked.announce, asked.request_id) == (1234, False, REQUEST_ID)
            assert asked.body == b'{"sql":"select 1"}'
            await calling

    run(main())


def test_a_call_that_wants_to_be_announced_says_so(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(announce=True)
            assert (await wire.cell.answer()).announce
            await calling

    run(main())


@pytest.mark.parametrize("status", sorted(CELL_STATUSES))
def test_an_answer_comes_back_as_it_is(run: Run, status: int) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.answer(status, b'{"rows_affected":0}')
            assert (await calling)[:2] == (status, b'{"rows_affected":0}')
            assert not wire.ended

    run(main())


@pytest.mark.parametrize("step", [1, 3, 5, 100])
def test_an_answer_in_many_pieces_is_put_together(run: Run, step: int) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            sent = encode(Kind.DATA, b"[1,") + encode(Kind.DATA, b"2]" * 40) + END_200
            for at in range(0, len(sent), step):
                await wire.cell.say(sent[at : at + step])
                await asyncio.sleep(0)
            assert (await calling)[:2] == (200, b"[1," + b"2]" * 40)

    run(main())


def test_an_answer_without_data_is_empty(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            await wire.cell.say(END_200)
            assert (await calling)[:2] == (200, b"")

    run(main())


def test_an_answer_of_the_longest_length_is_taken(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.answer(200, b"x" * MAX_ANSWER_BYTES)
            assert len((await calling).body) == MAX_ANSWER_BYTES

    run(main())


def test_calls_follow_each_other_on_one_line(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            for number in range(50):
                calling = wire.call(body=b"%d" % number)
                call = await wire.cell.answer(200, b"answer %d" % number)
                assert (call.body, (await calling).body) == (b"%d" % number, b"answer %d" % number)

    run(main())


# --- what a cell must not send ---


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="another protocol"),
        pytest.param(bytes(16), id="zeros"),
        pytest.param(b"\xff" * 16, id="ones"),
        pytest.param(HEADER.pack(Kind.CALL, 0), id="the front desk's own kind"),
        pytest.param(HEADER.pack(6, 0), id="a kind that is none"),
        pytest.param(HEADER.pack(Kind.END, 1) + b"\0", id="a short END"),
        pytest.param(HEADER.pack(Kind.END, 0), id="an empty END"),
        pytest.param(HEADER.pack(Kind.END, 3) + b"\0\0\0", id="a long END"),
        pytest.param(HEADER.pack(Kind.DATA, frames.LIMITS[Kind.DATA] + 1), id="a long DATA"),
        pytest.param(HEADER.pack(Kind.DATA, 0xFFFFFFFF), id="the longest DATA"),
        pytest.param(HEADER.pack(Kind.RETIRED, 1), id="a long RETIRED"),
        pytest.param(HEADER.pack(Kind.STARTED, 0), id="a STARTED that was not asked for"),
        pytest.param(encode(Kind.DATA, b"{}") + b"\xff" * 5, id="data, then garbage"),
    ],
)
def test_what_is_no_answer_ends_the_call_and_the_line(run: Run, said: bytes) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            await wire.cell.say(said)
            with pytest.raises(FrameError):
                await calling
            assert wire.ended == [wire.line]
            assert await wire.cell.sees_hang_up()

    run(main())


@pytest.mark.parametrize(
    "status", [0, 100, 199, 201, 204, 302, 401, 404, 412, 429, 501, 502, 503, 65535]
)
def test_a_status_that_is_not_a_cells_to_give_is_refused(run: Run, status: int) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.answer(status)
            with pytest.raises(FrameError, match=str(status)):
                await calling
            assert wire.ended

    run(main())


def test_an_answer_one_byte_too_long_is_refused(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            with contextlib.suppress(OSError):
                await wire.cell.say(encode_answer(200, b"x" * (MAX_ANSWER_BYTES + 1)))
            with pytest.raises(FrameError):
                await calling

    run(main())


def test_an_answer_without_an_end_is_cut_off(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            frame = encode(Kind.DATA, bytes(frames.LIMITS[Kind.DATA]))
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 100 * MAX_ANSWER_BYTES:
                    await wire.cell.say(frame)
                    sent += len(frame)
            # What lies in the sockets' buffers comes on top.
            assert sent < 2 * MAX_ANSWER_BYTES
            with pytest.raises(FrameError):
                await calling

    run(main())


@pytest.mark.parametrize("crumb", [b"", b"x"], ids=["empty", "one byte"])
def test_an_answer_in_crumbs_is_cut_off(run: Run, crumb: bytes) -> None:
    # Each frame costs the front desk time, however little is in it.
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            with contextlib.suppress(OSError):
                await wire.cell.say(encode(Kind.DATA, crumb) * 100_000 + END_200)
            with pytest.raises(FrameError):
                await calling

    run(main())


def test_a_long_header_is_refused_before_its_payload_comes(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            await wire.cell.say(HEADER.pack(Kind.DATA, 1 << 31))
            async with asyncio.timeout(5):
                with pytest.raises(FrameError):
                    await calling

    run(main())


# --- out of turn ---


@pytest.mark.parametrize(
    "said",
    [encode(Kind.DATA, b"{}"), END_200, encode(Kind.STARTED)],
    ids=["DATA", "END", "STARTED"],
)
def test_a_frame_that_nobody_asked_for_ends_the_line(run: Run, said: bytes) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            await wire.cell.say(said)
            await until(lambda: wire.ended)
            with pytest.raises(LineEnded):
                await wire.call()

    run(main())


def test_a_second_answer_is_not_the_next_calls(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first, second = wire.call(body=b"1"), wire.call(body=b"2")
            await wire.cell.take()
            await wire.cell.say(encode_answer(200, b"one") + encode_answer(200, b"forged"))
            assert (await first).body == b"one"
            with pytest.raises(LineEnded):
                await second

    run(main())


def test_half_an_answer_is_not_the_beginning_of_the_next(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first = wire.call(50)
            await wire.cell.take()
            await wire.cell.say(encode(Kind.DATA, b"half"))
            with pytest.raises(CellTimeout):
                await first
            with pytest.raises(LineEnded):
                await wire.call()

    run(main())


# --- silence and ends ---


def test_silence_is_a_timeout_a_moment_after_the_calls_own(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            began = time.monotonic()
            with pytest.raises(CellTimeout):
                await wire.call(100)
            took = time.monotonic() - began
            assert 0.1 + KILL_AFTER_S - 0.01 <= took < 0.1 + KILL_AFTER_S + 1
            assert wire.ended == [wire.line]
            assert await wire.cell.sees_hang_up()

    run(main())


def test_data_does_not_put_the_timeout_off(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            began = time.monotonic()
            calling = wire.call(50)
            await wire.cell.take()
            while not calling.done() and time.monotonic() < began + 5:
                with contextlib.suppress(OSError):
                    await wire.cell.say(encode(Kind.DATA, b"x"))
                await asyncio.sleep(0.005)
            with pytest.raises(CellTimeout):
                await calling
            assert time.monotonic() - began < 0.05 + KILL_AFTER_S + 1

    run(main())


def test_an_answer_in_the_last_moment_is_taken(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(50)
            await wire.cell.take()
            await asyncio.sleep(0.05 + KILL_AFTER_S / 2)
            await wire.cell.say(encode_answer(200, b"late"))
            assert (await calling).body == b"late"

    run(main())


def test_an_end_before_the_timeout_is_a_loss(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            wire.cell.close()
            with pytest.raises(CellLost):
                await calling
            assert wire.ended == [wire.line]

    run(main())


def test_an_end_in_the_middle_of_an_answer_is_a_loss(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            await wire.cell.say(encode_answer(200, b"x" * 100)[:-1])
            wire.cell.close()
            with pytest.raises(CellLost):
                await calling

    run(main())


@pytest.mark.parametrize("read", [0, 1, 100, -1])
def test_an_end_before_all_of_the_call_was_read_leaves_it_not_begun(run: Run, read: int) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(body=b" " * 5000)
            await until(wire.cell.has_call)
            size = len(wire.cell.sock.recv(65_536, socket.MSG_PEEK))
            wire.cell.sock.recv(read % size)
            wire.cell.close()
            with pytest.raises(LineEnded):
                await calling

    run(main())


def test_an_end_before_the_call_is_sent_leaves_it_not_begun(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            wire.cell.close()
            with pytest.raises(LineEnded):
                await wire.line.call(b"{}", REQUEST_ID, AMPLE_MS, announce=False)

    run(main())


def test_an_end_in_the_middle_of_an_answer_with_bytes_unread_is_a_loss(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await until(wire.cell.has_call)
            wire.cell.sock.recv(1)
            await wire.cell.say(encode(Kind.DATA, b"x"))
            wire.cell.close()
            with pytest.raises(CellLost):
                await calling

    run(main())


def test_an_end_after_the_timeout_is_a_timeout(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(50)
            await wire.cell.take()
            await asyncio.sleep(0.05 + KILL_AFTER_S / 2)
            wire.cell.close()
            with pytest.raises(CellTimeout):
                await calling

    run(main())


def test_an_end_while_idle_ends_the_line(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            wire.cell.close()
            await until(lambda: wire.ended)
            with pytest.raises(LineEnded):
                await wire.call()

    run(main())


def test_a_retired_cell_has_not_begun_the_call(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            await wire.cell.say(encode(Kind.RETIRED))
            with pytest.raises(LineEnded):
                await calling
            assert wire.ended == [wire.line]

    run(main())


def test_a_cell_that_retires_and_is_gone_has_not_begun_the_call(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            await wire.cell.say(encode(Kind.RETIRED))
            wire.cell.close()
            with pytest.raises(LineEnded):
                await calling

    run(main())


def test_a_cell_that_retires_while_idle_ends_the_line(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            await wire.cell.say(encode(Kind.RETIRED))
            await until(lambda: wire.ended)

    run(main())


def test_a_cell_that_retires_after_an_answer_leaves_it_valid(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            await wire.cell.say(encode_answer(200, b"done") + encode(Kind.RETIRED))
            assert (await calling).body == b"done"
            assert wire.ended == [wire.line]

    run(main())


@pytest.mark.parametrize("begun", [Kind.DATA, Kind.STARTED])
def test_a_cell_that_has_begun_cannot_say_that_it_has_not(run: Run, begun: Kind) -> None:
    # The call would be run again.
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(announce=begun is Kind.STARTED)
            await wire.cell.take()
            await wire.cell.say(encode(begun, b"{" * (begun is Kind.DATA)) + encode(Kind.RETIRED))
            with pytest.raises((CellLost, FrameError)):
                await calling

    run(main())


def test_a_line_says_only_once_that_it_has_ended(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            await wire.cell.say(encode(Kind.RETIRED) + b"\xff" * 100)
            wire.cell.close()
            await until(lambda: wire.ended)
            wire.line.close()
            await turns()
            assert wire.ended == [wire.line]

    run(main())


def test_a_line_that_is_closed_ends_the_call(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            wire.line.close()
            with pytest.raises(SandboxError):
                await calling
            assert await wire.cell.sees_hang_up()

    run(main())


# --- announced calls ---


@pytest.fixture
def short_queue(monkeypatch: pytest.MonkeyPatch) -> float:
    """A queue in which nobody waits for long."""
    monkeypatch.setattr(line_module, "QUEUE_S", 0.1)
    return 0.1


def test_the_clock_of_an_announced_call_starts_when_the_cell_starts(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(50, announce=True)
            await wire.cell.take()
            await asyncio.sleep(0.05 + KILL_AFTER_S + 0.1)  # in the cell's own queue
            assert not calling.done()
            started = time.monotonic()
            await wire.cell.say(encode(Kind.STARTED))
            with pytest.raises(CellTimeout):
                await calling
            assert time.monotonic() - started >= 0.05 + KILL_AFTER_S - 0.01

    run(main())


def test_an_announced_call_is_answered(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(announce=True)
            await wire.cell.take()
            await wire.cell.say(encode(Kind.STARTED))
            await asyncio.sleep(0)
            await wire.cell.say(encode_answer(200, b"done"))
            assert (await calling).body == b"done"
            assert not wire.ended

    run(main())


def test_every_announced_call_may_be_started_once(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            for _ in range(3):
                calling = wire.call(announce=True)
                await wire.cell.take()
                await wire.cell.say(encode(Kind.STARTED) + encode_answer(200, b"done"))
                assert (await calling).body == b"done"

    run(main())


def test_a_call_that_is_started_twice_ends_the_line(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(announce=True)
            await wire.cell.take()
            await wire.cell.say(encode(Kind.STARTED) * 2)
            with pytest.raises(FrameError):
                await calling

    run(main())


def test_a_call_that_is_never_started_is_busy(run: Run, short_queue: float) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            began = time.monotonic()
            with pytest.raises(NodeBusy):
                await wire.call(announce=True)
            assert short_queue - 0.01 <= time.monotonic() - began < short_queue + 1
            # By this the cell knows that the call is not wanted any more.
            assert await wire.cell.sees_hang_up()

    run(main())


def test_an_end_before_an_announced_call_is_started_leaves_it_not_begun(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(announce=True)
            await wire.cell.take()
            wire.cell.close()
            with pytest.raises(LineEnded):
                await calling

    run(main())


def test_an_end_after_an_announced_call_is_started_is_a_loss(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(announce=True)
            await wire.cell.take()
            await wire.cell.say(encode(Kind.STARTED))
            wire.cell.close()
            with pytest.raises(CellLost):
                await calling

    run(main())


# --- one after the other ---


def test_a_call_waits_for_the_one_before_it(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first, second = wire.call(body=b"1"), wire.call(body=b"2")
            assert (await wire.cell.take()).body == b"1"
            await turns()
            assert not wire.cell.has_call()
            await wire.cell.say(encode_answer(200, b"one"))
            assert (await first).body == b"one"
            await wire.cell.answer(200, b"two")
            assert (await second).body == b"two"

    run(main())


def test_waiting_does_not_cost_a_call_its_own_time(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first, second = wire.call(), wire.call(50)
            await wire.cell.take()
            await asyncio.sleep(0.05 + KILL_AFTER_S + 0.05)
            await wire.cell.say(encode_answer(200, b"one"))
            await first
            await wire.cell.answer(200, b"two")
            assert (await second).body == b"two"

    run(main())


def test_a_call_behind_a_silent_one_does_not_go_to_the_same_cell(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first, second = wire.call(50), wire.call()
            with pytest.raises(CellTimeout):
                await first
            with pytest.raises(LineEnded):
                await second

    run(main())


def test_so_many_may_wait_and_one_more_is_busy_at_once(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calls = [wire.call() for _ in range(1 + QUEUE_MOST)]
            await wire.cell.take()
            await turns()
            with pytest.raises(NodeBusy):
                await wire.call()
            assert [call for call in calls if call.done()] == []
            await wire.cell.say(encode_answer(200, b"{}"))
            for _ in calls[1:]:
                await wire.cell.answer()
            assert {(await call).status for call in calls} == {200}

    run(main())


def test_a_place_in_the_queue_is_free_again(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calls = [wire.call() for _ in range(1 + QUEUE_MOST)]
            await wire.cell.answer()
            await calls[0]
            await turns()
            calls.append(wire.call())
            for _ in calls[1:]:
                await wire.cell.answer()
            assert {(await call).status for call in calls} == {200}

    run(main())


def test_who_waits_too_long_is_busy_and_the_others_go_on(run: Run, short_queue: float) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first, second = wire.call(), wire.call()
            await wire.cell.take()
            began = time.monotonic()
            with pytest.raises(NodeBusy):
                await second
            assert time.monotonic() - began < short_queue + 1
            await wire.cell.say(encode_answer(200, b"one"))
            assert (await first).body == b"one"
            third = wire.call(body=b"3")
            assert (await wire.cell.answer()).body == b"3"
            await third

    run(main())


# --- cancelling ---


def test_a_cancelled_call_closes_the_line(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call()
            await wire.cell.take()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            assert wire.ended == [wire.line]
            assert await wire.cell.sees_hang_up()

    run(main())


def test_the_answer_to_a_cancelled_call_is_nobody_elses(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first, second = wire.call(body=b"1"), wire.call(body=b"2")
            await wire.cell.take()
            first.cancel()
            wire.line.data_received(encode_answer(200, b"one"))  # in the same turn of the loop
            assert (await wire.cell.answer(200, b"two")).body == b"2"
            assert (await second).body == b"two"
            assert first.cancelled()
            assert not wire.ended

    run(main())


def test_a_call_cancelled_while_it_waits_leaves_the_line_open(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first, second, third = wire.call(), wire.call(body=b"2"), wire.call(body=b"3")
            await wire.cell.take()
            second.cancel()
            await wire.cell.say(encode_answer(200, b"one"))
            assert (await first).body == b"one"
            assert (await wire.cell.answer()).body == b"3"
            await third
            assert second.cancelled()
            assert not wire.ended

    run(main())


def test_a_call_cancelled_in_the_middle_of_its_answer_gives_none_of_it_to_the_next(
    run: Run,
) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            first, second = wire.call(body=b"1"), wire.call(body=b"2")
            await wire.cell.take()
            first.cancel()
            wire.line.data_received(encode_answer(200, b"one")[:3])  # in the same turn of the loop
            with pytest.raises(LineEnded):
                await second

    run(main())


# --- several together ---


@contextlib.asynccontextmanager
async def sent_together(
    count: int, timeout_ms: int = AMPLE_MS
) -> AsyncIterator[tuple[Wire, list[asyncio.Task[Answer]]]]:
    """So many calls, numbered by their bodies, that the cell has been sent and has not read."""
    async with open_wire() as wire:
        opener = wire.call()
        calls = [wire.call(timeout_ms, b"%d" % number) for number in range(count)]
        await wire.cell.answer()
        await opener
        await until(wire.cell.has_call)
        yield wire, calls


async def how_it_ended(calls: list[asyncio.Task[Answer]]) -> list[object]:
    """For each call the body of its answer, or the class of its error."""
    ends = await asyncio.gather(*calls, return_exceptions=True)
    return [end.body if isinstance(end, Answer) else type(end) for end in ends]


def read_all(cell: FakeCell) -> list[bytes]:
    """What was sent, by one system call."""
    decoder = frames.Decoder(frames.TO_CELL)
    data = cell.sock.recv(1 << 20)
    return [frames.decode_call(payload).body for _, payload in decoder.feed(data)]


def test_calls_that_wait_are_sent_together_and_answered_in_order(run: Run) -> None:
    async def main() -> None:
        async with sent_together(4) as (wire, calls):
            assert read_all(wire.cell) == [b"0", b"1", b"2", b"3"]
            for number in range(4):
                await wire.cell.say(encode_answer(200, b"%d!" % number))
            assert await how_it_ended(calls) == [b"0!", b"1!", b"2!", b"3!"]
            assert not wire.ended

    run(main())


@pytest.mark.parametrize(("length", "most"), [(0, TOGETHER_MOST), (4000, 4), (60_000, 1)])
def test_only_so_many_and_so_much(run: Run, length: int, most: int) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calls = [wire.call(body=b"%d" % n + b" " * length) for n in range(2 * TOGETHER_MOST)]
            await wire.cell.answer()
            left = len(calls) - 1
            while left:
                await until(wire.cell.has_call)
                sent = read_all(wire.cell)
                assert len(sent) == min(most, left)
                await wire.cell.say(encode_answer(200, b"{}") * len(sent))
                left -= len(sent)
            assert {(await call).status for call in calls} == {200}

    run(main())


def test_nothing_is_sent_while_an_answer_is_to_come(run: Run) -> None:
    async def main() -> None:
        async with sent_together(3) as (wire, calls):
            assert len(read_all(wire.cell)) == 3
            late = wire.call(body=b"late")
            for number in range(3):
                await turns()
                assert not wire.cell.has_call()
                await wire.cell.say(encode_answer(200, b"%d" % number))
                await calls[number]
            assert (await wire.cell.answer()).body == b"late"
            await late

    run(main())


def test_after_a_slow_answer_they_go_one_at_a_time(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calls = [wire.call(body=b"%d" % number) for number in range(4)]
            await wire.cell.take()
            await asyncio.sleep(2 * line_module._QUICK_S)
            await wire.cell.say(encode_answer(200, b"{}"))
            await until(wire.cell.has_call)
            assert read_all(wire.cell) == [b"1"]
            await wire.cell.say(encode_answer(200, b"{}"))  # a quick one
            await until(wire.cell.has_call)
            assert read_all(wire.cell) == [b"2", b"3"]
            await wire.cell.say(encode_answer(200, b"{}") * 2)
            assert {(await call).status for call in calls} == {200}

    run(main())


def test_announced_calls_go_one_at_a_time(run: Run) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calls = [wire.call(body=b"%d" % number, announce=True) for number in range(3)]
            for number in range(3):
                await until(wire.cell.has_call)
                assert read_all(wire.cell) == [b"%d" % number]
                await wire.cell.say(encode(Kind.STARTED) + encode_answer(200, b"{}"))
            assert {(await call).status for call in calls} == {200}

    run(main())


def test_each_has_its_own_time_from_the_answer_before_it_on(run: Run) -> None:
    async def main() -> None:
        async with sent_together(3, 100) as (wire, calls):
            for number in range(2):
                await asyncio.sleep(0.1 + KILL_AFTER_S / 2)
                await wire.cell.say(encode_answer(200, b"%d" % number))
            began = time.monotonic()
            with pytest.raises(CellTimeout):
                await calls[2]
            assert time.monotonic() - began >= 0.1 + KILL_AFTER_S - 0.05
            assert await how_it_ended(calls[:2]) == [b"0", b"1"]

    run(main())


@pytest.mark.parametrize("answered", [0, 1, 3])
def test_an_end_tells_of_each_whether_it_has_begun(run: Run, answered: int) -> None:
    """The one in work is lost, and those behind it have not begun."""

    async def main() -> None:
        async with sent_together(4) as (wire, calls):
            read_all(wire.cell)
            await wire.cell.say(encode_answer(200, b"{}") * answered)
            wire.cell.close()
            expected = [*[b"{}"] * answered, CellLost, *[LineEnded] * (3 - answered)]
            assert await how_it_ended(calls) == expected

    run(main())


def test_an_end_before_they_were_read_leaves_all_not_begun(run: Run) -> None:
    async def main() -> None:
        async with sent_together(4) as (wire, calls):
            wire.cell.close()
            assert await how_it_ended(calls) == [LineEnded] * 4

    run(main())


def test_an_end_after_the_time_of_the_first_leaves_the_others_not_begun(run: Run) -> None:
    async def main() -> None:
        async with sent_together(3, 50) as (wire, calls):
            read_all(wire.cell)
            await asyncio.sleep(0.05 + KILL_AFTER_S / 2)
            wire.cell.close()
            assert await how_it_ended(calls) == [CellTimeout, LineEnded, LineEnded]

    run(main())


@pytest.mark.parametrize("answered", [0, 2])
def test_a_cell_that_retires_has_not_begun_those_without_an_answer(run: Run, answered: int) -> None:
    async def main() -> None:
        async with sent_together(4) as (wire, calls):
            read_all(wire.cell)
            await wire.cell.say(encode_answer(200, b"{}") * answered + encode(Kind.RETIRED))
            expected = [*[b"{}"] * answered, *[LineEnded] * (4 - answered)]
            assert await how_it_ended(calls) == expected

    run(main())


@pytest.mark.parametrize("said", [b"\xff" * 5, encode(Kind.STARTED), encode_answer(404, b"{}")])
def test_behind_a_breach_none_is_said_not_to_have_begun(run: Run, said: bytes) -> None:
    """Its answer may be on its way: it must not be run again elsewhere."""

    async def main() -> None:
        async with sent_together(3) as (wire, calls):
            read_all(wire.cell)
            await wire.cell.say(said)
            assert await how_it_ended(calls) == [FrameError, CellLost, CellLost]

    run(main())


def test_behind_a_silent_one_none_is_said_not_to_have_begun(run: Run) -> None:
    async def main() -> None:
        async with sent_together(3, 50) as (wire, calls):
            read_all(wire.cell)
            assert await how_it_ended(calls) == [CellTimeout, CellLost, CellLost]
            assert await wire.cell.sees_hang_up()

    run(main())


def test_on_a_line_that_is_closed_none_is_said_not_to_have_begun(run: Run) -> None:
    async def main() -> None:
        async with sent_together(3) as (wire, calls):
            read_all(wire.cell)
            waiting = wire.call()
            await turns()
            wire.line.close()
            assert await how_it_ended([*calls, waiting]) == [*[CellLost] * 3, LineEnded]

    run(main())


@pytest.mark.parametrize("who", [0, 1, 2])
def test_the_answer_to_one_that_was_cancelled_is_passed_over(run: Run, who: int) -> None:
    async def main() -> None:
        async with sent_together(3) as (wire, calls):
            read_all(wire.cell)
            calls[who].cancel()
            await turns()
            for number in range(3):
                await wire.cell.say(encode_answer(200, b"%d" % number))
            ends = await how_it_ended(calls)
            assert ends.pop(who) is asyncio.CancelledError
            assert ends == [b"%d" % number for number in range(3) if number != who]
            assert not wire.ended

    run(main())


def test_one_that_was_cancelled_still_has_its_time(run: Run) -> None:
    async def main() -> None:
        async with sent_together(2, 50) as (wire, calls):
            read_all(wire.cell)
            calls[0].cancel()
            assert await how_it_ended(calls) == [asyncio.CancelledError, CellLost]
            assert await wire.cell.sees_hang_up()

    run(main())


# --- whatever comes ---

kinds = st.one_of(st.sampled_from(sorted(Kind)), st.integers(0, 255))
plausible = st.lists(
    st.one_of(
        st.binary(max_size=20).map(lambda data: encode(Kind.DATA, data)),
        st.sampled_from([*CELL_STATUSES, 0, 404]).map(
            lambda status: encode(Kind.END, END_HEAD.pack(status, 0, 0))
        ),
        st.sampled_from([encode(Kind.STARTED), encode(Kind.RETIRED)]),
        st.tuples(kinds, st.integers(0, 1 << 20)).map(lambda pair: HEADER.pack(*pair)),
        st.binary(max_size=6),
    ),
    max_size=6,
).map(b"".join)


@settings(deadline=None)
@given(said=st.one_of(plausible, st.binary(max_size=200)), announce=st.booleans())
@example(said=b"", announce=False)
@example(said=encode_answer(200, b"{}"), announce=True)
def test_whatever_a_cell_says_and_then_ends_the_call_ends_in_a_known_way(
    said: bytes, announce: bool
) -> None:
    async def main() -> None:
        async with open_wire() as wire:
            calling = wire.call(announce=announce)
            await wire.cell.take()
            await wire.cell.say(said)
            wire.cell.close()
            try:
                async with asyncio.timeout(5):
                    answer = await calling
            except SandboxError:
                return
            assert answer.status in CELL_STATUSES
            assert len(answer.body) <= len(said)

    asyncio.run(main())
