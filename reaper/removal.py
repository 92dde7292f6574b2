"""The act of removing one database, in an order that may be broken off anywhere and repeated.

Runs in: the reaper.

    1. the zygote kills the cell and says when it has ended    (nothing writes any more)
    2. the folder is moved aside                               (one rename: out of reach)
    3. what was moved is deleted, and what was kept of it      (following no link)
    4. record and turn are dropped, in this order              (the turn last: it brings us back)
"""

import time

from sandbox.blocking import BlockingClient
from sandbox.place import Place

#: How often the zygote hears of a sweep that takes long.
_TELL_S = 1.0


class Removal:
    """The steps above, for one place and one zygote, which is told how many have been removed."""

    def __init__(self, place: Place, zygote: BlockingClient) -> None:
        self._place = place
        self._zygote = zygote
        self._untold = 0
        self._told_at = 0.0

    def remove(self, instance: bytes, second: int) -> bool:
        """Remove a database that expired at `second`; say whether it is gone.

        Raises ZygoteGone, OSError: try again.
        """
        self._zygote.ask_kill(instance)
        # The zygote may have been about to extend it. From now on it does not: it is over.
        expires = self._place.expires(instance)
        if expires is not None and expires > second:
            self._place.forget(instance, second)
            return False
        self._place.move_aside(instance)
        self._place.delete(instance)
        self._place.forget(instance, second)
        self._untold += 1
        if time.monotonic() - self._told_at > _TELL_S:
            self.tell()
        return True

    def tell(self) -> None:
        """Say that the reaper is at work. Raises ZygoteGone."""
        self._told_at = time.monotonic()
        self._zygote.tell_reaped(self._untold)
        self._untold = 0
