"""Lifetimes: when a database is over by the node's clock, and what end it may be given."""

import os
from pathlib import Path

import pytest

from sandbox.errors import InstanceMissing, TooLong
from sandbox.lifetimes import Lifetimes
from sandbox.place import Place

BORN = 1_000_000
ID = (BORN * 1000).to_bytes(6) + bytes(10)


class Scene:
    """A place, a clock that a test sets, and lifetimes of 100 seconds at most."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.place.prepare(os.geteuid(), os.getegid())
        self.time = BORN + 0.5
        self.lifetimes = Lifetimes(self.place, self, 100)  # type: ignore[arg-type]
        self.place.create(ID, BORN + 60, b"")

    def now(self) -> float:
        """As a clock does."""
        return self.time


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_database_is_over_in_the_second_that_was_said(scene: Scene) -> None:
    scene.time = BORN + 59.999
    assert scene.lifetimes.end_of(ID) == BORN + 60
    scene.time = BORN + 60
    with pytest.raises(InstanceMissing):
        scene.lifetimes.end_of(ID)


def test_what_was_never_made_has_no_end(scene: Scene) -> None:
    with pytest.raises(InstanceMissing):
        scene.lifetimes.end_of(bytes(16))


def test_nobody_gets_less_than_the_lifetime(scene: Scene) -> None:
    assert scene.lifetimes.end_after(10) == BORN + 11


@pytest.mark.parametrize("after", [BORN + 100, BORN + 61, BORN + 30])
def test_an_end_may_be_later_or_sooner(scene: Scene, after: int) -> None:
    assert scene.lifetimes.change(ID, BORN + 60, after) == after
    assert scene.place.expires(ID) == after


def test_an_end_in_the_past_is_now(scene: Scene) -> None:
    assert scene.lifetimes.change(ID, BORN + 60, 5) == BORN
    with pytest.raises(InstanceMissing):
        scene.lifetimes.end_of(ID)


def test_no_end_is_later_than_the_longest_life_from_birth(scene: Scene) -> None:
    scene.time = BORN + 50
    with pytest.raises(TooLong):
        scene.lifetimes.change(ID, BORN + 60, BORN + 101)
    assert scene.place.expires(ID) == BORN + 60


def test_one_that_was_made_to_live_longer_may_keep_its_end(scene: Scene) -> None:
    assert scene.lifetimes.change(ID, BORN + 500, BORN + 500) == BORN + 500
    with pytest.raises(TooLong):
        scene.lifetimes.change(ID, BORN + 500, BORN + 501)


def test_an_id_from_the_future_makes_no_life_longer(scene: Scene) -> None:
    ahead = ((BORN + 1000) * 1000).to_bytes(6) + bytes(10)
    scene.place.create(ahead, BORN + 60, b"")
    with pytest.raises(TooLong):
        scene.lifetimes.change(ahead, BORN + 60, BORN + 102)
