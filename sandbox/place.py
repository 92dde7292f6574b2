"""The floor plan: where a database, its expiry record and its turn with the reaper lie.

Runs in: zygote, reaper, supervisor; standard library only.

    <data>/run/control.sock                 the control socket
    <data>/cells/instances/<shard>/<id>/    the database; all that its cell may touch
    <data>/cells/expiry/<shard>/<id>        the record: a symbolic link to "<unix second>"
    <data>/cells/expiry/<shard>/new         a record that is about to take another's place
    <data>/cells/due/<unix second>/<id>     the reaper's turn: an empty file
    <data>/cells/kept/<shard>/<id>/         kept states of it, if there are any (shelf.py)
    <data>/cells/trash/<id>/                on its way out
    <data>/cells/clock                      how far Unix time is ahead (clock.py)

The record is the truth; a cell cannot write it. It is a link because symlink(2) makes it whole in
one call and readlink(2) reads it in one, without a block on disk; it points at no file and is
never followed. The turn only says when to look, so the reaper's work follows what is due and not
what is alive. A database without a record does not exist, whatever folders are left of it.
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

DATABASE = "main.db"
#: All the files a database ever has. They are made before the cell starts, which may then write
#: them and make no other.
WAL = DATABASE + "-wal"
FILES = (DATABASE, WAL)

#: Copied in one system call: more than a file of a cell's may have (limits.RLIMITS).
_COPY_BYTES = 32 << 20
_HEX_ID = re.compile(r"[0-9a-f]{32}")
_SECOND = re.compile(r"[0-9]{1,12}")


class Place:
    """The data folder, as paths and as the few acts that change it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.run = data_dir / "run"
        self.cells = data_dir / "cells"
        self.clock = self.cells / "clock"
        self._instances = self.cells / "instances"
        self._expiry = self.cells / "expiry"
        self._due = self.cells / "due"
        self._kept = self.cells / "kept"
        self._trash = self.cells / "trash"

    def prepare(self, uid: int, gid: int) -> None:
        """Make the folders, those of the cells owned by the cells' user and closed to others."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(mode=0o755, exist_ok=True)
        own = (self._instances, self._expiry, self._due, self._kept, self._trash)
        for folder in (self.cells, *own):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.stat()
            if (found.st_uid, found.st_gid) != (uid, gid):
                os.chown(folder, uid, gid)
            if stat.S_IMODE(found.st_mode) != 0o700:  # noqa: PLR2004
                folder.chmod(0o700)

    def folder(self, instance: bytes) -> Path:
        """Where the database's files are."""
        return self._instances / _shard(instance) / instance.hex()

    def kept(self, instance: bytes) -> Path:
        """Where its kept states are."""
        return self._kept / _shard(instance) / instance.hex()

    def _record(self, instance: bytes) -> Path:
        return self._expiry / _shard(instance) / instance.hex()

    def _turn(self, instance: bytes, second: int) -> Path:
        return self._due / str(second) / instance.hex()

    def create(self, instance: bytes, expires: int, database: bytes) -> None:
        """Make turn, folder, files and record, in this order: a crash leaves nothing unreaped.

        `database` is the first content of the database file. Raises FileExistsError if the
        instance exists, OSError if the disk has no room.
        """
        folder = self._make_folder(instance, expires)
        for name in FILES:
            _open_new(folder / name, database if name == DATABASE else b"")
        self._make_record(instance, expires)

    def copy(self, source: bytes, instance: bytes, expires: int) -> None:
        """Make a database of what the files of another hold, which nobody may write meanwhile.

        As after a crash of its cell: what was committed is in it. File systems that can share
        blocks do (copy_file_range(2)). Leaves nothing where it raises OSError, which it does as
        `create` does.
        """
        folder = self._make_folder(instance, expires)
        try:
            for name in FILES:
                copy_file(self.folder(source) / name, folder / name)
            self._make_record(instance, expires)
        except OSError:
            self.move_aside(instance)
            self.delete(instance)
            self.forget(instance, expires)
            raise

    def _make_folder(self, instance: bytes, expires: int) -> Path:
        _open_new(self._turn(instance, expires), b"")
        folder = self.folder(instance)
        with_parent(folder, lambda: folder.mkdir(mode=0o700))
        return folder

    def _make_record(self, instance: bytes, expires: int) -> None:
        record = self._record(instance)
        with_parent(record, lambda: record.symlink_to(str(expires)))

    def change_expiry(self, instance: bytes, before: int, after: int) -> None:
        """Have a database expire at `after` and no longer at `before` (Unix seconds).

        For the zygote alone, which does one thing after the other. A crash in between leaves the
        earlier or the later end, and a turn for it. Raises OSError: it may be done again.
        """
        turn = self._turn(instance, after)
        if after > before:  # the later turn first: there always is one for what lives
            with_parent(turn, turn.touch)
        record = self._record(instance)
        point(record, str(after), by="new")
        if after < before:  # not before the record, or the reaper would drop it as too early
            with_parent(turn, turn.touch)
        if after != before:
            with contextlib.suppress(OSError):  # it is done; a turn too many does no harm
                self._turn(instance, before).unlink()

    def expires(self, instance: bytes) -> int | None:
        """Return the second from which the database is gone (Unix), None if there is none."""
        try:
            target = str(self._record(instance).readlink())
        except OSError:
            return None
        return int(target) if _SECOND.fullmatch(target) else None

    def due_seconds(self, now: float) -> list[int]:
        """Return every second up to `now` that has turns, earliest first.

        Costs one listing of the seconds in use: at most as many as a lifetime has, however many
        databases there are. Names that are not ours are passed over; before the first start there
        are none.
        """
        if not self._due.is_dir():
            return []
        names = (entry.name for entry in self._due.iterdir())
        seconds = (int(name) for name in names if _SECOND.fullmatch(name))
        return sorted(second for second in seconds if second <= now)

    def turns(self, second: int) -> list[bytes]:
        """Return the instances whose turn it is at that second."""
        try:
            names = [entry.name for entry in (self._due / str(second)).iterdir()]
        except OSError:
            return []
        return [bytes.fromhex(name) for name in names if _HEX_ID.fullmatch(name)]

    def move_aside(self, instance: bytes) -> None:
        """Take the database out of reach in one step (rename(2)); nothing to do if it is gone."""
        try:
            self.folder(instance).rename(self._trash / instance.hex())
        except FileNotFoundError:
            return

    def delete(self, instance: bytes) -> None:
        """Remove what was moved aside and what was kept of it, following no link."""
        remove_folder(self._trash / instance.hex())
        remove_folder(self.kept(instance))

    def forget(self, instance: bytes, second: int) -> None:
        """Drop the record if it is no later than `second`, then the turn: the last steps."""
        expires = self.expires(instance)
        if expires is None or expires <= second:
            self._record(instance).unlink(missing_ok=True)
        self._turn(instance, second).unlink(missing_ok=True)

    def close_second(self, second: int) -> None:
        """Remove a second whose turns have all been taken; leave one that has some left."""
        try:
            (self._due / str(second)).rmdir()
        except OSError:
            return


def remove_folder(folder: Path) -> None:
    """Remove what a path names, whatever it is, and follow no link. Raises OSError."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError:  # no folder, or a link (O_NOFOLLOW, open(2))
        folder.unlink(missing_ok=True)
        return
    try:
        for name in FILES:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
    try:
        folder.rmdir()
    except OSError:
        # It has more than a database has, or it cannot be removed: this one says why.
        shutil.rmtree(folder)


def point(link: Path, target: str, *, by: str) -> None:
    """Have a symbolic link say `target`, from one moment to the next (rename(2)).

    `by` is the name beside it that the new one has till then. Raises OSError.
    """
    fresh = link.with_name(by)
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)


def _shard(instance: bytes) -> str:
    # The last byte of a UUIDv7 is random; its first ones are the time and would share a folder.
    return f"{instance[-1]:02x}"


def _open_new(path: Path, content: bytes) -> None:
    def write() -> None:
        with path.open("xb") as file:
            file.write(content)

    with_parent(path, write)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into a new one; file systems that can share blocks do. Raises OSError.

    It waits for nobody who may hold a lease on it: fcntl(2), F_SETLEASE.
    """
    with (
        open(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as read,  # noqa: PTH123
        target.open("xb") as written,
    ):
        while os.copy_file_range(read.fileno(), written.fileno(), _COPY_BYTES):
            pass


def with_parent(path: Path, act: Callable[[], object]) -> None:
    """Do something at a path whose folder may not be there yet. Raises OSError."""
    try:
        act()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        act()
