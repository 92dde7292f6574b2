"""The shelf: named states of databases, kept beside them, to go back to.

Runs in: zygote. No cell may touch what is kept: whoever takes one over cannot change where its
tenant goes back to. All of this is done while the database has no cell.

    <data>/cells/kept/<shard>/<id>/<name>   a state: the whole database in one file
    <data>/cells/kept/<shard>/<id>/.new     one on its way
    <data>/cells/kept/<shard>/<id>/.back/   a database's folder on its way back, or what it replaced

What is kept counts within the database's 10 MB, with room for the largest state beside all of
them: going back never fails for want of it.
"""

import contextlib
import os
from typing import NamedTuple

from sandbox import kernel, policy
from sandbox.clock import Clock
from sandbox.control import MOST_STATES, NAME
from sandbox.errors import NoRoom, NoSuchState, NotFolded
from sandbox.place import DATABASE, WAL, Place, copy_file, remove_folder, with_parent

MOST_BYTES = policy.MAX_PAGES * policy.PAGE_BYTES


class State(NamedTuple):
    """A state: its name, the Unix second at which it was kept, its size."""

    name: str
    created: int
    bytes: int


class Shelf:
    """The states of all databases of a place."""

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock

    def states(self, instance: bytes) -> list[State]:
        """Return what is kept of a database, the earliest first."""
        try:
            entries = list(os.scandir(self._place.kept(instance)))
        except FileNotFoundError:  # most databases have none
            return []
        found = [(entry.stat(), entry.name) for entry in entries if entry.name[0] != "."]
        found.sort(key=lambda state: state[0].st_mtime_ns)
        return [State(name, int(about.st_mtime), about.st_size) for about, name in found]

    def pages_left(self, instance: bytes) -> int:
        """Return how many pages a database may have beside what is kept of it."""
        kept = sum(state.bytes for state in self.states(instance))
        return max(1, (MOST_BYTES - kept) // policy.PAGE_BYTES)

    def keep(self, instance: bytes, name: str) -> tuple[State, bool]:
        """Keep the database as it is now; return the state, and whether it takes another's place.

        Raises NoRoom, NotFolded, OSError: then all is as before. NoSuchState for no name.
        """
        if not NAME.fullmatch(name):  # it becomes a part of a path
            raise NoSuchState
        others = self.others(instance, name)
        source = self._place.folder(instance)
        if (source / WAL).stat().st_size:
            raise NotFolded
        size = (source / DATABASE).stat().st_size
        sizes = [size, *(state.bytes for state in others)]
        if sum(sizes) + max(sizes) > MOST_BYTES:
            raise NoRoom
        kept = self._place.kept(instance)
        with_parent(kept, lambda: kept.mkdir(mode=0o700, exist_ok=True))
        fresh = kept / ".new"
        fresh.unlink(missing_ok=True)
        try:
            copy_file(source / DATABASE, fresh)
            now = self._clock.now()
            os.utime(fresh, (now, now))
            replaced = (kept / name).exists()
            fresh.rename(kept / name)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
        return State(name, int(now), size), replaced

    def go_back(self, instance: bytes, name: str) -> State:
        """Have the database be what it was: from one moment to the next (renameat2(2)).

        Returns the state. Raises NoSuchState, OSError: then it is as before.
        """
        found = self.find(instance, name)
        state = self._place.kept(instance) / name
        back = state.with_name(".back")
        remove_folder(back)
        try:
            back.mkdir(mode=0o700)
            copy_file(state, back / DATABASE)
            (back / WAL).touch()
            kernel.exchange(back, self._place.folder(instance))
        finally:
            # What is not removed now is by the next, or with the database.
            with contextlib.suppress(OSError):
                remove_folder(back)
        return found

    def drop(self, instance: bytes, name: str) -> None:
        """Keep a state no longer. Raises NoSuchState, OSError."""
        self.find(instance, name)
        (self._place.kept(instance) / name).unlink()

    def find(self, instance: bytes, name: str) -> State:
        """Return the state of that name. Raises NoSuchState."""
        for state in self.states(instance):
            if state.name == name:
                return state
        raise NoSuchState

    def others(self, instance: bytes, name: str) -> list[State]:
        """Return the states of other names. Raises NoRoom if none can be added to them."""
        others = [state for state in self.states(instance) if state.name != name]
        if len(others) >= MOST_STATES:
            raise NoRoom
        return others
