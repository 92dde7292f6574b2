"""One round: take every turn that is due, remove what has expired, keep what has been extended.

Runs in: the reaper. The cost follows what is due: one listing of the seconds in use, then one
step for each turn up to now.
"""

import logging
from collections.abc import Callable

from reaper.removal import Removal
from sandbox.errors import ZygoteGone
from sandbox.place import Place

log = logging.getLogger("walkin.reaper")


def sweep(place: Place, removal: Removal, now: float, stop: Callable[[], bool]) -> int:
    """Remove what expired up to `now` (Unix seconds) and return how many databases that were.

    A turn that fails is left for the next round; one bad folder does not hold up the others.
    Without the zygote nothing is removed: a cell may still be at work. `stop` ends the round early.
    """
    removed = 0
    for second in place.due_seconds(now):
        for instance in place.turns(second):
            if stop():
                return removed
            try:
                removed += _take_turn(place, removal, instance, second, now)
            except ZygoteGone as cause:
                log.warning("waiting for the zygote: %s", cause)
                return removed
            except OSError as cause:
                log.error("instance %s is not removed yet: %s", instance.hex(), cause)
        place.close_second(second)
    return removed


def _take_turn(place: Place, removal: Removal, instance: bytes, second: int, now: float) -> int:
    expires = place.expires(instance)
    if expires is not None and expires > now:
        # Extended since: a later turn stands for it.
        place.forget(instance, second)
        return 0
    return int(removal.remove(instance, second))
