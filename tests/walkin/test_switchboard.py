"""The operator: the right line for every database, a new one when a cell is gone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandbox.client import AsyncClient
from sandbox.control import Op, Outcome, Request
from sandbox.errors import (
    CellLost,
    CellTimeout,
    FrameError,
    InstanceMissing,
    NodeBusy,
    SandboxError,
    ZygoteGone,
)
from sandbox.frames import Kind, encode
from sandbox.place import Place
from tests.walkin.fakes import (
    Clock,
    FakeCell,
    FakeZygote,
    Run,
    Tell,
    Told,
    always,
    lines_for,
    turns,
    until,
    zygote_at,
)
from walkin.line import Answer
from walkin.settings import Settings
from walkin.switchboard import Switchboard
from walkin.tokens import new_instance_id

Make = Callable[..., Settings]

REQUEST_ID = bytes(16)
INSTANCE = new_instance_id()
RETIRED = encode(Kind.RETIRED)


@dataclass
class House:
    """A switchboard, the zygote it asks, and the calls made."""

    switchboard: Switchboard
    zygote: FakeZygote
    calls: list[asyncio.Task[Answer]] = field(default_factory=list)

    def call(self, instance: bytes = INSTANCE, body: bytes = b"{}") -> asyncio.Task[Answer]:
        self.calls.append(asyncio.create_task(self.switchboard.call(instance, body, REQUEST_ID)))
        return self.calls[-1]

    async def cell(self, number: int) -> FakeCell:
        """The cell of the line that was given out as the given one, from 0."""
        await until(lambda: len(self.zygote.cells) > number)
        return self.zygote.cells[number]


@contextlib.asynccontextmanager
async def house(settings: Settings, tell: Tell) -> AsyncIterator[House]:
    run_dir = Place(settings.data_dir).run
    async with zygote_at(run_dir, tell) as zygote:
        switchboard = Switchboard(AsyncClient(run_dir, 1.0), settings)
        at = House(switchboard, zygote)
        try:
            yield at
        finally:
            for call in at.calls:
                call.cancel()
            await asyncio.gather(*at.calls, return_exceptions=True)
            switchboard.close()
            await turns()


# --- a new database ---


def test_a_new_database_lives_for_the_lifetime_in_whole_seconds(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(ttl_s=100), lines_for()) as at:
            before = time.time()
            instance, expires = await at.switchboard.create()
            assert before + 100 <= expires <= time.time() + 101
            assert isinstance(expires, int)
            (asked,) = at.zygote.asked
            assert (asked.op, asked.instance, asked.amount) == (Op.CREATE, instance, 100)

    run(main())


def test_the_first_call_uses_the_line_that_came_with_the_database(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            instance, _ = await at.switchboard.create()
            calling = at.call(instance, b"first")
            assert (await (await at.cell(0)).answer(200, b"done")).body == b"first"
            assert (await calling)[:2] == (200, b"done")
            assert at.zygote.ops() == [Op.CREATE]

    run(main())


@pytest.mark.parametrize(
    ("outcome", "raised"),
    [
        (Outcome.BUSY, NodeBusy),
        (Outcome.FAILED, SandboxError),
        (Outcome.MISSING, InstanceMissing),
        (Outcome.DONE, SandboxError),  # without a line
    ],
)
def test_what_the_zygote_says_is_raised(
    make_settings: Make, outcome: Outcome, raised: type[SandboxError]
) -> None:
    async def main() -> None:
        async with house(make_settings(), always(outcome)) as at:
            with pytest.raises(raised):
                await at.switchboard.create()
            with pytest.raises(raised):
                await at.call()

    asyncio.run(main())


# --- lines ---


def test_a_call_opens_the_database(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(query_timeout_ms=1500), lines_for()) as at:
            calling = at.call()
            call = await (await at.cell(0)).answer(400, b'{"error":"x"}')
            assert (await calling)[:2] == (400, b'{"error":"x"}')
            assert (call.timeout_ms, call.announce, call.request_id) == (1500, False, REQUEST_ID)
            (asked,) = at.zygote.asked
            assert (asked.op, asked.instance, asked.amount) == (Op.OPEN, INSTANCE, 0)

    run(main())


def test_a_line_is_kept_for_the_next_call(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            for _ in range(5):
                calling = at.call()
                await (await at.cell(0)).answer()
                await calling
            assert at.zygote.ops() == [Op.OPEN]

    run(main())


def test_calls_at_the_same_moment_open_a_database_once(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calls = [at.call() for _ in range(10)]
            cell = await at.cell(0)
            for _ in calls:
                await cell.answer()
            await asyncio.gather(*calls)
            assert at.zygote.ops() == [Op.OPEN]

    run(main())


def test_a_caller_who_leaves_does_not_take_the_opening_along(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            first, second = at.call(), at.call(body=b"2")
            await asyncio.sleep(0)
            first.cancel()
            assert (await (await at.cell(0)).answer()).body == b"2"
            await second
            assert first.cancelled()

    run(main())


def test_two_databases_have_two_lines(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            ids = [new_instance_id() for _ in range(2)]
            for number, instance in enumerate(ids):
                at.call(instance, b"%d" % number)
                assert (await (await at.cell(number)).take()).body == b"%d" % number
            assert [request.instance for request in at.zygote.asked] == ids

    run(main())


def test_a_failed_opening_is_tried_anew_by_the_next_call(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        honest = lines_for()

        def busy_once(zygote: FakeZygote, request: Request) -> Told | None:
            return honest(zygote, request) if len(zygote.asked) > 1 else Told(Outcome.BUSY)

        async with house(make_settings(), busy_once) as at:
            with pytest.raises(NodeBusy):
                await at.call()
            calling = at.call()
            await (await at.cell(0)).answer()
            await calling

    run(main())


@pytest.mark.parametrize(("workers", "announced"), [(1, False), (2, True)])
def test_a_call_is_announced_where_several_front_desks_share_the_cells(
    make_settings: Make, workers: int, announced: int
) -> None:
    async def main() -> None:
        settings = make_settings(
            workers=workers, requests_per_min=0, creations_per_min=0, forks_per_min=0
        )
        async with house(settings, lines_for()) as at:
            for _ in range(2):
                calling = at.call()
                assert (await (await at.cell(0)).answer()).announce is announced
                await calling

    asyncio.run(main())


# --- cells that go away ---


def test_a_call_that_a_retiring_cell_did_not_begin_goes_to_the_next(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call(body=b"once")
            cell = await at.cell(0)
            await cell.take()
            await cell.say(RETIRED)
            cell.close()
            assert (await (await at.cell(1)).answer(200, b"done")).body == b"once"
            assert (await calling)[:2] == (200, b"done")
            assert at.zygote.ops() == [Op.OPEN, Op.OPEN]

    run(main())


def test_a_line_that_ended_while_idle_is_replaced(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            cell = await at.cell(0)
            await cell.answer()
            await calling
            cell.close()
            await turns()
            calling = at.call()
            await (await at.cell(1)).answer()
            await calling

    run(main())


def test_a_cell_that_retires_while_its_line_is_opened_is_replaced(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for(RETIRED)) as at:
            calling = at.call()
            await (await at.cell(1)).answer(200, b"done")
            assert (await calling)[:2] == (200, b"done")

    run(main())


def test_a_cell_that_babbles_while_its_line_is_opened_is_replaced_for_the_next_call(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for(b"babble")) as at:
            instance, _ = await at.switchboard.create()
            await until(lambda: not at.zygote.cells[0].is_connected())
            calling = at.call(instance)
            await (await at.cell(1)).answer(200, b"done")
            assert (await calling)[:2] == (200, b"done")

    run(main())


def test_a_created_database_whose_cell_retires_at_once_is_opened(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for(RETIRED)) as at:
            instance, _ = await at.switchboard.create()
            calling = at.call(instance)
            await (await at.cell(1)).answer(200, b"done")
            assert (await calling)[:2] == (200, b"done")

    run(main())


def test_a_database_whose_cells_all_end_unasked_is_busy(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            number = 0
            while not calling.done() and number < 10:
                await until(lambda: len(at.zygote.cells) > number or calling.done())  # noqa: B023
                if not calling.done():
                    at.zygote.cells[number].close()  # with the call unread
                    number += 1
            with pytest.raises(NodeBusy):
                await calling
            assert number == 3

    run(main())


@pytest.mark.parametrize(("ended", "answered"), [(11, True), (12, False)])
def test_a_call_outlasts_many_cells_that_are_told_to_go_but_not_any_number(
    run: Run, make_settings: Make, ended: int, answered: bool
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            for number in range(ended):
                cell = await at.cell(number)
                await cell.take()
                await cell.say(RETIRED)
            if answered:
                await (await at.cell(ended)).answer(200, b"done")
                assert (await calling)[:2] == (200, b"done")
            else:
                with pytest.raises(NodeBusy):
                    await calling

    run(main())


def test_a_line_that_was_told_to_go_before_it_was_used_is_no_try(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for(*[RETIRED] * 5)) as at:
            calling = at.call()
            await (await at.cell(5)).answer(200, b"done")
            assert (await calling)[:2] == (200, b"done")

    run(main())


def test_a_cell_that_ends_in_the_middle_of_a_call_does_not_get_it_again(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            cell = await at.cell(0)
            await cell.take()
            cell.close()
            with pytest.raises(CellLost):
                await calling
            assert at.zygote.ops() == [Op.OPEN]

    run(main())


def test_a_cell_that_breaks_the_rules_is_killed_and_the_next_call_gets_another(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            cell = await at.cell(0)
            await cell.take()
            await cell.say(b"\xff" * 100)
            with pytest.raises(FrameError):
                await calling
            killed = at.zygote.asked[-1]
            assert (killed.op, killed.instance) == (Op.KILL, INSTANCE), "it is not trusted again"
            calling = at.call()
            await (await at.cell(1)).answer()
            await calling

    run(main())


def test_a_silent_cell_is_killed(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(query_timeout_ms=20), lines_for()) as at:
            with pytest.raises(CellTimeout):
                await at.call()
            killed = at.zygote.asked[-1]
            assert (killed.op, killed.instance) == (Op.KILL, INSTANCE)

    run(main())


def test_a_kill_is_asked_for_before_the_next_call_opens_the_database(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with house(make_settings(query_timeout_ms=20), lines_for()) as at:
            first, second = at.call(), at.call()
            with pytest.raises(CellTimeout):
                await first
            await (await at.cell(1)).answer()
            await second
            assert at.zygote.ops() == [Op.OPEN, Op.KILL, Op.OPEN]

    run(main())


def test_a_kill_that_is_not_confirmed_does_not_hold_the_answer_up(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        honest = lines_for()

        def deaf_to_kills(zygote: FakeZygote, request: Request) -> Told | None:
            return None if request.op is Op.KILL else honest(zygote, request)

        async with house(make_settings(query_timeout_ms=20), deaf_to_kills) as at:
            began = time.monotonic()
            with pytest.raises(CellTimeout):
                await at.call()
            assert time.monotonic() - began < 1

    run(main())


def test_a_cell_that_its_own_timer_ended_is_not_killed_again(run: Run, make_settings: Make) -> None:
    # Another front desk may have had the database opened anew: the kill would be its cell's.
    settings = make_settings(
        workers=2, requests_per_min=0, creations_per_min=0, forks_per_min=0, query_timeout_ms=20
    )

    async def main() -> None:
        async with house(settings, lines_for()) as at:
            calling = at.call()
            cell = await at.cell(0)
            await cell.take()
            await asyncio.sleep(0.1)
            cell.close()
            with pytest.raises(CellTimeout):
                await calling
            assert at.zygote.ops() == [Op.OPEN]

    run(main())


# --- the end of a lifetime ---


def test_an_expired_database_is_asked_for_once_more_and_hung_up_on(
    run: Run, make_settings: Make, clock: Clock
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            cell = await at.cell(0)
            await cell.answer()
            await calling
            clock.forward(601)
            at.zygote.change(lambda _, __: Told(Outcome.MISSING))
            with pytest.raises(InstanceMissing):
                await at.call()
            # Another front desk might have given it a later end.
            assert at.zygote.ops() == [Op.OPEN, Op.OPEN]
            assert await cell.sees_hang_up()


def test_a_database_that_lives_longer_by_now_is_opened_anew(
    run: Run, make_settings: Make, clock: Clock
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            await (await at.cell(0)).answer()
            await calling
            clock.forward(601)
            calling = at.call()
            await (await at.cell(1)).answer(200, b"still here")
            assert (await calling)[:2] == (200, b"still here")

    run(main())

    run(main())


def test_a_call_that_the_end_of_its_database_interrupts_finds_it_missing(
    run: Run, make_settings: Make, clock: Clock
) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            cell = await at.cell(0)
            await cell.take()
            clock.forward(601)
            cell.close()
            with pytest.raises(InstanceMissing):
                await calling

    run(main())


# --- the zygote ---


def test_without_a_zygote_a_call_fails_in_time(run: Run, make_settings: Make) -> None:
    settings = make_settings()
    run_dir = Place(settings.data_dir).run
    run_dir.mkdir()

    async def main() -> None:
        switchboard = Switchboard(AsyncClient(run_dir, 0.2), settings)
        began = time.monotonic()
        with pytest.raises(ZygoteGone):
            await switchboard.call(INSTANCE, b"{}", REQUEST_ID)
        assert time.monotonic() - began < 2
        switchboard.close()

    run(main())


def test_a_zygote_that_comes_back_in_time_is_waited_for(run: Run, make_settings: Make) -> None:
    settings = make_settings()

    async def main() -> None:
        run_dir = Place(settings.data_dir).run
        run_dir.mkdir()
        switchboard = Switchboard(AsyncClient(run_dir, 5.0), settings)
        calling = asyncio.create_task(switchboard.call(INSTANCE, b"{}", REQUEST_ID))
        await turns()
        async with zygote_at(run_dir, lines_for()) as zygote:
            await until(lambda: zygote.cells)
            await zygote.cells[0].answer()
            await calling
            switchboard.close()
            await turns()

    run(main())


def test_the_zygote_is_told_once_which_databases_were_used(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            for _ in range(3):
                calling = at.call()
                await (await at.cell(0)).answer()
                await calling
            at.switchboard.tell_used()
            await until(lambda: at.zygote.touched)
            at.switchboard.tell_used()
            await turns()
            assert at.zygote.touched == [INSTANCE]

    run(main())


def test_a_thousand_used_databases_are_all_told(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            calling = at.call()
            await (await at.cell(0)).answer()
            await calling
            ids = {new_instance_id() for _ in range(1000)}
            at.switchboard._used |= ids
            at.switchboard.tell_used()
            await until(lambda: len(at.zygote.touched) > len(ids))
            assert set(at.zygote.touched) == ids | {INSTANCE}

    run(main())


def test_telling_without_a_zygote_is_no_error(
    run: Run, make_settings: Make, tmp_path: Path
) -> None:
    async def main() -> None:
        switchboard = Switchboard(AsyncClient(tmp_path, 0.1), make_settings())
        switchboard.tell_used()
        switchboard.close()

    run(main())


def test_closing_hangs_up_everywhere(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), lines_for()) as at:
            for number in range(3):
                calling = at.call(new_instance_id())
                await (await at.cell(number)).answer()
                await calling
            at.switchboard.close()
            for cell in at.zygote.cells:
                assert await cell.sees_hang_up()

    run(main())
