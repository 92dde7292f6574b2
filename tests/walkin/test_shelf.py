"""The front desk's side of kept states: in turn with calls, one at a time, bounded."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import pytest

from sandbox.client import AsyncClient
from sandbox.control import Op, Outcome, Request
from sandbox.errors import InstanceMissing, NodeBusy, NoRoom, NoSuchState
from sandbox.frames import encode_answer
from sandbox.place import Place
from tests.walkin.fakes import FakeZygote, Run, Tell, Told, lines_for, turns, until, zygote_at
from walkin.settings import Settings
from walkin.shelf import Shelf
from walkin.switchboard import Switchboard
from walkin.tokens import new_instance_id
from walkin.turn import Answer

Make = Callable[..., Settings]
REQUEST_ID = bytes(16)
INSTANCE = new_instance_id()
_ANSWER = encode_answer(200, b"{}")
STATE = {"name": "one", "created": 1, "bytes": 4096}
_OPEN = lines_for()


class House:
    """A shelf, the switchboard beside it, the zygote that both ask."""

    def __init__(self, zygote: FakeZygote, client: AsyncClient, settings: Settings) -> None:
        self.zygote = zygote
        self.switchboard = Switchboard(client, settings)
        self.shelf = Shelf(self.switchboard, client, settings)

    def asked(self) -> list[Op]:
        """What was asked beside lines."""
        return [op for op in self.zygote.ops() if op is not Op.OPEN]


def telling(*outcomes: Outcome) -> Tell:
    """A zygote that answers so, one question about states after the other; DONE in the end."""
    left = list(outcomes)

    def tell(zygote: FakeZygote, request: Request) -> Told | None:
        if request.op is Op.OPEN:
            return _OPEN(zygote, request)
        outcome = left.pop(0) if left else Outcome.DONE
        return Told(outcome, text=json.dumps(STATE).encode())

    return tell


@contextlib.asynccontextmanager
async def house(settings: Settings, tell: Tell) -> AsyncIterator[House]:
    run_dir = Place(settings.data_dir).run
    async with zygote_at(run_dir, tell) as zygote:
        at = House(zygote, AsyncClient(run_dir, 1.0), settings)
        serving = asyncio.create_task(_serve(zygote))
        try:
            yield at
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            at.switchboard.close()
            await turns()


async def _serve(zygote: FakeZygote) -> None:
    """Have every cell answer each call at once."""
    tasks: set[asyncio.Task[None]] = set()
    known = 0

    async def answer_all(number: int) -> None:
        while True:
            await zygote.cells[number].answer()

    try:
        while True:
            await until(lambda: len(zygote.cells) > known, 60)  # noqa: B023
            tasks.add(asyncio.create_task(answer_all(known)))
            known += 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_a_state_is_kept_once_the_cell_has_answered(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(query_timeout_ms=1234), telling()) as at:
            assert await at.shelf.keep(INSTANCE, "one", REQUEST_ID) == STATE
            assert at.zygote.ops() == [Op.OPEN, Op.KEEP]
            kept = at.zygote.asked[-1]
            assert (kept.instance, kept.name, kept.amount) == (INSTANCE, "one", 1234)

    run(main())


@pytest.mark.parametrize("op", [Op.GO_BACK, Op.DROP])
def test_a_database_at_rest_is_not_woken_for_the_rest(
    run: Run, make_settings: Make, op: Op
) -> None:
    async def main() -> None:
        async with house(make_settings(), telling()) as at:
            act = at.shelf.go_back if op is Op.GO_BACK else at.shelf.drop
            await act(INSTANCE, "one", REQUEST_ID)
            assert at.zygote.ops() == [op]

    run(main())


def test_what_its_cell_has_left_out_is_taken_in_by_the_next(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with house(make_settings(), telling(Outcome.NOT_FOLDED)) as at:
            assert await at.shelf.keep(INSTANCE, "one", REQUEST_ID) == STATE
            assert at.asked() == [Op.KEEP, Op.KEEP]

    run(main())


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ([Outcome.NOT_FOLDED, Outcome.NOT_FOLDED], NodeBusy),
        ([Outcome.FAILED], NodeBusy),
        ([Outcome.NO_ROOM], NoRoom),
        ([Outcome.MISSING], InstanceMissing),
        ([Outcome.NOT_FOLDED, Outcome.NO_ROOM], NoRoom),
    ],
)
def test_what_cannot_be_kept_is_told(
    run: Run, make_settings: Make, outcomes: list[Outcome], error: type[Exception]
) -> None:
    async def main() -> None:
        async with house(make_settings(), telling(*outcomes)) as at:
            with pytest.raises(error):
                await at.shelf.keep(INSTANCE, "one", REQUEST_ID)
            assert at.asked() == [Op.KEEP] * len(outcomes)
            assert await at.shelf.keep(INSTANCE, "one", REQUEST_ID) == STATE

    run(main())


def test_what_is_no_database_is_not_kept_and_its_cells_answer_told(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        settings = make_settings()
        run_dir = Place(settings.data_dir).run
        async with zygote_at(run_dir, telling()) as zygote:
            at = House(zygote, AsyncClient(run_dir, 1.0), settings)
            keeping = asyncio.create_task(at.shelf.keep(INSTANCE, "one", REQUEST_ID))
            await until(lambda: zygote.cells)
            await zygote.cells[0].answer(400, b"damaged")
            answer = await keeping
            assert isinstance(answer, Answer)
            assert (answer.status, answer.body) == (400, b"damaged")
            assert at.asked() == []
            at.switchboard.close()

    run(main())


@pytest.mark.parametrize("op", [Op.GO_BACK, Op.DROP])
def test_what_is_not_kept_is_told(run: Run, make_settings: Make, op: Op) -> None:
    async def main() -> None:
        async with house(make_settings(), telling(Outcome.NO_STATE)) as at:
            act = at.shelf.go_back if op is Op.GO_BACK else at.shelf.drop
            with pytest.raises(NoSuchState):
                await act(INSTANCE, "one", REQUEST_ID)

    run(main())


def test_one_thing_at_a_time_is_asked_for_a_database(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        silent: list[Request] = []

        def tell(zygote: FakeZygote, request: Request) -> Told | None:
            if request.op is Op.OPEN:
                return _OPEN(zygote, request)
            silent.append(request)
            return None if len(silent) == 1 else Told(Outcome.DONE, text=b"{}")

        async with house(make_settings(), tell) as at:
            first = asyncio.create_task(at.shelf.go_back(INSTANCE, "one", REQUEST_ID))
            await until(lambda: silent)
            waiting = [
                asyncio.create_task(at.shelf.go_back(INSTANCE, "two", REQUEST_ID)) for _ in range(8)
            ]
            await turns()
            assert len(silent) == 1
            with pytest.raises(NodeBusy):
                await at.shelf.go_back(INSTANCE, "three", REQUEST_ID)
            await at.shelf.go_back(new_instance_id(), "other", REQUEST_ID)
            assert len(silent) == 2, "of another database it is asked"
            first.cancel()
            await asyncio.gather(*waiting)
            assert [request.name for request in silent[2:]] == ["two"] * 8
            await at.shelf.go_back(INSTANCE, "again", REQUEST_ID)
            assert not at.shelf._locks

    run(main())


def test_calls_that_came_before_are_answered_first(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        settings = make_settings()
        run_dir = Place(settings.data_dir).run
        async with zygote_at(run_dir, telling()) as zygote:
            at = House(zygote, AsyncClient(run_dir, 1.0), settings)
            call = asyncio.create_task(at.switchboard.call(INSTANCE, b"{}", REQUEST_ID))
            await until(lambda: zygote.cells)
            keeping = asyncio.create_task(at.shelf.keep(INSTANCE, "one", REQUEST_ID))
            await zygote.cells[0].take()
            await turns()
            assert at.asked() == []
            await zygote.cells[0].say(_ANSWER)
            await call
            await zygote.cells[0].answer()
            assert await keeping == STATE
            at.switchboard.close()

    run(main())


def test_states_are_listed_without_a_cell(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        def tell(_: FakeZygote, __: Request) -> Told:
            return Told(Outcome.DONE, text=json.dumps([STATE]).encode())

        async with house(make_settings(), tell) as at:
            assert await at.shelf.states(INSTANCE) == [STATE]
            assert at.zygote.ops() == [Op.STATES]

    run(main())
