"""Lifetimes: when each database is over, and how one's end is changed.

Runs in: the zygote. What is known of it lies on disk (place.py); the time is the node's own clock.
"""

import math

from sandbox.clock import Clock
from sandbox.errors import InstanceMissing, TooLong
from sandbox.place import Place


class Lifetimes:
    """The lifetimes of all databases of a place. `most_s` is the longest that callers may ask."""

    def __init__(self, place: Place, clock: Clock, most_s: int) -> None:
        self._place = place
        self._clock = clock
        self._most_s = most_s

    def end_of(self, instance: bytes) -> int:
        """Return the Unix second at which a database is over.

        Raises InstanceMissing if there is none or it is over.
        """
        expires = self._place.expires(instance)
        if expires is None or expires <= self._clock.now():
            raise InstanceMissing
        return expires

    def end_after(self, seconds: int) -> int:
        """Return the end of a lifetime that begins now.

        Whole seconds are what callers are told; rounded up, nobody gets less than the lifetime.
        """
        return math.ceil(self._clock.now() + seconds)

    def change(self, instance: bytes, before: int, after: int) -> int:
        """Have a database be over at `after` (now, if that is past), and no longer at `before`.

        Returns the end that it has then. Raises TooLong; OSError, and its end stays.
        """
        now = self._clock.now()
        after = max(after, int(now))
        # When it was made, by its id (RFC 9562, 5.7).
        born = min(int.from_bytes(instance[:6]) / 1000, now)
        if after > max(before, born + self._most_s):
            raise TooLong
        self._place.change_expiry(instance, before, after)
        return after
