"""The window: one question for a crowd, none within a second, and 503 when nobody answers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import pytest

from sandbox.client import AsyncClient
from sandbox.control import Op, Outcome, Request
from sandbox.errors import ZygoteGone
from sandbox.place import Place
from tests.walkin.fakes import FakeZygote, Run, Tell, Told, zygote_at
from walkin import status as status_module
from walkin.settings import Settings
from walkin.status import Status

Make = Callable[..., Settings]

NODE = {
    "walls": {"landlock_abi": 7, "seccomp": True},
    "instances": 5,
    "live_cells": 3,
    "blank_cells": 2,
    "max_live_cells": 9,
    "cell_deaths": 1,
    "versions": {"sqlite": "3", "apsw": "4"},
}


def tell_node(_: FakeZygote, request: Request) -> Told:
    assert request.op is Op.STATUS
    return Told(Outcome.DONE, text=json.dumps(NODE).encode())


@contextlib.asynccontextmanager
async def looking(
    settings: Settings, tell: Tell = tell_node, patience_s: float = 3
) -> AsyncIterator[tuple[Status, FakeZygote]]:
    run_dir = Place(settings.data_dir).run
    async with zygote_at(run_dir, tell) as zygote:
        client = AsyncClient(run_dir, patience_s)
        try:
            yield Status(client), zygote
        finally:
            client.close()


def test_it_shows_walls_cells_databases_and_versions(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with looking(make_settings()) as (status, _):
            shown = json.loads(await status.read())
            assert set(shown.pop("versions")) == {"walkin", "python", "sqlite", "apsw"}
            assert shown == {
                "status": "ok",
                "walls": {"landlock_abi": 7, "seccomp": True},
                "cells": {"live": 3, "blank": 2, "most": 9, "died": 1},
                "instances": 5,
            }

    run(main())


def test_a_crowd_costs_one_question_a_second(
    run: Run, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with looking(make_settings()) as (status, zygote):
            assert len(set(await asyncio.gather(*(status.read() for _ in range(50))))) == 1
            await status.read()
            assert zygote.ops() == [Op.STATUS]
            monkeypatch.setattr(status, "_until", 0.0)
            await status.read()
            assert zygote.ops() == [Op.STATUS] * 2

    run(main())


def test_the_word_is_of_use_for_a_second() -> None:
    assert status_module._FRESH_S == 1


def test_a_crowd_fails_together_and_the_next_one_asks_again(run: Run, make_settings: Make) -> None:
    silent = True

    def tell(zygote: FakeZygote, request: Request) -> Told | None:
        return None if silent else tell_node(zygote, request)

    async def main() -> None:
        nonlocal silent
        async with looking(make_settings(), tell, patience_s=0.2) as (status, zygote):
            async with asyncio.timeout(1):
                found = await asyncio.gather(
                    *(status.read() for _ in range(50)), return_exceptions=True
                )
            assert {type(one) for one in found} == {ZygoteGone}
            assert zygote.ops() == [Op.STATUS]
            silent = False
            assert json.loads(await status.read())["instances"] == 5

    run(main())


def test_one_who_goes_away_does_not_take_the_answer_with_him(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with looking(make_settings()) as (status, zygote):
            leaver, stayer = (asyncio.create_task(status.read()) for _ in range(2))
            await asyncio.sleep(0)
            leaver.cancel()
            assert json.loads(await stayer)["instances"] == 5
            assert zygote.ops() == [Op.STATUS]

    run(main())
