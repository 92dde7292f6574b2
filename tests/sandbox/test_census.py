"""The census: what lies there at the start, what is made, what has expired."""

from pathlib import Path

from sandbox.census import Census
from sandbox.place import Place
from tests.sandbox.handles import CELL_USER, new_id

NOW = 1_000_000


def make_place(folder: Path) -> Place:
    place = Place(folder / "data")
    place.prepare(CELL_USER.uid, CELL_USER.gid)
    return place


def test_it_counts_what_is_made_until_it_expires(folder: Path) -> None:
    census = Census(make_place(folder))
    for second in (NOW + 1, NOW + 1, NOW + 5):
        census.add(second)
    assert [census.count(NOW + late) for late in (0, 0.9, 1, 4.9, 5)] == [3, 3, 1, 1, 0]


def test_it_begins_with_what_lies_there(folder: Path) -> None:
    place = make_place(folder)
    for second in (NOW - 1, NOW + 1, NOW + 1, NOW + 5):
        place.create(new_id(), second, b"")
    census = Census(place)
    census.add(NOW + 5)
    assert [census.count(at) for at in (NOW, NOW + 1)] == [4, 2]


def test_a_second_that_has_passed_costs_nothing_any_more(folder: Path) -> None:
    census = Census(make_place(folder))
    for second in range(NOW, NOW + 1000):
        census.add(second)
    census.forget(NOW + 998)
    assert len(census._expiring) == 1
    assert census.count(NOW + 999) == 0
    assert not census._expiring
