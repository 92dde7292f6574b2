"""A long answer on its way: in order, bounded, and told where it breaks off."""

import asyncio

import pytest

from sandbox.errors import CellLost
from walkin.stream import MOST_BYTES, Stream


class Flow:
    """What a stream does with the line that it comes by."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.stream = Stream(
            lambda: self.acts.append("pause"),
            lambda: self.acts.append("resume"),
            lambda: self.acts.append("leave"),
        )


@pytest.fixture
def flow() -> Flow:
    return Flow()


async def taken(stream: Stream) -> list[bytes]:
    return [piece async for piece in stream.pieces()]


def test_pieces_come_out_as_they_went_in(flow: Flow) -> None:
    async def main() -> None:
        taking = asyncio.create_task(taken(flow.stream))
        for piece in (b"a", b"b"):
            flow.stream.put(piece)
            await asyncio.sleep(0)
        flow.stream.put(b"c")
        flow.stream.end(None)
        assert await taking == [b"a", b"b", b"c"]
        assert flow.acts == []

    asyncio.run(main())


def test_too_much_is_held_back_until_half_of_it_is_taken(flow: Flow) -> None:
    async def main() -> None:
        quarter = b"x" * (MOST_BYTES // 4)
        for _ in range(4):
            flow.stream.put(quarter)
        assert flow.acts == []
        flow.stream.put(b"x")
        flow.stream.put(b"y")
        assert flow.acts == ["pause"]
        pieces = flow.stream.pieces()
        await anext(pieces)
        await anext(pieces)
        assert flow.acts == ["pause"]
        await anext(pieces)
        assert flow.acts == ["pause", "resume"]

    asyncio.run(main())


def test_an_end_lets_others_come_though_nobody_has_taken_it_yet(flow: Flow) -> None:
    flow.stream.put(b"x" * (MOST_BYTES + 1))
    flow.stream.end(None)
    assert flow.acts == ["pause", "resume"]


def test_where_it_breaks_off_is_behind_what_has_come(flow: Flow) -> None:
    async def main() -> None:
        flow.stream.put(b"a")
        flow.stream.end(CellLost("gone"))
        pieces = flow.stream.pieces()
        assert await anext(pieces) == b"a"
        with pytest.raises(CellLost):
            await anext(pieces)

    asyncio.run(main())


def test_who_leaves_before_the_end_ends_it(flow: Flow) -> None:
    flow.stream.put(b"a")
    flow.stream.leave()
    assert flow.acts == ["leave"]


def test_who_leaves_after_the_end_ends_nothing(flow: Flow) -> None:
    flow.stream.end(None)
    flow.stream.leave()
    assert flow.acts == []
