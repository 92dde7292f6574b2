"""Fixtures of the reaper's tests: a place, and a zygote that does or does not answer."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reaper.removal import Removal
from sandbox.blocking import BlockingClient
from sandbox.place import Place
from tests.sandbox.handles import FakeZygote, done


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "data")
    made.prepare(os.geteuid(), os.getegid())
    return made


@pytest.fixture
def client(place: Place) -> Iterator[BlockingClient]:
    one = BlockingClient(place.run, 5.0)
    yield one
    one.close()


@pytest.fixture
def removal(place: Place, client: BlockingClient) -> Removal:
    return Removal(place, client)


@pytest.fixture
def start_fake(place: Place) -> Iterator[Callable[..., FakeZygote]]:
    """Start a zygote of cardboard; what it is to do for a packet may be given."""
    started: list[FakeZygote] = []

    def start(answering: Callable[[bytes], tuple[bytes, list[int]] | None] = done) -> FakeZygote:
        started.append(FakeZygote(place.run, answering))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def zygote(start_fake: Callable[..., FakeZygote]) -> FakeZygote:
    """A zygote that kills whatever it is told to."""
    return start_fake()
