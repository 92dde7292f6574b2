"""The node's clock goes on evenly while the machine's is set to and fro."""

import time
from pathlib import Path

import pytest

from sandbox import clock
from sandbox.place import Place
from tests.sandbox.handles import CELL_USER

ID = bytes(range(16))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.prepare(CELL_USER.uid, CELL_USER.gid)
    return made


def step(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the machine's clock."""
    honest, honest_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: honest() + seconds)
    monkeypatch.setattr(time, "time_ns", lambda: honest_ns() + int(seconds * 1e9))


def test_it_starts_as_the_machines(place: Place) -> None:
    before = time.time()
    kept = clock.keep(place)
    assert before - 0.0001 <= kept.now() <= time.time() + 0.0001
    assert abs(kept.off()) < 0.5


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_it_does_not_follow_a_step_of_the_machines(
    place: Place, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    kept = clock.keep(place)
    before = kept.now()
    step(monkeypatch, seconds)
    assert 0 <= kept.now() - before < 1
    assert abs(kept.off() - seconds) < 1


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_whoever_comes_later_has_the_same_while_a_database_lives_by_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    kept = clock.keep(place)
    place.create(ID, int(kept.now()) + 600, b"")
    step(monkeypatch, seconds)
    read = clock.read(place)
    assert read is not None
    for later in (read, clock.keep(place)):
        assert abs(later.now() - kept.now()) < 0.5


def test_it_is_the_machines_again_when_nothing_lives_by_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.keep(place)
    step(monkeypatch, 3600)
    assert abs(clock.keep(place).off()) < 0.5
    read = clock.read(place)
    assert read is not None
    assert abs(read.off()) < 0.5


def test_it_is_the_machines_again_after_the_machine_has_been_down(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = clock.keep(place)
    place.create(ID, int(kept.now()) + 600, b"")
    other = tmp_path / "boot_id"
    other.write_text("11111111-2222-3333-4444-555555555555\n")
    monkeypatch.setattr(clock, "_BOOT_ID", other)
    assert clock.read(place) is None
    step(monkeypatch, 3600)
    assert abs(clock.keep(place).off()) < 0.5


@pytest.mark.parametrize("note", ["", "rubbish", "x 5", f"{'0' * 36} 1e5"])
def test_a_note_that_says_nothing_is_none(place: Place, note: str) -> None:
    if note:
        place.clock.symlink_to(note)
    assert clock.read(place) is None
    assert abs(clock.keep(place).off()) < 0.5
    assert clock.read(place) is not None


def test_where_nothing_can_be_noted_the_noted_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = clock.keep(place)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", full)
    step(monkeypatch, 3600)
    assert abs(clock.keep(place).now() - kept.now()) < 0.5
    place.clock.unlink()
    with pytest.raises(OSError, match="No space"):
        clock.keep(place)


def test_an_end_is_told_by_the_clock_that_nobody_can_set(place: Place) -> None:
    kept = clock.keep(place)
    expires = int(kept.now()) + 100
    boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert kept.ends(expires) / 1e9 - boottime == pytest.approx(expires - kept.now(), abs=0.5)
    assert kept.ends(0) == 0


def test_without_a_boot_id_there_is_no_clock_rather_than_a_wrong_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.keep(place)
    monkeypatch.setattr(clock, "_BOOT_ID", Path("/proc/there is none"))
    for use in (clock.keep, clock.read):
        with pytest.raises(OSError, match="there is none"):
            use(place)
