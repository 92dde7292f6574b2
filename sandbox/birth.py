"""The birth of cells: forks in a row, with all that they need made ready before.

Runs in: the zygote. After a fork each page that either side writes is copied first, so whatever
the zygote does between two forks it pays for again and again (fork(2)).
"""

import os
import signal
import socket
from typing import NamedTuple

from sandbox import cell
from sandbox.jail import Walls
from sandbox.place import Place


class Newborn(NamedTuple):
    """A blank cell: its process id and the zygote's end of its leash."""

    pid: int
    leash: socket.socket


def fork(count: int, place: Place, walls: Walls) -> list[Newborn]:
    """Fork so many blank cells, fewer if no more can be had. Raises OSError if none can."""
    zygote = os.getpid()
    births = _prepare(count, walls)
    try:
        for birth in births:
            birth.pid = os.fork()
            if birth.pid == 0:
                signal.set_wakeup_fd(-1)
                cell.run(birth.theirs, zygote, place, walls, birth.ruleset)
    except OSError:
        if not births[0].pid:
            raise
    finally:
        for birth in births:
            birth.close()
    return [Newborn(birth.pid, birth.ours) for birth in births if birth.pid]


def _prepare(count: int, walls: Walls) -> list["_Birth"]:
    births: list[_Birth] = []
    try:
        while len(births) < count:
            births.append(_Birth(walls))
    except OSError:
        if not births:
            raise
    return births


class _Birth:
    """What one cell is born with: its end of the leash, and the empty ruleset of its jail."""

    def __init__(self, walls: Walls) -> None:
        self.pid = 0
        self.ruleset = walls.ruleset()
        try:
            self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            self.ruleset.close()
            raise

    def close(self) -> None:
        """Close what is the cell's; all, if there is none."""
        self.ruleset.close()
        self.theirs.close()
        if not self.pid:
            self.ours.close()
