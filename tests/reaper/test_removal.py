"""Removal: in an order that may be broken off anywhere and repeated, following no link."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reaper.removal import Removal
from sandbox import control
from sandbox.blocking import BlockingClient
from sandbox.control import Op, Outcome
from sandbox.errors import ZygoteGone
from sandbox.place import DATABASE, Place
from tests.sandbox.handles import FakeZygote, Zygote, done, fake_zygote, traces

ID = bytes(range(16))
OTHER = bytes(15) + ID[-1:]


EVERYWHERE = {"instances", "expiry", "due"}


def test_a_removed_database_leaves_nothing(
    place: Place, removal: Removal, zygote: FakeZygote
) -> None:
    place.create(ID, 100, b"x")
    removal.remove(ID, 100)
    assert traces(place, ID) == set()


def test_the_cell_is_killed_while_everything_is_still_in_place(
    place: Place, removal: Removal, start_fake: Callable[..., FakeZygote]
) -> None:
    seen: list[set[str]] = []

    def look(packet: bytes) -> tuple[bytes, list[int]]:
        seen.append(traces(place, ID))
        return done(packet)

    zygote = start_fake(look)
    place.create(ID, 100, b"x")
    removal.remove(ID, 100)
    assert seen == [EVERYWHERE]
    assert [(request.op, request.instance) for request in zygote.requests] == [(Op.KILL, ID)]


def test_neighbours_are_left_alone(place: Place, removal: Removal, zygote: FakeZygote) -> None:
    place.create(ID, 100, b"x")
    place.create(OTHER, 100, b"y")
    removal.remove(ID, 100)
    assert traces(place, OTHER) == EVERYWHERE
    assert (place.folder(OTHER) / DATABASE).read_bytes() == b"y"


def test_without_a_zygote_nothing_is_touched(place: Place, removal: Removal) -> None:
    place.create(ID, 100, b"x")
    with pytest.raises(ZygoteGone):
        removal.remove(ID, 100)
    assert traces(place, ID) == EVERYWHERE


@pytest.mark.parametrize("outcome", [Outcome.BUSY, Outcome.FAILED, Outcome.MISSING, None])
def test_unless_the_zygote_says_that_the_cell_has_ended_nothing_is_touched(
    place: Place,
    removal: Removal,
    start_fake: Callable[..., FakeZygote],
    outcome: Outcome | None,
) -> None:
    def refuse(packet: bytes) -> tuple[bytes, list[int]] | None:
        number = control.decode_request(packet).number
        return None if outcome is None else (control.encode_reply(outcome, number), [])

    start_fake(refuse)
    place.create(ID, 100, b"x")
    with pytest.raises(ZygoteGone):
        removal.remove(ID, 100)
    assert traces(place, ID) == EVERYWHERE


STEPS = ["move_aside", "delete", "forget"]


@pytest.mark.parametrize("done_before", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_removal_broken_off_at_a_step_is_finished_the_next_time(
    place: Place,
    removal: Removal,
    zygote: FakeZygote,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    done_before: bool,
) -> None:
    place.create(ID, 100, b"x")
    act = getattr(Place, step)

    def broken(place: Place, *args: object) -> None:
        if done_before:
            act(place, *args)
        raise OSError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(Place, step, broken)
        with pytest.raises(OSError, match="broken off"):
            removal.remove(ID, 100)
    if not (step == "forget" and done_before):
        # The turn is what brings the reaper back.
        assert "due" in traces(place, ID)
    removal.remove(ID, 100)
    assert traces(place, ID) == set()


def test_a_deletion_broken_off_in_the_middle_is_finished_the_next_time(
    place: Place, removal: Removal, zygote: FakeZygote
) -> None:
    place.create(ID, 100, b"x")
    place.move_aside(ID)
    (place.cells / "trash" / ID.hex() / DATABASE).unlink()
    removal.remove(ID, 100)
    assert traces(place, ID) == set()


@pytest.mark.parametrize("lost", ["record", "folder", "both"])
def test_a_creation_broken_off_in_the_middle_is_removed_too(
    place: Place, removal: Removal, zygote: FakeZygote, lost: str
) -> None:
    place.create(ID, 100, b"x")
    if lost in ("record", "both"):
        (place.cells / "expiry" / "0f" / ID.hex()).unlink()
    if lost in ("folder", "both"):
        for path in place.folder(ID).iterdir():
            path.unlink()
        place.folder(ID).rmdir()
    removal.remove(ID, 100)
    assert traces(place, ID) == set()


def test_removing_what_is_gone_does_nothing(
    place: Place, removal: Removal, zygote: FakeZygote
) -> None:
    removal.remove(ID, 100)
    assert traces(place, ID) == set()


def test_a_record_that_is_later_is_kept(place: Place, removal: Removal, zygote: FakeZygote) -> None:
    place.create(ID, 200, b"x")
    removal.remove(ID, 100)
    assert place.expires(ID) == 200
    assert place.turns(200) == [ID]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Something outside that no removal may reach."""
    folder = tmp_path / "kept"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("kept")
    (folder / "sub" / "file").write_text("kept")
    return folder


def is_whole(kept: Path) -> bool:
    files = [kept / "file", kept / "sub" / "file"]
    return all(path.read_text() == "kept" for path in files)


@pytest.mark.parametrize("target", ["", "file", "sub"])
def test_links_inside_a_folder_are_not_followed(
    place: Place, removal: Removal, zygote: FakeZygote, kept: Path, target: str
) -> None:
    place.create(ID, 100, b"x")
    (place.folder(ID) / "link").symlink_to(kept / target)
    (place.folder(ID) / "deep").mkdir()
    (place.folder(ID) / "deep" / "link").symlink_to(kept / target)
    removal.remove(ID, 100)
    assert traces(place, ID) == set()
    assert is_whole(kept)


@pytest.mark.parametrize("where", ["instances/0f", "trash"])
@pytest.mark.parametrize("target", ["", "file", "nowhere"])
def test_a_link_in_the_folders_own_place_is_removed_and_not_followed(
    place: Place, removal: Removal, zygote: FakeZygote, kept: Path, where: str, target: str
) -> None:
    (place.cells / where).mkdir(exist_ok=True)
    (place.cells / where / ID.hex()).symlink_to(kept / target)
    removal.remove(ID, 100)
    assert not os.path.lexists(place.cells / where / ID.hex())
    assert is_whole(kept)


def test_the_record_is_not_followed(
    place: Place, removal: Removal, zygote: FakeZygote, kept: Path
) -> None:
    place.create(ID, 100, b"x")
    record = place.cells / "expiry" / "0f" / ID.hex()
    record.unlink()
    record.symlink_to(kept / "file")
    removal.remove(ID, 100)
    assert traces(place, ID) == set()
    assert is_whole(kept)


def test_a_hard_link_keeps_its_content(
    place: Place, removal: Removal, zygote: FakeZygote, kept: Path
) -> None:
    place.create(ID, 100, b"x")
    os.link(kept / "file", place.folder(ID) / "hard")
    removal.remove(ID, 100)
    assert is_whole(kept)


def test_a_live_cell_is_ended_before_its_folder_goes(folder: Path) -> None:
    zygote = Zygote(folder / "data", blank_cells=0)
    client = BlockingClient(zygote.place.run, 5)
    try:
        zygote.start()
        instance, line = zygote.create(ttl_s=2)
        assert line.sql("SELECT 1").rows == [[1]]
        expires = zygote.place.expires(instance)
        assert expires is not None
        assert Removal(zygote.place, client).remove(instance, expires)
        assert line.next_frame() is None
        assert zygote.ask(Op.OPEN, instance)[0].outcome is Outcome.MISSING
        assert traces(zygote.place, instance) == set()
        assert zygote.status()["live_cells"] == 0
    finally:
        client.close()
        zygote.close()


def test_what_is_extended_while_its_cell_is_killed_is_kept(place: Place) -> None:
    """The reaper has seen it expired, and the zygote was about to extend it."""
    place.create(ID, 100, b"x")

    def extend_then_answer(packet: bytes) -> tuple[bytes, list[int]]:
        place.change_expiry(ID, 100, 200)
        return done(packet)

    with fake_zygote(place.run, extend_then_answer):
        client = BlockingClient(place.run, 5)
        assert Removal(place, client).remove(ID, 100) is False
        client.close()
    assert (place.expires(ID), place.turns(200), place.turns(100)) == (200, [ID], [])
    assert (place.folder(ID) / "main.db").exists()
