"""The shelf: what is kept, how much of it, and that going back is one step."""

import os
from pathlib import Path

import pytest

from sandbox import kernel, shelf
from sandbox.clock import Clock
from sandbox.control import MOST_STATES
from sandbox.errors import NoRoom, NoSuchState, NotFolded
from sandbox.place import DATABASE, WAL, Place
from sandbox.shelf import MOST_BYTES, Shelf

ID = bytes(range(16))
PAGE = 4096


class Scene:
    """A database that consists of whatever a test writes, and a clock that it sets."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.place.prepare(os.geteuid(), os.getegid())
        self.place.create(ID, 100, b"first")
        self.seconds = 1000
        self.shelf = Shelf(self.place, self)  # type: ignore[arg-type]

    def now(self) -> float:
        """As a clock does."""
        self.seconds += 1
        return self.seconds

    @property
    def file(self) -> Path:
        return self.place.folder(ID) / DATABASE

    @property
    def kept(self) -> set[str]:
        return {path.name for path in self.place.kept(ID).iterdir()}

    def write(self, pages: int, content: bytes = b"x") -> None:
        self.file.write_bytes(content * (pages * PAGE))

    def keep(self, name: str, pages: int) -> None:
        self.write(pages)
        self.shelf.keep(ID, name)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_kept_state_is_what_the_database_was(scene: Scene) -> None:
    state, replaced = scene.shelf.keep(ID, "one")
    assert (state, replaced) == (("one", 1001, 5), False)
    scene.file.write_bytes(b"second")
    scene.shelf.go_back(ID, "one")
    assert scene.file.read_bytes() == b"first"
    assert {path.name for path in scene.file.parent.iterdir()} == {DATABASE, WAL}
    assert scene.kept == {"one"}


def test_it_can_be_gone_back_to_again_and_again(scene: Scene) -> None:
    scene.shelf.keep(ID, "one")
    for _ in range(3):
        scene.file.write_bytes(b"spoiled")
        scene.shelf.go_back(ID, "one")
        assert scene.file.read_bytes() == b"first"


def test_a_state_takes_the_place_of_another_of_its_name(scene: Scene) -> None:
    scene.shelf.keep(ID, "one")
    scene.file.write_bytes(b"another")
    assert scene.shelf.keep(ID, "one") == (("one", 1002, 7), True)
    assert scene.shelf.states(ID) == [("one", 1002, 7)]
    scene.file.write_bytes(b"")
    scene.shelf.go_back(ID, "one")
    assert scene.file.read_bytes() == b"another"


def test_states_are_told_in_the_order_in_which_they_were_kept(scene: Scene) -> None:
    for name in ("b", "c", "a"):
        scene.shelf.keep(ID, name)
    assert [state.name for state in scene.shelf.states(ID)] == ["b", "c", "a"]
    scene.shelf.keep(ID, "b")
    assert [state.name for state in scene.shelf.states(ID)] == ["c", "a", "b"]


def test_a_dropped_state_is_gone_and_the_others_are_not(scene: Scene) -> None:
    scene.shelf.keep(ID, "one")
    scene.shelf.keep(ID, "two")
    scene.shelf.drop(ID, "one")
    assert scene.kept == {"two"}
    for act in (scene.shelf.drop, scene.shelf.go_back):
        with pytest.raises(NoSuchState):
            act(ID, "one")


@pytest.mark.parametrize("name", ["", ".", "..", ".new", ".back", "../x", f"../{ID.hex()}/one"])
def test_no_name_leads_elsewhere(scene: Scene, name: str) -> None:
    scene.shelf.keep(ID, "one")
    (scene.place.kept(ID) / ".new").write_bytes(b"")
    with pytest.raises(NoSuchState):
        scene.shelf.go_back(ID, name)
    with pytest.raises(NoSuchState):
        scene.shelf.drop(ID, name)
    with pytest.raises(NoSuchState):
        scene.shelf.keep(ID, name)
    assert scene.kept == {"one", ".new"}


def test_what_is_not_all_in_its_file_is_not_kept(scene: Scene) -> None:
    (scene.file.parent / WAL).write_bytes(b"more")
    with pytest.raises(NotFolded):
        scene.shelf.keep(ID, "one")


def test_going_back_leaves_no_journal_of_before(scene: Scene) -> None:
    scene.shelf.keep(ID, "one")
    (scene.file.parent / WAL).write_bytes(b"more")
    scene.shelf.go_back(ID, "one")
    assert (scene.file.parent / WAL).read_bytes() == b""


# --- room ---


def test_nothing_kept_leaves_all_pages(scene: Scene) -> None:
    assert scene.shelf.pages_left(ID) == 2560


def test_what_is_kept_is_taken_from_the_pages(scene: Scene) -> None:
    scene.keep("one", 100)
    scene.keep("two", 200)
    assert scene.shelf.pages_left(ID) == 2260
    scene.shelf.drop(ID, "one")
    assert scene.shelf.pages_left(ID) == 2360


@pytest.mark.parametrize(
    ("kept", "fits"),
    [
        ([1280], True),
        ([1281], False),
        ([1000, 560], True),
        ([1000, 561], False),
        ([9, 1280], False),
    ],
)
def test_there_is_room_for_the_largest_beside_all(
    scene: Scene, kept: list[int], fits: bool
) -> None:
    *before, last = kept
    for at, pages in enumerate(before):
        scene.keep(f"n{at}", pages)
    if fits:
        scene.keep("last", last)
        assert scene.shelf.pages_left(ID) >= max(kept)
        return
    with pytest.raises(NoRoom):
        scene.keep("last", last)
    assert len(scene.shelf.states(ID)) == len(before)


def test_a_state_needs_no_room_beside_the_one_it_replaces(scene: Scene) -> None:
    scene.keep("one", 1280)
    scene.keep("one", 1280)
    with pytest.raises(NoRoom):
        scene.keep("one", 1281)
    assert [state.bytes for state in scene.shelf.states(ID)] == [1280 * PAGE]


def test_there_are_so_many_states_and_no_more(scene: Scene) -> None:
    for at in range(MOST_STATES):
        scene.shelf.keep(ID, f"n{at}")
    with pytest.raises(NoRoom):
        scene.shelf.keep(ID, "more")
    scene.shelf.keep(ID, "n0")
    scene.shelf.drop(ID, "n1")
    scene.shelf.keep(ID, "more")


def test_a_file_larger_than_a_database_may_be_is_not_kept(scene: Scene) -> None:
    """A cell that is taken over may write up to 16 MiB."""
    scene.file.write_bytes(b"")
    os.truncate(scene.file, MOST_BYTES + 1)
    with pytest.raises(NoRoom):
        scene.shelf.keep(ID, "one")


# --- broken off ---


@pytest.mark.parametrize("broken", ["copy_file", "utime", "rename"])
def test_keeping_broken_off_leaves_what_was_kept(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    scene.shelf.keep(ID, "one")
    scene.file.write_bytes(b"second")

    def fail(*_: object) -> None:
        raise OSError(28, "no space")

    where = {"copy_file": shelf, "utime": os, "rename": Path}[broken]
    with monkeypatch.context() as patched:
        patched.setattr(where, broken, fail)
        with pytest.raises(OSError, match="no space"):
            scene.shelf.keep(ID, "one")
    assert scene.kept == {"one"}
    scene.shelf.go_back(ID, "one")
    assert scene.file.read_bytes() == b"first"


@pytest.mark.parametrize("step", ["before", "after"])
def test_going_back_killed_around_its_one_step_is_done_or_is_not(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What a kill leaves behind is in nobody's way, and goes with the database."""
    scene.shelf.keep(ID, "one")
    scene.file.write_bytes(b"second")
    (scene.file.parent / WAL).write_bytes(b"more")
    exchange = kernel.exchange

    class Killed(BaseException):
        pass

    def killed(one: Path, other: Path) -> None:
        if step == "after":
            exchange(one, other)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(kernel, "exchange", killed)
        patched.setattr(shelf, "remove_folder", lambda _: None)
        with pytest.raises(Killed):
            scene.shelf.go_back(ID, "one")
    found = (scene.file.read_bytes(), (scene.file.parent / WAL).read_bytes())
    assert found == ((b"first", b"") if step == "after" else (b"second", b"more"))
    assert scene.kept == {"one", ".back"}
    assert [state.name for state in scene.shelf.states(ID)] == ["one"]
    scene.shelf.go_back(ID, "one")
    assert scene.file.read_bytes() == b"first"
    assert scene.kept == {"one"}


def test_no_room_on_the_disk_leaves_the_database_as_it_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.shelf.keep(ID, "one")
    scene.file.write_bytes(b"second")

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(shelf, "copy_file", full)
    with pytest.raises(OSError, match="no space"):
        scene.shelf.go_back(ID, "one")
    assert scene.file.read_bytes() == b"second"
    assert scene.kept == {"one"}


def test_a_database_takes_what_is_kept_of_it_along(scene: Scene) -> None:
    scene.shelf.keep(ID, "one")
    (scene.place.kept(ID) / ".back").mkdir()
    (scene.place.kept(ID) / ".back" / DATABASE).write_bytes(b"")
    scene.place.move_aside(ID)
    scene.place.delete(ID)
    assert not scene.place.kept(ID).exists()
    assert scene.shelf.states(ID) == []


def test_states_are_dated_by_the_nodes_own_clock(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.prepare(os.geteuid(), os.getegid())
    place.create(ID, 100, b"")
    clock = Clock(5_000_000_000 * 10**9)
    state, _ = Shelf(place, clock).keep(ID, "one")
    assert abs(state.created - clock.now()) < 5
    assert Shelf(place, clock).states(ID) == [state]
