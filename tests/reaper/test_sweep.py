"""A sweep: every turn that is due is taken, earliest first; what was extended is kept."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reaper.removal import Removal
from reaper.sweep import sweep
from sandbox.place import Place
from tests.sandbox.handles import FakeZygote, done

Sweep = Callable[..., int]


def new(last: int = 0) -> bytes:
    return os.urandom(15) + bytes([last])


@pytest.fixture
def swept(place: Place, removal: Removal) -> Sweep:
    def run(now: float, stop: Callable[[], bool] = lambda: False) -> int:
        return sweep(place, removal, now, stop)

    return run


def make_turn(place: Place, second: int, name: str) -> None:
    folder = place.cells / "due" / str(second)
    folder.mkdir(exist_ok=True)
    (folder / name).touch()


def seconds(place: Place) -> list[int]:
    return sorted(int(path.name) for path in (place.cells / "due").iterdir())


def test_what_has_expired_is_removed_and_what_has_not_is_kept(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    due, later = new(), new()
    place.create(due, 100, b"")
    place.create(later, 101, b"")
    assert swept(100.5) == 1
    assert place.expires(due) is None
    assert not place.folder(due).exists()
    assert place.expires(later) == 101
    assert place.folder(later).exists()


def test_a_database_is_due_at_its_very_second(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    place.create(new(), 100, b"")
    assert swept(99.999) == 0
    assert swept(100.0) == 1


def test_the_earliest_are_taken_first(place: Place, swept: Sweep, zygote: FakeZygote) -> None:
    made = {second: new() for second in (300, 20, 100, 9)}
    for second, instance in made.items():
        place.create(instance, second, b"")
    assert swept(1000) == 4
    order = [request.instance for request in zygote.requests]
    assert order == [made[second] for second in (9, 20, 100, 300)]


def test_all_of_one_second_are_removed_and_the_second_is_closed(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    for number in range(20):
        place.create(new(number), 100, b"")
    assert swept(100) == 20
    assert seconds(place) == []
    assert not list(place.cells.glob("instances/*/*"))
    assert not list(place.cells.glob("expiry/*/*"))
    assert not list(place.cells.glob("trash/*"))


def test_a_second_sweep_finds_nothing_to_do(place: Place, swept: Sweep, zygote: FakeZygote) -> None:
    place.create(new(), 100, b"")
    assert (swept(100), swept(100)) == (1, 0)
    assert len(zygote.requests) == 1


def test_nothing_due_asks_the_zygote_nothing(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    place.create(new(), 100, b"")
    assert swept(50) == 0
    assert zygote.requests == []


# --- extended ---


def extend(place: Place, instance: bytes, second: int) -> None:
    """Give a database a later turn and a later record."""
    make_turn(place, second, instance.hex())
    record = place._record(instance)
    record.unlink()
    record.symlink_to(str(second))


def test_what_has_been_extended_is_kept_and_its_old_turn_dropped(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    instance = new()
    place.create(instance, 100, b"x")
    extend(place, instance, 500)
    assert swept(200) == 0
    assert place.expires(instance) == 500
    assert place.folder(instance).exists()
    assert seconds(place) == [500]
    assert zygote.requests == []


def test_what_has_been_extended_is_removed_when_the_later_turn_comes(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    instance = new()
    place.create(instance, 100, b"x")
    extend(place, instance, 500)
    swept(200)
    assert swept(500) == 1
    assert place.expires(instance) is None
    assert not place.folder(instance).exists()
    assert seconds(place) == []


def test_a_reaper_that_was_away_for_long_removes_the_extended_too(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    instance = new()
    place.create(instance, 100, b"x")
    extend(place, instance, 500)
    swept(10_000)
    assert place.expires(instance) is None
    assert not place.folder(instance).exists()
    assert seconds(place) == []


# --- half-made and half-removed ---


def test_a_turn_without_a_database_is_taken_away(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    make_turn(place, 100, new().hex())
    swept(100)
    assert seconds(place) == []


def test_a_folder_without_a_record_is_removed(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    instance = new()
    place.create(instance, 100, b"x")
    place._record(instance).unlink()
    assert swept(100) == 1
    assert not place.folder(instance).exists()


def test_what_was_moved_aside_before_a_crash_is_deleted(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    instance = new()
    place.create(instance, 100, b"x")
    place.move_aside(instance)
    assert swept(100) == 1
    assert not list(place.cells.glob("trash/*"))
    assert seconds(place) == []


def test_a_crash_between_record_and_turn_is_repaired(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    instance = new()
    place.create(instance, 100, b"x")
    place.move_aside(instance)
    place.delete(instance)
    place._record(instance).unlink()
    swept(100)
    assert seconds(place) == []


# --- what fails ---


def test_while_the_zygote_is_away_nothing_is_removed(place: Place, swept: Sweep) -> None:
    made = [new(number) for number in range(3)]
    for instance in made:
        place.create(instance, 100, b"")
    assert swept(200) == 0
    for instance in made:
        assert place.expires(instance) == 100
        assert place.folder(instance).exists()
    assert sorted(place.turns(100)) == sorted(made)


def test_a_zygote_that_goes_away_in_the_middle_ends_the_round(
    place: Place, swept: Sweep, start_fake: Callable[..., FakeZygote]
) -> None:
    answers = [done]
    zygote = start_fake(lambda packet: answers.pop()(packet) if answers else None)
    for second in range(100, 105):
        place.create(new(), second, b"")
    assert swept(200) == 1
    assert seconds(place) == [101, 102, 103, 104]
    assert len(zygote.requests) == 2


def test_when_the_zygote_is_back_the_rest_is_removed(
    place: Place, swept: Sweep, start_fake: Callable[..., FakeZygote]
) -> None:
    place.create(new(), 100, b"")
    assert swept(200) == 0
    start_fake()
    assert swept(200) == 1


def test_one_bad_folder_does_not_hold_up_the_others(
    place: Place, swept: Sweep, zygote: FakeZygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, later = new(1), new(2), new(3)
    place.create(bad, 100, b"")
    place.create(good, 100, b"")
    place.create(later, 101, b"")
    delete = Place.delete

    def fails(place: Place, instance: bytes) -> None:
        if instance == bad:
            raise PermissionError("bad folder")
        delete(place, instance)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "delete", fails)
        assert swept(200) == 2
    assert place.turns(100) == [bad]
    assert swept(200) == 1
    assert seconds(place) == []


def test_told_to_stop_it_stops_between_two_databases(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    for second in range(100, 110):
        place.create(new(), second, b"")
    assert swept(200, lambda: len(zygote.requests) >= 3) == 3
    assert seconds(place) == list(range(103, 110))


# --- strange names ---


@pytest.mark.parametrize("name", ["lost+found", "-1", "1e3", "99x", ".5"])
def test_a_stray_folder_among_the_seconds_is_ignored(
    place: Place, swept: Sweep, zygote: FakeZygote, name: str
) -> None:
    stray = place.cells / "due" / name
    stray.mkdir()
    (stray / new().hex()).touch()
    place.create(new(), 100, b"")
    assert swept(1e12) == 1
    assert [path.name for path in (place.cells / "due").iterdir()] == [name]
    assert list(stray.iterdir())


@pytest.mark.parametrize("name", ["README", "..a", "g" * 32, "ab" * 15, "AB" * 16, "ab" * 17])
def test_a_stray_name_among_the_turns_is_ignored_and_keeps_its_second(
    place: Place, swept: Sweep, zygote: FakeZygote, name: str
) -> None:
    make_turn(place, 100, name)
    place.create(new(), 100, b"")
    assert swept(100) == 1
    assert [path.name for path in (place.cells / "due" / "100").iterdir()] == [name]
    assert len(zygote.requests) == 1


def test_a_file_in_a_seconds_place_is_ignored(
    place: Place, swept: Sweep, zygote: FakeZygote
) -> None:
    (place.cells / "due" / "50").touch()
    place.create(new(), 100, b"")
    assert swept(100) == 1


def test_a_link_in_a_seconds_place_leads_to_no_removal_outside(
    place: Place, swept: Sweep, zygote: FakeZygote, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (place.cells / "due" / "50").symlink_to(outside)
    swept(100)
    assert (outside / "file").exists()


def test_strays_elsewhere_are_left_alone(place: Place, swept: Sweep, zygote: FakeZygote) -> None:
    place.create(new(), 100, b"")
    strays = [place.cells / where / "stray" for where in ("instances", "expiry", "trash", "due")]
    for stray in strays:
        stray.touch()
    swept(100)
    assert all(stray.exists() for stray in strays)
