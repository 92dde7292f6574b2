"""The floor plan: what is made where, in which order, and what is never followed or trusted."""

import fcntl
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from sandbox.place import DATABASE, FILES, Place, copy_file

ID = bytes(range(16))
OTHER = bytes(15) + b"\x0f"
HEX = ID.hex()
SHARD = "0f"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "data")
    made.prepare(os.geteuid(), os.getegid())
    return made


def tree(place: Place) -> set[str]:
    """All that lies below the cells' folder, as paths relative to it."""
    return {str(path.relative_to(place.cells)) for path in place.cells.rglob("*")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


EMPTY = {"instances", "expiry", "due", "kept", "trash"}
ONE = {
    *EMPTY,
    f"instances/{SHARD}",
    f"instances/{SHARD}/{HEX}",
    f"instances/{SHARD}/{HEX}/main.db",
    f"instances/{SHARD}/{HEX}/main.db-wal",
    f"expiry/{SHARD}",
    f"expiry/{SHARD}/{HEX}",
    "due/100",
    f"due/100/{HEX}",
}


# --- prepare ---


def test_the_folders_of_the_cells_are_closed_to_others(place: Place) -> None:
    assert tree(place) == EMPTY
    for path in (place.cells, *place.cells.iterdir()):
        assert mode(path) == 0o700
        assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), os.getegid())


def test_the_control_sockets_folder_can_be_entered_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        place = Place(tmp_path / "a" / "b")
        place.prepare(os.geteuid(), os.getegid())
    finally:
        os.umask(before)
    assert mode(place.run) == 0o755


def test_preparing_again_keeps_what_is_there(place: Place) -> None:
    place.create(ID, 100, b"x")
    place.prepare(os.geteuid(), os.getegid())
    assert tree(place) == ONE


def test_preparing_again_closes_what_was_opened(place: Place) -> None:
    (place.cells / "due").chmod(0o777)
    place.prepare(os.geteuid(), os.getegid())
    assert mode(place.cells / "due") == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_the_cells_user_becomes_owner(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.prepare(65_534, 65_534)
    for path in (place.cells, *place.cells.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (65_534, 65_534)
    assert place.run.stat().st_uid == os.geteuid()


# --- copy ---


def test_a_copy_waits_for_nobody_who_has_a_lease(place: Place, tmp_path: Path) -> None:
    """The kernel would have the copier wait for up to 45 s: fcntl(2), F_SETLEASE."""
    place.create(ID, 100, b"content")
    file = place.folder(ID) / DATABASE
    fd = os.open(file, os.O_RDWR)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # by which its holder is told
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        began = time.monotonic()
        with pytest.raises(BlockingIOError):
            copy_file(file, tmp_path / "copy")
        with pytest.raises(BlockingIOError):
            place.copy(ID, OTHER, 200)
        assert time.monotonic() - began < 1
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)
    assert not place.folder(OTHER).exists()


def test_a_copy_follows_no_link(place: Place, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="Too many levels"):
        copy_file(tmp_path / "link", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# --- create ---


def test_a_database_is_a_folder_a_record_and_a_turn(place: Place) -> None:
    place.create(ID, 100, b"content")
    assert tree(place) == ONE
    assert [path.name for path in sorted(place.folder(ID).iterdir())] == sorted(FILES)
    assert (place.folder(ID) / DATABASE).read_bytes() == b"content"
    assert (place.folder(ID) / FILES[1]).read_bytes() == b""
    assert place.expires(ID) == 100
    assert place.turns(100) == [ID]


def test_a_databases_folder_is_closed_to_others(place: Place) -> None:
    place.create(ID, 100, b"")
    assert mode(place.folder(ID)) == 0o700
    assert mode(place.folder(ID).parent) == 0o700


def test_the_shard_is_the_last_byte_so_that_neighbours_in_time_are_spread() -> None:
    place = Place(Path("/data"))
    assert place.folder(bytes(15) + b"\xab").parent.name == "ab"
    assert place.folder(bytes(15) + b"\xac").parent.name == "ac"


def test_an_id_that_exists_is_not_made_again(place: Place) -> None:
    place.create(ID, 100, b"first")
    with pytest.raises(FileExistsError):
        place.create(ID, 100, b"second")
    with pytest.raises(FileExistsError):
        place.create(ID, 200, b"second")
    assert (place.folder(ID) / DATABASE).read_bytes() == b"first"
    assert place.expires(ID) == 100


@pytest.fixture
def broken_off(place: Place) -> list[set[str]]:
    """The state of the folder after each step of one creation."""
    states: list[set[str]] = []
    steps = {"open": Path.open, "mkdir": Path.mkdir, "symlink_to": Path.symlink_to}
    patch = pytest.MonkeyPatch()

    def watched(name: str) -> object:
        def step(path: Path, *args: object, **kwargs: object) -> object:
            states.append(tree(place))
            return steps[name](path, *args, **kwargs)  # type: ignore[operator]

        return step

    for name in steps:
        patch.setattr(Path, name, watched(name))
    place.create(ID, 100, b"x")
    patch.undo()
    return states


def test_creation_broken_off_anywhere_leaves_a_turn_if_it_leaves_anything(
    broken_off: list[set[str]],
) -> None:
    assert len(broken_off) >= 5
    for state in broken_off:
        assert state <= EMPTY | {"due/100"} or f"due/100/{HEX}" in state


def test_the_record_comes_last_so_that_no_half_made_database_exists(
    broken_off: list[set[str]],
) -> None:
    for state in broken_off:
        assert f"expiry/{SHARD}/{HEX}" not in state


# --- expires ---


def test_a_database_without_a_record_does_not_exist(place: Place) -> None:
    place.create(ID, 100, b"")
    (place.cells / "expiry" / SHARD / HEX).unlink()
    assert place.expires(ID) is None


def test_what_was_never_made_has_no_expiry(place: Place) -> None:
    assert place.expires(ID) is None


@pytest.mark.parametrize(
    "target", ["", "12a", "-1", " 1", "/etc/passwd", "1" * 13, "\u0661", "1.5", "../100"]
)
def test_a_record_that_is_no_second_is_no_record(place: Place, target: str) -> None:
    record = place.cells / "expiry" / SHARD / HEX
    record.parent.mkdir()
    if target:
        record.symlink_to(target)
    else:
        record.write_text("100")
    assert place.expires(ID) is None


def test_a_record_points_at_nothing_and_is_not_followed(place: Place) -> None:
    place.create(ID, 100, b"")
    record = place.cells / "expiry" / SHARD / HEX
    (record.parent / "100").symlink_to("999")
    assert place.expires(ID) == 100


# --- turns ---


def make_second(place: Place, name: str, *turns: str) -> None:
    folder = place.cells / "due" / name
    folder.mkdir()
    for turn in turns:
        (folder / turn).touch()


def test_due_are_the_seconds_up_to_now_earliest_first(place: Place) -> None:
    for second in ("300", "99", "100", "101", "20"):
        make_second(place, second)
    assert place.due_seconds(100.0) == [20, 99, 100]
    assert place.due_seconds(100.9) == [20, 99, 100]
    assert place.due_seconds(99.999) == [20, 99]


@pytest.mark.parametrize("name", ["x", "-5", "1.5", "5 ", "1" * 13, "\u0661", ".tmp", "5x"])
def test_a_second_that_is_none_of_ours_is_passed_over(place: Place, name: str) -> None:
    make_second(place, name)
    assert place.due_seconds(1e15) == []


@pytest.mark.parametrize("name", ["x", HEX[:-1], HEX + "0", HEX.upper().replace("0", "A"), ".x"])
def test_a_turn_that_is_none_of_ours_is_passed_over(place: Place, name: str) -> None:
    make_second(place, "5", name, HEX)
    assert place.turns(5) == [ID]


def test_a_second_without_a_folder_has_no_turns(place: Place) -> None:
    assert place.turns(5) == []


def test_a_second_is_closed_only_when_no_turn_is_left(place: Place) -> None:
    make_second(place, "5", HEX)
    place.close_second(5)
    assert place.turns(5) == [ID]
    place.forget(ID, 5)
    place.close_second(5)
    assert place.due_seconds(10) == []


def test_closing_a_second_that_is_gone_does_nothing(place: Place) -> None:
    place.close_second(5)


# --- removal ---


def test_moving_aside_takes_the_whole_folder_in_one_step(place: Place) -> None:
    place.create(ID, 100, b"x")
    place.move_aside(ID)
    assert not place.folder(ID).exists()
    assert (place.cells / "trash" / HEX / DATABASE).read_bytes() == b"x"


def test_moving_aside_what_is_gone_does_nothing(place: Place) -> None:
    place.move_aside(ID)
    assert tree(place) == EMPTY


def test_deleting_removes_what_was_moved_aside(place: Place) -> None:
    place.create(ID, 100, b"x")
    place.move_aside(ID)
    place.delete(ID)
    assert not any((place.cells / "trash").iterdir())


def test_deleting_what_is_gone_does_nothing(place: Place) -> None:
    place.delete(ID)
    assert tree(place) == EMPTY


def test_deleting_follows_no_link_inside(place: Place, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    place.create(ID, 100, b"x")
    (place.folder(ID) / "folder").symlink_to(kept)
    (place.folder(ID) / "file").symlink_to(kept / "file")
    place.move_aside(ID)
    place.delete(ID)
    assert [path.name for path in kept.iterdir()] == ["file"]
    assert not any((place.cells / "trash").iterdir())


@pytest.mark.parametrize("target", ["kept", "kept/file", "nowhere"])
def test_a_link_in_the_folders_place_is_removed_and_not_followed(
    place: Place, tmp_path: Path, target: str
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    place.folder(ID).parent.mkdir()
    place.folder(ID).symlink_to(tmp_path / target)
    place.move_aside(ID)
    place.delete(ID)
    assert [path.name for path in kept.iterdir()] == ["file"]
    assert not any((place.cells / "trash").iterdir())
    assert not place.folder(ID).is_symlink()


def test_a_file_in_the_folders_place_is_removed(place: Place) -> None:
    place.folder(ID).parent.mkdir()
    place.folder(ID).touch()
    place.move_aside(ID)
    place.delete(ID)
    assert tree(place) == {*EMPTY, f"instances/{SHARD}"}


def test_forgetting_drops_record_and_turn(place: Place) -> None:
    place.create(ID, 100, b"")
    place.forget(ID, 100)
    assert place.expires(ID) is None
    assert place.turns(100) == []


def test_forgetting_keeps_a_record_that_is_later_than_the_turn(place: Place) -> None:
    place.create(ID, 200, b"")
    make_second(place, "100", HEX)
    place.forget(ID, 100)
    assert place.expires(ID) == 200
    assert place.turns(100) == []
    assert place.turns(200) == [ID]


def test_forgetting_what_is_gone_does_nothing(place: Place) -> None:
    place.forget(ID, 100)
    assert tree(place) == EMPTY


def test_the_turn_is_forgotten_after_the_record(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.create(ID, 100, b"")
    removed: list[str] = []
    unlink = Path.unlink

    def watched(path: Path, *, missing_ok: bool = False) -> None:
        removed.append(path.parent.parent.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    place.forget(ID, 100)
    assert removed == ["expiry", "due"]


def test_neighbours_are_left_alone(place: Place) -> None:
    other = bytes(15) + ID[-1:]
    place.create(ID, 100, b"a")
    place.create(other, 100, b"b")
    place.move_aside(ID)
    place.delete(ID)
    place.forget(ID, 100)
    assert place.expires(other) == 100
    assert place.turns(100) == [other]
    assert (place.folder(other) / DATABASE).read_bytes() == b"b"


# --- another end ---


@pytest.mark.parametrize("after", [50, 200])
def test_a_database_is_given_another_end(place: Place, after: int) -> None:
    place.create(ID, 100, b"")
    place.change_expiry(ID, 100, after)
    assert place.expires(ID) == after
    assert place.turns(after) == [ID]
    assert place.turns(100) == []


def test_the_same_end_again_changes_nothing(place: Place) -> None:
    place.create(ID, 100, b"")
    place.change_expiry(ID, 100, 100)
    assert (place.expires(ID), place.turns(100)) == (100, [ID])


@pytest.mark.parametrize("after", [50, 200])
@pytest.mark.parametrize("step", ["touch", "symlink_to", "rename"])
def test_a_change_broken_off_leaves_one_of_the_ends_and_a_turn_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, after: int, step: str
) -> None:
    place.create(ID, 100, b"")
    with monkeypatch.context() as broken:

        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        broken.setattr(Path, step, fail)
        with pytest.raises(OSError, match="No space"):
            place.change_expiry(ID, 100, after)
    expires = place.expires(ID)
    assert expires in (100, after)
    turns = [second for second in (50, 100, 200) if ID in place.turns(second)]
    assert max(turns) >= expires, "somebody will come for it"
    place.change_expiry(ID, expires, after)
    assert place.expires(ID) == after, "and it can be done again"


# --- copy ---

OTHER = bytes(range(16, 32))


def test_a_copy_has_what_the_files_hold_and_a_record_of_its_own(place: Place) -> None:
    place.create(ID, 100, b"database")
    (place.folder(ID) / FILES[1]).write_bytes(b"log" * 100_000)
    place.copy(ID, OTHER, 200)
    assert [(place.folder(OTHER) / name).read_bytes() for name in FILES] == [
        b"database",
        b"log" * 100_000,
    ]
    assert (place.expires(ID), place.expires(OTHER)) == (100, 200)
    assert place.turns(200) == [OTHER]


def test_a_copy_of_nothing_leaves_nothing(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        place.copy(ID, OTHER, 200)
    assert place.expires(OTHER) is None
    assert not place.turns(200)
    assert not place.folder(OTHER).exists()


def test_an_id_that_exists_is_not_copied_over(place: Place) -> None:
    place.create(ID, 100, b"one")
    place.create(OTHER, 200, b"two")
    with pytest.raises(FileExistsError):
        place.copy(ID, OTHER, 200)
    assert (place.folder(OTHER) / DATABASE).read_bytes() == b"two"
    assert place.expires(OTHER) == 200
