"""The node's clock: Unix seconds that go on evenly, whatever is done to the machine's.

Runs in: zygote, reaper; standard library only.

A lifetime is a length of time, and CLOCK_BOOTTIME is what measures it: nobody can set it, and it
goes on while the machine sleeps (clock_gettime(2)). By how much Unix time is ahead of it is noted
once and kept for as long as the machine is up and any database lives by it. So a step of the
machine's clock neither ends a database before its time nor brings one back after it. The note is a
symbolic link, as the expiry records are, and lies where no cell can write.
"""

import re
import time
from pathlib import Path

from sandbox.place import Place, point

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NOTE = re.compile(r"([0-9a-f-]{36}) (-?[0-9]{1,20})")


class Clock:
    """Unix time that does not jump."""

    def __init__(self, ahead_ns: int) -> None:
        self._ahead_ns = ahead_ns

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._ahead_ns) / 1e9

    def ends(self, expires: int) -> int:
        """Return that Unix second in nanoseconds of CLOCK_BOOTTIME; 0 if it was before them."""
        return max(0, expires * 1_000_000_000 - self._ahead_ns)

    def off(self) -> float:
        """Return by how many seconds the machine's clock is ahead of this one."""
        return time.time() - self.now()


def read(place: Place) -> Clock | None:
    """Return the clock that was noted since the machine came up, None if none was.

    Raises OSError where /proc does not say when that was: proc_sys_kernel(5), random/boot_id.
    """
    boot_id = _BOOT_ID.read_text().strip()
    try:
        found = _NOTE.fullmatch(str(place.clock.readlink()))
    except OSError:
        return None
    return Clock(int(found[2])) if found and found[1] == boot_id else None


def keep(place: Place) -> Clock:
    """Return the noted clock; the machine's own, newly noted, if nothing lives by another.

    Raises OSError when there is none and none can be noted, and as `read` does.
    """
    noted = read(place)
    if noted and place.due_seconds(float("inf")):
        return noted
    ahead_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    try:
        point(place.clock, f"{_BOOT_ID.read_text().strip()} {ahead_ns}", by="clock.new")
    except OSError:
        if noted:
            return noted
        raise
    return Clock(ahead_ns)
